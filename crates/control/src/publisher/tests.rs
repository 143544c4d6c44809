//! Scenarios of the publisher: configs, probes, operators and time go in; who may serve comes out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use balance::State;
use balance::health::{Cause, Outcome};

use super::{Action, Changes, Notice, Probe, Publisher};
use crate::handover::{Obeyed, Word};
use crate::live::{Member, PoolView};
use crate::message::{Answer, Event, Receipt, Reply};
use crate::world::World;
use wire::agent_check::decode_agent_line;

mod affinity;
mod capacity;
mod carried;
mod drains;
mod drains_over;
mod drills;
mod handovers;
mod health;
mod homes;
mod learnt;
mod let_go;
mod limits;
mod names;
mod outlier;
mod own_words;
mod places;
mod predecessors;
mod reloads;
mod subsets;

/// A publisher, its clock, and servers that answer probes as the story wants.
struct Scene {
    publisher: Publisher,
    now: Duration,
    world: Arc<World>,
    /// What a probe of each server finds; a server that is not named here passes.
    fates: BTreeMap<String, Option<Outcome>>,
    probes: Vec<(Duration, Probe)>,
    asked: Vec<(Duration, Arc<str>)>,
    log: Vec<String>,
    cuts: Vec<u32>,
    idle_closed: Vec<u32>,
    severed: Vec<u32>,
    /// What the process before this one was told.
    forwarded: Vec<Word>,
    /// What the process after this one was told.
    obeyed: Vec<Obeyed>,
    /// What the agent of each server says; without a line it does not answer.
    lines: BTreeMap<String, Result<String, Arc<str>>>,
    agents_asked: usize,
}

struct Text<'a>(&'a str);

impl config::Source for Text<'_> {
    fn read(&self, _: &str) -> Result<String, String> {
        Ok(self.0.to_owned())
    }
    fn glob(&self, _: &str) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
    fn env(&self, _: &str) -> Option<String> {
        None
    }
    fn resolves(&self, _: &str) -> Option<bool> {
        None
    }
}

/// One HTTP listener in front of one pool, `site`, with these settings.
fn site(settings: &str) -> String {
    format!(
        "listeners: {{ web: {{ bind: '127.0.0.1:8080', pool: site }} }}\npools: {{ site: {{ {settings} }} }}\n"
    )
}

pub(crate) fn snapshot(text: &str) -> Arc<config::Snapshot> {
    let loaded = config::load("test.yaml", &Text(text));
    let found: Vec<_> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    Arc::new(loaded.snapshot.unwrap_or_else(|| panic!("{found:#?}")))
}

fn bad_status() -> Outcome {
    Outcome::Failure(Cause::Status {
        status: 503,
        expected: "200-299".into(),
    })
}

fn refused() -> Outcome {
    Outcome::Failure(Cause::Refused)
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

impl Scene {
    /// Nobody was probed yet.
    fn start(config: &str) -> Self {
        let mut publisher = Publisher::new(2, 7);
        let now = Duration::from_secs(100);
        let (world, _) = publisher.apply(snapshot(config), now);
        let mut scene = Self {
            publisher,
            now,
            world,
            fates: BTreeMap::new(),
            probes: Vec::new(),
            asked: Vec::new(),
            log: Vec::new(),
            cuts: Vec::new(),
            idle_closed: Vec::new(),
            severed: Vec::new(),
            forwarded: Vec::new(),
            obeyed: Vec::new(),
            lines: BTreeMap::new(),
            agents_asked: 0,
        };
        scene.take_actions();
        scene
    }

    /// The first probes are over.
    fn running(config: &str) -> Self {
        let mut scene = Self::start(config);
        scene.pass(1000);
        scene
    }

    fn reload(&mut self, config: &str) -> Changes {
        let (world, changes) = self.publisher.apply(snapshot(config), self.now);
        self.world = world;
        self.take_actions();
        changes
    }

    /// What probes of a server find from now on; `None`: they do not end.
    fn fate(&mut self, server: &str, fate: impl Into<Option<Outcome>>) {
        self.fates.insert(server.to_owned(), fate.into());
    }

    /// Lets time go by, and what becomes due happen at its time.
    fn pass(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        let mut turns = 0;
        while let Some(due) = self.publisher.poll_timeout().filter(|due| *due <= until) {
            self.now = due.max(self.now);
            self.publisher.handle_timeout(self.now);
            self.take_actions();
            turns += 1;
            assert!(turns < 100_000, "the publisher does not come to rest");
        }
        self.now = until;
    }

    fn event(&mut self, event: Event) {
        self.publisher.handle_event(event, self.now);
        self.publisher.handle_timeout(self.now);
        self.take_actions();
    }

    /// Real traffic meets a closed port.
    fn refuse(&mut self, server: &str) {
        let member = self.member(server);
        assert!(member.note_refused(), "{server} was reported already");
        self.event(Event::Refused { member: member.id });
    }

    fn resolve(&mut self, name: &str, answer: Result<(Vec<IpAddr>, Duration), &str>) {
        self.event(Event::Resolved {
            name: name.into(),
            answer: answer.map_err(str::to_owned),
        });
    }

    fn set(
        &mut self,
        server: &str,
        state: impl Into<Option<State>>,
        weight: impl Into<Option<u32>>,
    ) {
        let (reply, answers) = reply();
        let (state, weight) = (state.into(), weight.into());
        self.publisher
            .handle_set("site", server, state, weight, reply, self.now);
        self.take_actions();
        let answer = answers.try_recv();
        assert!(matches!(answer, Ok(Answer::Done)), "{answer:?}");
    }

    fn drain(&mut self, server: &str, timeout_ms: u64) -> Receiver<Answer> {
        let (reply, answers) = reply();
        let timeout = Some(Duration::from_millis(timeout_ms));
        self.publisher
            .handle_drain("site", server, timeout, reply, self.now);
        self.take_actions();
        answers
    }

    fn take_actions(&mut self) {
        while let Some(action) = self.publisher.poll_action() {
            match action {
                Action::Probe(probe) => {
                    let server = self.name_of(probe.member);
                    let fate = self.fates.get(&*server).cloned();
                    self.probes.push((self.now, probe.clone()));
                    if let Some(outcome) = fate.unwrap_or(Some(Outcome::Success)) {
                        let (member, probe) = (probe.member, probe.number);
                        let event = Event::Probed {
                            member,
                            probe,
                            outcome,
                        };
                        self.publisher.handle_event(event, self.now);
                    }
                }
                Action::AskAgent(probe) => {
                    let server = self.name_of(probe.member);
                    self.agents_asked += 1;
                    let line = self.lines.get(&*server).cloned();
                    let line = line.unwrap_or_else(|| Err("connection refused".into()));
                    let event = Event::AgentSaid {
                        member: probe.member,
                        number: probe.number,
                        answer: line.map(|line| decode_agent_line(line.as_bytes())),
                    };
                    self.publisher.handle_event(event, self.now);
                }
                Action::Resolve(name) => self.asked.push((self.now, name)),
                Action::Cut(member) => self.cuts.push(member),
                Action::CloseIdle(member) => self.idle_closed.push(member),
                Action::Sever(member) => {
                    assert!(member.is_crashed(), "its drill is over");
                    self.severed.push(member.id);
                }
                Action::Log(notice) => self.log.push(told(&notice)),
                Action::Reply(reply, answer) => reply(answer),
                Action::Forward(word) => self.forwarded.push(word),
                Action::Obeyed(obeyed) => self.obeyed.push(obeyed),
            }
        }
    }

    fn view(&self) -> Arc<PoolView> {
        self.world.pool("site").unwrap().1.view()
    }

    /// Names of the servers that may be picked.
    fn usable(&self) -> Vec<String> {
        let view = self.view();
        let usable = view.standings.iter().filter(|standing| standing.usable);
        let names: Vec<_> = usable
            .map(|standing| standing.member.name.to_string())
            .collect();
        assert_eq!(names.len(), view.members.len());
        names
    }

    fn member(&self, server: &str) -> Arc<Member> {
        let view = self.view();
        let mut standings = view.standings.iter();
        let found = standings.find(|standing| *standing.member.name == *server);
        found
            .unwrap_or_else(|| panic!("no server {server}"))
            .member
            .clone()
    }

    fn weight(&self, server: &str) -> u32 {
        let view = self.view();
        let mut standings = view.standings.iter();
        standings
            .find(|standing| *standing.member.name == *server)
            .unwrap()
            .weight
    }

    fn name_of(&self, id: u32) -> Arc<str> {
        let entries = self.publisher.pools.values();
        let mut slots = entries.flat_map(|entry| &entry.slots);
        let slot = slots.find(|slot| slot.member.id == id);
        slot.map_or_else(|| "gone".into(), |slot| slot.member.name.clone())
    }

    /// When this server was probed, in milliseconds after `since`.
    fn probed(&self, server: &str, since: Duration) -> Vec<u64> {
        let id = self.member(server).id;
        let of_server = self.probes.iter().filter(|(_, probe)| probe.member == id);
        let after = of_server.filter_map(|(at, _)| at.checked_sub(since));
        after.map(|at| at.as_millis() as u64).collect()
    }
}

fn reply() -> (Reply, Receiver<Answer>) {
    let (sender, receiver) = channel();
    (Box::new(move |answer| drop(sender.send(answer))), receiver)
}

fn receipt(answers: &Receiver<Answer>) -> Receipt {
    match answers.try_recv() {
        Ok(Answer::Drained(receipt)) => receipt,
        other => panic!("{other:?}"),
    }
}

fn told(notice: &Notice) -> String {
    match notice {
        Notice::Health {
            server,
            from,
            to,
            cause,
            ..
        } => format!("{server}: {from} -> {to}, {cause}"),
        Notice::Panic { on, .. } => format!("panic {on}"),
        Notice::Resolved { name, addresses } => format!("{name} is {addresses:?}"),
        Notice::NotResolved { name, error } => format!("{name} not resolved: {error}"),
        Notice::Says {
            server,
            says,
            state,
            ..
        } => format!("{server} says {says}: {state}"),
        Notice::Cut { server, count, .. } => format!("{server}: {count} cut"),
        Notice::Drill { server, what, .. } => format!("drill of {server} {what}"),
        Notice::Capacity { pool, on, outlook } => {
            let worst = outlook.as_deref().map_or_else(String::new, super::worst);
            format!("capacity of {pool} {on}: {worst}")
        }
        Notice::Operator { server, what, .. } => format!("{server}: {what}"),
        Notice::HeavySource {
            source, percent, ..
        } => format!("{source} carries {percent:.0} %"),
        Notice::Forgotten { what, count, .. } => format!("{what} forgotten: {count}"),
        Notice::Paused {
            listener,
            cause,
            lasted,
        } => format!("{listener} paused for {}: {lasted:?}", cause.name()),
    }
}

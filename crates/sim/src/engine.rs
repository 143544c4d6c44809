//! The clock of a run: what happens next, and who is told.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use config::Snapshot;
use control::message::{Answer, Event};
use control::publisher::{Action, Publisher};
use control::world::World;

use crate::agenda::{Agenda, Happening};
use crate::bound::Clients;
use crate::decisions::Decisions;
use crate::exchange::{Buffers, Outcome, Request};
use crate::hosts::Host;
use crate::judge::{Judge, Rule};
use crate::random::Random;
use crate::report::Report;
use crate::scenario::{Condition, Life, Scenario, Step};
use crate::waits::Woken;
use crate::workers::{Worker, states};
use wire::agent_check::decode_agent_line;

/// When a scenario starts, on the publisher's clock.
pub(crate) const START: Duration = Duration::from_secs(100);
/// Every request has to have ended this long after the last has come.
const LAST_END: Duration = Duration::from_secs(120);
/// How long a message to the publisher, or a world to a worker, is on its way at most.
const MESSAGE_MAX: Duration = Duration::from_millis(2);

/// One run.
pub(crate) struct Engine<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) decisions: &'a mut dyn Decisions,
    pub(crate) random: Random,
    pub(crate) now: Duration,
    pub(crate) hosts: Vec<Host>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) requests: Vec<Request>,
    pub(crate) judge: Judge,
    pub(crate) woken: Woken,
    /// Requests that have taken a place in the queue, and the moment of each.
    pub(crate) entered: Vec<(usize, u64)>,
    /// Who comes again, where something binds clients.
    pub(crate) clients: Option<Clients>,
    publisher: Publisher,
    /// The publisher was called since its actions were taken last.
    acted: bool,
    /// When it wants to be called.
    publisher_due: Option<Duration>,
    world: Arc<World>,
    pub(crate) agenda: Agenda,
    /// Requests that have not ended, in the order in which they came.
    running: Vec<usize>,
    /// Of requests that have ended, for those to come.
    spare: Vec<Buffers>,
    answers: (Sender<Answer>, Receiver<Answer>),
    traced: bool,
    pub(crate) report: Report,
}

impl<'a> Engine<'a> {
    pub(crate) fn new(
        scenario: &'a Scenario,
        decisions: &'a mut dyn Decisions,
        traced: bool,
    ) -> Self {
        let mut random = Random::new(scenario.seed);
        let mut publisher = Publisher::new(scenario.workers, random.bits());
        let first = scenario.first_servers();
        let (world, _) = publisher.apply(snapshot(scenario, &first), START);
        let workers = (0..scenario.workers)
            .map(|number| Worker::new(number, &world, random.bits()))
            .collect();
        let servers = &scenario.servers;
        let affinity = world
            .snapshot
            .pools
            .first()
            .and_then(|it| it.affinity.clone());
        let clients = affinity.zip(scenario.affinity);
        let clients = clients.map(|(affinity, plan)| Clients::new(affinity, plan.clients));
        let mut engine = Self {
            scenario,
            decisions,
            random,
            now: START,
            hosts: servers.iter().map(|plan| Host::new(plan.latency)).collect(),
            workers,
            requests: Vec::with_capacity(scenario.requests_about()),
            judge: Judge::new(scenario),
            woken: Woken::default(),
            entered: Vec::new(),
            clients,
            publisher,
            acted: true,
            publisher_due: None,
            world,
            agenda: Agenda::default(),
            running: Vec::new(),
            spare: Vec::new(),
            answers: channel(),
            traced,
            report: Report {
                seed: scenario.seed,
                ..Report::default()
            },
        };
        for (number, (at, _)) in scenario.steps.iter().enumerate() {
            engine.at(START + *at, Happening::Step(number as u32));
        }
        engine.at(START + scenario.warm_up, Happening::Arrives);
        engine
    }

    pub(crate) fn run(mut self) -> Report {
        self.judge_world();
        let last = START + self.scenario.length + LAST_END;
        loop {
            let requests = &self.requests;
            let runs = |id: u32, number| requests[id as usize].at(number).is_some();
            let next = self.agenda.next_at(runs);
            let publisher = self.publisher_due;
            let over = self.now >= START + self.scenario.length && self.running.is_empty();
            let at = match (next, publisher) {
                (Some(next), Some(publisher)) => next.min(publisher),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => break,
            };
            if over || at > last {
                break;
            }
            self.now = self.now.max(at);
            if publisher.is_some_and(|publisher| publisher <= self.now) {
                self.publisher.handle_timeout(self.now);
                self.acted = true;
            } else if let Some(happening) = self.agenda.pop() {
                self.handle(happening);
            }
            self.take_actions();
            self.settle_queue();
        }
        for id in std::mem::take(&mut self.running) {
            self.judge.object(
                self.now,
                Rule::Ends,
                format!("request {id} has not ended {LAST_END:?} after the last one came"),
            );
        }
        if let Some(pool) = self.world.pools.first() {
            self.judge.handle_rest(self.now, pool.gate.waiting());
        }
        self.judge.finish(self.now, &mut self.report);
        self.report
    }

    /// Something is to happen.
    pub(crate) fn at(&mut self, at: Duration, happening: Happening) {
        self.agenda.add(at, happening);
    }

    /// A worker tells the publisher something.
    pub(crate) fn tell(&mut self, event: Event) {
        let after = self.random.time(Duration::from_micros(20), MESSAGE_MAX);
        self.at(self.now + after, Happening::Hears(Box::new(event)));
    }

    /// A line of the trace.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.traced {
            let at = self.now.saturating_sub(START).as_secs_f64();
            self.report.trace.push(format!("{at:9.4} s: {}", line()));
        }
    }

    pub(crate) fn finish(&mut self, id: usize, outcome: Outcome) {
        if let Ok(at) = self.running.binary_search(&id) {
            self.running.remove(at);
        }
        self.free_client(id);
        self.note(|| format!("request {id}: {outcome:?}"));
        let bits = match outcome {
            Outcome::Answered(status) => {
                self.report.answered += 1;
                self.report.errors += u64::from(status >= 500);
                u64::from(status)
            }
            Outcome::Failed(reason) => {
                *self.report.failed.entry(reason.name()).or_default() += 1;
                1000 + reason as u64
            }
        };
        self.digest(id as u64);
        self.digest(bits);
        let request = &self.requests[id];
        let budget = &self.workers[request.worker].pools[request.part]
            .state
            .budget;
        self.decisions.withdraw(&request.allowance, budget);
        self.judge.handle_end(self.now, id, request, outcome);
        self.spare.push(self.requests[id].take_buffers());
    }

    fn digest(&mut self, bits: u64) {
        let mixed = self.report.digest ^ bits ^ (self.now.as_nanos() as u64).rotate_left(20);
        self.report.digest = Random::new(mixed).bits();
    }

    fn handle(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives => self.handle_arrival(),
            Happening::Stage {
                request,
                number,
                stage,
            } => self.handle_stage(request as usize, number, stage),
            Happening::Retries { request, number } => self.handle_retries(request as usize, number),
            Happening::RaceTime(request) => self.handle_race_time(request as usize),
            Happening::QueueOver { request, number } => {
                self.handle_queue_over(request as usize, number);
            }
            Happening::Hears(event) => {
                self.note(|| format!("{event:?}"));
                self.judge.handle_event(self.now, &event);
                if let Some(event) = self.decisions.hear(*event) {
                    self.acted = true;
                    self.publisher.handle_event(event, self.now);
                    // As the shell does, before it waits.
                    self.publisher.handle_timeout(self.now);
                }
            }
            Happening::World(worker, world) => {
                let seed = self.random.bits();
                if let Some(worker) = self.workers.get_mut(worker as usize) {
                    worker.take_world(&world, seed);
                }
            }
            Happening::Step(number) => {
                if let Some((_, step)) = self.scenario.steps.get(number as usize) {
                    self.handle_step(step);
                }
            }
        }
    }

    fn handle_arrival(&mut self) {
        let gap = Duration::from_secs_f64(1.0 / self.scenario.rate.max(0.001));
        let next = self.now + self.random.exponential(gap);
        if next < START + self.scenario.length {
            self.at(next, Happening::Arrives);
        }
        let worker = self.random.below(self.workers.len());
        let idempotent = self.random.chance(self.scenario.idempotent);
        let key = self.random.bits();
        let priority = match self.scenario.priorities {
            true => self.random.below(10) as u8,
            false => 5,
        };
        let id = self.requests.len();
        let buffers = self.spare.pop().unwrap_or_default();
        let mut request = Request::new(self.scenario, worker, idempotent, priority, key, buffers);
        if let (Some(clients), Some(plan)) = (&mut self.clients, &self.scenario.affinity) {
            let from = self.random.below(plan.clients);
            request.client = clients.take(from, plan.clients);
            request.bond = self.read_bond(request.client, worker);
            self.judge.handle_client(id, request.client);
        }
        if self.scenario.parts > 0 {
            request.part = self.random.below(self.scenario.parts + 1);
        }
        self.requests.push(request);
        self.running.push(id);
        self.report.requests += 1;
        self.judge.handle_request(self.now, id);
        let part = self.requests[id].part;
        if let Some(worker) = self.workers.get(worker) {
            worker.pools[part].state.budget.handle_request(self.now);
        }
        self.next_try(id);
    }

    fn handle_step(&mut self, step: &Step) {
        self.note(|| format!("{step:?}"));
        self.acted = true;
        let now = self.now;
        self.judge.handle_disturbance(now);
        match step {
            Step::Becomes(server, condition) => self.turn(*server, *condition),
            Step::State(server, state) => {
                let reply = self.reply();
                let name = Scenario::name(*server);
                self.publisher
                    .handle_set("site", &name, Some(*state), None, reply, now);
                self.judge.handle_state(now, *server, *state);
            }
            Step::Weight(server, weight) => {
                let reply = self.reply();
                let name = Scenario::name(*server);
                self.publisher
                    .handle_set("site", &name, None, Some(*weight), reply, now);
                self.judge.handle_weight(now, *server, *weight);
            }
            Step::Drain(server, timeout) => {
                let reply = self.reply();
                let name = Scenario::name(*server);
                self.publisher
                    .handle_drain("site", &name, Some(*timeout), reply, now);
                self.judge.handle_drain(now, *server, *timeout);
            }
            Step::Says(server, word) => {
                if let Some(host) = self.hosts.get_mut(*server) {
                    host.says = word;
                }
            }
            Step::Reload(servers) => {
                let snapshot = snapshot(self.scenario, servers);
                let (world, _) = self.publisher.apply(snapshot, now);
                self.world = world;
                self.judge.handle_reload(now, servers);
                self.judge_world();
                for worker in 0..self.workers.len() {
                    let after = self.random.time(Duration::ZERO, MESSAGE_MAX);
                    let world = self.world.clone();
                    self.at(now + after, Happening::World(worker as u32, world));
                }
            }
        }
        let well = self.hosts.iter().all(|it| it.condition == Condition::WELL);
        self.judge.handle_step(now, well);
    }

    fn turn(&mut self, server: usize, condition: Condition) {
        let Some(host) = self.hosts.get_mut(server) else {
            return;
        };
        let dies = host.turn(condition, self.now);
        let runs = condition.life == Life::Up;
        self.judge.handle_turn(&condition);
        for (id, number) in self.running_on(|host, _| host == server) {
            if dies {
                self.break_try(id, number);
            } else if runs {
                self.resume_try(id, number);
            }
        }
    }

    /// Tries whose server, or member, is such.
    fn running_on(&self, is: impl Fn(usize, u32) -> bool) -> Vec<(usize, u32)> {
        let tries = self.running.iter().flat_map(|id| {
            let running = self.requests[*id].running.iter();
            running.map(|it| (*id, it))
        });
        tries
            .filter(|(_, it)| is(it.host, it.member().id))
            .map(|(id, it)| (id, it.number))
            .collect()
    }

    fn reply(&self) -> control::message::Reply {
        let sender = self.answers.0.clone();
        Box::new(move |answer| drop(sender.send(answer)))
    }

    /// Does what the publisher wants, if it was called.
    pub(crate) fn take_actions(&mut self) {
        if !std::mem::take(&mut self.acted) {
            return;
        }
        while let Some(action) = self.publisher.poll_action() {
            match action {
                Action::Probe(probe) => self.send_probe(&probe),
                Action::Cut(member) => self.cut(member),
                Action::Log(notice) => {
                    self.note(|| format!("{notice:?}"));
                    self.judge.handle_notice(self.now, &notice);
                }
                Action::Reply(reply, answer) => reply(answer),
                Action::AskAgent(probe) => self.ask_agent(&probe),
                // No config here has a name, and no story a drill or an upgrade.
                Action::Resolve(_)
                | Action::CloseIdle(_)
                | Action::Sever(_)
                | Action::Forward(_)
                | Action::Obeyed(_) => {}
            }
        }
        while let Ok(answer) = self.answers.1.try_recv() {
            self.note(|| format!("{answer:?}"));
            self.judge.handle_answer(self.now, &answer);
        }
        self.judge_view();
        self.judge.handle_limits(self.now, self.decisions);
        self.publisher_due = self.publisher.poll_timeout();
    }

    fn send_probe(&mut self, probe: &control::publisher::Probe) {
        self.report.probes += 1;
        let Some(host) = self.judge.server_of(probe.member) else {
            return;
        };
        let (took, outcome) = self.hosts[host].probe(&probe.check, &mut self.random);
        let event = Event::Probed {
            member: probe.member,
            probe: probe.number,
            outcome,
        };
        self.at(self.now + took, Happening::Hears(Box::new(event)));
    }

    /// The deadline of a drain has come.
    fn cut(&mut self, member: u32) {
        self.judge.handle_cut(self.now, member);
        for (id, number) in self.running_on(|_, on| on == member) {
            self.cut_try(id, number);
            // Who has to make room in the queue hears of it before the next one comes.
            self.settle_queue();
        }
    }

    fn ask_agent(&mut self, probe: &control::publisher::AgentProbe) {
        let Some(host) = self.judge.server_of(probe.member) else {
            return;
        };
        let (took, says) = self.hosts[host].agent();
        let event = Event::AgentSaid {
            member: probe.member,
            number: probe.number,
            answer: says
                .map(|line| decode_agent_line(line.as_bytes()))
                .ok_or_else(|| "no answer".into()),
        };
        self.at(self.now + took, Happening::Hears(Box::new(event)));
    }

    fn judge_world(&mut self) {
        if let Some(pool) = self.world.pools.first() {
            self.judge.handle_members(self.now, &pool.view());
        }
        self.take_actions();
    }

    fn judge_view(&mut self) {
        let world = self.world.clone();
        for (part, pool) in states(&world).enumerate() {
            if !self.judge.is_new(part, pool.version()) {
                continue;
            }
            let view = self.decisions.show(pool.view());
            self.note(|| {
                let names: Vec<&str> = view.members.iter().map(|it| &*it.name).collect();
                format!("usable of {}: {}", pool.shown(), names.join(" "))
            });
            self.judge.handle_view(self.now, part, pool.version(), view);
        }
    }
}

/// Configs as the scenario writes them are valid.
fn snapshot(scenario: &Scenario, servers: &[(usize, u32)]) -> Arc<Snapshot> {
    let loaded = config::load("evenkeel.yaml", &Text(&scenario.config(servers)));
    let found: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    Arc::new(
        loaded
            .snapshot
            .unwrap_or_else(|| panic!("the scenario's config is refused: {found:#?}")),
    )
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

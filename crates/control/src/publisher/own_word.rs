//! What a server says of itself, beside its operator: by a mark in the answers to its probes, or by HAProxy's agent check.
//!
//! The operator's word wins: `drain` and `disabled` hold whatever the server says, `enable` puts aside what it says at
//! that moment, until it says something else. `docs/health.md` has the table.

use std::sync::Arc;
use std::time::Duration;

use balance::{Share, State};
use config::{AgentCheck, HealthCheck, Probe};
use wire::agent_check::{AgentAdmin, AgentLine, AgentService};

use super::pools::{Place, Slot};
use super::{Action, AgentProbe, Notice, Publisher};
use crate::handover::LiveSays;

/// First agent checks are spread over this time.
const STAGGER: Duration = Duration::from_millis(200);
/// The highest weight.
const WEIGHT_MAX: u32 = 1000;

/// One server's words, and when its agent is asked again.
#[derive(Default)]
pub(super) struct OwnWord {
    /// By its answers to probes.
    check: Option<State>,
    /// By its agent: what it said last of each kind.
    agent: AgentLine,
    /// What it said when its operator enabled it.
    put_aside: Option<State>,
    /// When its agent is in the schedule.
    pub(super) due: Option<Duration>,
    /// The number of the agent check that is out.
    asked: Option<u64>,
}

impl OwnWord {
    /// What it wants: the stricter of its two voices.
    fn state(&self) -> State {
        let admin = match (self.agent.admin, self.agent.percent) {
            (Some(AgentAdmin::Maint), _) => State::Disabled,
            (Some(AgentAdmin::Drain), _) | (_, Some(0)) => State::Drain,
            _ => State::Ready,
        };
        match (admin, self.check.unwrap_or_default()) {
            (State::Disabled, _) | (_, State::Disabled) => State::Disabled,
            (State::Drain, _) | (_, State::Drain) => State::Drain,
            (State::Ready, State::Ready) => State::Ready,
        }
    }

    /// Why it says that it does not work.
    pub(super) fn down(&self) -> Option<&AgentService> {
        self.agent
            .service
            .as_ref()
            .filter(|service| **service != AgentService::Up)
    }

    /// Of the file's weight, where it asks for more than all of it.
    pub(super) fn weight(&self, weight: u32) -> u32 {
        match self.agent.percent {
            Some(percent) if percent > 100 => {
                let more = u64::from(weight) * u64::from(percent) / 100;
                u32::try_from(more).map_or(WEIGHT_MAX, |more| more.min(WEIGHT_MAX))
            }
            _ => weight,
        }
    }

    /// Which part of its weight it asks for.
    pub(super) fn share(&self) -> Share {
        match self.agent.percent {
            Some(percent) if percent < 100 => Share::new(f64::from(percent) / 100.0),
            _ => Share::FULL,
        }
    }

    /// Requests at once, as its agent says.
    pub(super) fn connections_max(&self) -> Option<u32> {
        self.agent.connections_max.filter(|max| *max > 0)
    }

    /// As an agent would write it.
    pub(super) fn text(&self) -> Arc<str> {
        let mut line = self.agent.clone();
        line.admin = match (self.state(), line.admin) {
            (State::Disabled, _) => Some(AgentAdmin::Maint),
            (State::Drain, _) => Some(AgentAdmin::Drain),
            (State::Ready, admin) => admin,
        };
        line.to_string().into()
    }

    /// What another process is to know.
    pub(super) fn tell(&self) -> LiveSays {
        let word = |state: Option<State>| state.map(|state| state.to_string());
        LiveSays {
            check: word(self.check),
            agent: (!self.agent.is_empty()).then(|| self.agent.to_string()),
            put_aside: word(self.put_aside),
        }
    }

    /// Goes on from what another process heard; when the agent is asked stays as it is.
    pub(super) fn resume(
        &mut self,
        check: Option<State>,
        agent: AgentLine,
        put_aside: Option<State>,
    ) {
        self.check = check;
        self.agent = agent;
        self.put_aside = put_aside;
    }

    /// A check without marks never takes back what one with marks heard.
    pub(super) fn keep_check(&mut self, check: Option<&HealthCheck>) {
        let hears = check.is_some_and(|check| match &check.probe {
            Probe::Http(http) => !http.drain.is_empty() || !http.maintenance.is_empty(),
            Probe::Tcp | Probe::Grpc(_) => false,
        });
        if !hears {
            self.check = None;
        }
    }

    /// The words of `line` count; what it does not say stays as it was.
    fn take_line(&mut self, line: AgentLine) {
        let AgentLine {
            admin,
            service,
            percent,
            connections_max,
            unknown: _,
        } = line;
        self.agent.admin = admin.or(self.agent.admin);
        if service.is_some() {
            self.agent.service = service;
        }
        self.agent.percent = percent.or(self.agent.percent);
        self.agent.connections_max = connections_max.or(self.agent.connections_max);
    }
}

impl Slot {
    /// Takes an operator's word.
    pub(super) fn take_operator(&mut self, word: State) {
        self.word = Some(word);
        let own = self.own.state();
        self.own.put_aside = (word == State::Ready && own != State::Ready).then_some(own);
        self.settle();
    }

    /// Brings the state in force up to what its operator and the server itself say.
    pub(super) fn settle(&mut self) {
        let own = self.own.state();
        if self.own.put_aside.is_some_and(|aside| aside != own) {
            self.own.put_aside = None;
        }
        let state = match self.word {
            Some(word @ (State::Drain | State::Disabled)) => word,
            _ if self.own.put_aside.is_some() => State::Ready,
            _ => own,
        };
        if self.member.cell.state() != state {
            self.member.set_state(state);
        }
    }
}

impl Publisher {
    /// A probe's answer said what its server wants.
    pub(super) fn handle_says(&mut self, id: u32, probe: u64, state: State, now: Duration) {
        let Some((slot, _)) = Place::find(&self.places, &mut self.pools, id) else {
            return;
        };
        if slot.asked == Some(probe)
            && !slot.member.is_crashed()
            && slot.own.check.unwrap_or_default() != state
        {
            self.change_own(id, now, |own| own.check = Some(state));
        }
    }

    /// An agent check has ended. One that failed says nothing: probes tell whether the server can be reached.
    pub(super) fn handle_agent(
        &mut self,
        id: u32,
        number: u64,
        answer: Result<AgentLine, Arc<str>>,
        now: Duration,
    ) {
        let random = self.next_random();
        let Some((slot, pool)) = Place::find(&self.places, &mut self.pools, id) else {
            return;
        };
        let (Some(check), true) = (pool.agent, slot.own.asked == Some(number)) else {
            return;
        };
        slot.own.asked = None;
        let due = now.saturating_add(jittered(check.interval, random));
        slot.own.due = Some(due);
        self.agents.insert((due, id));
        // Only the publisher writes these.
        let cells = pool.state.stats.of(0);
        match answer {
            Err(_) => cells.agent_failures.increment(),
            Ok(line) => {
                cells.agent_answers.increment();
                cells.agent_unknown_words.add(line.unknown.into());
                self.change_own(id, now, |own| own.take_line(line));
            }
        }
    }

    /// Lets `change` work on what one server says; logs it and has the view built again if that changes anything.
    fn change_own(&mut self, id: u32, now: Duration, change: impl FnOnce(&mut OwnWord)) {
        let Some((slot, pool)) = Place::find(&self.places, &mut self.pools, id) else {
            return;
        };
        let before = slot.own.text();
        change(&mut slot.own);
        let says = slot.own.text();
        slot.settle();
        if before == says {
            return;
        }
        slot.apply_limit(pool.config);
        let (pool, server) = (pool.name.clone(), slot.member.name.clone());
        let state = slot.member.cell.state();
        if state != State::Ready {
            self.actions.push_back(Action::CloseIdle(slot.member.id));
        }
        self.actions.push_back(Action::Log(Notice::Says {
            pool: pool.clone(),
            server,
            says,
            state,
        }));
        self.mark_dirty(&pool, now);
        self.build_due_views(now);
    }

    /// Puts a new server's agent into the schedule.
    pub(super) fn begin_agent(
        &mut self,
        slot: &mut Slot,
        agent: Option<&AgentCheck>,
        now: Duration,
    ) {
        if agent.is_some() {
            let due = now.saturating_add(jittered(STAGGER, self.next_random()) / 2);
            slot.own.due = Some(due);
            self.agents.insert((due, slot.member.id));
        }
    }

    /// After a reload: what an agent said is forgotten when there is none any more.
    pub(super) fn keep_agent(
        &mut self,
        slot: &mut Slot,
        agent: Option<&AgentCheck>,
        now: Duration,
    ) {
        let known = slot.own.due.is_some() || slot.own.asked.is_some();
        match agent {
            Some(_) if known => {}
            Some(_) => self.begin_agent(slot, agent, now),
            None => {
                slot.own.asked = None;
                if let Some(due) = slot.own.due.take() {
                    self.agents.remove(&(due, slot.member.id));
                }
                slot.own.agent = AgentLine::default();
                slot.settle();
            }
        }
    }

    pub(super) fn ask_due_agents(&mut self, now: Duration) {
        let mut refused = Vec::new();
        while let Some((at, id)) = self.agents.first().copied() {
            if at > now {
                break;
            }
            self.agents.remove(&(at, id));
            let number = self.next_probe;
            self.next_probe += 1;
            let Some((slot, pool)) = Place::find(&self.places, &mut self.pools, id) else {
                continue;
            };
            let Some(check) = pool.agent.cloned() else {
                continue;
            };
            slot.own.due = None;
            slot.own.asked = Some(number);
            if slot.member.is_crashed() {
                refused.push((id, number));
                continue;
            }
            let endpoint = slot.member.endpoint.clone();
            self.actions.push_back(Action::AskAgent(AgentProbe {
                member: id,
                number,
                endpoint,
                check,
            }));
        }
        for (id, number) in refused {
            self.handle_agent(id, number, Err("a drill has the server out".into()), now);
        }
    }
}

/// 90 to 110 % of an interval.
fn jittered(interval: Duration, random: u64) -> Duration {
    let fraction = (random >> 11) as f64 / (1_u64 << 53) as f64;
    interval.mul_f64(0.9 + 0.2 * fraction)
}

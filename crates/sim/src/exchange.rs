//! One request, from server to server: the retry loop of `proxy/src/http1/exchange.rs`, step by step, as a state
//! machine.
//!
//! What a step needs of the world is asked of the [`Engine`]; what happened is told to the judge.

use std::sync::Arc;
use std::time::Duration;

use control::live::Member;
use control::message::Event;
use control::reason::Reason;

use crate::decisions::{Pick, Unanswered};
use crate::engine::{Engine, Happening};
use crate::hosts::{Answering, Connecting, ROUND_TRIP};
use crate::judge::{Tried, TryEnd};
use crate::scenario::{Life, Scenario};

/// A request and how far it is.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) worker: usize,
    pub(crate) idempotent: bool,
    key: u64,
    tried: Vec<u32>,
    attempts_left: u32,
    last: Option<Reason>,
    only_new: bool,
    /// Grows with each try, so that what was to come of an earlier one is passed over.
    number: u32,
    pub(crate) current: Option<Try>,
    /// For the judge.
    pub(crate) past: Vec<Tried>,
}

/// One try with one server.
#[derive(Debug)]
pub(crate) struct Try {
    pub(crate) member: Arc<Member>,
    pub(crate) host: usize,
    reused: bool,
    /// The life of the server that the connection was made in.
    lives: u32,
    began: Duration,
    /// When the answer has to have begun; before that the request was not sent.
    deadline: Option<Duration>,
    /// What the server would have answered, had it not stood still.
    pub(crate) stalled: Option<Answering>,
}

/// What comes of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Connected,
    NotConnected(Connecting),
    Answered(Answering),
    TimedOut,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered(u16),
    Failed(Reason),
}

impl Request {
    pub(crate) fn new(scenario: &Scenario, worker: usize, idempotent: bool, key: u64) -> Self {
        Self {
            worker,
            idempotent,
            key,
            tried: Vec::new(),
            attempts_left: scenario.attempts,
            last: None,
            only_new: false,
            number: 0,
            current: None,
            past: Vec::new(),
        }
    }
}

impl Engine<'_> {
    /// Picks a server for a request, and begins to connect.
    pub(crate) fn next_try(&mut self, id: usize) {
        let member = match self.pick(id) {
            Ok(member) => member,
            Err(reason) => {
                let reason = self.requests[id].last.unwrap_or(reason);
                return self.finish(id, Outcome::Failed(reason));
            }
        };
        let Some(host) = Scenario::server_of(&member.name) else {
            return;
        };
        let request = &mut self.requests[id];
        request.number += 1;
        let fresh = !request.idempotent;
        let may_reuse = !request.only_new;
        let seen_dead = self.hosts[host].seen_dead(self.now);
        let worker = &mut self.workers[request.worker];
        let idle = may_reuse
            .then(|| worker.take_idle(member.id, fresh, seen_dead, self.now))
            .flatten();
        request.current = Some(Try {
            member,
            host,
            reused: idle.is_some(),
            lives: idle.unwrap_or(0),
            began: self.now,
            deadline: None,
            stalled: None,
        });
        if idle.is_some() {
            return self.send(id);
        }
        let (took, how) = self.hosts[host].connect(self.scenario.connect_timeout, &mut self.random);
        let stage = match how {
            Connecting::Made => Stage::Connected,
            how => Stage::NotConnected(how),
        };
        self.later(id, took, stage);
    }

    fn pick(&mut self, id: usize) -> Result<Arc<Member>, Reason> {
        let request = &mut self.requests[id];
        let worker = &mut self.workers[request.worker];
        worker.refresh();
        let mut full = false;
        loop {
            let pick = Pick {
                pool: &worker.pool,
                view: &worker.view,
                key: Some(request.key),
                tried: &request.tried,
                now: self.now,
            };
            let Some(member) = self.decisions.pick(&pick, &mut worker.local) else {
                return Err(if full {
                    Reason::ServerLimit
                } else {
                    Reason::NoUsableServer
                });
            };
            match self.decisions.acquire(&member) {
                Ok(()) => {
                    self.judge
                        .handle_pick(self.now, &request.past, &member, &worker.view);
                    self.note(|| format!("request {id} to {}", member.name));
                    return Ok(member);
                }
                Err(refused) => {
                    full |= refused == balance::Refused::Full;
                    request.tried.push(member.id);
                }
            }
        }
    }

    /// What comes of a try has come. False: it is an earlier try's.
    pub(crate) fn handle_stage(&mut self, id: usize, number: u32, stage: Stage) {
        if self.requests[id].number != number {
            return;
        }
        let Some(current) = &mut self.requests[id].current else {
            return;
        };
        let host = &self.hosts[current.host];
        match stage {
            Stage::Connected => {
                current.lives = host.lives;
                self.send(id);
            }
            Stage::NotConnected(how) => self.handle_not_connected(id, how),
            Stage::Answered(answering) => match host.condition.life {
                Life::Frozen | Life::Unreachable => {
                    current.stalled = Some(answering);
                    let deadline = current.deadline.unwrap_or(self.now);
                    let wait = deadline.saturating_sub(self.now);
                    self.later(id, wait, Stage::TimedOut);
                }
                Life::Up | Life::Down => self.handle_answered(id, answering),
            },
            Stage::TimedOut => {
                self.end_try(id, TryEnd::TimedOut);
                self.finish(id, Outcome::Failed(Reason::FirstByteTimeout));
            }
        }
    }

    fn send(&mut self, id: usize) {
        let Some(current) = &mut self.requests[id].current else {
            return;
        };
        let deadline = self.now + self.scenario.first_byte_timeout;
        current.deadline = Some(deadline);
        let host = &self.hosts[current.host];
        if current.lives != host.lives {
            // The hang-up has not come yet: the request meets it on its way.
            let ended = Stage::Answered(Answering::Ended { reset: true });
            return self.later(id, ROUND_TRIP, ended);
        }
        let (took, answering) = host.answer(&mut self.random);
        let (took, stage) = if took < self.scenario.first_byte_timeout {
            (took, Stage::Answered(answering))
        } else {
            (self.scenario.first_byte_timeout, Stage::TimedOut)
        };
        self.later(id, took, stage);
    }

    fn handle_not_connected(&mut self, id: usize, how: Connecting) {
        let refused = how == Connecting::Refused;
        let end = if refused {
            TryEnd::Refused
        } else {
            TryEnd::ConnectTimedOut
        };
        let Some(member) = self.end_try(id, end) else {
            return;
        };
        if refused && member.note_refused() {
            self.tell(Event::Refused { member: member.id });
        }
        let request = &mut self.requests[id];
        request.tried.push(member.id);
        if refused {
            request.last = Some(Reason::ConnectRefused);
        } else {
            request.last = Some(Reason::ConnectTimeout);
            if request.attempts_left == 0 {
                return self.finish(id, Outcome::Failed(Reason::ConnectTimeout));
            }
            request.attempts_left -= 1;
        }
        self.next_try(id);
    }

    fn handle_answered(&mut self, id: usize, answering: Answering) {
        let reset = match answering {
            Answering::Ended { reset } => reset,
            Answering::Status(status) => {
                let Some(current) = &self.requests[id].current else {
                    return;
                };
                let (lives, began) = (current.lives, current.began);
                let alive = lives == self.hosts[current.host].lives;
                let worker = self.requests[id].worker;
                if let Some(member) = self.end_try(id, TryEnd::Answered(status)) {
                    let took = self.now.saturating_sub(began);
                    member.cell.record_latency(self.now, took);
                    if alive && !member.is_retired() {
                        self.workers[worker].give_idle(member.id, lives, self.now);
                    }
                }
                return self.finish(id, Outcome::Answered(status));
            }
        };
        let reused = self.requests[id]
            .current
            .as_ref()
            .is_some_and(|current| current.reused);
        let Some(member) = self.end_try(id, TryEnd::Ended) else {
            return;
        };
        let request = &mut self.requests[id];
        if !reused {
            request.tried.push(member.id);
        }
        request.only_new = reused;
        let reason = if reset {
            Reason::ServerReset
        } else {
            Reason::ServerClosed
        };
        request.last = Some(reason);
        let unanswered = Unanswered {
            idempotent: request.idempotent,
            attempts_left: request.attempts_left,
            reason,
        };
        let worker = &self.workers[request.worker];
        let may = self
            .decisions
            .may_retry(unanswered, &worker.pool.budget, self.now);
        match may {
            Ok(()) => {
                request.attempts_left = request.attempts_left.saturating_sub(1);
                self.judge.handle_retry(self.now, request.idempotent);
                self.next_try(id);
            }
            Err(reason) => self.finish(id, Outcome::Failed(reason)),
        }
    }

    /// Gives the server back, and writes down how it went.
    pub(crate) fn end_try(&mut self, id: usize, end: TryEnd) -> Option<Arc<Member>> {
        let request = &mut self.requests[id];
        let current = request.current.take()?;
        // Whatever was still to come of it is passed over.
        request.number += 1;
        current.member.cell.release();
        request.past.push(Tried {
            member: current.member.id,
            reused: current.reused,
            end,
        });
        self.judge.handle_try_end(self.now, end);
        self.note(|| format!("request {id} at {}: {end:?}", current.member.name));
        Some(current.member)
    }

    /// The server of a try has died under it.
    pub(crate) fn break_try(&mut self, id: usize) {
        let Some(current) = &mut self.requests[id].current else {
            return;
        };
        current.stalled = None;
        let stage = match current.deadline {
            None => Stage::NotConnected(Connecting::Refused),
            Some(_) => Stage::Answered(Answering::Ended { reset: true }),
        };
        self.requests[id].number += 1;
        self.later(id, ROUND_TRIP / 2, stage);
    }

    /// The server of a try goes on after it stood still.
    pub(crate) fn resume_try(&mut self, id: usize) {
        let Some(current) = &mut self.requests[id].current else {
            return;
        };
        if let Some(answering) = current.stalled.take() {
            self.requests[id].number += 1;
            self.later(id, ROUND_TRIP, Stage::Answered(answering));
        }
    }

    fn later(&mut self, id: usize, after: Duration, stage: Stage) {
        let number = self.requests[id].number;
        let happening = Happening::Stage {
            request: id,
            number,
            stage,
        };
        self.at(self.now + after, happening);
    }
}

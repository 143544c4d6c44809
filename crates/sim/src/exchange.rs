//! One request, from server to server. Who is tried, when and how often is decided by `control::pick` and
//! `control::tries`, as in the proxy; here is what happens meanwhile, as a state machine.
//!
//! What a step needs of the world is asked of the [`Engine`]; what happened is told to the judge.

use std::sync::Arc;
use std::time::Duration;

use control::affinity::Bond;
use control::live::Member;
use control::message::Event;
use control::outcome::{self, NoConnection};
use control::reason::Reason;
use control::tries::{Allowance, Nothing, Tries, note_tried};

use crate::agenda::Happening;
use crate::decisions::{Binds, Claim, Decisions as _, Product, Unanswered};
use crate::engine::Engine;
use crate::hosts::{Answering, Connecting, ROUND_TRIP};
use crate::judge::{Further, Tried, TryEnd};
use crate::race::Race;
use crate::scenario::{Life, Scenario};
use crate::waits::Waiting;

/// The status that is tried elsewhere, where that is asked for.
const RETRIED: u16 = 503;

/// A request and how far it is.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) worker: usize,
    /// The part of the pool that it wants; 0: any server.
    pub(crate) part: usize,
    pub(crate) idempotent: bool,
    pub(crate) priority: u8,
    pub(crate) key: u64,
    /// Who sends it, and what binds it, where something does.
    pub(crate) client: usize,
    pub(crate) bond: Option<Bond>,
    pub(crate) tried: Vec<u32>,
    pub(crate) allowance: Allowance,
    pub(crate) tries: Tries<Claim>,
    /// Grows with each try and each wait, so that what was to come of an earlier one is passed over.
    pub(crate) number: u32,
    /// More than one only in a race.
    pub(crate) running: Vec<Try>,
    pub(crate) race: Option<Race>,
    pub(crate) waiting: Option<Waiting>,
    pub(crate) waited: Duration,
    /// For the judge.
    pub(crate) past: Vec<Tried>,
}

/// The lists of a request: all that it allocates.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    tried: Vec<u32>,
    running: Vec<Try>,
    past: Vec<Tried>,
}

/// One try with one server.
#[derive(Debug)]
pub(crate) struct Try {
    pub(crate) number: u32,
    pub(crate) claim: Claim,
    pub(crate) host: usize,
    pub(crate) reused: bool,
    /// The life of the server that the connection was made in.
    lives: u32,
    /// Since when it counts as slow, in a race.
    pub(crate) since: Duration,
    /// What its server had answered by then, and what of that the judge had seen.
    pub(crate) answers: (u64, u64),
    /// When the request was sent.
    sent: Option<Duration>,
    /// When the answer has to have begun.
    deadline: Duration,
    /// Whether that is its time as one of several: it may be given up for another server then.
    one_of_several: bool,
    /// Whether it may be given up for another server at an answer of a status to retry.
    leaves: bool,
    /// What the server would have answered, had it not stood still.
    stalled: Option<Answering>,
}

impl Try {
    pub(crate) fn member(&self) -> &Arc<Member> {
        self.claim.member()
    }

    pub(crate) fn set_leaves(&mut self, leaves: bool) {
        self.leaves = leaves;
    }
}

/// What comes of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Connected,
    NotConnected(Connecting),
    Answered(Answering),
    /// Its time is over, if it has not been given more.
    Deadline,
}

/// How a try came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    NotConnected(Connecting),
    Ended { reset: bool },
    TimedOut,
    Cut,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered(u16),
    Failed(Reason),
}

impl Request {
    pub(crate) fn new(
        scenario: &Scenario,
        worker: usize,
        idempotent: bool,
        priority: u8,
        key: u64,
        buffers: Buffers,
    ) -> Self {
        let Buffers {
            tried,
            running,
            past,
        } = buffers;
        Self {
            worker,
            part: 0,
            idempotent,
            priority,
            key,
            client: 0,
            bond: None,
            tried,
            allowance: Allowance::new(scenario.attempts),
            tries: Tries::default(),
            number: 0,
            running,
            race: None,
            waiting: None,
            waited: Duration::ZERO,
            past,
        }
    }

    /// Its lists, emptied for another one: it has ended.
    pub(crate) fn take_buffers(&mut self) -> Buffers {
        let mut buffers = Buffers {
            tried: std::mem::take(&mut self.tried),
            past: std::mem::take(&mut self.past),
            ..Buffers::default()
        };
        buffers.tried.clear();
        buffers.past.clear();
        if self.running.is_empty() {
            buffers.running = std::mem::take(&mut self.running);
        }
        buffers
    }

    pub(crate) fn at(&self, number: u32) -> Option<usize> {
        self.running.iter().position(|it| it.number == number)
    }
}

impl Fault {
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::NotConnected(Connecting::Refused) => Reason::ConnectRefused,
            Self::NotConnected(_) => Reason::ConnectTimeout,
            Self::Ended { reset: true } => Reason::ServerReset,
            Self::Ended { reset: false } => Reason::ServerClosed,
            Self::TimedOut => Reason::FirstByteTimeout,
            Self::Cut => Reason::Draining,
        }
    }

    fn end(self) -> TryEnd {
        match self {
            Self::NotConnected(Connecting::Refused) => TryEnd::Refused,
            Self::NotConnected(_) => TryEnd::ConnectTimedOut,
            Self::Ended { .. } => TryEnd::Ended,
            Self::TimedOut => TryEnd::TimedOut,
            Self::Cut => TryEnd::Cut,
        }
    }
}

impl Engine<'_> {
    /// Takes a slot of a server, and begins to connect; or waits for one.
    pub(crate) fn next_try(&mut self, id: usize) {
        let request = &mut self.requests[id];
        let worker = &mut self.workers[request.worker];
        let mut picked = false;
        let (decisions, now, key) = (&mut *self.decisions, self.now, Some(request.key));
        if let Some(owner) = request.bond.as_ref().and_then(Bond::owner) {
            request.tries.ask_again(&mut request.tried, owner);
        }
        let affinity = self.clients.as_ref().map(|it| &it.affinity);
        let binds = affinity.zip(request.bond.as_ref());
        let binds = binds.map(|(affinity, bond)| Binds { affinity, bond });
        let lease = request.tries.lease(&mut request.tried, |tried| {
            let claim =
                decisions.pick_any(&mut worker.pools[request.part], binds, key, tried, now)?;
            picked = true;
            Ok(claim)
        });
        match lease {
            // What was claimed before has been judged.
            Ok(claim) if !picked => {
                let only_new = self.requests[id].tries.only_new();
                self.begin(id, claim, only_new);
            }
            Err(Reason::ServerLimit) => self.queue_up(id),
            lease => self.take_up(id, lease),
        }
    }

    /// A server was picked, or there is none.
    pub(crate) fn take_up(&mut self, id: usize, picked: Result<Claim, Reason>) {
        match picked {
            Ok(claim) => {
                let request = &self.requests[id];
                self.judge
                    .handle_pick(self.now, id, request, claim.member(), false);
                let only_new = request.tries.only_new();
                self.begin(id, claim, only_new);
            }
            Err(reason) => {
                let reason = self.requests[id].tries.over(reason);
                self.finish(id, Outcome::Failed(reason));
            }
        }
    }

    /// Begins a try with a server.
    pub(crate) fn begin(&mut self, id: usize, claim: Claim, only_new: bool) {
        let member = claim.member().clone();
        let Some(host) = Scenario::server_of(&member.name) else {
            return;
        };
        self.note(|| format!("request {id} to {}", member.name));
        let request = &mut self.requests[id];
        request.allowance.handle_made();
        request.number += 1;
        let number = request.number;
        let fresh = !request.idempotent;
        let seen_dead = self.hosts[host].seen_dead(self.now);
        let answers = match self.scenario.hedge {
            Some(_) => (member.answers(), self.judge.answers_of(member.id)),
            None => (0, 0),
        };
        let worker = &mut self.workers[request.worker];
        let idle = (!only_new)
            .then(|| worker.take_idle(member.id, fresh, seen_dead, self.now))
            .flatten();
        request.running.push(Try {
            number,
            claim,
            host,
            reused: idle.is_some(),
            lives: idle.unwrap_or(0),
            since: self.now,
            answers,
            sent: None,
            deadline: Duration::MAX,
            one_of_several: false,
            leaves: false,
            stalled: None,
        });
        if idle.is_some() {
            return self.send(id, number);
        }
        let (took, how) = self.hosts[host].connect(self.scenario.connect_timeout, &mut self.random);
        let stage = match how {
            Connecting::Made => Stage::Connected,
            how => Stage::NotConnected(how),
        };
        self.later(id, number, took, stage);
    }

    /// What comes of a try has come.
    pub(crate) fn handle_stage(&mut self, id: usize, number: u32, stage: Stage) {
        let Some(at) = self.requests[id].at(number) else {
            return;
        };
        let current = &mut self.requests[id].running[at];
        let host = &self.hosts[current.host];
        match stage {
            Stage::Connected => {
                current.lives = host.lives;
                self.send(id, number);
            }
            Stage::NotConnected(how) => self.handle_fault(id, number, Fault::NotConnected(how)),
            Stage::Answered(answering) => match host.condition.life {
                Life::Frozen | Life::Unreachable => current.stalled = Some(answering),
                Life::Up | Life::Down => self.handle_answering(id, number, answering),
            },
            Stage::Deadline if current.deadline > self.now => {}
            Stage::Deadline if current.one_of_several => {
                if !self.leave(id, number, None) {
                    // It goes on, for want of another one.
                    let wait = self.scenario.first_byte_timeout;
                    self.set_deadline(id, number, wait);
                    self.stay(id, number);
                }
            }
            Stage::Deadline => self.handle_fault(id, number, Fault::TimedOut),
        }
    }

    /// The request goes to the server.
    fn send(&mut self, id: usize, number: u32) {
        self.begin_race(id);
        let request = &mut self.requests[id];
        let Some(at) = request.at(number) else {
            return;
        };
        let raced = request.race.is_some();
        let current = &mut request.running[at];
        current.sent = Some(self.now);
        let scenario = self.scenario;
        current.leaves = request.idempotent && scenario.attempts > 0 && !raced;
        let first_byte = scenario.first_byte_timeout;
        let per_try = scenario.per_try.filter(|it| *it < first_byte);
        let per_try = per_try.filter(|_| current.leaves);
        current.one_of_several = per_try.is_some();
        let host = &self.hosts[current.host];
        let stale = current.lives != host.lives;
        let (took, answering) = if stale {
            // The hang-up has not come yet: the request meets it on its way.
            (ROUND_TRIP, Answering::Ended { reset: true })
        } else {
            host.answer(&mut self.random)
        };
        self.set_deadline(id, number, per_try.unwrap_or(first_byte));
        self.later(id, number, took, Stage::Answered(answering));
    }

    fn set_deadline(&mut self, id: usize, number: u32, wait: Duration) {
        let deadline = self.now + wait;
        let request = &mut self.requests[id];
        let Some(at) = request.at(number) else {
            return;
        };
        request.running[at].deadline = deadline;
        self.agenda.add_deadline(deadline, id as u32, number);
    }

    /// What stays after its time as one of several has no further chance to leave.
    fn stay(&mut self, id: usize, number: u32) {
        let request = &mut self.requests[id];
        if let Some(at) = request.at(number) {
            request.running[at].leaves = false;
            request.running[at].one_of_several = false;
        }
    }

    fn handle_answering(&mut self, id: usize, number: u32, answering: Answering) {
        match answering {
            Answering::Ended { reset } => self.handle_fault(id, number, Fault::Ended { reset }),
            Answering::Status(status) if self.requests[id].race.is_some() => {
                self.handle_raced(id, number, Ok(status));
            }
            Answering::Status(status) => self.handle_status(id, number, status),
        }
    }

    /// The answer that the client would get.
    pub(crate) fn handle_status(&mut self, id: usize, number: u32, status: u16) {
        let Some(at) = self.requests[id].at(number) else {
            return;
        };
        let retried = self.scenario.retries_status && status == RETRIED;
        let leaves = self.requests[id].running[at].leaves;
        if retried && leaves && self.leave(id, number, Some(status)) {
            return;
        }
        if let Some(member) = self.end_answered(id, number, status) {
            self.settle_bond(id, &member);
        }
        self.finish(id, Outcome::Answered(status));
    }

    pub(crate) fn is_retried(&self, status: u16) -> bool {
        self.scenario.retries_status && status == RETRIED
    }

    /// A try came to nothing.
    fn handle_fault(&mut self, id: usize, number: u32, fault: Fault) {
        if self.requests[id].race.is_some() {
            self.handle_raced(id, number, Err(fault));
        } else {
            self.handle_lone_fault(id, number, fault);
        }
    }

    /// The only try came to nothing; whether another one follows.
    pub(crate) fn handle_lone_fault(&mut self, id: usize, number: u32, fault: Fault) {
        let Some((member, reused)) = self.end_faulty(id, number, fault) else {
            return;
        };
        let reason = fault.reason();
        let request = &mut self.requests[id];
        let next = match fault {
            Fault::TimedOut | Fault::Cut => Err(reason),
            Fault::NotConnected(_) => {
                let left = request.allowance.left();
                let next = request.tries.handle_no_connection(
                    reason,
                    member.id,
                    &mut request.tried,
                    &request.allowance,
                    false,
                );
                if request.allowance.left() < left {
                    self.judge.handle_spent(id);
                }
                next
            }
            Fault::Ended { .. } => return self.nothing(id, &member, reason, true, reused),
        };
        match next {
            Ok(()) => self.next_try(id),
            Err(reason) => self.finish(id, Outcome::Failed(reason)),
        }
    }

    /// A try ended with nothing for the client: another one follows, if that may be.
    pub(crate) fn nothing(
        &mut self,
        id: usize,
        member: &Arc<Member>,
        reason: Reason,
        sent: bool,
        reused: bool,
    ) {
        let now = self.now;
        let request = &mut self.requests[id];
        let budget = &self.workers[request.worker].pools[request.part]
            .state
            .budget;
        let decisions = &mut *self.decisions;
        let judge = &mut self.judge;
        let (idempotent, allowance) = (request.idempotent, &request.allowance);
        let nothing = Nothing {
            reason,
            sent,
            reused,
            next: None,
        };
        let tried = &mut request.tried;
        let next = request
            .tries
            .handle_nothing(nothing, member.id, tried, |reason| {
                decisions.may_retry(Unanswered {
                    idempotent,
                    allowance,
                    reason,
                    budget,
                    now,
                })?;
                judge.handle_further(now, id, idempotent, Further::Again);
                Ok(())
            });
        match next {
            Ok(()) => self.next_try_in_time(id),
            Err(reason) => self.finish(id, Outcome::Failed(reason)),
        }
    }

    /// After the back-off, if there is one.
    fn next_try_in_time(&mut self, id: usize) {
        let request = &mut self.requests[id];
        let Some((base, max)) = self.scenario.backoff.filter(|_| request.tries.was_sent()) else {
            return self.next_try(id);
        };
        request.number += 1;
        let number = request.number;
        let backoff = config::Backoff { base, max };
        let wait = request.allowance.backoff(backoff, self.random.bits());
        let at = self.now + wait;
        self.at(
            at,
            Happening::Retries {
                request: id as u32,
                number,
            },
        );
    }

    /// The back-off is over.
    pub(crate) fn handle_retries(&mut self, id: usize, number: u32) {
        if self.requests[id].number == number {
            self.next_try(id);
        }
    }

    /// Gives a try up for another server: too slow, or an answer of a status to retry. False: there is none.
    fn leave(&mut self, id: usize, number: u32, status: Option<u16>) -> bool {
        let Some(claim) = self.elsewhere(id) else {
            return false;
        };
        let ended = match status {
            Some(status) => self.end_answered(id, number, status),
            None => self
                .end_faulty_as(id, number, Fault::TimedOut, TryEnd::GivenUp)
                .map(|it| it.0),
        };
        let reason = match status {
            Some(_) => Reason::ServerClosed,
            None => Reason::FirstByteTimeout,
        };
        let request = &mut self.requests[id];
        let Some(member) = ended else {
            return false;
        };
        let nothing = Nothing {
            reason,
            sent: true,
            reused: false,
            next: Some(claim),
        };
        let tried = &mut request.tried;
        let none = request
            .tries
            .handle_nothing(nothing, member.id, tried, |_| Ok(()));
        if none.is_ok() {
            self.next_try_in_time(id);
        }
        true
    }

    /// Another server for a try that may be given up for it, within attempts and budget.
    pub(crate) fn elsewhere(&mut self, id: usize) -> Option<Claim> {
        if self.requests[id].allowance.left() == 0 {
            self.judge
                .handle_stays(self.now, id, &self.requests[id], Further::Elsewhere);
            return None;
        }
        let claim = self.claim_beside(id, Further::Elsewhere)?;
        self.requests[id].allowance.spend();
        Some(claim)
    }

    /// Another server for a request that one has; `Allowance::elsewhere` and `beside`, with a judge between.
    pub(crate) fn claim_beside(&mut self, id: usize, further: Further) -> Option<Claim> {
        let now = self.now;
        let request = &mut self.requests[id];
        let idempotent = request.idempotent;
        let worker = &mut self.workers[request.worker];
        let pool = &mut worker.pools[request.part];
        let state = pool.state.clone();
        let affinity = self.clients.as_ref().map(|it| &it.affinity);
        let binds = affinity.zip(request.bond.as_ref());
        let binds = binds.map(|(affinity, bond)| Binds { affinity, bond });
        let decisions = &mut *self.decisions;
        // The pick is of the product's rules whoever decides on the budget.
        let mut product = Product;
        let claim = decisions.beside(idempotent, &state.budget, now, &mut || {
            for running in &request.running {
                note_tried(&mut request.tried, running.member().id);
            }
            let tried = &mut request.tried;
            let key = Some(request.key);
            product.pick_any(pool, binds, key, tried, now).ok()
        });
        match &claim {
            Some(claim) => {
                let member = claim.member().clone();
                self.judge.handle_further(now, id, idempotent, further);
                self.judge
                    .handle_pick(now, id, &self.requests[id], &member, false);
            }
            None => self
                .judge
                .handle_stays(now, id, &self.requests[id], further),
        }
        claim
    }

    /// Ends a try that was answered.
    pub(crate) fn end_answered(
        &mut self,
        id: usize,
        number: u32,
        status: u16,
    ) -> Option<Arc<Member>> {
        let at = self.requests[id].at(number)?;
        let current = &self.requests[id].running[at];
        let (lives, host, sent) = (current.lives, current.host, current.sent);
        let ended = self.end_try(id, number, TryEnd::Answered(status))?;
        let member = ended.claim.member().clone();
        self.decisions.give_back(ended.claim);
        let took = self.now.saturating_sub(sent.unwrap_or(self.now));
        member.cell.record_latency(self.now, took);
        let worker = &mut self.workers[self.requests[id].worker];
        let mut told = Vec::new();
        outcome::answered(&member, worker.number, status, |event| told.push(event));
        let alive = lives == self.hosts[host].lives;
        if alive && !member.is_retired() {
            worker.give_idle(member.id, lives, self.now);
        }
        self.tell_all(told);
        Some(member)
    }

    /// Ends a try that came to nothing, and counts it; whether its connection had been idle.
    pub(crate) fn end_faulty(
        &mut self,
        id: usize,
        number: u32,
        fault: Fault,
    ) -> Option<(Arc<Member>, bool)> {
        self.end_faulty_as(id, number, fault, fault.end())
    }

    pub(crate) fn end_faulty_as(
        &mut self,
        id: usize,
        number: u32,
        fault: Fault,
        end: TryEnd,
    ) -> Option<(Arc<Member>, bool)> {
        let Try {
            claim,
            reused,
            sent,
            ..
        } = self.end_try(id, number, end)?;
        let member = claim.member().clone();
        if end == TryEnd::GivenUp && self.requests[id].race.is_none() {
            let took = self.now.saturating_sub(sent.unwrap_or(self.now));
            member.cell.record_latency(self.now, took);
        }
        self.decisions.give_back(claim);
        let worker = self.workers[self.requests[id].worker].number;
        let mut told = Vec::new();
        let tell = |event| told.push(event);
        match fault {
            Fault::NotConnected(Connecting::Refused) => {
                outcome::not_connected(&member, worker, NoConnection::Refused, tell);
                if let Some(bond) = &self.requests[id].bond {
                    bond.note_refused(member.id);
                }
                if member.note_refused() {
                    told.push(Event::Refused { member: member.id });
                }
            }
            Fault::NotConnected(_) => {
                outcome::not_connected(&member, worker, NoConnection::TimedOut, tell);
            }
            fault => outcome::ended(&member, worker, fault.reason(), reused, tell),
        }
        self.tell_all(told);
        Some((member, reused))
    }

    pub(crate) fn tell_all(&mut self, events: Vec<Event>) {
        for event in events {
            self.tell(event);
        }
    }

    /// Takes a try off the request, and writes down how it went.
    pub(crate) fn end_try(&mut self, id: usize, number: u32, end: TryEnd) -> Option<Try> {
        let request = &mut self.requests[id];
        let at = request.at(number)?;
        let raced = request.running.len() > 1;
        let ended = request.running.remove(at);
        let member = ended.member().clone();
        request.past.push(Tried {
            member: member.id,
            reused: ended.reused,
            raced,
            end,
        });
        self.judge
            .handle_try_end(self.now, member.id, ended.reused, end);
        self.note(|| format!("request {id} at {}: {end:?}", member.name));
        Some(ended)
    }

    /// The server of a try has died under it.
    pub(crate) fn break_try(&mut self, id: usize, number: u32) {
        let request = &mut self.requests[id];
        let Some(at) = request.at(number) else {
            return;
        };
        if request.race.as_ref().is_some_and(|it| it.is_kept(number)) {
            return;
        }
        let current = &mut request.running[at];
        current.stalled = None;
        let stage = match current.sent {
            None => Stage::NotConnected(Connecting::Refused),
            Some(_) => Stage::Answered(Answering::Ended { reset: true }),
        };
        self.renumber(id, at, ROUND_TRIP / 2, stage);
    }

    /// The server of a try goes on after it stood still.
    pub(crate) fn resume_try(&mut self, id: usize, number: u32) {
        let request = &mut self.requests[id];
        let Some(at) = request.at(number) else {
            return;
        };
        if let Some(answering) = request.running[at].stalled.take() {
            self.renumber(id, at, ROUND_TRIP, Stage::Answered(answering));
        }
    }

    /// The deadline of a drain has come for a try.
    pub(crate) fn cut_try(&mut self, id: usize, number: u32) {
        let Some(at) = self.requests[id].at(number) else {
            return;
        };
        match self.requests[id].running[at].sent {
            Some(_) => self.handle_fault(id, number, Fault::Cut),
            // It was not sent: another server may have it.
            None => self.handle_fault(id, number, Fault::NotConnected(Connecting::TimedOut)),
        }
    }

    /// What was to come of a try does not; this does.
    fn renumber(&mut self, id: usize, at: usize, after: Duration, stage: Stage) {
        let request = &mut self.requests[id];
        request.number += 1;
        let number = request.number;
        let current = &mut request.running[at];
        current.number = number;
        let wait = current.deadline.saturating_sub(self.now);
        let waits = current.deadline != Duration::MAX;
        self.later(id, number, after, stage);
        if waits {
            self.agenda.add_deadline(self.now + wait, id as u32, number);
        }
    }

    fn later(&mut self, id: usize, number: u32, after: Duration, stage: Stage) {
        let happening = Happening::Stage {
            request: id as u32,
            number,
            stage,
        };
        self.at(self.now + after, happening);
    }
}

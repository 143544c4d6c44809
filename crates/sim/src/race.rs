//! Tries of one request side by side: `proxy/src/http1/hedge.rs` as a state machine; who wins is `control::tries`'s to
//! say.

use std::time::Duration;

use control::affinity::Bond;
use control::outcome;
use control::tries::{RaceStep, note_tried, race_step};

use crate::agenda::Happening;
use crate::engine::Engine;
use crate::exchange::{Fault, Outcome, Try};
use crate::judge::{Further, TryEnd};

/// What is known of a race, beside the tries that run.
#[derive(Debug)]
pub(crate) struct Race {
    /// When the next try starts beside those that run.
    next_at: Duration,
    /// How many more may.
    left: u32,
    /// A try whose answer is only good if no other one comes, and its status.
    kept: Option<(u32, u16)>,
}

impl Race {
    /// Whether this try has an answer that waits for a better one.
    pub(crate) fn is_kept(&self, number: u32) -> bool {
        self.kept.is_some_and(|(kept, _)| kept == number)
    }
}

impl Engine<'_> {
    /// The first try of a request that is hedged has its connection.
    pub(crate) fn begin_race(&mut self, id: usize) {
        let request = &mut self.requests[id];
        let Some((after, max)) = self.scenario.hedge else {
            return;
        };
        // Another server's answer would rob a bound one of its client.
        let is_bound = request.bond.as_ref().and_then(Bond::owner).is_some();
        if request.race.is_some() || !request.idempotent || is_bound {
            return;
        }
        request.race = Some(Race {
            next_at: self.now + after,
            left: max,
            kept: None,
        });
        if let Some(first) = request.running.first_mut() {
            first.since = self.now;
            let member = first.member();
            first.answers = (member.answers(), self.judge.answers_of(member.id));
        }
        self.set_timer(id);
    }

    /// Tries that run, the kept one not among them.
    fn racing(&self, id: usize) -> Vec<u32> {
        let request = &self.requests[id];
        let kept = request.race.as_ref().and_then(|race| race.kept);
        let running = request.running.iter().map(|it| it.number);
        running
            .filter(|number| kept.is_none_or(|(kept, _)| kept != *number))
            .collect()
    }

    fn set_timer(&mut self, id: usize) {
        let request = &self.requests[id];
        let Some(race) = &request.race else {
            return;
        };
        let due = (race.left > 0).then_some(race.next_at);
        let first = self.racing(id).first().copied();
        let slow = self
            .scenario
            .per_try
            .filter(|_| request.allowance.left() > 0);
        let slow = slow.and_then(|per_try| {
            let at = request.at(first?)?;
            Some(request.running[at].since.saturating_add(per_try))
        });
        let at = due.into_iter().chain(slow).min();
        if let Some(at) = at.filter(|at| *at < Duration::MAX) {
            self.at(at.max(self.now), Happening::RaceTime(id as u32));
        }
    }

    /// A further try may be due, or the oldest too slow.
    pub(crate) fn handle_race_time(&mut self, id: usize) {
        if self.requests[id].race.is_none() {
            return;
        }
        let acted = self.give_up_the_slow(id) | self.hedge(id);
        if acted {
            self.set_timer(id);
        }
    }

    fn give_up_the_slow(&mut self, id: usize) -> bool {
        let (Some(per_try), Some(first)) =
            (self.scenario.per_try, self.racing(id).first().copied())
        else {
            return false;
        };
        let request = &self.requests[id];
        let Some(at) = request.at(first) else {
            return false;
        };
        let over = request.running[at].since.saturating_add(per_try) <= self.now;
        if !over || request.allowance.left() == 0 {
            return false;
        }
        let Some(claim) = self.elsewhere(id) else {
            // It goes on, for want of another one; those after it have their time yet.
            let running = &mut self.requests[id].running;
            let mut kept = running.remove(at);
            kept.since = Duration::MAX;
            running.push(kept);
            return true;
        };
        self.end_faulty_as(id, first, Fault::TimedOut, TryEnd::GivenUp);
        self.begin(id, claim, false);
        true
    }

    fn hedge(&mut self, id: usize) -> bool {
        let Some((after, _)) = self.scenario.hedge else {
            return false;
        };
        let runs = !self.racing(id).is_empty();
        let Some(race) = &self.requests[id].race else {
            return false;
        };
        if !runs || race.left == 0 || race.next_at > self.now {
            return false;
        }
        let claim = self.claim_beside(id, Further::Beside);
        let now = self.now;
        if let Some(race) = &mut self.requests[id].race {
            race.left = match claim {
                Some(_) => race.left - 1,
                None => 0,
            };
            race.next_at = now + after;
        }
        if let Some(claim) = claim {
            self.begin(id, claim, false);
        }
        true
    }

    /// A try of a race has ended.
    pub(crate) fn handle_raced(&mut self, id: usize, number: u32, ended: Result<u16, Fault>) {
        let alone = self.racing(id).len() <= 1;
        let Some(race) = &self.requests[id].race else {
            return;
        };
        let before = race.kept;
        if race.is_kept(number) {
            // Its answer is here: no deadline and no end of its connection takes that back.
            return;
        }
        let failed = ended
            .ok()
            .map(|status| status >= 500 || self.is_retried(status));
        match (race_step(failed, alone, before.is_some()), ended) {
            (RaceStep::KeptWins, _) => {
                self.note_tried(id, number);
                if let Err(fault) = ended {
                    self.end_faulty(id, number, fault);
                }
                if let Some((kept, status)) = before {
                    self.win(id, kept, status);
                }
            }
            (RaceStep::Kept, Ok(status)) => {
                self.note_tried(id, number);
                if let Some((before, status)) = before {
                    self.end_answered(id, before, status);
                }
                if let Some(race) = &mut self.requests[id].race {
                    race.kept = Some((number, status));
                }
                self.set_timer(id);
            }
            (RaceStep::GoOn, Err(fault)) => {
                self.note_tried(id, number);
                self.end_faulty(id, number, fault);
                self.set_timer(id);
            }
            (_, Ok(status)) => self.win(id, number, status),
            (_, Err(fault)) => self.lose(id, number, fault),
        }
    }

    fn note_tried(&mut self, id: usize, number: u32) {
        let request = &mut self.requests[id];
        if let Some(at) = request.at(number) {
            let member = request.running[at].member().id;
            note_tried(&mut request.tried, member);
        }
    }

    /// The race is over: all others are let go of.
    fn win(&mut self, id: usize, number: u32, status: u16) {
        let kept = self.requests[id].race.take().and_then(|race| race.kept);
        let others: Vec<u32> = self.requests[id]
            .running
            .iter()
            .map(|it| it.number)
            .filter(|it| *it != number)
            .collect();
        for other in others {
            if let Some((_, status)) = kept.filter(|(kept, _)| *kept == other) {
                self.end_answered(id, other, status);
            } else if let Some(lost) = self.end_try(id, other, TryEnd::Outrun) {
                self.outrun(id, lost);
            }
        }
        let leaves = self.requests[id].idempotent && self.scenario.attempts > 0;
        if let Some(at) = self.requests[id].at(number) {
            self.requests[id].running[at].set_leaves(leaves && self.scenario.retries_status);
        }
        self.handle_status(id, number, status);
    }

    /// Another try was faster. A server that has answered nobody meanwhile, for as long as it was waited for alone, is
    /// charged with its silence.
    fn outrun(&mut self, id: usize, lost: Try) {
        let member = lost.member().clone();
        let took = self.now.saturating_sub(lost.since);
        if took > member.cell.latency() {
            member.cell.record_latency(self.now, took);
        }
        self.decisions.give_back(lost.claim);
        let (answers, seen) = lost.answers;
        let is_long = self.scenario.hedge.is_some_and(|(after, _)| took >= after);
        if is_long {
            self.judge.handle_outrun(self.now, member.id, seen);
        }
        let silent = is_long && member.answers() == answers;
        if self.decisions.charges_outrun(silent) {
            let worker = self.workers[self.requests[id].worker].number;
            let mut told = Vec::new();
            outcome::outrun(&member, worker, |event| told.push(event));
            self.tell_all(told);
        }
    }

    /// The last try of a race came to nothing.
    fn lose(&mut self, id: usize, number: u32, fault: Fault) {
        let ended = self.end_faulty(id, number, fault);
        self.requests[id].race = None;
        let Some((member, reused)) = ended else {
            return;
        };
        let reason = fault.reason();
        match fault {
            Fault::TimedOut | Fault::Cut => self.finish(id, Outcome::Failed(reason)),
            Fault::NotConnected(_) => self.nothing(id, &member, reason, false, false),
            Fault::Ended { .. } => self.nothing(id, &member, reason, true, reused),
        }
    }
}

//! Whether a request is tried again, where, and what the tries before leave for the next one: SPEC's rule 1, for the
//! proxy and for the simulator.
//!
//! Nothing here sends, waits or logs: how a try ended is told, what follows is returned.

use std::cell::Cell;
use std::time::Duration;

use balance::RetryBudget;
use config::Backoff;

use crate::reason::Reason;

/// How often a request may be left out by servers that take it no worse on another connection, before each counts as tried:
/// one that ends its connections after few requests takes many of them to serve a crowd, and each serves some.
const REFUSALS_MAX: u32 = 32;

/// Further tries that a request may have.
#[derive(Debug)]
pub struct Allowance {
    attempts: u32,
    left: Cell<u32>,
    /// When the try that is to follow was counted against the budget, until it is made.
    claimed: Cell<Option<Duration>>,
}

impl Allowance {
    /// `attempts` tries after the first.
    #[must_use]
    pub fn new(attempts: u32) -> Self {
        Self {
            attempts,
            left: Cell::new(attempts),
            claimed: Cell::new(None),
        }
    }

    /// How many are left.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.left.get()
    }

    /// Spends one; false: there is none.
    pub fn spend(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    /// Whether a request that was sent, and got no byte of an answer, may be sent to another server. `repeatable`: it
    /// may be, and can be, sent twice.
    ///
    /// # Errors
    /// What it is answered with instead; `reason` is why the try failed.
    pub fn retry(
        &self,
        repeatable: bool,
        reason: Reason,
        budget: &RetryBudget,
        now: Duration,
    ) -> Result<(), Reason> {
        if !repeatable || self.left() == 0 {
            return Err(reason);
        }
        if !budget.try_retry(now) {
            return Err(Reason::RetryBudget);
        }
        self.spend();
        self.claimed.set(Some(now));
        Ok(())
    }

    /// The try that was to follow is made.
    pub fn handle_made(&self) {
        self.claimed.set(None);
    }

    /// It is not: there is no server for it, or its client has left. The budget gets back what it took.
    pub fn withdraw(&self, budget: &RetryBudget) {
        if let Some(at) = self.claimed.take() {
            budget.take_back(at);
        }
    }

    /// Another server, by `pick`, for a try that may be given up for it: within attempts and budget.
    pub fn elsewhere<L>(
        &self,
        repeatable: bool,
        budget: &RetryBudget,
        now: Duration,
        pick: impl FnOnce() -> Option<L>,
    ) -> Option<L> {
        if self.left() == 0 {
            return None;
        }
        let lease = beside(repeatable, budget, now, pick)?;
        self.spend();
        self.claimed.set(Some(now));
        Some(lease)
    }

    /// The wait before the next try: `random` brought below a bound that doubles with each try, so that what failed
    /// together does not come back together.
    #[must_use]
    pub fn backoff(&self, backoff: Backoff, random: u64) -> Duration {
        let made = self.attempts.saturating_sub(self.left());
        let bound = u64::try_from(backoff.bound(made).as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(random % bound.saturating_add(1).max(1))
    }
}

/// Another server, by `pick`, for a try beside one that goes on: it counts against the budget alone.
pub fn beside<L>(
    repeatable: bool,
    budget: &RetryBudget,
    now: Duration,
    pick: impl FnOnce() -> Option<L>,
) -> Option<L> {
    if !repeatable || !budget.try_retry(now) {
        return None;
    }
    let picked = pick();
    if picked.is_none() {
        budget.take_back(now);
    }
    picked
}

/// Notes a server that a request is not to be sent to again.
pub fn note_tried(tried: &mut Vec<u32>, member: u32) {
    if !tried.contains(&member) {
        tried.push(member);
    }
}

/// What is said when nothing is left to try: why the last try failed, unless the wait for another ended it.
#[must_use]
pub fn over(last: Option<Reason>, reason: Reason) -> Reason {
    match (last, reason) {
        (_, Reason::ClientClosed | Reason::QueueFull | Reason::QueueTimeout) => reason,
        // It was sent to nobody: the bound server is out, though that was not known yet.
        (Some(Reason::ConnectRefused), Reason::AffinityServerUnavailable) => reason,
        (last, reason) => last.unwrap_or(reason),
    }
}

/// What a try that gave the client nothing came to; `L` is the claim on a server.
#[derive(Debug)]
pub struct Nothing<L> {
    /// What the client is told, if no other try follows.
    pub reason: Reason,
    /// A byte of the request was taken; otherwise it is as if the server had not been tried.
    pub sent: bool,
    /// Its connection had carried another request.
    pub reused: bool,
    /// The server to try next, where it is claimed already, attempts and budget with it.
    pub next: Option<L>,
}

/// What the tries of one request leave for the next one; `L` is the claim on a server.
#[derive(Debug)]
pub struct Tries<L> {
    /// Why the last one failed.
    last: Option<Reason>,
    only_new: bool,
    /// Claimed already for the next one.
    next: Option<L>,
    /// Servers whose idle connection ended: it may have gone stale, so that they are asked again if no other one is left.
    stale: Vec<u32>,
    was_sent: bool,
    /// How often a server has not taken it.
    refusals: u32,
}

impl<L> Default for Tries<L> {
    fn default() -> Self {
        Self {
            last: None,
            only_new: false,
            next: None,
            stale: Vec::new(),
            was_sent: false,
            refusals: 0,
        }
    }
}

impl<L> Tries<L> {
    /// A slot of the next server, by `pick` if none is claimed yet.
    ///
    /// # Errors
    /// Those of `pick`.
    pub fn lease(
        &mut self,
        tried: &mut Vec<u32>,
        mut pick: impl FnMut(&mut Vec<u32>) -> Result<L, Reason>,
    ) -> Result<L, Reason> {
        if let Some(lease) = self.next.take() {
            return Ok(lease);
        }
        loop {
            let picked = pick(tried);
            if picked.is_ok() || self.stale.is_empty() {
                return picked;
            }
            tried.retain(|id| !self.stale.contains(id));
            self.stale.clear();
            self.only_new = true;
        }
    }

    /// Has a server asked again, by a new connection, whose idle one had gone stale: the request is bound to it.
    pub fn ask_again(&mut self, tried: &mut Vec<u32>, member: u32) {
        if let Some(at) = self.stale.iter().position(|id| *id == member) {
            self.stale.swap_remove(at);
            tried.retain(|id| *id != member);
            self.only_new = true;
        }
    }

    /// Whether the next try takes no idle connection.
    #[must_use]
    pub fn only_new(&self) -> bool {
        self.only_new
    }

    /// Whether the last server took something of the request, so that the next try waits if there is a back-off.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        self.was_sent
    }

    /// What is said when no further server can be had; see [`over`].
    #[must_use]
    pub fn over(&self, reason: Reason) -> Reason {
        over(self.last, reason)
    }

    /// There was no connection to `member`, hence nothing was sent: the request goes elsewhere, whatever its method,
    /// outside the budget. `past`: its own time is over.
    ///
    /// # Errors
    /// What it is answered with instead.
    pub fn handle_no_connection(
        &mut self,
        reason: Reason,
        member: u32,
        tried: &mut Vec<u32>,
        allowance: &Allowance,
        past: bool,
    ) -> Result<(), Reason> {
        self.last = Some(reason);
        note_tried(tried, member);
        if reason == Reason::ConnectTimeout && (past || !allowance.spend()) {
            return Err(reason);
        }
        Ok(())
    }

    /// The try at `member` ended with nothing for the client. `may_retry`: asked whether a request that was sent may be
    /// sent again.
    ///
    /// # Errors
    /// What the request is answered with, if no other try follows.
    pub fn handle_nothing(
        &mut self,
        nothing: Nothing<L>,
        member: u32,
        tried: &mut Vec<u32>,
        may_retry: impl FnOnce(Reason) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        let Nothing {
            reason,
            sent,
            reused,
            next,
        } = nothing;
        self.last = Some(reason);
        self.was_sent = sent;
        self.only_new = reused && next.is_none();
        if reason == Reason::RequestRefused {
            self.refusals = self.refusals.saturating_add(1);
        }
        let reused = reused && self.refusals <= REFUSALS_MAX;
        // A connection that went stale while it was idle, and took nothing, says nothing about its server.
        if sent || !reused {
            note_tried(tried, member);
        }
        if sent {
            self.stale.retain(|id| *id != member);
            if reused {
                self.stale.push(member);
            }
            if next.is_none() {
                may_retry(reason)?;
            }
        }
        self.next = next;
        Ok(())
    }
}

/// What becomes of a race of tries when one of them has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaceStep {
    /// Its answer is the request's.
    Won,
    /// Its answer is kept, in case that no better one comes.
    Kept,
    /// It failed, and the answer kept before is the request's.
    KeptWins,
    /// It failed, and with it the race.
    Lost,
    /// It failed; the others go on.
    GoOn,
}

/// One of several tries of a request has ended: with an answer, which is `failed` if its status is from 500 on or one to
/// retry, or with none. `alone`: no other is running; `kept`: an answer of before is there.
#[must_use]
pub fn race_step(answer: Option<bool>, alone: bool, kept: bool) -> RaceStep {
    match answer {
        Some(failed) if alone || !failed => RaceStep::Won,
        Some(_) => RaceStep::Kept,
        None if !alone => RaceStep::GoOn,
        None if kept => RaceStep::KeptWins,
        None => RaceStep::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(reason: Reason, sent: bool, reused: bool) -> Nothing<()> {
        Nothing {
            reason,
            sent,
            reused,
            next: None,
        }
    }

    #[test]
    fn what_was_sent_goes_elsewhere_within_attempts_and_budget() {
        let now = Duration::from_secs(1);
        let closed = Reason::ServerClosed;
        let plenty = RetryBudget::new(20, 10);
        let none = RetryBudget::new(0, 0);
        for (attempts, repeatable, budget, expected) in [
            (2, true, &plenty, Ok(())),
            (2, false, &plenty, Err(closed)),
            (0, true, &plenty, Err(closed)),
            (2, true, &none, Err(Reason::RetryBudget)),
        ] {
            let allowance = Allowance::new(attempts);
            assert_eq!(allowance.retry(repeatable, closed, budget, now), expected);
            let spent = u32::from(expected.is_ok());
            assert_eq!(allowance.left(), attempts - spent);
        }
    }

    #[test]
    fn a_further_try_that_is_not_made_costs_no_budget() {
        let at = Duration::from_secs(1);
        let budget = RetryBudget::new(0, 10);
        let retries = |made: bool, now| {
            let allowance = Allowance::new(1);
            let allowed = allowance.retry(true, Reason::ServerClosed, &budget, now);
            if made {
                allowance.handle_made();
            }
            allowance.withdraw(&budget);
            allowed.is_ok()
        };
        assert!((0..1000).all(|_| retries(false, at)));
        let made = (0..1000).filter(|_| retries(true, at)).count();
        assert_eq!(made, 100);
        // What waited in vain gives back what it took when it began to.
        let later = at + Duration::from_secs(9);
        assert!(!retries(true, later));
        let waits = Allowance::new(1);
        assert!(
            waits
                .retry(true, Reason::ServerClosed, &RetryBudget::new(0, 20), at)
                .is_ok()
        );
        waits.withdraw(&budget);
        assert!(retries(true, later));
        assert!(!retries(true, later));
    }

    #[test]
    fn a_refused_connection_costs_no_attempt_and_a_slow_one_does() {
        let (mut tries, mut tried) = (Tries::<()>::default(), Vec::new());
        let allowance = Allowance::new(1);
        let mut step = |reason, member, past| {
            tries.handle_no_connection(reason, member, &mut tried, &allowance, past)
        };
        assert_eq!(step(Reason::ConnectRefused, 1, false), Ok(()));
        assert_eq!(step(Reason::ConnectTimeout, 2, false), Ok(()));
        assert_eq!(step(Reason::ConnectRefused, 3, false), Ok(()));
        let late = Reason::ConnectTimeout;
        assert_eq!(step(late, 4, false), Err(late));
        assert_eq!(tried, [1, 2, 3, 4]);
    }

    #[test]
    fn a_server_whose_idle_connection_ended_is_asked_again_for_want_of_others() {
        let (mut tries, mut tried) = (Tries::default(), Vec::new());
        let mut end = |tries: &mut Tries<u32>, member, reused| {
            let nothing = Nothing {
                reason: Reason::ServerClosed,
                sent: true,
                reused,
                next: None,
            };
            tries
                .handle_nothing(nothing, member, &mut tried, |_| Ok(()))
                .unwrap();
            let mut asked = Vec::new();
            let picked = tries.lease(&mut tried, |tried| {
                asked.push(tried.clone());
                let left = [7, 8].into_iter().find(|it| !tried.contains(it));
                left.ok_or(Reason::NoUsableServer)
            });
            (picked, asked)
        };
        let none = Err(Reason::NoUsableServer);
        assert_eq!(end(&mut tries, 7, true), (Ok(8), vec![vec![7]]));
        assert!(tries.only_new() && tries.was_sent());
        // Nor is it forgotten when the next one fails as well.
        let again = (Ok(7), vec![vec![7, 8], vec![8]]);
        assert_eq!(end(&mut tries, 8, false), again);
        assert!(tries.only_new());
        assert_eq!(end(&mut tries, 7, false), (none, vec![vec![8, 7]]));
        assert_eq!(tries.over(Reason::NoUsableServer), Reason::ServerClosed);
        assert_eq!(tries.over(Reason::QueueTimeout), Reason::QueueTimeout);
    }

    #[test]
    fn what_took_nothing_on_a_stale_connection_was_not_tried() {
        let (mut tries, mut tried) = (Tries::<()>::default(), Vec::new());
        let stale = nothing(Reason::ServerClosed, false, true);
        tries
            .handle_nothing(stale, 7, &mut tried, Err)
            .expect("it was not sent");
        assert!(tried.is_empty() && tries.only_new() && !tries.was_sent());
    }

    #[test]
    fn the_first_good_answer_wins_and_a_bad_one_is_better_than_none() {
        for (answer, alone, kept, expected) in [
            (Some(false), false, false, RaceStep::Won),
            (Some(true), false, false, RaceStep::Kept),
            (Some(true), true, false, RaceStep::Won),
            (None, false, false, RaceStep::GoOn),
            (None, false, true, RaceStep::GoOn),
            (None, true, true, RaceStep::KeptWins),
            (None, true, false, RaceStep::Lost),
        ] {
            assert_eq!(race_step(answer, alone, kept), expected);
        }
    }

    #[test]
    fn a_wait_stays_below_a_bound_that_doubles() {
        let backoff = Backoff {
            base: Duration::from_millis(10),
            max: Duration::from_millis(35),
        };
        let allowance = Allowance::new(5);
        for bound in [10, 20, 35, 35] {
            allowance.spend();
            let longest = (0..50_000).map(|at| allowance.backoff(backoff, at)).max();
            assert_eq!(longest, Some(Duration::from_millis(bound)));
        }
    }
}

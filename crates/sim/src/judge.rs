//! Who watches a run: a model of the pool that is simple enough to be right, and the rules that must hold.
//!
//! The judge hears what the publisher hears and sees what it publishes, but asks it nothing: verdicts, operators'
//! words, the budget of retries and the shares that are due are worked out here a second time, in the plainest way.

mod budget;
mod shadow;
mod window;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use balance::State;
use control::live::{Member, PoolView};
use control::message::{Answer, Event};
use control::publisher::Notice;
use control::reason::Reason;

use crate::engine::START;
use crate::exchange::{Outcome, Request};
use crate::report::{Report, Violation};
use crate::scenario::{Condition, Scenario};
use budget::Budget;
use shadow::Shadow;
use window::Window;

/// The publisher has this long to publish what it has heard: views are built at most every 10 ms, and those with large
/// tables more seldom.
const GRACE: Duration = Duration::from_millis(50);
/// A drain is looked at every 20 ms, and what is cut has a second to end.
const DRAIN_SLACK: Duration = Duration::from_millis(1100);
/// So many violations are kept.
const VIOLATIONS_MAX: usize = 8;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// No pick of a server that is draining, disabled, removed, or of weight 0: from the moment of the word on.
    Open,
    /// No pick of a server while a better one is there: healthy before unknown, before one that answers badly, before
    /// one that does not answer.
    Fit,
    /// What is published is what was heard: verdicts, weights, who may serve.
    Current,
    /// No server that may serve is passed over.
    Starved,
    /// Shares keep to the weights, within the bounds that `balance::Algorithm` states.
    Shares,
    /// Retries stay within the budget, and the tries of a request within the servers that there are.
    Amplified,
    /// Who may serve changes no oftener than servers do.
    Oscillates,
    /// A request fails only if no server could have answered it within its tries.
    Lost,
    /// Nothing is sent twice that may not be.
    SentTwice,
    /// A drain ends in time, lets nothing in, and cuts nothing before its deadline.
    Drain,
    /// Every request ends.
    Ends,
}

/// A try of a request that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tried {
    pub(crate) member: u32,
    /// On a connection that had been idle.
    pub(crate) reused: bool,
    pub(crate) end: TryEnd,
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TryEnd {
    Answered(u16),
    Refused,
    ConnectTimedOut,
    /// The request was sent, and the connection ended before a byte of the answer.
    Ended,
    TimedOut,
    /// By the deadline of a drain.
    Cut,
}

/// See the module's own words.
pub(crate) struct Judge {
    attempts: u32,
    shadow: Shadow,
    budget: Budget,
    window: Window,
    view: Option<(u64, Arc<PoolView>)>,
    /// Whether the view is still to be compared with the model.
    unchecked: bool,
    views: u64,
    windows: u64,
    retries: u64,
    tries: u64,
    receipts: u64,
    violations: Vec<Violation>,
}

impl Judge {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            attempts: scenario.attempts,
            shadow: Shadow::new(scenario),
            budget: Budget::new(scenario.budget),
            window: Window::new(scenario.balance),
            view: None,
            unchecked: true,
            views: 0,
            windows: 0,
            retries: 0,
            tries: 0,
            receipts: 0,
            violations: Vec::new(),
        }
    }

    pub(crate) fn object(&mut self, now: Duration, rule: Rule, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            let at = now.saturating_sub(START);
            self.violations.push(Violation { at, rule, what });
        }
    }

    /// The server behind a member.
    pub(crate) fn server_of(&self, member: u32) -> Option<usize> {
        self.shadow.server_of(member)
    }

    pub(crate) fn handle_members(&mut self, now: Duration, view: &PoolView) {
        let members = view.standings.iter().map(|it| &it.member);
        for member in members {
            self.shadow.add(now, member);
        }
        self.unchecked = true;
    }

    pub(crate) fn handle_reload(&mut self, now: Duration, servers: &[(usize, u32)]) {
        self.shadow.reload(now, servers);
        self.unchecked = true;
    }

    pub(crate) fn handle_state(&mut self, now: Duration, server: usize, state: State) {
        self.shadow.set_state(now, server, state);
        self.unchecked = true;
    }

    pub(crate) fn handle_weight(&mut self, now: Duration, server: usize, weight: u32) {
        self.shadow.set_weight(now, server, weight);
        self.unchecked = true;
    }

    pub(crate) fn handle_drain(&mut self, now: Duration, server: usize, timeout: Duration) {
        self.shadow.set_state(now, server, State::Drain);
        self.shadow.drain(server, now + timeout);
        self.unchecked = true;
    }

    /// A server has changed.
    pub(crate) fn handle_turn(&mut self, server: usize, condition: &Condition) {
        self.shadow.turn(server, condition);
    }

    /// Something is about to happen.
    pub(crate) fn handle_disturbance(&mut self, now: Duration) {
        self.close_window(now);
        self.window.trouble(now);
    }

    /// A step is over; `well`: no server has a fault.
    pub(crate) fn handle_step(&mut self, now: Duration, well: bool) {
        self.close_window(now);
        self.window.set_well(well);
        self.window.trouble(now);
    }

    /// The publisher hears of this now.
    pub(crate) fn handle_event(&mut self, now: Duration, event: &Event) {
        self.unchecked |= self.shadow.hear(now, event);
    }

    pub(crate) fn handle_notice(&mut self, _now: Duration, _notice: &Notice) {}

    pub(crate) fn handle_answer(&mut self, now: Duration, answer: &Answer) {
        match answer {
            Answer::Drained(receipt) => {
                self.receipts += 1;
                if receipt.new_picks != 0 {
                    let what = format!("{} picks after a drain began", receipt.new_picks);
                    self.object(now, Rule::Drain, what);
                }
                let latest = self.shadow.longest_drain() + DRAIN_SLACK;
                if Duration::from_millis(receipt.took_ms) > latest {
                    let what = format!("a drain took {} ms, {latest:?} at most", receipt.took_ms);
                    self.object(now, Rule::Drain, what);
                }
            }
            Answer::NotFound(_) | Answer::Done => {}
            other => self.object(now, Rule::Drain, format!("an answer to nobody: {other:?}")),
        }
    }

    pub(crate) fn handle_cut(&mut self, now: Duration, member: u32) {
        if !self.shadow.may_cut(member, now) {
            let what = format!("{} is cut before its deadline", self.shadow.name(member));
            self.object(now, Rule::Drain, what);
        }
    }

    /// Whether this version of the view was not seen yet.
    pub(crate) fn is_new(&self, version: u64) -> bool {
        self.view.as_ref().is_none_or(|(seen, _)| *seen != version)
    }

    pub(crate) fn handle_view(&mut self, now: Duration, version: u64, view: Arc<PoolView>) {
        self.close_window(now);
        self.views += 1;
        self.shadow.count_flips(&view);
        if self.window.is_settled(now, self.shadow.settle_time()) {
            let what = "a view was built with nothing that changed".to_owned();
            self.object(now, Rule::Oscillates, what);
        }
        self.view = Some((version, view));
        self.unchecked = true;
    }

    pub(crate) fn handle_request(&mut self, now: Duration) {
        self.budget.handle_request(now);
    }

    pub(crate) fn handle_pick(
        &mut self,
        now: Duration,
        past: &[Tried],
        member: &Arc<Member>,
        _view: &PoolView,
    ) {
        self.tries += 1;
        self.check_view(now);
        if let Err((rule, what)) = self.shadow.judge_pick(member.id, now, GRACE) {
            self.object(now, rule, what);
        }
        let been = past.iter().filter(|it| it.member == member.id);
        if been.clone().any(|it| !it.reused) {
            let what = format!("a request goes to {} once more", member.name);
            self.object(now, Rule::Amplified, what);
        }
        self.window.count(member.id);
    }

    pub(crate) fn handle_try_end(&mut self, now: Duration, end: TryEnd) {
        if !matches!(end, TryEnd::Answered(200)) {
            self.window.trouble(now);
        }
    }

    /// A request that a server had is sent to another.
    pub(crate) fn handle_retry(&mut self, now: Duration, idempotent: bool) {
        self.retries += 1;
        if !idempotent {
            let what = "a request that must not be is sent twice".to_owned();
            self.object(now, Rule::SentTwice, what);
        }
        if let Err(what) = self.budget.handle_retry(now) {
            self.object(now, Rule::Amplified, what);
        }
    }

    /// A request has ended.
    pub(crate) fn handle_end(
        &mut self,
        now: Duration,
        id: usize,
        request: &Request,
        outcome: Outcome,
    ) {
        let sent = |it: &&Tried| it.end == TryEnd::Ended;
        let used = request
            .past
            .iter()
            .filter(|it| matches!(it.end, TryEnd::Ended | TryEnd::ConnectTimedOut))
            .count();
        let used = u32::try_from(used).unwrap_or(u32::MAX);
        if used > self.attempts.saturating_add(1) {
            let what = format!(
                "request {id} had {used} tries, {} at most",
                self.attempts + 1
            );
            self.object(now, Rule::Amplified, what);
        }
        let Outcome::Failed(reason) = outcome else {
            return;
        };
        let last = request.past.last().map(|it| it.end);
        let excused = match reason {
            Reason::FirstByteTimeout => last == Some(TryEnd::TimedOut),
            Reason::Draining => last == Some(TryEnd::Cut),
            Reason::RetryBudget => self.budget.is_spent(now),
            Reason::ServerClosed | Reason::ServerReset => {
                !request.idempotent && request.past.iter().any(|it| sent(&it))
                    || used > self.attempts
                    || self.none_left(now, request)
            }
            Reason::ConnectTimeout => used > self.attempts || self.none_left(now, request),
            Reason::ConnectRefused | Reason::NoUsableServer => self.none_left(now, request),
            _ => false,
        };
        if !excused {
            let left = self.shadow.left(&request.past, now, GRACE);
            let what = format!(
                "request {id} failed with {}: {:?}; left were {left:?}",
                reason.name(),
                request
                    .past
                    .iter()
                    .map(|it| (self.shadow.name(it.member), it.end))
                    .collect::<Vec<_>>(),
            );
            self.object(now, Rule::Lost, what);
        }
    }

    /// Whether no server was left that could have been tried.
    fn none_left(&self, now: Duration, request: &Request) -> bool {
        self.shadow.left(&request.past, now, GRACE).is_empty()
    }

    /// Compares what is published with what should be, once both had time.
    fn check_view(&mut self, now: Duration) {
        if !self.unchecked || !self.shadow.is_stable(now, GRACE) {
            return;
        }
        let Some((_, view)) = &self.view else {
            return;
        };
        self.unchecked = false;
        if let Err(what) = self.shadow.judge_view(view) {
            self.object(now, Rule::Current, what);
        }
    }

    fn close_window(&mut self, now: Duration) {
        let Some((_, view)) = &self.view else {
            return;
        };
        let found = self.window.close(view);
        self.windows += u64::from(found.judged);
        for (rule, what) in found.objections {
            self.object(now, rule, what);
        }
    }

    pub(crate) fn finish(&mut self, now: Duration, report: &mut Report) {
        self.check_view(now);
        self.close_window(now);
        if let Err(what) = self.shadow.judge_flips() {
            self.object(now, Rule::Oscillates, what);
        }
        report.tries = self.tries;
        report.retries = self.retries;
        report.verdicts = self.shadow.verdicts();
        report.views = self.views;
        report.windows = self.windows;
        report.receipts = self.receipts;
        report.violations = std::mem::take(&mut self.violations);
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "a server that may not serve was picked",
            Self::Fit => "a worse server was picked",
            Self::Current => "the view is out of date",
            Self::Starved => "a server starves",
            Self::Shares => "shares are off",
            Self::Amplified => "too many tries",
            Self::Oscillates => "oscillation",
            Self::Lost => "a request is lost",
            Self::SentTwice => "sent twice",
            Self::Drain => "a drain went wrong",
            Self::Ends => "no end",
        })
    }
}

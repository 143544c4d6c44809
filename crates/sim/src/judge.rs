//! Who watches a run: a model of the pool that is simple enough to be right, and the rules that must hold.
//!
//! The judge hears what the publisher hears and sees what it publishes, but asks it nothing: verdicts, operators'
//! words, the budget of retries and the shares that are due are worked out here a second time, in the plainest way.

mod adaptive;
mod bound;
mod budget;
mod known;
mod line;
mod members;
mod place;
mod rule;
mod shadow;
mod window;

use std::sync::Arc;
use std::time::Duration;

use balance::State;
use balance::queue::Ended;
use control::gate::Lease;
use control::live::{Member, PoolView};
use control::message::{Answer, Event};
use control::publisher::Notice;
use control::reason::Reason;

use crate::engine::START;
use crate::exchange::{Outcome, Request};
use crate::report::{Report, Violation};
use crate::scenario::{Condition, Scenario};
use adaptive::Limits;
use bound::Bonds;
use budget::Budget;
use line::Line;
use shadow::Shadow;
use window::Window;

pub(crate) use bound::Settled;
pub use rule::Rule;

/// The publisher has this long to publish what it has heard: views are built at most every 10 ms, and those with large
/// tables more seldom.
const GRACE: Duration = Duration::from_millis(50);
/// A drain is looked at every 20 ms, and what is cut has a second to end.
const DRAIN_SLACK: Duration = Duration::from_millis(1100);
/// So many violations of each rule are kept.
const VIOLATIONS_MAX: usize = 3;

/// A try of a request that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tried {
    pub(crate) member: u32,
    /// On a connection that had been idle.
    pub(crate) reused: bool,
    /// Others of its request went on.
    pub(crate) raced: bool,
    pub(crate) end: TryEnd,
}

impl Tried {
    /// Whether its connection may have gone stale while it was idle, so that the server may be asked again.
    pub(crate) fn may_be_stale(&self) -> bool {
        self.reused && !self.raced && self.end == TryEnd::Ended
    }
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
    /// For another server, as one of several tries.
    GivenUp,
    /// Another try was quicker.
    Outrun,
}

impl TryEnd {
    /// Whether it counts against its server; `None`: it says nothing of it. `reused`: on a connection that had been idle.
    fn failed(self, reused: bool) -> Option<bool> {
        match self {
            Self::Answered(502..=504) => Some(true),
            Self::Answered(_) => Some(false),
            Self::Ended if reused => None,
            Self::Cut | Self::Outrun => None,
            Self::Refused
            | Self::ConnectTimedOut
            | Self::Ended
            | Self::TimedOut
            | Self::GivenUp => Some(true),
        }
    }
}

/// Why a request is sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Further {
    /// Its try came to nothing.
    Again,
    /// Its try is given up for another one.
    Elsewhere,
    /// Beside a try that goes on.
    Beside,
}

/// What is published of the pool, or of a part of it.
struct Part {
    window: Window,
    view: Option<(u64, Arc<PoolView>)>,
    /// Whether the view is still to be compared with the model.
    unchecked: bool,
}

/// See the module's own words.
pub(crate) struct Judge {
    attempts: u32,
    has_queue: bool,
    bonds: Option<Bonds>,
    line: Line,
    /// Further tries of each request that count, by its number.
    spent: Vec<u32>,
    limits: Option<Limits>,
    /// A slot was taken or given back since they were counted last.
    held_moved: bool,
    waits: u64,
    hedges: u64,
    ejections: u64,
    shadow: Shadow,
    budget: Budget,
    /// The whole pool, then its parts.
    parts: Vec<Part>,
    views: u64,
    windows: u64,
    retries: u64,
    tries: u64,
    receipts: u64,
    violations: Vec<Violation>,
}

impl Part {
    fn new(scenario: &Scenario) -> Self {
        let mut servers = scenario.servers.iter();
        let limited = servers.any(|it| it.connections_max.is_some()) || scenario.adaptive.is_some();
        Self {
            window: Window::new(scenario.balance, limited, scenario.parts > 0),
            view: None,
            unchecked: true,
        }
    }

    /// Whether it has a server among those that are used, as far as anybody was told.
    fn uses(&self, member: u32) -> bool {
        let view = self.view.as_ref();
        view.is_some_and(|(_, view)| view.view.candidates().iter().any(|it| it.id == member))
    }
}

impl Judge {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            attempts: scenario.attempts,
            has_queue: scenario.queue.is_some(),
            bonds: scenario.affinity.map(Bonds::new),
            line: Line::new(scenario.queue.map_or(0, |queue| queue.max as usize)),
            spent: Vec::with_capacity(scenario.requests_about()),
            held_moved: false,
            limits: scenario.adaptive.map(Limits::new),
            waits: 0,
            hedges: 0,
            ejections: 0,
            shadow: Shadow::new(scenario),
            budget: Budget::new(scenario.budget),
            parts: (0..=scenario.parts).map(|_| Part::new(scenario)).collect(),
            views: 0,
            windows: 0,
            retries: 0,
            tries: 0,
            receipts: 0,
            violations: Vec::new(),
        }
    }

    pub(crate) fn object(&mut self, now: Duration, rule: Rule, what: String) {
        let same = self.violations.iter().filter(|it| it.rule == rule);
        if same.count() < VIOLATIONS_MAX {
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
        self.uncheck();
    }

    /// What is published may be out of date.
    fn uncheck(&mut self) {
        for part in &mut self.parts {
            part.unchecked = true;
        }
    }

    /// Shares are off for now.
    fn trouble(&mut self, now: Duration) {
        for part in &mut self.parts {
            part.window.trouble(now);
        }
    }

    pub(crate) fn handle_reload(&mut self, now: Duration, servers: &[(usize, u32)]) {
        self.shadow.reload(now, servers);
        self.uncheck();
    }

    pub(crate) fn handle_state(&mut self, now: Duration, server: usize, state: State) {
        self.shadow.set_state(now, server, state);
        self.uncheck();
    }

    pub(crate) fn handle_weight(&mut self, now: Duration, server: usize, weight: u32) {
        self.shadow.set_weight(now, server, weight);
        self.uncheck();
    }

    pub(crate) fn handle_drain(&mut self, now: Duration, server: usize, timeout: Duration) {
        self.shadow.set_state(now, server, State::Drain);
        self.shadow.drain(now, server, now + timeout);
        self.uncheck();
    }

    /// A server has changed.
    pub(crate) fn handle_turn(&mut self, condition: &Condition) {
        self.shadow.turn(condition);
    }

    /// Something is about to happen.
    pub(crate) fn handle_disturbance(&mut self, now: Duration) {
        self.close_windows(now);
        self.trouble(now);
    }

    /// A step is over; `well`: no server has a fault.
    pub(crate) fn handle_step(&mut self, now: Duration, well: bool) {
        self.close_windows(now);
        for part in &mut self.parts {
            part.window.set_well(well);
        }
        self.trouble(now);
    }

    /// The publisher hears of this now.
    pub(crate) fn handle_event(&mut self, now: Duration, event: &Event) {
        match self.shadow.hear(now, event) {
            Ok(true) => self.uncheck(),
            Ok(false) => {}
            Err((rule, what)) => self.object(now, rule, what),
        }
    }

    pub(crate) fn handle_notice(&mut self, now: Duration, notice: &Notice) {
        let Notice::Health {
            server,
            from,
            to,
            cause,
            ..
        } = notice
        else {
            return;
        };
        if *from == "ejected" {
            self.shadow.see_return(now, server);
        }
        if *to == "ejected" {
            self.ejections += 1;
            if let Err((rule, what)) = self.shadow.see_ejection(now, server, cause) {
                self.object(now, rule, what);
            }
        }
    }

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
    pub(crate) fn is_new(&self, part: usize, version: u64) -> bool {
        let view = self.parts.get(part).and_then(|it| it.view.as_ref());
        view.is_none_or(|(seen, _)| *seen != version)
    }

    pub(crate) fn handle_view(
        &mut self,
        now: Duration,
        at: usize,
        version: u64,
        view: Arc<PoolView>,
    ) {
        self.close_window(now, at);
        self.views += 1;
        if let Err((rule, what)) = self.shadow.see_view(now, at, &view) {
            self.object(now, rule, what);
        }
        let settled = self.shadow.settle_time();
        let Some(part) = self.parts.get_mut(at) else {
            return;
        };
        let idle = settled.is_some_and(|settled| part.window.is_settled(now, settled));
        part.view = Some((version, view));
        part.unchecked = true;
        if idle {
            let what = "a view was built with nothing that changed".to_owned();
            self.object(now, Rule::Oscillates, what);
        }
    }

    pub(crate) fn handle_request(&mut self, now: Duration, id: usize) {
        self.budget.handle_request(now);
        self.spent.resize(id + 1, 0);
    }

    /// A slot of a server was taken. `waited`: out of the queue.
    pub(crate) fn handle_pick(
        &mut self,
        now: Duration,
        id: usize,
        request: &Request,
        member: &Arc<Member>,
        waited: bool,
    ) {
        self.tries += 1;
        self.budget.handle_made(id);
        self.check_views(now);
        let at_home = self.judge_bound(now, id, request, member);
        if !at_home {
            let judged = self.shadow.judge_pick(request.part, member.id, now, GRACE);
            if let Err((rule, what)) = judged {
                self.object(now, rule, what);
            }
        }
        let been = request.past.iter().filter(|it| it.member == member.id);
        if been.clone().any(|it| !it.may_be_stale()) {
            let what = format!("a request goes to {} once more", member.name);
            self.object(now, Rule::Amplified, what);
        }
        if request.running.iter().any(|it| it.member().id == member.id) {
            let what = format!("a request goes to {}, where it runs", member.name);
            self.object(now, Rule::Amplified, what);
        }
        let before = match waited {
            true => None,
            false => self
                .line
                .wants(member.id, |part| self.uses(part, member.id)),
        };
        if let Some(other) = before {
            let what = format!(
                "request {id} takes {} before {other}, who waits",
                member.name
            );
            self.object(now, Rule::Order, what);
        }
        let full = self.shadow.is_full(member.id);
        if full {
            let what = format!("{} is full, and picked", member.name);
            self.object(now, Rule::Limit, what);
        }
        self.held_moved = true;
        if let Some(known) = self.shadow.known_mut(member.id) {
            known.in_use += 1;
        }
        if at_home {
            // It is no turn of the algorithm's, but part of the load.
            if let Some(part) = self.parts.first_mut() {
                part.window.pass_by(now);
            }
            return;
        }
        if waited || !request.past.is_empty() || self.shadow.is_full(member.id) {
            self.trouble(now);
        }
        if let Some(part) = self.parts.get_mut(request.part) {
            part.window.count(member.id);
        }
    }

    pub(crate) fn handle_try_end(&mut self, now: Duration, member: u32, reused: bool, end: TryEnd) {
        if !matches!(end, TryEnd::Answered(200)) {
            self.trouble(now);
        }
        self.held_moved = true;
        if let Some(known) = self.shadow.known_mut(member) {
            known.in_use = known.in_use.saturating_sub(1);
            known.answered += u64::from(matches!(end, TryEnd::Answered(_)));
        }
        if let Some(failed) = end.failed(reused) {
            self.shadow.count(member, failed, now);
        }
    }

    /// Answers that a server has given.
    pub(crate) fn answers_of(&mut self, member: u32) -> u64 {
        let known = self.shadow.known_mut(member);
        known.map_or(0, |known| known.answered)
    }

    /// Another server was faster than this one, which had given so many answers when it was asked, and was waited for alone
    /// since.
    pub(crate) fn handle_outrun(&mut self, now: Duration, member: u32, answers: u64) {
        if self.answers_of(member) == answers {
            self.shadow.count(member, true, now);
        }
    }

    /// One of the tries that a request may have beside the first was spent without being sent.
    pub(crate) fn handle_spent(&mut self, id: usize) {
        if let Some(spent) = self.spent.get_mut(id) {
            *spent += 1;
        }
    }

    /// A request that a server had is sent to another.
    pub(crate) fn handle_further(
        &mut self,
        now: Duration,
        id: usize,
        idempotent: bool,
        further: Further,
    ) {
        self.retries += 1;
        self.trouble(now);
        match further {
            Further::Again | Further::Elsewhere => self.handle_spent(id),
            Further::Beside => self.hedges += 1,
        }
        if !idempotent {
            let what = "a request that must not be is sent twice".to_owned();
            self.object(now, Rule::SentTwice, what);
        }
        if let Err(what) = self.budget.handle_retry(now, id) {
            self.object(now, Rule::Amplified, what);
        }
    }

    /// A request stays with the server that it has, though another would be tried if that might be.
    pub(crate) fn handle_stays(
        &mut self,
        now: Duration,
        id: usize,
        request: &Request,
        further: Further,
    ) {
        let spent = further == Further::Elsewhere && self.has_spent(id);
        if spent || !request.idempotent || self.budget.is_spent(now) {
            return;
        }
        if self
            .bonds
            .as_ref()
            .is_some_and(|it| it.is_required() && it.home(id).is_some())
        {
            return;
        }
        // Its own server is the only one that it would be sent to, if it was not there yet.
        let home = self.bonds.as_ref().and_then(|it| it.home(id));
        let running = request.running.iter().map(|it| it.member().id);
        let mut been = running.chain(request.past.iter().map(|it| it.member));
        if home.is_some() && !been.any(|it| self.shadow.server_of(it) == home) {
            return;
        }
        let left = self.free(now, request);
        if !left.is_empty() {
            let what = format!("request {id} stays where it is; left were {left:?}");
            self.object(now, Rule::Lost, what);
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
        self.retries -= u64::from(self.budget.handle_end(id));
        let spent = self.spent_of(id);
        if spent > self.attempts {
            let what = format!(
                "request {id} had {spent} further tries, {} at most",
                self.attempts
            );
            self.object(now, Rule::Amplified, what);
        }
        let Outcome::Failed(reason) = outcome else {
            self.forget(id);
            return;
        };
        let refused = self
            .bonds
            .as_ref()
            .is_some_and(|bonds| bonds.may_refuse(&mut self.shadow, now, id, &request.past));
        let last = request.past.last().map(|it| it.end);
        let was_sent = request.past.iter().any(|it| it.end == TryEnd::Ended);
        // Nobody else may have what its own server failed.
        let excused = refused
            || match reason {
                Reason::FirstByteTimeout => {
                    matches!(last, Some(TryEnd::TimedOut)) || self.free(now, request).is_empty()
                }
                Reason::Draining => last == Some(TryEnd::Cut),
                Reason::RetryBudget => self.budget.is_spent(now),
                // Judged when it happened.
                Reason::QueueFull | Reason::QueueTimeout => true,
                Reason::ServerClosed | Reason::ServerReset => {
                    !request.idempotent && was_sent
                        || self.has_spent(id)
                        || self.free(now, request).is_empty()
                }
                Reason::ConnectTimeout => self.has_spent(id) || self.free(now, request).is_empty(),
                Reason::ConnectRefused | Reason::NoUsableServer | Reason::ServerLimit => {
                    self.free(now, request).is_empty()
                }
                _ => false,
            };
        if !excused {
            let left = self.free(now, request);
            let left: Vec<String> = left.iter().map(|id| self.shadow.name(*id)).collect();
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
        self.forget(id);
    }

    /// Whether a server is for those who want this part and are not bound to it, as far as anybody was told.
    fn uses(&self, part: usize, member: u32) -> bool {
        self.parts.get(part).is_some_and(|part| part.uses(member))
    }

    fn has_spent(&self, id: usize) -> bool {
        self.spent_of(id) >= self.attempts
    }

    fn spent_of(&self, id: usize) -> u32 {
        self.spent.get(id).copied().unwrap_or_default()
    }

    /// Servers that a request could have gone to besides those that it has been to and is at. Where it may wait for
    /// one, a full one is one of them, if nothing else waits.
    fn free(&mut self, now: Duration, request: &Request) -> Vec<u32> {
        let mut left = self.shadow.left(request.part, &request.past, now, GRACE);
        let beside = !request.running.is_empty();
        let at = |id: &u32| {
            let past = request.past.iter().filter(|_| beside).map(|it| it.member);
            let mut been = request.running.iter().map(|it| it.member().id).chain(past);
            been.any(|it| it == *id)
        };
        let may_wait = self.has_queue && !beside;
        left.retain(|id| !at(id) && (may_wait || !self.shadow.is_full(*id)));
        if beside && !self.line.is_empty() {
            left.clear();
        }
        left
    }

    /// A request finds every server full, and wants to wait.
    pub(crate) fn handle_enter(
        &mut self,
        now: Duration,
        id: usize,
        request: &Request,
        moment: u64,
        waits: (Option<u32>, Duration),
    ) {
        self.waits += 1;
        self.trouble(now);
        if let Some(bonds) = self.bonds.as_mut().filter(|_| waits.0.is_none()) {
            bonds.handle_leaves(&mut self.shadow, now, id);
        }
        let place = (request.part, request.priority);
        self.line
            .enter(now, id, place, &request.tried, moment, waits);
    }

    /// It could not.
    pub(crate) fn handle_queue_full(&mut self, now: Duration, id: usize) {
        if let Err(what) = self.line.turned_away(now, id) {
            self.object(now, Rule::Waits, what);
        }
    }

    /// It has waited as long as it may.
    pub(crate) fn handle_timeout(&mut self, now: Duration, id: usize) {
        if let Err(what) = self.line.timed_out(now, id) {
            self.object(now, Rule::Waits, what);
        }
    }

    /// Slots were handed to some of those who wait, at these moments, and others wait no longer.
    pub(crate) fn handle_wait_ends(&mut self, now: Duration, ends: &[(usize, u64, &Ended<Lease>)]) {
        let mut granted = Vec::new();
        for (id, moment, end) in ends {
            match end {
                Ended::Granted(lease) => {
                    if let Some(place) = self.line.place(*id) {
                        granted.push((*id, place, *moment, lease.member.id));
                    }
                    self.line.leave(now, *id);
                }
                Ended::Displaced => {
                    if let Err(what) = self.line.displaced(now, *id) {
                        self.object(now, Rule::Waits, what);
                    }
                }
                Ended::Unservable => {
                    self.line.leave(now, *id);
                }
            }
        }
        for (id, (priority, came), moment, member) in granted {
            let serves = |part| self.uses(part, member);
            let over = self
                .line
                .overtaken(id, (priority, came), moment, member, serves);
            if let Some(what) = over {
                self.object(now, Rule::Order, what);
            }
        }
    }

    /// Everything that follows from one event has happened.
    pub(crate) fn handle_calm(&mut self, now: Duration) {
        if std::mem::take(&mut self.held_moved) {
            self.judge_held(now);
        }
        if self.line.is_empty() {
            return;
        }
        if let Some(what) = self.line.overdue(now) {
            self.object(now, Rule::Waits, what);
        }
        let views = self.parts.iter().filter_map(|it| it.view.as_ref());
        let mut used = views.flat_map(|(_, view)| view.view.candidates());
        let idle = used.find_map(|it| {
            let open = self.shadow.known(it.id).is_some_and(|it| it.is_open());
            let waiter = self.line.wants(it.id, |part| self.uses(part, it.id))?;
            (open && !self.shadow.is_full(it.id)).then_some((waiter, it.id))
        });
        if let Some((waiter, id)) = idle {
            let name = self.shadow.name(id);
            let what = format!("request {waiter} waits, and {name} has room");
            self.object(now, Rule::Idle, what);
        }
    }

    /// What each server holds is what runs on it.
    fn judge_held(&mut self, now: Duration) {
        let leaked = self.shadow.all().find_map(|(id, known)| {
            let held = known.member.cell.in_use();
            (held != known.in_use).then_some((id, held, known.in_use))
        });
        if let Some((id, held, runs)) = leaked {
            let name = self.shadow.name(id);
            let what = format!("{name} is held {held} times, by {runs} tries");
            self.object(now, Rule::Leaked, what);
        }
    }

    /// No request is left; so many wait.
    pub(crate) fn handle_rest(&mut self, now: Duration, waiting: usize) {
        if waiting > 0 {
            let what = format!("{waiting} wait when no request is left");
            self.object(now, Rule::Leaked, what);
        }
        self.judge_held(now);
        self.handle_calm(now);
    }

    /// Compares what is published with what should be, once both had time.
    fn check_views(&mut self, now: Duration) {
        if let Some(what) = self.shadow.overdue(now, GRACE) {
            self.object(now, Rule::Ejected, what);
        }
        if !self.parts.iter().any(|it| it.unchecked) || !self.shadow.is_stable(now, GRACE) {
            return;
        }
        for at in 0..self.parts.len() {
            let part = &mut self.parts[at];
            let Some((_, view)) = part.view.clone() else {
                continue;
            };
            if !std::mem::take(&mut part.unchecked) {
                continue;
            }
            if let Err((rule, what)) = self.shadow.judge_view(at, &view) {
                self.object(now, rule, what);
            }
        }
        if let Some(what) = self.shadow.spared(now) {
            self.object(now, Rule::Current, what);
        }
    }

    fn close_windows(&mut self, now: Duration) {
        for part in 0..self.parts.len() {
            self.close_window(now, part);
        }
    }

    fn close_window(&mut self, now: Duration, part: usize) {
        let Some(part) = self.parts.get_mut(part) else {
            return;
        };
        let Some((_, view)) = &part.view else {
            return;
        };
        let found = part.window.close(view);
        self.windows += u64::from(found.judged);
        for (rule, what) in found.objections {
            self.object(now, rule, what);
        }
    }

    pub(crate) fn finish(&mut self, now: Duration, report: &mut Report) {
        self.check_views(now);
        self.close_windows(now);
        if let Err(what) = self.shadow.judge_flips(now.saturating_sub(START)) {
            self.object(now, Rule::Oscillates, what);
        }
        report.tries = self.tries;
        report.retries = self.retries;
        report.verdicts = self.shadow.verdicts();
        report.views = self.views;
        report.windows = self.windows;
        report.receipts = self.receipts;
        report.waits = self.waits;
        report.hedges = self.hedges;
        report.ejections = self.ejections;
        report.limits = self.limits.as_ref().and_then(Limits::seen);
        report.violations = std::mem::take(&mut self.violations);
    }
}

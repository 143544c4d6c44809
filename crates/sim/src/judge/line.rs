//! Who waits, in a list: every rule of the queue is a look through it.

use std::collections::BTreeMap;
use std::time::Duration;

/// A wait ends at its deadline, give or take.
const SLACK: Duration = Duration::from_millis(1);

/// One that waits.
#[derive(Debug)]
struct Waiter {
    request: usize,
    /// The part of the pool that it wants.
    part: usize,
    priority: u8,
    /// When it came, among all that bears on the order.
    moment: u64,
    since: Duration,
    tried: Vec<u32>,
    /// The only one that will do, if it is bound to that.
    only: Option<u32>,
    /// How long it may wait in all.
    wait: Duration,
}

impl Waiter {
    /// Whether a slot of this server is for it. `serves`: whether it is for whoever wants a part and is not bound to it.
    fn meets(&self, member: u32, serves: impl Fn(usize) -> bool) -> bool {
        let wanted = || serves(self.part);
        self.only.map_or_else(wanted, |only| only == member) && !self.tried.contains(&member)
    }
}

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Room for so many.
    max: usize,
    waiting: Vec<Waiter>,
    /// How long each request has waited, over all its tries.
    waited: BTreeMap<usize, Duration>,
}

impl Line {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn enter(
        &mut self,
        now: Duration,
        request: usize,
        (part, priority): (usize, u8),
        tried: &[u32],
        moment: u64,
        (only, wait): (Option<u32>, Duration),
    ) {
        self.waiting.push(Waiter {
            request,
            part,
            priority,
            moment,
            since: now,
            // Who waits for its own server has no other.
            tried: if only.is_some() {
                Vec::new()
            } else {
                tried.to_vec()
            },
            only,
            wait,
        });
    }

    /// It waits no longer: how long it has, in all.
    pub(super) fn leave(&mut self, now: Duration, request: usize) -> Duration {
        let at = self.waiting.iter().position(|it| it.request == request);
        let Some(at) = at else {
            return Duration::ZERO;
        };
        let waiter = self.waiting.remove(at);
        let waited = self.waited.entry(request).or_default();
        *waited += now.saturating_sub(waiter.since);
        *waited
    }

    /// It was turned away, so that there was no room, nor one of lower priority.
    pub(super) fn turned_away(&mut self, now: Duration, request: usize) -> Result<(), String> {
        let priority = self.priority(request);
        self.leave(now, request);
        let lower = self.waiting.iter().any(|it| it.priority < priority);
        if self.waiting.len() < self.max || lower {
            return Err(format!(
                "request {request} of priority {priority} was turned away: {} wait, {} may",
                self.waiting.len(),
                self.max
            ));
        }
        Ok(())
    }

    /// It had to make room for another, so that all that are left are better, or came before.
    pub(super) fn displaced(&mut self, now: Duration, request: usize) -> Result<(), String> {
        let priority = self.priority(request);
        self.leave(now, request);
        let lower = self.waiting.iter().any(|it| it.priority < priority);
        if self.waiting.len() < self.max || lower {
            return Err(format!(
                "request {request} of priority {priority} had to make room among {}",
                self.waiting.len()
            ));
        }
        Ok(())
    }

    /// It has waited long enough.
    pub(super) fn timed_out(&mut self, now: Duration, request: usize) -> Result<(), String> {
        let waiter = self.waiting.iter().find(|it| it.request == request);
        let wait = waiter.map_or(Duration::ZERO, |it| it.wait);
        let before = self.waited.get(&request).copied().unwrap_or_default();
        let waited = self.leave(now, request);
        // It may have waited for longer before, for a server that it was bound to.
        if waited + SLACK < wait || waited > wait.max(before) + SLACK {
            return Err(format!(
                "request {request} waited {waited:?} where it may {wait:?}"
            ));
        }
        Ok(())
    }

    /// A slot of `member` was handed out at `moment`: to one that came after another that could have had it?
    pub(super) fn overtaken(
        &self,
        request: usize,
        (priority, came): (u8, u64),
        moment: u64,
        member: u32,
        serves: impl Fn(usize) -> bool,
    ) -> Option<String> {
        let before = self.waiting.iter().find(|it| {
            let first = it.priority > priority || it.priority == priority && it.moment < came;
            it.request != request && first && it.moment < moment && it.meets(member, &serves)
        })?;
        Some(format!(
            "request {request} of priority {priority} before {} of {}",
            before.request, before.priority
        ))
    }

    /// One that waits and could have a slot of this server.
    pub(super) fn wants(&self, member: u32, serves: impl Fn(usize) -> bool) -> Option<usize> {
        let waiter = self.waiting.iter().find(|it| it.meets(member, &serves))?;
        Some(waiter.request)
    }

    /// Who has waited too long.
    pub(super) fn overdue(&self, now: Duration) -> Option<String> {
        let late = self.waiting.iter().find(|it| {
            let before = self.waited.get(&it.request).copied().unwrap_or_default();
            before + now.saturating_sub(it.since) > it.wait.max(before) + SLACK
        })?;
        Some(format!(
            "request {} still waits after {:?}, {:?} at most",
            late.request,
            now.saturating_sub(late.since),
            late.wait
        ))
    }

    /// Its priority and when it came.
    pub(super) fn place(&self, request: usize) -> Option<(u8, u64)> {
        let waiter = self.waiting.iter().find(|it| it.request == request)?;
        Some((waiter.priority, waiter.moment))
    }

    fn priority(&self, request: usize) -> u8 {
        self.place(request).map_or(0, |(priority, _)| priority)
    }
}

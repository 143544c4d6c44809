//! Drains over an upgrade: who waits is told that another process goes on, and that process goes on to the same deadline.
//!
//! What a server held in the old process ends there, at the latest when the drain's deadline cuts it. The receipts of
//! both add up.

use std::sync::Arc;
use std::time::Duration;

use balance::{OnDrain, State};
use config::Pool;

use super::super::handover::millis;
use super::super::pools::Slot;
use super::super::{Action, Publisher};
use super::{Held, PendingDrain};
use crate::handover::LiveDrain;
use crate::live::Member;
use crate::message::{Answer, Receipt, Reply};

/// A drain that began in the process before this one.
pub(super) struct Carried {
    /// The server's name in the config.
    server: Arc<str>,
    /// How long it had lasted when this process took it over.
    pub(super) age: Duration,
}

/// A drain from the process before this one that has ended: whoever waited for it there may ask yet.
pub(in crate::publisher) struct EndedDrain {
    members: Vec<u32>,
    receipt: Receipt,
}

impl EndedDrain {
    pub(super) fn new(drain: &PendingDrain, receipt: Receipt) -> Self {
        let members = drain.members.iter().map(|held| held.member.id);
        Self {
            members: members.collect(),
            receipt,
        }
    }
}

impl Publisher {
    /// Another process goes on with the drains: who waits for one here is told so, with its receipt so far. What is in
    /// use here is cut at the deadline still; clients that are bound here stay, as they do there.
    pub fn hand_drains_over(&mut self, now: Duration) {
        for drain in &mut self.drains {
            drain.is_handed_over = true;
            let in_use = |held: &Held| u64::from(held.member.cell.in_use());
            // One whose deadline has come ends here.
            let goes_on = drain.cutting.is_none();
            let left = goes_on.then(|| drain.members.iter().map(in_use).sum());
            let receipt = Receipt {
                handed_over: left,
                ..drain.receipt(now)
            };
            let replies = std::mem::take(&mut drain.replies).into_iter();
            let told = replies.map(|reply| Action::Reply(reply, Answer::Drained(receipt.clone())));
            self.actions.extend(told);
        }
    }

    /// Waits for a drain that began in the process before this one.
    pub fn handle_drain_wait(&mut self, pool: &str, server: &str, reply: Reply) {
        let members = self.pools.get(pool).map_or_else(Vec::new, |entry| {
            let named = entry.slots.iter().filter(|slot| slot.answers_to(server));
            named.map(|slot| slot.member.id).collect()
        });
        let mut pending = self.drains.iter_mut().filter(|it| it.carried.is_some());
        if let Some(drain) = pending.find(|it| it.is_of(&members)) {
            drain.replies.push(reply);
            return;
        }
        let is_it = |it: &&EndedDrain| it.members.iter().any(|id| members.contains(id));
        let answer = match self.ended_drains.iter().find(is_it) {
            Some(ended) => Answer::Drained(ended.receipt.clone()),
            None => Answer::NotFound(format!(
                "no drain of server `{server}` in pool `{pool}` came from the process before this one"
            )),
        };
        self.actions.push_back(Action::Reply(reply, answer));
    }

    /// What the next process is to know of a server's drain.
    pub(in crate::publisher) fn tell_drain(&self, slot: &Slot, now: Duration) -> Option<LiveDrain> {
        if slot.word != Some(State::Drain) {
            return None;
        }
        let id = slot.member.id;
        let mut pending = self.drains.iter();
        match pending.find(|it| it.cutting.is_none() && it.is_of(&[id])) {
            Some(drain) => Some(LiveDrain {
                is_over: false,
                age_ms: millis(drain.age(now)),
                left_ms: drain
                    .deadline
                    .map(|deadline| millis(deadline.saturating_sub(now))),
            }),
            None => slot.member.is_drained().then(|| LiveDrain {
                is_over: true,
                ..LiveDrain::default()
            }),
        }
    }

    /// Goes on with what the process before this one told so long `ago`, for the last time or not.
    pub(in crate::publisher) fn resume_drain(
        &mut self,
        (pool, slot): (&Pool, &Slot),
        given: Option<LiveDrain>,
        now: Duration,
        ago: Duration,
    ) {
        let member = &slot.member;
        for drain in &mut self.drains {
            drain.members.retain(|held| held.member.id != member.id);
        }
        self.drains.retain(|drain| !drain.members.is_empty());
        let Some(given) = given.filter(|_| slot.word == Some(State::Drain)) else {
            return;
        };
        let affinity = pool.affinity.as_ref();
        let keeps = affinity.is_some_and(|it| it.on_drain == OnDrain::Keep);
        member.set_drained(given.is_over || !keeps);
        if given.is_over {
            return;
        }
        let held = Held::new(member.clone(), keeps.then_some(now));
        let is_same = |it: &&mut PendingDrain| {
            let carried = it.carried.as_ref();
            carried.is_some_and(|carried| carried.server == slot.configured)
                && it.is_of_pool(&member.pool)
        };
        // Other addresses of its name are part of the same drain.
        if let Some(drain) = self.drains.iter_mut().find(is_same) {
            drain.members.push(held);
            return;
        }
        let given = given.after(ago);
        let left = given.left_ms.map(Duration::from_millis);
        let deadline = left.map(|left| now.saturating_add(left));
        self.drains.push(PendingDrain {
            deadline,
            carried: Some(Carried {
                server: slot.configured.clone(),
                age: Duration::from_millis(given.age_ms),
            }),
            ..PendingDrain::new(vec![held], now)
        });
    }

    /// Another word makes what was kept of earlier drains of these out of date.
    pub(super) fn forget_ended_drains(&mut self, members: &[u32]) {
        let is_one = |it: &EndedDrain| it.members.iter().any(|id| members.contains(id));
        self.ended_drains.retain(|it| !is_one(it));
    }
}

impl PendingDrain {
    /// Whether one of these drains by it.
    fn is_of(&self, members: &[u32]) -> bool {
        let mut held = self.members.iter();
        held.any(|held| members.contains(&held.member.id))
    }

    fn is_of_pool(&self, pool: &str) -> bool {
        let is_it = |member: &Member| *member.pool == *pool;
        self.members.first().is_some_and(|held| is_it(&held.member))
    }
}

//! Drains over an upgrade: who waits is told that another process goes on, and that process goes on to the same deadline.
//!
//! What a server held in the old process ends there, at the latest when the drain's deadline cuts it. The new one asks what
//! that comes to, waits for it, and gives one receipt of both.

use std::sync::Arc;
use std::time::Duration;

use balance::{OnDrain, State};
use config::Pool;

use super::super::handover::millis;
use super::super::pools::Slot;
use super::super::predecessor::{Elsewhere, Predecessor};
use super::super::{Action, Publisher};
use super::{Held, PendingDrain};
use crate::handover::{LiveDrain, Obeyed, Word};
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
    /// Pool and server where this process's config has no such server: then all of it is in that process.
    gone: Option<(String, String)>,
    receipt: Receipt,
    /// The word by which that process has yet to say what it had of it.
    awaited: Option<u64>,
}

impl EndedDrain {
    pub(super) fn new(drain: &PendingDrain, receipt: Receipt, awaited: Option<u64>) -> Self {
        let members = drain.members.iter().map(|held| held.member.id);
        Self {
            members: members.collect(),
            gone: None,
            receipt,
            awaited,
        }
    }
}

impl Publisher {
    /// Another process goes on with the drains: who waits for one here is told so. What is in use here is cut at the
    /// deadline still; clients that are bound here stay, as they do there.
    pub fn hand_drains_over(&mut self) {
        for drain in &mut self.drains {
            // One whose server the config has let go of is not known there: it ends here.
            let mut held = drain.members.iter();
            drain.is_handed_over = held.any(|it| self.places.contains_key(&it.member.id));
            // So does one whose deadline has come, in a moment.
            if drain.is_handed_over && drain.cutting.is_none() {
                let replies = std::mem::take(&mut drain.replies).into_iter();
                let told = replies.map(|reply| Action::Reply(reply, Answer::GoesOnElsewhere));
                self.actions.extend(told);
            }
        }
    }

    /// Says to the process after this one what a drain comes to that it goes on with, from where that began here.
    pub(in crate::publisher) fn go_on_for_successor(
        &mut self,
        members: &[u32],
        number: u64,
        now: Duration,
    ) {
        let is_it =
            |it: &PendingDrain| it.is_handed_over && it.asked_by.is_none() && it.is_of(members);
        let goes_on = |it: &PendingDrain| is_it(it) && it.cutting.is_none();
        // One that is being cut was told before that began, or was followed by another.
        let any = self.drains.iter().any(goes_on);
        let meant = |it: &mut PendingDrain| if any { goes_on(it) } else { is_it(it) };
        let found: Vec<_> = self.drains.extract_if(.., meant).collect();
        match found.into_iter().reduce(PendingDrain::with) {
            Some(drain) => {
                self.drains.push(PendingDrain {
                    asked_by: Some(number),
                    is_handed_over: false,
                    look_at: now,
                    ..drain
                });
                self.look_at_drains(now);
            }
            // It has ended since it was told.
            None => self.actions.push_back(Action::Obeyed(Obeyed {
                number,
                ..Obeyed::default()
            })),
        }
    }

    /// What the process before this one is to be told of a drain whose server this one's config does not have: whoever
    /// waited for that there may wait for it here.
    pub(in crate::publisher) fn wait_for_gone(
        &mut self,
        (pool, server): (String, String),
        drain: LiveDrain,
        servers: Vec<(String, String)>,
        now: Duration,
    ) -> Word {
        let word = self.predecessor.numbered(Word {
            pool: pool.clone(),
            servers,
            drain: Some(drain),
            goes_on: true,
            ..Word::default()
        });
        let receipt = Receipt {
            took_ms: drain.age_ms,
            ..Receipt::default()
        };
        self.ended_drains.push(EndedDrain {
            members: Vec::new(),
            gone: Some((pool, server)),
            receipt: receipt.clone(),
            awaited: Some(word.number),
        });
        let nobody = (Vec::new(), Answer::Drained(receipt));
        let (number, actions) = (Some(word.number), &mut self.actions);
        self.predecessor.answer(number, nobody, actions, now);
        word
    }

    /// The process before this one has said what it had of a drain that has ended here, or says it no more.
    pub(in crate::publisher) fn complete_ended_drain(&mut self, number: u64, receipt: Receipt) {
        let mut ended = self.ended_drains.iter_mut();
        if let Some(ended) = ended.find(|it| it.awaited == Some(number)) {
            ended.awaited = None;
            ended.receipt = receipt;
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
        let is_it = |it: &&EndedDrain| {
            let mut gone = it.gone.iter();
            gone.any(|(of, name)| of == pool && name == server)
                || it.members.iter().any(|id| members.contains(id))
        };
        let ended = self.ended_drains.iter().find(is_it);
        let awaited = ended.and_then(|ended| ended.awaited);
        if let Some(waiting) = awaited.and_then(|it| self.predecessor.waiting_for(it)) {
            waiting.push(reply);
            return;
        }
        let answer = match ended {
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
        let mut drain = PendingDrain {
            deadline,
            carried: Some(Carried {
                server: slot.configured.clone(),
                age: Duration::from_millis(given.age_ms),
            }),
            ..PendingDrain::new(vec![held], now)
        };
        // A server whose name has an address only now.
        if self.predecessor.hears() {
            let word = drain.go_on_elsewhere(&mut self.predecessor, now);
            self.actions.extend(word.map(Action::Forward));
        }
        self.drains.push(drain);
    }

    /// Another word makes what was kept of earlier drains of these out of date.
    pub(super) fn forget_ended_drains(&mut self, members: &[u32]) {
        let is_one = |it: &EndedDrain| it.members.iter().any(|id| members.contains(id));
        self.ended_drains.retain(|it| !is_one(it));
    }
}

impl PendingDrain {
    /// What the process before this one is to be told of a drain that was carried over: from here on it is waited for.
    pub(in crate::publisher) fn go_on_elsewhere(
        &mut self,
        predecessor: &mut Predecessor,
        now: Duration,
    ) -> Option<Word> {
        let carried = self.carried.as_ref()?;
        let pool = &self.members.first()?.member.pool;
        let known_as = |held: &Held| {
            let endpoint = held.member.endpoint.to_string();
            (carried.server.to_string(), endpoint)
        };
        let left = self.deadline.map(|deadline| deadline.saturating_sub(now));
        let word = predecessor.numbered(Word {
            pool: pool.to_string(),
            servers: self.members.iter().map(known_as).collect(),
            drain: Some(LiveDrain {
                left_ms: left.map(millis),
                ..LiveDrain::default()
            }),
            goes_on: true,
            ..Word::default()
        });
        self.elsewhere = Some(Elsewhere::Awaited(word.number));
        Some(word)
    }

    /// Both as one: a name's addresses may drain by words of their own, or one of them by two.
    fn with(mut self, other: Self) -> Self {
        for held in other.members {
            if !self.is_of(&[held.member.id]) {
                self.members.push(held);
            }
        }
        self.replies.extend(other.replies);
        self.began = self.began.min(other.began);
        self
    }

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

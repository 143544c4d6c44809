//! Drains that wait, and their receipts.

mod handed;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use balance::{OnDrain, State};

use super::handover::millis;
use super::predecessor::{Elsewhere, Predecessor};
use super::{Action, Notice, Publisher};
use crate::handover::{LiveDrain, Word};
use crate::live::Member;
use crate::message::{Answer, Receipt, Reply};
use handed::Carried;

pub(super) use handed::EndedDrain;

/// How often a drain that waits is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A drain of a server that keeps its bound clients ends when none of them has come for this long.
const QUIET: Duration = Duration::from_secs(5);
/// Bound clients are let in no longer for the last part of a drain's time, so that what they asked last ends before it is
/// cut: a quarter of it, at most this.
const CLOSED_MAX: Duration = Duration::from_secs(5);
/// Workers have heard of a reload by then, as a rule.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
/// How long what was cut has to end.
const CUT_WAIT: Duration = Duration::from_secs(1);
/// What was between two steps of its own when the word came has not heard it: it is said again after this long.
const CUT_AGAIN: Duration = Duration::from_millis(200);

pub(super) struct PendingDrain {
    /// Several when a name stands for several addresses.
    members: Vec<Held>,
    /// Of those who wait for it.
    replies: Vec<Reply>,
    began: Duration,
    /// When what still runs is cut.
    deadline: Option<Duration>,
    /// When that was said.
    deadline_set: Duration,
    /// Whether clients that are bound to its servers are let in no longer.
    closed: bool,
    cutting: Option<Cutting>,
    /// Set where it began in the process before this one.
    carried: Option<Carried>,
    /// Another process goes on with it: what is left to do here is to cut at the deadline.
    is_handed_over: bool,
    /// Requests in use when another word ended it.
    left: Option<u64>,
    /// Its part in the process before this one, where that drains, too.
    pub(super) elsewhere: Option<Elsewhere>,
    /// The number of the word by which the process after this one asked for it.
    pub(super) asked_by: Option<u64>,
    pub(super) look_at: Duration,
}

/// The deadline has come, and not all has ended.
struct Cutting {
    again_at: Duration,
    until: Duration,
}

/// A server that the config has let go of, and how long what it holds may take.
pub(super) struct Leaving {
    pub(super) member: Arc<Member>,
    pub(super) timeout: Option<Duration>,
}

/// One server that drains, as it was when the drain began.
struct Held {
    member: Arc<Member>,
    /// Requests in use at that moment.
    in_use: u32,
    /// Picks so far, read one look later: a worker counts a pick a moment after it has been let in.
    picks: Option<u64>,
    affinity_picks: u64,
    /// Whether clients that are bound to it stay until the drain ends; then what they had asked at the last look, and when
    /// they asked last.
    bound: Option<(u64, Duration)>,
    cut: u64,
}

impl Publisher {
    /// Drains a server; the receipt goes out as an action when it holds nothing any more, or at the deadline.
    pub fn handle_drain(
        &mut self,
        pool: &str,
        server: &str,
        timeout: Option<Duration>,
        reply: Reply,
        now: Duration,
    ) {
        let (pool, members) = match self.named(pool, server) {
            Ok(known) => known,
            Err(why) => {
                self.actions
                    .push_back(Action::Reply(reply, Answer::NotFound(why)));
                return;
            }
        };
        let own = self.pools.get(&pool).and_then(|it| it.config.drain_timeout);
        let timeout = timeout.or(own);
        let word = Word {
            drain: Some(LiveDrain {
                left_ms: timeout.map(millis),
                ..LiveDrain::default()
            }),
            ..Word::default()
        };
        let number = self.forward(&pool, &members, word);
        let deadline = timeout.map(|timeout| now.saturating_add(timeout));
        let drain = PendingDrain {
            replies: vec![reply],
            elsewhere: number.map(Elsewhere::Awaited),
            ..self.begin_drain((&pool, &members), deadline, false, now)
        };
        self.go_on_with(drain, &pool, now);
    }

    /// From here on nothing is picked but by clients that are bound to them and may stay. `move_at_once`: they may not,
    /// whatever the pool says.
    pub(super) fn begin_drain(
        &mut self,
        (pool, members): (&Arc<str>, &[u32]),
        deadline: Option<Duration>,
        move_at_once: bool,
        now: Duration,
    ) -> PendingDrain {
        self.forget_ended_drains(members);
        self.keep_from_parting(members);
        self.follow_later_word(members, deadline, now);
        let mut all = Vec::new();
        if let Some(entry) = self.pools.get_mut(pool) {
            let affinity = entry.config.affinity.as_ref();
            let keeps = affinity.is_some_and(|it| it.on_drain == OnDrain::Keep) && !move_at_once;
            for slot in entry
                .slots
                .iter_mut()
                .filter(|slot| members.contains(&slot.member.id))
            {
                slot.word = Some(State::Drain);
                slot.member.set_cut(false);
                slot.member.set_drained(!keeps);
                all.push(Held::new(slot.member.clone(), keeps.then_some(now)));
                self.actions.push_back(Action::CloseIdle(slot.member.id));
                self.actions.push_back(Action::Log(Notice::Operator {
                    pool: pool.clone(),
                    server: slot.member.name.clone(),
                    what: "drain".to_owned(),
                }));
            }
        }
        PendingDrain {
            deadline,
            ..PendingDrain::new(all, now)
        }
    }

    pub(super) fn go_on_with(&mut self, drain: PendingDrain, pool: &Arc<str>, now: Duration) {
        self.words_version += 1;
        self.drains.push(drain);
        self.mark_dirty(pool, now);
        self.build_due_views(now);
        self.look_at_drains(now);
    }

    /// Drains servers that the config has let go of, with nobody who waits for a receipt. `with_pool`: their pool went
    /// with them, and workers that have yet to hear of it still pick them.
    pub(super) fn drain_removed(&mut self, leaving: Vec<Leaving>, with_pool: bool, now: Duration) {
        for Leaving { member, timeout } in leaving {
            member.set_drained(true);
            let held = Held::new(member, None);
            if held.in_use > 0 || with_pool {
                self.drains.push(PendingDrain {
                    deadline: timeout.map(|timeout| now.saturating_add(timeout)),
                    look_at: now.saturating_add(if with_pool {
                        HEARD_WITHIN
                    } else {
                        Duration::ZERO
                    }),
                    ..PendingDrain::new(vec![held], now)
                });
            }
        }
    }

    fn drains_and_ends(&mut self) -> (&mut Vec<PendingDrain>, Ends<'_>) {
        let ends = Ends {
            actions: &mut self.actions,
            ended: &mut self.ended_drains,
            predecessor: &mut self.predecessor,
        };
        (&mut self.drains, ends)
    }

    /// The process ends, or all that it holds is cut now: the process after this one hears what its drains have come to,
    /// and so does who waits for one here. That is not the end of those: a restart goes on with them.
    pub fn conclude_drains(&mut self, now: Duration) {
        let (drains, mut ends) = self.drains_and_ends();
        drains.retain_mut(|drain| {
            drain.members.iter_mut().for_each(Held::note_picks);
            if drain.asked_by.is_none() {
                let receipt = drain.receipt_at_the_end(now);
                let replies = std::mem::take(&mut drain.replies).into_iter();
                let answer = || Answer::Drained(receipt.clone());
                ends.actions
                    .extend(replies.map(|reply| Action::Reply(reply, answer())));
                return true;
            }
            for held in &mut drain.members {
                held.cut = held.cut.max(u64::from(held.member.cell.in_use()));
            }
            ends.end(drain, now);
            false
        });
        self.predecessor.give_up(&mut self.actions);
    }

    pub(super) fn look_at_drains(&mut self, now: Duration) {
        let (drains, mut ends) = self.drains_and_ends();
        // Who waits for a server that lets nobody in any more is to hear of it.
        let mut closed = Vec::new();
        let mut close = |drain: &PendingDrain| {
            closed.extend(drain.members.first().map(|held| held.member.pool.clone()));
        };
        drains.retain_mut(|drain| {
            if drain.look_at > now {
                return true;
            }
            if now > drain.began {
                drain.members.iter_mut().for_each(Held::note_picks);
            }
            if !drain.closed && drain.closes_at().is_some_and(|at| at <= now) {
                drain.closed = true;
                for held in &drain.members {
                    held.member.set_drained(true);
                }
                close(drain);
            }
            let over = drain.cutting.is_some();
            let (may_end, closed) = (over || !drain.is_handed_over, drain.closed);
            let idle = may_end
                && drain
                    .members
                    .iter_mut()
                    .all(|held| held.is_done(closed, now));
            if idle || drain.cutting.as_ref().is_some_and(|it| it.until <= now) {
                ends.end(drain, now);
                close(drain);
                return false;
            }
            if let Some(cutting) = &mut drain.cutting {
                if cutting.again_at <= now {
                    cutting.again_at = now.saturating_add(CUT_AGAIN);
                    ends.actions
                        .extend(drain.members.iter().filter_map(Held::cut_again));
                }
            } else if drain.deadline.is_some_and(|deadline| deadline <= now) {
                drain.cutting = Some(Cutting {
                    again_at: now.saturating_add(CUT_AGAIN),
                    until: now.saturating_add(CUT_WAIT),
                });
                for held in &mut drain.members {
                    held.cut = u64::from(held.member.cell.in_use());
                    held.member.set_cut(true);
                    ends.actions.push_back(Action::Cut(held.member.id));
                    if held.cut > 0 {
                        ends.actions.push_back(Action::Log(Notice::Cut {
                            pool: held.member.pool.clone(),
                            server: held.member.name.clone(),
                            count: held.cut,
                        }));
                    }
                }
                close(drain);
            }
            drain.look_at = now.saturating_add(LOOK_EVERY);
            true
        });
        // How far a drain is belongs to what is kept over a restart.
        self.words_version += u64::from(!closed.is_empty());
        for pool in closed {
            self.mark_dirty(&pool, now);
        }
    }

    /// A server that drains is drained once more: how long that may take is for the later word to say. What was to be
    /// cut by then has been.
    fn follow_later_word(&mut self, members: &[u32], deadline: Option<Duration>, now: Duration) {
        let (drains, mut ends) = self.drains_and_ends();
        drains.retain_mut(|drain| {
            let is_one = |held: &&mut Held| members.contains(&held.member.id);
            let mut same = drain.members.iter_mut().filter(is_one).peekable();
            if same.peek().is_none() {
                return true;
            }
            for (_, last) in same.filter_map(|held| held.bound.as_mut()) {
                *last = now;
            }
            if drain.cutting.is_some() {
                ends.end(drain, now);
                return false;
            }
            (drain.deadline, drain.deadline_set) = (deadline, now);
            drain.closed = false;
            true
        });
    }

    /// Ends the drains of a server that is about to be given another word.
    pub(super) fn end_drains(&mut self, members: &[u32], now: Duration) {
        self.forget_ended_drains(members);
        let (drains, mut ends) = self.drains_and_ends();
        drains.retain_mut(|drain| {
            let same = drain
                .members
                .iter()
                .any(|held| members.contains(&held.member.id));
            if same {
                let in_use = |held: &Held| u64::from(held.member.cell.in_use());
                drain.left = Some(drain.members.iter().map(in_use).sum());
                ends.end(drain, now);
            }
            !same
        });
    }
}

/// Where what a drain has come to goes.
struct Ends<'a> {
    actions: &'a mut VecDeque<Action>,
    ended: &'a mut Vec<EndedDrain>,
    predecessor: &'a mut Predecessor,
}

impl Ends<'_> {
    /// From here on its servers let in nobody who was bound to them, either. Tells all who wait, or may ask yet.
    fn end(&mut self, drain: &mut PendingDrain, now: Duration) {
        for held in &drain.members {
            held.member.set_drained(true);
        }
        let receipt = drain.receipt(now);
        if let Some(number) = drain.asked_by {
            self.actions
                .push_back(Action::Obeyed(receipt.obeyed(number)));
        }
        let number = match drain.elsewhere {
            Some(Elsewhere::Awaited(number)) => Some(number),
            Some(Elsewhere::Done(_) | Elsewhere::Lost) | None => None,
        };
        if drain.carried.is_some() {
            let ended = EndedDrain::new(drain, receipt.clone(), number);
            self.ended.push(ended);
        }
        let replies = std::mem::take(&mut drain.replies);
        let answer = (replies, Answer::Drained(receipt));
        self.predecessor.answer(number, answer, self.actions, now);
    }
}

impl PendingDrain {
    fn new(members: Vec<Held>, now: Duration) -> Self {
        Self {
            members,
            replies: Vec::new(),
            began: now,
            deadline: None,
            deadline_set: now,
            closed: false,
            cutting: None,
            carried: None,
            is_handed_over: false,
            left: None,
            elsewhere: None,
            asked_by: None,
            look_at: now,
        }
    }

    /// When bound clients are let in no longer.
    fn closes_at(&self) -> Option<Duration> {
        let deadline = self.deadline?;
        let time = deadline.saturating_sub(self.deadline_set);
        Some(deadline.saturating_sub((time / 4).min(CLOSED_MAX)))
    }

    /// How long it has lasted, in the process before this one too.
    fn age(&self, now: Duration) -> Duration {
        let before = self.carried.as_ref().map_or(Duration::ZERO, |it| it.age);
        before.saturating_add(now.saturating_sub(self.began))
    }

    /// What it has come to when the process ends, be it over or not.
    fn receipt_at_the_end(&mut self, now: Duration) -> Receipt {
        let closed = self.closed;
        let is_over = self.cutting.is_some()
            || self
                .members
                .iter_mut()
                .all(|held| held.is_done(closed, now));
        let in_use = |held: &Held| u64::from(held.member.cell.in_use());
        let is_heard = !matches!(self.elsewhere, Some(Elsewhere::Awaited(_)));
        let mut receipt = self.receipt(now);
        if !is_over || !is_heard {
            receipt.left = Some(self.members.iter().map(in_use).sum());
            receipt.ending = true;
        }
        receipt.partial |= !is_heard;
        receipt
    }

    /// What it has come to so far.
    fn receipt(&self, now: Duration) -> Receipt {
        let mut receipt = Receipt {
            took_ms: millis(self.age(now)),
            left: self.left,
            ..Receipt::default()
        };
        let mut cut = 0;
        for held in &self.members {
            held.add_to(&mut receipt);
            cut += held.cut;
        }
        receipt.add_cut(cut);
        match &self.elsewhere {
            Some(Elsewhere::Done(other)) => receipt.add(other),
            Some(Elsewhere::Lost) => receipt.partial = true,
            Some(Elsewhere::Awaited(_)) | None => {}
        }
        receipt
    }
}

impl Held {
    /// Begins the drain: from here on nothing is picked. `keeps`: except for bound clients, who may come since then.
    fn new(member: Arc<Member>, keeps: Option<Duration>) -> Self {
        let in_use = member.set_state(State::Drain);
        Self {
            in_use,
            picks: None,
            affinity_picks: member.cell.affinity_picks(),
            bound: keeps.map(|since| (member.cell.affinity_picks(), since)),
            cut: 0,
            member,
        }
    }

    /// Whether it holds nothing, and nothing more will come. `closed`: nobody is let in any more.
    fn is_done(&mut self, closed: bool, now: Duration) -> bool {
        let idle = self.member.cell.in_use() == 0;
        let Some((picks, last)) = self.bound.as_mut().filter(|_| !closed) else {
            return idle;
        };
        let come = self.member.cell.affinity_picks();
        if come != *picks || !idle {
            (*picks, *last) = (come, now);
        }
        idle && now.saturating_sub(*last) >= QUIET
    }

    fn cut_again(&self) -> Option<Action> {
        (self.member.cell.in_use() > 0).then_some(Action::Cut(self.member.id))
    }

    fn note_picks(&mut self) {
        let picks = self.own_picks();
        self.picks.get_or_insert(picks);
    }

    /// Those by affinity aside.
    fn own_picks(&self) -> u64 {
        let by_affinity = self.member.cell.affinity_picks();
        self.member.cell.picks().saturating_sub(by_affinity)
    }

    fn add_to(&self, receipt: &mut Receipt) {
        let cell = &self.member.cell;
        let by_affinity = cell.affinity_picks() - self.affinity_picks;
        let picks = self.own_picks();
        receipt.new_picks += picks - self.picks.unwrap_or(picks);
        receipt.affinity_picks += by_affinity;
        // What was cut may not have ended yet.
        let not_finished = self.cut.max(u64::from(cell.in_use()));
        receipt.finished += (u64::from(self.in_use) + by_affinity).saturating_sub(not_finished);
    }
}

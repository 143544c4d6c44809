//! The way into a pool: bounds of the whole pool, who waits while its servers are full, and who ends while others wait.
//!
//! While nobody waits and the pool has no bound of its own, a request takes a server's slot and gives it back by the
//! server's word alone, and no line of this file runs. From the first that waits on, the servers are *watched*:
//! newcomers are sent here, so that they cannot overtake, and each slot that is given back is handed to the oldest
//! waiter, whose task is woken wherever it runs. When nobody waits any more the watch ends, server by server.
//!
//! A bound of the pool is one more slot that each request takes, always after the server's, so that nobody holds it who
//! has no server.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use balance::queue::{Ended, Place, Wish};
use balance::{OnDrain, Queue, Refused};

use crate::live::Member;

/// Servers that are compared when a slot of a pool with a bound is given to who waits.
const LOOKED_AT_MAX: usize = 64;

/// One request's claim on a server: gives the slot back when dropped, if not before, to the oldest waiter if there is
/// one.
#[derive(Debug)]
pub struct Lease {
    /// The server.
    pub member: Arc<Member>,
    held: Cell<Held>,
}

/// What a lease gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Nothing,
    /// A slot of its server.
    Server,
    /// One of its pool besides.
    ServerAndPool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release();
    }
}

impl Lease {
    /// Of slots that have been taken.
    fn of(member: &Arc<Member>, held: Held) -> Self {
        Self {
            member: member.clone(),
            held: Cell::new(held),
        }
    }

    /// Whether the slot has not been given back.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.get() != Held::Nothing
    }

    /// Gives the slot back: the server has done all that it had to do.
    pub fn release(&self) {
        match self.held.replace(Held::Nothing) {
            Held::Nothing => {}
            Held::Server => {
                if self.member.cell.release() {
                    self.member.gate.handle_release(&self.member);
                }
            }
            Held::ServerAndPool => self.release_both(),
        }
    }

    #[cold]
    fn release_both(&self) {
        let gate = &self.member.gate;
        let watched = self.member.cell.release();
        gate.in_use.fetch_sub(1, Ordering::SeqCst);
        // Who waits looks at the pool after it has entered the queue; this looks at the queue after the pool.
        fence(Ordering::SeqCst);
        if watched || !gate.queue.is_empty() {
            gate.offer_of_pool(&self.member);
            gate.handle_release(&self.member);
            gate.offer_elsewhere();
        }
    }

    /// Claims a slot of a server, and one of its pool if that has a bound.
    ///
    /// # Errors
    /// When the server takes none, is full, or others wait ([`Refused::Watched`]); when the pool is full.
    pub fn take(member: &Arc<Member>) -> Result<Self, Refused> {
        Self::take_bound(member, OnDrain::Move)
    }

    /// The same for a client that is bound to the server: with [`OnDrain::Keep`] also while it drains.
    ///
    /// # Errors
    /// As [`Lease::take`].
    pub fn take_bound(member: &Arc<Member>, on_drain: OnDrain) -> Result<Self, Refused> {
        let limit = member.limit();
        if limit.in_pool() {
            return member.gate.take_both(member, limit.own(), on_drain);
        }
        match member.cell.acquire_by_affinity(limit.own(), on_drain) {
            Ok(()) => Ok(Self::of(member, Held::Server)),
            Err(Refused::Watched) => member.gate.admit(member, on_drain),
            Err(refused) => Err(refused),
        }
    }

    /// Why [`Lease::take_bound`] would refuse now, if it would. Takes nothing and counts nothing.
    #[must_use]
    pub fn would_refuse(member: &Member, on_drain: OnDrain) -> Option<Refused> {
        let gate = &member.gate;
        if member.limit().in_pool() && gate.is_full() {
            return Some(Refused::PoolFull);
        }
        let max = member.connections_max();
        let refused = member.cell.would_refuse_bound(max, on_drain)?;
        let is_let_in = refused == Refused::Watched && !gate.queue.any(|wish| meets(member, wish));
        (!is_let_in).then_some(refused)
    }
}

impl Lease {
    /// Claims a slot of a server that a reload has taken away with its pool, for a worker that has yet to hear of it.
    ///
    /// # Errors
    /// As [`Lease::take`].
    #[cold]
    pub(crate) fn take_leaving(member: &Arc<Member>) -> Result<Self, Refused> {
        let max = member.limit().own();
        member.cell.acquire_by_affinity(max, OnDrain::Keep)?;
        let gate = &member.gate;
        gate.lease(member).ok_or_else(|| gate.take_back(member))
    }
}

/// The waiting requests of one pool, and its own bound. Outlives configs, as the pool's servers do.
#[derive(Debug, Default)]
pub struct Gate {
    queue: Queue<Lease>,
    /// Leases that count against the pool's bound.
    in_use: AtomicU32,
    /// See [`Gate::sockets`].
    pub(crate) sockets: AtomicU32,
    /// Of requests in use, and of sockets, at all servers together; 0 is none.
    max: AtomicU32,
    /// Requests at once, those that wait included; only counted while the pool bounds them.
    pub requests: AtomicU32,
    /// Requests that have a slot, and wait for a place on a connection.
    aside: AtomicU32,
    /// Requests at their further try; only counted while the pool bounds them.
    pub retrying: AtomicU32,
    /// Who may serve; only kept while there is a bound. What one server gives back another may use then.
    members: ArcSwap<Vec<Weak<Member>>>,
    /// Where the next look at these begins.
    turn: AtomicU32,
}

/// A place in a pool's queue; given up when dropped.
#[derive(Debug)]
pub struct Ticket {
    gate: Arc<Gate>,
    place: Place,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // What was granted meanwhile goes to the next.
        drop(self.gate.queue.leave(self.place));
    }
}

/// The wait of a request beside the queue, until it is dropped.
#[derive(Debug)]
pub struct Aside<'a>(&'a Gate);

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.0.aside.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ticket {
    /// Whether the wait has ended; the task of `cx` is woken when it does.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Ended<Lease>> {
        self.gate.queue.poll(self.place, cx)
    }
}

impl Gate {
    /// How many wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// A request that has the slot of a server begins to wait for a place on a connection to it.
    #[must_use]
    pub fn wait_aside(&self) -> Aside<'_> {
        self.aside.fetch_add(1, Ordering::Relaxed);
        Aside(self)
    }

    /// How many wait so now. They are none of [`Gate::waiting`]: nobody who gives a slot back has to call them.
    #[must_use]
    pub fn aside(&self) -> usize {
        self.aside.load(Ordering::Relaxed) as usize
    }

    /// How many of those who wait would be served before one of this priority; `None` if it would get no place, since
    /// `max` wait already.
    #[must_use]
    pub fn would_enter(&self, priority: u8, max: u32) -> Option<usize> {
        self.queue.would_enter(priority, max as usize)
    }

    /// Bounds requests in use, and sockets, at all servers of the pool together. Its members have to be told, too.
    pub(crate) fn set_max(&self, max: Option<u32>) {
        self.max.store(max.unwrap_or(0), Ordering::SeqCst);
    }

    /// That bound; `None` if there is none.
    #[must_use]
    pub fn max(&self) -> Option<u32> {
        Some(self.max.load(Ordering::Relaxed)).filter(|max| *max != 0)
    }

    /// Requests in use that count against that bound.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Sockets open to all servers of the pool, idle ones included, and those about to be.
    #[must_use]
    pub fn sockets(&self) -> u32 {
        self.sockets.load(Ordering::Acquire)
    }

    /// Takes a place in the queue, `None` if `max` wait already. `group`: of [`PoolState::group`], whose servers will
    /// do. `members`: asked once the place is taken, those that may serve; a slot of theirs that is free goes to the
    /// oldest waiter at once.
    ///
    /// [`PoolState::group`]: crate::live::PoolState::group
    pub fn enter<M: std::ops::Deref<Target = [Arc<Member>]>>(
        self: &Arc<Self>,
        priority: u8,
        tried: &[u32],
        group: u32,
        max: u32,
        members: impl FnOnce() -> M,
    ) -> Option<Ticket> {
        let wish = Wish {
            tried: tried.to_vec(),
            group,
            ..Wish::default()
        };
        self.enter_with(priority, wish, max, members)
    }

    /// The same for a client that is bound to `member`, and waits for that alone.
    pub fn enter_bound(
        self: &Arc<Self>,
        priority: u8,
        member: &Arc<Member>,
        on_drain: OnDrain,
        max: u32,
    ) -> Option<Ticket> {
        let wish = Wish {
            only: Some(member.id),
            keeps: on_drain == OnDrain::Keep,
            ..Wish::default()
        };
        self.enter_with(priority, wish, max, || std::slice::from_ref(member))
    }

    fn enter_with<M: std::ops::Deref<Target = [Arc<Member>]>>(
        self: &Arc<Self>,
        priority: u8,
        wish: Wish,
        max: u32,
        members: impl FnOnce() -> M,
    ) -> Option<Ticket> {
        let place = self.queue.enter(priority, wish, max as usize)?;
        let ticket = Ticket {
            gate: self.clone(),
            place,
        };
        fence(Ordering::SeqCst);
        for member in &*members() {
            member.cell.watch();
            self.offer(member, usize::MAX);
        }
        Some(ticket)
    }

    /// Takes in that who may serve, or how much, has changed: offers what is free, a slot of each server in turn, and
    /// ends the wait of those for whom none of `members` is left.
    pub fn handle_change(&self, members: &[Arc<Member>]) {
        if self.max().is_some() {
            let kept = members.iter().map(Arc::downgrade).collect();
            self.members.store(Arc::new(kept));
        }
        if self.queue.is_empty() {
            return;
        }
        self.handle_room(members);
        self.queue
            .retain(|wish| members.iter().any(|member| meets(member, wish)));
    }

    /// Takes in that `members` may hold more than before.
    pub(crate) fn handle_room(&self, members: &[Arc<Member>]) {
        if self.queue.is_empty() {
            return;
        }
        for member in members {
            if self.queue.any(|wish| meets(member, wish)) {
                member.cell.watch();
            }
        }
        while members.iter().any(|member| self.offer(member, 1) > 0) {}
    }

    #[cold]
    fn handle_release(&self, member: &Arc<Member>) {
        self.offer(member, usize::MAX);
    }

    /// Gives what the pool has room for to who waits longest, on the server that has the least in use for its part:
    /// while many wait, nothing but this makes a server that comes back, or has another weight, get what is its own.
    fn offer_of_pool(&self, releasing: &Arc<Member>) {
        let least = self.queue.of_next(|wish| self.least_busy(releasing, wish));
        if let Some(member) = least.flatten() {
            self.offer(&member, 1);
        }
    }

    /// The server with room that has the least in use for its part, of those that the wish may be given. Among equals it
    /// is the one that has just given a slot back, and so has an idle connection, while it has others in use: else pools of
    /// more servers than the bound would not use all.
    fn least_busy(&self, releasing: &Arc<Member>, wish: &Wish) -> Option<Arc<Member>> {
        let members = self.members.load();
        let from = self.turn.fetch_add(1, Ordering::Relaxed) as usize;
        let from = from.checked_rem(members.len()).unwrap_or(0);
        let (before, after) = members.split_at_checked(from)?;
        let others = after.iter().chain(before).take(LOOKED_AT_MAX);
        let others = others.filter_map(Weak::upgrade);
        let others = others.filter(|member| member.id != releasing.id);
        let (first, last) = match releasing.cell.in_use() {
            0 => (None, Some(releasing.clone())),
            _ => (Some(releasing.clone()), None),
        };
        let all = first.into_iter().chain(others).chain(last);
        all.filter(|member| meets(member, wish) && has_room(member))
            .min_by(compare_load)
    }

    /// What the pool has room for may be used on any server, also when the one that gave it back may not be.
    fn offer_elsewhere(&self) {
        if self.queue.is_empty() || self.is_full() {
            return;
        }
        for member in self.members.load().iter().filter_map(Weak::upgrade) {
            self.offer(&member, usize::MAX);
            if self.queue.is_empty() || self.is_full() {
                return;
            }
        }
    }

    /// A newcomer at a watched server: it is let in only when nobody waits for it.
    #[cold]
    fn admit(&self, member: &Arc<Member>, on_drain: OnDrain) -> Result<Lease, Refused> {
        self.offer(member, usize::MAX);
        if self.queue.any(|wish| meets(member, wish)) {
            return Err(Refused::Watched);
        }
        let max = member.connections_max();
        member.cell.acquire_in_turn(max, on_drain)?;
        self.lease(member).ok_or_else(|| self.take_back(member))
    }

    /// As [`Lease::take`] in a pool with a bound.
    #[cold]
    fn take_both(
        &self,
        member: &Arc<Member>,
        max: Option<u32>,
        on_drain: OnDrain,
    ) -> Result<Lease, Refused> {
        if self.is_full() {
            return Err(Refused::PoolFull);
        }
        match member.cell.acquire_by_affinity(max, on_drain) {
            Ok(()) => self.lease(member).ok_or_else(|| self.take_back(member)),
            Err(Refused::Watched) => self.admit(member, on_drain),
            Err(refused) => Err(refused),
        }
    }

    /// Gives back a server's slot, since the pool has none to go with it.
    fn take_back(&self, member: &Arc<Member>) -> Refused {
        if member.cell.release() {
            self.handle_release(member);
        }
        Refused::PoolFull
    }

    /// A lease of a server's slot that has been taken, and of one of the pool's if that has a bound; `None` when it is
    /// full.
    fn lease(&self, member: &Arc<Member>) -> Option<Lease> {
        let Some(max) = self.max() else {
            return Some(Lease::of(member, Held::Server));
        };
        let more = |in_use: u32| (in_use < max).then(|| in_use + 1);
        let claimed = self
            .in_use
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        claimed
            .is_ok()
            .then(|| Lease::of(member, Held::ServerAndPool))
    }

    /// Whether the pool's own bound is reached.
    pub(crate) fn is_full(&self) -> bool {
        let in_use = self.in_use.load(Ordering::SeqCst);
        self.max().is_some_and(|max| in_use >= max)
    }

    fn offer(&self, member: &Arc<Member>, at_most: usize) -> usize {
        let at_most = if self.is_full() { 0 } else { at_most };
        // A removed pool's servers drain, and take those with them that wait for them.
        let on_drain = if member.is_retired() {
            OnDrain::Keep
        } else {
            OnDrain::Move
        };
        self.queue.offer_slots(
            &member.cell,
            |wish| meets(member, wish),
            member.connections_max(),
            at_most,
            on_drain,
            || self.lease(member),
        )
    }
}

/// Whether it takes one more request.
fn has_room(member: &Member) -> bool {
    let refused = member.cell.would_refuse(member.connections_max());
    matches!(refused, None | Some(Refused::Watched))
}

/// By what they would have in use for their part with one more.
fn compare_load(one: &Arc<Member>, other: &Arc<Member>) -> std::cmp::Ordering {
    let with_one_more = |member: &Member| u64::from(member.cell.in_use()).saturating_add(1);
    // A server that only some routes choose may have no part in the whole pool.
    let part = |member: &Member| u64::from(member.part().max(1));
    let load = |member, other| with_one_more(member).saturating_mul(part(other));
    load(one, other).cmp(&load(other, one))
}

/// Whether a server will do for one that waits.
fn meets(member: &Member, wish: &Wish) -> bool {
    match wish.only {
        // A drain that is over lets nobody in any more; of a removed pool's servers all are taken that still come.
        Some(only) => only == member.id && (!member.is_drained() || member.is_retired()),
        None => member.serves(wish.group) && !wish.tried.contains(&member.id),
    }
}

//! The way into a pool when its servers are full: who waits, and who ends while others wait.
//!
//! While nobody waits, a request takes a server's slot and gives it back by the server's word alone, and no line of
//! this file runs. From the first that waits on, the servers are *watched*: newcomers are sent here, so that they
//! cannot overtake, and each slot that is given back is handed to the oldest waiter, whose task is woken wherever it
//! runs. When nobody waits any more the watch ends, server by server.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Poll};

use balance::queue::{Ended, Place, Wish};
use balance::{OnDrain, Queue, Refused};

use crate::live::Member;

/// One request's claim on a server: gives the slot back when dropped, if not before, to the oldest waiter if there is
/// one.
#[derive(Debug)]
pub struct Lease {
    /// The server.
    pub member: Arc<Member>,
    held: Cell<bool>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release();
    }
}

impl Lease {
    /// Of a slot that has been taken.
    fn of(member: &Arc<Member>) -> Self {
        Self {
            member: member.clone(),
            held: Cell::new(true),
        }
    }

    /// Gives the slot back: the server has done all that it had to do.
    pub fn release(&self) {
        if self.held.replace(false) && self.member.cell.release() {
            self.member.gate.handle_release(&self.member);
        }
    }

    /// Claims a slot of a server.
    ///
    /// # Errors
    /// When the server takes none, is full, or others wait ([`Refused::Watched`]).
    pub fn take(member: &Arc<Member>) -> Result<Self, Refused> {
        match member.cell.acquire(member.connections_max()) {
            Ok(()) => Ok(Self::of(member)),
            Err(Refused::Watched) => member.gate.admit(member),
            Err(refused) => Err(refused),
        }
    }
}

/// The waiting requests of one pool. Outlives configs, as the pool's servers do.
#[derive(Debug, Default)]
pub struct Gate {
    queue: Queue<Lease>,
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
        };
        let place = self.queue.enter(priority, wish, max as usize)?;
        let ticket = Ticket {
            gate: self.clone(),
            place,
        };
        for member in &*members() {
            member.cell.watch();
            self.offer(member, usize::MAX);
        }
        Some(ticket)
    }

    /// Takes in that who may serve, or how much, has changed: offers what is free, a slot of each server in turn, and
    /// ends the wait of those for whom none of `members` is left.
    pub fn handle_change(&self, members: &[Arc<Member>]) {
        if self.queue.is_empty() {
            return;
        }
        for member in members {
            if self.queue.any(|wish| meets(member, wish)) {
                member.cell.watch();
            }
        }
        while members.iter().any(|member| self.offer(member, 1) > 0) {}
        self.queue
            .retain(|wish| members.iter().any(|member| meets(member, wish)));
    }

    #[cold]
    fn handle_release(&self, member: &Arc<Member>) {
        self.offer(member, usize::MAX);
    }

    /// A newcomer at a watched server: it is let in only when nobody waits for it.
    #[cold]
    fn admit(&self, member: &Arc<Member>) -> Result<Lease, Refused> {
        self.offer(member, usize::MAX);
        if self.queue.any(|wish| meets(member, wish)) {
            return Err(Refused::Watched);
        }
        let max = member.connections_max();
        member
            .cell
            .acquire_in_turn(max, OnDrain::Move)
            .map(|()| Lease::of(member))
    }

    fn offer(&self, member: &Arc<Member>, at_most: usize) -> usize {
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
            || Lease::of(member),
        )
    }
}

/// Whether a server will do for one that waits.
fn meets(member: &Member, wish: &Wish) -> bool {
    member.serves(wish.group) && !wish.tried.contains(&member.id)
}

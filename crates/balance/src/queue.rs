//! Requests that wait for a slot: by priority, then in the order in which they came, whichever
//! thread they wait on.
//!
//! Who finds every server full *enters*, *watches* the servers ([`Server::watch`]), and then looks
//! again by [`Queue::offer_slots`]: a slot given back before the watch is seen by that look, one given
//! back after it is offered by whoever gave it back. So no slot is lost between the two.
//!
//! The queue knows no clock: how long to wait is the caller's affair, who [leaves](Queue::leave).

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

use crate::server::{OnDrain, Server};
use crate::sync::{AtomicU32, Mutex, Ordering, lock};

/// The highest priority of a request that waits; 0 is the lowest.
pub const PRIORITY_MAX: u8 = 9;

/// A bounded queue of requests for slots of any server of a pool; `G` is what a request gets.
///
/// Its lock is held for a look into a sorted map, and taken only by requests that wait and by those
/// that end while others wait.
#[derive(Debug)]
pub struct Queue<G> {
    lines: Mutex<Lines<G>>,
    /// How many wait; written under the lock, read without.
    waiting: AtomicU32,
}

#[derive(Debug)]
struct Lines<G> {
    waiting: BTreeMap<Place, Waiter>,
    /// Those that wait no longer, and have not heard yet.
    ended: BTreeMap<Place, Ended<G>>,
    turn: u64,
}

#[derive(Debug)]
struct Waiter {
    wish: Wish,
    waker: Option<Waker>,
}

/// Which servers a request that waits may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Those that it may not have.
    pub tried: Vec<u32>,
    /// Which servers it is for at all, in the caller's numbers; 0 for any.
    pub group: u32,
    /// The only server that it is for, in the caller's number: a client is bound to it.
    pub only: Option<u32>,
    /// Whether it is let in while its server drains.
    pub keeps: bool,
}

impl Wish {
    /// What holds for it where `others` holds for the others.
    fn on_drain(&self, others: OnDrain) -> OnDrain {
        if self.keeps { OnDrain::Keep } else { others }
    }
}

/// A place in a queue; the least is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// [`PRIORITY_MAX`] less the priority.
    rank: u8,
    turn: u64,
}

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended<G> {
    /// It has a slot.
    Granted(G),
    /// The queue was full, and a request of higher priority came.
    Displaced,
    /// None of the servers that it may have is left.
    Unservable,
}

/// What one waiter gets of what is offered.
#[derive(Debug)]
pub enum Offer<G> {
    /// It has it, and waits no longer.
    Grant(G),
    /// It may not have it; the next one may.
    Skip,
    /// Nothing is left to offer.
    Stop,
}

impl<G> Queue<G> {
    /// A queue in which nobody waits.
    pub fn new() -> Self {
        Self {
            lines: Mutex::new(Lines {
                waiting: BTreeMap::new(),
                ended: BTreeMap::new(),
                turn: 0,
            }),
            waiting: AtomicU32::new(0),
        }
    }

    /// How many wait now.
    pub fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed) as usize
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a place behind all of the same or a higher priority; `None` if `max` wait already and
    /// none of them has a lower one. A priority above [`PRIORITY_MAX`] counts as that.
    ///
    /// The caller then watches the servers, offers what they have, and [polls](Self::poll) until the
    /// wait has ended or it [leaves](Self::leave).
    pub fn enter(&self, priority: u8, wish: Wish, max: usize) -> Option<Place> {
        let rank = PRIORITY_MAX - priority.min(PRIORITY_MAX);
        let mut lines = lock(&self.lines);
        let mut displaced = None;
        if lines.waiting.len() >= max {
            let last = *lines.waiting.last_key_value()?.0;
            if last.rank <= rank {
                return None;
            }
            displaced = lines.end(last, Ended::Displaced);
        }
        lines.turn += 1;
        let place = Place {
            rank,
            turn: lines.turn,
        };
        let waiter = Waiter { wish, waker: None };
        lines.waiting.insert(place, waiter);
        self.count(&lines);
        drop(lines);
        wake(displaced);
        Some(place)
    }

    /// How many would be served before one that entered now; `None` if [`Queue::enter`] would refuse
    /// it. Takes no place.
    pub fn would_enter(&self, priority: u8, max: usize) -> Option<usize> {
        let rank = PRIORITY_MAX - priority.min(PRIORITY_MAX);
        let lines = lock(&self.lines);
        let ranks = lines.waiting.keys();
        let before = ranks.take_while(|place| place.rank <= rank).count();
        (lines.waiting.len() < max || before < lines.waiting.len()).then_some(before)
    }

    /// Whether the wait has ended; `cx`'s task is woken when it does.
    pub fn poll(&self, place: Place, cx: &mut Context<'_>) -> Poll<Ended<G>> {
        let mut lines = lock(&self.lines);
        if let Some(ended) = lines.ended.remove(&place) {
            return Poll::Ready(ended);
        }
        match lines.waiting.get_mut(&place) {
            Some(waiter) => {
                match &waiter.waker {
                    Some(known) if known.will_wake(cx.waker()) => {}
                    _ => waiter.waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            // It has heard already: nothing more will come.
            None => Poll::Ready(Ended::Unservable),
        }
    }

    /// Gives a place up, whether it still waits or not. What it was granted meanwhile is returned, for
    /// the caller to give back.
    pub fn leave(&self, place: Place) -> Option<G> {
        let mut lines = lock(&self.lines);
        lines.waiting.remove(&place);
        self.count(&lines);
        match lines.ended.remove(&place)? {
            Ended::Granted(granted) => Some(granted),
            Ended::Displaced | Ended::Unservable => None,
        }
    }

    /// Asks `offer` for each waiter in turn, with the servers that it may have, until it stops.
    /// Returns how many were granted. `offer` must not touch this queue.
    pub fn offer(&self, mut offer: impl FnMut(&Wish) -> Offer<G>) -> usize {
        self.look(&mut offer, || {})
    }

    /// Offers the free slots of one server, `at_most` so many, to those whose wish it `meets`; `grant` makes
    /// what a waiter gets, or refuses for a reason that the server does not know of: then its slot is given
    /// back, and nobody else is offered any. When nobody waits any more, the server is watched no longer.
    pub fn offer_slots(
        &self,
        server: &Server,
        meets: impl Fn(&Wish) -> bool,
        max: Option<u32>,
        at_most: usize,
        on_drain: OnDrain,
        mut grant: impl FnMut() -> Option<G>,
    ) -> usize {
        let mut left = at_most;
        let mut offer = |wish: &Wish| {
            if left == 0 {
                Offer::Stop
            } else if !meets(wish) {
                Offer::Skip
            } else if server.acquire_in_turn(max, wish.on_drain(on_drain)).is_ok() {
                left -= 1;
                match grant() {
                    Some(grant) => Offer::Grant(grant),
                    None => {
                        // Who found it taken for this moment has to ask the queue, whose lock is held.
                        server.release();
                        Offer::Stop
                    }
                }
            } else {
                Offer::Stop
            }
        };
        self.look(&mut offer, || server.unwatch())
    }

    /// Runs `offer` over the waiters, and `when_empty` if none is left, both under the lock.
    fn look(&self, offer: &mut impl FnMut(&Wish) -> Offer<G>, when_empty: impl FnOnce()) -> usize {
        let mut lines = lock(&self.lines);
        let mut granted = Vec::new();
        for (place, waiter) in &lines.waiting {
            match offer(&waiter.wish) {
                Offer::Grant(grant) => granted.push((*place, grant)),
                Offer::Skip => {}
                Offer::Stop => break,
            }
        }
        let count = granted.len();
        let wakers: Vec<_> = granted
            .into_iter()
            .filter_map(|(place, grant)| lines.end(place, Ended::Granted(grant)))
            .collect();
        self.count(&lines);
        if lines.waiting.is_empty() {
            when_empty();
        }
        drop(lines);
        wakers.into_iter().for_each(Waker::wake);
        count
    }

    /// Whether anybody waits whose wish is `met`.
    pub fn any(&self, mut met: impl FnMut(&Wish) -> bool) -> bool {
        let lines = lock(&self.lines);
        lines.waiting.values().any(|waiter| met(&waiter.wish))
    }

    /// What `ask` says of the wish of who is served next; `None` if nobody waits.
    pub fn of_next<T>(&self, ask: impl FnOnce(&Wish) -> T) -> Option<T> {
        let lines = lock(&self.lines);
        let (_, waiter) = lines.waiting.first_key_value()?;
        Some(ask(&waiter.wish))
    }

    /// Ends the wait of all whose wish is not `servable`.
    pub fn retain(&self, mut servable: impl FnMut(&Wish) -> bool) {
        let mut lines = lock(&self.lines);
        let gone: Vec<Place> = lines
            .waiting
            .iter()
            .filter(|(_, waiter)| !servable(&waiter.wish))
            .map(|(place, _)| *place)
            .collect();
        let wakers: Vec<_> = gone
            .into_iter()
            .filter_map(|place| lines.end(place, Ended::Unservable))
            .collect();
        self.count(&lines);
        drop(lines);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn count(&self, lines: &Lines<G>) {
        let waiting = u32::try_from(lines.waiting.len()).unwrap_or(u32::MAX);
        self.waiting.store(waiting, Ordering::Relaxed);
    }
}

impl<G> Lines<G> {
    /// Ends one wait, and gives who is to be woken once the lock is let go.
    fn end(&mut self, place: Place, ended: Ended<G>) -> Option<Waker> {
        let waiter = self.waiting.remove(&place)?;
        self.ended.insert(place, ended);
        waiter.waker
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<G> Default for Queue<G> {
    fn default() -> Self {
        Self::new()
    }
}

//! The queue's claim that no slot and no wake-up is lost, in every order of the steps of those who share it.
//!
//! A waiter that is not woken though a slot is free blocks for ever, which loom reports as a deadlock. The steps of the
//! gate (`control::gate`) are followed here by hand: it adds who may serve, and a bound of the whole pool.

use std::future::poll_fn;

use evenkeel_balance::queue::{Ended, Wish};
use evenkeel_balance::{OnDrain, Queue, Refused, Server};
use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::thread;

/// Every server has one slot.
const ONE: Option<u32> = Some(1);

/// A pool as `control::gate` has it.
struct Pool {
    servers: Vec<Server>,
    queue: Queue<usize>,
    /// Requests in use, where the pool bounds them.
    in_use: AtomicU32,
    max: Option<u32>,
}

impl Pool {
    fn new(servers: usize, max: Option<u32>) -> Arc<Self> {
        Arc::new(Self {
            servers: (0..servers).map(|_| Server::new()).collect(),
            queue: Queue::new(),
            in_use: AtomicU32::new(0),
            max,
        })
    }

    fn is_full(&self) -> bool {
        let in_use = self.in_use.load(Ordering::SeqCst);
        self.max.is_some_and(|max| in_use >= max)
    }

    /// Claims the pool's slot for one of a server that has been taken.
    fn claim(&self, server: usize) -> Option<usize> {
        let Some(max) = self.max else {
            return Some(server);
        };
        let more = |in_use| (in_use < max).then_some(in_use + 1);
        let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
        let claimed = self.in_use.fetch_update(set, fetch, more);
        claimed.is_ok().then_some(server)
    }

    fn offer(&self, server: usize) {
        let at_most = if self.is_full() { 0 } else { usize::MAX };
        let grant = || self.claim(server);
        self.queue.offer_slots(
            &self.servers[server],
            |_| true,
            ONE,
            at_most,
            OnDrain::Move,
            grant,
        );
    }

    /// `Lease::take`.
    fn take(&self, server: usize) -> Option<usize> {
        if self.is_full() {
            return None;
        }
        match self.servers[server].acquire(ONE) {
            Ok(()) => {}
            Err(Refused::Watched) => {
                self.offer(server);
                if self.queue.any(|_| true) {
                    return None;
                }
                self.servers[server]
                    .acquire_in_turn(ONE, OnDrain::Move)
                    .ok()?;
            }
            Err(_) => return None,
        }
        let claimed = self.claim(server);
        if claimed.is_none() && self.servers[server].release() {
            self.offer(server);
        }
        claimed
    }

    /// `Lease::release`.
    fn give_back(&self, server: usize) {
        let watched = self.servers[server].release();
        if self.max.is_none() {
            if watched {
                self.offer(server);
            }
            return;
        }
        self.in_use.fetch_sub(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if watched || !self.queue.is_empty() {
            (0..self.servers.len()).for_each(|server| self.offer(server));
        }
    }

    /// `Gate::enter`, then the wait.
    fn wait(&self) -> usize {
        let place = self.queue.enter(0, Wish::default(), 9).expect("room");
        fence(Ordering::SeqCst);
        self.watch_all();
        match block_on(poll_fn(|cx| self.queue.poll(place, cx))) {
            Ended::Granted(server) => server,
            ended => panic!("{ended:?}"),
        }
    }

    fn watch_all(&self) {
        for (server, cell) in self.servers.iter().enumerate() {
            cell.watch();
            self.offer(server);
        }
    }

    /// One request from its first try to its end.
    fn serve(&self) {
        let free = (0..self.servers.len()).find_map(|server| self.take(server));
        let server = free.unwrap_or_else(|| self.wait());
        self.give_back(server);
    }

    /// One that does not wait.
    fn ask(&self) {
        if let Some(server) = self.take(0) {
            self.give_back(server);
        }
    }

    /// One that waits, and leaves at once; what it was granted meanwhile goes to the next.
    fn lose_patience(&self) {
        let place = self.queue.enter(0, Wish::default(), 9).expect("room");
        fence(Ordering::SeqCst);
        self.watch_all();
        if let Some(server) = self.queue.leave(place) {
            self.give_back(server);
        }
    }

    /// Nobody waits, nothing is held, and nobody is sent to the queue for nothing.
    fn assert_at_rest(&self) {
        assert!(self.queue.is_empty());
        assert_eq!(self.in_use.load(Ordering::SeqCst), 0);
        for server in &self.servers {
            assert_eq!(server.in_use(), 0);
            // Who comes next ends a watch that nobody needs, and is let in.
            assert!(server.would_refuse(ONE).is_none_or(|why| why == Refused::Watched));
        }
        let held: Vec<usize> = (0..self.servers.len())
            .filter_map(|server| self.take(server))
            .collect();
        let room = self.max.map_or(self.servers.len(), |max| max as usize);
        assert_eq!(held.len(), room.min(self.servers.len()));
        held.into_iter().for_each(|server| self.give_back(server));
        // A full pool asks no server, so that the watch of some may go on.
        let unwatched = self.servers.iter().all(|server| !server.is_watched());
        assert!(unwatched || self.max.is_some());
    }
}

/// Runs `stories` beside one another while the first server is held, then gives it back.
fn model(servers: usize, max: Option<u32>, stories: &'static [fn(&Pool)]) {
    let mut builder = loom::model::Builder::new();
    // Switches that no thread asked for; with one more of them all of this takes minutes instead of seconds.
    builder.preemption_bound = Some(if stories.len() > 1 { 2 } else { 3 });
    builder.check(move || {
        let pool = Pool::new(servers, max);
        let held: Vec<usize> = (0..servers).filter_map(|server| pool.take(server)).collect();
        assert!(!held.is_empty());
        let others: Vec<_> = stories
            .iter()
            .map(|story| {
                let pool = pool.clone();
                thread::spawn(move || story(&pool))
            })
            .collect();
        held.into_iter().for_each(|server| pool.give_back(server));
        for other in others {
            other.join().expect("it ends");
        }
        pool.assert_at_rest();
    });
}

#[test]
fn one_who_waits_gets_what_is_given_back() {
    model(1, None, &[Pool::serve]);
}

#[test]
fn two_who_wait_are_both_served() {
    model(1, None, &[Pool::serve, Pool::serve]);
}

#[test]
fn who_leaves_passes_on_what_it_was_granted() {
    model(1, None, &[Pool::lose_patience, Pool::serve]);
}

#[test]
fn a_newcomer_takes_nothing_from_who_waits() {
    model(1, None, &[Pool::ask, Pool::serve]);
}

#[test]
fn what_one_server_gives_back_is_had_by_whoever_waits_for_any() {
    model(2, None, &[Pool::serve]);
}

#[test]
fn a_bound_of_the_pool_is_handed_on_across_servers() {
    model(2, ONE, &[Pool::serve]);
    model(1, ONE, &[Pool::serve, Pool::serve]);
}

//! Who waits, and who is served next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use evenkeel_balance::queue::{Ended, Offer, Place, Wish};
use evenkeel_balance::{OnDrain, Queue, Refused, Server, State};
use proptest::prelude::*;

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Any server but one that was tried.
fn tried(server: u32) -> Wish {
    Wish {
        tried: vec![server],
        ..Wish::default()
    }
}

/// Whether the server with this number will do.
fn but(server: u32) -> impl Fn(&Wish) -> bool {
    move |wish| !wish.tried.contains(&server)
}

fn poll(queue: &Queue<u32>, place: Place) -> Poll<Ended<u32>> {
    queue.poll(place, &mut Context::from_waker(Waker::noop()))
}

/// Grants the numbers from `from` on to as many.
fn grant(queue: &Queue<u32>, from: u32, count: u32) -> usize {
    let mut next = from;
    queue.offer(|_| {
        if next == from + count {
            return Offer::Stop;
        }
        next += 1;
        Offer::Grant(next - 1)
    })
}

#[test]
fn who_would_enter_is_told_what_enter_then_does() {
    let queue: Queue<u32> = Queue::new();
    for (priority, before) in [
        (5, Some(0)),
        (2, Some(1)),
        (9, Some(0)),
        (5, Some(2)),
        // Four wait, as many as may, one of them with a lower priority.
        (2, None),
        (3, Some(3)),
        (3, None),
        (200, Some(1)),
    ] {
        assert_eq!(queue.would_enter(priority, 4), before, "{priority}");
        let entered = queue.enter(priority, Wish::default(), 4);
        assert_eq!(entered.is_some(), before.is_some(), "{priority}");
    }
}

#[test]
fn higher_priority_first_and_in_order_within() {
    let queue = Queue::new();
    let places =
        [5, 2, 9, 5, 200].map(|priority| queue.enter(priority, Wish::default(), 10).unwrap());
    assert_eq!(queue.len(), 5);
    assert_eq!(grant(&queue, 0, 9), 5);
    let order = places.map(|place| poll(&queue, place));
    let expected = [2, 4, 0, 3, 1].map(|turn| Poll::Ready(Ended::Granted(turn)));
    assert_eq!(order, expected);
    assert!(queue.is_empty());
}

#[test]
fn a_full_queue_takes_none_but_of_higher_priority() {
    let queue = Queue::<u32>::new();
    let first = queue.enter(5, Wish::default(), 2).unwrap();
    let second = queue.enter(5, Wish::default(), 2).unwrap();
    assert_eq!(queue.enter(5, Wish::default(), 2), None);
    assert_eq!(queue.enter(2, Wish::default(), 2), None);
    assert_eq!(queue.enter(5, Wish::default(), 0), None);
    let high = queue.enter(8, Wish::default(), 2).unwrap();
    assert_eq!(
        poll(&queue, second),
        Poll::Ready(Ended::Displaced),
        "the last of the lowest"
    );
    assert_eq!(grant(&queue, 0, 2), 2);
    assert_eq!(poll(&queue, high), Poll::Ready(Ended::Granted(0)));
    assert_eq!(poll(&queue, first), Poll::Ready(Ended::Granted(1)));
}

#[test]
fn who_leaves_gives_back_what_it_was_granted() {
    let queue = Queue::new();
    let places = [(); 3].map(|()| queue.enter(5, Wish::default(), 3).unwrap());
    assert_eq!(queue.leave(places[0]), None);
    assert_eq!(grant(&queue, 7, 1), 1);
    assert_eq!(queue.leave(places[1]), Some(7));
    assert_eq!(queue.leave(places[1]), None);
    assert_eq!(queue.len(), 1);
    assert_eq!(poll(&queue, places[2]), Poll::Pending);
}

#[test]
fn a_waiter_is_woken_once_its_wait_has_ended() {
    let queue = Queue::new();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    let places = [(); 2].map(|()| queue.enter(5, tried(1), 2).unwrap());
    for place in places {
        assert_eq!(queue.poll(place, &mut cx), Poll::Pending);
    }
    assert_eq!(grant(&queue, 0, 1), 1);
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    queue.retain(|wish| wish.tried.is_empty());
    assert_eq!(woken.0.load(Ordering::SeqCst), 2);
    assert_eq!(poll(&queue, places[1]), Poll::Ready(Ended::Unservable));
}

#[test]
fn a_slot_goes_to_the_oldest_that_may_have_it() {
    let (queue, server) = (Queue::new(), Server::new());
    let max = Some(2);
    let been_there = queue.enter(5, tried(1), 9).unwrap();
    let places = [(); 3].map(|()| queue.enter(5, tried(2), 9).unwrap());
    server.watch();
    assert_eq!(
        server.acquire(max),
        Err(Refused::Watched),
        "newcomers do not barge"
    );
    assert_eq!(
        queue.offer_slots(&server, but(1), max, 9, OnDrain::Move, || Some(7)),
        2
    );
    assert_eq!((server.in_use(), server.picks()), (2, 2));
    assert_eq!(poll(&queue, places[1]), Poll::Ready(Ended::Granted(7)));
    assert_eq!(poll(&queue, been_there), Poll::Pending);
    assert_eq!(server.acquire(max), Err(Refused::Watched));

    server.set_state(State::Drain);
    assert!(server.release(), "the slot must be offered");
    assert_eq!(
        queue.offer_slots(&server, but(1), max, 9, OnDrain::Move, || Some(7)),
        0
    );
    server.set_state(State::Ready);
    assert_eq!(
        queue.offer_slots(&server, but(1), max, 9, OnDrain::Move, || Some(7)),
        1
    );
    queue.leave(been_there);
    assert!(server.is_watched());
    queue.offer_slots(&server, but(1), max, 9, OnDrain::Move, || Some(7));
    assert!(!server.is_watched(), "nobody waits");
    assert!(!server.release());
    assert_eq!(server.acquire(max), Ok(()));
}

/// Who waits for some servers only is passed over by the others, and keeps its place.
#[test]
fn who_wants_another_group_is_passed_over() {
    let (queue, server) = (Queue::new(), Server::new());
    let of = |group| Wish {
        group,
        ..Wish::default()
    };
    let places = [1, 2, 1].map(|group| queue.enter(5, of(group), 9).unwrap());
    let offer = |group: u32| {
        let meets = |wish: &Wish| wish.group == group;
        queue.offer_slots(&server, meets, None, 9, OnDrain::Move, || Some(group))
    };
    assert!(queue.any(|wish| wish.group == 2) && !queue.any(|wish| wish.group == 3));
    assert_eq!(offer(3), 0);
    assert_eq!(offer(2), 1);
    assert_eq!(poll(&queue, places[0]), Poll::Pending);
    assert_eq!(poll(&queue, places[1]), Poll::Ready(Ended::Granted(2)));
    assert_eq!(offer(1), 2);
    assert!(queue.is_empty());
}

/// Threads take, wait for and give back the slots of two servers: the limits hold, and nobody who
/// waits is left behind.
#[test]
fn no_slot_is_lost_between_threads() {
    const MAX: Option<u32> = Some(2);
    let servers = [Server::new(), Server::new()];
    let queue = Queue::<usize>::new();
    let offer = |index: usize| {
        queue.offer_slots(
            &servers[index],
            |_| true,
            MAX,
            usize::MAX,
            OnDrain::Move,
            || Some(index),
        );
    };
    thread::scope(|scope| {
        for thread in 0..6 {
            let (servers, queue, offer) = (&servers, &queue, &offer);
            scope.spawn(move || {
                for round in 0..5_000 {
                    let index = (thread + round) % 2;
                    let held = match servers[index].acquire(MAX) {
                        Ok(()) => index,
                        Err(refused) => {
                            if refused == Refused::Watched {
                                offer(index);
                            }
                            let place = queue.enter(5, Wish::default(), 100).expect("room");
                            for (index, server) in servers.iter().enumerate() {
                                server.watch();
                                offer(index);
                            }
                            wait(queue, place)
                        }
                    };
                    assert!(servers[held].in_use() >= 1);
                    thread::yield_now();
                    if servers[held].release() {
                        offer(held);
                    }
                }
            });
        }
    });
    assert!(queue.is_empty());
    assert_eq!(servers.each_ref().map(Server::in_use), [0, 0]);
}

fn wait(queue: &Queue<usize>, place: Place) -> usize {
    for _ in 0..50_000_000_u64 {
        match queue.poll(place, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ended::Granted(held)) => return held,
            Poll::Ready(ended) => panic!("{ended:?}"),
            Poll::Pending => thread::yield_now(),
        }
    }
    panic!("a waiter was left behind");
}

proptest! {
    /// Against a model that sorts: any mix of entering, granting and leaving.
    #[test]
    fn as_a_sorted_list(steps in prop::collection::vec((0..4_u8, 0..10_u8), 1..200)) {
        const MAX: usize = 8;
        let queue = Queue::new();
        let mut model: VecDeque<(u8, u32, Place)> = VecDeque::new();
        for (turn, (what, priority)) in (0..).zip(steps) {
            match what {
                0 | 1 => {
                    let lowest = model.back().map(|last| last.0);
                    let place = queue.enter(priority, Wish::default(), MAX);
                    let displaces = lowest.is_some_and(|lowest| lowest < priority);
                    prop_assert_eq!(place.is_some(), model.len() < MAX || displaces);
                    let Some(place) = place else { continue };
                    if model.len() == MAX {
                        let (_, _, gone) = model.pop_back().unwrap();
                        prop_assert_eq!(poll(&queue, gone), Poll::Ready(Ended::Displaced));
                    }
                    let at = model.iter().take_while(|other| other.0 >= priority).count();
                    model.insert(at, (priority, turn, place));
                }
                2 => {
                    prop_assert_eq!(grant(&queue, turn, 1), usize::from(!model.is_empty()));
                    if let Some((_, _, place)) = model.pop_front() {
                        prop_assert_eq!(poll(&queue, place), Poll::Ready(Ended::Granted(turn)));
                    }
                }
                _ => {
                    if let Some((_, _, place)) = model.remove(usize::from(priority) % MAX) {
                        prop_assert_eq!(queue.leave(place), None);
                    }
                }
            }
            prop_assert_eq!(queue.len(), model.len());
        }
    }
}

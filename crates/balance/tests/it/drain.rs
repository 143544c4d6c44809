//! The shared cell under several threads.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use evenkeel_balance::{OnDrain, Refused, Server, State};

const THREADS: u32 = 4;

/// A drain counts exactly the picks that were let in: none slips in after it.
#[test]
fn a_drain_is_one_atomic() {
    for round in 0..50 {
        let server = Server::new();
        let counted = thread::scope(|scope| {
            let workers: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        let mut picks = 0;
                        while server.acquire(None).is_ok() {
                            picks += 1;
                        }
                        picks
                    })
                })
                .collect();
            while server.in_use() < round * 100 {
                std::hint::spin_loop();
            }
            let at_drain = server.set_state(State::Drain);
            let picks: u32 = workers.into_iter().map(|it| it.join().unwrap()).sum();
            assert_eq!(picks, at_drain);
            at_drain
        });
        assert_eq!(server.in_use(), counted, "what was refused was taken back");
        assert_eq!(server.picks(), u64::from(counted));
        assert_eq!(server.affinity_picks(), 0);
        for _ in 0..counted {
            server.release();
        }
        assert_eq!((server.in_use(), server.state()), (0, State::Drain));
    }
}

#[test]
fn a_limit_is_never_passed() {
    const MAX: u32 = 3;
    let server = Server::new();
    let (holding, full) = (AtomicU32::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    match server.acquire(Some(MAX)) {
                        Ok(()) => {
                            assert!(holding.fetch_add(1, Ordering::SeqCst) < MAX);
                            thread::yield_now();
                            holding.fetch_sub(1, Ordering::SeqCst);
                            server.release();
                        }
                        Err(refused) => {
                            assert_eq!(refused, Refused::Full);
                            full.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    assert_eq!(server.in_use(), 0);
    for _ in 0..MAX {
        assert_eq!(server.acquire(Some(MAX)), Ok(()));
    }
    assert_eq!(server.acquire(Some(MAX)), Err(Refused::Full));
}

#[test]
fn who_is_let_in_in_which_state() {
    let server = Server::new();
    let check = |state, pick, kept, moved| {
        server.set_state(state);
        assert_eq!(server.state(), state);
        assert_eq!(server.acquire(None), pick);
        assert_eq!(server.acquire_by_affinity(None, OnDrain::Keep), kept);
        assert_eq!(server.acquire_by_affinity(None, OnDrain::Move), moved);
    };
    let (draining, disabled) = (Err(Refused::Draining), Err(Refused::Disabled));
    check(State::Ready, Ok(()), Ok(()), Ok(()));
    check(State::Drain, draining, Ok(()), draining);
    check(State::Disabled, disabled, disabled, disabled);
    assert_eq!(
        (server.in_use(), server.picks(), server.affinity_picks()),
        (4, 4, 1)
    );
    assert_eq!(server.set_state(State::Ready), 4, "as many as were in use");
}

#[test]
fn one_release_too_many_counts_for_nothing() {
    let server = Server::new();
    server.set_state(State::Drain);
    server.release();
    assert_eq!((server.in_use(), server.state()), (0, State::Drain));
    server.set_state(State::Ready);
    assert_eq!(server.acquire(Some(1)), Ok(()));
}

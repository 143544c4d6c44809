//! Servers that a request has been to, or that an operator took away, are skipped.

use super::*;
use evenkeel_balance::{State, Why};

#[test]
fn no_algorithm_picks_a_server_again() {
    for algorithm in algorithms() {
        for n in [1, 2, 5, 70] {
            let mut pool = Pool::new(algorithm.clone(), &vec![1; n]);
            for key in 0..20 {
                let mut tried = Vec::new();
                for _ in 0..n {
                    let index = pool.pick_untried(key, &tried).unwrap() as u32;
                    assert!(!tried.contains(&index), "{algorithm:?}: {index} of {n}");
                    tried.push(index);
                }
                assert_eq!(pool.pick_untried(key, &tried), None, "{algorithm:?} of {n}");
            }
        }
    }
}

#[test]
fn no_algorithm_picks_a_server_that_drains_or_is_disabled() {
    for algorithm in algorithms() {
        for n in [3_usize, 70] {
            let mut pool = Pool::new(algorithm.clone(), &vec![1; n]);
            pool.pick(0);
            pool.server(0).set_state(State::Drain);
            pool.server(1).set_state(State::Disabled);
            for key in 0..500 {
                assert!(pool.pick(key).unwrap() > 1, "{algorithm:?} of {n}");
            }
            for index in 0..n {
                pool.server(index).set_state(State::Disabled);
            }
            assert_eq!(pool.pick(0), None, "{algorithm:?} of {n}");
            pool.server(2).set_state(State::Ready);
            let last = (0..20).filter_map(|key| pool.pick(key)).last();
            assert_eq!(last, Some(2), "{algorithm:?} of {n}");
        }
    }
}

#[test]
fn an_empty_pool_has_no_pick() {
    for algorithm in algorithms() {
        assert_eq!(
            Pool::new(algorithm.clone(), &[]).pick(0),
            None,
            "{algorithm:?}"
        );
        assert_eq!(
            Pool::new(algorithm.clone(), &[0, 0]).pick(0),
            None,
            "{algorithm:?}"
        );
    }
}

#[test]
fn a_retry_goes_where_the_ring_would_lead_without_the_server() {
    let mut pool = Pool::new(Algorithm::IpHash, &[1; 6]);
    for key in 0..1000 {
        let first = pool.pick(key).unwrap();
        let second = pool.pick_untried(key, &[first as u32]).unwrap();
        let mut less = candidates(&[1; 6]);
        less.remove(first);
        let view = View::build(&Algorithm::IpHash, less);
        let hash = Some(hash_key(&key.to_le_bytes()));
        let there = view
            .pick(&pool.rotation, &mut pool.local, hash, &[], pool.now)
            .unwrap();
        assert_eq!(view.candidates()[there].id, second as u32);
    }
}

#[test]
fn a_retry_spreads_over_all_the_others() {
    for algorithm in [
        Algorithm::RoundRobin,
        Algorithm::Random,
        Algorithm::PowerOfTwo,
    ] {
        let mut pool = Pool::new(algorithm.clone(), &[1; 4]);
        let mut counts = [0_u32; 4];
        for key in 0..9000 {
            counts[pool.pick_untried(key, &[2]).unwrap()] += 1;
        }
        assert_eq!(counts[2], 0);
        for index in [0, 1, 3] {
            // Round robin gives the turn of the one tried to its neighbour.
            assert!(counts[index] > 2000, "{algorithm:?}: {counts:?}");
        }
    }
}

#[test]
fn explain_says_what_the_next_pick_does_and_changes_nothing() {
    for algorithm in algorithms() {
        for n in [3, 70] {
            let mut pool = Pool::new(algorithm.clone(), &vec![2; n]);
            for key in 0..100_u64 {
                let hash = Some(hash_key(&key.to_le_bytes()));
                let explain = || {
                    pool.view
                        .explain(&pool.rotation, &pool.local, hash, &[1], pool.now)
                };
                let said = explain();
                assert_eq!(said, explain(), "{algorithm:?}");
                assert_eq!(said.candidates.len(), n);
                assert_eq!(said.candidates[1], Why::Tried);
                let picked = pool.pick_untried(key, &[1]);
                assert_eq!(picked, said.picked, "{algorithm:?} of {n}");
                assert_eq!(said.candidates[picked.unwrap()], Why::Picked);
                pool.hold(picked.unwrap(), 1);
            }
        }
    }
}

#[test]
fn explain_has_a_word_for_each_candidate() {
    let mut pool = Pool::new(Algorithm::LeastConnections, &[1, 1, 1, 2]);
    pool.hold(3, 5);
    pool.server(1).set_state(State::Drain);
    pool.server(2).set_state(State::Disabled);
    let said = pool
        .view
        .explain(&pool.rotation, &pool.local, None, &[], pool.now);
    let words: Vec<String> = said.candidates.iter().map(ToString::to_string).collect();
    let busier = "busier or picked later: 5 in use, weight 2";
    assert_eq!(words, ["picked", "draining", "disabled", busier]);
    assert_eq!(pool.pick(0), said.picked);
}

/// First tries and answers of each server over so many requests, where some servers always fail and a request tries
/// at most three.
fn first_tries_and_answers(weights: &[u32], failing: &[u32], requests: u32) -> Vec<(u32, u32)> {
    let mut pool = Pool::new(Algorithm::RoundRobin, weights);
    let mut counts = vec![(0, 0); weights.len()];
    for _ in 0..requests {
        let mut tried = Vec::new();
        while let Some(server) = pool.pick_untried(0, &tried) {
            if tried.is_empty() {
                counts[server].0 += 1;
            }
            let id = u32::try_from(server).expect("few servers");
            if !failing.contains(&id) {
                counts[server].1 += 1;
                break;
            }
            tried.push(id);
        }
    }
    counts
}

#[test]
fn a_failing_server_meets_its_share_of_first_tries_and_the_others_share_what_it_drops() {
    assert_eq!(
        first_tries_and_answers(&[1, 1], &[0], 600),
        [(300, 0), (300, 600)]
    );
    assert_eq!(
        first_tries_and_answers(&[1, 1, 1], &[0], 600),
        [(200, 0), (200, 300), (200, 300)]
    );
    assert_eq!(
        first_tries_and_answers(&[1, 1, 1, 1], &[1], 1200),
        [(300, 400), (300, 0), (300, 400), (300, 400)]
    );
}

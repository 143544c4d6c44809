//! The examples that the manual gives for each algorithm.

use super::*;

/// Picks by the letters A, B, C …
fn letters(pool: &mut Pool, picks: usize) -> String {
    (0..picks)
        .map(|key| char::from(b'A' + pool.pick(key as u64).unwrap() as u8))
        .collect()
}

#[test]
fn round_robin_gives_weights_5_3_2_exactly_and_smoothly() {
    let mut pool = Pool::new(Algorithm::RoundRobin, &[5, 3, 2]);
    assert_eq!(letters(&mut pool, 20), "ABACABABACABACABABAC");
    let mut pool = Pool::new(Algorithm::RoundRobin, &[50, 30, 20]);
    assert_eq!(letters(&mut pool, 10), "ABACABABAC");
    let mut pool = Pool::new(Algorithm::RoundRobin, &[5, 1, 1, 1, 1, 1]);
    assert_eq!(letters(&mut pool, 10), "ABACADAEAF");
    let mut pool = Pool::new(Algorithm::RoundRobin, &[7, 7, 7]);
    assert_eq!(letters(&mut pool, 6), "ABCABC");
    let mut pool = Pool::new(Algorithm::RoundRobin, &[1, 0, 1]);
    assert_eq!(letters(&mut pool, 4), "ABAB", "weight 0 is no candidate");
}

#[test]
fn round_robin_shares_hold_for_all_workers_together() {
    let pool = Pool::new(Algorithm::RoundRobin, &[5, 3, 2]);
    let mut workers = [Local::new(1), Local::new(2), Local::new(3)];
    let mut counts = [0; 3];
    for turn in 0..1000 {
        let local = &mut workers[turn % 3];
        let index = pool
            .view
            .pick(&pool.rotation, local, None, &[], pool.now)
            .unwrap();
        counts[index] += 1;
    }
    assert_eq!(counts, [500, 300, 200]);
}

/// `(connections, weight)` of each server, and whom least connections and its like pick.
fn check_connections(servers: &[(u32, u32)], expected: usize) {
    let weights: Vec<u32> = servers.iter().map(|(_, weight)| *weight).collect();
    let mut pool = Pool::new(Algorithm::LeastConnections, &weights);
    for (index, (connections, _)) in servers.iter().enumerate() {
        pool.hold(index, *connections);
    }
    assert_eq!(pool.pick(0), Some(expected), "{servers:?}");
}

#[test]
fn least_connections_per_weight() {
    check_connections(&[(12, 1), (5, 1), (8, 1)], 1);
    check_connections(&[(12, 4), (5, 2), (8, 2)], 1);
    check_connections(&[(50, 5), (30, 3), (18, 2)], 2);
}

/// `(milliseconds, connections)` of each server, and whom least response time picks.
fn check_latency(times_connections: bool, servers: &[(u64, u32)], expected: usize) {
    let algorithm = Algorithm::LeastResponseTime { times_connections };
    let mut pool = Pool::new(algorithm, &vec![1; servers.len()]);
    for (index, (millis, connections)) in servers.iter().enumerate() {
        pool.server(index)
            .record_latency(pool.now, Duration::from_millis(*millis));
        pool.hold(index, *connections);
    }
    assert_eq!(pool.pick(0), Some(expected), "{servers:?}");
}

#[test]
fn least_response_time_alone_and_times_connections() {
    check_latency(false, &[(45, 2), (12, 9), (30, 1)], 1);
    check_latency(true, &[(45, 2), (12, 9), (30, 1)], 2);
}

#[test]
fn a_server_never_measured_gets_one_request_at_a_time() {
    let algorithm = Algorithm::LeastResponseTime {
        times_connections: false,
    };
    let mut pool = Pool::new(algorithm, &[1, 1]);
    pool.server(0)
        .record_latency(pool.now, Duration::from_millis(5));
    assert_eq!(pool.pick(0), Some(1));
    pool.hold(1, 1);
    assert_eq!(pool.pick(0), Some(0));
    pool.server(1)
        .record_latency(pool.now, Duration::from_millis(2));
    assert_eq!(pool.pick(0), Some(1));
}

/// Who fails fastest must not draw what all the others answer well.
#[test]
fn a_server_that_fails_at_once_does_not_seem_fast() {
    let millis = Duration::from_millis;
    for algorithm in [
        Algorithm::LeastResponseTime {
            times_connections: false,
        },
        Algorithm::PeakEwma,
    ] {
        let mut pool = Pool::new(algorithm, &[1, 1]);
        pool.now = Duration::from_secs(1);
        pool.server(0).record_latency(pool.now, millis(20));
        pool.server(1).record_latency(pool.now, millis(10));
        for _ in 0..100 {
            pool.now += millis(100);
            pool.server(0).record_failed_latency(pool.now, millis(1));
            assert_eq!(pool.pick(0), Some(1));
        }
        assert_eq!(pool.server(0).latency(), millis(20));
        // Nor one of which nothing else is known; a slow failure is as slow as it is.
        let pool = Pool::new(Algorithm::PeakEwma, &[1]);
        pool.server(0).record_failed_latency(pool.now, millis(1));
        assert_eq!(pool.server(0).peak_latency(), millis(50));
        pool.server(0).record_failed_latency(pool.now, millis(90));
        assert_eq!(pool.server(0).peak_latency(), millis(90));
    }
}

#[test]
fn a_server_once_slow_is_tried_again() {
    let algorithm = Algorithm::LeastResponseTime {
        times_connections: false,
    };
    let mut pool = Pool::new(algorithm, &[1, 1]);
    pool.server(0)
        .record_latency(pool.now, Duration::from_millis(10));
    pool.server(1)
        .record_latency(pool.now, Duration::from_millis(100));
    let mut again = None;
    for second in 0..60 {
        pool.now = Duration::from_secs(1 + second);
        if pool.pick(0) == Some(1) {
            again = again.or(Some(second));
        }
        pool.server(0)
            .record_latency(pool.now, Duration::from_millis(10));
    }
    assert_eq!(again, Some(40), "100 ms halve four times to below 10 ms");
}

#[test]
fn among_equals_the_one_picked_longest_ago() {
    for algorithm in [Algorithm::LeastConnections, Algorithm::PowerOfTwo] {
        let mut pool = Pool::new(algorithm, &[1, 1]);
        assert_eq!(letters(&mut pool, 6), "ABABAB");
        pool.hold(1, 1);
        assert_eq!(letters(&mut pool, 3), "AAA");
        pool.server(1).release();
        assert_eq!(letters(&mut pool, 4), "BABA");
    }
}

#[test]
fn power_of_two_prefers_the_less_loaded_of_two() {
    let mut pool = Pool::new(Algorithm::PowerOfTwo, &[1; 10]);
    pool.hold(4, 1);
    let picked = (0..10_000).filter(|key| pool.pick(*key) == Some(4)).count();
    assert_eq!(picked, 0, "it loses every draw of two");
}

#[test]
fn peak_ewma_avoids_a_server_that_was_slow_once() {
    let mut pool = Pool::new(Algorithm::PeakEwma, &[1, 1]);
    for millis in [5, 5, 5, 500, 5] {
        pool.server(0)
            .record_latency(pool.now, Duration::from_millis(5));
        pool.server(1)
            .record_latency(pool.now, Duration::from_millis(millis));
        pool.now += Duration::from_millis(10);
    }
    assert_eq!(letters(&mut pool, 4), "AAAA");
    assert!(pool.server(1).latency() < pool.server(1).peak_latency());
}

/// Takes one of `n` servers out, and returns how many of 100,000 keys moved that were its, and
/// how many that were not.
fn moved(algorithm: &Algorithm, n: u32, out: u32) -> (u32, u32) {
    let mut whole = Pool::new(algorithm.clone(), &vec![1; n as usize]);
    let mut less = candidates(&vec![1; n as usize]);
    less.remove(out as usize);
    let mut without = Pool::new(algorithm.clone(), &[]);
    without.view = View::build(algorithm, less);
    let (mut its, mut others) = (0, 0);
    for key in 0..100_000 {
        let before = whole.pick(key).unwrap() as u32;
        let after = without.pick(key).unwrap();
        let after = without.view.candidates()[after].id;
        its += u32::from(before == out);
        others += u32::from(before != out && before != after);
    }
    (its, others)
}

#[test]
fn a_server_that_leaves_the_ring_takes_only_its_own_keys() {
    for algorithm in [
        Algorithm::IpHash,
        Algorithm::ConsistentHash { bounded_load: None },
    ] {
        for n in [2, 3, 10, 50] {
            let (its, others) = moved(&algorithm, n, n / 2);
            assert_eq!(others, 0, "{algorithm:?} of {n}");
            let fair = 100_000 / n;
            assert!(its.abs_diff(fair) < fair / 5, "{algorithm:?} of {n}: {its}");
        }
    }
}

#[test]
fn a_server_that_leaves_a_maglev_table_moves_few_other_keys() {
    for n in [3, 10, 50] {
        let (its, others) = moved(&Algorithm::Maglev, n, 1);
        let fair = 100_000 / n;
        assert!(its.abs_diff(fair) < fair / 20, "{its} of {n}");
        assert!(others < 4_000, "{others} of {n}");
    }
}

#[test]
fn bounded_load_walks_on_when_a_server_has_its_share() {
    let algorithm = Algorithm::ConsistentHash {
        bounded_load: Some(1.25),
    };
    for n in [4, 100] {
        let mut pool = Pool::new(algorithm.clone(), &vec![1; n]);
        for _ in 0..20 * n {
            let index = pool.pick(1).unwrap();
            pool.hold(index, 1);
        }
        let most = (0..n)
            .map(|index| pool.server(index).in_use())
            .max()
            .unwrap();
        assert!(
            most <= 25,
            "one key on {n} servers: {most} where 20 is fair"
        );
    }
}

#[test]
fn all_nodes_place_keys_alike() {
    assert_eq!(
        hash_key(b"evenkeel"),
        HASH_OF_EVENKEEL,
        "nodes and versions agree"
    );
    for (algorithm, expected) in [(Algorithm::IpHash, RING), (Algorithm::Maglev, TABLE)] {
        let mut pool = Pool::new(algorithm.clone(), &[1, 2, 3]);
        assert_eq!(letters(&mut pool, 24), expected, "{algorithm:?}");
        let mut turned = candidates(&[1, 2, 3]);
        turned.rotate_left(1);
        let view = View::build(&algorithm, turned);
        for key in 0..1000_u64 {
            let there = pool.pick(key).unwrap();
            let key = Some(hash_key(&key.to_le_bytes()));
            let here = view
                .pick(&pool.rotation, &mut pool.local, key, &[], pool.now)
                .unwrap();
            assert_eq!(
                view.candidates()[here].id,
                there as u32,
                "the order of a list is no matter"
            );
        }
    }
}

const HASH_OF_EVENKEEL: u64 = 5_188_233_716_299_274_124;
const RING: &str = "BCBCCCCBCCBCBBCBACCCAACC";
const TABLE: &str = "BCCCBCCBABCBACCBCBABCACB";

//! A server with a part of its weight gets that part of its traffic, whatever the algorithm.

use evenkeel_balance::{Share, View, hash_key};

use super::{Algorithm, Pool, algorithms, candidates};

/// The index picked for each of `count` keys, each slot given back at once.
fn picks(algorithm: &Algorithm, shares: &[f64], count: u64) -> Vec<usize> {
    let mut pool = Pool::new(algorithm.clone(), &vec![1; shares.len()]);
    let mut all = candidates(&vec![1; shares.len()]);
    for (candidate, share) in all.iter_mut().zip(shares) {
        candidate.share = Share::new(*share);
    }
    pool.view = View::build(algorithm, all);
    (0..count)
        .map(|key| {
            let key = Some(hash_key(&key.to_le_bytes()));
            let local = &mut pool.local;
            pool.view
                .pick(&pool.rotation, local, key, &[], pool.now)
                .unwrap()
        })
        .collect()
}

#[test]
fn each_algorithm_gives_a_server_its_part() {
    for algorithm in algorithms() {
        let picks = picks(&algorithm, &[1.0, 1.0, 0.5, 1.0], 70_000);
        let got = picks.iter().filter(|index| **index == 2).count() as f64 / 10_000.0;
        // Power of two draws twice, so a light server is a little less often among the two.
        assert!((0.8..1.2).contains(&got), "{algorithm:?}: {got}");
    }
}

#[test]
fn a_server_picked_at_a_small_part_has_its_turns_again_with_its_weight() {
    for algorithm in [Algorithm::LeastConnections, Algorithm::PowerOfTwo] {
        let mut pool = Pool::new(algorithm.clone(), &[1; 4]);
        let mut all = candidates(&[1; 4]);
        let mut pick = |view: &View| {
            view.pick(&pool.rotation, &mut pool.local, None, &[], pool.now)
                .unwrap()
        };
        all[0].share = Share::exact(0.001);
        let part = View::build(&algorithm, all.clone());
        while pick(&part) != 0 {}
        all[0].share = Share::FULL;
        let whole = View::build(&algorithm, all);
        whole.settle_turns(&pool.rotation);
        let own = (0..400).filter(|_| pick(&whole) == 0).count();
        assert!((80..=120).contains(&own), "{algorithm:?}: {own} of 400");
    }
}

#[test]
fn a_whole_pool_at_a_part_shares_as_before() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::Maglev] {
        assert_eq!(
            picks(&algorithm, &[1.0; 3], 1000),
            picks(&algorithm, &[0.5; 3], 1000),
            "{algorithm:?}"
        );
    }
}

#[test]
fn only_keys_of_the_server_that_gives_up_move() {
    let before = [1.0; 5];
    let after = [1.0, 0.5, 1.0, 1.0, 1.0];
    for (algorithm, others_max) in [
        (Algorithm::IpHash, 0.0),
        (Algorithm::ConsistentHash { bounded_load: None }, 0.0),
        (Algorithm::Maglev, 0.0),
    ] {
        let pairs: Vec<_> = picks(&algorithm, &before, 20_000)
            .into_iter()
            .zip(picks(&algorithm, &after, 20_000))
            .collect();
        let moved = |own: bool| {
            let count = pairs
                .iter()
                .filter(|(from, to)| from != to && (*from == 1) == own)
                .count();
            count as f64 / 20_000.0
        };
        let own = moved(true);
        assert!((0.06..0.14).contains(&own), "{algorithm:?}: own {own}");
        assert!(
            moved(false) <= others_max,
            "{algorithm:?}: {}",
            moved(false)
        );
    }
}

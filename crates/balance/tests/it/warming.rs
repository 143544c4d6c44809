//! A server that warms up: its traffic only grows, and of hashed keys none moves but to it.

use std::time::Duration;

use evenkeel_balance::{Share, SlowStart, View, hash_key};
use proptest::prelude::*;

use super::{Algorithm, Pool, algorithms, candidates};

fn picks(
    algorithm: &Algorithm,
    weights: &[u32],
    warming: usize,
    share: Share,
    count: u64,
) -> Vec<usize> {
    let mut pool = Pool::new(algorithm.clone(), weights);
    let mut all = candidates(weights);
    all[warming].share = share;
    pool.view = View::build(algorithm, all);
    (0..count)
        .map(|key| {
            let key = Some(hash_key(&key.to_le_bytes()));
            pool.view
                .pick(&pool.rotation, &mut pool.local, key, &[], pool.now)
                .unwrap()
        })
        .collect()
}

fn shares() -> Vec<Share> {
    let slow = SlowStart {
        duration: Duration::from_secs(20),
        aggression: 1.0,
        floor: 0.1,
    };
    (0..=20)
        .map(|secs| Share::exact(slow.factor(Duration::from_secs(secs))))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(6) })]

    #[test]
    fn keys_only_move_to_the_server_that_warms_up(weights in prop::collection::vec(1_u32..6, 2..8), at in 0_usize..8) {
        let warming = at % weights.len();
        for algorithm in [
            Algorithm::IpHash,
            Algorithm::ConsistentHash { bounded_load: None },
            Algorithm::Maglev,
        ] {
            let mut before: Option<Vec<usize>> = None;
            for share in shares() {
                let now = picks(&algorithm, &weights, warming, share, 3000);
                if let Some(before) = before {
                    for (from, to) in before.iter().zip(&now) {
                        prop_assert!(from == to || *to == warming, "{:?}: {} to {}", algorithm, from, to);
                    }
                }
                before = Some(now);
            }
        }
    }
}

#[test]
fn its_traffic_is_in_proportion_in_every_algorithm() {
    for algorithm in algorithms() {
        for share in [0.1, 0.35, 0.8] {
            let weights = [1; 4];
            let picks = picks(&algorithm, &weights, 2, Share::exact(share), 40_000);
            let got = picks.iter().filter(|index| **index == 2).count() as f64 / 40_000.0;
            let fair = share / (3.0 + share);
            // Power of two draws twice, so that a light server is less often among the two.
            let two = matches!(algorithm, Algorithm::PowerOfTwo | Algorithm::PeakEwma);
            let bound = if two { 0.35 } else { 0.2 };
            assert!(
                (got - fair).abs() < bound * fair,
                "{algorithm:?} at {share}: {got} where {fair} is fair"
            );
        }
    }
}

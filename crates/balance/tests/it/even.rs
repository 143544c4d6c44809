//! Each algorithm is even within its stated bound over 10^6 picks, whatever the weights.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const PICKS: u64 = 1_000_000;

/// Picks 10^6 times with as many requests in flight as `held` says, each as long as the others,
/// and returns each server's picks against its fair share of them.
fn shares(algorithm: Algorithm, weights: &[u32], held: usize) -> Vec<(u64, f64)> {
    let mut pool = Pool::new(algorithm, weights);
    let mut counts = vec![0_u64; weights.len()];
    let mut flight = VecDeque::with_capacity(held + 1);
    for key in 0..PICKS {
        pool.now += Duration::from_micros(10);
        let index = pool.pick(key).unwrap();
        counts[index] += 1;
        pool.hold(index, 1);
        flight.push_back(index);
        if flight.len() > held {
            let done = flight.pop_front().unwrap();
            pool.server(done)
                .record_latency(pool.now, Duration::from_millis(1));
            pool.server(done).release();
        }
    }
    let total: u32 = weights.iter().sum();
    let fair = weights
        .iter()
        .map(|weight| PICKS as f64 * f64::from(*weight) / f64::from(total));
    counts.into_iter().zip(fair).collect()
}

/// The bound that `algorithm` states for weights in 1..=10 (`equal`: all the same) on a server's
/// picks, given its fair share of them.
fn bound(algorithm: &Algorithm, equal: bool, fair: f64) -> f64 {
    match algorithm {
        Algorithm::RoundRobin => 1.0,
        Algorithm::LeastConnections if equal => 1.0,
        Algorithm::LeastConnections => 0.1 * fair,
        // Whoever is measured first is ahead until all are.
        Algorithm::LeastResponseTime { .. } => 0.01 * fair,
        // Six standard deviations of a fair draw.
        Algorithm::Random => 6.0 * fair.sqrt(),
        Algorithm::PowerOfTwo | Algorithm::PeakEwma if equal => 0.05 * fair,
        Algorithm::PowerOfTwo => 0.1 * fair,
        Algorithm::Maglev => 0.01 * fair + 6.0 * fair.sqrt(),
        // Five standard deviations of the ring, where a server has 512 places per weight.
        _ => 0.22 * fair + 6.0 * fair.sqrt(),
    }
}

fn check(algorithm: Algorithm, weights: &[u32], held: usize) -> Result<(), TestCaseError> {
    let equal = weights.iter().all(|weight| *weight == weights[0]);
    for (index, (picks, fair)) in shares(algorithm.clone(), weights, held)
        .into_iter()
        .enumerate()
    {
        let off = (picks as f64 - fair).abs();
        prop_assert!(
            off <= bound(&algorithm, equal, fair),
            "{algorithm:?}: server {index} of {weights:?} got {picks} where {fair:.0} is fair"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2) })]

    #[test]
    fn equal_weights(n in 2_usize..=64, weight in 1_u32..=10, held in 0_usize..=200) {
        for algorithm in algorithms() {
            check(algorithm, &vec![weight; n], held)?;
        }
    }

    /// Algorithms that go by the requests in use keep to the weights as far as there are enough
    /// of these: here ten for each unit of weight. Those that go by response times alone do not.
    #[test]
    fn any_weights(weights in prop::collection::vec(1_u32..=10, 2..=20)) {
        let held = 10 * weights.iter().sum::<u32>() as usize;
        for algorithm in algorithms() {
            let by_time = matches!(algorithm, Algorithm::LeastResponseTime { .. } | Algorithm::PeakEwma);
            if !by_time {
                check(algorithm, &weights, held)?;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    /// Round robin is exact in each period, and close to it at any point: less than one pick off
    /// up to a period of 16,384, less than eight above.
    #[test]
    fn round_robin_is_exact_per_period(weights in prop::collection::vec(1_u32..=1000, 1..80)) {
        period(&weights)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4) })]

    #[test]
    fn round_robin_is_exact_in_long_periods(weights in prop::collection::vec(1_u32..=1000, 500..2000)) {
        period(&weights)?;
    }
}

/// One whole period, checked after each pick.
fn period(weights: &[u32]) -> Result<(), TestCaseError> {
    let mut pool = Pool::new(Algorithm::RoundRobin, weights);
    let divisor = weights.iter().copied().fold(0, gcd);
    let weights: Vec<u64> = weights
        .iter()
        .map(|weight| u64::from(weight / divisor))
        .collect();
    let total: u64 = weights.iter().sum();
    let bound = if total <= 16_384 { 1.0 } else { 8.0 };
    let mut counts = vec![0_u64; weights.len()];
    for turn in 0..total {
        let index = pool.pick(0).unwrap();
        let fair = turn as f64 * weights[index] as f64 / total as f64;
        let after = (turn + 1) as f64 * weights[index] as f64 / total as f64;
        let (early, late) = (
            counts[index] as f64 + 1.0 - after,
            fair - counts[index] as f64,
        );
        prop_assert!(
            early < bound && late < bound,
            "turn {turn}: {early} or {late} off"
        );
        counts[index] += 1;
    }
    prop_assert_eq!(counts, weights);
    Ok(())
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

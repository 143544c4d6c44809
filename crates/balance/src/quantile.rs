//! A quantile of times that come one by one, in one word: cheap enough to be fed by every request, from any thread.
//!
//! Each sample moves the estimate by a small factor: up if it was longer, down if it was not, in the proportion that comes
//! to rest where the wanted share of samples is below it (DUMIQE: A. Yazidi, H. L. Hammer, "Multiplicative Update Methods
//! for Incremental Quantile Estimation", IEEE Transactions on Cybernetics 49, 2019). What was once counts less and less: a
//! tenfold rise is followed within 60 samples, a tenfold fall of a 95th percentile within 1,000. At rest it is mostly within
//! a fifth of the true value.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How far one sample may move the estimate, once there were some.
const STEP: f64 = 0.05;
/// Before that it moves further: by this over the number of samples, and some.
const FIRST_STEPS: f64 = 4.0;
/// Below that many samples nothing is known.
const SAMPLES_MIN: u32 = 100;
/// Shorter ones count as this, nanoseconds: the estimate is moved by factors, and must not reach 0.
const SHORTEST: f64 = 1000.0;

/// Which share of all samples is to lie below the estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percentile(u16);

impl Percentile {
    /// In parts of 10,000, which are brought within 1 and 9,999.
    pub fn new(parts: u16) -> Self {
        Self(parts.clamp(1, 9_999))
    }

    /// In parts of 10,000.
    pub fn parts(self) -> u16 {
        self.0
    }

    fn share(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

/// `p95`, `p99.9`.
impl std::fmt::Display for Percentile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p{}", f64::from(self.0) / 100.0)
    }
}

/// The estimate. Samples of two threads at the same moment may count as one.
#[derive(Debug, Default)]
pub struct Quantile {
    /// The estimate in nanoseconds, as the bits of an `f32`, over the number of samples.
    word: AtomicU64,
}

impl Quantile {
    /// One that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a time. One load and one store.
    pub fn record(&self, percentile: Percentile, sample: Duration) {
        let nanos = (sample.as_nanos() as f64).max(SHORTEST);
        self.step(percentile, |estimate| nanos > estimate, nanos);
    }

    /// Takes in a time that was not waited for to its end: it is longer than the estimate, and longer than `waited`.
    pub fn record_longer(&self, percentile: Percentile, waited: Duration) {
        let nanos = (waited.as_nanos() as f64).max(SHORTEST);
        self.step(percentile, |_| true, nanos);
    }

    fn step(&self, percentile: Percentile, is_longer: impl FnOnce(f64) -> bool, first: f64) {
        let (estimate, count) = unpack(self.word.load(Relaxed));
        let moved = if count == 0 {
            first
        } else {
            let step = STEP.max(FIRST_STEPS / (f64::from(count) + FIRST_STEPS));
            let share = percentile.share();
            let factor = if is_longer(estimate) {
                1.0 + step * share
            } else {
                1.0 - step * (1.0 - share)
            };
            (estimate * factor).max(SHORTEST)
        };
        self.word
            .store(pack(moved, count.saturating_add(1)), Relaxed);
    }

    /// The estimate; `None` until it is of some worth.
    pub fn estimate(&self) -> Option<Duration> {
        let (nanos, count) = unpack(self.word.load(Relaxed));
        (count >= SAMPLES_MIN).then(|| Duration::from_nanos(nanos as u64))
    }
}

fn pack(nanos: f64, count: u32) -> u64 {
    u64::from((nanos as f32).to_bits()) << 32 | u64::from(count)
}

fn unpack(word: u64) -> (f64, u32) {
    let bits = (word >> 32) as u32;
    (f64::from(f32::from_bits(bits)), word as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(nanos: Option<Duration>) -> f64 {
        nanos.map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }

    /// Times between 1 and 100 ms, alike.
    fn feed(quantile: &Quantile, percentile: Percentile, count: usize, scale: f64) {
        let mut state = 1_u64;
        for _ in 0..count {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let part = (state >> 40) as f64 / f64::from(1 << 24);
            let time = Duration::from_secs_f64((1.0 + 99.0 * part) * scale / 1e3);
            quantile.record(percentile, time);
        }
    }

    #[test]
    fn it_comes_to_rest_near_the_true_value() {
        for (parts, low, high) in [
            (5_000, 33.0, 67.0),
            (9_000, 70.0, 105.0),
            (9_500, 75.0, 108.0),
            (9_900, 80.0, 110.0),
        ] {
            let (quantile, percentile) = (Quantile::new(), Percentile::new(parts));
            feed(&quantile, percentile, 5_000, 1.0);
            let found = millis(quantile.estimate());
            assert!((low..high).contains(&found), "{percentile}: {found}");
        }
    }

    #[test]
    fn it_follows_what_changes() {
        let (quantile, percentile) = (Quantile::new(), Percentile::new(9_500));
        feed(&quantile, percentile, 2_000, 1.0);
        feed(&quantile, percentile, 100, 10.0);
        let risen = millis(quantile.estimate());
        assert!((700.0..1200.0).contains(&risen), "{risen}");
        feed(&quantile, percentile, 2_000, 1.0);
        let fallen = millis(quantile.estimate());
        assert!((75.0..110.0).contains(&fallen), "{fallen}");
    }

    #[test]
    fn nothing_is_said_of_a_few() {
        let (quantile, percentile) = (Quantile::new(), Percentile::new(9_500));
        feed(&quantile, percentile, SAMPLES_MIN as usize - 1, 1.0);
        assert_eq!(quantile.estimate(), None);
        quantile.record_longer(percentile, Duration::from_millis(1));
        assert!(quantile.estimate().is_some());
    }

    #[test]
    fn what_was_not_waited_for_counts_as_longer() {
        let (quantile, percentile) = (Quantile::new(), Percentile::new(9_500));
        feed(&quantile, percentile, 500, 1.0);
        let before = quantile.estimate();
        quantile.record_longer(percentile, Duration::ZERO);
        assert!(quantile.estimate() > before);
    }

    #[test]
    fn percentiles_are_shown_as_they_are_written() {
        for (parts, shown) in [
            (9_500, "p95"),
            (9_990, "p99.9"),
            (9_999, "p99.99"),
            (0, "p0.01"),
        ] {
            assert_eq!(Percentile::new(parts).to_string(), shown);
        }
    }

    proptest! {
        #[test]
        fn it_is_never_out_of_all_bounds(
            samples in proptest::collection::vec(0_u64..u64::MAX / 2, 1..400),
            parts in 1_u16..10_000,
        ) {
            let (quantile, percentile) = (Quantile::new(), Percentile::new(parts));
            for nanos in &samples {
                quantile.record(percentile, Duration::from_nanos(*nanos));
            }
            if let Some(estimate) = quantile.estimate() {
                let longest = samples.iter().copied().max().unwrap_or(0).max(1000);
                prop_assert!(estimate.as_nanos() as f64 <= longest as f64 * 2.0);
                prop_assert!(estimate >= Duration::from_nanos(999));
            }
        }
    }
}

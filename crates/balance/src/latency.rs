//! A moving average in one atomic word, which any worker may feed and read.
//!
//! It does not measure: samples and `now` are given.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// After ten seconds a sample's weight in the average has fallen to 1/e; in microseconds, as stamps.
const MEMORY_MICROS: u32 = 10_000_000;
/// Stamps of two workers may disagree by this much; what looks newer than `now` by less is now.
const SKEW_MICROS: u32 = 10_000_000;

/// Nanoseconds as `f32` in the high half, the microsecond of the last sample in the low half,
/// which wraps after 71 minutes: an average that old then passes for a younger one, and decays
/// again. Zero: never measured.
#[derive(Debug)]
pub(crate) struct Average(AtomicU64);

/// How a sample above the average counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As any other.
    Mean,
    /// At once and in full.
    Peak,
}

/// What an average was at a moment, to be compared with what it is later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading(u64);

impl Reading {
    /// The mean of what was recorded since `before`, weighed by time as the average weighs it: what it has moved by tells
    /// that. `None` if nothing was recorded in between.
    pub fn mean_since(self, before: Self) -> Option<Duration> {
        let stamp = self.0 as u32;
        if self.0 == 0 || self.0 == before.0 {
            return None;
        }
        let (value, _) = unpack(self.0, stamp);
        let (then, age) = unpack(before.0, stamp);
        let keep = (-f64::from(age) / f64::from(MEMORY_MICROS)).exp();
        // Of the first samples of all, or of those recorded within the same microsecond.
        if before.0 == 0 || keep >= 1.0 {
            return Some(Duration::from_nanos(value as u64));
        }
        let mean = (value - then * keep) / (1.0 - keep);
        Some(Duration::from_nanos(mean.max(1.0) as u64))
    }
}

impl Average {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Forgets what was recorded, and holds `value`.
    pub(crate) fn set(&self, now: Duration, value: Duration) {
        let nanos = (value.as_secs_f64() * 1e9).max(1.0);
        self.0.store(pack(nanos, stamp(now)), Ordering::Relaxed);
    }

    /// Weighs `sample` in by the time since the one before.
    pub(crate) fn record(&self, kind: Kind, now: Duration, sample: Duration) {
        let stamp = stamp(now);
        let sample = (sample.as_secs_f64() * 1e9).max(1.0);
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (value, age) = unpack(word, stamp);
            let rises = kind == Kind::Peak && sample > value;
            let next = if word == 0 || rises {
                sample
            } else {
                let keep = (-f64::from(age) / f64::from(MEMORY_MICROS)).exp();
                value * keep + sample * (1.0 - keep)
            };
            let packed = pack(next, stamp);
            match self
                .0
                .compare_exchange_weak(word, packed, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }

    /// What it is at this moment.
    pub(crate) fn reading(&self) -> Reading {
        Reading(self.0.load(Ordering::Relaxed))
    }

    /// As of the last sample; zero if there was none.
    pub(crate) fn last(&self) -> Duration {
        let (nanos, _) = unpack(self.0.load(Ordering::Relaxed), 0);
        Duration::from_nanos(nanos as u64)
    }

    /// In nanoseconds, halved for each [`MEMORY_MICROS`] without a sample, so that a server once slow is
    /// tried again; `None` if never measured. `now` is a [`stamp`].
    pub(crate) fn at(&self, now: u32) -> Option<f64> {
        let word = self.0.load(Ordering::Relaxed);
        if word == 0 {
            return None;
        }
        let (value, age) = unpack(word, now);
        Some(match age / MEMORY_MICROS {
            0 => value,
            halvings => value * 0.5_f64.powi(halvings as i32),
        })
    }
}

fn pack(nanos: f64, stamp: u32) -> u64 {
    u64::from((nanos as f32).to_bits()) << 32 | u64::from(stamp)
}

/// Nanoseconds, and the microseconds since they were stamped.
fn unpack(word: u64, now: u32) -> (f64, u32) {
    let value = f32::from_bits((word >> 32) as u32);
    let age = now.wrapping_sub(word as u32);
    let age = if age > u32::MAX - SKEW_MICROS { 0 } else { age };
    (f64::from(value), age)
}

/// The low 32 bits of the microseconds; wrapping is meant.
pub(crate) fn stamp(now: Duration) -> u32 {
    now.as_micros() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// Records `(second, milliseconds)` samples, and returns the average in milliseconds.
    fn average(kind: Kind, samples: &[(u64, u32)]) -> f64 {
        let average = Average::new();
        for (second, millis) in samples {
            average.record(kind, Duration::from_secs(*second), MILLI * *millis);
        }
        average.last().as_secs_f64() * 1e3
    }

    #[test]
    fn a_sample_weighs_by_the_time_since_the_one_before() {
        let check = |kind, samples: &[(u64, u32)], expected: f64| {
            let got = average(kind, samples);
            assert!((got - expected).abs() < 0.01, "{kind:?} {samples:?}: {got}");
        };
        check(Kind::Mean, &[], 0.0);
        check(Kind::Mean, &[(5, 40)], 40.0);
        check(Kind::Mean, &[(5, 40), (5, 1000)], 40.0);
        check(Kind::Mean, &[(5, 100), (15, 0)], 36.79);
        check(Kind::Mean, &[(5, 100), (1000, 7)], 7.0);
        check(Kind::Mean, &[(5, 100), (3, 7)], 100.0);
        check(Kind::Peak, &[(5, 40), (5, 1000)], 1000.0);
        check(Kind::Peak, &[(5, 100), (15, 0)], 36.79);
    }

    #[test]
    fn two_readings_tell_what_came_in_between() {
        let average = Average::new();
        let record = |micros: std::ops::Range<u64>, millis: u32| {
            let before = average.reading();
            for micro in micros.step_by(1000) {
                average.record(Kind::Mean, Duration::from_micros(micro), MILLI * millis);
            }
            let mean = average.reading().mean_since(before);
            mean.map_or(0.0, |mean| mean.as_secs_f64() * 1e3)
        };
        let check = |micros, millis, expected: f64| {
            let got = record(micros, millis);
            assert!((got - expected).abs() <= expected * 0.02, "{millis}: {got}");
        };
        check(1..1, 10, 0.0);
        check(1..1_000_000, 10, 10.0);
        check(1_000_000..1_250_000, 20, 20.0);
        check(1_250_000..1_500_000, 10, 10.0);
        check(1_500_000..1_750_000, 100, 100.0);
        // After a pause of a minute nothing of before is left.
        check(61_750_000..62_000_000, 5, 5.0);
        check(62_000_000..62_000_000, 5, 0.0);
    }

    #[test]
    fn an_average_fades_without_samples_and_outlives_the_stamp() {
        let average = Average::new();
        assert_eq!(average.at(0), None);
        // The stamp wraps within this test: 2^32 µs are 4294.97 s.
        let start = Duration::from_secs(4290);
        average.record(Kind::Mean, start, MILLI);
        for (later, expected) in [(0, 1e6), (9, 1e6), (10, 5e5), (39, 1.25e5)] {
            let got = average
                .at(stamp(start + Duration::from_secs(later)))
                .unwrap();
            assert!((got - expected).abs() < 1.0, "{later} s: {got}");
        }
        assert!(
            average.at(stamp(start - MILLI)).is_some_and(|it| it > 9e5),
            "a worker behind"
        );
    }
}

//! How much of its weight a server has while it warms up.

use std::time::Duration;

/// A weight is raised in at most this many steps.
const STEPS: u32 = 20;
/// And at most this often.
const STEP_MIN: Duration = Duration::from_millis(100);

/// Over what time, and along which curve, a server that begins to serve beside others is given its
/// full weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// How long it takes. With 0 there is no slow start.
    pub duration: Duration,
    /// 1 raises the weight evenly; above 1 most of it comes early, below 1 late. Above 0.
    pub aggression: f64,
    /// What the server begins with, 0 to 1: below it, it would take too few requests to warm up.
    pub floor: f64,
}

impl SlowStart {
    /// The part of its weight that a server has `age` after it began to serve: from the floor up to
    /// 1, and never less than before. `max(floor, (age / duration)^(1 / aggression))`.
    pub fn factor(&self, age: Duration) -> f64 {
        if age >= self.duration {
            return 1.0;
        }
        let progress = age.as_secs_f64() / self.duration.as_secs_f64();
        let factor = progress.powf(self.aggression.max(f64::MIN_POSITIVE).recip());
        // The comparisons also take what is no number to the floor, and that to 0.
        factor.max(self.floor.max(0.0)).min(1.0)
    }

    /// How far two steps of a weight are apart at least: a twentieth of the time, 100 ms or more.
    pub fn step(&self) -> Duration {
        (self.duration / STEPS).max(STEP_MIN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(aggression: f64, floor: f64, expected: &[(u64, f64)]) {
        let slow = SlowStart {
            duration: Duration::from_secs(30),
            aggression,
            floor,
        };
        for (secs, factor) in expected {
            let found = slow.factor(Duration::from_secs(*secs));
            assert!((found - factor).abs() < 1e-9, "{secs} s: {found}");
        }
    }

    #[test]
    fn the_curve_is_even_or_early_or_late() {
        check(
            1.0,
            0.1,
            &[(0, 0.1), (3, 0.1), (15, 0.5), (30, 1.0), (99, 1.0)],
        );
        check(2.0, 0.0, &[(0, 0.0), (15, 0.5_f64.sqrt()), (30, 1.0)]);
        check(0.5, 0.1, &[(0, 0.1), (15, 0.25), (30, 1.0)]);
        check(f64::NAN, 0.1, &[(0, 0.1), (30, 1.0)]);
    }

    #[test]
    fn steps_are_a_twentieth_but_not_too_often() {
        let step = |duration| {
            let slow = SlowStart {
                duration,
                aggression: 1.0,
                floor: 0.1,
            };
            slow.step()
        };
        assert_eq!(step(Duration::from_secs(30)), Duration::from_millis(1500));
        assert_eq!(step(Duration::from_millis(10)), STEP_MIN);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn never_falls_and_stays_within_floor_and_all(
            millis in 1_u64..100_000, aggression in 0.01_f64..20.0, floor in 0.0_f64..1.0,
            a in 0_u64..200_000, b in 0_u64..200_000,
        ) {
            let slow = SlowStart { duration: Duration::from_millis(millis), aggression, floor };
            let (young, old) = (slow.factor(Duration::from_millis(a.min(b))), slow.factor(Duration::from_millis(a.max(b))));
            prop_assert!(young <= old);
            prop_assert!((floor..=1.0).contains(&young) && old <= 1.0);
        }
    }
}

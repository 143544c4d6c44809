//! When a certificate is asked for: early enough, never in a herd, and ever more rarely while that fails.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The wait after a failure that is no fault of the config, before the first doubling.
const TRANSIENT_FIRST: Duration = Duration::from_secs(30);
const TRANSIENT_MAX: Duration = Duration::from_secs(3600);
/// The wait after a refusal: four an hour are below the failed validations that authorities allow (Let's Encrypt: five
/// for an account and name in an hour).
const REFUSED_FIRST: Duration = Duration::from_secs(15 * 60);
const REFUSED_MAX: Duration = Duration::from_secs(12 * 3600);
/// The wait after too many requests where the authority does not say how long.
const LIMITED: Duration = Duration::from_secs(3600);
/// What an authority may make us wait at most.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Parts of a lifetime: renewed when one of three is left, earlier by up to one of thirty, and whatever the authority
/// suggests, no later than when one of ten is left, nor before one of sixty is over.
const RENEW_PARTS: u32 = 3;
const JITTER_PARTS: u32 = 30;
const LATEST_PARTS: u32 = 10;
const EARLIEST_PARTS: u32 = 60;

/// Why there is no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failed {
    /// The authority could not be asked, or failed itself.
    Unreachable,
    /// It said no: it did not find us at the name, or does not like what it is asked.
    Refused,
    /// It was asked too often.
    RateLimited,
}

/// Failures in a row. Wall times, since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failures {
    /// How many.
    pub count: u32,
    /// Why the last one was.
    pub kind: Failed,
    /// In the authority's words, or ours.
    pub problem: String,
    /// When it is tried again.
    pub until: Duration,
}

/// When an authority wants a certificate to be renewed (RFC 9773). Wall times, since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// From then on.
    pub start: Duration,
    /// Until then.
    pub end: Duration,
}

/// A certificate that is there, as far as its renewal goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Renewal {
    /// Wall time from which it is good, since the Unix epoch.
    pub not_before: Duration,
    /// Wall time after which it is not.
    pub not_after: Duration,
    /// What the authority suggests.
    pub window: Option<Window>,
    /// From 0 to 1, and the same for each instance: where within its bounds this certificate is renewed.
    pub spread: f64,
}

impl Renewal {
    /// When it is asked for anew, as wall time.
    #[must_use]
    pub fn due(&self) -> Duration {
        let lifetime = self.not_after.saturating_sub(self.not_before);
        let spread = self.spread.clamp(0.0, 1.0);
        match self.window {
            Some(window) => {
                let width = window.end.saturating_sub(window.start);
                let latest = self.not_after.saturating_sub(lifetime / LATEST_PARTS);
                let earliest = self.not_before.saturating_add(lifetime / EARLIEST_PARTS);
                let suggested = window.start.saturating_add(width.mul_f64(spread));
                suggested.max(earliest).min(latest)
            }
            None => {
                let jitter = (lifetime / JITTER_PARTS).mul_f64(spread);
                let left = (lifetime / RENEW_PARTS).saturating_add(jitter);
                self.not_after.saturating_sub(left)
            }
        }
    }
}

/// When a certificate is asked for next, as wall time; 0 is at once.
#[must_use]
pub fn next_order(there: Option<&Renewal>, failures: Option<&Failures>) -> Duration {
    let due = there.map_or(Duration::ZERO, Renewal::due);
    failures.map_or(due, |failures| due.max(failures.until))
}

/// How long to wait after this many failures in a row, the last of this kind. `asked` is what the authority said
/// (`Retry-After`), `random` from 0 to 1.
#[must_use]
pub fn wait_after(kind: Failed, count: u32, asked: Option<Duration>, random: f64) -> Duration {
    let (first, max) = match kind {
        Failed::Unreachable => (TRANSIENT_FIRST, TRANSIENT_MAX),
        Failed::Refused => (REFUSED_FIRST, REFUSED_MAX),
        Failed::RateLimited => (LIMITED, REFUSED_MAX),
    };
    let doublings = count.saturating_sub(1).min(16);
    let wait = first.saturating_mul(1 << doublings).min(max);
    // What the authority says counts, but for an answer that would keep us away for ever. It is never cut short.
    let asked = asked.map(|asked| asked.min(RETRY_AFTER_MAX));
    let wait = match (kind, asked) {
        (Failed::RateLimited, Some(asked)) if count <= 1 => asked.max(TRANSIENT_FIRST),
        (_, Some(asked)) => wait.max(asked),
        (_, None) => wait,
    };
    wait.saturating_add((wait / 10).mul_f64(random.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn renewal(window: Option<Window>, spread: f64) -> Renewal {
        Renewal {
            not_before: DAY * 1000,
            not_after: DAY * 1090,
            window,
            spread,
        }
    }

    #[test]
    fn a_third_of_the_lifetime_is_left_or_a_little_more() {
        assert_eq!(renewal(None, 0.0).due(), DAY * 1060);
        assert_eq!(renewal(None, 1.0).due(), DAY * 1057);
    }

    #[test]
    fn the_authority_may_say_when() {
        let window = |start: u32, end: u32| {
            Some(Window {
                start: DAY * start,
                end: DAY * end,
            })
        };
        assert_eq!(renewal(window(1010, 1012), 0.5).due(), DAY * 1011);
        // Not so late that nothing would be left for trying again.
        assert_eq!(renewal(window(1089, 1090), 0.0).due(), DAY * 1081);
        // A window of the past: as soon as may be (the certificate is to be revoked), but not one after another.
        assert_eq!(renewal(window(10, 11), 1.0).due(), DAY * 1001 + DAY / 2);
    }

    #[test]
    fn a_missing_one_is_asked_for_at_once_unless_that_failed() {
        assert_eq!(next_order(None, None), Duration::ZERO);
        let failures = Failures {
            count: 1,
            kind: Failed::Refused,
            problem: String::new(),
            until: DAY * 5,
        };
        assert_eq!(next_order(None, Some(&failures)), DAY * 5);
        let there = renewal(None, 0.0);
        assert_eq!(next_order(Some(&there), Some(&failures)), DAY * 1060);
    }

    #[test]
    fn waits_grow_and_end() {
        let check = |kind, count, asked: Option<u64>, expected: u64| {
            let asked = asked.map(Duration::from_secs);
            let found = wait_after(kind, count, asked, 0.0);
            assert_eq!(
                found,
                Duration::from_secs(expected),
                "{kind:?} {count} {asked:?}"
            );
        };
        check(Failed::Unreachable, 1, None, 30);
        check(Failed::Unreachable, 3, None, 120);
        check(Failed::Unreachable, 20, None, 3600);
        check(Failed::Unreachable, 1, Some(90), 90);
        check(Failed::Refused, 1, None, 900);
        check(Failed::Refused, 2, None, 1800);
        check(Failed::Refused, 99, None, 43_200);
        check(Failed::RateLimited, 1, None, 3600);
        check(Failed::RateLimited, 1, Some(120), 120);
        check(Failed::RateLimited, 1, Some(0), 30);
        check(Failed::RateLimited, 3, Some(120), 14_400);
        check(Failed::Refused, 1, Some(u64::MAX), 604_800);
    }

    proptest! {
        #[test]
        fn four_refusals_an_hour_at_most(random in 0.0_f64..=1.0) {
            let waits = (1..=5).map(|count| wait_after(Failed::Refused, count, None, random));
            let four: Duration = waits.take(4).sum();
            prop_assert!(four >= Duration::from_secs(3600));
        }

        #[test]
        fn what_the_authority_asks_is_never_cut_short(
            kind in prop_oneof![Just(Failed::Unreachable), Just(Failed::Refused), Just(Failed::RateLimited)],
            count in 0_u32..100,
            asked in 0_u64..600_000,
            random in 0.0_f64..=1.0,
        ) {
            let asked = Duration::from_secs(asked);
            prop_assert!(wait_after(kind, count, Some(asked), random) >= asked);
        }

        #[test]
        fn renewal_comes_before_the_end(
            spread in 0.0_f64..=1.0,
            start in 0_u32..2000,
            width in 0_u32..2000,
        ) {
            let window = Window { start: DAY * start, end: DAY * (start + width) };
            for window in [None, Some(window)] {
                let there = renewal(window, spread);
                prop_assert!(there.due() < there.not_after);
            }
        }
    }
}

//! At most ten warnings a second for each reason; the rest is counted.

use std::time::Duration;

use control::reason::Reason;

/// Warnings in one second.
const PER_SECOND_MAX: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// What happens to one warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Tell,
    Suppress,
}

/// A window for each reason, by its number.
#[derive(Debug)]
pub(super) struct Throttle([Window; Reason::ALL.len()]);

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    /// When it began.
    from: Duration,
    told: u32,
    suppressed: u64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self([Window::default(); Reason::ALL.len()])
    }
}

impl Throttle {
    pub(super) fn judge(&mut self, reason: Reason, now: Duration) -> Verdict {
        let Some(window) = self.0.get_mut(reason as usize) else {
            return Verdict::Tell;
        };
        // A window with a count stays until the count is told.
        if window.suppressed == 0 && now.saturating_sub(window.from) >= SECOND {
            *window = Window {
                from: now,
                ..Window::default()
            };
        }
        if window.told < PER_SECOND_MAX {
            window.told += 1;
            Verdict::Tell
        } else {
            window.suppressed += 1;
            Verdict::Suppress
        }
    }

    /// What was suppressed in windows that are over, or in `all`.
    pub(super) fn poll(&mut self, now: Duration, all: bool) -> Vec<(Reason, u64)> {
        let mut counts = Vec::new();
        for (window, reason) in self.0.iter_mut().zip(Reason::ALL) {
            let over = all || now.saturating_sub(window.from) >= SECOND;
            if over && window.suppressed > 0 {
                counts.push((reason, window.suppressed));
                *window = Window {
                    from: now,
                    ..Window::default()
                };
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_second_for_each_reason_and_the_rest_is_counted() {
        let mut throttle = Throttle::default();
        let mut told = |at: u64, reason, times| {
            let mut judge = |_: &i32| throttle.judge(reason, Duration::from_millis(at));
            (0..times)
                .filter(|time| judge(time) == Verdict::Tell)
                .count()
        };
        assert_eq!(told(100, Reason::NoRoute, 15), 10);
        assert_eq!(told(100, Reason::BadRequest, 3), 3);
        assert_eq!(told(999, Reason::NoRoute, 5), 0);
        assert_eq!(throttle.poll(Duration::from_millis(999), false), []);
        assert_eq!(
            throttle.poll(Duration::from_millis(1100), false),
            [(Reason::NoRoute, 10)]
        );
        assert_eq!(throttle.poll(Duration::from_secs(9), true), []);
        assert_eq!(
            throttle.judge(Reason::NoRoute, Duration::from_secs(9)),
            Verdict::Tell
        );
    }
}

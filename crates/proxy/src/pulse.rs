//! Is a worker's thread alive? It is asked by its inbox about once a second, between two of its tasks; what follows
//! from silence is decided here, what is done about it in `engine::tend`.
//!
//! Silence is added up from one look to the next, and no look counts for more than [`LOOK_MAX`]: a process that was
//! stopped, or a machine that slept, has no stuck worker.

use std::time::Duration;

/// How often the workers are looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The most that one look adds to a silence.
const LOOK_MAX: Duration = Duration::from_millis(1500);
/// A worker that was silent for this long is stuck: another polls its sockets.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// A worker that was silent for this long does not come back: the process ends, so that its supervisor starts it anew.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// A thread is replaced once it is this old, so that one that dies at once does not do so in a row.
const REPLACE_EVERY: Duration = Duration::from_secs(1);

/// What is new with a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It has been silent for too long.
    Stuck(Duration),
    /// It answers again, after so long.
    Back(Duration),
    /// It has been silent for longer than the process can bear.
    Lost(Duration),
}

/// What is known of one worker.
#[derive(Debug)]
pub(crate) struct Pulse {
    looked: Duration,
    silent: Duration,
    stuck: bool,
    lost_after: Duration,
}

impl Pulse {
    /// One that has just begun to work.
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            looked: now,
            silent: Duration::ZERO,
            stuck: false,
            lost_after: crate::fault::lost_after().unwrap_or(LOST_AFTER),
        }
    }

    /// A look, at least [`LOOK_EVERY`] after the one before; `answered`: whether the last question was. `None`: too
    /// early, or nothing is new.
    pub(crate) fn look(&mut self, answered: bool, now: Duration) -> Option<Change> {
        let passed = now.saturating_sub(self.looked).min(LOOK_MAX);
        self.looked = now;
        if answered {
            let silent = std::mem::take(&mut self.silent);
            return std::mem::take(&mut self.stuck).then_some(Change::Back(silent));
        }
        self.silent = self.silent.saturating_add(passed);
        if self.silent >= self.lost_after {
            return Some(Change::Lost(self.silent));
        }
        if self.silent >= STUCK_AFTER && !self.stuck {
            self.stuck = true;
            return Some(Change::Stuck(self.silent));
        }
        None
    }
}

/// Whether a worker whose thread began at `began` may have another.
pub(crate) fn may_replace(began: Duration, now: Duration) -> bool {
    now.saturating_sub(began) >= REPLACE_EVERY
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at the given seconds, with what each is to say.
    fn check(looks: &[(u64, bool, Option<Change>)]) {
        let mut pulse = Pulse::new(Duration::ZERO);
        for (at, answered, expected) in looks {
            let change = pulse.look(*answered, Duration::from_secs(*at));
            assert_eq!(change, *expected, "at {at} s");
        }
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn five_seconds_of_silence_are_told_once_and_so_is_the_return() {
        check(&[
            (1, true, None),
            (2, false, None),
            (3, false, None),
            (4, false, None),
            (5, false, None),
            (6, false, Some(Change::Stuck(secs(5)))),
            (7, false, None),
            (8, true, Some(Change::Back(secs(6)))),
            (9, true, None),
        ]);
    }

    #[test]
    fn thirty_seconds_are_the_end() {
        let mut pulse = Pulse::new(Duration::ZERO);
        let changes = (1..=30).map(|at| pulse.look(false, secs(at)));
        assert_eq!(changes.last(), Some(Some(Change::Lost(secs(30)))));
    }

    #[test]
    fn a_process_that_was_stopped_has_no_stuck_worker() {
        check(&[(1, true, None), (3600, false, None), (3601, true, None)]);
        check(&[
            (1, false, None),
            (7200, false, None),
            (7201, false, None),
            (7202, false, None),
        ]);
    }

    #[test]
    fn a_worker_that_dies_at_once_again_is_not_replaced_in_a_row() {
        assert!(!may_replace(secs(1), Duration::from_millis(1500)));
        assert!(may_replace(secs(1), secs(2)));
    }
}

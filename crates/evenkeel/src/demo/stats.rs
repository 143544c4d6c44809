//! What the demo's own clients saw: totals, and the last seconds of each server. Knows no clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What shares, rates and times are taken over.
const WINDOW: Duration = Duration::from_secs(3);
/// Requests in the window at most; older ones go first.
const WINDOW_MAX: usize = 10_000;

/// How one request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A server answered well.
    Served(Arc<str>),
    /// A server answered with the error that the user switched on.
    OnPurpose(Arc<str>),
    /// No answer, or one that the balancer made for want of a server's; in words.
    Failed(String),
}

/// The totals so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Requests that have ended.
    pub(super) requests: u64,
    /// Those that failed.
    pub(super) failed: u64,
    /// Those that a server failed on purpose.
    pub(super) on_purpose: u64,
}

/// What one server did in the window.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Recent {
    /// Of all that was answered, 0 to 1.
    pub(super) share: f64,
    /// Requests in a second.
    pub(super) rate: f64,
    /// 99 of 100 were as fast; `None` without any.
    pub(super) p99: Option<Duration>,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) totals: Totals,
    /// Who answered last.
    pub(super) last: Option<Arc<str>>,
    window: VecDeque<Seen>,
}

#[derive(Debug)]
struct Seen {
    at: Duration,
    server: Arc<str>,
    took: Duration,
}

impl Stats {
    /// Takes in a request that ended at `now`.
    pub(super) fn record(&mut self, now: Duration, outcome: &Outcome, took: Duration) {
        self.totals.requests += 1;
        let server = match outcome {
            Outcome::Served(server) => server,
            Outcome::OnPurpose(server) => {
                self.totals.on_purpose += 1;
                server
            }
            Outcome::Failed(_) => {
                self.totals.failed += 1;
                return;
            }
        };
        self.last = Some(server.clone());
        self.forget(now);
        if self.window.len() >= WINDOW_MAX {
            self.window.pop_front();
        }
        self.window.push_back(Seen {
            at: now,
            server: server.clone(),
            took,
        });
    }

    /// The last seconds of one server.
    pub(super) fn recent(&mut self, server: &str, now: Duration) -> Recent {
        self.forget(now);
        let mine = self.window.iter().filter(|seen| &*seen.server == server);
        let mut took: Vec<Duration> = mine.map(|seen| seen.took).collect();
        if took.is_empty() {
            return Recent::default();
        }
        took.sort_unstable();
        let span = WINDOW.min(now).max(Duration::from_secs(1)).as_secs_f64();
        Recent {
            share: took.len() as f64 / self.window.len() as f64,
            rate: took.len() as f64 / span,
            p99: took.get((took.len() * 99).div_ceil(100) - 1).copied(),
        }
    }

    /// Answers in a second, of all servers.
    pub(super) fn rate(&mut self, now: Duration) -> f64 {
        self.forget(now);
        let span = WINDOW.min(now).max(Duration::from_secs(1)).as_secs_f64();
        self.window.len() as f64 / span
    }

    fn forget(&mut self, now: Duration) {
        let from = now.saturating_sub(WINDOW);
        while self.window.front().is_some_and(|seen| seen.at < from) {
            self.window.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(stats: &mut Stats, at: u64, server: &str, took: u64) {
        let outcome = Outcome::Served(server.into());
        let millis = Duration::from_millis;
        stats.record(millis(at), &outcome, millis(took));
    }

    #[test]
    fn shares_and_times_are_of_the_last_seconds() {
        let mut stats = Stats::default();
        served(&mut stats, 0, "old", 900);
        for number in 0..100 {
            served(&mut stats, 6000 + number, "a", number + 1);
        }
        for _ in 0..300 {
            served(&mut stats, 6500, "b", 2);
        }
        let now = Duration::from_millis(7000);
        let a = stats.recent("a", now);
        assert_eq!((a.share, a.rate), (0.25, 100.0 / 3.0));
        assert_eq!(a.p99, Some(Duration::from_millis(99)));
        assert_eq!(stats.recent("old", now), Recent::default());
        assert_eq!(stats.rate(now), 400.0 / 3.0);
        assert_eq!(stats.totals.requests, 401);
    }

    #[test]
    fn failures_and_wished_errors_are_told_apart() {
        let mut stats = Stats::default();
        let took = Duration::from_millis(1);
        stats.record(took, &Outcome::Failed("refused".into()), took);
        stats.record(took, &Outcome::OnPurpose("a".into()), took);
        served(&mut stats, 2, "b", 1);
        let expected = Totals {
            requests: 3,
            failed: 1,
            on_purpose: 1,
        };
        assert_eq!(stats.totals, expected);
        assert_eq!(stats.last.as_deref(), Some("b"));
    }
}

//! What is known of one server's health: outcomes of probes go in, a verdict comes out.
//!
//! It sends no probe. The caller asks [`Health::poll_next_probe`] when the next one is due, sends
//! it, and tells [`Health::handle_outcome`] what came of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// First probes of a pool are spread over this time, so that they do not start as one burst.
const STAGGER: Duration = Duration::from_millis(200);

/// How a server is judged. Start from the default, and set what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Thresholds {
    /// Successes in a row that make an unhealthy server healthy; from 1.
    pub healthy: u32,
    /// Failures in a row that make a server unhealthy; from 1.
    pub unhealthy: u32,
    /// From one probe to the next while the server is healthy.
    pub interval: Duration,
    /// How long a probe may take; the caller keeps it.
    pub timeout: Duration,
    /// From one probe to the next while the server is unknown or unhealthy, if that is shorter.
    pub fast_interval: Duration,
}

/// What is held of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// Not probed yet, or not often enough to tell.
    #[default]
    Unknown,
    /// It passes its probes.
    Healthy,
    /// It fails them, or refused real traffic.
    Unhealthy,
}

/// What came of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The answer was as expected.
    Success,
    /// It was not, or there was none.
    Failure(Cause),
}

/// Why a probe failed, in words that a log can use: "503 where 200-299 was expected".
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// An answer with another status.
    Status {
        /// The status that came.
        status: u16,
        /// The statuses that would have been right, as the user wrote them.
        expected: Arc<str>,
    },
    /// An answer without the text that was expected.
    Body {
        /// The text looked for.
        expected: Arc<str>,
    },
    /// An answer by which the server says that it does not serve.
    Said {
        /// Its word.
        said: Arc<str>,
        /// The word that would have been right.
        expected: Arc<str>,
    },
    /// An answer that is not of the probe's protocol.
    Malformed,
    /// The connection was refused.
    Refused,
    /// Nothing, or not all of an answer, came in time.
    TimedOut {
        /// The time that the probe had.
        after: Duration,
    },
    /// The connection was closed or reset before an answer.
    Closed,
    /// Anything else that kept the probe from an answer, such as "no route to host".
    Failed(Arc<str>),
}

/// A change of verdict, to be logged and acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The verdict before.
    pub from: Verdict,
    /// The verdict now.
    pub to: Verdict,
    /// What made it so; `None` for a success.
    pub cause: Option<Cause>,
}

/// One server's health.
#[derive(Debug, Clone)]
pub struct Health {
    thresholds: Thresholds,
    verdict: Verdict,
    /// Outcomes in a row, up to now, of the kind of the last one.
    successes: u32,
    failures: u32,
    /// Successes in a row that it takes to be healthy.
    needed: u32,
    answers: bool,
    cause: Option<Cause>,
    /// When it was last probed or its verdict last changed; at first, when it was made.
    since: Duration,
    /// Probes up to two, which are timed in ways of their own.
    probes: u8,
}

impl Health {
    /// A server about which nothing is known but the `initial` verdict; its first probe is due at
    /// once, give or take a fifth of a second.
    pub fn new(thresholds: Thresholds, initial: Verdict, now: Duration) -> Self {
        Self {
            needed: if initial == Verdict::Unhealthy {
                thresholds.healthy
            } else {
                1
            },
            thresholds,
            verdict: initial,
            successes: 0,
            failures: 0,
            answers: initial == Verdict::Healthy,
            cause: None,
            since: now,
            probes: 0,
        }
    }

    /// Takes in what came of a probe that ended `now`.
    pub fn handle_outcome(&mut self, outcome: Outcome, now: Duration) -> Option<Transition> {
        self.since = now;
        self.probes = self.probes.saturating_add(1).min(2);
        match outcome {
            Outcome::Success => self.handle_success(),
            Outcome::Failure(cause) => self.handle_failure(cause),
        }
    }

    /// Takes in that real traffic was refused a connection: the server is out at once, until one
    /// probe succeeds.
    pub fn handle_refused(&mut self, now: Duration) -> Option<Transition> {
        self.successes = 0;
        self.answers = false;
        self.cause = Some(Cause::Refused);
        if self.verdict == Verdict::Unhealthy {
            return None;
        }
        self.since = now;
        self.needed = 1;
        Some(self.turn(Verdict::Unhealthy))
    }

    /// Goes on where another process was: `since` is when its last probe ended. The next one comes when it was due.
    pub fn resume(
        &mut self,
        verdict: Verdict,
        answers: bool,
        cause: Option<Cause>,
        since: Duration,
    ) {
        self.verdict = verdict;
        self.answers = answers;
        self.cause = cause;
        self.since = since;
        self.successes = 0;
        self.failures = 0;
        self.needed = match verdict {
            Verdict::Unhealthy => self.thresholds.healthy,
            Verdict::Healthy | Verdict::Unknown => 1,
        };
        self.probes = 2;
    }

    /// When it was last probed or its verdict last changed; at first, when it was made.
    pub fn since(&self) -> Duration {
        self.since
    }

    /// Takes up other thresholds, as after a reload; verdict and counts stay.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        if self.needed > 1 {
            self.needed = thresholds.healthy;
        }
        self.thresholds = thresholds;
    }

    /// When the next probe is due, which may be past. `random` is any number, alike in all its
    /// bits; the same one gives the same time.
    ///
    /// The first probe comes within a fifth of a second. While the server is healthy the second
    /// one comes somewhere within the interval, so that servers started together part, and each
    /// further one after an interval ±10 %.
    pub fn poll_next_probe(&self, random: u64) -> Duration {
        // 53 bits, as many as f64 holds, as a fraction of 1.
        let fraction = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let wait = match (self.probes, self.verdict) {
            (0, _) => STAGGER.mul_f64(fraction),
            (1, Verdict::Healthy) => self.thresholds.interval.mul_f64(0.1 + 0.9 * fraction),
            _ => self.wait().mul_f64(0.9 + 0.2 * fraction),
        };
        self.since.saturating_add(wait)
    }

    /// What is held of the server.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether it answered last time, rightly or wrongly: what panic goes by.
    pub fn answers(&self) -> bool {
        self.answers
    }

    /// Why the last probe or connection failed; `None` if it did not.
    pub fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    fn handle_success(&mut self) -> Option<Transition> {
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        self.answers = true;
        self.cause = None;
        (self.verdict != Verdict::Healthy && self.successes >= self.needed)
            .then(|| self.turn(Verdict::Healthy))
    }

    fn handle_failure(&mut self, cause: Cause) -> Option<Transition> {
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        self.answers = cause.answers();
        self.cause = Some(cause);
        if self.failures < self.thresholds.unhealthy {
            return None;
        }
        self.needed = self.thresholds.healthy;
        (self.verdict != Verdict::Unhealthy).then(|| self.turn(Verdict::Unhealthy))
    }

    fn turn(&mut self, to: Verdict) -> Transition {
        let from = self.verdict;
        self.verdict = to;
        Transition {
            from,
            to,
            cause: self.cause.clone(),
        }
    }

    fn wait(&self) -> Duration {
        match self.verdict {
            Verdict::Healthy => self.thresholds.interval,
            _ => self.thresholds.fast_interval.min(self.thresholds.interval),
        }
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            healthy: 2,
            unhealthy: 3,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            fast_interval: Duration::from_secs(2),
        }
    }
}

impl Cause {
    /// Whether the server answered at all.
    pub fn answers(&self) -> bool {
        matches!(
            self,
            Self::Status { .. } | Self::Body { .. } | Self::Said { .. } | Self::Malformed
        )
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { status, expected } => {
                write!(f, "{status} where {expected} was expected")
            }
            Self::Body { expected } => write!(f, "a body without {expected:?}"),
            Self::Said { said, expected } => write!(f, "{said} where {expected} was expected"),
            Self::Malformed => f.write_str("an answer that cannot be read"),
            Self::Refused => f.write_str("connection refused"),
            Self::TimedOut { after } if after.subsec_nanos() == 0 => {
                write!(f, "timeout after {} s", after.as_secs())
            }
            Self::TimedOut { after } => write!(f, "timeout after {} ms", after.as_millis()),
            Self::Closed => f.write_str("connection closed without an answer"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        })
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;

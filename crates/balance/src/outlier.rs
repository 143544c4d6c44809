//! What real traffic says of a pool's servers: who is ejected for a while, and who gets less than its weight.
//!
//! It counts nothing and reads no clock. The caller tells it of failures in a row and of refused connections at once,
//! and at every [`Settings::tick`] how many requests each server had and how many failed; [`judge`] then compares each
//! server with the rest of its pool. Whether an ejection would leave too few is [`may_eject`](crate::may_eject)'s.

use std::fmt;
use std::time::Duration;

use crate::share::Share;

mod judge;
#[cfg(test)]
mod tests;

pub use judge::{Subject, judge};

/// A refused connection is tried again after this part of an ejection, where no probe can tell: it costs no request.
const REFUSED_PART: u32 = 10;
/// The longest time between two looks at the counts.
const TICK_MAX: Duration = Duration::from_secs(1);
/// The shortest.
const TICK_MIN: Duration = Duration::from_millis(50);

/// How a pool's servers are judged by their traffic. Start from the default, and set what differs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Gateway errors in a row, in the whole process, that eject; from 1. `None` is off.
    pub gateway_errors: Option<u32>,
    /// The same for any status of 500 and above, gateway errors included.
    pub server_errors: Option<u32>,
    /// Ejects who fails far more often than the rest.
    pub success_rate: Option<Comparison>,
    /// Gives less to who answers far more slowly than the rest.
    pub latency: Option<Comparison>,
    /// Whether who fails more often than the rest gets less.
    pub degrade: bool,
    /// The time that rates are taken over, as a time constant: what is older counts little.
    pub interval: Duration,
    /// The first ejection; the n-th in a row is n times as long.
    pub ejection: Duration,
    /// The longest.
    pub ejection_max: Duration,
    /// Percent of a pool's open servers that may be ejected; one of several may be, whatever the share.
    pub ejected_max: u32,
    /// Requests at once for a server whose ejection is over, until one of them succeeds; from 1.
    pub half_open: u32,
}

/// What it takes to compare a server with the rest of its pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// How many standard deviations of the rest it has to be away from their mean.
    pub deviations: f64,
    /// Servers with enough requests that there have to be, itself included; from 2.
    pub servers_min: u32,
    /// Requests within the interval that a server needs to be looked at.
    pub requests_min: u32,
}

/// How a request failed, as its sender sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The connection was refused, or there was no way there.
    Refused,
    /// It was not made in time.
    ConnectTimeout,
    /// TLS with it came to nothing.
    Handshake,
    /// It ended before a whole answer.
    Closed,
    /// It was reset before a whole answer.
    Reset,
    /// The answer did not come in time.
    Timeout,
    /// The answer cannot be read.
    Malformed,
    /// The answer's status.
    Status(u16),
}

/// What may come in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streak {
    /// No connection, no answer, or 502, 503 or 504.
    GatewayErrors,
    /// These, and any other status of 500 and above.
    ServerErrors,
}

/// Why a server is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// It refused a connection, and there are no probes to ask it again.
    Refused,
    /// Failures in a row.
    Streak {
        /// Of which kind.
        streak: Streak,
        /// How many.
        count: u32,
        /// The last of them.
        last: Failure,
    },
    /// It fails far more often than the rest.
    SuccessRate {
        /// Its failures, percent.
        failed: u32,
        /// Those of the rest.
        rest: u32,
    },
    /// What another process saw, in words that this one does not know.
    Other {
        /// Whether the server answered, if badly.
        answers: bool,
    },
}

/// A server taken out by its traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Why.
    pub cause: Cause,
    /// When it comes back.
    pub until: Duration,
}

/// Why a server has less than its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lessened {
    /// It fails more often than the rest.
    Failing {
        /// Its failures, in tenths of a percent.
        failed: u32,
        /// Those of the rest.
        rest: u32,
    },
    /// It answers more slowly than the rest.
    Slow {
        /// Its average.
        latency: Duration,
        /// The mean of the rest.
        rest: Duration,
    },
    /// It was ejected or degraded, and what it gets grows again.
    Recovering,
}

/// One server, as its traffic shows it.
#[derive(Debug, Clone)]
pub struct Outlier {
    ejection: Option<Ejection>,
    /// Its ejection is over, and no request has succeeded since.
    half_open: bool,
    /// Ejections that the length of the next one counts; falls by one with each [`Settings::ejection`] in service.
    level: u32,
    in_service: Duration,
    /// How long it had served before that, in a process before this one.
    served_before: Duration,
    share: Share,
    lessened: Option<Lessened>,
    window: Window,
}

/// What is known of one server, for another process: its times are lengths, since each has a clock of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Why it is out, and for how long yet.
    pub ejection: Option<(Cause, Duration)>,
    /// Its ejection is over, and no request has succeeded since.
    pub half_open: bool,
    /// Ejections that the length of the next one counts.
    pub level: u32,
    /// How long it has been in service.
    pub served: Duration,
    /// Which part of its weight it gets.
    pub share: Share,
    /// Why that is not all.
    pub lessened: Option<Lessened>,
    /// Requests of late; older ones count less and less.
    pub requests: f64,
    /// And how many of these failed.
    pub failed: f64,
}

/// Requests and failures of late: older ones count less and less.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    requests: f64,
    failed: f64,
    /// The totals last seen, and when.
    seen: Option<(u64, u64, Duration)>,
}

impl Outlier {
    /// A server in service, of which nothing is known.
    pub fn new(now: Duration) -> Self {
        Self {
            ejection: None,
            half_open: false,
            level: 0,
            in_service: now,
            served_before: Duration::ZERO,
            share: Share::FULL,
            lessened: None,
            window: Window::default(),
        }
    }

    /// Ejects it, for longer each time. One that is ejected already stays as it is: false.
    pub fn handle_ejection(&mut self, cause: Cause, settings: &Settings, now: Duration) -> bool {
        if self.ejection.is_some() {
            return false;
        }
        let served = self.served(now).as_nanos();
        let forgiven = served
            .checked_div(settings.ejection.as_nanos())
            .unwrap_or(u128::MAX);
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        let longest = settings.ejection_max.max(settings.ejection);
        // More than make the longest ejection need not be forgiven.
        let level_max = longest
            .as_nanos()
            .div_ceil(settings.ejection.as_nanos().max(1));
        self.level = (self.level.saturating_sub(forgiven).saturating_add(1))
            .min(u32::try_from(level_max).unwrap_or(u32::MAX));
        let mut length = settings.ejection.saturating_mul(self.level).min(longest);
        if cause == Cause::Refused {
            length /= REFUSED_PART;
        }
        // One that is half open stays so: until its pool's view is without it there are picks yet.
        self.ejection = Some(Ejection {
            cause,
            until: now.saturating_add(length),
        });
        true
    }

    /// Ends an ejection whose time is over: true. The server is back with the least share, which grows with each tick,
    /// and [half open](Self::is_half_open); the caller lets its first failure count as the last of a row.
    pub fn handle_timeout(&mut self, now: Duration) -> bool {
        if self.ejection.is_none_or(|ejection| ejection.until > now) {
            return false;
        }
        self.ejection = None;
        self.half_open = true;
        self.in_service = now;
        self.served_before = Duration::ZERO;
        self.share = Share::MIN;
        self.lessened = Some(Lessened::Recovering);
        self.window.forget();
        true
    }

    /// A request has succeeded: true if the server was half open, and is no longer.
    pub fn handle_success(&mut self) -> bool {
        std::mem::take(&mut self.half_open)
    }

    /// Whether it has [`Settings::half_open`] requests at once, since none has succeeded after its ejection.
    pub fn is_half_open(&self) -> bool {
        self.half_open
    }

    /// Takes in how many requests the server had ever, and how many of these failed.
    pub fn handle_totals(
        &mut self,
        requests: u64,
        failed: u64,
        now: Duration,
        settings: &Settings,
    ) {
        if self.window.take(requests, failed, now, settings.interval) {
            self.half_open = false;
        }
    }

    /// Its probes say that it is well again: how it failed on its way down counts no more.
    pub fn handle_recovery(&mut self) {
        self.window = Window::default();
    }

    /// Its probes had failed and pass again. An ejection for silence ends, since they met the same silence and know that
    /// it is over; one for bad answers goes on, since probes may get good ones all the while. What ends does so with the
    /// next [`handle_timeout`](Self::handle_timeout), as if its time were over.
    pub fn handle_probes_pass(&mut self, now: Duration) {
        if let Some(ejection) = &mut self.ejection
            && !ejection.cause.answers()
        {
            ejection.until = ejection.until.min(now);
        }
    }

    /// Forgets all that traffic said: an operator wants the server in service, or the feature was turned off.
    /// True if something changed.
    pub fn forgive(&mut self, now: Duration) -> bool {
        let changed = self.ejection.is_some() || self.half_open || !self.share.is_full();
        let seen = self.window.seen;
        *self = Self::new(now);
        self.window.seen = seen;
        changed
    }

    /// What another process is to know.
    pub fn kept(&self, now: Duration) -> Kept {
        let ejection = self.ejection.map(|ejection| {
            let left = ejection.until.saturating_sub(now);
            (ejection.cause, left)
        });
        Kept {
            ejection,
            half_open: self.half_open,
            level: self.level,
            served: self.served(now),
            share: self.share,
            lessened: self.lessened,
            requests: self.window.requests,
            failed: self.window.failed,
        }
    }

    /// Goes on from what another process knew. What this one has counted up to now stays known.
    pub fn resume(&mut self, kept: Kept, now: Duration) {
        let count = |count: f64| {
            if count.is_finite() {
                count.max(0.0)
            } else {
                0.0
            }
        };
        *self = Self {
            ejection: kept.ejection.map(|(cause, left)| Ejection {
                cause,
                until: now.saturating_add(left),
            }),
            half_open: kept.half_open,
            level: kept.level,
            in_service: now,
            served_before: kept.served,
            share: kept.share,
            lessened: kept.lessened,
            window: Window {
                requests: count(kept.requests),
                failed: count(kept.failed),
                seen: self.window.seen,
            },
        };
    }

    fn served(&self, now: Duration) -> Duration {
        let here = now.saturating_sub(self.in_service);
        here.saturating_add(self.served_before)
    }

    /// Why it is out and until when, if it is.
    pub fn ejection(&self) -> Option<&Ejection> {
        self.ejection.as_ref()
    }

    /// Which part of its weight it gets.
    pub fn share(&self) -> Share {
        self.share
    }

    /// Why that is not all; `None` if it is.
    pub fn lessened(&self) -> Option<&Lessened> {
        self.lessened.as_ref()
    }
}

impl Window {
    /// Whether a request has succeeded since the last look.
    fn take(&mut self, requests: u64, failed: u64, now: Duration, interval: Duration) -> bool {
        let (requests_before, failed_before, at) = self.seen.unwrap_or((requests, failed, now));
        let passed = now.saturating_sub(at).as_secs_f64() / interval.as_secs_f64().max(0.001);
        let kept = (-passed).exp();
        let ended = requests.saturating_sub(requests_before);
        let failures = failed.saturating_sub(failed_before);
        self.requests = self.requests * kept + ended as f64;
        self.failed = self.failed * kept + failures as f64;
        self.seen = Some((requests, failed, now));
        ended > failures
    }

    /// Starts from nothing; what the totals were stays known.
    fn forget(&mut self) {
        self.requests = 0.0;
        self.failed = 0.0;
    }
}

impl Settings {
    /// How often the totals are to be looked at: a tenth of the interval, within 50 ms and 1 s.
    pub fn tick(&self) -> Duration {
        (self.interval / 10).clamp(TICK_MIN, TICK_MAX)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            gateway_errors: Some(5),
            server_errors: None,
            success_rate: Some(Comparison {
                deviations: 1.9,
                servers_min: 3,
                requests_min: 100,
            }),
            latency: Some(Comparison {
                deviations: 3.0,
                servers_min: 3,
                requests_min: 100,
            }),
            degrade: true,
            interval: Duration::from_secs(10),
            ejection: Duration::from_secs(30),
            ejection_max: Duration::from_secs(300),
            ejected_max: 50,
            half_open: 1,
        }
    }
}

impl Failure {
    /// Whether the server answered, if badly: what panic goes by.
    pub fn answers(self) -> bool {
        matches!(self, Self::Status(_) | Self::Malformed)
    }
}

impl Cause {
    /// The label of each cause in metrics.
    pub const LABELS: [&str; 4] = ["refused", "gateway_errors", "server_errors", "success_rate"];

    /// Its place in [`Cause::LABELS`]; past them, it is counted nowhere.
    pub fn label_index(&self) -> usize {
        match self {
            Self::Refused => 0,
            Self::Streak {
                streak: Streak::GatewayErrors,
                ..
            } => 1,
            Self::Streak {
                streak: Streak::ServerErrors,
                ..
            } => 2,
            Self::SuccessRate { .. } => 3,
            // Counted where it was seen.
            Self::Other { .. } => Self::LABELS.len(),
        }
    }

    /// Whether the server answered, if badly.
    pub fn answers(&self) -> bool {
        match self {
            Self::Refused => false,
            Self::Streak { last, .. } => last.answers(),
            Self::SuccessRate { .. } => true,
            Self::Other { answers } => *answers,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::ConnectTimeout => "connect timeout",
            Self::Handshake => "TLS handshake failed",
            Self::Closed => "connection closed without an answer",
            Self::Reset => "connection reset",
            Self::Timeout => "timeout",
            Self::Malformed => "an answer that cannot be read",
            Self::Status(status) => return status.fmt(f),
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Streak {
                streak,
                count,
                last,
            } => {
                let what = match streak {
                    Streak::GatewayErrors => "gateway errors",
                    Streak::ServerErrors => "server errors",
                };
                write!(f, "{count} {what} in a row, last: {last}")
            }
            Self::SuccessRate { failed, rest } => {
                write!(f, "{failed} % of requests failed, {rest} % at the rest")
            }
            Self::Other { .. } => f.write_str("failures that the process before this one saw"),
        }
    }
}

impl fmt::Display for Lessened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failing { failed, rest } => write!(
                f,
                "{}.{} % of requests failed, {}.{} % at the rest",
                failed / 10,
                failed % 10,
                rest / 10,
                rest % 10
            ),
            Self::Slow { latency, rest } => write!(
                f,
                "answers in {} ms on average, the rest in {} ms",
                latency.as_millis(),
                rest.as_millis()
            ),
            Self::Recovering => f.write_str("recovering"),
        }
    }
}

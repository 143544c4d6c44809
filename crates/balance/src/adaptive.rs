//! How many requests a server should hold at once, found from how its latency answers to them.
//!
//! It measures nothing and reads no clock: windows of traffic go in with `now`, the limit comes out. Enforcing it is
//! [`Server::acquire`](crate::Server::acquire)'s part.
//!
//! The limit follows the gradient of latency as Netflix's `Gradient2Limit` does (concurrency-limits; "Performance Under
//! Load", 2018): the latency that the server has without load, with a tolerance, over the latency that it has now. Like
//! Envoy's adaptive concurrency filter it measures that base now and then by letting fewer requests in, since a base that
//! is only averaged drifts up with the queues that it should find. The limit begins as TCP does (RFC 5681 §3.1: doubled
//! while nothing queues), and leaves a headroom of its square root, so that a limit that is too low is found out.
//!
//! Where latency is in proportion to what is beyond the server's capacity `n`, the limit settles a little above
//! `tolerance · n`, without swinging: each step goes half of the way.

use std::time::Duration;

/// The limit that a server begins with: as Netflix's.
const FIRST: f64 = 20.0;
/// The part of the way to the new limit that one window goes.
const STEP: f64 = 0.5;
/// A window takes at most this part off.
const FALL_MAX: f64 = 0.5;
/// What a window in which many requests failed leaves of the limit.
const AFTER_FAILURES: f64 = 0.9;
/// One failed request in so many is many.
const FAILED_PART: u64 = 10;
/// While the base is measured, this part of the limit is let in.
const MEASURED_PART: f64 = 0.5;
/// Windows that a measurement takes. The first has requests of before.
const MEASURED_WINDOWS: u32 = 3;
/// The first measurement comes after this; while bases change the next one does, too.
const MEASURE_SOON: Duration = Duration::from_secs(2);
/// A base that has changed by more than this part calls for another look.
const CHANGED: f64 = 0.1;
/// A limit that has fallen to less than this part of what it was may have done so for a base that is too low.
const FALLEN: f64 = 0.5;
/// The shortest window.
const WINDOW_MIN: Duration = Duration::from_millis(200);
/// Requests that a window has at least.
const REQUESTS_MIN: u64 = 10;

/// Bounds of the limit, and how it is found. Start from the default, and set what differs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Requests at once that are always let in; from 1.
    pub min: u32,
    /// Requests at once that are never passed; at least `min`.
    pub max: u32,
    /// By which part a server may be slower than without load: 0.25 is a quarter.
    pub tolerance: f64,
    /// How often the latency without load is measured, once it is known.
    pub measure_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            min: 3,
            max: 1000,
            tolerance: 0.25,
            measure_every: Duration::from_secs(30),
        }
    }
}

/// What a server's traffic showed since the window before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// The mean time to the response head.
    pub latency: Duration,
    /// Requests that ended.
    pub requests: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Requests at once, on average.
    pub in_use: f64,
}

/// The limit of one server.
#[derive(Debug, Clone, PartialEq)]
pub struct Adaptive {
    limit: f64,
    /// The highest limit since the base was measured.
    highest: f64,
    /// The latency without load, in nanoseconds; `None` until the first window.
    base: Option<f64>,
    phase: Phase,
    /// When the base is measured next, and what of [`Settings::measure_every`] this server waits, so that not all of a
    /// pool measure at once.
    measure_at: Duration,
    pause: Duration,
    spread: f64,
    /// When the last window was taken in, and how long its requests took.
    seen: Duration,
    latency: Duration,
}

/// What was found of one server, for another process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Requests that may be in use at once.
    pub limit: f64,
    /// The latency that the server has without load.
    pub base: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Doubles while nothing queues.
    Beginning,
    Steady,
    /// Lets fewer in, to see how fast the server is then.
    Measuring {
        windows_left: u32,
        best: f64,
        /// The limit to go back to.
        resume: f64,
    },
}

impl Adaptive {
    /// A server of which nothing is known. `spread`, from 0 to 1, should differ between the servers of a pool.
    pub fn new(settings: &Settings, spread: f64, now: Duration) -> Self {
        let spread = 0.75 + 0.5 * spread.clamp(0.0, 1.0);
        let mut adaptive = Self {
            limit: FIRST,
            highest: FIRST,
            base: None,
            phase: Phase::Beginning,
            measure_at: Duration::ZERO,
            pause: MEASURE_SOON,
            spread,
            seen: now,
            latency: Duration::ZERO,
        };
        adaptive.plan_measurement(now);
        adaptive.clamp(settings);
        adaptive
    }

    /// Requests that may be in use at once.
    pub fn limit(&self) -> u32 {
        // At most `Settings::max`, and never negative.
        self.limit as u32
    }

    /// The latency that the server has without load; `None` until that is known.
    pub fn base(&self) -> Option<Duration> {
        self.base.map(|nanos| Duration::from_nanos(nanos as u64))
    }

    /// Whether a window with so many requests can be judged by now: it has enough of them, and has lasted as long as
    /// those take that were let in by the limit in force.
    pub fn is_due(&self, requests: u64, now: Duration) -> bool {
        let length = now.saturating_sub(self.seen);
        requests >= REQUESTS_MIN && length >= WINDOW_MIN.max(self.latency)
    }

    /// When the last window was taken in.
    pub fn seen(&self) -> Duration {
        self.seen
    }

    /// What another process is to know; `None`: nothing was found yet.
    pub fn found(&self) -> Option<Found> {
        let limit = match self.phase {
            Phase::Measuring { resume, .. } => resume,
            Phase::Beginning | Phase::Steady => self.limit,
        };
        self.base().map(|base| Found { limit, base })
    }

    /// Goes on from what another process found. The base is measured again soon.
    pub fn resume(&mut self, found: Found, settings: &Settings) {
        let limit = found.limit;
        self.limit = if limit.is_finite() { limit } else { FIRST };
        self.base = Some((found.base.as_nanos() as f64).max(1.0));
        self.phase = Phase::Steady;
        self.clamp(settings);
        self.highest = self.limit;
    }

    /// Takes up other bounds.
    pub fn handle_settings(&mut self, settings: &Settings) {
        self.clamp(settings);
    }

    /// Takes in a window.
    pub fn handle_window(&mut self, window: &Window, settings: &Settings, now: Duration) {
        self.seen = now;
        self.latency = window.latency;
        let sample = (window.latency.as_nanos() as f64).max(1.0);
        let base = *self.base.get_or_insert(sample);
        if window.failed.saturating_mul(FAILED_PART) > window.requests {
            self.end_measurement();
            self.phase = Phase::Steady;
            self.limit *= AFTER_FAILURES;
        } else if let Phase::Measuring {
            windows_left,
            best,
            resume,
        } = self.phase
        {
            let is_first = windows_left == MEASURED_WINDOWS;
            let best = if is_first { best } else { best.min(sample) };
            self.phase = Phase::Measuring {
                windows_left: windows_left - 1,
                best,
                resume,
            };
            if windows_left == 1 {
                self.take_base(base, best, settings, now);
            }
        } else {
            self.follow(sample, base, window.in_use, settings);
            self.highest = self.highest.max(self.limit);
            if self.measure_at <= now || self.limit < self.highest * FALLEN {
                self.begin_measurement();
            }
        }
        self.clamp(settings);
    }

    /// One step of the gradient.
    fn follow(&mut self, sample: f64, base: f64, in_use: f64, settings: &Settings) {
        let is_used = in_use * 2.0 >= self.limit;
        let bearable = base * (1.0 + settings.tolerance);
        let headroom = self.limit.sqrt();
        if sample > bearable {
            // Something queues.
            let fallen = self.limit * (bearable / sample).max(FALL_MAX);
            let to = if is_used { fallen + headroom } else { fallen };
            self.limit += STEP * (to - self.limit);
            self.phase = Phase::Steady;
            return;
        }
        if sample < base {
            self.base = Some(base + STEP * (sample - base));
        }
        // A limit that nobody comes near says nothing by its latency.
        if is_used {
            self.limit += match self.phase {
                Phase::Beginning => self.limit,
                _ => STEP * headroom,
            };
        }
    }

    fn begin_measurement(&mut self) {
        self.phase = Phase::Measuring {
            windows_left: MEASURED_WINDOWS,
            best: f64::INFINITY,
            resume: self.limit,
        };
        self.limit *= MEASURED_PART;
    }

    fn end_measurement(&mut self) {
        if let Phase::Measuring { resume, .. } = self.phase {
            self.limit = resume;
            self.phase = Phase::Steady;
        }
    }

    /// A measurement is over.
    fn take_base(&mut self, before: f64, best: f64, settings: &Settings, now: Duration) {
        self.end_measurement();
        self.base = Some(best);
        self.highest = self.limit;
        self.pause = if (best - before).abs() > before * CHANGED {
            MEASURE_SOON
        } else {
            (self.pause * 2).min(settings.measure_every)
        };
        self.plan_measurement(now);
    }

    fn plan_measurement(&mut self, now: Duration) {
        self.measure_at = now.saturating_add(self.pause.mul_f64(self.spread));
    }

    fn clamp(&mut self, settings: &Settings) {
        let min = f64::from(settings.min.max(1));
        let max = f64::from(settings.max).max(min);
        self.limit = self.limit.clamp(min, max);
        if let Phase::Measuring { resume, .. } = &mut self.phase {
            *resume = resume.clamp(min, max);
        }
    }
}

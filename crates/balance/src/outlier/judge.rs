//! Each server against the rest of its pool.
//!
//! A server is compared with the others only, never with a mean that it is part of: among three servers no member of
//! a set can be more than 1.2 standard deviations of that set away, however bad it is. Where the others are so few or
//! so alike that their deviation says nothing, a floor takes its place.

use std::time::Duration;

use super::{Cause, Comparison, Lessened, Outlier, Settings};
use crate::share::Share;

/// With fewer requests of late than this, failures are taken as a part of this many: little is known.
const REQUESTS_ENOUGH: f64 = 20.0;
/// One failure of late says nothing.
const FAILURES_FREE: f64 = 1.0;
/// The success rate of a server that is ejected for it is at least this much below that of the rest: below this
/// difference it is degraded, which is enough.
const GAP_TO_EJECT: f64 = 0.5;
/// The share falls with this power of the success rate: at 15 % of failures a server gets half.
const SHARE_POWER: i32 = 4;
/// A slow server keeps at least this share: it may be its requests that are slow.
const SLOW_SHARE_MIN: f64 = 0.25;
/// The standard deviation of latencies is taken as at least this part of their mean.
const LATENCY_DEVIATION_MIN: f64 = 1.0 / 3.0;
/// And a slow server is slower than the rest by at least this many seconds.
const LATENCY_GAP_MIN: f64 = 0.05;
/// A share moves only if what it should be is this many sixteenths away, so that it does not flap.
const SIXTEENTHS_TO_MOVE: f64 = 0.75;

/// One server to be judged.
#[derive(Debug)]
pub struct Subject<'a> {
    /// What is known of it.
    pub outlier: &'a mut Outlier,
    /// Whether it takes traffic: ready, of a weight above 0, not down.
    pub serves: bool,
    /// Its average latency; zero if never measured.
    pub latency: Duration,
}

/// What one comparison needs of the rest.
struct Rest {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Rest {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut all = Self {
            count: 0.0,
            sum: 0.0,
            squares: 0.0,
        };
        for value in values {
            all.count += 1.0;
            all.sum += value;
            all.squares += value * value;
        }
        all
    }

    /// Mean and standard deviation of all but `own`.
    fn without(&self, own: f64) -> (f64, f64) {
        let count = (self.count - 1.0).max(1.0);
        let mean = (self.sum - own) / count;
        let variance = (self.squares - own * own) / count - mean * mean;
        (mean, variance.max(0.0).sqrt())
    }
}

/// Judges every server by what came since it was last asked: sets shares, and gives the positions of those to be
/// ejected, with the cause. Linear in the number of servers. True if a share changed.
pub fn judge(subjects: &mut [Subject<'_>], settings: &Settings) -> (bool, Vec<(usize, Cause)>) {
    let ejections = settings
        .success_rate
        .map(|comparison| compare_success(subjects, comparison))
        .unwrap_or_default();
    let latencies = settings
        .latency
        .map(|comparison| Rest::of(measured(subjects, comparison).map(|(_, latency)| latency)));
    let (requests, failed) =
        subjects
            .iter()
            .filter(|it| it.compares())
            .fold((0.0, 0.0), |(requests, failed), it| {
                let window = &it.outlier.window;
                (requests + window.requests, failed + window.failed)
            });
    let several = subjects.iter().filter(|it| it.compares()).count() > 1;
    let mut changed = false;
    for subject in subjects.iter_mut().filter(|it| it.compares()) {
        let mut target = 1.0;
        let mut lessened = None;
        if settings.degrade && several {
            let window = &subject.outlier.window;
            let own = rate(window.failed, window.requests);
            let rest = rate(failed - window.failed, requests - window.requests);
            let excess = (own - rest).clamp(0.0, 1.0);
            target = (1.0 - excess).powi(SHARE_POWER);
            lessened = Some(Lessened::Failing {
                failed: tenths(own),
                rest: tenths(rest),
            });
        }
        if let (Some(comparison), Some(all)) = (settings.latency, &latencies)
            && let Some((part, rest)) = slow_part(subject, comparison, all)
            && part < target
        {
            target = part;
            lessened = Some(Lessened::Slow {
                latency: subject.latency,
                rest,
            });
        }
        changed |= subject.outlier.move_share(target, lessened);
    }
    (changed, ejections)
}

impl Subject<'_> {
    /// Whether it counts among those that are compared.
    fn compares(&self) -> bool {
        self.serves && self.outlier.ejection.is_none()
    }
}

impl Outlier {
    /// One step towards `target`: at most to a half on the way down, a sixteenth on the way up.
    fn move_share(&mut self, target: f64, lessened: Option<Lessened>) -> bool {
        let now = self.share.factor() * 16.0;
        // What rounds to all of it is all of it: the last step must not be too small to be taken.
        let wanted = if target * 16.0 >= 15.5 {
            16.0
        } else {
            target * 16.0
        };
        let next = if (wanted - now).abs() < SIXTEENTHS_TO_MOVE {
            now
        } else if wanted < now {
            wanted.max(now / 2.0)
        } else {
            wanted.min(now + 1.0)
        };
        let before = self.share;
        self.share = Share::new(next / 16.0);
        self.lessened = if self.share.is_full() {
            None
        } else if wanted > now {
            Some(Lessened::Recovering)
        } else if self.share < before || self.lessened.is_none() {
            lessened
        } else {
            self.lessened
        };
        self.share != before
    }
}

/// The part of requests that failed, as far as is known.
fn rate(failed: f64, requests: f64) -> f64 {
    ((failed - FAILURES_FREE) / requests.max(REQUESTS_ENOUGH)).clamp(0.0, 1.0)
}

fn tenths(rate: f64) -> u32 {
    (rate * 1000.0).round() as u32
}

fn compare_success(subjects: &[Subject<'_>], comparison: Comparison) -> Vec<(usize, Cause)> {
    let rates: Vec<(usize, f64)> = subjects
        .iter()
        .enumerate()
        .filter(|(_, it)| it.has_requests(comparison))
        .map(|(index, it)| (index, it.outlier.window.failed / it.outlier.window.requests))
        .collect();
    if rates.len() < comparison.servers_min.max(2) as usize {
        return Vec::new();
    }
    let all = Rest::of(rates.iter().map(|(_, rate)| *rate));
    rates
        .into_iter()
        .filter_map(|(index, rate)| {
            let (mean, deviation) = all.without(rate);
            let far = (comparison.deviations * deviation).max(GAP_TO_EJECT);
            (rate - mean >= far).then(|| {
                let percent = |rate: f64| (rate * 100.0).round() as u32;
                let cause = Cause::SuccessRate {
                    failed: percent(rate),
                    rest: percent(mean),
                };
                (index, cause)
            })
        })
        .collect()
}

impl Subject<'_> {
    fn has_requests(&self, comparison: Comparison) -> bool {
        self.compares() && self.outlier.window.requests >= f64::from(comparison.requests_min.max(1))
    }
}

/// Positions and latencies in seconds of those that answered often enough.
fn measured<'a>(
    subjects: &'a [Subject<'_>],
    comparison: Comparison,
) -> impl Iterator<Item = (usize, f64)> + 'a {
    subjects
        .iter()
        .enumerate()
        .filter(move |(_, it)| it.has_requests(comparison) && !it.latency.is_zero())
        .map(|(index, it)| (index, it.latency.as_secs_f64()))
}

/// The share of a server that is much slower than the rest, and their mean.
fn slow_part(subject: &Subject<'_>, comparison: Comparison, all: &Rest) -> Option<(f64, Duration)> {
    let own = subject.latency.as_secs_f64();
    if !subject.has_requests(comparison)
        || own == 0.0
        || all.count < f64::from(comparison.servers_min.max(2))
    {
        return None;
    }
    let (mean, deviation) = all.without(own);
    let deviation = deviation.max(mean * LATENCY_DEVIATION_MIN);
    let limit = mean + (comparison.deviations * deviation).max(LATENCY_GAP_MIN);
    (own > limit).then(|| {
        (
            (limit / own).max(SLOW_SHARE_MIN),
            Duration::from_secs_f64(mean.max(0.0)),
        )
    })
}

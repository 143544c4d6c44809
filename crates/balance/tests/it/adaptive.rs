//! A limit that follows latency: played against a server whose queue is known.

use std::fmt::Write as _;
use std::time::Duration;

use evenkeel_balance::adaptive::{Adaptive, Settings, Window};
use proptest::prelude::*;

const TICK: Duration = Duration::from_millis(250);

/// A server that works on `capacity` requests at once, each for `base`; what is beyond waits in it.
#[derive(Clone, Copy)]
struct Model {
    base: Duration,
    capacity: f64,
    /// Requests at once that clients would make.
    demand: f64,
}

struct Play {
    settings: Settings,
    adaptive: Adaptive,
    now: Duration,
}

impl Play {
    fn new(settings: Settings) -> Self {
        let adaptive = Adaptive::new(&settings, 0.5, Duration::ZERO);
        Self {
            settings,
            adaptive,
            now: Duration::ZERO,
        }
    }

    /// Plays so many seconds; the limits after each window.
    fn run(&mut self, model: Model, seconds: u64) -> Vec<u32> {
        let mut limits = Vec::new();
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.now += TICK;
            let in_use = model.demand.min(f64::from(self.adaptive.limit()));
            let latency = model.base.mul_f64((in_use / model.capacity).max(1.0));
            let rate = in_use / latency.as_secs_f64();
            let length = self.now - self.adaptive.seen();
            let requests = (rate * length.as_secs_f64()) as u64;
            if self.adaptive.is_due(requests, self.now) {
                let window = Window {
                    latency,
                    requests,
                    failed: 0,
                    in_use,
                };
                self.adaptive
                    .handle_window(&window, &self.settings, self.now);
            }
            limits.push(self.adaptive.limit());
        }
        limits
    }
}

const MILLI: Duration = Duration::from_millis(1);

fn model(base_ms: u32, capacity: f64, demand: f64) -> Model {
    Model {
        base: MILLI * base_ms,
        capacity,
        demand,
    }
}

/// The typical limit: measurements, which halve it for a moment, are few.
fn median(limits: &[u32]) -> u32 {
    let mut sorted = limits.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

fn within(limit: u32, expected: std::ops::RangeInclusive<u32>, story: &str) {
    assert!(expected.contains(&limit), "{story}: {limit}, {expected:?}");
}

#[test]
fn it_rises_while_nothing_queues_and_stays_where_nobody_comes() {
    let mut play = Play::new(Settings::default());
    let limits = play.run(model(10, 1e9, 1e9), 10);
    assert_eq!(limits.last(), Some(&1000), "{limits:?}");
    let mut play = Play::new(Settings::default());
    let limits = play.run(model(10, 1e9, 4.0), 10);
    assert!(limits.iter().all(|limit| *limit <= 20), "{limits:?}");
}

#[test]
fn it_settles_near_what_the_server_can_do() {
    for (capacity, expected) in [
        (4.0, 4..=12),
        (10.0, 10..=22),
        (50.0, 50..=85),
        (200.0, 200..=300),
    ] {
        let mut play = Play::new(Settings::default());
        play.run(model(10, capacity, 1e9), 60);
        let limits = play.run(model(10, capacity, 1e9), 60);
        within(median(&limits), expected, &format!("{capacity}"));
    }
}

#[test]
fn it_falls_when_latency_doubles_and_comes_back() {
    let mut play = Play::new(Settings::default());
    let before = median(&play.run(model(10, 100.0, 1e9), 120)[80..]);
    // Half of the server's capacity is gone.
    let fallen = median(&play.run(model(10, 50.0, 1e9), 30)[40..]);
    assert!(fallen * 4 < before * 3, "{before} -> {fallen}");
    let back = median(&play.run(model(10, 100.0, 1e9), 60)[120..]);
    within(back, before * 4 / 5..=before * 6 / 5, "back");
    // It has become slower for good, with the same capacity: after a while that is its pace.
    let slower = play.run(model(20, 100.0, 1e9), 120);
    assert!(
        slower[..20].iter().min() < Some(&(before * 3 / 4)),
        "{slower:?}"
    );
    let slower = median(&slower[400..]);
    within(slower, before * 4 / 5..=before * 6 / 5, "slower");
}

#[test]
fn it_does_not_swing() {
    for capacity in [5.0, 30.0, 300.0] {
        let mut play = Play::new(Settings::default());
        play.run(model(20, capacity, 1e9), 120);
        let limits = play.run(model(20, capacity, 1e9), 120);
        let typical = median(&limits);
        let away = limits
            .iter()
            .filter(|limit| limit.abs_diff(typical) > typical / 5 + 1)
            .count();
        // Measurements aside, which take three windows of 120 and what follows them.
        assert!(
            away * 10 <= limits.len(),
            "{capacity}: {away} of {}: {limits:?}",
            limits.len()
        );
    }
}

#[test]
fn a_server_that_fails_gets_less() {
    let settings = Settings::default();
    let mut adaptive = Adaptive::new(&settings, 0.0, Duration::ZERO);
    let mut now = Duration::ZERO;
    let mut window = Window {
        latency: MILLI,
        requests: 100,
        failed: 11,
        in_use: 100.0,
    };
    for _ in 0..100 {
        now += TICK;
        adaptive.handle_window(&window, &settings, now);
    }
    assert_eq!(adaptive.limit(), settings.min);
    window.failed = 10;
    for _ in 0..100 {
        now += TICK;
        adaptive.handle_window(&window, &settings, now);
    }
    assert!(adaptive.limit() > 20, "{}", adaptive.limit());
}

#[test]
fn other_bounds_hold_at_once() {
    let mut settings = Settings::default();
    let mut adaptive = Adaptive::new(&settings, 0.0, Duration::ZERO);
    settings.max = 5;
    adaptive.handle_settings(&settings);
    assert_eq!(adaptive.limit(), 5);
    (settings.min, settings.max) = (30, 40);
    adaptive.handle_settings(&settings);
    assert_eq!(adaptive.limit(), 30);
}

/// What the limit does, second by second, for the page that explains it.
#[test]
fn the_table_of_the_docs_is_current() {
    let steps = [
        (
            "a server that works on 10 at once, 10 ms each",
            10,
            10.0,
            [1, 10, 30],
        ),
        ("it works on 5 at once", 10, 5.0, [31, 33, 60]),
        ("it works on 10 again", 10, 10.0, [61, 63, 90]),
        ("each takes 20 ms", 20, 10.0, [91, 98, 150]),
    ];
    let mut play = Play::new(Settings::default());
    let mut seconds = 0;
    let mut table =
        String::from("| second | what happens | limit | latency |\n| --- | --- | --- | --- |\n");
    for (what, base, capacity, at) in steps {
        for second in at {
            let model = model(base, capacity, 1e9);
            play.run(model, second - seconds);
            seconds = second;
            let limit = play.adaptive.limit();
            let latency = f64::from(base) * (f64::from(limit) / capacity).max(1.0);
            let _ = writeln!(table, "| {second} | {what} | {limit} | {latency:.0} ms |");
        }
    }
    let page = include_str!("../../../../docs/limits.md");
    assert!(
        page.contains(&table),
        "docs/limits.md should have:\n{table}"
    );
}

proptest! {
    #[test]
    fn it_keeps_to_its_bounds_whatever_comes(
        (min, max) in (1_u32..50, 50_u32..2000),
        tolerance in 0.0..2.0_f64,
        windows in prop::collection::vec(
            (0_u64..u64::MAX, 0_u64..1000, 0_u64..1000, 0.0..1e12_f64, 0_u64..100_000),
            0..200,
        ),
    ) {
        let mut settings = Settings::default();
        (settings.min, settings.max, settings.tolerance) = (min, max, tolerance);
        let mut adaptive = Adaptive::new(&settings, 0.3, Duration::ZERO);
        let mut now = Duration::ZERO;
        for (nanos, requests, failed, in_use, passed) in windows {
            now += Duration::from_millis(passed);
            let latency = Duration::from_nanos(nanos);
            let window = Window { latency, requests, failed, in_use };
            adaptive.handle_window(&window, &settings, now);
            prop_assert!((min..=max).contains(&adaptive.limit()), "{}", adaptive.limit());
        }
    }

    /// The same latency whatever is let in: the server is not what limits, so the limit never falls below where it began.
    #[test]
    fn flat_latency_never_lowers_it(micros in 1_u64..1_000_000, demand in 1.0..5000.0_f64) {
        let mut play = Play::new(Settings::default());
        let model = Model { base: Duration::from_micros(micros), capacity: 1e12, demand };
        let limits = play.run(model, 40);
        // Half of it for the moment of a measurement.
        prop_assert!(limits.iter().all(|limit| *limit >= 10), "{limits:?}");
    }
}

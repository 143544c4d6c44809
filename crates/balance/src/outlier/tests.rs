//! Stories of servers in time; what holds for any.

use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn seconds(count: u64) -> Duration {
    SECOND * count as u32
}

fn row(last: Failure) -> Cause {
    Cause::Streak {
        streak: Streak::GatewayErrors,
        count: 5,
        last,
    }
}

/// A pool whose traffic is told second by second.
struct Story {
    settings: Settings,
    now: Duration,
    servers: Vec<(Outlier, f64, f64)>,
    latencies: Vec<Duration>,
}

impl Story {
    fn new(count: usize) -> Self {
        Self {
            settings: Settings::default(),
            now: Duration::ZERO,
            servers: vec![(Outlier::new(Duration::ZERO), 0.0, 0.0); count],
            latencies: vec![Duration::from_millis(10); count],
        }
    }

    /// `rate` requests a second for the whole pool, shared by weight; each server fails this part of its own.
    fn pass(&mut self, count: u32, rate: f64, failing: &[f64]) -> Vec<(usize, Cause)> {
        let mut ejected = Vec::new();
        for _ in 0..count {
            self.now += SECOND;
            let total: f64 = self
                .servers
                .iter()
                .map(|(it, ..)| it.share().factor())
                .sum();
            for ((outlier, requests, failed), part) in self.servers.iter_mut().zip(failing) {
                let own = rate * outlier.share().factor() / total;
                *requests += own;
                *failed += own * part;
                outlier.handle_totals(*requests as u64, *failed as u64, self.now, &self.settings);
            }
            let mut subjects: Vec<_> = self
                .servers
                .iter_mut()
                .zip(&self.latencies)
                .map(|((outlier, ..), latency)| Subject {
                    outlier,
                    serves: true,
                    latency: *latency,
                })
                .collect();
            ejected.extend(judge(&mut subjects, &self.settings).1);
        }
        ejected
    }

    fn sixteenths(&self) -> Vec<u32> {
        self.servers
            .iter()
            .map(|(it, ..)| (it.share().factor() * 16.0).round() as u32)
            .collect()
    }
}

#[test]
fn rare_errors_are_health_and_some_cost_weight() {
    for (failing, low, high) in [
        (0.0, 16, 16),
        (0.001, 16, 16),
        (0.005, 16, 16),
        (0.05, 12, 14),
        (0.15, 7, 9),
        (0.30, 3, 5),
    ] {
        let mut story = Story::new(3);
        assert_eq!(story.pass(60, 300.0, &[0.0, failing, 0.0]), []);
        let found = story.sixteenths();
        assert!((low..=high).contains(&found[1]), "{failing}: {found:?}");
        assert_eq!((found[0], found[2]), (16, 16), "{failing}");
    }
}

#[test]
fn what_all_suffer_is_nobodys_fault() {
    let mut story = Story::new(3);
    assert_eq!(story.pass(60, 300.0, &[0.5; 3]), []);
    assert_eq!(story.sixteenths(), [16; 3]);
}

#[test]
fn a_share_falls_within_seconds_and_grows_back_step_by_step() {
    let mut story = Story::new(3);
    story.pass(30, 300.0, &[0.0; 3]);
    story.pass(5, 300.0, &[0.3, 0.0, 0.0]);
    let low = story.sixteenths()[0];
    assert!(low < 13, "{low}");
    story.pass(30, 300.0, &[0.3, 0.0, 0.0]);
    let mut before = story.sixteenths()[0];
    assert!(before <= 5, "{before}");
    for _ in 0..60 {
        story.pass(1, 300.0, &[0.0; 3]);
        let now = story.sixteenths()[0];
        assert!((before..=before + 1).contains(&now), "{before} -> {now}");
        before = now;
    }
    assert_eq!(before, 16);
    assert!(story.servers[0].0.lessened().is_none());
}

#[test]
fn steady_errors_give_a_steady_share() {
    let mut story = Story::new(3);
    story.pass(60, 300.0, &[0.15, 0.0, 0.0]);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..120 {
        story.pass(1, 300.0, &[0.15, 0.0, 0.0]);
        seen.insert(story.sixteenths()[0]);
    }
    assert!(seen.len() <= 2, "flaps: {seen:?}");
}

#[test]
fn one_failure_of_few_requests_says_nothing() {
    let mut story = Story::new(2);
    story.pass(20, 2.0, &[0.0; 2]);
    story.servers[0].2 += 1.0;
    story.pass(1, 2.0, &[0.0; 2]);
    assert_eq!(story.sixteenths(), [16; 2]);
}

#[test]
fn who_fails_most_of_its_requests_is_ejected_even_of_three() {
    let mut story = Story::new(3);
    story.pass(30, 300.0, &[0.0; 3]);
    let ejected = story.pass(30, 300.0, &[0.8, 0.0, 0.01]);
    assert!(
        matches!(ejected.first(), Some((0, Cause::SuccessRate { .. }))),
        "{ejected:?}"
    );
    assert!(ejected.iter().all(|(index, _)| *index == 0));
}

#[test]
fn a_much_slower_server_gets_less_but_not_little() {
    let mut story = Story::new(3);
    story.latencies[2] = Duration::from_millis(15);
    story.pass(60, 300.0, &[0.0; 3]);
    assert_eq!(story.sixteenths(), [16; 3]);
    story.latencies[2] = Duration::from_secs(5);
    story.pass(60, 300.0, &[0.0; 3]);
    assert_eq!(story.sixteenths(), [16, 16, 4]);
    let cause = story.servers[2].0.lessened().unwrap().to_string();
    assert_eq!(cause, "answers in 5000 ms on average, the rest in 10 ms");
}

#[test]
fn ejections_grow_and_time_in_service_forgives() {
    let settings = Settings::default();
    let mut outlier = Outlier::new(Duration::ZERO);
    let mut now = seconds(100);
    let mut lengths = Vec::new();
    for _ in 0..12 {
        assert!(outlier.handle_ejection(row(Failure::Status(503)), &settings, now));
        assert!(!outlier.handle_ejection(Cause::Refused, &settings, now));
        let until = outlier.ejection().unwrap().until;
        lengths.push((until - now).as_secs());
        assert!(!outlier.handle_timeout(until - SECOND));
        assert!(outlier.handle_timeout(until));
        assert_eq!(outlier.share(), Share::MIN);
        now = until + SECOND;
    }
    assert_eq!(
        lengths,
        [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]
    );
    // Three times thirty seconds in service forgive three of the twelve; 330 s are 300 at most.
    now += seconds(12 * 30);
    assert!(outlier.handle_ejection(row(Failure::Reset), &settings, now));
    assert_eq!(outlier.ejection().unwrap().until, now + seconds(30));
}

#[test]
fn a_refused_connection_is_tried_again_soon() {
    let mut outlier = Outlier::new(Duration::ZERO);
    outlier.handle_ejection(Cause::Refused, &Settings::default(), SECOND);
    assert_eq!(outlier.ejection().unwrap().until, seconds(4));
    assert!(outlier.forgive(seconds(2)));
    assert!(outlier.ejection().is_none());
    assert!(!outlier.forgive(seconds(2)));
}

#[test]
fn a_cause_is_told_in_words() {
    for (cause, text) in [
        (
            row(Failure::Status(503)),
            "5 gateway errors in a row, last: 503",
        ),
        (
            Cause::Streak {
                streak: Streak::ServerErrors,
                count: 3,
                last: Failure::Timeout,
            },
            "3 server errors in a row, last: timeout",
        ),
        (
            Cause::SuccessRate {
                failed: 70,
                rest: 1,
            },
            "70 % of requests failed, 1 % at the rest",
        ),
    ] {
        assert_eq!(cause.to_string(), text);
    }
}

proptest! {
    /// Shares keep within their bounds and move at most as told; a server that is ejected is not judged.
    #[test]
    fn shares_keep_their_bounds(
        count in 1_usize..12,
        steps in prop::collection::vec((0.0..500.0_f64, prop::collection::vec(0.0..1.0_f64, 12)), 1..60),
    ) {
        let mut story = Story::new(count);
        for (rate, failing) in steps {
            let before = story.sixteenths();
            let ejected = story.pass(1, rate, &failing[..count]);
            for (before, after) in before.iter().zip(story.sixteenths()) {
                prop_assert!((1..=16).contains(&after));
                prop_assert!(after <= before + 1 && after * 2 + 1 >= *before);
            }
            for (index, cause) in ejected {
                let settings = story.settings.clone();
                let now = story.now;
                prop_assert!(story.servers[index].0.handle_ejection(cause, &settings, now));
                let until = story.servers[index].0.ejection().unwrap().until;
                prop_assert!(until > now && until <= now + settings.ejection_max);
            }
            if count == 1 {
                prop_assert_eq!(story.sixteenths(), vec![16]);
            }
        }
    }
}

//! Scenarios of one server's health.

use super::*;

const START: Duration = Duration::from_secs(100);

fn bad_status() -> Cause {
    Cause::Status {
        status: 503,
        expected: "200-299".into(),
    }
}

/// Plays events a second apart: `s`uccess, `b`ad status, `t`imeout, `r`efused probe, `X` real
/// traffic refused. After each the verdict is `h`ealthy, `-` (unhealthy) or `?`, as `expected` has
/// it.
fn check(initial: Verdict, events: &str, expected: &str) {
    let mut health = Health::new(Thresholds::default(), initial, START);
    let mut now = START;
    let mut verdicts = String::new();
    for event in events.chars() {
        now += Duration::from_secs(1);
        let before = health.verdict();
        let transition = match event {
            's' => health.handle_outcome(Outcome::Success, now),
            'b' => health.handle_outcome(Outcome::Failure(bad_status()), now),
            't' => {
                let after = Duration::from_secs(5);
                health.handle_outcome(Outcome::Failure(Cause::TimedOut { after }), now)
            }
            'r' => health.handle_outcome(Outcome::Failure(Cause::Refused), now),
            _ => health.handle_refused(now),
        };
        let told = transition.map(|it| (it.from, it.to));
        let changed = (before != health.verdict()).then(|| (before, health.verdict()));
        assert_eq!(told, changed, "{events} at {event}");
        assert_eq!(
            health.answers(),
            matches!(event, 's' | 'b'),
            "{events} at {event}"
        );
        verdicts.push(match health.verdict() {
            Verdict::Healthy => 'h',
            Verdict::Unhealthy => '-',
            Verdict::Unknown => '?',
        });
    }
    assert_eq!(verdicts, expected, "{initial} {events}");
}

#[test]
fn verdicts_follow_the_thresholds() {
    check(Verdict::Unknown, "s", "h");
    check(Verdict::Unknown, "rrr", "??-");
    check(Verdict::Unknown, "rrs", "??h");
    check(Verdict::Unknown, "rtbss", "??--h");
    check(Verdict::Healthy, "rrs", "hhh");
    check(Verdict::Healthy, "rrsrrr", "hhhhh-");
    check(Verdict::Unhealthy, "ss", "-h");
    check(Verdict::Unhealthy, "sbss", "---h");
    check(Verdict::Healthy, "bbbbsbss", "hh-----h");
}

#[test]
fn refused_by_real_traffic_is_out_at_once_until_a_probe_succeeds() {
    check(Verdict::Healthy, "sXs", "h-h");
    check(Verdict::Unknown, "Xs", "-h");
    check(Verdict::Healthy, "Xrrs", "---h");
    check(Verdict::Healthy, "Xrrrss", "-----h");
    check(Verdict::Healthy, "bbbXss", "hh---h");
}

fn seconds(from: f64, to: f64) -> (Duration, Duration) {
    (
        START + Duration::from_secs_f64(from),
        START + Duration::from_secs_f64(to),
    )
}

/// The next probe is due within `range`, and the numbers reach both of its ends.
fn check_due(health: &Health, range: (Duration, Duration)) {
    let (first, last) = (health.poll_next_probe(0), health.poll_next_probe(u64::MAX));
    let slack = Duration::from_millis(1);
    assert!(first.abs_diff(range.0) < slack, "{first:?} {range:?}");
    assert!(last.abs_diff(range.1) < slack, "{last:?} {range:?}");
}

#[test]
fn probes_are_staggered_jittered_and_faster_while_unknown_or_down() {
    for initial in [Verdict::Unknown, Verdict::Healthy, Verdict::Unhealthy] {
        check_due(
            &Health::new(Thresholds::default(), initial, START),
            seconds(0.0, 0.2),
        );
    }
    let mut health = Health::new(Thresholds::default(), Verdict::Unknown, START);
    let mut probe = |outcome, range| {
        health.handle_outcome(outcome, START);
        check_due(&health, range);
    };
    probe(Outcome::Failure(Cause::Closed), seconds(1.8, 2.2));
    probe(Outcome::Success, seconds(9.0, 11.0));
    probe(Outcome::Failure(Cause::Closed), seconds(9.0, 11.0));
    probe(Outcome::Failure(Cause::Closed), seconds(9.0, 11.0));
    probe(Outcome::Failure(Cause::Closed), seconds(1.8, 2.2));
    probe(Outcome::Success, seconds(1.8, 2.2));
    probe(Outcome::Success, seconds(9.0, 11.0));

    let mut health = Health::new(Thresholds::default(), Verdict::Unknown, START);
    health.handle_outcome(Outcome::Success, START);
    check_due(&health, seconds(1.0, 10.0));
    health.handle_refused(START + Duration::from_secs(1));
    check_due(&health, seconds(2.8, 3.2));

    let thresholds = Thresholds {
        interval: Duration::from_secs(1),
        ..Thresholds::default()
    };
    health.set_thresholds(thresholds);
    check_due(&health, seconds(1.9, 2.1));
}

#[test]
fn thresholds_may_change_while_a_server_is_down() {
    let mut health = Health::new(Thresholds::default(), Verdict::Unhealthy, START);
    health.set_thresholds(Thresholds {
        healthy: 3,
        ..Thresholds::default()
    });
    let verdicts = [0, 1, 2].map(|_| {
        health.handle_outcome(Outcome::Success, START);
        health.verdict()
    });
    assert_eq!(
        verdicts,
        [Verdict::Unhealthy, Verdict::Unhealthy, Verdict::Healthy]
    );
}

#[test]
fn causes_read_as_sentences() {
    let timed_out = |millis| Cause::TimedOut {
        after: Duration::from_millis(millis),
    };
    for (cause, words) in [
        (bad_status(), "503 where 200-299 was expected"),
        (timed_out(5000), "timeout after 5 s"),
        (timed_out(1500), "timeout after 1500 ms"),
        (Cause::Refused, "connection refused"),
        (
            Cause::Body {
                expected: "ok".into(),
            },
            "a body without \"ok\"",
        ),
        (Cause::Failed("no route to host".into()), "no route to host"),
    ] {
        assert_eq!(cause.to_string(), words);
    }
    let mut health = Health::new(Thresholds::default(), Verdict::Healthy, START);
    let told = health.handle_refused(START).map(|it| it.to_string());
    assert_eq!(
        told.as_deref(),
        Some("healthy -> unhealthy: connection refused")
    );
    assert_eq!(health.cause(), Some(&Cause::Refused));
    let told = health
        .handle_outcome(Outcome::Success, START)
        .map(|it| it.to_string());
    assert_eq!(told.as_deref(), Some("unhealthy -> healthy"));
    assert_eq!(health.cause(), None);
}

#[test]
fn a_server_resumed_is_probed_when_it_was_due_and_needs_what_it_needed() {
    let second = Duration::from_secs(1);
    let mut health = Health::new(Thresholds::default(), Verdict::Unknown, second * 50);
    health.resume(Verdict::Healthy, true, None, second * 45);
    assert_eq!(health.verdict(), Verdict::Healthy);
    for random in [0, u64::MAX / 2, u64::MAX] {
        let due = health.poll_next_probe(random);
        assert!(due >= second * 54 && due <= second * 56, "{due:?}");
    }
    health.resume(Verdict::Unhealthy, false, Some(Cause::Refused), second * 49);
    assert!(health.poll_next_probe(0) < second * 51);
    assert!(
        health
            .handle_outcome(Outcome::Success, second * 51)
            .is_none()
    );
    assert!(
        health
            .handle_outcome(Outcome::Success, second * 53)
            .is_some()
    );
}

//! What real traffic does to servers: ejections, lessened weights, panic.

use balance::outlier::{Failure, Streak};

use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A pool of so many servers, `a`, `b`, ….
pub(super) fn pool(count: usize, settings: &str) -> String {
    let servers: Vec<_> = NAMES[..count]
        .iter()
        .enumerate()
        .map(|(at, name)| format!("{{ name: {name}, address: '10.0.0.{at}:80' }}"))
        .collect();
    site(&format!("servers: [{}], {settings}", servers.join(", ")))
}

impl Scene {
    /// So many failures of real traffic in a row, as a worker sees them.
    pub(super) fn fail(&mut self, server: &str, count: usize, last: Failure) {
        let member = self.member(server);
        for _ in 0..count {
            self.count(server, 0, 1);
            if let Some(streak) = member.note_failure(true) {
                let member = member.id;
                self.event(Event::Failing {
                    member,
                    streak,
                    last,
                });
            }
        }
        // Views are built at most every 10 ms.
        self.pass(20);
    }

    /// Counts answers and failures as a worker does.
    pub(super) fn count(&mut self, server: &str, good: u64, bad: u64) {
        let member = self.member(server);
        let cells = member.stats.of(1);
        for status in std::iter::repeat_n(200, good as usize) {
            cells.classes.record(status);
        }
        for _ in 0..bad {
            cells.classes.record(503);
            cells.failed.increment();
        }
    }

    pub(super) fn health(&self, server: &str) -> String {
        let view = self.view();
        let mut standings = view.standings.iter();
        let found = standings.find(|it| *it.member.name == *server).unwrap();
        format!("{}: {}", found.condition, found.cause)
    }

    pub(super) fn sixteenths(&self, server: &str) -> u32 {
        let view = self.view();
        let mut standings = view.standings.iter();
        let found = standings.find(|it| *it.member.name == *server).unwrap();
        (found.share.factor() * 16.0).round() as u32
    }
}

#[test]
fn five_in_a_row_eject_for_thirty_seconds() {
    let mut scene = Scene::running(&pool(3, ""));
    scene.pass(100);
    scene.log.clear();
    scene.fail("a", 4, Failure::Status(503));
    assert_eq!(scene.usable(), ["a", "b", "c"]);
    scene.fail("a", 1, Failure::Status(503));
    assert_eq!(scene.usable(), ["b", "c"]);
    assert_eq!(
        scene.health("a"),
        "ejected: 5 gateway errors in a row, last: 503"
    );
    // Its probes succeed all the while.
    scene.pass(29_000);
    assert_eq!(scene.usable(), ["b", "c"]);
    scene.pass(2500);
    assert_eq!(scene.usable(), ["a", "b", "c"]);
    assert!(scene.sixteenths("a") < 4, "it begins with little");
    scene.pass(20_000);
    assert_eq!(scene.sixteenths("a"), 16);
    assert_eq!(
        scene.log,
        [
            "a: healthy -> ejected, 5 gateway errors in a row, last: 503; back in 30 s",
            "a: ejected -> degraded, the ejection is over; its traffic grows",
            "a: degraded -> healthy, recovered",
        ]
    );
}

#[test]
fn on_its_return_the_first_failure_ejects_for_longer() {
    let mut scene = Scene::running(&pool(3, "health_check: off"));
    scene.fail("a", 5, Failure::Timeout);
    scene.pass(31_000);
    assert_eq!(scene.usable(), ["a", "b", "c"]);
    scene.fail("a", 1, Failure::Timeout);
    assert_eq!(scene.usable(), ["b", "c"]);
    scene.pass(58_000);
    assert_eq!(scene.usable(), ["b", "c"]);
    scene.pass(4000);
    assert_eq!(scene.usable(), ["a", "b", "c"]);
    scene.member("a").note_success();
    scene.fail("a", 4, Failure::Timeout);
    assert_eq!(scene.usable(), ["a", "b", "c"]);
}

#[test]
fn half_of_the_pool_may_go_and_never_the_last() {
    let mut scene = Scene::running(&pool(4, ""));
    for server in NAMES {
        scene.fail(server, 25, Failure::Status(502));
    }
    assert_eq!(scene.usable(), ["c", "d"]);
    assert!(!scene.view().panic);

    let mut scene = Scene::running(&pool(2, ""));
    scene.fail("a", 5, Failure::Status(502));
    scene.fail("b", 25, Failure::Status(502));
    assert_eq!(scene.usable(), ["b"]);

    let mut scene = Scene::running(&pool(1, ""));
    scene.fail("a", 25, Failure::Reset);
    assert_eq!(scene.usable(), ["a"]);
    assert!(!scene.view().panic);
}

#[test]
fn with_probes_a_server_that_died_is_back_with_its_first_success() {
    for before in [true, false] {
        let mut scene = Scene::running(&pool(3, ""));
        if before {
            scene.fail("a", 5, Failure::Reset);
        }
        scene.refuse("a");
        scene.fail("a", 20, Failure::Refused);
        assert_eq!(scene.usable(), ["b", "c"]);
        assert_eq!(scene.health("a"), "unhealthy: connection refused");
        scene.pass(2500);
        assert_eq!(scene.usable(), ["a", "b", "c"]);
        assert_eq!(scene.health("a"), "healthy: passes its probes");
    }
}

/// A network that swallows packets: connects time out before the probes have failed, and all is well as soon as it is.
#[test]
fn an_ejection_for_silence_ends_when_probes_that_met_it_pass_again() {
    for (last, back_soon) in [
        (Failure::ConnectTimeout, true),
        (Failure::Timeout, true),
        (Failure::Status(503), false),
    ] {
        let mut scene = Scene::running(&pool(3, "health_check: { tcp: { interval: 1s } }"));
        scene.fate("a", refused());
        scene.fail("a", 5, last);
        assert!(scene.health("a").starts_with("ejected: 5 gateway errors"));
        scene.pass(5000);
        assert_eq!(scene.health("a"), "unhealthy: connection refused");
        scene.fate("a", Outcome::Success);
        scene.log.clear();
        scene.pass(4000);
        let usable = scene.usable().contains(&"a".to_owned());
        assert_eq!(usable, back_soon, "{last:?}: {:?}", scene.log);
        if !back_soon {
            continue;
        }
        assert!(scene.sixteenths("a") < 8, "it begins with little");
        assert!(scene.member("a").is_half_open());
        // Its probes pass, and it fails: the next one is longer, and no success of a probe ends it.
        scene.fail("a", 1, last);
        scene.pass(31_000);
        assert_eq!(scene.usable(), ["b", "c"], "{last:?}");
    }
}

/// Found by the simulator: its ejection was forgiven, and shown until something else changed.
#[test]
fn what_is_forgiven_is_shown_so() {
    let mut scene = Scene::running(&pool(3, "health_check: { tcp: { interval: 1s } }"));
    scene.fate("a", refused());
    scene.fail("a", 5, Failure::Timeout);
    scene.pass(5000);
    let is_out = |scene: &Scene| {
        let view = scene.view();
        let mut standings = view.standings.iter();
        standings.any(|it| &*it.member.name == "a" && it.back_at.is_some())
    };
    assert!(is_out(&scene));
    scene.refuse("a");
    scene.pass(100);
    assert!(!is_out(&scene));
}

#[test]
fn without_probes_a_refused_server_is_tried_again_soon() {
    let mut scene = Scene::running(&pool(2, "health_check: off"));
    scene.refuse("a");
    assert_eq!(scene.usable(), ["b"]);
    assert_eq!(scene.health("a"), "ejected: connection refused");
    scene.refuse("b");
    scene.pass(20);
    assert_eq!(scene.usable(), ["b"], "the last stays");
    scene.pass(5000);
    assert_eq!(scene.usable(), ["a", "b"]);
}

#[test]
fn a_share_of_errors_lessens_the_weight_and_recovery_restores_it() {
    let mut scene = Scene::running(&pool(3, ""));
    for _ in 0..30 {
        scene.count("a", 85, 15);
        scene.count("b", 100, 0);
        scene.count("c", 1000, 1);
        scene.pass(1000);
    }
    assert_eq!(scene.usable(), ["a", "b", "c"]);
    assert!((7..=9).contains(&scene.sixteenths("a")));
    assert_eq!(scene.sixteenths("c"), 16);
    let health = scene.health("a");
    assert!(
        health.starts_with("degraded: ") && health.ends_with("% of its weight"),
        "{health}"
    );
    for _ in 0..60 {
        for server in ["a", "b", "c"] {
            scene.count(server, 100, 0);
        }
        scene.pass(1000);
    }
    assert_eq!(scene.sixteenths("a"), 16);
    assert_eq!(scene.health("a"), "healthy: passes its probes");
}

#[test]
fn a_reload_keeps_what_traffic_showed_and_turning_it_off_forgives() {
    let mut scene = Scene::running(&pool(3, ""));
    scene.fail("a", 5, Failure::Closed);
    scene.reload(&pool(3, "outlier_detection: { interval: 5s }"));
    assert_eq!(scene.usable(), ["b", "c"]);
    scene.reload(&pool(3, "outlier_detection: off"));
    assert_eq!(scene.usable(), ["a", "b", "c"]);
    scene.fail("a", 50, Failure::Closed);
    assert_eq!(scene.usable(), ["a", "b", "c"]);
}

/// `docs/health.md` has a table of this: each of its rows is held here.
#[test]
fn what_traffic_does_with_and_without_judging_it() {
    let text = include_str!("../../../../../docs/health.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| `outlier_detection: "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let [judged, probed, on_refusal, on_failures] = row[..] else {
            panic!("{row:?}")
        };
        let keys = [judged, probed].map(|key| key.trim_matches('`'));
        let config = pool(3, &keys.join(", "));
        let mut scene = Scene::running(&config);
        scene.refuse("a");
        assert_eq!(scene.usable(), ["b", "c"], "{row:?}");
        scene.fate("a", refused());
        scene.pass(2500);
        assert_eq!(scene.usable(), ["b", "c"], "{row:?}");
        scene.pass(2000);
        match on_refusal {
            "out for 3 s" => assert_eq!(scene.usable(), ["a", "b", "c"], "{row:?}"),
            "out until a probe succeeds" => {
                assert_eq!(scene.usable(), ["b", "c"], "{row:?}");
                scene.fate("a", Outcome::Success);
                scene.pass(2500);
                assert_eq!(scene.usable(), ["a", "b", "c"], "{row:?}");
            }
            other => panic!("{other}"),
        }
        let mut scene = Scene::running(&config);
        scene.fail("a", 50, Failure::Closed);
        match on_failures {
            "ejected" => assert_eq!(scene.usable(), ["b", "c"], "{row:?}"),
            "nothing" => assert_eq!(scene.usable(), ["a", "b", "c"], "{row:?}"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn without_judging_who_refused_is_back_with_all_of_its_weight() {
    let off = pool(3, "health_check: off, outlier_detection: off");
    let mut scene = Scene::running(&off);
    scene.log.clear();
    for _ in 0..3 {
        scene.refuse("a");
        scene.pass(20);
        assert_eq!(scene.usable(), ["b", "c"]);
        scene.pass(3000);
        assert_eq!((scene.usable().len(), scene.sixteenths("a")), (3, 16));
    }
    assert_eq!(
        scene.log[..2],
        [
            "a: healthy -> ejected, connection refused; back in 3 s",
            "a: ejected -> healthy, tried again",
        ]
    );
    // All of them refuse: the last stays, whoever that is.
    for server in ["a", "b", "c"] {
        scene.refuse(server);
    }
    scene.pass(20);
    assert_eq!(scene.usable(), ["c"]);
    scene.pass(3100);
    assert_eq!(scene.usable(), ["a", "b", "c"]);
    // Turning the judging off leaves this one out.
    let mut scene = Scene::running(&pool(3, "health_check: off"));
    scene.refuse("a");
    scene.reload(&off);
    assert_eq!(scene.usable(), ["b", "c"]);
    scene.pass(3100);
    assert_eq!((scene.usable().len(), scene.sixteenths("a")), (3, 16));
}

#[test]
fn an_operators_enable_ends_an_ejection() {
    let mut scene = Scene::running(&pool(3, ""));
    scene.fail("a", 5, Failure::Closed);
    assert_eq!(scene.usable(), ["b", "c"]);
    scene.set("a", State::Ready, None);
    assert_eq!(scene.usable(), ["a", "b", "c"]);
    assert_eq!(scene.sixteenths("a"), 16);
    scene.fail("a", 4, Failure::Closed);
    assert_eq!(scene.usable(), ["a", "b", "c"], "it begins anew");
}

#[test]
fn consecutive_5xx_counts_plain_500_only_when_asked_to() {
    let streak = |scene: &Scene| {
        let member = scene.member("a");
        (0..3).find_map(|_| member.note_failure(false))
    };
    assert_eq!(streak(&Scene::running(&pool(2, ""))), None);
    let scene = Scene::running(&pool(2, "outlier_detection: { consecutive_5xx: 3 }"));
    assert_eq!(streak(&scene), Some(Streak::ServerErrors));
}

#[test]
fn below_the_panic_threshold_those_that_answer_serve() {
    let mut scene = Scene::running(&pool(4, "panic_threshold: 50%, health_check: { path: / }"));
    scene.log.clear();
    scene.fate("a", bad_status());
    scene.fate("b", bad_status());
    scene.fate("c", refused());
    scene.pass(60_000);
    assert_eq!(scene.usable(), ["a", "b", "d"]);
    assert!(scene.view().panic);
    scene.fate("a", Outcome::Success);
    scene.pass(6000);
    assert_eq!(scene.usable(), ["a", "d"]);
    assert!(!scene.view().panic);
    let panics = scene.log.iter().filter(|it| it.starts_with("panic"));
    assert_eq!(panics.collect::<Vec<_>>(), ["panic true", "panic false"]);
}

/// `docs/health.md` has the truth table: each of its rows is held here.
#[test]
fn the_table_in_docs_is_what_happens() {
    use balance::health::Verdict;
    let text = include_str!("../../../../../docs/health.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| probes: "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), 16);
    for row in rows {
        let [probes, traffic, word, serves] = row[..] else {
            panic!("{row:?}")
        };
        let ejected = traffic.starts_with("ejected");
        let standing = balance::Standing {
            verdict: match probes {
                "probes: unknown" => Verdict::Unknown,
                "probes: pass, or off" => Verdict::Healthy,
                "probes: fail, answers" | "probes: fail, silent" => Verdict::Unhealthy,
                _ => panic!("{probes}"),
            },
            // A server that was never probed is not known to answer.
            answers: !probes.ends_with("silent")
                && probes != "probes: unknown"
                && traffic != "ejected, silent",
            state: State::Ready,
            weight: 1,
            ejected,
            share: balance::Share::FULL,
        };
        assert_eq!(
            standing.condition(traffic == "degraded").word(),
            word,
            "{row:?}"
        );
        // Beside which others it serves: a healthy one, one not yet known, one that answers badly, one that is silent.
        let beside = |verdict, answers| {
            let other = balance::Standing {
                verdict,
                answers,
                ejected: false,
                ..standing
            };
            balance::usable(&[standing, other], 0).indices.contains(&0)
        };
        let found = if beside(Verdict::Healthy, true) {
            "always"
        } else if beside(Verdict::Unknown, false) {
            "while none is healthy"
        } else if beside(Verdict::Unhealthy, true) {
            "in panic"
        } else if beside(Verdict::Unhealthy, false) {
            "when none answers"
        } else {
            "never"
        };
        assert_eq!(found, serves, "{row:?}");
    }
}

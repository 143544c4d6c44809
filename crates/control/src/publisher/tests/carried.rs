//! What traffic showed, what servers say and how warm they are, in the next process.

use balance::outlier::Failure;

use super::handovers::succeed;
use super::outlier::pool;
use super::*;
use crate::handover::Live;

/// The next process, on the document as it travels.
fn next(scene: &Scene, config: &str) -> Scene {
    let text = serde_json::to_string(&scene.publisher.live(scene.now)).unwrap();
    let live: Live = serde_json::from_str(&text).unwrap();
    let mut next = succeed(live, config);
    next.log.clear();
    next
}

fn says(scene: &Scene, server: &str) -> String {
    let view = scene.view();
    let mut standings = view.standings.iter();
    let found = standings.find(|it| *it.member.name == *server).unwrap();
    found.says.to_string()
}

fn note(scene: &Scene, server: &str) -> String {
    let view = scene.view();
    let mut standings = view.standings.iter();
    let found = standings.find(|it| *it.member.name == *server).unwrap();
    found.note.to_string()
}

#[test]
fn who_was_ejected_stays_so_for_as_long_as_it_would_have() {
    let config = pool(3, "");
    let mut scene = Scene::running(&config);
    scene.fail("a", 5, Failure::Status(503));
    scene.pass(10_000);
    let mut next = next(&scene, &config);
    assert_eq!(next.usable(), ["b", "c"]);
    assert_eq!(
        next.health("a"),
        "ejected: 5 gateway errors in a row, last: 503"
    );
    next.pass(18_000);
    assert_eq!(next.usable(), ["b", "c"]);
    next.pass(3000);
    assert_eq!(next.usable(), ["a", "b", "c"]);
    // Its return is as ever: little at first, and the first failure ejects it for twice as long.
    assert!(next.sixteenths("a") < 4);
    next.fail("a", 1, Failure::Status(503));
    assert_eq!(next.usable(), ["b", "c"]);
    assert!(
        next.log.last().unwrap().ends_with("back in 60 s"),
        "{:?}",
        next.log
    );
}

#[test]
fn who_is_half_open_shows_in_the_next_process_that_it_has_recovered() {
    let config = pool(3, "");
    let mut scene = Scene::running(&config);
    scene.fail("a", 5, Failure::Status(503));
    scene.pass(31_000);
    let mut next = next(&scene, &config);
    let member = next.member("a");
    assert!(member.is_half_open());
    assert_eq!(member.connections_max(), Some(1));
    assert!(
        note(&next, "a").starts_with("half open"),
        "{}",
        note(&next, "a")
    );
    assert!(member.note_passed());
    next.event(Event::Passed { member: member.id });
    assert_eq!(member.connections_max(), Some(10_000));
    // Nor does one that fails there get off lightly.
    let mut other = self::next(&scene, &config);
    other.fail("a", 1, Failure::Status(503));
    assert_eq!(other.usable(), ["b", "c"]);
    let without = self::next(&scene, &pool(3, "outlier_detection: off"));
    assert!(!without.member("a").is_half_open());
}

#[test]
fn a_limit_that_latency_has_found_goes_on() {
    let config = pool(2, "adaptive_concurrency: gradient");
    let mut scene = Scene::running(&config);
    super::limits::work(&mut scene, "a", 10.0, 30);
    let settled = scene.member("a").connections_max();
    assert_ne!(settled, Some(20), "where it began");
    let mut next = next(&scene, &config);
    assert_eq!(next.member("a").connections_max(), settled);
    assert_eq!(next.member("b").connections_max(), Some(20));
    super::limits::work(&mut next, "a", 10.0, 10);
    let later = next.member("a").connections_max();
    assert!((8..=22).contains(&later.unwrap()), "{later:?}");
    let bounded = self::next(&scene, &pool(2, "adaptive_concurrency: { max: 6 }"));
    assert_eq!(bounded.member("a").connections_max(), Some(6));
    let without = self::next(&scene, &pool(2, ""));
    assert_eq!(without.member("a").connections_max(), Some(10_000));
}

#[test]
fn the_count_of_ejections_falls_by_service_in_both_processes() {
    let config = pool(3, "health_check: off");
    let mut scene = Scene::running(&config);
    for _ in 0..2 {
        scene.fail("a", 5, Failure::Timeout);
        scene.pass(31_000);
        scene.member("a").note_success();
        scene.pass(1000);
    }
    // Out again for 60 s, then 33 s in service before the upgrade and 30 s after it.
    scene.pass(62_000);
    let mut next = next(&scene, &config);
    next.pass(30_000);
    next.fail("a", 5, Failure::Timeout);
    assert!(
        next.log.last().unwrap().ends_with("back in 30 s"),
        "{:?}",
        next.log
    );
}

#[test]
fn failures_in_a_row_are_one_row() {
    let config = pool(3, "");
    let mut scene = Scene::running(&config);
    scene.fail("a", 3, Failure::Reset);
    let mut next = next(&scene, &config);
    next.fail("a", 1, Failure::Reset);
    assert_eq!(next.usable(), ["a", "b", "c"]);
    next.fail("a", 1, Failure::Reset);
    assert_eq!(next.usable(), ["b", "c"]);
}

#[test]
fn who_is_degraded_goes_on_from_its_share() {
    let config = pool(3, "");
    let mut scene = Scene::running(&config);
    for _ in 0..20 {
        for (server, bad) in [("a", 15), ("b", 0), ("c", 0)] {
            scene.count(server, 100 - bad, bad);
        }
        scene.member("a").note_success();
        scene.pass(1000);
    }
    let share = scene.sixteenths("a");
    assert!((6..12).contains(&share), "{share}");
    let mut next = next(&scene, &config);
    assert_eq!(next.sixteenths("a"), share);
    assert_eq!(next.health("a"), scene.health("a"));
    // The window is the same too: it neither recovers at once nor falls.
    for _ in 0..5 {
        for (server, bad) in [("a", 15), ("b", 0), ("c", 0)] {
            next.count(server, 100 - bad, bad);
        }
        next.pass(1000);
    }
    assert!(
        next.sixteenths("a").abs_diff(share) <= 1,
        "{}",
        next.health("a")
    );
}

#[test]
fn an_enable_in_between_and_a_config_without_it_end_an_ejection() {
    let config = pool(3, "");
    let mut scene = Scene::running(&config);
    scene.fail("a", 5, Failure::Status(503));
    // The document that the new process began with, and the one that it takes over by.
    let mut next = next(&scene, &config);
    assert_eq!(next.usable(), ["b", "c"]);
    scene.set("a", State::Ready, None);
    next.publisher
        .take_over(scene.publisher.live(scene.now), next.now);
    assert_eq!(next.usable(), ["a", "b", "c"]);

    scene.fail("b", 5, Failure::Status(503));
    let off = self::next(&scene, &pool(3, "outlier_detection: off"));
    assert_eq!(off.usable(), ["a", "b", "c"]);
}

#[test]
fn what_a_server_says_of_itself_holds_until_it_says_something_else() {
    const AGENTS: &str = "servers: [{ name: a, address: '10.0.0.1:80', weight: 8, max_connections: 50 }, { name: b, address: '10.0.0.2:80' }], agent_check: { port: 9999, interval: 2s }";
    let config = site(AGENTS);
    let mut scene = Scene::running(&config);
    scene
        .lines
        .insert("a".to_owned(), Ok("drain 50% maxconn:7".to_owned()));
    scene
        .lines
        .insert("b".to_owned(), Ok("down #disk full".to_owned()));
    scene.pass(2300);
    let mut next = next(&scene, &config);
    assert_eq!(next.member("a").cell.state(), State::Drain);
    assert_eq!(next.member("a").connections_max(), Some(7));
    assert_eq!(says(&next, "a"), "drain 50% maxconn:7");
    assert!(next.health("b").ends_with("its agent says down: disk full"));
    // It is asked as ever.
    next.lines
        .insert("a".to_owned(), Ok("ready 100%".to_owned()));
    next.pass(2300);
    assert_eq!(next.member("a").cell.state(), State::Ready);

    // What its operator put aside stays so; without an agent nothing is said.
    scene.set("a", State::Ready, None);
    assert_eq!(scene.member("a").cell.state(), State::Ready);
    let enabled = self::next(&scene, &config);
    assert_eq!(enabled.member("a").cell.state(), State::Ready);
    let without = self::next(&scene, &site(AGENTS.split(", agent_check").next().unwrap()));
    assert_eq!(says(&without, "a"), "");
    assert_eq!(without.member("a").connections_max(), Some(50));
}

#[test]
fn a_slow_start_goes_on() {
    let config = pool(2, "slow_start: { duration: 100s, floor: 10% }");
    let mut scene = Scene::running(&config);
    scene.pass(60_000);
    scene.set("a", State::Disabled, None);
    scene.pass(100);
    scene.set("a", State::Ready, None);
    scene.pass(50_000);
    assert_eq!(note(&scene, "a"), "slow start at 50 %");
    let mut same = next(&scene, &config);
    assert_eq!(note(&same, "a"), "slow start at 50 %");
    assert_eq!(note(&same, "b"), "");
    same.pass(25_000);
    assert_eq!(note(&same, "a"), "slow start at 75 %");
    same.pass(27_000);
    assert_eq!(note(&same, "a"), "");
    // A server that comes with the new process joins a pool that serves: it warms up.
    let mut more = next(
        &scene,
        &pool(3, "slow_start: { duration: 100s, floor: 10% }"),
    );
    more.pass(1000);
    assert_eq!(note(&more, "c"), "slow start at 10 %");
}

/// The second version of the document, as it stood; every later one must read it.
const SECOND: &str = r#"{"servers": [
  {"pool": "site", "server": "a", "address": "10.0.0.0:80",
   "health": {"verdict": "healthy", "answers": true, "age_ms": 900},
   "traffic": {"ejected": {"cause": "gateway_errors", "answers": true, "left_ms": 20000, "count": 5, "last": "503"},
               "ejections": 2, "served_ms": 1000, "requests": 100.5, "failed": 50.25},
   "says": {"check": "ready"}, "warmth": {"fresh": false, "fit_ms": 5000, "warming": true}},
  {"pool": "site", "server": "b", "address": "10.0.0.1:80",
   "health": {"verdict": "healthy", "answers": true, "age_ms": 900},
   "traffic": {"share": 0.5, "lessened": {"why": "failing", "own": 152, "rest": 3}, "gateway_errors": 2, "server_errors": 2},
   "says": {}, "warmth": {"fresh": false, "fit_ms": 5000}},
  {"pool": "site", "server": "c", "address": "10.0.0.2:80",
   "health": {"verdict": "healthy", "answers": true, "age_ms": 900},
   "traffic": {"ejected": {"cause": "phase of the moon", "answers": true, "left_ms": 20000},
               "lessened": {"why": "tired"}, "share": 7.5, "requests": -3, "colour": "red"},
   "says": {"agent": "down", "voice": 1}}
]}"#;

#[test]
fn documents_of_this_version_are_read_by_every_later_one() {
    let live: Live = serde_json::from_str(SECOND).unwrap();
    let again: Live = serde_json::from_str(&serde_json::to_string(&live).unwrap()).unwrap();
    assert_eq!(again, live);
    let next = succeed(live, &pool(3, ""));
    assert_eq!(next.usable(), ["b"]);
    assert_eq!(
        next.health("b"),
        "degraded: 15.2 % of requests failed, 0.3 % at the rest; 50 % of its weight"
    );
    assert_eq!(
        next.health("c"),
        "ejected: failures that the process before this one saw"
    );
    assert_eq!(next.sixteenths("c"), 16);
}

//! Drills: a server out as by a crash.

use super::*;
use crate::message::{Command, DrillEnd, DrillReport};

const SITE: &str = "servers: [{ name: a, address: '10.0.0.1:80' }, { name: b, address: '10.0.0.2:80' }], \
                    health_check: { interval: 500ms, timeout: 400ms, healthy_threshold: 1 }";

fn drill(scene: &mut Scene, server: &str, ms: u64) -> Receiver<Answer> {
    let (reply, answers) = reply();
    let length = Duration::from_millis(ms);
    scene
        .publisher
        .handle_drill("site", server, length, reply, scene.now);
    scene.take_actions();
    answers
}

fn report(answers: &Receiver<Answer>) -> DrillReport {
    match answers.try_recv() {
        Ok(Answer::Drilled(report)) => report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_is_watched_then_out_then_back() {
    let mut scene = Scene::running(&site(SITE));
    let (a, b) = (scene.member("a"), scene.member("b"));
    let answers = drill(&mut scene, "a", 2000);
    // Both carry five picks in the two seconds before.
    for _ in 0..5 {
        for member in [&a, &b] {
            member.cell.acquire(None).unwrap();
            member.cell.release();
        }
        scene.pass(380);
        assert!(!a.is_crashed() && a.keeps_idle());
    }
    scene.pass(200);
    assert!(a.is_crashed() && !a.keeps_idle() && !b.is_crashed());
    assert_eq!(scene.severed, [a.id]);
    let view = scene.view();
    let cause = view.standings[0].cause_at(scene.now);
    assert!(
        cause.starts_with("a drill has it out as a crash would, for 2 s more"),
        "{cause}"
    );
    // What it holds is cut until it is gone.
    a.cell.acquire(None).unwrap();
    a.stats.of(0).classes.record(0);
    scene.world.pools[0].stats.of(0).retries[0].increment();
    scene.pass(100);
    assert!(scene.severed.len() > 2, "{:?}", scene.severed);
    a.cell.release();
    // Its probes find nobody, though it would answer, and none is sent.
    let probes = scene.probed("a", Duration::ZERO).len();
    scene
        .publisher
        .handle_event(Event::Refused { member: a.id }, scene.now);
    scene.pass(1200);
    assert_eq!(scene.probed("a", Duration::ZERO).len(), probes);
    assert_eq!(scene.usable(), ["b"]);
    for _ in 0..4 {
        b.cell.acquire(None).unwrap();
        b.cell.release();
        let cells = scene.world.pools[0].stats.of(0);
        cells.seconds.record(Duration::from_millis(5));
    }
    b.cell.acquire(None).unwrap();
    scene.pass(800);
    let report = report(&answers);
    assert!(!a.is_crashed());
    assert_eq!(report.ended_by, DrillEnd::Time);
    assert_eq!((report.failed, report.retried, report.in_vain), (0, 1, 1));
    // Four have ended, one of them after a try with `a`, and one runs.
    assert_eq!(report.requests, 5);
    assert!((2000..2100).contains(&report.out_ms), "{report:?}");
    assert!(report.settled_ms.is_some_and(|ms| ms < 200), "{report:?}");
    assert!(report.unpicked_ms.is_some_and(|ms| ms < 300), "{report:?}");
    assert_eq!(report.before_per_second, 2.5);
    let survivor = &report.survivors[0];
    assert_eq!((&*survivor.server, survivor.before_per_second), ("b", 2.5));
    assert_eq!((survivor.after_per_second, survivor.active_max), (5.0, 1));
    // Back as soon as a probe has found it.
    scene.pass(300);
    assert_eq!(scene.usable(), ["a", "b"]);
}

#[test]
fn who_uses_the_server_when_it_ends_is_left_alone() {
    let mut scene = Scene::running(&site(SITE));
    let a = scene.member("a");
    let answers = drill(&mut scene, "a", 1000);
    scene.pass(1500);
    a.cell.acquire(None).unwrap();
    scene.pass(300);
    assert!(scene.severed.len() > 2, "{:?}", scene.severed);
    // Whoever performs these sees whether the drill still runs.
    scene.pass(700);
    assert!(!a.is_crashed());
    assert_eq!(report(&answers).ended_by, DrillEnd::Time);
}

#[test]
fn an_operator_ends_it_and_so_does_a_config_without_the_server() {
    let mut scene = Scene::running(&site(SITE));
    let a = scene.member("a");
    let answers = drill(&mut scene, "a", 60_000);
    scene.pass(2500);
    assert!(a.is_crashed());
    scene.set("a", Some(State::Ready), None);
    assert!(!a.is_crashed());
    assert_eq!(report(&answers).ended_by, DrillEnd::Operator);

    let answers = drill(&mut scene, "a", 60_000);
    (0..5).for_each(|_| {
        a.cell.acquire(None).unwrap();
        a.cell.release();
    });
    scene.pass(2500);
    scene.reload(&site("servers: [{ name: b, address: '10.0.0.2:80' }]"));
    scene.pass(100);
    let report = report(&answers);
    assert_eq!(report.ended_by, DrillEnd::Removed);
    assert_eq!(report.before_per_second, 2.5);
    assert!(!a.is_crashed());
}

#[test]
fn what_no_server_was_picked_for_is_a_request_too() {
    let mut scene = Scene::running(&site(SITE));
    let a = scene.member("a");
    let answers = drill(&mut scene, "a", 2000);
    scene.pass(2100);
    assert!(a.is_crashed());
    let cells = scene.world.pools[0].stats.of(0);
    for _ in 0..7 {
        cells.failed.increment();
        cells.unserved.increment();
    }
    // One more is answered, and has not ended yet.
    cells.failed.increment();
    // A TCP connection that began long before is broken off.
    a.stats.of(0).broken.increment();
    a.stats.of(0).tunnels.increment();
    scene.pass(2100);
    let report = report(&answers);
    assert_eq!((report.requests, report.failed), (9, 9));
}

#[test]
fn an_upgrade_ends_it_and_the_next_process_finds_the_server() {
    let config = site(SITE);
    let mut scene = Scene::running(&config);
    let answers = drill(&mut scene, "a", 60_000);
    scene.pass(3500);
    assert_eq!(scene.usable(), ["b"]);
    let mut next = super::handovers::succeed(scene.publisher.live(scene.now), &config);
    scene.publisher.end_all_drills(scene.now);
    scene.take_actions();
    let report = report(&answers);
    assert_eq!(report.ended_by, DrillEnd::Upgrade);
    assert!((1400..1600).contains(&report.out_ms), "{report:?}");
    assert!(!next.member("a").is_crashed());
    next.pass(5000);
    assert_eq!(next.usable(), ["a", "b"]);
}

#[test]
fn what_would_leave_nobody_needs_force_and_one_at_a_time_is_enough() {
    let mut scene = Scene::running(&site(SITE));
    let objection = |scene: &Scene, force| {
        scene.publisher.objection(&Command::Drill {
            pool: "site".to_owned(),
            server: "a".to_owned(),
            length: Duration::from_secs(5),
            force,
        })
    };
    assert_eq!(objection(&scene, false), None);
    scene.set("b", Some(State::Disabled), None);
    let why = objection(&scene, false).expect("an objection");
    assert!(
        why.starts_with("no other server of pool `site` is fit to serve"),
        "{why}"
    );
    assert_eq!(objection(&scene, true), None);
    scene.set("b", Some(State::Ready), None);

    let _first = drill(&mut scene, "a", 5000);
    for (server, ms, expected) in [
        ("b", 5000, "a drill of `a` in pool `site` is under way"),
        ("b", 0, "a drill lasts 1s to 1h"),
        ("c", 5000, "no server `c`"),
    ] {
        let told = match drill(&mut scene, server, ms).try_recv() {
            Ok(Answer::Refused(why)) => why.concat(),
            Ok(Answer::NotFound(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(told.starts_with(expected), "{told}");
    }
}

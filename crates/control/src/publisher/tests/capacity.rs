//! What pools carry, and who may be taken out.

use super::*;
use crate::message::Command;

fn servers(rooms: &[(&str, &str)]) -> String {
    let one =
        |(name, more): &(&str, &str)| format!("{{ name: {name}, address: 'unix:/{name}'{more} }}");
    let all: Vec<_> = rooms.iter().map(one).collect();
    format!("health_check: off, servers: [{}]", all.join(", "))
}

fn hold(scene: &Scene, server: &str, count: usize) {
    let member = scene.member(server);
    (0..count).for_each(|_| member.cell.acquire(None).unwrap());
}

fn measure(scene: &mut Scene, seconds: usize) {
    for _ in 0..seconds {
        scene.pass(1000);
        scene.publisher.measure(scene.now);
        scene.take_actions();
    }
}

fn drain(server: &str, force: bool) -> Command {
    Command::Drain {
        pool: "site".to_owned(),
        server: server.to_owned(),
        timeout: None,
        force,
    }
}

#[test]
fn load_is_an_average_and_the_alarm_goes_on_and_off() {
    let room = ", max_connections: 10";
    let mut scene = Scene::running(&site(&servers(&[("a", room), ("b", room), ("c", room)])));
    let outlook = |scene: &Scene| scene.world.pools[0].outlook().expect("looked at");
    measure(&mut scene, 1);
    assert_eq!(
        (outlook(&scene).load.load, outlook(&scene).room),
        (0.0, Some(30))
    );
    hold(&scene, "a", 10);
    hold(&scene, "b", 10);
    let cells = scene.world.pools[0].stats.of(1);
    (0..20).for_each(|_| cells.seconds.record(Duration::from_millis(50)));
    measure(&mut scene, 4);
    assert_eq!(outlook(&scene).load.load, 16.0, "four looks of five");
    assert_eq!(outlook(&scene).load.mean_ms, Some(50.0));
    assert_eq!(outlook(&scene).load.per_second, 5.0);
    measure(&mut scene, 10);
    let at_full = outlook(&scene);
    assert_eq!((at_full.load.load, at_full.ratio), (20.0, Some(0.67)));
    assert_eq!(
        at_full.without_server.as_ref().map(|it| it.ratio),
        Some(Some(1.0))
    );
    assert!(at_full.alarm);
    let said = "capacity of site true: without server `a` the load of 20 is 100 % of the room for 20 that is left";
    assert!(scene.log.contains(&said.to_owned()), "{:?}", scene.log);
    (0..5).for_each(|_| {
        scene.member("b").cell.release();
    });
    measure(&mut scene, 10);
    assert!(!outlook(&scene).alarm);
    let logged = scene
        .log
        .iter()
        .filter(|line| line.starts_with("capacity"))
        .count();
    assert_eq!(logged, 2, "{:?}", scene.log);
}

#[test]
fn who_would_push_the_rest_over_is_not_taken_out_unless_forced() {
    let room = ", max_connections: 2";
    let mut scene = Scene::running(&site(&servers(&[("a", room), ("b", room), ("c", room)])));
    hold(&scene, "a", 2);
    hold(&scene, "b", 2);
    assert_eq!(
        scene.publisher.objection(&drain("a", false)),
        None,
        "it fits"
    );
    hold(&scene, "c", 1);
    let why = scene
        .publisher
        .objection(&drain("a", false))
        .expect("an objection");
    assert_eq!(
        why,
        "without `a` pool `site` has 2 servers with room for 4 requests at once, and 5 are under way \
         (0 on average over the last 10 s), 125 % of it; to do it all the same, force it (`--force`)"
    );
    assert_eq!(scene.publisher.objection(&drain("a", true)), None);
    assert_eq!(
        scene.publisher.objection(&drain("x", false)),
        None,
        "answered elsewhere"
    );
    let set = |state, weight| Command::Set {
        pool: "site".to_owned(),
        server: "b".to_owned(),
        state,
        weight,
        force: false,
    };
    for (state, weight, objects) in [
        (Some(State::Disabled), None, true),
        (Some(State::Drain), None, true),
        (None, Some(0), true),
        (Some(State::Ready), None, false),
        (None, Some(1), false),
    ] {
        let objection = scene.publisher.objection(&set(state, weight));
        assert_eq!(objection.is_some(), objects, "{state:?} {weight:?}");
    }
    // One that serves nobody anyway is not missed.
    scene.set("c", Some(State::Disabled), None);
    assert_eq!(scene.publisher.objection(&drain("c", false)), None);
    // What was under way counts for as long as it is averaged.
    (0..2).for_each(|_| {
        scene.member("a").cell.release();
        scene.member("b").cell.release();
    });
    scene.member("c").cell.release();
    assert_eq!(scene.publisher.objection(&drain("a", false)), None);
}

#[test]
fn the_last_that_is_fit_is_not_taken_out_unless_forced() {
    let mut scene = Scene::running(&site(&servers(&[("a", ""), ("b", "")])));
    assert_eq!(scene.publisher.objection(&drain("a", false)), None);
    scene.set("b", Some(State::Disabled), None);
    assert_eq!(
        scene.publisher.objection(&drain("a", false)).as_deref(),
        Some(
            "no other server of pool `site` is fit to serve while `a` is out; to do it all the same, force it \
             (`--force`)"
        )
    );
    assert_eq!(scene.publisher.objection(&drain("a", true)), None);
    assert_eq!(
        scene.publisher.objection(&drain("b", false)),
        None,
        "it serves nobody"
    );
    let only = Scene::running(&site(&servers(&[("a", "")])));
    assert_eq!(
        only.publisher.objection(&drain("a", false)),
        None,
        "that nobody is left is no surprise"
    );
}

#[test]
fn where_room_is_not_known_it_is_told_and_not_enforced() {
    let mut scene = Scene::running(&site(&servers(&[("a", ", max_connections: 1"), ("b", "")])));
    hold(&scene, "a", 1);
    hold(&scene, "b", 5);
    for server in ["a", "b"] {
        assert_eq!(
            scene.publisher.objection(&drain(server, false)),
            None,
            "{server}"
        );
    }
    measure(&mut scene, 1);
    let outlook = scene.world.pools[0].outlook().expect("looked at");
    assert_eq!(
        (outlook.room, outlook.ratio, outlook.alarm),
        (None, None, false)
    );
    let without = outlook.without_server.as_ref().expect("a server");
    assert_eq!((without.ratio, without.growth), (None, Some(2.0)));
}

//! What pools learn outlives what becomes of their configs, servers and processes.

use super::handovers::succeed;
use super::*;
use crate::learnt::LearntView;
use crate::message::Forget;

const THREE: &str = "{ name: a, address: '10.0.0.1:80' }, { name: b, address: '10.0.0.2:80' }, { name: c, address: '10.0.0.3:80' }";

fn shop(servers: &str, affinity: &str) -> String {
    site(&format!(
        "servers: [{servers}], health_check: off, affinity: {affinity}"
    ))
}

fn learning(servers: &str) -> String {
    shop(servers, "{ app_cookie: JSESSIONID }")
}

fn learnt(scene: &Scene) -> Arc<LearntView> {
    scene.view().learnt.clone().expect("a table")
}

fn bind(scene: &Scene, client: &str, server: &str) {
    let view = learnt(scene);
    let key = view.learnt().key(client.as_bytes());
    view.bind(key, &scene.member(server), scene.now);
}

/// The name of the server that a client is bound to, if it is there: `gone` if it is not.
fn server_of(scene: &Scene, client: &str) -> Option<String> {
    let view = learnt(scene);
    let id = view.find(view.learnt().key(client.as_bytes()), scene.now)?;
    let standings = &scene.view().standings;
    let found = standings.iter().find(|it| it.member.id == id);
    Some(found.map_or_else(|| "gone".to_owned(), |it| it.member.name.to_string()))
}

fn check(scene: &Scene, expected: &[(&str, Option<&str>)]) {
    for (client, server) in expected {
        assert_eq!(server_of(scene, client).as_deref(), *server, "{client}");
    }
}

fn bound(config: &str) -> Scene {
    let scene = Scene::start(config);
    for (client, server) in [("1", "a"), ("2", "b"), ("3", "c"), ("4", "a")] {
        bind(&scene, client, server);
    }
    scene
}

const ALL: [(&str, Option<&str>); 4] = [
    ("1", Some("a")),
    ("2", Some("b")),
    ("3", Some("c")),
    ("4", Some("a")),
];

#[test]
fn a_reload_leaves_bindings_to_servers_that_stay() {
    let mut scene = bound(&learning(THREE));
    check(&scene, &ALL);
    scene.reload(&learning(THREE));
    check(&scene, &ALL);
    // `b` leaves and a new one comes in its place in the list.
    let without = THREE.replace("name: b", "name: d");
    scene.reload(&learning(&without));
    check(
        &scene,
        &[("1", Some("a")), ("2", Some("gone")), ("3", Some("c"))],
    );
    // And comes back, at another address.
    scene.reload(&learning(&THREE.replace("10.0.0.2", "10.0.0.9")));
    check(&scene, &ALL);
}

#[test]
fn another_kind_of_affinity_begins_anew() {
    let mut scene = bound(&learning(THREE));
    scene.reload(&shop(THREE, "{ app_cookie: OTHER }"));
    check(&scene, &[("1", None), ("2", None)]);
    bind(&scene, "1", "b");
    scene.reload(&shop(THREE, "{ cookie: SERVERID }"));
    assert!(scene.view().learnt.is_none());
}

#[test]
fn another_size_keeps_what_is_known_and_what_workers_say_meanwhile() {
    let mut scene = bound(&learning(THREE));
    let old = learnt(&scene);
    let larger = "{ app_cookie: { name: JSESSIONID, entries: 500, expire: 1h } }";
    scene.reload(&shop(THREE, larger));
    check(&scene, &ALL);
    assert_eq!(learnt(&scene).learnt().entries_max(), 500);
    // A worker that has not seen the new one yet.
    old.bind(old.learnt().key(b"5"), &scene.member("b"), scene.now);
    scene.pass(2_000);
    check(&scene, &ALL);
    check(&scene, &[("5", Some("b"))]);
    scene.pass(50 * 60_000);
    check(&scene, &[("5", Some("b"))]);
    assert_eq!(learnt(&scene).learnt().counts().learnt, 5);
}

#[test]
fn what_is_unused_is_swept() {
    let mut scene = bound(&shop(
        THREE,
        "{ app_cookie: { name: JSESSIONID, expire: 10s } }",
    ));
    scene.pass(8_000);
    check(&scene, &[("1", Some("a"))]);
    scene.pass(8_000);
    let counts = learnt(&scene).learnt().counts();
    assert_eq!((counts.entries, counts.expired), (1, 3));
}

#[test]
fn names_of_servers_that_left_long_ago_are_given_to_others() {
    let config = |name: &str| {
        let servers = format!("{{ name: {name}, address: '10.0.0.1:80' }}");
        shop(&servers, "{ app_cookie: { name: JSESSIONID, expire: 4s } }")
    };
    let mut scene = Scene::start(&config("s0"));
    for turn in 1..40 {
        bind(&scene, &turn.to_string(), &format!("s{}", turn - 1));
        scene.reload(&config(&format!("s{turn}")));
        scene.pass(2_000);
    }
    let highest = scene.member("s39").tag();
    assert!(highest < 12, "{highest}");
    // The last few are not forgotten yet, and none of them is taken for one that came later.
    check(&scene, &[("39", Some("gone"))]);
}

#[test]
fn the_next_process_knows_what_was_learnt() {
    let mut scene = bound(&learning(THREE));
    scene.pass(60_000);
    let live = scene.publisher.live(scene.now);
    assert!(
        scene.publisher.words(scene.now).learnt.is_empty(),
        "no state file has it"
    );
    assert!(!format!("{live:?}").contains(&live.learnt[0].secret.0));
    let text = serde_json::to_string(&live).unwrap();
    let live: crate::handover::Live = serde_json::from_str(&text).unwrap();
    // Its servers stand in another order, and one is gone.
    let config = learning(
        "{ name: c, address: '10.0.0.3:80' }, { name: d, address: '10.0.0.4:80' }, { name: a, address: '10.0.0.1:80' }",
    );
    let mut next = succeed(live.clone(), &config);
    check(
        &next,
        &[("1", Some("a")), ("2", Some("gone")), ("3", Some("c"))],
    );
    // Told again when it runs already, the newer word counts.
    bind(&scene, "1", "c");
    next.publisher
        .take_over(scene.publisher.live(scene.now), next.now);
    check(&next, &[("1", Some("c")), ("4", Some("a"))]);
    let next = succeed(live, &shop(THREE, "{ app_cookie: OTHER }"));
    check(&next, &[("1", None)]);
}

#[test]
fn an_operator_has_bindings_forgotten() {
    let mut scene = bound(&learning(THREE));
    let forget = |scene: &mut Scene, what: Forget| {
        let (reply, answers) = reply();
        let now = scene.now;
        scene.publisher.handle_forget("site", &what, reply, now);
        scene.take_actions();
        match answers.try_recv() {
            Ok(Answer::Forgotten(count)) => Ok(count),
            Ok(Answer::NotFound(why)) => Err(why),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(forget(&mut scene, Forget::Value("2".to_owned())), Ok(1));
    check(&scene, &[("1", Some("a")), ("2", None)]);
    assert_eq!(forget(&mut scene, Forget::Server("a".to_owned())), Ok(2));
    check(&scene, &[("1", None), ("3", Some("c")), ("4", None)]);
    let key = learnt(&scene).learnt().key(b"3").word();
    assert_eq!(forget(&mut scene, Forget::Key(key)), Ok(1));
    assert_eq!(forget(&mut scene, Forget::Key(key)), Ok(0));
    bind(&scene, "1", "b");
    assert_eq!(forget(&mut scene, Forget::All), Ok(1));
    check(&scene, &[("1", None)]);
    let why = forget(&mut scene, Forget::Server("x".to_owned())).unwrap_err();
    assert!(why.contains("`x`"), "{why}");
    assert_eq!(scene.log.last().unwrap(), "all clients forgotten: 1");
}

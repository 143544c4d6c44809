//! Slow start, priorities and backups over time: what a server's part of the traffic is, and how often views change.

use super::*;

const CHECK: &str = "health_check: { path: /health, interval: 1s, timeout: 500ms }";

fn traffic(scene: &Scene, server: &str) -> f64 {
    let view = scene.world.pools[0].view();
    let found = view
        .standings
        .iter()
        .find(|standing| &*standing.member.name == server);
    (found.unwrap().traffic * 1000.0).round() / 1000.0
}

fn two(settings: &str) -> String {
    site(&format!(
        "servers: [{{ name: a, address: '10.0.0.1:80' }}, {{ name: b, address: '10.0.0.2:80' }}], {CHECK}, {settings}"
    ))
}

#[test]
fn a_server_that_comes_back_is_given_its_weight_little_by_little() {
    let mut scene = Scene::running(&two("slow_start: 20s"));
    assert_eq!(
        traffic(&scene, "b"),
        0.5,
        "a pool that begins has no slow start"
    );
    scene.fate("b", refused());
    scene.pass(5000);
    assert_eq!(traffic(&scene, "b"), 0.0);
    scene.fate("b", Outcome::Success);
    let mut seen = Vec::new();
    let mut versions = scene.world.pools[0].version();
    let before = versions;
    for _ in 0..2600 {
        scene.pass(10);
        let now = traffic(&scene, "b");
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        versions = scene.world.pools[0].version();
    }
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
    assert_eq!(seen[1], 0.091, "a tenth of its weight beside a whole one");
    assert_eq!(seen.last(), Some(&0.5));
    assert!(
        versions - before <= 24,
        "{} views for 20 steps",
        versions - before
    );
}

#[test]
fn a_pool_that_is_down_as_a_whole_comes_back_as_equals() {
    let mut scene = Scene::running(&two("slow_start: 20s"));
    for server in ["a", "b"] {
        scene.fate(server, refused());
    }
    scene.pass(5000);
    for server in ["a", "b"] {
        scene.fate(server, Outcome::Success);
    }
    scene.pass(6000);
    assert!(
        (0.45..0.55).contains(&traffic(&scene, "a")),
        "{}",
        traffic(&scene, "a")
    );
}

#[test]
fn a_change_of_health_does_not_wait_for_a_step() {
    let mut scene = Scene::running(&two("slow_start: 10h"));
    scene.fate("b", refused());
    scene.pass(5000);
    scene.fate("b", Outcome::Success);
    scene.pass(5000);
    assert_eq!(traffic(&scene, "b"), 0.091);
    scene.fate("b", refused());
    scene.pass(5000);
    assert_eq!(traffic(&scene, "b"), 0.0);
}

#[test]
fn a_backup_waits_for_the_first_probes_of_the_others() {
    let servers = "servers: [{ name: a, address: '10.0.0.1:80' }, { name: b, address: '10.0.0.2:80', backup: true }]";
    let mut scene = Scene::start(&site(&format!("{servers}, {CHECK}")));
    scene.fate("a", None);
    scene.pass(300);
    assert_eq!((traffic(&scene, "a"), traffic(&scene, "b")), (1.0, 0.0));

    scene.fate("a", refused());
    scene.pass(10_000);
    // The probe that is out never ends; real traffic finds the server down.
    let id = scene.world.pools[0].view().standings[0].member.id;
    let now = scene.now;
    scene
        .publisher
        .handle_event(Event::Refused { member: id }, now);
    scene.pass(100);
    assert_eq!((traffic(&scene, "a"), traffic(&scene, "b")), (0.0, 1.0));

    // One that a reload brings has to be probed before it takes over from the backup.
    scene.fate("c", None);
    let more = servers.replace("[{", "[{ name: c, address: '10.0.0.3:80' }, {");
    scene.reload(&site(&format!("{more}, {CHECK}")));
    scene.pass(300);
    assert_eq!((traffic(&scene, "c"), traffic(&scene, "b")), (0.0, 1.0));
}

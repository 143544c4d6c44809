//! Whose keys are whose: clients bound by hashes heed backups, priorities and zones, and move no more than they must.

use super::*;
use crate::affinity::{Bond, Tie};
use crate::reason::Reason;

const KEYS: u64 = 3000;

/// A pool of `a`, `b` and `c`, which have these keys of their own.
fn pool(each: [&str; 3], settings: &str) -> String {
    let servers = ["a", "b", "c"].into_iter().zip(each).enumerate();
    let servers = servers
        .map(|(at, (name, keys))| format!("{{ name: {name}, address: '10.0.0.{at}:80', {keys} }}"));
    let servers: Vec<_> = servers.collect();
    let config = site(&format!(
        "affinity: source, health_check: {{ path: / }}, servers: [{}], {settings}",
        servers.join(", ")
    ));
    format!("zone: near\n{config}")
}

const BACKUP: [&str; 3] = ["", "", "backup: true"];
const PRIORITY: [&str; 3] = ["", "", "priority: 1"];
const ZONES: [&str; 3] = ["zone: near", "zone: near", "zone: far"];

impl Scene {
    /// Where each key goes; `None`: it is refused.
    fn homes(&self) -> Vec<Option<Arc<str>>> {
        let keys = (0..KEYS).map(|key| balance::hash_key(&key.to_le_bytes()));
        let picked = keys.map(|key| match self.pick(&Bond::to(Tie::Key(key))) {
            Ok(lease) => Some(lease.member.name.clone()),
            Err(Reason::AffinityServerUnavailable) => None,
            Err(reason) => panic!("{reason:?}"),
        });
        picked.collect()
    }

    /// How many percent of the keys each server has.
    fn spread(&self) -> [f64; 3] {
        let homes = self.homes();
        ["a", "b", "c"].map(|name| {
            let here = homes.iter().filter(|home| home.as_deref() == Some(name));
            here.count() as f64 / KEYS as f64 * 100.0
        })
    }

    fn kill(&mut self, server: &str) {
        self.fate(server, refused());
        self.pass(60_000);
    }

    fn revive(&mut self, server: &str) {
        self.fate(server, Outcome::Success);
        self.pass(60_000);
    }
}

/// Each server has so many percent of the keys, within `off`.
fn check(scene: &Scene, expected: [f64; 3], off: f64) {
    let spread = scene.spread();
    let near = |(found, wanted): (&f64, &f64)| match *wanted {
        0.0 => *found == 0.0,
        wanted => (found - wanted).abs() <= off,
    };
    assert!(
        spread.iter().zip(&expected).all(near),
        "{spread:?}, not {expected:?}"
    );
}

/// No key has left a server but this one.
fn left_only(before: &[Option<Arc<str>>], after: &[Option<Arc<str>>], server: &str) {
    let moved = before
        .iter()
        .zip(after)
        .filter(|(before, after)| before != after);
    for (before, after) in moved {
        assert_eq!(before.as_deref(), Some(server), "to {after:?}");
    }
}

#[test]
fn keys_go_to_backups_only_while_nobody_else_is_fit() {
    let mut scene = Scene::running(&pool(BACKUP, ""));
    check(&scene, [50.0, 50.0, 0.0], 5.0);
    let well = scene.homes();
    scene.kill("a");
    check(&scene, [0.0, 100.0, 0.0], 0.0);
    scene.kill("b");
    check(&scene, [0.0, 0.0, 100.0], 0.0);
    scene.revive("a");
    check(&scene, [100.0, 0.0, 0.0], 0.0);
    scene.revive("b");
    assert_eq!(scene.homes(), well, "each is back");
}

#[test]
fn keys_overflow_to_the_next_priority_and_the_others_stay() {
    let mut scene = Scene::running(&pool(PRIORITY, ""));
    check(&scene, [50.0, 50.0, 0.0], 5.0);
    let well = scene.homes();
    scene.kill("a");
    check(&scene, [0.0, 70.0, 30.0], 5.0);
    left_only(&well, &scene.homes(), "a");
    scene.kill("b");
    check(&scene, [0.0, 0.0, 100.0], 0.0);
    scene.revive("b");
    scene.revive("a");
    assert_eq!(scene.homes(), well, "each is back");
}

#[test]
fn keys_stay_in_the_own_zone_as_far_as_it_bears_them() {
    let mut scene = Scene::running(&pool(ZONES, "zones: prefer_own"));
    check(&scene, [50.0, 50.0, 0.0], 5.0);
    let well = scene.homes();
    scene.kill("a");
    // A third of the weight, for half of the traffic, times 1.4.
    check(&scene, [0.0, 93.3, 6.7], 5.0);
    left_only(&well, &scene.homes(), "a");
    scene.kill("b");
    check(&scene, [0.0, 0.0, 100.0], 0.0);
    // What always spills over has its own part of the keys.
    let spills = pool(
        ["zone: near", "zone: far", "zone: far"],
        "zones: prefer_own",
    );
    let scene = Scene::running(&spills);
    check(&scene, [93.3, 3.3, 3.3], 2.0);
}

#[test]
fn a_server_that_warms_up_gets_its_keys_from_those_who_stood_in() {
    for (each, expected) in [
        (["", "", ""], [4.8, 47.6, 47.6]),
        (PRIORITY, [7.0, 70.0, 23.0]),
        (BACKUP, [9.1, 90.9, 0.0]),
    ] {
        let mut scene = Scene::running(&pool(each, "slow_start: 10h"));
        let well = scene.homes();
        scene.kill("a");
        let without = scene.homes();
        left_only(&well, &without, "a");
        scene.revive("a");
        check(&scene, expected, 5.0);
        left_only(&well, &scene.homes(), "a");
        scene.pass(10 * 3_600_000);
        assert_eq!(scene.homes(), well, "each is back");
    }
}

#[test]
fn a_required_server_that_is_out_has_no_stand_in_of_any_kind() {
    for each in [BACKUP, PRIORITY, ZONES] {
        let config = pool(each, "zones: prefer_own");
        let config = config.replace("source", "{ source: { strength: required } }");
        let mut scene = Scene::running(&config);
        let well = scene.homes();
        scene.kill("a");
        let homes = scene.homes();
        left_only(&well, &homes, "a");
        assert!(
            well.iter()
                .zip(homes)
                .all(|(before, after)| { after.is_none() == (before.as_deref() == Some("a")) })
        );
        scene.revive("a");
        assert_eq!(scene.homes(), well);
    }
}

#[test]
fn a_server_that_does_badly_keeps_its_keys() {
    let mut scene = Scene::running(&pool(PRIORITY, ""));
    let well = scene.homes();
    for _ in 0..10 {
        scene.count("b", 100, 0);
        scene.count("a", 80, 20);
        scene.pass(1000);
    }
    assert!(
        scene.health("a").starts_with("degraded"),
        "{}",
        scene.health("a")
    );
    assert_eq!(scene.homes(), well);
}

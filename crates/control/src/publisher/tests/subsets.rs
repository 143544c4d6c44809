//! Parts of a pool, as routes choose them by label.

use super::*;
use crate::live::PoolState;

/// Two of `v1`, one of `v2`, one without labels; a route for each version.
fn config(settings: &str) -> String {
    let servers = [
        "{ name: a, address: '10.0.0.1:80', labels: { version: v1 } }",
        "{ name: b, address: '10.0.0.2:80', labels: { version: v1 } }",
        "{ name: c, address: '10.0.0.3:80', labels: { version: v2 } }",
        "{ name: d, address: '10.0.0.4:80' }",
    ];
    format!(
        "listeners:
  web:
    bind: '127.0.0.1:8080'
    routes:
      - {{ match: {{ path: /1 }}, pool: {{ name: site, labels: {{ version: v1 }} }} }}
      - {{ match: {{ path: /2 }}, pool: {{ name: site, labels: {{ version: v2 }} }} }}
      - pool: site
pools: {{ site: {{ servers: [{}], {settings} }} }}
",
        servers.join(", ")
    )
}

/// Names of the servers that each part uses, and whether it is in panic.
fn part(scene: &Scene, version: &str) -> (Vec<String>, bool) {
    shown(&state(scene, version))
}

fn state(scene: &Scene, version: &str) -> Arc<PoolState> {
    let mut parts = scene.world.subsets[0].iter();
    let wanted = format!("version={version}");
    let found = parts.find(|part| part.labels.as_ref().unwrap().to_string() == wanted);
    found.unwrap_or_else(|| panic!("no {wanted}")).clone()
}

fn shown(state: &PoolState) -> (Vec<String>, bool) {
    let view = state.view();
    let names = view.members.iter().map(|member| member.name.to_string());
    (names.collect(), view.panic)
}

fn names(names: &str) -> Vec<String> {
    names.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn each_part_has_its_servers_and_shares_them_with_the_pool() {
    let scene = Scene::running(&config(""));
    assert_eq!(scene.usable(), names("a b c d"));
    assert_eq!(part(&scene, "v1"), (names("a b"), false));
    assert_eq!(part(&scene, "v2"), (names("c"), false));
    let of_part = state(&scene, "v2").view().members[0].clone();
    assert!(Arc::ptr_eq(&of_part, &scene.member("c")));
    let (whole, part) = (&scene.world.pools[0], state(&scene, "v2"));
    assert!(Arc::ptr_eq(&whole.budget, &part.budget));
    assert!(Arc::ptr_eq(&whole.gate, &part.gate));
    assert!(Arc::ptr_eq(&whole.stats, &part.stats));
    assert_eq!(&*part.shown(), "site (version=v2)");
}

#[test]
fn a_part_heeds_health_weight_and_state_as_its_pool_does() {
    let mut scene = Scene::running(&config(""));
    scene.refuse("a");
    assert_eq!(part(&scene, "v1"), (names("b"), false));
    scene.set("b", State::Drain, None);
    // Who refuses serves when no other one of its part is left, though the pool has others.
    assert_eq!(part(&scene, "v1"), (names("a"), true));
    assert_eq!(scene.usable(), names("c d"));
    assert!(scene.log.contains(&"panic true".to_owned()));
    let member = scene.member("a");
    let group = state(&scene, "v1").group;
    assert!(member.serves(group) && !member.serves(0));
    scene.set("b", State::Ready, None);
    assert_eq!(part(&scene, "v1"), (names("b"), false));
    assert!(!member.serves(group));
    scene.set("c", None, 0);
    assert_eq!(part(&scene, "v2"), (Vec::new(), false));
    assert!(!scene.world.pools[0].view().panic);
}

#[test]
fn backups_and_priorities_count_within_a_part() {
    let mut scene =
        Scene::running(&config("").replace("'10.0.0.2:80',", "'10.0.0.2:80', backup: true,"));
    assert_eq!(shown(&scene.world.pools[0]).0, names("a c d"));
    assert_eq!(part(&scene, "v1"), (names("a"), false));
    scene.refuse("a");
    assert_eq!(part(&scene, "v1"), (names("b"), false));
    assert_eq!(state(&scene, "v1").view().standings.len(), 2);
}

#[test]
fn a_reload_moves_servers_between_parts_and_keeps_what_they_are() {
    let mut scene = Scene::running(&config(""));
    let (member, before) = (scene.member("b"), state(&scene, "v2"));
    member.cell.acquire(None).unwrap();
    let moved = config("").replace(
        "'10.0.0.2:80', labels: { version: v1 }",
        "'10.0.0.2:80', labels: { version: v2 }",
    );
    let changes = scene.reload(&moved);
    assert_eq!(
        changes.to_string(),
        "1 pool changed, 1 server changed; 0 of 0 connections affected"
    );
    assert_eq!(part(&scene, "v1"), (names("a"), false));
    assert_eq!(part(&scene, "v2"), (names("b c"), false));
    assert!(
        Arc::ptr_eq(&before, &state(&scene, "v2")),
        "it is the same part"
    );
    assert!(Arc::ptr_eq(&member, &scene.member("b")));
    assert_eq!(member.cell.in_use(), 1);
    assert_eq!(&*scene.view().standings[1].cause, "passes its probes");
}

/// A worker may route by the config before for a moment: what it leads to then is served.
#[test]
fn a_part_that_a_reload_lets_go_of_serves_who_was_routed_to_it() {
    let mut scene = Scene::running(&config(""));
    let old = state(&scene, "v2");
    let group = old.group;
    let next = config("").replace("version: v2", "version: v3");
    scene.reload(&next);
    assert_eq!(part(&scene, "v3"), (names("c"), false));
    assert_eq!(shown(&old), (names("c"), false));
    assert!(scene.member("c").serves(group));
    // Its one server goes: any other one is better than none.
    let gone = next.replace(
        "name: c, address: '10.0.0.3:80'",
        "name: e, address: '10.0.0.5:80'",
    );
    scene.reload(&gone);
    scene.pass(1000);
    assert_eq!(part(&scene, "v3"), (names("e"), false));
    assert_eq!(shown(&old), (names("a b e d"), false));
    // Nobody holds it any more.
    drop(old);
    scene.set("a", None, 5);
    assert_eq!(scene.publisher.pools["site"].subsets.len(), 2);
    assert!(!scene.member("a").serves(group));
    // The same labels again are another part, under another number.
    scene.reload(&config(""));
    assert_ne!(state(&scene, "v2").group, group);
}

#[test]
fn a_pool_without_parts_has_none() {
    let scene = Scene::running(&site("servers: ['10.0.0.1:80']"));
    assert!(scene.world.subsets[0].is_empty());
    assert!(!scene.view().divided);
    assert!(!scene.member("10.0.0.1:80").serves(1));
}

/// Who waits for a part gets none but its servers, and holds nobody up at the others.
#[test]
fn who_waits_for_a_part_gets_its_servers() {
    use crate::gate::Lease;
    use std::task::{Context, Poll, Waker};

    let settings = "limits: { connections_per_server: 1 }";
    let mut scene = Scene::running(&config(settings));
    let (v1, v2) = (state(&scene, "v1"), state(&scene, "v2"));
    let [a, c] = ["a", "c"].map(|name| scene.member(name));
    let held = Lease::take(&c).unwrap();
    let view = || v2.view().members.clone();
    let ticket = v2.gate.enter(5, &[], v2.group, 9, view).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(ticket.poll(&mut cx).is_pending());
    // A change has everybody looked at again.
    scene.set("d", None, 7);
    assert!(ticket.poll(&mut cx).is_pending());
    let other = Lease::take(&a).unwrap();
    drop(other);
    drop(held);
    let Poll::Ready(balance::queue::Ended::Granted(lease)) = ticket.poll(&mut cx) else {
        panic!("it waits still")
    };
    assert_eq!(&*lease.member.name, "c");
    drop(lease);
    drop(ticket);

    // Those for whom no server is left wait no longer.
    let held = Lease::take(&c).unwrap();
    let ticket = v2
        .gate
        .enter(5, &[], v2.group, 9, || v2.view().members.clone())
        .unwrap();
    scene.set("c", State::Disabled, None);
    assert!(matches!(
        ticket.poll(&mut cx),
        Poll::Ready(balance::queue::Ended::Unservable)
    ));
    drop(held);
    assert_eq!(v1.gate.waiting(), 0);
}

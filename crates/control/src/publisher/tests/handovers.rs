//! What one process knows reaches the next, whichever of the two is the newer version.

use super::*;
use crate::handover::Live;

const TWO: &str = "servers: ['10.0.0.1:80', { name: b, address: '10.0.0.2:80', weight: 4 }]";

/// A publisher that was told `live` before it took the config up.
pub(super) fn succeed(live: Live, config: &str) -> Scene {
    let mut publisher = Publisher::new(3, 9);
    let now = Duration::from_secs(5);
    publisher.take_over(live, now);
    let (world, _) = publisher.apply(snapshot(config), now);
    let mut scene = Scene {
        publisher,
        now,
        world,
        fates: BTreeMap::new(),
        probes: Vec::new(),
        asked: Vec::new(),
        log: Vec::new(),
        lines: BTreeMap::new(),
        agents_asked: 0,
        cuts: Vec::new(),
        idle_closed: Vec::new(),
        severed: Vec::new(),
    };
    scene.take_actions();
    scene
}

/// Name, verdict, state, weight and cause of each server of `site`.
fn standings(scene: &Scene) -> Vec<String> {
    let view = scene.world.pools[0].view();
    let line = |it: &crate::live::Standing| {
        let state = it.member.cell.state();
        format!(
            "{} {} {state} {} {}",
            it.member.name, it.verdict, it.weight, it.cause
        )
    };
    view.standings.iter().map(line).collect()
}

fn set(scene: &mut Scene, server: &str, state: Option<State>, weight: Option<u32>) {
    let now = scene.now;
    scene
        .publisher
        .handle_set("site", server, state, weight, Box::new(|_| {}), now);
    scene.take_actions();
}

#[test]
fn the_next_process_knows_what_the_one_before_knew() {
    let mut scene = Scene::start(&site(TWO));
    scene.fate("10.0.0.1:80", refused());
    scene.pass(15_000);
    set(&mut scene, "b", Some(State::Drain), Some(7));
    let cell = &scene.world.pools[0].view().standings[1].member.cell;
    cell.record_latency(scene.now, Duration::from_millis(40));
    let live = scene.publisher.live(scene.now);
    let expected = [
        "10.0.0.1:80 unhealthy ready 1 connection refused",
        "b healthy drain 7 passes its probes",
    ];
    assert_eq!(standings(&scene), expected);

    let mut next = succeed(live.clone(), &site(TWO));
    assert_eq!(standings(&next), expected);
    let cell = next.world.pools[0].view().standings[1].member.cell.clone();
    assert!(cell.latency().abs_diff(Duration::from_millis(40)) < Duration::from_millis(1));
    assert_eq!(next.probes.len(), 0, "nothing is probed before its time");
    next.pass(12_000);
    assert!(
        next.probes
            .iter()
            .any(|(_, probe)| probe.endpoint.to_string() == "10.0.0.2:80")
    );

    // Told again when it runs already, the newer word counts.
    set(&mut scene, "b", Some(State::Ready), None);
    next.publisher
        .take_over(scene.publisher.live(scene.now), next.now);
    assert!(standings(&next)[1].starts_with("b healthy ready 7"));
}

#[test]
fn a_weight_of_the_config_that_changed_ends_the_operators() {
    let mut scene = Scene::running(&site(TWO));
    set(&mut scene, "b", Some(State::Disabled), Some(7));
    let words = scene.publisher.words();
    let next = succeed(words, &site(&TWO.replace("weight: 4", "weight: 5")));
    assert!(standings(&next)[1].starts_with("b unknown disabled 5"));
    assert!(
        next.publisher
            .words()
            .servers
            .iter()
            .all(|it| it.weight.is_none())
    );
}

#[test]
fn words_of_a_server_that_the_config_lets_go_of_end() {
    let mut scene = Scene::running(&site(TWO));
    set(&mut scene, "b", Some(State::Drain), None);
    let words = scene.publisher.words();
    let one = site("servers: ['10.0.0.1:80']");
    let mut next = succeed(words, &one);
    assert!(next.publisher.words().servers.is_empty());
    next.reload(&site(TWO));
    assert!(standings(&next)[1].starts_with("b unknown ready 4"));
}

#[test]
fn words_on_a_name_wait_for_its_addresses() {
    let config = site("servers: [{ name: api, address: 'api.internal:80' }]");
    let live: Live = serde_json::from_str(
        r#"{"servers": [{"pool": "site", "server": "api", "state": "drain"}]}"#,
    )
    .unwrap();
    let mut next = succeed(live.clone(), &config);
    assert_eq!(next.publisher.words(), live);
    next.publisher.handle_event(
        Event::Resolved {
            name: "api.internal".into(),
            answer: Ok((
                addresses(&["10.0.0.1", "10.0.0.2"]),
                Duration::from_secs(60),
            )),
        },
        next.now,
    );
    next.pass(100);
    assert!(
        standings(&next).iter().all(|it| it.contains(" drain ")),
        "{:?}",
        standings(&next)
    );
    // The names that were known are known at once to the next one.
    let live = next.publisher.live(next.now);
    let third = succeed(live, &config);
    assert_eq!(standings(&third).len(), 2);
    assert!(third.asked.is_empty());
}

/// The first version of the document, as it stood; every later one must read it.
const FIRST: &str = r#"{
  "servers": [
    {"pool": "site", "server": "10.0.0.1:80", "address": "10.0.0.1:80",
     "health": {"verdict": "unhealthy", "answers": false, "cause": "connection refused", "age_ms": 1500}},
    {"pool": "site", "server": "b", "address": "10.0.0.2:80", "state": "drain", "weight": 7, "file_weight": 4,
     "health": {"verdict": "healthy", "answers": true, "age_ms": 900}, "latency_ns": 40000000, "peak_latency_ns": 50000000}
  ],
  "names": [{"name": "api.internal", "addresses": ["10.0.0.9"], "due_ms": 1000}]
}"#;

#[test]
fn documents_of_a_version_before_and_after_are_read() {
    let first: Live = serde_json::from_str(FIRST).unwrap();
    assert_eq!(
        standings(&succeed(first.clone(), &site(TWO))),
        [
            "10.0.0.1:80 unhealthy ready 1 connection refused",
            "b healthy drain 7 passes its probes",
        ]
    );
    let again: Live = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
    assert_eq!(again, first);

    // Parts and words that this version does not know are passed over; what is missing has its default.
    let next: Live = serde_json::from_str(
        r#"{"sites": {"eu": 1}, "servers": [
            {"pool": "site", "server": "10.0.0.1:80", "address": "10.0.0.1:80", "state": "resting", "zone": "eu-1a",
             "health": {"verdict": "limping", "ejected": {"times": 3}}},
            {"pool": "site", "server": "b", "address": "10.0.0.2:80", "state": "disabled"},
            {"pool": "gone", "server": "c"}
        ]}"#,
    )
    .unwrap();
    assert_eq!(
        standings(&succeed(next, &site(TWO))),
        [
            "10.0.0.1:80 unknown ready 1 no probe has ended yet",
            "b unknown disabled 4 no probe has ended yet",
        ]
    );
    let empty: Live = serde_json::from_str("{}").unwrap();
    assert_eq!(empty, Live::default());
}

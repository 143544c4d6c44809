//! What one process knows reaches the next, whichever of the two is the newer version.

use balance::OnDrain;

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
        forwarded: Vec::new(),
        obeyed: Vec::new(),
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
    let words = scene.publisher.words(scene.now);
    let next = succeed(words, &site(&TWO.replace("weight: 4", "weight: 5")));
    assert!(standings(&next)[1].starts_with("b unknown disabled 5"));
    assert!(
        next.publisher
            .words(next.now)
            .servers
            .iter()
            .all(|it| it.weight.is_none())
    );
}

#[test]
fn words_of_a_server_that_the_config_lets_go_of_end() {
    let mut scene = Scene::running(&site(TWO));
    set(&mut scene, "b", Some(State::Drain), None);
    let words = scene.publisher.words(scene.now);
    let one = site("servers: ['10.0.0.1:80']");
    let mut next = succeed(words, &one);
    assert!(next.publisher.words(next.now).servers.is_empty());
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
    assert_eq!(next.publisher.words(next.now), live);
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

#[test]
fn a_drain_goes_on_to_its_deadline_in_the_next_process() {
    let config = site(
        "affinity: { cookie: S }, servers: [{ name: a, address: '10.0.0.1:80' }, { name: b, address: '10.0.0.2:80' }]",
    );
    let mut scene = Scene::running(&config);
    let answers = scene.drain("a", 10_000);
    scene.pass(4000);
    let bound = |member: &Member| member.cell.acquire_by_affinity(None, OnDrain::Keep);
    bound(&scene.member("a")).unwrap();
    let live = scene.publisher.live(scene.now);
    scene.publisher.hand_drains_over();
    scene.take_actions();
    assert!(matches!(answers.try_recv(), Ok(Answer::GoesOnElsewhere)));
    // Its own clients stay until its last quarter, and what is in use is cut when it was to be.
    scene.pass(3400);
    assert!(!scene.member("a").is_drained() && scene.cuts.is_empty());
    scene.pass(2100);
    assert!(scene.member("a").is_drained() && scene.cuts.is_empty());
    scene.pass(600);
    assert_eq!(scene.cuts, [scene.member("a").id]);

    // Where another word ends it before anybody has asked for it, that is told.
    let mut other = succeed(live.clone(), &config);
    other.set("a", State::Disabled, None);
    let wait = |next: &mut Scene, server: &str| {
        let (reply, answers) = reply();
        next.publisher.handle_drain_wait("site", server, reply);
        next.take_actions();
        answers
    };
    assert_eq!(receipt(&wait(&mut other, "a")).left, Some(0));

    let mut next = succeed(live.clone(), &config);
    // It is told once before it is ready, and once when it is.
    next.publisher.take_over(live, next.now);
    let a = next.member("a");
    bound(&a).unwrap();
    next.pass(4400);
    assert!(!a.is_drained() && next.cuts.is_empty());
    next.pass(1100);
    assert!(a.is_drained() && next.cuts.is_empty());
    next.pass(600);
    assert_eq!(next.cuts, [a.id]);
    assert!(a.is_drained());
    a.cell.release();
    next.pass(200);
    // Whoever waited for it asks late, and more than one may have.
    for _ in 0..2 {
        let receipt = receipt(&wait(&mut next, "a"));
        assert_eq!((receipt.new_picks, receipt.affinity_picks), (0, 1));
        assert_eq!(receipt.cut.iter().map(|cut| cut.count).sum::<u64>(), 1);
        assert!((10_000..10_400).contains(&receipt.took_ms), "{receipt:?}");
    }
    let is_unknown =
        |answers: &Receiver<Answer>| matches!(answers.try_recv(), Ok(Answer::NotFound(_)));
    assert!(is_unknown(&wait(&mut next, "b")));

    // That it is over is known to the one after that, and nobody waits there.
    let mut last = succeed(next.publisher.live(next.now), &config);
    assert!(last.member("a").is_drained());
    assert!(is_unknown(&wait(&mut last, "a")));
    // Another word is the end of it.
    next.set("a", State::Ready, None);
    assert!(is_unknown(&wait(&mut next, "a")));
    assert_eq!(next.publisher.live(next.now).servers[0].drain, None);
}

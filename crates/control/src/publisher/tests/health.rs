//! Probes, verdicts, and who may serve.

use super::*;

const TWO: &str = "servers: [{ name: a, address: '10.0.0.1:80' }, { name: b, address: '10.0.0.2:80' }], health_check: { path: /health, interval: 10s, timeout: 5s }";

#[test]
fn the_unknown_serve_until_one_is_known() {
    let mut scene = Scene::start(&site(TWO));
    assert_eq!(scene.usable(), ["a", "b"]);
    assert_eq!(&*scene.view().standings[0].cause, "no probe has ended yet");

    scene.fate("b", None);
    scene.pass(300);
    assert_eq!(scene.usable(), ["a"]);
    assert_eq!(scene.log, ["a: unknown -> healthy, passes its probes"]);
}

#[test]
fn first_probes_are_staggered_and_later_ones_part() {
    let servers: Vec<_> = (1..=20).map(|n| format!("'10.0.0.{n}:80'")).collect();
    let mut scene = Scene::start(&site(&format!("servers: [{}]", servers.join(", "))));
    let since = scene.now;
    scene.pass(60_000);
    let mut first = Vec::new();
    for n in 1..=20 {
        let times = scene.probed(&format!("10.0.0.{n}:80"), since);
        first.push(times[0]);
        assert!(times[0] <= 200, "{times:?}");
        assert!(
            (1000..=10_200).contains(&(times[1] - times[0])),
            "{times:?}"
        );
        for pair in times[1..].windows(2) {
            assert!((9000..=11_000).contains(&(pair[1] - pair[0])), "{times:?}");
        }
    }
    first.sort_unstable();
    first.dedup();
    assert!(first.len() > 12, "probed in a burst: {first:?}");
}

#[test]
fn one_probe_of_a_server_is_out_at_a_time() {
    let mut scene = Scene::start(&site(TWO));
    scene.fate("a", None);
    let since = scene.now;
    scene.pass(60_000);
    assert_eq!(scene.probed("a", since).len(), 1);
}

#[test]
fn thresholds_decide_and_the_cause_is_told() {
    let mut scene = Scene::running(&site(TWO));
    scene.log.clear();
    scene.fate("a", bad_status());
    scene.pass(21_000);
    assert_eq!(scene.usable(), ["a", "b"], "two failures are not three");
    scene.pass(12_000);
    assert_eq!(scene.usable(), ["b"]);
    scene.fate("a", Outcome::Success);
    let since = scene.now;
    scene.pass(5000);
    assert_eq!(scene.usable(), ["a", "b"]);
    assert!(
        scene.probed("a", since).len() >= 2,
        "probed every 2 s while down"
    );
    assert_eq!(
        scene.log,
        [
            "a: healthy -> unhealthy, 503 where 200-299 was expected",
            "a: unhealthy -> healthy, passes its probes"
        ]
    );
}

#[test]
fn refused_by_traffic_is_out_at_once_and_back_after_one_success() {
    let mut scene = Scene::running(&site(TWO));
    scene.pass(100);
    scene.log.clear();
    let since = scene.now;
    scene.refuse("a");
    assert_eq!(scene.usable(), ["b"]);
    assert_eq!(scene.log, ["a: healthy -> unhealthy, connection refused"]);
    scene.pass(2500);
    assert_eq!(scene.usable(), ["a", "b"]);
    assert_eq!(scene.probed("a", since).len(), 1);
    // The next refusal is a message again.
    scene.refuse("a");
    assert_eq!(scene.usable(), ["b"]);
}

#[test]
fn all_refused_is_a_panic_that_lets_traffic_try_them() {
    let mut scene = Scene::running(&site(TWO));
    scene.fate("a", refused());
    scene.fate("b", refused());
    scene.pass(100);
    scene.refuse("a");
    scene.pass(100);
    scene.refuse("b");
    assert_eq!(scene.usable(), ["a", "b"]);
    assert!(scene.view().panic);
}

#[test]
fn in_panic_those_that_answer_serve_and_those_that_refuse_do_not() {
    let mut scene = Scene::running(&site(TWO));
    scene.log.clear();
    scene.fate("a", bad_status());
    scene.fate("b", refused());
    scene.pass(45_000);
    assert_eq!(scene.usable(), ["a"]);
    assert!(scene.view().panic);
    // The other begins to answer, badly: it may share.
    scene.fate("b", bad_status());
    scene.pass(3000);
    assert_eq!(scene.usable(), ["a", "b"]);
    scene.fate("b", Outcome::Success);
    scene.pass(6000);
    assert_eq!(scene.usable(), ["b"]);
    let panics: Vec<_> = scene
        .log
        .iter()
        .filter(|it| it.starts_with("panic"))
        .collect();
    assert_eq!(panics, ["panic true", "panic false"]);
}

#[test]
fn initial_says_what_a_server_is_before_its_first_probe() {
    let with = |initial: &str| {
        site(&TWO.replace("timeout: 5s", &format!("timeout: 5s, initial: {initial}")))
    };
    assert_eq!(Scene::start(&with("healthy")).usable(), ["a", "b"]);
    assert!(!Scene::start(&with("healthy")).view().panic);
    // Nobody else is there: traffic has to go somewhere, but that is a panic.
    let mut scene = Scene::start(&with("unhealthy"));
    assert!(scene.view().panic);
    scene.fate("b", None);
    scene.pass(300);
    assert!(scene.view().panic, "two successes are needed");
    scene.pass(3000);
    assert_eq!(
        (scene.usable(), scene.view().panic),
        (vec!["a".to_owned()], false)
    );
}

#[test]
fn views_are_built_once_in_ten_milliseconds_however_much_happens() {
    let servers: Vec<_> = (1..=100).map(|n| format!("'10.0.0.{n}:80'")).collect();
    let mut scene = Scene::running(&site(&format!("servers: [{}]", servers.join(", "))));
    scene.pass(100);
    let pool = scene.world.pool("site").unwrap().1.clone();
    let before = pool.version();
    for n in 2..=100 {
        scene.refuse(&format!("10.0.0.{n}:80"));
    }
    assert_eq!(
        pool.version() - before,
        1,
        "the first change is seen at once"
    );
    assert_eq!(scene.usable().len(), 99);
    scene.pass(10);
    assert_eq!(pool.version() - before, 2);
    assert_eq!(scene.usable(), ["10.0.0.1:80"]);
}

#[test]
fn an_answer_to_a_probe_from_before_a_change_is_ignored() {
    let mut scene = Scene::start(&site(TWO));
    scene.fate("a", None);
    scene.pass(300);
    let old = scene
        .probes
        .iter()
        .find(|(_, it)| it.member == scene.member("a").id);
    let old = old.unwrap().1.clone();
    scene.reload(&site(&TWO.replace("/health", "/other")));
    scene.event(Event::Probed {
        member: old.member,
        probe: old.number,
        outcome: Outcome::Success,
    });
    assert_eq!(scene.usable(), ["b"], "a is as unknown as before");
    scene.fate("a", Outcome::Success);
    scene.pass(300);
    assert_eq!(scene.usable(), ["a", "b"]);
}

#[test]
fn a_probe_that_could_not_be_sent_says_nothing_of_its_server() {
    let mut scene = Scene::start(&site(TWO));
    scene.pass(300);
    assert_eq!(scene.usable(), ["a", "b"]);
    scene.fate("a", None);
    scene.pass(15_000);
    let out = scene
        .probes
        .iter()
        .rev()
        .find(|(_, it)| it.member == scene.member("a").id);
    let out = out.unwrap().1.clone();
    for _ in 0..5 {
        scene.event(Event::NotProbed {
            member: out.member,
            probe: out.number,
        });
    }
    assert_eq!(scene.usable(), ["a", "b"]);
    scene.fate("a", Outcome::Success);
    let before = scene.probes.len();
    scene.pass(1100);
    assert!(scene.probes.len() > before, "it is asked again");
    assert_eq!(scene.usable(), ["a", "b"]);
}

//! What outlives a reload, and what a reload changes.

use super::*;

const SITE: &str = "servers: [{ name: a, address: '10.0.0.1:80', weight: 3 }, { name: b, address: '10.0.0.2:80' }]";

#[test]
fn health_ids_counters_and_words_outlive_a_reload() {
    let mut scene = Scene::running(&site(SITE));
    scene.fate("a", refused());
    scene.pass(40_000);
    scene.set("b", State::Drain, 5);
    scene.member("b").cell.acquire(None).unwrap_err();
    let (a, b) = (scene.member("a"), scene.member("b"));
    let listener = scene.world.listeners[0].clone();
    let probes = scene.probes.len();

    let changes = scene.reload(&site(&SITE.replace("servers", "retries: off, servers")));
    assert_eq!(changes.to_string(), "1 pool changed");
    assert!(Arc::ptr_eq(&a, &scene.member("a")));
    assert!(Arc::ptr_eq(&b, &scene.member("b")));
    assert!(Arc::ptr_eq(&listener, &scene.world.listeners[0]));
    assert_eq!(
        scene.view().standings[0].verdict,
        balance::health::Verdict::Unhealthy
    );
    assert_eq!(scene.member("b").cell.state(), State::Drain);
    assert_eq!(scene.weight("b"), 5);
    assert_eq!(
        scene.probes.len(),
        probes,
        "nobody is probed for a reload's sake"
    );
}

#[test]
fn the_same_config_changes_nothing() {
    let mut scene = Scene::running(&site(SITE));
    let changes = scene.reload(&site(SITE));
    assert!(changes.is_empty(), "{changes}");
    assert_eq!(
        changes.to_string(),
        "no listener, route, pool or server was added or removed"
    );
    assert_eq!(scene.world.generation, 2);
}

#[test]
fn an_added_server_waits_for_its_first_success() {
    let mut scene = Scene::running(&site(SITE));
    scene.fate("c", None);
    let with_c = SITE.replace("}]", "}, { name: c, address: '10.0.0.3:80' }]");
    let changes = scene.reload(&site(&with_c));
    assert_eq!(changes.to_string(), "1 pool changed, 1 server added");
    scene.pass(5000);
    assert_eq!(scene.usable(), ["a", "b"]);
    let probe = scene.probes.last().unwrap().1.clone();
    scene.event(Event::Probed {
        member: probe.member,
        probe: probe.number,
        outcome: Outcome::Success,
    });
    assert_eq!(scene.usable(), ["a", "b", "c"]);
}

#[test]
fn a_removed_server_is_retired_and_no_longer_probed() {
    let mut scene = Scene::running(&site(SITE));
    let b = scene.member("b");
    let changes = scene.reload(&site("servers: [{ name: a, address: '10.0.0.1:80' }]"));
    assert_eq!(changes.to_string(), "1 pool changed, 1 server removed");
    assert!(b.is_retired());
    assert_eq!(scene.usable(), ["a"]);
    let before = scene.probes.len();
    scene.event(Event::Refused { member: b.id });
    scene.pass(60_000);
    assert!(
        scene.probes[before..]
            .iter()
            .all(|(_, probe)| probe.member != b.id)
    );
    // Its name is free for another one, which is not the same.
    scene.reload(&site(SITE));
    assert_ne!(scene.member("b").id, b.id);
}

#[test]
fn a_server_that_moves_is_a_new_one() {
    let mut scene = Scene::running(&site(SITE));
    let a = scene.member("a");
    let changes = scene.reload(&site(&SITE.replace("10.0.0.1", "10.0.0.9")));
    assert_eq!((changes.servers_added, changes.servers_removed), (1, 1));
    assert!(a.is_retired());
    assert_eq!(scene.usable(), ["b"]);
}

#[test]
fn a_weight_set_at_run_time_lasts_until_the_file_has_another() {
    let mut scene = Scene::running(&site(SITE));
    scene.set("a", None, 7);
    assert_eq!(scene.weight("a"), 7);
    scene.reload(&site(&SITE.replace("servers", "retries: off, servers")));
    assert_eq!(scene.weight("a"), 7);
    scene.reload(&site(&SITE.replace("weight: 3", "weight: 4")));
    assert_eq!(scene.weight("a"), 4);
    scene.reload(&site(SITE));
    assert_eq!(scene.weight("a"), 3);
}

#[test]
fn weight_0_takes_no_traffic() {
    let mut scene = Scene::running(&site(SITE));
    scene.set("a", None, 0);
    assert_eq!(scene.usable(), ["b"]);
    scene.set("b", None, 0);
    scene.pass(20);
    assert!(scene.usable().is_empty());
    scene.set("a", None, 1);
    scene.pass(20);
    assert_eq!(scene.usable(), ["a"]);
}

#[test]
fn what_does_not_exist_cannot_be_set() {
    let mut scene = Scene::running(&site(SITE));
    let mut set = |pool: &str, server: &str, weight| {
        let (reply, answers) = reply();
        let now = scene.now;
        scene
            .publisher
            .handle_set(pool, server, None, Some(weight), reply, now);
        scene.take_actions();
        match answers.try_recv() {
            Ok(Answer::NotFound(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(set("sote", "a", 1), "no pool `sote`");
    assert_eq!(set("site", "c", 1), "no server `c` in pool `site`");
    assert_eq!(set("site", "a", 1001), "a weight is 0 to 1000");
}

#[test]
fn another_check_is_tried_at_once_and_the_verdict_stays_until_then() {
    let mut scene = Scene::running(&site(SITE));
    scene.fate("a", None);
    let since = scene.now;
    scene.reload(&site(&format!("{SITE}, health_check: {{ path: /health }}")));
    assert_eq!(scene.usable(), ["a", "b"]);
    scene.pass(300);
    assert_eq!(scene.probed("a", since).len(), 1);
    assert_eq!(scene.usable(), ["a", "b"]);
    scene.reload(&site(&format!("{SITE}, health_check: off")));
    let before = scene.probes.len();
    scene.pass(60_000);
    assert_eq!(scene.probes.len(), before);
}

#[test]
fn changes_are_counted_by_name() {
    let two = "
listeners:
  web: { bind: '127.0.0.1:8080', routes: [{ name: r, match: { path: /x }, pool: site }, { name: s, pool: site }] }
  pg: { bind: '127.0.0.1:5432', protocol: tcp, pool: pg }
pools: { site: { servers: ['10.0.0.1:80'] }, pg: { servers: ['10.0.0.1:5432'] } }
";
    let mut scene = Scene::start(two);
    let other = two
        .replace("127.0.0.1:8080", "127.0.0.1:8081")
        .replace("name: r,", "name: q,");
    let changes = scene.reload(&other);
    assert_eq!(
        changes.to_string(),
        "1 listener moved, 1 route added, 1 route removed"
    );
    let changes = scene.reload(&site("servers: ['10.0.0.1:80']"));
    assert_eq!(changes.listeners_removed, 1);
    assert_eq!((changes.pools_removed, changes.servers_removed), (1, 1));
}

#[test]
fn what_is_learnt_of_a_server_finds_it_wherever_the_file_moved_it() {
    let servers = |names: &str| {
        let number = |name: char| u32::from(name) - u32::from('a') + 1;
        let server = |name| format!("{{ name: {name}, address: '10.0.0.{}:80' }}", number(name));
        let all: Vec<String> = names.chars().map(server).collect();
        site(&format!("servers: [{}]", all.join(", ")))
    };
    let mut scene = Scene::running(&servers("abcd"));
    // The probe of `d` is out while the file changes around it.
    scene.fate("d", None);
    scene.pass(20_000);
    let d = scene.member("d").id;
    let probe = scene.probes.iter().rfind(|(_, probe)| probe.member == d);
    let probe = probe.unwrap().1.number;

    scene.reload(&servers("dxca"));
    scene.pass(1000);
    assert_eq!(scene.usable(), ["d", "x", "c", "a"]);
    scene.refuse("c");
    scene.event(Event::Probed {
        member: d,
        probe,
        outcome: bad_status(),
    });
    // The view of the refusal is some milliseconds old then.
    scene.pass(20);
    let view = scene.view();
    let causes: Vec<_> = view.standings.iter().map(|it| &*it.cause).collect();
    let passes = "passes its probes";
    let answered = "503 where 200-299 was expected";
    assert_eq!(causes, [answered, passes, "connection refused", passes]);
}

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
    assert_eq!(changes.summary(), "1 pool changed");
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
        changes.summary(),
        "no listener, route, pool or server changed"
    );
    assert_eq!(scene.world.generation, 2);
}

#[test]
fn an_added_server_waits_for_its_first_success() {
    let mut scene = Scene::running(&site(SITE));
    scene.fate("c", None);
    let with_c = SITE.replace("}]", "}, { name: c, address: '10.0.0.3:80' }]");
    let changes = scene.reload(&site(&with_c));
    assert_eq!(changes.summary(), "1 pool changed, 1 server added");
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
    assert_eq!(
        changes.summary(),
        "1 pool changed, 1 server removed, 1 server changed"
    );
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
        changes.summary(),
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

/// Two listeners; routes as given.
fn routed(routes: &str) -> String {
    format!(
        "
listeners:
  web:
    bind: '127.0.0.1:8080'
    routes:
{routes}
  pg: {{ bind: '127.0.0.1:5432', protocol: tcp, pool: pg }}
pools: {{ site: {{ servers: ['10.0.0.1:80'] }}, pg: {{ servers: ['10.0.0.1:5432'] }} }}
"
    )
}

#[test]
fn routes_are_compared_by_what_they_say() {
    const FOUR: [&str; 4] = [
        "      - { match: { path: /a/* }, pool: site }",
        "      - { match: { path: '~^/b[0-9]' }, filters: [{ respond: { status: 410 } }] }",
        "      - { name: c, match: { host: c.example }, pool: site }",
        "      - { pool: site }",
    ];
    let check = |routes: &[&str], expected: &str| {
        let mut scene = Scene::start(&routed(&FOUR.join("\n")));
        let changes = scene.reload(&routed(&routes.join("\n")));
        assert_eq!(changes.summary(), expected, "{routes:#?}");
    };
    let [a, b, c, d] = FOUR;
    let new = "      - { match: { path: /new }, pool: site }";
    check(&FOUR, "no listener, route, pool or server changed");
    // Those behind it have other positions, and say what they said.
    check(&[new, a, b, c, d], "1 route added");
    check(&[b, c, d], "1 route removed");
    check(&[a, new, c, d], "1 route changed");
    check(
        &[&a.replace("site", "pg"), b, &c.replace("c.ex", "d.ex"), d],
        "2 routes changed",
    );
    check(
        &[
            a,
            &b.replace("410", "411"),
            &c.replace("name: c", "name: e"),
            d,
        ],
        "1 route added, 1 route removed, 1 route changed",
    );
    check(&[c, a, b, d], "1 route moved");
    check(&[b, &a.replace("/a/", "/z/"), c, d], "1 route changed");
}

#[test]
fn settings_are_told_from_addresses_and_where_things_are_written_does_not_count() {
    let mut scene = Scene::start(&routed("      - { pool: site }"));
    let before = routed("      - { pool: site }");
    let mut check = |text: &str, expected: &str| {
        assert_eq!(scene.reload(text).summary(), expected, "{text}");
        scene.reload(&before);
    };
    check(
        &format!("# a line more\n{before}"),
        "no listener, route, pool or server changed",
    );
    check(
        &before.replace(
            "bind: '127.0.0.1:8080'",
            "bind: '127.0.0.1:8080'\n    timeouts: { header: 3s }",
        ),
        "1 listener changed",
    );
    check(
        &before.replace("protocol: tcp, pool: pg", "protocol: tcp, pool: site"),
        "1 listener changed",
    );
    check(
        &before.replace("['10.0.0.1:80']", "[{ address: '10.0.0.1:80', weight: 3 }]"),
        "1 pool changed, 1 server changed",
    );
    // The pools' order is nobody's business.
    let swapped = before.replace(
        "{ site: { servers: ['10.0.0.1:80'] }, pg: { servers: ['10.0.0.1:5432'] } }",
        "{ pg: { servers: ['10.0.0.1:5432'] }, site: { servers: ['10.0.0.1:80'] } }",
    );
    assert_ne!(swapped, before);
    check(&swapped, "no listener, route, pool or server changed");
}

#[test]
fn connections_are_affected_when_their_listener_goes_or_speaks_something_else() {
    let with_pg = routed("      - { pool: site }");
    let mut scene = Scene::start(&with_pg);
    scene.world.listeners[0]
        .connections
        .store(41_200, std::sync::atomic::Ordering::Relaxed);
    scene.world.listeners[1]
        .connections
        .store(7, std::sync::atomic::Ordering::Relaxed);
    let changes = scene.reload(&with_pg.replace("- { pool: site }", "- { pool: pg }"));
    assert_eq!(
        changes.to_string(),
        "1 route changed; 0 of 41,207 connections affected"
    );
    scene.reload(&with_pg);
    let as_http = with_pg.replace("protocol: tcp, pool: pg", "pool: pg");
    let changes = scene.reload(&as_http);
    assert_eq!(
        (changes.connections, changes.connections_affected),
        (41_207, 7)
    );
    let changes = scene.reload(&site("servers: ['10.0.0.1:80']"));
    assert_eq!(
        (changes.connections, changes.connections_affected),
        (41_207, 7)
    );
}

#[test]
fn a_removed_pool_serves_workers_that_have_not_heard_of_it() {
    let two = |first: &str| {
        format!(
            "
listeners: {{ web: {{ bind: '127.0.0.1:8080', pool: {first} }} }}
pools: {{ {first}: {{ drain: {{ timeout: 5s }}, {SITE} }} }}
"
        )
    };
    let mut scene = Scene::running(&two("site"));
    let (a, b) = (scene.member("a"), scene.member("b"));
    let mut behind = crate::pick::LocalPool::new(scene.world.pool("site").unwrap().1, 1);
    scene.reload(&two("other"));
    assert!(a.cell.acquire(None).is_err(), "its servers drain");
    let mut pick = |tried: &[u32]| {
        let picked = behind.pick(None, &mut tried.to_vec(), Duration::ZERO);
        picked.map(|lease| (lease.member.name.to_string(), lease))
    };
    let (first, lease) = pick(&[]).unwrap();
    assert_ne!(first, pick(&[]).unwrap().0, "the least busy one");
    assert!(pick(&[a.id, b.id]).is_err(), "nobody is asked twice");
    // What came after the reload ends at the deadline as well.
    scene.pass(4900);
    assert!(scene.cuts.is_empty());
    scene.pass(200);
    assert_eq!(scene.cuts, [lease.member.id]);
    drop(lease);
    assert_eq!((a.cell.in_use(), b.cell.in_use()), (0, 0));
}

#[test]
fn what_no_config_has_any_more_is_kept_within_a_bound() {
    let mut scene = Scene::start(&routed("      - { name: first, pool: site }"));
    let first = scene.world.routes[0][0].clone();
    let routes = |from: usize| {
        let route = |n| format!("      - {{ name: r{n}, match: {{ path: /{n} }}, pool: site }}");
        let all: Vec<String> = (from..from + 2000).map(route).collect();
        routed(&all.join("\n"))
    };
    scene.reload(&routes(0));
    scene.reload(&routed("      - { name: first, pool: site }"));
    assert!(Arc::ptr_eq(&first, &scene.world.routes[0][0]));
    for turn in 1..=6 {
        scene.reload(&routes(turn * 2000));
        assert!(scene.publisher.routes.len() <= 2000 + super::super::GONE_MAX);
    }
    assert_eq!(Arc::strong_count(&first), 1);
}

#[test]
fn a_removed_server_drains_until_its_pools_deadline() {
    let with = |more: &str| {
        site(&format!("{SITE}, drain: {{ timeout: 5s }}").replace("}]", &format!("}}{more}]")))
    };
    let mut scene = Scene::running(&with(", { name: c, address: '10.0.0.3:80' }"));
    let c = scene.member("c");
    c.cell.acquire(None).unwrap();
    c.cell.acquire(None).unwrap();
    let changes = scene.reload(&with(""));
    assert_eq!(
        changes.to_string(),
        "1 pool changed, 1 server removed; 0 of 0 connections affected; 2 in use on removed servers"
    );
    assert!(
        c.cell.acquire(None).is_err(),
        "not even by a view of before"
    );
    c.cell.release();
    scene.log.clear();
    scene.pass(4900);
    assert!(scene.cuts.is_empty());
    scene.pass(200);
    assert_eq!(scene.cuts, [c.id]);
    assert_eq!(scene.log, ["c: 1 cut"]);
}

//! Routes that choose servers of a pool by label.

use std::net::SocketAddr;
use std::thread;

use serde_json::{Value, json};
use testkit::{Evenkeel, Load, Origin, missing, reply, wait_until};

use crate::command::evenkeel_in;
use crate::life_support::{SOON, admin_get, ask, connect, metric, reload, server, start, web};

fn origins<const N: usize>(names: [&'static str; N]) -> [Origin; N] {
    names.map(|name| Origin::http(move |_| reply(200, name)).expect("an origin"))
}

/// A pool `site`, its servers named after their answers, `(name, address, further keys)`, behind these routes.
fn config(routes: &str, settings: &str, servers: &[(&str, SocketAddr, &str)]) -> String {
    let servers: Vec<_> = servers
        .iter()
        .map(|(name, address, keys)| format!("{{ name: {name}, address: '{address}', {keys} }}"))
        .collect();
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
workers: 2
listeners:
  web:
    bind: '127.0.0.1:0'
    routes: [{routes}]
pools:
  site:
    balance: round_robin
    health_check: {{ tcp: {{ interval: 200ms, timeout: 1s, unhealthy_threshold: 2 }} }}
    {settings}
    servers: [{}]
",
        servers.join(", ")
    )
}

const ROUTES: &str = "\
{ match: { path: /canary }, pool: { name: site, labels: { version: v2 } } }, \
{ match: { path: /mixed }, split: [{ pool: { name: site, labels: { version: v1 } }, weight: 3 }, { pool: { name: site, labels: { version: v2 } } }] }, \
{ pool: site }";

/// How many of `count` requests for `path` each name answered.
fn shares<const N: usize>(
    evenkeel: &Evenkeel,
    path: &str,
    count: usize,
    names: [&str; N],
) -> [usize; N] {
    let mut client = connect(web(evenkeel));
    let mut answers = Vec::new();
    for _ in 0..count {
        let answer = client.get(path).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answers.push(answer.text());
    }
    names.map(|name| answers.iter().filter(|answer| *answer == name).count())
}

fn wait_health(evenkeel: &Evenkeel, name: &str, health: &str) {
    wait_until(&format!("{name} is {health}"), SOON, || {
        server(evenkeel, "site", name)["health"] == health
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
}

fn json(evenkeel: &Evenkeel, path: &str) -> Value {
    let text = admin_get(evenkeel, path);
    serde_json::from_str(&text).expect(&text)
}

#[test]
fn a_route_gets_the_servers_that_it_names() {
    let [a, b, mut c] = origins(["a", "b", "c"]);
    let servers = [
        ("a", a.address(), "labels: { version: v1 }"),
        ("b", b.address(), "labels: { version: v1 }"),
        ("c", c.address(), "labels: { version: v2, tier: gold }"),
    ];
    let evenkeel = start(&config(ROUTES, "", &servers));
    for name in ["a", "b", "c"] {
        wait_health(&evenkeel, name, "healthy");
    }
    let names = ["a", "b", "c"];
    assert_eq!(shares(&evenkeel, "/canary", 10, names), [0, 0, 10]);
    assert_eq!(shares(&evenkeel, "/", 30, names), [10, 10, 10]);
    assert_eq!(shares(&evenkeel, "/mixed", 80, names), [30, 30, 20]);
    // Counters are the members', whichever way the requests came.
    assert_eq!(server(&evenkeel, "site", "c")["picks"], 40);
    let all = metric(&evenkeel, "evenkeel_picks_total{pool=\"site\",server=\"c\"");
    assert_eq!(all, 40.0);

    assert_eq!(
        server(&evenkeel, "site", "c")["labels"],
        json!({ "version": "v2", "tier": "gold" })
    );
    let pool = &json(&evenkeel, "/api/v1/pools")[0];
    assert_eq!(
        pool["subsets"],
        json!([
            { "labels": { "version": "v2" }, "servers": 1, "usable": 1, "panic": false },
            { "labels": { "version": "v1" }, "servers": 2, "usable": 2, "panic": false },
        ])
    );
    let routes = json(&evenkeel, "/api/v1/routes");
    assert_eq!(
        (&routes[0]["pool"], &routes[0]["labels"]),
        (&json!("site"), &json!({ "version": "v2" }))
    );
    assert_eq!(routes[1]["split"][0]["labels"], json!({ "version": "v1" }));
    assert_eq!(routes[2].get("labels"), None);
    let status = ask(&evenkeel, &["status"]).text();
    assert!(status.contains("tier=gold,version=v2"), "{status}");
    assert!(
        status.contains("site (version=v1): 2 of 2 usable"),
        "{status}"
    );

    // None is left of the part: nobody else's server is taken for it, and it is said.
    let finished = ask(&evenkeel, &["server", "disable", "site", "c"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let answer = connect(web(&evenkeel)).get("/canary").expect("an answer");
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("no_usable_server"),
        "{}",
        answer.text()
    );
    wait_until("the log says why", SOON, || {
        evenkeel
            .log()
            .contains("of the servers with version=v2: c: disabled")
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    let health = json(&evenkeel, "/health");
    assert_eq!(health["checks"]["pool:site (version=v2)"]["status"], "down");
    assert_eq!(health["status"], "degraded");
    assert_eq!(shares(&evenkeel, "/", 10, names), [5, 5, 0]);
    ask(&evenkeel, &["server", "enable", "site", "c"]);

    // A server that refuses is tried again when its part has no other one.
    let address = c.address();
    c.stop();
    wait_health(&evenkeel, "c", "unhealthy");
    let answer = connect(web(&evenkeel)).get("/canary").expect("an answer");
    assert_eq!(answer.status, 502, "{}", answer.text());
    let _again = Origin::start_at(address, |connection| {
        while connection.read_request()?.is_some() {
            connection.write(reply(200, "c"))?;
        }
        Ok(())
    })
    .expect("the same address");
    wait_health(&evenkeel, "c", "healthy");
    assert_eq!(shares(&evenkeel, "/canary", 5, names), [0, 0, 5]);
}

#[test]
fn a_tcp_listener_chooses_too() {
    let [a, b] = origins(["a", "b"]);
    let servers = [
        ("a", a.address(), "labels: { version: v1 }"),
        ("b", b.address(), "labels: { version: v2 }"),
    ];
    let config = config("", "", &servers).replace(
        "routes: []",
        "protocol: tcp\n    pool: { name: site, labels: { version: v2 } }",
    );
    let evenkeel = start(&config);
    wait_health(&evenkeel, "b", "healthy");
    for _ in 0..4 {
        let answer = connect(web(&evenkeel)).get("/").expect("an answer");
        assert_eq!(answer.text(), "b");
    }
}

#[test]
fn a_reload_that_moves_labels_under_load_loses_nothing() {
    if missing("nginx") {
        return;
    }
    let servers = crate::life_support::nginxes(["a", "b", "c", "d"]);
    let addresses = servers.each_ref().map(|it| it.address());
    // The canary's label is another one in each turn, and so are its servers.
    let config = |turn: usize| {
        let label = |at: usize| match (at + turn) % 4 {
            0 | 1 => format!("labels: {{ version: v{} }}", turn / 2),
            _ => "labels: { version: none }".to_owned(),
        };
        let labels: Vec<String> = (0..4).map(label).collect();
        let servers: Vec<_> = ["a", "b", "c", "d"]
            .into_iter()
            .zip(addresses)
            .zip(&labels)
            .map(|((name, address), labels)| (name, address, labels.as_str()))
            .collect();
        let routes = format!(
            "{{ pool: {{ name: site, labels: {{ version: v{} }} }} }}",
            turn / 2
        );
        self::config(&routes, "", &servers)
    };
    let evenkeel = start(&config(0));
    for name in ["a", "b", "c", "d"] {
        wait_health(&evenkeel, name, "healthy");
    }
    let load = Load::to(web(&evenkeel)).clients(8).start();
    for turn in 1..20 {
        load.wait_ok(50, SOON).expect("traffic");
        let said = reload(&evenkeel, &config(turn));
        assert!(said.contains("servers changed"), "{said}");
    }
    load.wait_ok(50, SOON).expect("traffic");
    let report = load.stop();
    report.assert_none_failed();
    println!(
        "{} requests over 19 reloads, {} lost",
        report.ok, report.failed
    );
}

#[test]
fn who_waits_for_a_part_holds_nobody_up() {
    let slow = Origin::http(|request| {
        if request.target == "/canary" {
            thread::sleep(std::time::Duration::from_millis(300));
        }
        reply(200, "c")
    })
    .expect("an origin");
    let [a] = origins(["a"]);
    let servers = [
        (
            "a",
            a.address(),
            "labels: { version: v1 }, max_connections: 4",
        ),
        (
            "c",
            slow.address(),
            "labels: { version: v2 }, max_connections: 1",
        ),
    ];
    let limits = "limits: { queue: 3, queue_wait: 10s }";
    let evenkeel = start(&config(ROUTES, limits, &servers));
    for name in ["a", "c"] {
        wait_health(&evenkeel, name, "healthy");
    }
    let address = web(&evenkeel);
    let canaries: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let answer = connect(address).get("/canary").expect("an answer");
                (answer.status, answer.text())
            })
        })
        .collect();
    wait_until("three wait", SOON, || {
        json(&evenkeel, "/api/v1/pools")[0]["waiting"] == 3
    })
    .expect("three wait");
    // The queue is full of those: whoever may have the other server is served all the same.
    for _ in 0..10 {
        let answer = connect(address).get("/").expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "a"));
    }
    for canary in canaries {
        assert_eq!(canary.join().expect("no panic"), (200, "c".to_owned()));
    }
}

#[test]
fn check_tells_what_labels_there_are() {
    let dir = testkit::TempDir::new("labels").expect("a folder");
    let address: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    let servers = [("a", address, "labels: { version: v1 }")];
    let routes = "{ pool: { name: site, labels: { version: v2 } } }";
    dir.write("evenkeel.yaml", config(routes, "", &servers))
        .expect("written");
    let finished = evenkeel_in(dir.path(), &["check"]);
    assert_eq!(finished.code, Some(1));
    let said = &finished.stderr;
    assert!(
        said.contains("no server of the pool `site` has the labels version=v2")
            && said.contains("labels of its servers: version=v1"),
        "{said}"
    );
}

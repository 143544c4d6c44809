//! Priorities, backups, zones and slow start: which servers get what part of the traffic.

use std::net::SocketAddr;

use serde_json::Value;
use testkit::{Evenkeel, Origin, TempDir, reply, wait_until};

use crate::command::evenkeel_in;
use crate::life_support::{SOON, ask, connect, reload, server, start, web};

/// Servers that answer with their names.
fn origins<const N: usize>(names: [&'static str; N]) -> [Origin; N] {
    names.map(|name| Origin::http(move |_| reply(200, name)).expect("an origin"))
}

/// A pool `site` in turns, its servers named after their answers: `(name, address, further keys)`.
fn config(top: &str, settings: &str, servers: &[(&str, SocketAddr, &str)]) -> String {
    let servers: Vec<_> = servers
        .iter()
        .map(|(name, address, keys)| format!("{{ name: {name}, address: '{address}', {keys} }}"))
        .collect();
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
workers: 2
{top}
listeners:
  web: {{ bind: '127.0.0.1:0', pool: site }}
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

/// How many of `count` requests each name answered.
fn shares<const N: usize>(evenkeel: &Evenkeel, count: usize, names: [&str; N]) -> [usize; N] {
    let mut client = connect(web(evenkeel));
    let mut answers = Vec::new();
    for _ in 0..count {
        let answer = client
            .exchange("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answers.push(answer.text());
    }
    names.map(|name| answers.iter().filter(|answer| *answer == name).count())
}

fn wait_named(evenkeel: &Evenkeel, name: &str, key: &str, value: impl Into<Value>) {
    let value = value.into();
    wait_until(&format!("{name} has {key} {value}"), SOON, || {
        server(evenkeel, "site", name)[key] == value
    })
    .unwrap_or_else(|error| panic!("{error}: {}", server(evenkeel, "site", name)));
}

fn wait_healthy(evenkeel: &Evenkeel, names: &[&str]) {
    for name in names {
        wait_named(evenkeel, name, "health", "healthy");
    }
}

#[test]
fn a_priority_group_that_loses_servers_overflows_in_proportion() {
    let [a, b, c] = origins(["a", "b", "c"]);
    let servers = [
        ("a", a.address(), ""),
        ("b", b.address(), ""),
        ("c", c.address(), "priority: 1"),
    ];
    let evenkeel = start(&config("", "", &servers));
    wait_healthy(&evenkeel, &["a", "b", "c"]);
    assert_eq!(shares(&evenkeel, 100, ["a", "b", "c"]), [50, 50, 0]);
    assert_eq!(
        server(&evenkeel, "site", "c")["note"],
        "priority 1: not needed"
    );
    assert_eq!(server(&evenkeel, "site", "c")["usable"], true);

    let finished = ask(&evenkeel, &["server", "disable", "site", "b"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    // Half of the group is left: it bears 1.4 times that.
    assert_eq!(shares(&evenkeel, 100, ["a", "b", "c"]), [70, 0, 30]);
    let c = server(&evenkeel, "site", "c");
    assert_eq!(
        (&c["note"], &c["traffic"]),
        (&"priority 1: 30 % overflow".into(), &0.3.into())
    );
    let status = ask(&evenkeel, &["status"]).text();
    assert!(status.contains("priority 1: 30 % overflow"), "{status}");

    // A reload that says how much a server bears takes effect, and keeps the operator's word and the counts.
    let picks = server(&evenkeel, "site", "a")["picks"].clone();
    reload(&evenkeel, &config("", "overprovision: 1", &servers));
    assert_eq!(server(&evenkeel, "site", "a")["picks"], picks);
    assert_eq!(shares(&evenkeel, 100, ["a", "b", "c"]), [50, 0, 50]);

    ask(&evenkeel, &["server", "enable", "site", "b"]);
    assert_eq!(shares(&evenkeel, 100, ["a", "b", "c"]), [50, 50, 0]);
}

#[test]
fn a_backup_takes_over_and_gives_back() {
    let [mut a, b] = origins(["a", "b"]);
    let servers = [("a", a.address(), ""), ("b", b.address(), "backup: true")];
    let evenkeel = start(&config("", "", &servers));
    wait_healthy(&evenkeel, &["a", "b"]);
    assert_eq!(shares(&evenkeel, 20, ["a", "b"]), [20, 0]);
    assert_eq!(server(&evenkeel, "site", "b")["note"], "backup, not needed");

    let address = a.address();
    a.stop();
    wait_named(&evenkeel, "a", "health", "unhealthy");
    assert_eq!(shares(&evenkeel, 20, ["a", "b"]), [0, 20]);
    assert_eq!(server(&evenkeel, "site", "b")["note"], "backup, in use");

    let _again = Origin::start_at(address, |connection| {
        while connection.read_request()?.is_some() {
            connection.write(reply(200, "a"))?;
        }
        Ok(())
    })
    .expect("the same address");
    wait_named(&evenkeel, "a", "health", "healthy");
    assert_eq!(shares(&evenkeel, 20, ["a", "b"]), [20, 0]);
}

#[test]
fn the_own_zone_keeps_what_it_can_bear() {
    let [a, b, c, d] = origins(["a", "b", "c", "d"]);
    let servers = [
        ("a", a.address(), "zone: eu-1a"),
        ("b", b.address(), "zone: eu-1a"),
        ("c", c.address(), "zone: eu-1b"),
        ("d", d.address(), "zone: eu-1b"),
    ];
    let config = |settings: &str| config("zone: eu-1a", settings, &servers);
    let evenkeel = start(&config("zones: prefer_own"));
    let names = ["a", "b", "c", "d"];
    wait_healthy(&evenkeel, &names);
    assert_eq!(shares(&evenkeel, 100, names), [50, 50, 0, 0]);
    assert_eq!(
        server(&evenkeel, "site", "c")["note"],
        "zone eu-1b: own zone suffices"
    );

    ask(&evenkeel, &["server", "disable", "site", "b"]);
    // Half of what the zone has, 1.4 times; the rest goes over.
    assert_eq!(shares(&evenkeel, 100, names), [70, 0, 15, 15]);
    assert_eq!(
        server(&evenkeel, "site", "a")["note"],
        "zone eu-1a: 70 % own zone"
    );
    assert_eq!(
        server(&evenkeel, "site", "c")["note"],
        "zone eu-1b: 30 % spill-over"
    );

    ask(&evenkeel, &["server", "disable", "site", "a"]);
    assert_eq!(shares(&evenkeel, 100, names), [0, 0, 50, 50]);

    ask(&evenkeel, &["server", "enable", "site", "a"]);
    ask(&evenkeel, &["server", "enable", "site", "b"]);
    reload(
        &evenkeel,
        &config("zones: { prefer_own: { traffic: 100% } }\n    overprovision: 1"),
    );
    assert_eq!(shares(&evenkeel, 100, names), [25, 25, 25, 25]);
    reload(&evenkeel, &config("zones: any"));
    assert_eq!(shares(&evenkeel, 100, names), [25, 25, 25, 25]);
}

#[test]
fn a_server_that_joins_starts_slowly_and_a_pool_that_begins_does_not() {
    let [a, b] = origins(["a", "b"]);
    let both = [("a", a.address(), ""), ("b", b.address(), "")];
    // So long that the share stays at its floor for the length of the test.
    let slow = "slow_start: 10h";
    let evenkeel = start(&config("", slow, &both));
    wait_healthy(&evenkeel, &["a", "b"]);
    assert_eq!(shares(&evenkeel, 100, ["a", "b"]), [50, 50]);
    assert_eq!(server(&evenkeel, "site", "b")["note"], "");

    reload(&evenkeel, &config("", slow, &both[..1]));
    reload(&evenkeel, &config("", slow, &both));
    wait_named(&evenkeel, "b", "note", "slow start at 10 %");
    assert_eq!(shares(&evenkeel, 110, ["a", "b"]), [100, 10]);

    // Back from its operator's hands it starts again, and as a reload says.
    let half = "slow_start: { duration: 10h, floor: 50% }";
    reload(&evenkeel, &config("", half, &both));
    assert_eq!(shares(&evenkeel, 90, ["a", "b"]), [60, 30]);
    ask(&evenkeel, &["server", "disable", "site", "a"]);
    assert_eq!(shares(&evenkeel, 10, ["a", "b"]), [0, 10]);
    ask(&evenkeel, &["server", "enable", "site", "a"]);
    assert_eq!(
        shares(&evenkeel, 100, ["a", "b"]),
        [50, 50],
        "both are at half"
    );
    reload(&evenkeel, &config("", "slow_start: off", &both));
    assert_eq!(server(&evenkeel, "site", "b")["note"], "");
}

#[test]
fn a_slow_start_ends() {
    let [a, b] = origins(["a", "b"]);
    let both = [("a", a.address(), ""), ("b", b.address(), "")];
    let slow = "slow_start: 2s";
    let evenkeel = start(&config("", slow, &both[..1]));
    wait_healthy(&evenkeel, &["a"]);
    reload(&evenkeel, &config("", slow, &both));
    wait_until("it warms up", SOON, || {
        let note = server(&evenkeel, "site", "b")["note"].clone();
        note.as_str()
            .is_some_and(|note| note.starts_with("slow start at "))
    })
    .expect("it warms up");
    wait_named(&evenkeel, "b", "traffic", 0.5);
    assert_eq!(shares(&evenkeel, 100, ["a", "b"]), [50, 50]);
}

#[test]
fn explain_says_who_is_not_needed() {
    let evenkeel = start(&config("", "", &[("a", ([127, 0, 0, 1], 9).into(), "")]));
    let dir = evenkeel.dir().path();
    let servers = [
        ("a", ([127, 0, 0, 1], 9001).into(), "zone: eu-1a"),
        ("b", ([127, 0, 0, 1], 9002).into(), "zone: eu-1b"),
        ("c", ([127, 0, 0, 1], 9003).into(), "priority: 2"),
    ];
    let text = config("zone: eu-1a", "zones: prefer_own", &servers);
    std::fs::write(dir.join("other.yaml"), text).expect("written");
    let finished = evenkeel_in(dir, &["explain", "GET http://x/", "-c", "other.yaml"]);
    let text = finished.text();
    assert!(text.contains("server    a"), "{text}");
    assert!(text.contains("zone eu-1b: own zone suffices"), "{text}");
    assert!(text.contains("priority 2: not needed"), "{text}");
}

#[test]
fn the_examples_of_the_manual_are_sound() {
    let manual = include_str!("../../../../docs/balancing.md");
    let dir = TempDir::new("manual").expect("a folder");
    let examples = manual.split("```yaml\n").skip(1);
    let mut count = 0;
    for example in examples.filter_map(|rest| rest.split("```").next()) {
        std::fs::write(dir.path().join("evenkeel.yaml"), example).expect("written");
        let finished = evenkeel_in(dir.path(), &["check", "--strict"]);
        assert_eq!(finished.code, Some(0), "{example}{}", finished.stderr);
        count += 1;
    }
    assert!(count >= 4, "{count} examples");
}

//! Capacity: what the rest would bear, told and enforced.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use testkit::{Evenkeel, Origin, Raw, reply, wait_until};

use crate::life_support::{
    SOON, admin_get, ask, assert_metric, connect, metric, reload, server, site, start, web,
};

/// Holds every request until it is told to let go.
fn holding(go: &Arc<AtomicBool>) -> Origin {
    let go = go.clone();
    Origin::http(move |_| {
        let _ = wait_until("let go", SOON, || go.load(Ordering::Relaxed));
        reply(200, "here")
    })
    .expect("an origin")
}

fn config(servers: &[(SocketAddr, &str)], settings: &str) -> String {
    let one = |(address, more): &(SocketAddr, &str)| format!("{{ address: '{address}'{more} }}");
    let all: Vec<_> = servers.iter().map(one).collect();
    let settings = format!("health_check: off, balance: round_robin, {settings}");
    site(&[], &settings).replace("servers: []", &format!("servers: [{}]", all.join(", ")))
}

/// Clients whose requests are under way at the servers.
fn hold(evenkeel: &Evenkeel, origins: &[Origin], count: u64) -> Vec<Raw> {
    let clients = (0..count).map(|_| {
        let mut client = connect(web(evenkeel));
        client
            .send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("sent");
        client
    });
    let clients = clients.collect();
    wait_until("all are there", SOON, || {
        origins.iter().map(Origin::requests).sum::<u64>() >= count
    })
    .expect("all are there");
    clients
}

fn capacity(evenkeel: &Evenkeel) -> Value {
    let text = admin_get(evenkeel, "/api/v1/pools");
    let json: Value = serde_json::from_str(&text).expect(&text);
    json[0]["capacity"].clone()
}

#[test]
fn what_the_rest_would_not_bear_is_told_and_refused_without_force() {
    let go = Arc::new(AtomicBool::new(false));
    let origins = [0, 1, 2].map(|_| holding(&go));
    let [a, b, c] = origins.each_ref().map(Origin::address);
    let servers = [
        (a, ", max_connections: 2, zone: x"),
        (b, ", max_connections: 2, zone: y"),
        (c, ", max_connections: 2, zone: y"),
    ];
    let mut evenkeel = start(&config(&servers, "capacity_alarm: 10%"));
    let mut clients = hold(&evenkeel, &origins, 5);
    let (a, b) = (a.to_string(), b.to_string());

    let why = format!(
        "without `{a}` pool `site` has 2 servers with room for 4 requests at once, and 5 are under way"
    );
    for command in [
        &["server", "drain", "site", &a][..],
        &["server", "disable", "site", &a],
        &["server", "weight", "site", &a, "0"],
        &["drill", "site", &a],
    ] {
        let finished = ask(&evenkeel, command);
        assert_eq!(finished.code, Some(1), "{command:?}: {}", finished.stderr);
        for part in [&why, "125 % of it", "`--force`"] {
            assert!(
                finished.stderr.contains(part),
                "{command:?}: {}",
                finished.stderr
            );
        }
        assert_eq!(server(&evenkeel, "site", &a)["state"], "ready");
    }

    evenkeel
        .wait_log("past `capacity_alarm`", SOON)
        .expect("an alarm");
    let seen = capacity(&evenkeel);
    assert_eq!(
        (&seen["room"], &seen["alarm"]),
        (&6.into(), &true.into()),
        "{seen}"
    );
    assert_eq!(seen["without_server"]["room"], 4, "{seen}");
    assert_eq!(
        (&seen["without_zone"]["name"], &seen["without_zone"]["room"]),
        (&"y".into(), &2.into())
    );
    assert!(seen["load"].as_f64() > Some(0.0), "{seen}");
    assert_metric(&evenkeel, "evenkeel_pool_room{pool=\"site\"}", 6.0);
    assert_metric(
        &evenkeel,
        "evenkeel_pool_capacity_alarm{pool=\"site\"}",
        1.0,
    );
    let ratio = |without: &str| {
        let series = format!("evenkeel_pool_load_ratio{{pool=\"site\",without=\"{without}\"}}");
        metric(&evenkeel, &series)
    };
    assert!(ratio("zone") > ratio("server") && ratio("server") > ratio("none"));
    let status = ask(&evenkeel, &["status"]).text();
    assert!(status.contains("of room for 6; without "), "{status}");
    assert!(status.contains("; ALARM"), "{status}");

    let finished = ask(&evenkeel, &["server", "disable", "site", &a, "--force"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(server(&evenkeel, "site", &a)["state"], "disabled");
    // The last one too would leave too little: none at all.
    ask(
        &evenkeel,
        &["server", "disable", "site", &c.to_string(), "--force"],
    );
    let finished = ask(&evenkeel, &["server", "drain", "site", &b]);
    let nobody = "has no server with room for 0 requests at once";
    assert!(finished.stderr.contains(nobody), "{}", finished.stderr);

    go.store(true, Ordering::Relaxed);
    for client in &mut clients {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
}

#[test]
fn without_max_connections_it_is_told_how_much_more_the_others_would_carry() {
    let go = Arc::new(AtomicBool::new(false));
    let origins = [0, 1].map(|_| holding(&go));
    let [a, b] = origins.each_ref().map(Origin::address);
    let evenkeel = start(&config(&[(a, ""), (b, "")], ""));
    let _clients = hold(&evenkeel, &origins, 2);
    wait_until("it is seen", SOON, || {
        let status = ask(&evenkeel, &["status"]).text();
        status.contains("the others carry 2.00 times as much")
    })
    .expect("it is seen");
    assert!(capacity(&evenkeel)["ratio"].is_null());
    let finished = ask(&evenkeel, &["server", "disable", "site", &a.to_string()]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    go.store(true, Ordering::Relaxed);
}

#[test]
fn the_last_server_that_is_fit_stays_unless_forced() {
    let go = Arc::new(AtomicBool::new(true));
    let origins = [0, 1].map(|_| holding(&go));
    let [a, b] = origins.each_ref().map(|it| it.address().to_string());
    let servers = origins.each_ref().map(|it| (it.address(), ""));
    let evenkeel = start(&config(&servers, ""));
    let finished = ask(&evenkeel, &["server", "disable", "site", &a]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let nobody = format!("no other server of pool `site` is fit to serve while `{b}` is out");
    for command in [
        &["server", "drain", "site", &b][..],
        &["server", "disable", "site", &b],
        &["server", "weight", "site", &b, "0"],
    ] {
        let finished = ask(&evenkeel, command);
        assert_eq!(finished.code, Some(1), "{command:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(&nobody), "{}", finished.stderr);
    }
    let status = connect(web(&evenkeel)).get("/").expect("an answer").status;
    assert_eq!(status, 200, "nothing was taken out");
    let finished = ask(&evenkeel, &["server", "drain", "site", &b, "--force"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

#[test]
fn a_reload_changes_the_level_and_the_room_and_keeps_what_was_measured() {
    let go = Arc::new(AtomicBool::new(false));
    let origins = [0, 1].map(|_| holding(&go));
    let [a, b] = origins.each_ref().map(Origin::address);
    let servers = |room: &'static str| [(a, room), (b, room)];
    let evenkeel = start(&config(
        &servers(", max_connections: 4"),
        "capacity_alarm: off",
    ));
    let _clients = hold(&evenkeel, &origins, 2);
    let loaded = || capacity(&evenkeel)["load"].as_f64() > Some(0.4);
    wait_until("it is seen", SOON, loaded).expect("it is seen");
    assert_eq!(capacity(&evenkeel)["alarm"], false);
    reload(
        &evenkeel,
        &config(&servers(", max_connections: 3"), "capacity_alarm: 1%"),
    );
    let limit = Duration::from_secs(5);
    wait_until("the alarm is on", limit, || {
        capacity(&evenkeel)["alarm"] == true
    })
    .expect("an alarm");
    let seen = capacity(&evenkeel);
    assert_eq!(seen["room"], 6, "{seen}");
    assert!(loaded(), "{seen}");
    go.store(true, Ordering::Relaxed);
}

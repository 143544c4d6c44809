//! Reloads: what they must not disturb, and what they change.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::{Evenkeel, Load, Origin, Raw, Signal, missing, reply, wait_until};

use crate::life_support::{
    SOON, admin_get, ask, assert_metric, assert_no_total_fell, connect, metric, nginxes, picks,
    reload, site, start, totals, wait_all, web,
};

fn healthy(evenkeel: &Evenkeel, addresses: &[SocketAddr]) {
    wait_all(evenkeel, addresses, "healthy");
}

#[test]
fn ten_reloads_under_load_lose_nothing_and_close_nothing() {
    if missing("nginx") {
        return;
    }
    let servers = nginxes(["a", "b"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let mut evenkeel = start(&site(&addresses, ""));
    healthy(&evenkeel, &addresses);
    let load = Load::to(web(&evenkeel)).clients(12).start();
    for turn in 0..10 {
        let retries = format!("retries: {{ attempts: {turn} }}");
        evenkeel
            .write_config(&site(&addresses, &retries))
            .expect("written");
        let mark = evenkeel.mark();
        evenkeel.signal(Signal::HUP).expect("a signal");
        evenkeel
            .wait_log_after(mark, "reloaded: 1 pool changed", SOON)
            .expect("a reload");
        load.wait_ok(100, SOON).expect("traffic");
    }
    let report = load.stop();
    report.assert_none_failed();
    assert_eq!(report.connects, 12, "a client's connection was closed");
    assert_eq!(evenkeel.addresses("web").expect("addresses").len(), 1);
}

#[test]
fn reloads_that_replace_every_server_lose_nothing() {
    if missing("nginx") {
        return;
    }
    let servers = nginxes(["a", "b"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let evenkeel = start(&site(&addresses[..1], ""));
    wait_all(&evenkeel, &addresses[..1], "healthy");
    let load = Load::to(web(&evenkeel)).clients(16).start();
    for turn in 1..=60 {
        reload(&evenkeel, &site(&[addresses[turn % 2]], ""));
        load.wait_ok(20, SOON).expect("traffic");
    }
    let report = load.stop();
    report.assert_none_failed();
    assert_eq!(report.connects, 16, "a client's connection was closed");
}

#[test]
fn reloads_that_replace_every_pool_lose_nothing() {
    if missing("nginx") {
        return;
    }
    let servers = nginxes(["a", "b"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let config = |turn: usize| {
        let named = format!("site-{turn}");
        let one = site(&addresses[turn % 2..][..1], "");
        let named = one.replace("  site:", &format!("  {named}:"));
        format!(
            "workers: 4\n{}",
            named.replace("pool: site }", &format!("pool: site-{turn} }}"))
        )
    };
    let evenkeel = start(&config(0));
    let load = Load::to(web(&evenkeel)).clients(16).start();
    for turn in 1..=60 {
        reload(&evenkeel, &config(turn));
        load.wait_ok(20, SOON).expect("traffic");
    }
    let report = load.stop();
    report.assert_none_failed();
    assert_eq!(report.connects, 16, "a client's connection was closed");
}

#[test]
fn each_listener_at_port_0_has_a_port_of_its_own() {
    let origins = ["one", "two"].map(|name| {
        let origin = Origin::http(move |_| reply(200, name));
        origin.expect("an origin")
    });
    let listener = |name: &str| format!("  {name}: {{ bind: '127.0.0.1:0', pool: {name} }}\n");
    let pool = |name: &str, origin: &Origin| {
        let address = origin.address();
        format!("  {name}: {{ health_check: off, servers: ['{address}'] }}\n")
    };
    let pools = pool("one", &origins[0]) + &pool("two", &origins[1]);
    let config = |listeners: &str| {
        format!("admin: {{ bind: '127.0.0.1:0' }}\nlisteners:\n{listeners}pools:\n{pools}")
    };
    let evenkeel = start(&config(&(listener("one") + &listener("two"))));
    let check = |name: &str, address: SocketAddr| {
        let answer = connect(address).get("/").expect("an answer");
        assert_eq!(answer.text(), name);
    };
    let of = |name| evenkeel.address(name).expect("an address");
    let (one, two) = (of("one"), of("two"));
    assert_ne!(one, two);
    check("one", one);
    check("two", two);
    // One that goes takes nothing of the other's along.
    reload(&evenkeel, &config(&listener("two")));
    assert_eq!(of("two"), two);
    check("two", two);
}

/// Names of one nginx, so that each is a server of its own to everybody but it.
fn named(names: std::ops::Range<usize>, address: SocketAddr, settings: &str) -> String {
    let server = |name| format!("{{ name: s{name}, address: '{address}' }}");
    let servers: Vec<_> = names.map(server).collect();
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web: {{ bind: '127.0.0.1:0', pool: site }}
pools:
  site:
    timeouts: {{ keep_alive: 100ms }}
    health_check: {{ tcp: {{ interval: 20s }} }}
    {settings}
    servers: [{servers}]
",
        servers = servers.join(", ")
    )
}

#[test]
fn reloads_of_five_thousand_servers_under_load_lose_nothing() {
    if missing("nginx") {
        return;
    }
    let [server] = nginxes(["a"]);
    let server = server.address();
    let mut evenkeel = start(&named(0..5000, server, "retries: off"));
    let usable = |evenkeel: &Evenkeel| metric(evenkeel, "evenkeel_server_usable");
    let wait_usable = |evenkeel: &Evenkeel| {
        let all = wait_until("all are usable", SOON, || usable(evenkeel) >= 5000.0);
        all.unwrap_or_else(|error| panic!("{error}: {}", usable(evenkeel)));
    };
    wait_usable(&evenkeel);
    let pause = Duration::from_millis(2);
    let load = Load::to(web(&evenkeel)).clients(8).pause(pause).start();
    load.wait_ok(100, SOON).expect("traffic");
    // A fifth of them goes and as many come, back and forth; the tables of a ring are the largest there are.
    for (turn, from) in [1000, 0, 1000].into_iter().enumerate() {
        let balance = ["consistent_hash", "power_of_two", "maglev"][turn];
        let settings = format!("retries: off\n    balance: {balance}");
        evenkeel
            .write_config(&named(from..from + 5000, server, &settings))
            .expect("written");
        let mark = evenkeel.mark();
        evenkeel.signal(Signal::HUP).expect("a signal");
        let changes = "reloaded: 1 pool changed, 1000 servers added, 1000 servers removed";
        evenkeel
            .wait_log_after(mark, changes, SOON)
            .expect("a reload");
        load.wait_ok(100, SOON).expect("traffic");
        wait_usable(&evenkeel);
    }
    let report = load.stop();
    report.assert_none_failed();
    assert_eq!(report.connects, 8, "a client's connection was closed");
}

#[test]
fn servers_come_and_go_under_load() {
    if missing("nginx") {
        return;
    }
    let servers = nginxes(["a", "b", "c"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let [a, b, c] = addresses;
    let evenkeel = start(&site(&[a], ""));
    healthy(&evenkeel, &[a]);
    let load = Load::to(web(&evenkeel)).clients(12).start();
    for _ in 0..3 {
        reload(&evenkeel, &site(&[a, b, c], ""));
        healthy(&evenkeel, &[a, b, c]);
        wait_until("traffic reaches the new ones", SOON, || {
            picks(&evenkeel, b) > 20 && picks(&evenkeel, c) > 20
        })
        .expect("traffic reaches the new ones");
        reload(&evenkeel, &site(&[a], ""));
        load.wait_ok(100, SOON).expect("traffic");
    }
    let report = load.stop();
    report.assert_none_failed();
    assert_eq!(report.connects, 12);
}

#[test]
fn an_added_server_gets_nothing_before_its_first_successful_probe() {
    let old = Origin::http(|_| reply(200, "old")).expect("an origin");
    let ready = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_ready = ready.clone();
    let new = Origin::http(move |request| match &*request.target {
        "/health" if !is_ready.load(std::sync::atomic::Ordering::Relaxed) => reply(503, "not yet"),
        _ => reply(200, "new"),
    });
    let new = new.expect("an origin");
    let evenkeel = start(&site(&[old.address()], ""));
    healthy(&evenkeel, &[old.address()]);
    reload(&evenkeel, &site(&[old.address(), new.address()], ""));
    let mut client = connect(web(&evenkeel));
    wait_until("it was probed a few times", SOON, || {
        assert_eq!(client.get("/").expect("an answer").text(), "old");
        new.requests() >= 5
    })
    .expect("it was probed a few times");
    assert!(new.seen().iter().all(|request| request.target == "/health"));
    ready.store(true, std::sync::atomic::Ordering::Relaxed);
    wait_until("it serves", SOON, || {
        client.get("/").expect("an answer").text() == "new"
    })
    .expect("it serves");
}

#[test]
fn a_removed_server_finishes_what_it_has() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = Origin::http(move |request| {
        if request.target == "/slow" {
            wait.lock()
                .expect("one at a time")
                .recv_timeout(SOON)
                .expect("the word");
        }
        reply(200, "slow")
    });
    let slow = slow.expect("an origin");
    let quick = Origin::http(|_| reply(200, "quick")).expect("an origin");
    let evenkeel = start(&site(&[slow.address()], ""));
    healthy(&evenkeel, &[slow.address()]);
    let mut waiting = connect(web(&evenkeel));
    waiting
        .send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    wait_until("it is there", SOON, || {
        slow.seen().iter().any(|it| it.target == "/slow")
    })
    .expect("it is there");

    let said = reload(&evenkeel, &site(&[quick.address()], ""));
    assert!(said.contains("1 server added, 1 server removed"), "{said}");
    let mut client = connect(web(&evenkeel));
    for _ in 0..10 {
        assert_eq!(client.get("/").expect("an answer").text(), "quick");
    }
    go.send(()).expect("sent");
    assert_eq!(waiting.response().expect("an answer").text(), "slow");
    assert_eq!(waiting.get("/").expect("an answer").text(), "quick");
    wait_until("no connection to it is kept", SOON, || slow.open() == 0)
        .expect("no connection to it is kept");
}

#[test]
fn routes_change_on_open_connections() {
    let one = Origin::http(|_| reply(200, "one")).expect("an origin");
    let two = Origin::http(|_| reply(200, "two")).expect("an origin");
    let config = |target: &str| {
        format!(
            "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web: {{ bind: '127.0.0.1:0', routes: [{{ match: {{ path: /x }}, {target} }}, {{ pool: one }}] }}
pools:
  one: {{ servers: ['{}'] }}
  two: {{ servers: ['{}'] }}
",
            one.address(),
            two.address()
        )
    };
    let evenkeel = start(&config("pool: one"));
    let mut client = connect(web(&evenkeel));
    assert_eq!(client.get("/x").expect("an answer").text(), "one");
    reload(&evenkeel, &config("pool: two"));
    assert_eq!(client.get("/x").expect("an answer").text(), "two");
    reload(
        &evenkeel,
        &config("filters: [{ respond: { status: 418 } }]"),
    );
    assert_eq!(client.get("/x").expect("an answer").status, 418);
    assert_eq!(client.get("/").expect("an answer").text(), "one");
}

#[test]
fn listeners_come_move_and_go() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let config = |listeners: &str| {
        format!(
            "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web: {{ bind: '127.0.0.1:0', pool: site }}
{listeners}
pools:
  site: {{ servers: ['{}'] }}
",
            origin.address()
        )
    };
    let more = |bind: &str| config(&format!("  more: {{ bind: {bind}, pool: site }}"));
    let mut evenkeel = start(&config(""));
    let mut stays = connect(web(&evenkeel));
    assert_eq!(stays.get("/").expect("an answer").text(), "here");

    let said = reload(&evenkeel, &more("'127.0.0.2:0'"));
    assert!(said.contains("1 listener added"), "{said}");
    evenkeel
        .wait_log("listener\":\"more", SOON)
        .expect("a line");
    let first = evenkeel.address("more").expect("an address");
    let mut old = connect(first);
    assert_eq!(old.get("/").expect("an answer").text(), "here");

    let mark = evenkeel.mark();
    let said = reload(&evenkeel, &more("'127.0.0.3:0'"));
    assert!(said.contains("1 listener moved"), "{said}");
    evenkeel
        .wait_log_after(mark, "listener\":\"more", SOON)
        .expect("a line");
    let second = evenkeel.address("more").expect("an address");
    assert_ne!(first, second);
    assert_eq!(connect(second).get("/").expect("an answer").text(), "here");
    assert_eq!(
        old.get("/").expect("an answer").text(),
        "here",
        "its connection stays"
    );
    wait_until("the old address is closed", SOON, || {
        Raw::connect(first).is_err()
    })
    .expect("the old address is closed");

    let said = reload(&evenkeel, &config(""));
    assert!(said.contains("1 listener removed"), "{said}");
    wait_until("it is closed", SOON, || Raw::connect(second).is_err()).expect("it is closed");
    assert_eq!(stays.get("/").expect("an answer").text(), "here");
}

#[test]
fn what_cannot_be_taken_up_changes_nothing_and_says_why() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let good = site(&[origin.address()], "");
    let mut evenkeel = start(&good);
    healthy(&evenkeel, &[origin.address()]);
    let mut client = connect(web(&evenkeel));
    for (config, said) in [
        (
            good.replace("pool: site", "pool: sight"),
            "there is no pool `sight`",
        ),
        (good.replace("servers:", "serverz:"), "serverz"),
        (
            good.replace("listeners:", "\tlisteners:"),
            "indent with spaces",
        ),
        (
            good.replace(
                "shutdown:",
                "access_log: { to: /nonexistent/log }\nshutdown:",
            ),
            "/nonexistent/log",
        ),
    ] {
        evenkeel.write_config(&config).expect("written");
        let mark = evenkeel.mark();
        evenkeel.signal(Signal::HUP).expect("a signal");
        evenkeel
            .wait_log_after(mark, "not reloaded: nothing has changed", SOON)
            .expect("a line");
        evenkeel.wait_log_after(mark, said, SOON).expect("why");
        let finished = ask(&evenkeel, &["reload"]);
        assert_eq!(finished.code, Some(1));
        assert!(finished.stderr.contains(said), "{}", finished.stderr);
        assert_eq!(client.get("/").expect("an answer").text(), "here");
    }
    std::fs::remove_file(evenkeel.config_path()).expect("removed");
    let finished = ask(&evenkeel, &["reload"]);
    assert_eq!(finished.code, Some(1));
    assert!(
        finished.stderr.contains("cannot read"),
        "{}",
        finished.stderr
    );
    assert_eq!(client.get("/").expect("an answer").text(), "here");
}

#[test]
fn counters_and_health_outlive_reloads() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let gone = Origin::http(|_| reply(200, "gone")).expect("an origin");
    let (one, two) = (origin.address(), gone.address());
    let evenkeel = start(&site(&[one, two], "balance: round_robin"));
    healthy(&evenkeel, &[one, two]);
    let mut client = connect(web(&evenkeel));
    for _ in 0..10 {
        client.get("/").expect("an answer");
    }
    let before = totals(&evenkeel);
    let own = format!("evenkeel_picks_total{{pool=\"site\",server=\"{one}\"}}");
    assert_eq!(before.get(&own), Some(&5.0));
    assert_metric(&evenkeel, "evenkeel_requests_total{", 10.0);
    // The second one goes and comes back; then only it is left; then the listener has another name.
    for servers in [&[one][..], &[one, two], &[two], &[one, two]] {
        reload(&evenkeel, &site(servers, ""));
        assert_no_total_fell(&evenkeel, &before);
    }
    assert_eq!(totals(&evenkeel).get(&own), Some(&5.0));
    reload(&evenkeel, &site(&[one], "").replace("web:", "other:"));
    assert_no_total_fell(&evenkeel, &before);
    reload(&evenkeel, &site(&[one], ""));
    assert_no_total_fell(&evenkeel, &before);
    assert_metric(&evenkeel, "evenkeel_requests_total{", 10.0);
}

#[test]
fn a_web_socket_outlives_reloads_that_do_not_touch_it() {
    let origin = Origin::start(|conn| {
        while let Some(request) = conn.read_request()? {
            if request.header("upgrade").is_none() {
                conn.write(reply(200, "plain"))?;
                continue;
            }
            conn.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")?;
            loop {
                let ping = conn.read_exactly(4)?;
                conn.write(ping)?;
            }
        }
        Ok(())
    });
    let origin = origin.expect("an origin");
    let sockets = |servers: &[SocketAddr], settings: &str| {
        site(servers, settings)
            .replace("pool: site", "upgrades: [websocket], pool: site")
            .replace("timeout: 10s", "timeout: 1s")
    };
    let mut evenkeel = start(&sockets(&[origin.address()], ""));
    healthy(&evenkeel, &[origin.address()]);
    let mut socket = connect(web(&evenkeel));
    let answer = socket.exchange(
        "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
    );
    assert_eq!(answer.expect("an answer").status, 101);
    let mut ping = |word: &str| {
        socket.send(word).expect("sent");
        assert_eq!(socket.read_exactly(4).expect("an echo"), word.as_bytes());
    };
    ping("one.");
    reload(&evenkeel, &sockets(&[origin.address()], "retries: off"));
    ping("two.");
    // Not even when its server or its listener is gone from the file.
    let other = Origin::http(|_| reply(200, "other")).expect("an origin");
    reload(&evenkeel, &sockets(&[other.address()], ""));
    ping("thr.");
    reload(
        &evenkeel,
        &sockets(&[other.address()], "").replace("web:", "other:"),
    );
    ping("four");
    evenkeel.stop(Duration::from_secs(15)).expect("exit 0");
    evenkeel
        .wait_log("stopped: 1 request cut", SOON)
        .expect("the tunnel is cut at the end");
}

#[test]
fn reloads_that_come_together_are_taken_together() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let mut evenkeel = start(&site(&[origin.address()], ""));
    let mark = evenkeel.mark();
    for _ in 0..100 {
        evenkeel.signal(Signal::HUP).expect("a signal");
    }
    reload(&evenkeel, &site(&[origin.address()], "retries: off"));
    evenkeel
        .wait_log_after(mark, "reloaded: 1 pool changed", SOON)
        .expect("the last one counts");
    let lines = evenkeel.log_lines();
    let times = lines
        .iter()
        .filter(|line| line.contains("reloaded: "))
        .count();
    assert!(times < 50, "{times} reloads for 101 wishes");
}

#[test]
fn downloads_outlive_reloads_of_everything_around_them() {
    if missing("nginx") {
        return;
    }
    let servers = nginxes(["a", "b"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let evenkeel = start(&site(&addresses, ""));
    healthy(&evenkeel, &addresses);
    let load = Load::to(web(&evenkeel)).clients(6).request("GET", "/1m");
    let whole = load.check(|answer| {
        anyhow::ensure!(answer.body.len() == 1 << 20, "{} bytes", answer.body.len());
        Ok(())
    });
    let load = whole.start();
    for turn in 0..6 {
        load.wait_ok(10, SOON).expect("traffic");
        // By turns one server alone, another algorithm, and the listener under another name.
        let config = match turn % 3 {
            0 => site(&addresses[..1], ""),
            1 => site(&addresses[1..], "balance: random"),
            _ => site(&addresses, "").replace("web:", "other:"),
        };
        reload(&evenkeel, &config);
    }
    load.wait_ok(10, SOON).expect("traffic");
    load.stop().assert_none_failed();
}

#[test]
fn a_port_that_was_let_go_can_be_had_again_at_once() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let port = testkit::Port::reserve().expect("a port");
    let address = port.address();
    // The reservation is a bound socket, which our own probe for foreign owners would meet.
    drop(port);
    let without = site(&[origin.address()], "");
    let with = without.replace(
        "listeners:",
        &format!("listeners:\n  more: {{ bind: '{address}', pool: site }}"),
    );
    let evenkeel = start(&without);
    for _ in 0..5 {
        reload(&evenkeel, &with);
        assert_eq!(connect(address).get("/").expect("an answer").text(), "here");
        reload(&evenkeel, &without);
    }
}

#[test]
fn a_reload_says_what_it_changed_and_how_many_connections_that_concerns() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let config = |routes: &str, more: &str| {
        format!(
            "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web: {{ bind: '127.0.0.1:0', routes: [{routes}] }}
{more}
pools:
  site: {{ servers: ['{}'] }}
",
            origin.address()
        )
    };
    let last = |evenkeel: &Evenkeel| -> serde_json::Value {
        serde_json::from_str(&admin_get(evenkeel, "/api/v1/reload")).expect("JSON")
    };
    let inner = "  inner: { bind: '127.0.0.2:0', pool: site }";
    let evenkeel = start(&config(
        "{ match: { path: /a }, pool: site }, { pool: site }",
        inner,
    ));
    assert_eq!(last(&evenkeel), serde_json::Value::Null);
    let mut clients: Vec<_> = (0..3).map(|_| connect(web(&evenkeel))).collect();
    clients.push(connect(evenkeel.address("inner").expect("an address")));
    for client in &mut clients {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
    let said = reload(
        &evenkeel,
        &config(
            "{ match: { path: /new }, pool: site }, { match: { path: /a }, filters: [{ respond: { status: 410 } }] }, { pool: site }",
            inner,
        ),
    );
    assert_eq!(
        said,
        "reloaded: 1 route added, 1 route changed; 0 of 4 connections affected\n"
    );
    let report = last(&evenkeel);
    assert_eq!(report["generation"], 2);
    assert_eq!(report["asked_by"], "the admin API");
    assert_eq!(report["changes"]["routes_changed"], 1);
    assert!(
        report["wall_ms"].as_u64() > Some(1_600_000_000_000),
        "{report}"
    );
    let said = reload(&evenkeel, &config("{ pool: site }", ""));
    assert_eq!(
        said,
        "reloaded: 1 listener removed, 3 routes removed; 1 of 4 connections affected\n"
    );
    evenkeel.write_config("listeners: 1").expect("written");
    assert_eq!(ask(&evenkeel, &["reload"]).code, Some(1));
    let report = last(&evenkeel);
    assert_eq!(report["generation"], 3, "nothing was taken up");
    assert!(
        !report["errors"].as_array().expect("errors").is_empty(),
        "{report}"
    );
    for client in &mut clients[..3] {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
}

#[test]
fn what_waits_for_the_next_start_is_told_by_every_reload_until_then() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let good = format!("workers: 1\n{}", site(&[origin.address()], ""));
    let mut evenkeel = start(&good);
    assert!(!reload(&evenkeel, &good).contains("next start"));
    let other = good.replace("workers: 1", "workers: 2").replace(
        "admin: { bind: '127.0.0.1:0' }",
        "admin: { bind: '127.0.0.2:0' }",
    );
    for _ in 0..2 {
        let said = reload(&evenkeel, &other);
        for key in ["workers", "admin"] {
            let line = format!("; `{key}` changed: that takes effect at the next start");
            assert!(said.contains(&line), "{said}");
        }
    }
    let finished = ask(&evenkeel, &["reload", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&finished.stdout).expect("JSON");
    assert_eq!(
        json["changes"]["next_start"],
        serde_json::json!(["workers", "admin"])
    );
    let mark = evenkeel.mark();
    let _newest = crate::upgrade::upgrade(&mut evenkeel, &[]);
    // The process that an upgrade starts is such a start.
    evenkeel
        .wait_log_after(mark, "127.0.0.2:", SOON)
        .expect("the new address");
    let said = reload(&evenkeel, &other);
    assert!(!said.contains("next start"), "{said}");
}

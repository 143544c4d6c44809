//! Operators: drain, disable, enable, weights.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::Value;
use testkit::{Evenkeel, Finished, Load, Origin, Raw, Signal, missing, reply, wait_until};

use crate::command::evenkeel_in;
use crate::life_support::{
    SOON, ask, connect, nginxes, picks, reload, server, site, start, wait_all, web,
};

/// Answers `/slow` when told to.
fn slow_origin(wait: Receiver<()>) -> Origin {
    let wait = std::sync::Mutex::new(wait);
    Origin::http(move |request| {
        if request.target == "/slow" {
            let wait = wait.lock().expect("one at a time");
            wait.recv_timeout(SOON).ok();
        }
        reply(200, "here")
    })
    .expect("an origin")
}

/// A client whose `/slow` is on its way at the origin.
fn slow_client(evenkeel: &Evenkeel, origin: &Origin) -> Raw {
    let mut client = connect(web(evenkeel));
    client
        .send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    wait_until("it is there", SOON, || {
        origin.seen().iter().any(|it| it.target == "/slow")
    })
    .expect("it is there");
    client
}

fn of(evenkeel: &Evenkeel, address: SocketAddr, key: &str) -> Value {
    server(evenkeel, "site", &address.to_string())[key].clone()
}

fn receipt(text: &str) -> Value {
    serde_json::from_str(text).expect(text)
}

#[test]
fn a_drain_under_load_has_a_receipt_without_new_picks_and_enable_brings_it_back() {
    if missing("nginx") {
        return;
    }
    let servers = nginxes(["a", "b"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let name = addresses[0].to_string();
    let evenkeel = start(&site(&addresses, ""));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = Load::to(web(&evenkeel)).clients(16).start();
    for _ in 0..10 {
        load.wait_ok(100, SOON).expect("traffic");
        let finished = ask(&evenkeel, &["server", "drain", "site", &name, "--json"]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        let receipt = receipt(&finished.text());
        assert_eq!(receipt["new_picks"], 0, "{receipt}");
        assert_eq!(receipt["cut"], Value::Array(Vec::new()), "{receipt}");
        let before = picks(&evenkeel, addresses[0]);
        load.wait_ok(100, SOON).expect("the other serves");
        assert_eq!(picks(&evenkeel, addresses[0]), before);
        assert_eq!(of(&evenkeel, addresses[0], "active"), 0);
        let finished = ask(&evenkeel, &["server", "enable", "site", &name]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        wait_until("it serves again", SOON, || {
            picks(&evenkeel, addresses[0]) > before + 20
        })
        .expect("it serves again");
    }
    let report = load.stop();
    report.assert_none_failed();
    assert_eq!(report.connects, 16);
}

#[test]
fn a_drain_waits_for_what_runs() {
    let (go, wait) = channel();
    let slow = slow_origin(wait);
    let other = Origin::http(|_| reply(200, "other")).expect("an origin");
    let evenkeel = start(&site(&[slow.address()], ""));
    wait_all(&evenkeel, &[slow.address()], "healthy");
    let mut client = slow_client(&evenkeel, &slow);
    reload(&evenkeel, &site(&[slow.address(), other.address()], ""));
    wait_all(&evenkeel, &[other.address()], "healthy");

    let url = evenkeel.admin_url().expect("an address");
    let folder = evenkeel.dir().path().to_owned();
    let name = slow.address().to_string();
    let drain = std::thread::spawn(move || {
        evenkeel_in(
            &folder,
            &["server", "drain", "site", &name, "--json", "--admin", &url],
        )
    });
    wait_until("it drains", SOON, || {
        of(&evenkeel, slow.address(), "state") == "drain"
    })
    .expect("it drains");
    for _ in 0..5 {
        assert_eq!(
            connect(web(&evenkeel)).get("/").expect("an answer").text(),
            "other"
        );
    }
    go.send(()).expect("sent");
    assert_eq!(client.response().expect("an answer").status, 200);
    let finished = drain.join().expect("a thread");
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let receipt = receipt(&finished.text());
    assert_eq!(
        (&receipt["new_picks"], &receipt["finished"]),
        (&0.into(), &1.into())
    );
}

#[test]
fn what_runs_past_the_drains_deadline_is_cut_and_the_command_says_so() {
    let (_go, wait) = channel();
    let slow = slow_origin(wait);
    let evenkeel = start(&site(&[slow.address()], "drain: { timeout: 500ms }"));
    wait_all(&evenkeel, &[slow.address()], "healthy");
    let mut client = slow_client(&evenkeel, &slow);
    let name = slow.address().to_string();
    let finished = ask(&evenkeel, &["server", "drain", "site", &name]);
    assert_eq!(
        finished.code,
        Some(1),
        "{}{}",
        finished.text(),
        finished.stderr
    );
    assert!(finished.text().contains("1 cut"), "{}", finished.text());
    assert!(finished.text().contains("deadline"), "{}", finished.text());
    let answer = client.response().expect("an answer");
    assert_eq!(answer.status, 503, "{answer}");
    assert_eq!(answer.header("x-evenkeel-reason"), Some("draining"));
    // Nobody else is there.
    let answer = connect(web(&evenkeel)).get("/").expect("an answer");
    assert_eq!(answer.header("x-evenkeel-reason"), Some("no_usable_server"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    // And what comes after it is ready again is not cut.
    ask(&evenkeel, &["server", "enable", "site", &name]);
    assert_eq!(
        connect(web(&evenkeel)).get("/").expect("an answer").text(),
        "here"
    );
}

#[test]
fn disabled_takes_nothing_and_outlives_a_reload() {
    let origins = [0, 1].map(|_| Origin::http(|_| reply(200, "here")).expect("an origin"));
    let addresses = origins.each_ref().map(Origin::address);
    let evenkeel = start(&site(&addresses, ""));
    wait_all(&evenkeel, &addresses, "healthy");
    let name = addresses[0].to_string();
    ask(&evenkeel, &["server", "disable", "site", &name]);
    let before = picks(&evenkeel, addresses[0]);
    let mut client = connect(web(&evenkeel));
    let ten = |client: &mut Raw| {
        for _ in 0..10 {
            assert_eq!(client.get("/").expect("an answer").status, 200);
        }
    };
    ten(&mut client);
    reload(&evenkeel, &site(&addresses, "retries: off"));
    ten(&mut client);
    assert_eq!(picks(&evenkeel, addresses[0]), before);
    assert_eq!(of(&evenkeel, addresses[0], "state"), "disabled");
}

#[test]
fn a_weight_at_run_time_changes_the_shares_until_the_file_says_otherwise() {
    let origins = [0, 1].map(|_| Origin::http(|_| reply(200, "here")).expect("an origin"));
    let [a, b] = origins.each_ref().map(Origin::address);
    let config = |weight: u32, more: &str| {
        let servers = format!("[{{ address: '{a}', weight: {weight} }}, '{b}']");
        site(&[a], &format!("balance: round_robin {more}")).replace(&format!("['{a}']"), &servers)
    };
    let evenkeel = start(&config(1, ""));
    wait_all(&evenkeel, &[a, b], "healthy");
    let mut client = connect(web(&evenkeel));
    let mut share = |requests: u64| {
        let before = [a, b].map(|it| picks(&evenkeel, it));
        for _ in 0..requests {
            assert_eq!(client.get("/").expect("an answer").status, 200);
        }
        [
            picks(&evenkeel, a) - before[0],
            picks(&evenkeel, b) - before[1],
        ]
    };
    let weight = |weight: &str| {
        let finished = ask(
            &evenkeel,
            &["server", "weight", "site", &a.to_string(), weight],
        );
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        // In force within two views.
        wait_until("it is in force", SOON, || {
            of(&evenkeel, a, "weight").as_u64() == weight.parse().ok()
        })
        .expect("it is in force");
    };
    assert_eq!(share(20), [10, 10]);
    weight("3");
    assert_eq!(share(20), [15, 5]);
    reload(&evenkeel, &config(1, ", retries: off"));
    assert_eq!(share(20), [15, 5]);
    weight("0");
    assert_eq!(share(20), [0, 20]);
    reload(&evenkeel, &config(4, ""));
    assert_eq!(share(20), [16, 4]);
}

#[test]
fn four_workers_keep_the_shares_of_the_process() {
    let origins = [0, 1, 2].map(|_| Origin::http(|_| reply(200, "here")).expect("an origin"));
    let addresses = origins.each_ref().map(Origin::address);
    let config = format!("workers: 4\n{}", site(&addresses, "balance: round_robin"));
    let evenkeel = start(&config);
    wait_all(&evenkeel, &addresses, "healthy");
    let mut clients: Vec<_> = (0..30).map(|_| connect(web(&evenkeel))).collect();
    for _ in 0..4 {
        for client in &mut clients {
            assert_eq!(client.get("/").expect("an answer").status, 200);
        }
    }
    assert_eq!(addresses.map(|it| picks(&evenkeel, it)), [40, 40, 40]);
}

#[test]
fn a_rolling_drain_of_every_server_under_load_loses_nothing() {
    if missing("nginx") {
        return;
    }
    let servers = nginxes(["a", "b", "c"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let evenkeel = start(&site(&addresses, ""));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = Load::to(web(&evenkeel)).clients(16).start();
    for address in [addresses, addresses].concat() {
        let name = address.to_string();
        let finished = ask(&evenkeel, &["server", "drain", "site", &name, "--json"]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert_eq!(receipt(&finished.text())["new_picks"], 0);
        // What a deploy does to it then: no connection of ours may be in its way.
        load.wait_ok(100, SOON).expect("the others serve");
        assert_eq!(
            ask(&evenkeel, &["server", "enable", "site", &name]).code,
            Some(0)
        );
        let before = picks(&evenkeel, address);
        wait_until("it serves again", SOON, || {
            picks(&evenkeel, address) > before + 10
        })
        .expect("it serves again");
    }
    let report = load.stop();
    report.assert_none_failed();
    assert_eq!(report.connects, 16, "a client's connection was closed");
}

#[test]
fn a_drains_receipt_counts_tcp_connections_and_websockets() {
    let echo = || {
        Origin::start(|conn| {
            if let Some(request) = conn.read_head()?
                && request.headers.has_token("connection", "upgrade")
            {
                conn.write(
                    "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                )?;
            }
            let bytes = conn.read_to_end()?;
            conn.write(bytes)
        })
        .expect("an origin")
    };
    let (a, b) = (echo(), echo());
    let config = format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web: {{ bind: '127.0.0.1:0', upgrades: [websocket], pool: site }}
  raw: {{ bind: '127.0.0.2:0', protocol: tcp, pool: site }}
pools:
  site: {{ servers: ['{}', '{}'], health_check: off, balance: round_robin, drain: {{ timeout: 700ms }} }}
",
        a.address(),
        b.address()
    );
    let evenkeel = start(&config);
    let upgrade =
        "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut socket = connect(web(&evenkeel));
        assert_eq!(socket.exchange(upgrade).expect("an answer").status, 101);
        clients.push(socket);
        let mut bytes = connect(evenkeel.address("raw").expect("an address"));
        bytes
            .send("GET /raw HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("sent");
        clients.push(bytes);
    }
    wait_until("all are there", SOON, || {
        [&a, &b]
            .iter()
            .all(|it| of(&evenkeel, it.address(), "active") == 2)
    })
    .expect("all are there");
    // A client that ends in time is finished, and one that does not is cut.
    let name = a.address().to_string();
    let finished = ask(&evenkeel, &["server", "drain", "site", &name, "--json"]);
    let receipt = receipt(&finished.text());
    assert_eq!(finished.code, Some(1), "{receipt}");
    assert_eq!(receipt["new_picks"], 0, "{receipt}");
    assert_eq!(receipt["cut"][0]["count"], 2, "{receipt}");
    let open: Vec<_> = clients
        .iter_mut()
        .filter_map(|client| {
            client
                .expect_silence(std::time::Duration::from_millis(200))
                .ok()
        })
        .collect();
    assert_eq!(open.len(), 2, "those of the other server stay");
}

#[test]
fn idle_connections_to_a_server_are_closed_when_it_takes_no_new_traffic() {
    let (go, wait) = channel();
    let slow = slow_origin(wait);
    let name = slow.address().to_string();
    // They would stay for an hour.
    let settings = "health_check: off, timeouts: { keep_alive: 1h }";
    let evenkeel = start(&site(&[slow.address()], settings));
    let mut client = connect(web(&evenkeel));
    let closed = || wait_until("all are closed", SOON, || slow.open() == 0);
    for verb in ["drain", "disable"] {
        assert_eq!(client.get("/").expect("an answer").status, 200);
        assert_eq!(slow.open(), 1, "kept for the next request");
        let finished = ask(&evenkeel, &["server", verb, "site", &name]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        closed().expect(verb);
        ask(&evenkeel, &["server", "enable", "site", &name]);
    }
    // And one that was in use when the drain began is not kept either.
    client
        .send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    wait_until("it is there", SOON, || slow.open() == 1).expect("it is there");
    ask(&evenkeel, &["server", "disable", "site", &name]);
    go.send(()).expect("sent");
    assert_eq!(client.response().expect("an answer").status, 200);
    closed().expect("in use");
}

/// A drain whose process is told to end, and has a second for that; what its command printed, once `then` has happened.
fn drain_at_the_end(then: impl FnOnce(&mut Evenkeel, Sender<()>)) -> Finished {
    let (go, wait) = channel();
    let slow = slow_origin(wait);
    let config = site(&[slow.address()], "").replace("timeout: 10s", "timeout: 1s");
    let mut evenkeel = start(&config);
    wait_all(&evenkeel, &[slow.address()], "healthy");
    let client = slow_client(&evenkeel, &slow);
    let url = evenkeel.admin_url().expect("an address");
    let folder = evenkeel.dir().path().to_owned();
    let name = slow.address().to_string();
    let drain = std::thread::spawn(move || {
        evenkeel_in(
            &folder,
            &["server", "drain", "site", &name, "--admin", &url],
        )
    });
    wait_until("it drains", SOON, || {
        of(&evenkeel, slow.address(), "state") == "drain"
    })
    .expect("it drains");
    evenkeel.signal(Signal::TERM).expect("a signal");
    then(&mut evenkeel, go);
    let finished = drain.join().expect("a thread");
    drop(client);
    finished
}

#[test]
fn a_drain_whose_process_ends_says_what_was_left() {
    let mut kept = None;
    let finished = drain_at_the_end(|_, go| kept = Some(go));
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let why = "not drained: the process is ending, with 1 in use, after";
    assert!(finished.text().contains(why), "{}", finished.text());
}

#[test]
fn a_drain_that_comes_to_its_end_before_its_process_does_is_one() {
    let finished = drain_at_the_end(|evenkeel, go| {
        evenkeel.wait_log("stopping", SOON).expect("a line");
        go.send(()).expect("sent");
    });
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let text = finished.text();
    assert!(
        text.contains("drained in") && text.contains("1 finished, 0 cut"),
        "{text}"
    );
}

#[test]
fn a_drain_that_another_command_ends_says_so() {
    let (go, wait) = channel();
    let slow = slow_origin(wait);
    let other = Origin::http(|_| reply(200, "other")).expect("an origin");
    let evenkeel = start(&site(&[slow.address()], ""));
    wait_all(&evenkeel, &[slow.address()], "healthy");
    let mut client = slow_client(&evenkeel, &slow);
    reload(&evenkeel, &site(&[slow.address(), other.address()], ""));
    wait_all(&evenkeel, &[other.address()], "healthy");
    let url = evenkeel.admin_url().expect("an address");
    let folder = evenkeel.dir().path().to_owned();
    let name = slow.address().to_string();
    let drained = name.clone();
    let drain = std::thread::spawn(move || {
        evenkeel_in(
            &folder,
            &["server", "drain", "site", &drained, "--admin", &url],
        )
    });
    wait_until("it drains", SOON, || {
        of(&evenkeel, slow.address(), "state") == "drain"
    })
    .expect("it drains");
    let finished = ask(&evenkeel, &["server", "disable", "site", &name]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let finished = drain.join().expect("a thread");
    assert_eq!(finished.code, Some(1), "{}", finished.text());
    let why = "not drained: another command ended that, with 1 in use, after";
    assert!(finished.text().contains(why), "{}", finished.text());
    go.send(()).expect("sent");
    assert_eq!(client.response().expect("an answer").status, 200);
}

/// Its 200 would else be taken for a word that was heeded.
#[test]
fn a_server_that_is_not_evenkeel_is_told_apart() {
    let other = Origin::http(|_| reply(200, "{}")).expect("an origin");
    let evenkeel = start(&site(&[other.address()], ""));
    let url = format!("http://{}", other.address());
    for command in [
        &["status"][..],
        &["reload"],
        &["server", "drain", "site", "a"],
        &["server", "disable", "site", "a"],
        &["affinity", "forget", "site", "--all"],
    ] {
        let all = [command, &["--admin", &url]].concat();
        let finished = evenkeel_in(evenkeel.dir().path(), &all);
        assert_eq!(finished.code, Some(3), "{command:?}: {}", finished.text());
        let why = "is not the admin listener of evenkeel";
        assert!(finished.stderr.contains(why), "{}", finished.stderr);
    }
}

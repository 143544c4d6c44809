//! `evenkeel drill`: a server out as by a crash, and what is told of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use serde_json::Value;
use testkit::{Evenkeel, Finished, Load, Origin, reply, wait_until};

use crate::command::evenkeel_in;
use crate::http2_support::{DATA, Frames, GET, RST_STREAM, WINDOW_UPDATE};
use crate::life_support::{
    SOON, ask, connect, metric, picks, reload, server, site, start, wait_all, wait_health, web,
};

fn origins<const N: usize>() -> ([Origin; N], [SocketAddr; N]) {
    let origins = [(); N].map(|()| Origin::http(|_| reply(200, "here")).expect("an origin"));
    let addresses = origins.each_ref().map(Origin::address);
    (origins, addresses)
}

/// The command, in the background.
fn drill(evenkeel: &Evenkeel, address: SocketAddr, length: &str) -> JoinHandle<Finished> {
    let url = evenkeel.admin_url().expect("an address");
    let folder = evenkeel.dir().path().to_owned();
    let (name, length) = (address.to_string(), length.to_owned());
    std::thread::spawn(move || {
        let args = [
            "drill", "site", &name, "--for", &length, "--json", "--force",
        ];
        evenkeel_in(&folder, &[&args[..], &["--admin", &url]].concat())
    })
}

fn of(evenkeel: &Evenkeel, address: SocketAddr) -> Value {
    server(evenkeel, "site", &address.to_string())
}

fn enable(evenkeel: &Evenkeel, address: SocketAddr) {
    let finished = ask(
        evenkeel,
        &["server", "enable", "site", &address.to_string()],
    );
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

fn wait_out(evenkeel: &Evenkeel, address: SocketAddr) {
    wait_until("it is out", SOON, || {
        of(evenkeel, address)["drill_left_ms"].is_u64()
    })
    .expect("it is out");
}

fn report(finished: &Finished) -> Value {
    serde_json::from_slice(&finished.stdout).unwrap_or_else(|_| panic!("{}", finished.stderr))
}

#[test]
fn a_drill_under_load_loses_nothing_and_says_what_the_others_carried() {
    let (_origins, addresses) = origins::<3>();
    let [a, b, c] = addresses;
    let evenkeel = start(&site(&addresses, "balance: round_robin"));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = Load::to(web(&evenkeel)).clients(8).start();
    load.wait_ok(100, SOON).expect("traffic");
    let command = drill(&evenkeel, a, "60s");
    wait_out(&evenkeel, a);
    wait_health(&evenkeel, a, "unhealthy");
    let status = ask(&evenkeel, &["status"]).text();
    assert!(
        status.contains("a drill has it out as a crash would, for "),
        "{status}"
    );
    let explained = ask(&evenkeel, &["explain", "--live", "GET http://x/"]).text();
    assert!(explained.contains("a drill has it out"), "{explained}");
    let held = picks(&evenkeel, a);
    load.wait_ok(100, SOON).expect("the others serve");
    assert_eq!(picks(&evenkeel, a), held, "nothing is picked that is out");

    enable(&evenkeel, a);
    let finished = command.join().expect("a thread");
    let report = report(&finished);
    assert_eq!(finished.code, Some(0), "{report}");
    assert_eq!(
        (&report["failed"], &report["ended_by"]),
        (&0.into(), &"operator".into())
    );
    for count in ["requests", "retried", "in_vain"] {
        assert!(report[count].as_u64() > Some(0), "{count} in {report}");
    }
    assert!(
        report["settled_ms"].is_u64() && report["unpicked_ms"].is_u64(),
        "{report}"
    );
    assert!(report["before_per_second"].as_f64() > Some(0.0), "{report}");
    for (survivor, address) in report["survivors"]
        .as_array()
        .expect("a list")
        .iter()
        .zip([b, c])
    {
        assert_eq!(survivor["server"], address.to_string());
        for rate in ["before_per_second", "after_per_second"] {
            assert!(survivor[rate].as_f64() > Some(0.0), "{report}");
        }
    }
    wait_health(&evenkeel, a, "healthy");
    assert!(of(&evenkeel, a)["drill_left_ms"].is_null());
    wait_until("it serves again", SOON, || picks(&evenkeel, a) > held + 20)
        .expect("it serves again");
    load.stop().assert_none_failed();
}

#[test]
fn requests_that_find_no_server_are_requests_of_the_drill() {
    let (_origins, addresses) = origins::<2>();
    let [a, b] = addresses;
    let evenkeel = start(&site(&addresses, ""));
    wait_all(&evenkeel, &addresses, "healthy");
    let command = drill(&evenkeel, a, "60s");
    wait_out(&evenkeel, a);
    let name = b.to_string();
    let disabled = ask(&evenkeel, &["server", "disable", "site", &name, "--force"]);
    assert_eq!(disabled.code, Some(0), "{}", disabled.stderr);
    let mut client = connect(web(&evenkeel));
    for _ in 0..20 {
        assert!(client.get("/").expect("an answer").status >= 500);
    }
    enable(&evenkeel, a);
    let finished = command.join().expect("a thread");
    let report = report(&finished);
    assert_eq!(finished.code, Some(1), "{report}");
    assert_eq!(report["failed"], 20, "{report}");
    assert_eq!(report["requests"], 20, "{report}");
}

#[test]
fn a_reload_without_the_server_ends_its_drill_and_what_it_carried_is_told() {
    let (_origins, addresses) = origins::<2>();
    let [a, b] = addresses;
    let evenkeel = start(&site(&addresses, "balance: round_robin"));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = Load::to(web(&evenkeel)).clients(4).start();
    load.wait_ok(100, SOON).expect("traffic");
    let command = drill(&evenkeel, a, "60s");
    wait_out(&evenkeel, a);
    reload(&evenkeel, &site(&[b], "balance: round_robin"));
    let finished = command.join().expect("a thread");
    let report = report(&finished);
    assert_eq!(report["ended_by"], "removed", "{report}");
    assert!(report["before_per_second"].as_f64() > Some(0.0), "{report}");
    load.stop().assert_none_failed();
}

/// A client of HTTP/2 that has eight streams at once, round after round, until it is told to stop; of how many rounds
/// some ended otherwise than well. `ok` counts the streams of the others.
fn streams(address: SocketAddr, ok: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut client = Frames::connect(address);
        let (mut next, mut failed) = (1, 0);
        while !stop.load(Ordering::Relaxed) {
            let mut open: Vec<u32> = (0..8).map(|at| next + 2 * at).collect();
            next += 16;
            for stream in &open {
                client.request(*stream, GET, true);
            }
            let mut bodies = Vec::new();
            while !open.is_empty() {
                let Some(frame) = client.next() else {
                    return failed + 1;
                };
                if frame.ends_stream() || frame.kind == RST_STREAM {
                    open.retain(|stream| *stream != frame.stream);
                }
                if frame.kind == DATA {
                    bodies.extend_from_slice(&frame.payload);
                }
            }
            if bodies == b"here".repeat(8) {
                ok.fetch_add(8, Ordering::Relaxed);
            } else {
                failed += 1;
            }
            // The window of the connection is opened again.
            let taken = u32::try_from(bodies.len()).unwrap_or(0);
            client.send(WINDOW_UPDATE, 0, 0, &taken.to_be_bytes());
        }
        failed
    })
}

#[test]
fn a_drill_under_http2_from_end_to_end_loses_nothing() {
    let origins = [(); 2].map(|()| {
        let origin = Origin::start(|conn| {
            conn.greet(&[])?;
            while let Some(stream) = conn.next_stream()? {
                conn.answer(stream, "here")?;
            }
            Ok(())
        });
        origin.expect("an origin")
    });
    let addresses = origins.each_ref().map(Origin::address);
    let [a, b] = addresses;
    let evenkeel = start(&site(&addresses, "http: 2, balance: round_robin"));
    wait_all(&evenkeel, &addresses, "healthy");
    let (ok, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let clients = [(); 4].map(|()| streams(web(&evenkeel), ok.clone(), stop.clone()));
    let wait_ok = |more: u64| {
        let before = ok.load(Ordering::Relaxed);
        wait_until("traffic", SOON, || {
            ok.load(Ordering::Relaxed) >= before + more
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    };
    wait_ok(100);
    let command = drill(&evenkeel, a, "60s");
    wait_out(&evenkeel, a);
    wait_health(&evenkeel, a, "unhealthy");
    let held = picks(&evenkeel, a);
    wait_ok(100);
    assert_eq!(picks(&evenkeel, a), held, "nothing is picked that is out");
    enable(&evenkeel, a);
    let finished = command.join().expect("a thread");
    let report = report(&finished);
    assert_eq!(finished.code, Some(0), "{report}");
    assert_eq!(report["failed"], 0, "{report}");
    assert!(report["requests"].as_u64() > Some(0), "{report}");
    let survivor = &report["survivors"][0];
    assert_eq!(survivor["server"], b.to_string(), "{report}");
    assert!(
        survivor["after_per_second"].as_f64() > Some(0.0),
        "{report}"
    );
    wait_health(&evenkeel, a, "healthy");
    wait_until("it serves again", SOON, || picks(&evenkeel, a) > held + 20)
        .expect("it serves again");
    stop.store(true, Ordering::Relaxed);
    let failed = clients.map(|client| client.join().expect("a client"));
    assert_eq!(failed, [0; 4], "{}", evenkeel.log());
    wait_until("nothing is left", SOON, || {
        metric(&evenkeel, "evenkeel_active_connections{") == 0.0
    })
    .expect("nothing is left");
}

#[test]
fn what_may_not_be_sent_again_fails_and_is_counted() {
    let (_go, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = Origin::http(move |request| {
        if request.target == "/slow" {
            let wait = wait.lock().expect("one at a time");
            wait.recv_timeout(SOON).ok();
        }
        reply(200, "here")
    });
    let slow = slow.expect("an origin");
    let evenkeel = start(&site(&[slow.address()], ""));
    wait_all(&evenkeel, &[slow.address()], "healthy");
    let mut client = connect(web(&evenkeel));
    let request = "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n.";
    client.send(request).expect("sent");
    wait_until("it is there", SOON, || {
        slow.seen().iter().any(|it| it.target == "/slow")
    })
    .expect("it is there");
    let command = drill(&evenkeel, slow.address(), "1s");
    let answer = client.response().expect("an answer");
    assert_eq!(
        answer.header("x-evenkeel-reason"),
        Some("server_reset"),
        "{answer}"
    );
    let finished = command.join().expect("a thread");
    let report = report(&finished);
    assert_eq!(report["ended_by"], "time", "{report}");
    assert_eq!(finished.code, Some(1), "{report}");
    assert_eq!(
        (&report["failed"], &report["in_vain"]),
        (&1.into(), &1.into()),
        "{report}"
    );
}

#[test]
fn tcp_connections_are_cut_and_new_ones_go_elsewhere() {
    let echo = || {
        Origin::start(|conn| {
            loop {
                let bytes = conn.read_exactly(1)?;
                conn.write(bytes)?;
            }
        })
        .expect("an origin")
    };
    let (a, b) = (echo(), echo());
    let config = format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners: {{ web: {{ bind: '127.0.0.1:0', protocol: tcp, pool: site }} }}
pools: {{ site: {{ servers: ['{}', '{}'], health_check: off, balance: round_robin }} }}
",
        a.address(),
        b.address()
    );
    let evenkeel = start(&config);
    let mut clients = [0, 1].map(|_| {
        let mut client = connect(web(&evenkeel));
        client.send("x").expect("sent");
        assert_eq!(client.read_exactly(1).expect("an echo"), b"x");
        client
    });
    assert_eq!((a.open(), b.open()), (1, 1));
    let command = drill(&evenkeel, a.address(), "60s");
    wait_until("it is cut", SOON, || a.open() == 0).expect("it is cut");
    for _ in 0..4 {
        let mut client = connect(web(&evenkeel));
        client.send("y").expect("sent");
        assert_eq!(client.read_exactly(1).expect("an echo"), b"y");
    }
    enable(&evenkeel, a.address());
    let finished = command.join().expect("a thread");
    let report = report(&finished);
    assert_eq!(
        (&report["failed"], &report["requests"]),
        (&1.into(), &6.into()),
        "{report}"
    );
    assert_eq!(finished.code, Some(1), "{report}");
    let alive = clients.iter_mut().filter_map(|client| {
        client.send("z").ok()?;
        client.read_exactly(1).ok()
    });
    assert_eq!(alive.count(), 1);
}

#[test]
fn a_drill_ends_by_itself_when_its_command_is_gone() {
    let (_origins, addresses) = origins::<2>();
    let mut evenkeel = start(&site(&addresses, ""));
    wait_all(&evenkeel, &addresses, "healthy");
    let mark = evenkeel.mark();
    let mut admin = connect(evenkeel.admin().expect("an address"));
    let request = format!(
        "POST /api/v1/pools/site/servers/{}/drill?for=1s HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: 0\r\n\r\n",
        addresses[0]
    );
    admin.send(request).expect("sent");
    wait_out(&evenkeel, addresses[0]);
    admin.reset().expect("gone");
    evenkeel
        .wait_log_after(mark, "drill: has ended: out for 1", SOON)
        .expect("it ends");
    wait_health(&evenkeel, addresses[0], "healthy");
    assert!(of(&evenkeel, addresses[0])["drill_left_ms"].is_null());
}

#[test]
fn the_last_server_is_not_taken_out_without_force_and_enable_ends_it() {
    let (_origins, [a, b]) = origins::<2>();
    let evenkeel = start(&site(&[a, b], ""));
    wait_all(&evenkeel, &[a, b], "healthy");
    ask(&evenkeel, &["server", "disable", "site", &b.to_string()]);
    let finished = ask(
        &evenkeel,
        &["drill", "site", &a.to_string(), "--for", "60s"],
    );
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let why = format!("no other server of pool `site` is fit to serve while `{a}` is out");
    assert!(finished.stderr.contains(&why), "{}", finished.stderr);
    for (more, part) in [("--for=1h1s", "a drill lasts 1s to 1h"), ("--for=x", "`x`")] {
        let finished = ask(
            &evenkeel,
            &["drill", "site", &a.to_string(), "--force", more],
        );
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        assert!(finished.stderr.contains(part), "{}", finished.stderr);
    }

    let command = drill(&evenkeel, a, "60s");
    wait_out(&evenkeel, a);
    let answer = connect(web(&evenkeel)).get("/").expect("an answer");
    assert_eq!(answer.status, 502, "{answer}");
    enable(&evenkeel, a);
    let finished = command.join().expect("a thread");
    let report = report(&finished);
    assert_eq!(report["ended_by"], "operator", "{report}");
    assert_eq!(finished.code, Some(1), "one request failed: {report}");
    wait_health(&evenkeel, a, "healthy");
    assert_eq!(
        connect(web(&evenkeel)).get("/").expect("an answer").status,
        200
    );
}

#[test]
fn without_traffic_nothing_is_judged() {
    let (_origins, addresses) = origins::<2>();
    let evenkeel = start(&site(&addresses, "health_check: off"));
    let name = addresses[0].to_string();
    let finished = ask(&evenkeel, &["drill", "site", &name, "--for", "1s"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let text = finished.text();
    for row in ["settled", "unpicked"] {
        let line = format!("  {row:<8}  no traffic to judge by\n");
        assert!(text.contains(&line), "{line:?} in\n{text}");
    }
}

//! Health checks against servers that do as they are told.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use testkit::{Evenkeel, Origin, Port, reply, wait_until};

use crate::life_support::{
    SOON, admin_get, connect, server, site, start, wait_all, wait_health, web,
};

/// A server whose `/health` has a status that the test sets, and answers its name elsewhere.
struct Judged {
    origin: Origin,
    status: Arc<AtomicU16>,
}

fn judged(name: &'static str) -> Judged {
    let status = Arc::new(AtomicU16::new(200));
    let answers = status.clone();
    let origin = Origin::http(move |request| match &*request.target {
        "/health" => reply(answers.load(Relaxed), format!("{name} is well")),
        _ => reply(200, name),
    });
    let origin = origin.expect("an origin");
    Judged { origin, status }
}

fn cause(evenkeel: &Evenkeel, judged: &Judged) -> String {
    let server = server(evenkeel, "site", &judged.origin.address().to_string());
    server["cause"].as_str().expect("a cause").to_owned()
}

/// With the rest of a check, and an interval of 200 ms.
fn checked(servers: &[&Judged], check: &str) -> String {
    let addresses: Vec<_> = servers.iter().map(|it| it.origin.address()).collect();
    site(
        &addresses,
        &format!("health_check: {{ interval: 200ms, timeout: 1s, {check} }}"),
    )
}

#[test]
fn a_wrong_status_takes_a_server_out_and_the_log_says_why() {
    let (a, b) = (judged("a"), judged("b"));
    let mut evenkeel = start(&checked(&[&a, &b], "path: /health"));
    wait_all(
        &evenkeel,
        &[a.origin.address(), b.origin.address()],
        "healthy",
    );
    let mark = evenkeel.mark();
    a.status.store(503, Relaxed);
    let line = evenkeel
        .wait_log_after(mark, "server is unhealthy", SOON)
        .expect("a line");
    assert!(line.contains("503 where 200-299 was expected"), "{line}");
    assert_eq!(cause(&evenkeel, &a), "503 where 200-299 was expected");
    let mut client = connect(web(&evenkeel));
    for _ in 0..10 {
        assert_eq!(client.get("/").expect("an answer").text(), "b");
    }
    a.status.store(204, Relaxed);
    wait_health(&evenkeel, a.origin.address(), "healthy");
    wait_until("it serves", SOON, || {
        client.get("/").expect("an answer").text() == "a"
    })
    .expect("it serves");
}

#[test]
fn thresholds_count_probes() {
    let (a, b) = (judged("a"), judged("b"));
    let check = "path: /health, healthy_threshold: 4, unhealthy_threshold: 5";
    let evenkeel = start(&checked(&[&a, &b], check));
    wait_all(
        &evenkeel,
        &[a.origin.address(), b.origin.address()],
        "healthy",
    );
    a.status.store(500, Relaxed);
    let before = a.origin.requests();
    wait_health(&evenkeel, a.origin.address(), "unhealthy");
    // One more may have been on its way when the status changed, or be now.
    let failed = a.origin.requests() - before;
    assert!((4..=7).contains(&failed), "{failed} probes");
    a.status.store(200, Relaxed);
    let before = a.origin.requests();
    wait_health(&evenkeel, a.origin.address(), "healthy");
    let passed = a.origin.requests() - before;
    assert!((3..=6).contains(&passed), "{passed} probes");
}

#[test]
fn a_probe_is_the_request_that_the_config_describes() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = seen.clone();
    // Its check has a port of its own.
    let checks = Origin::http(move |request| {
        let mut requests = requests.lock().expect("whole");
        requests.push((
            request.method.clone(),
            request.target.clone(),
            request.header("host").map(str::to_owned),
            request.header("x-probe").map(str::to_owned),
        ));
        reply(301, "all is well, moved or not")
    });
    let checks = checks.expect("an origin");
    let a = judged("a");
    let check = format!(
        "path: '/deep/health?full=1', method: POST, host: api.internal, port: {}, headers: {{ x-probe: 'yes' }}, status: [200, 300-302], body: 'is well'",
        checks.address().port()
    );
    let evenkeel = start(&checked(&[&a], &check));
    wait_health(&evenkeel, a.origin.address(), "healthy");
    let first = seen.lock().expect("whole").first().cloned();
    let expected = (
        "POST",
        "/deep/health?full=1",
        Some("api.internal"),
        Some("yes"),
    );
    let first = first.expect("a probe");
    assert_eq!(
        (&*first.0, &*first.1, first.2.as_deref(), first.3.as_deref()),
        expected
    );
    assert_eq!(a.origin.requests(), 0);
    let two = wait_until("probes open a connection each", SOON, || {
        checks.requests() >= 2
    });
    two.expect("probes open a connection each");
    assert!(checks.connections() >= checks.requests());
}

#[test]
fn a_body_without_the_text_is_a_failure() {
    let a = judged("a");
    let evenkeel = start(&checked(
        &[&a],
        "path: /health, body: 'very well', unhealthy_threshold: 1",
    ));
    wait_health(&evenkeel, a.origin.address(), "unhealthy");
    assert_eq!(cause(&evenkeel, &a), "a body without \"very well\"");
    // The only one, and it answers: it serves all the same.
    assert_eq!(
        connect(web(&evenkeel)).get("/").expect("an answer").text(),
        "a"
    );
    assert!(admin_get(&evenkeel, "/health").contains("degraded"));
    assert!(admin_get(&evenkeel, "/metrics").contains("evenkeel_pool_panic{pool=\"site\"} 1"));
}

#[test]
fn in_panic_those_that_answer_serve_and_those_that_refuse_do_not() {
    let (a, b) = (judged("a"), judged("b"));
    let dead = Port::reserve().expect("a port");
    let addresses = [a.origin.address(), dead.address(), b.origin.address()];
    let config = site(
        &addresses,
        "health_check: { path: /health, interval: 200ms, unhealthy_threshold: 2 }",
    );
    let mut evenkeel = start(&config);
    wait_all(&evenkeel, &[addresses[0], addresses[2]], "healthy");
    wait_health(&evenkeel, addresses[1], "unhealthy");
    a.status.store(500, Relaxed);
    b.status.store(500, Relaxed);
    evenkeel.wait_log("no server is fit", SOON).expect("a line");
    let tries = evenkeel_tries(&evenkeel);
    let mut client = connect(web(&evenkeel));
    let mut names = Vec::new();
    for _ in 0..10 {
        names.push(client.get("/").expect("an answer").text());
    }
    assert!(
        names.contains(&"a".to_owned()) && names.contains(&"b".to_owned()),
        "{names:?}"
    );
    assert_eq!(evenkeel_tries(&evenkeel), tries, "the dead one was tried");
    b.status.store(200, Relaxed);
    evenkeel
        .wait_log("a server is fit again", SOON)
        .expect("a line");
    assert_eq!(client.get("/").expect("an answer").text(), "b");
}

fn evenkeel_tries(evenkeel: &Evenkeel) -> f64 {
    crate::life_support::metric(evenkeel, "evenkeel_retries_total{pool=\"site\"")
}

#[test]
fn initial_healthy_serves_at_once_and_unhealthy_waits() {
    // The check of this server hangs: its verdict stays what it was at first.
    let hangs = || {
        Origin::start(|conn| {
            while let Some(request) = conn.read_request()? {
                if request.target == "/health" {
                    conn.hang(SOON);
                }
                conn.write(reply(200, "new"))?;
            }
            Ok(())
        })
        .expect("an origin")
    };
    let old = judged("old");
    for (initial, expected) in [("healthy", true), ("unhealthy", false), ("unknown", false)] {
        let new = hangs();
        let addresses = [old.origin.address(), new.address()];
        let check = format!(
            "balance: round_robin, health_check: {{ path: /health, interval: 1m, timeout: 30s, initial: {initial} }}"
        );
        let evenkeel = start(&site(&addresses, &check));
        if initial == "healthy" {
            wait_all(&evenkeel, &addresses, "healthy");
        } else {
            wait_until("the old one was probed", SOON, || {
                server(&evenkeel, "site", &addresses[0].to_string())["cause"] == "passes its probes"
            })
            .expect("the old one was probed");
            if initial == "unhealthy" {
                continue;
            }
        }
        let mut client = connect(web(&evenkeel));
        let names: Vec<_> = (0..6)
            .map(|_| client.get("/").expect("an answer").text())
            .collect();
        assert_eq!(
            names.contains(&"new".to_owned()),
            expected,
            "{initial}: {names:?}"
        );
    }
}

#[test]
fn a_server_that_accepts_and_says_nothing_times_out() {
    let silent = Origin::start(|conn| {
        conn.hang(SOON);
        Ok(())
    })
    .expect("an origin");
    let config = site(
        &[silent.address()],
        "health_check: { path: /health, interval: 200ms, timeout: 300ms, unhealthy_threshold: 2 }",
    );
    let mut evenkeel = start(&config);
    let line = evenkeel
        .wait_log("server is unhealthy", SOON)
        .expect("a line");
    assert!(line.contains("timeout after 300 ms"), "{line}");
}

#[test]
fn without_a_check_of_its_own_a_pool_is_probed_by_connecting() {
    let origin = Origin::start(|conn| {
        conn.read_to_end()?;
        Ok(())
    })
    .expect("an origin");
    let dead = Port::reserve().expect("a port");
    let config = site(
        &[origin.address(), dead.address()],
        "health_check: { tcp: { interval: 200ms, unhealthy_threshold: 1 } }",
    );
    let evenkeel = start(&config);
    wait_health(&evenkeel, origin.address(), "healthy");
    wait_health(&evenkeel, dead.address(), "unhealthy");
    let refused = server(&evenkeel, "site", &dead.address().to_string());
    assert_eq!(refused["cause"], "connection refused");
}

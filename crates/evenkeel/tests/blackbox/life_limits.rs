//! Limits: per server, per listener, of the process; and clients that are slow on purpose.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use testkit::{Evenkeel, Load, Origin, Raw, TempDir, missing, reply, wait_until};

use crate::command::BINARY;
use crate::life_support::{
    SOON, admin_get, ask, assert_metric, connect, metric, nginxes, reload, server, site, start,
    wait_all, web,
};

/// Answers `/slow` each time that it is told to, its name else.
fn slow(name: &'static str) -> (Origin, Sender<()>) {
    let (go, wait): (_, Receiver<()>) = channel();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::http(move |request| {
        if request.target == "/slow" {
            let wait = wait.lock().expect("one at a time");
            wait.recv_timeout(SOON).ok();
        }
        reply(200, name)
    });
    (origin.expect("an origin"), go)
}

fn with_max(servers: &[SocketAddr], settings: &str) -> String {
    let plain = crate::life_support::list(servers);
    let long: Vec<_> = servers
        .iter()
        .map(|it| format!("{{ address: '{it}', max_connections: 1 }}"))
        .collect();
    site(servers, settings).replace(&plain, &format!("[{}]", long.join(", ")))
}

/// A place is given back a moment after the last byte of the answer.
fn wait_active(evenkeel: &Evenkeel, active: u64) {
    wait_until(&format!("{active} are served"), SOON, || {
        metric(evenkeel, "evenkeel_active_connections{pool=\"site\"") == active as f64
    })
    .unwrap_or_else(|error| panic!("{error}"));
}

/// Occupies one place more, so that so many are.
fn occupy(evenkeel: &Evenkeel, active: u64) -> Raw {
    let mut client = connect(web(evenkeel));
    client
        .send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    wait_active(evenkeel, active);
    client
}

#[test]
fn a_full_server_is_left_out_and_when_all_are_full_the_answer_says_so() {
    let ((a, go_a), (b, go_b)) = (slow("a"), slow("b"));
    let addresses = [a.address(), b.address()];
    let evenkeel = start(&with_max(&addresses, "limits: { queue: off }"));
    wait_all(&evenkeel, &addresses, "healthy");
    let mut first = occupy(&evenkeel, 1);
    let busy = if server(&evenkeel, "site", &addresses[0].to_string())["active"] == 1 {
        "a"
    } else {
        "b"
    };
    let mut client = connect(web(&evenkeel));
    for _ in 0..5 {
        let answer = client.get("/").expect("an answer");
        assert_ne!(answer.text(), busy, "{answer}");
        assert_eq!(answer.status, 200, "{answer}");
        wait_active(&evenkeel, 1);
    }
    let mut second = occupy(&evenkeel, 2);
    let answer = client.get("/").expect("an answer");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("x-evenkeel-reason"), Some("server_limit"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    // The client's connection lives on, and so do the slow ones.
    go_a.send(()).expect("sent");
    go_b.send(()).expect("sent");
    assert_eq!(first.response().expect("an answer").status, 200);
    assert_eq!(second.response().expect("an answer").status, 200);
    wait_active(&evenkeel, 0);
    assert_eq!(client.get("/").expect("an answer").status, 200);
}

#[test]
fn sockets_to_a_server_are_bounded() {
    let (a, go) = slow("a");
    let settings = "limits: { connections_per_server: 1, queue: off }";
    let evenkeel = start(&site(&[a.address()], settings));
    wait_all(&evenkeel, &[a.address()], "healthy");
    let mut first = occupy(&evenkeel, 1);
    let mut client = connect(web(&evenkeel));
    let answer = client.get("/").expect("an answer");
    assert_eq!(
        answer.header("x-evenkeel-reason"),
        Some("server_limit"),
        "{answer}"
    );
    go.send(()).expect("sent");
    assert_eq!(first.response().expect("an answer").status, 200);
    // The one socket is idle now, on whichever worker it is.
    assert_eq!(first.get("/").expect("an answer").status, 200);
}

#[test]
fn a_full_http_listener_pauses_and_goes_on() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let config = site(&[origin.address()], "")
        .replace("pool: site }", "pool: site, limits: { connections: 2 } }");
    let evenkeel = start(&config);
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut clients: Vec<_> = (0..2).map(|_| connect(web(&evenkeel))).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
    let mut waits = connect(web(&evenkeel));
    waits
        .send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    waits
        .expect_silence(Duration::from_millis(300))
        .expect("nothing yet");
    assert!(metric(&evenkeel, "evenkeel_listener_paused_total{") > 0.0);
    assert_eq!(clients[1].get("/").expect("an answer").status, 200);
    clients.remove(0);
    assert_eq!(waits.response().expect("an answer").status, 200);
}

/// Starts with so many descriptors; the folder is what it was started from.
fn start_with_files(count: u32, config: &str) -> (TempDir, Evenkeel) {
    // The shell lowers the hard limit, which the process cannot raise again.
    let dir = TempDir::new("limit").expect("a folder");
    let script = format!("#!/bin/sh\nulimit -n {count} || exit 9\nexec '{BINARY}' \"$@\"\n");
    let script = dir.write("limited", script).expect("a script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("executable");
    let evenkeel = Evenkeel::start(&script, config).expect("evenkeel starts");
    (dir, evenkeel)
}

#[test]
fn a_process_without_descriptors_pauses_and_goes_on() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let config = site(&[origin.address()], "").replace(
        "pool: site }",
        "pool: site, limits: { connections: 5000 } }",
    );
    let (_dir, mut evenkeel) = start_with_files(100, &config);
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut honest = connect(web(&evenkeel));
    assert_eq!(honest.get("/").expect("an answer").status, 200);
    let mut clients: Vec<_> = (0..150).map(|_| connect(web(&evenkeel))).collect();
    // What is accepted is answered, though a connection to the server may be one too many.
    let answer = honest.get("/").expect("an answer");
    assert!(matches!(answer.status, 200 | 502 | 503), "{answer}");
    clients.truncate(20);
    wait_until("all is well again", SOON, || {
        connect(web(&evenkeel))
            .get("/")
            .is_ok_and(|answer| answer.status == 200)
    })
    .expect("all is well again");
    for client in &mut clients {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
    assert!(metric(&evenkeel, "evenkeel_listener_paused_total{") > 0.0);
    drop(clients);
    evenkeel.stop(SOON).expect("exit 0");
}

/// Clients have most of the descriptors; what serves them, and who looks after them, has the rest.
#[test]
fn clients_that_take_all_descriptors_leave_some_for_the_operator() {
    let (origin, go) = slow("here");
    let config = site(&[origin.address()], "").replace(
        "pool: site }",
        "pool: site, limits: { connections: 5000 } }",
    );
    let (_dir, mut evenkeel) = start_with_files(120, &config);
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut honest: Vec<_> = (0..4).map(|_| connect(web(&evenkeel))).collect();
    for client in &mut honest {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
    let crowd: Vec<_> = (0..300).map(|_| connect(web(&evenkeel))).collect();
    evenkeel
        .wait_log("accepting pauses", SOON)
        .expect("it pauses");
    assert_eq!(admin_get(&evenkeel, "/livez"), "ok");
    let paused = "evenkeel_listener_paused_total{listener=\"web\",cause=\"descriptors\"}";
    assert!(metric(&evenkeel, paused) > 0.0);
    let status = ask(&evenkeel, &["status"]);
    assert_eq!(status.code, Some(0), "{}", status.stderr);
    reload(
        &evenkeel,
        &config.replace("interval: 200ms", "interval: 100ms"),
    );
    // All at once, so that each needs a connection of its own.
    for client in &mut honest {
        client
            .send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("sent");
    }
    wait_active(&evenkeel, 4);
    honest.iter().for_each(|_| go.send(()).expect("sent"));
    for client in &mut honest {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
    wait_all(&evenkeel, &[origin.address()], "healthy");

    let mut next = connect(web(&evenkeel));
    drop(crowd);
    assert_eq!(next.get("/").expect("an answer").status, 200);
    evenkeel
        .wait_log("accepting goes on", SOON)
        .expect("it goes on");
    let log = evenkeel.log();
    assert_eq!(log.matches("accepting pauses").count(), 1, "{log}");
    assert!(!log.contains("ejected"), "{log}");
    evenkeel.stop(SOON).expect("exit 0");
}

#[test]
fn the_admin_listener_tells_once_that_it_is_out_of_descriptors() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let (_dir, mut evenkeel) = start_with_files(100, &site(&[origin.address()], ""));
    let address = evenkeel.admin().expect("an admin address");
    let crowd: Vec<_> = (0..150).map(|_| connect(address)).collect();
    evenkeel
        .wait_log("the admin listener cannot accept", SOON)
        .expect("it tells");
    drop(crowd);
    assert_eq!(admin_get(&evenkeel, "/livez"), "ok");
    evenkeel
        .wait_log("the admin listener accepts again", SOON)
        .expect("it is over");
    let log = evenkeel.log();
    assert_eq!(log.matches("cannot accept").count(), 1, "{log}");
}

#[test]
fn the_slow_and_the_idle_do_not_stop_the_honest() {
    if missing("nginx") {
        return;
    }
    let servers = nginxes(["a"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let config =
        site(&addresses, "").replace("pool: site }", "pool: site, timeouts: { header: 1s } }");
    let evenkeel = start(&config);
    wait_all(&evenkeel, &addresses, "healthy");
    let _idle: Vec<_> = (0..200).map(|_| connect(web(&evenkeel))).collect();
    let mut slow: Vec<_> = (0..50)
        .map(|_| {
            let mut client = connect(web(&evenkeel));
            client
                .send("GET / HTTP/1.1\r\nHost: x\r\nx-a: ")
                .expect("sent");
            client
        })
        .collect();
    let load = Load::to(web(&evenkeel)).clients(8).start();
    let started = Instant::now();
    // A byte now and then does not extend the time for a head.
    while started.elapsed() < Duration::from_millis(700) {
        for client in &mut slow {
            client.send("a").expect("sent");
        }
        load.wait_ok(50, SOON).expect("traffic");
    }
    for client in &mut slow {
        let answer = client.response().expect("an answer");
        assert_eq!(answer.status, 408);
        assert_eq!(answer.header("x-evenkeel-reason"), Some("header_timeout"));
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    let report = load.stop();
    report.assert_none_failed();
    assert!(report.percentile(0.99) < Duration::from_secs(1), "{report}");
}

#[test]
fn a_burst_does_not_pass_the_limit() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let config = site(&[origin.address()], "")
        .replace("pool: site }", "pool: site, limits: { connections: 5 } }");
    let evenkeel = start(&config);
    wait_all(&evenkeel, &[origin.address()], "healthy");
    // Queued by the kernel all at once, while the process is stopped.
    let stopped = rustix::process::Pid::from_raw(evenkeel.pid().cast_signed()).expect("a pid");
    rustix::process::kill_process(stopped, rustix::process::Signal::STOP).expect("stopped");
    let mut clients: Vec<_> = (0..40).map(|_| connect(web(&evenkeel))).collect();
    for client in &mut clients {
        client
            .send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("sent");
    }
    rustix::process::kill_process(stopped, rustix::process::Signal::CONT).expect("continued");
    wait_until("five are accepted", SOON, || {
        metric(&evenkeel, "evenkeel_listener_accepted_total{") >= 5.0
    })
    .expect("five are accepted");
    wait_until("it pauses", SOON, || {
        metric(&evenkeel, "evenkeel_listener_paused_total{") > 0.0
    })
    .expect("it pauses");
    assert_metric(&evenkeel, "evenkeel_listener_accepted_total{", 5.0);
    // Each that leaves lets another one in, until all had an answer.
    while !clients.is_empty() {
        let ready = clients.iter().position(|client| {
            let mut one = [0];
            client.stream().set_nonblocking(true).expect("set");
            let peeked = client.stream().peek(&mut one);
            client.stream().set_nonblocking(false).expect("set");
            peeked.is_ok()
        });
        match ready {
            Some(at) => assert_eq!(
                clients.remove(at).response().expect("an answer").status,
                200
            ),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// A client that has its answer finds the place free, on whichever worker its next request runs.
#[test]
fn a_place_is_free_before_the_client_has_its_answer() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let config = format!("workers: 4\n{}", with_max(&[origin.address()], ""));
    let evenkeel = start(&config);
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut clients: Vec<_> = (0..8).map(|_| connect(web(&evenkeel))).collect();
    for round in 0..100 {
        for client in &mut clients {
            let answer = client.get("/").expect("an answer");
            assert_eq!(answer.status, 200, "{round}: {answer}");
        }
    }
}

//! The end of the process under load and beside slow requests.

use std::sync::mpsc::channel;
use std::time::Duration;

use testkit::{Evenkeel, Load, Origin, Raw, Signal, curl, missing, reply, wait_until};

use crate::life_support::{SOON, connect, metric, nginxes, site, start, wait_all, web};

fn terminate(evenkeel: &mut Evenkeel) {
    evenkeel.signal(Signal::TERM).expect("a signal");
}

fn exit_code(evenkeel: &mut Evenkeel) -> Option<i32> {
    evenkeel.wait_exit(SOON).expect("an end").code()
}

/// An origin that answers anything but probes when it is told to, or never.
fn slow_origin(wait: std::sync::mpsc::Receiver<()>) -> Origin {
    let wait = std::sync::Mutex::new(wait);
    Origin::http(move |request| {
        if request.target != "/health" {
            let wait = wait.lock().expect("one at a time");
            wait.recv_timeout(SOON).ok();
        }
        reply(200, "slow")
    })
    .expect("an origin")
}

#[test]
fn the_end_under_load_cuts_nothing() {
    if missing("nginx") {
        return;
    }
    let servers = nginxes(["a", "b"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let mut evenkeel = start(&site(&addresses, ""));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = Load::to(web(&evenkeel)).clients(16).end_at_close().start();
    load.wait_ok(500, SOON).expect("traffic");
    terminate(&mut evenkeel);
    let report = load.wait_ended(SOON).expect("every client was told to go");
    report.assert_none_failed();
    assert_eq!(
        report.connects, 16,
        "a connection was closed without a word"
    );
    assert_eq!(exit_code(&mut evenkeel), Some(0));
    let line = evenkeel
        .wait_log("stopped: 0 requests cut", SOON)
        .expect("a last line");
    assert_eq!(evenkeel.log_lines().last(), Some(&line));
}

#[test]
fn new_connections_at_the_very_end_are_answered_or_refused_never_reset() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let mut evenkeel = start(&site(&[origin.address()], ""));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let address = web(&evenkeel);
    // Each client opens a connection for each request, until it is refused.
    let clients: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut served = 0;
                while let Ok(mut client) = Raw::connect(address) {
                    let answer =
                        client.exchange("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                    let answer = answer.unwrap_or_else(|error| panic!("after {served}: {error:#}"));
                    assert_eq!(answer.status, 200, "{answer}");
                    served += 1;
                }
                served
            })
        })
        .collect();
    wait_until("traffic", SOON, || origin.requests() > 200).expect("traffic");
    terminate(&mut evenkeel);
    for client in clients {
        assert!(client.join().expect("no connection was lost") > 0);
    }
    assert_eq!(exit_code(&mut evenkeel), Some(0));
}

#[test]
fn a_slow_request_is_waited_for() {
    let (go, wait) = channel();
    let origin = slow_origin(wait);
    let mut evenkeel = start(&site(&[origin.address()], ""));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut client = connect(web(&evenkeel));
    client
        .send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    wait_target(&origin, "/slow");
    terminate(&mut evenkeel);
    let line = evenkeel.wait_log("stopping", SOON).expect("a line");
    assert!(line.contains("\"active\":1"), "{line}");
    let address = web(&evenkeel);
    wait_until("the listener is closed", SOON, || {
        Raw::connect(address).is_err()
    })
    .expect("the listener is closed");
    go.send(()).expect("sent");
    let answer = client.response().expect("an answer");
    assert_eq!((answer.status, answer.closes()), (200, true), "{answer}");
    client.expect_close().expect("closed");
    assert_eq!(exit_code(&mut evenkeel), Some(0));
    evenkeel
        .wait_log("stopped: 0 requests cut", SOON)
        .expect("a last line");
}

/// Waits until the origin has been asked for this.
fn wait_target(origin: &Origin, target: &str) {
    wait_until(&format!("{target} is there"), SOON, || {
        origin.seen().iter().any(|it| it.target == target)
    })
    .unwrap_or_else(|error| panic!("{error}"));
}

/// Whether this is what a client hears that waited until the end's time was over.
#[track_caller]
fn assert_told(mut client: Raw) {
    let answer = client.response().expect("an answer");
    let reason = answer.header("x-evenkeel-reason");
    assert_eq!((answer.status, reason), (503, Some("draining")), "{answer}");
    assert!(answer.closes(), "{answer}");
    client.expect_close().expect("closed");
}

#[test]
fn who_waits_past_the_timeout_is_told_and_counted() {
    let (_go, wait) = channel();
    let origin = slow_origin(wait);
    // Three at a time: the fourth waits for a place.
    let settings = "limits: { max_connections: 3, queue_wait: 20s }";
    let config = site(&[origin.address()], settings).replace("timeout: 10s", "timeout: 1s");
    let mut evenkeel = start(&config);
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut answered = connect(web(&evenkeel));
    answered
        .send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    wait_target(&origin, "/slow");
    let mut sending = connect(web(&evenkeel));
    sending
        .send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        .expect("sent");
    let url = format!("http://{}/multiplexed", web(&evenkeel));
    let asked = std::thread::spawn(move || {
        let args = ["--http2-prior-knowledge", "-d", "body", &url];
        curl(&args).expect("an answer")
    });
    wait_until("three are served", SOON, || {
        metric(&evenkeel, "evenkeel_active_connections") >= 3.0
    })
    .expect("three are served");
    let mut queued = connect(web(&evenkeel));
    queued
        .send("GET /queued HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    wait_until("one waits", SOON, || {
        metric(&evenkeel, "evenkeel_queue_length") >= 1.0
    })
    .expect("one waits");
    terminate(&mut evenkeel);
    assert_told(answered);
    assert_told(sending);
    assert_told(queued);
    let answer = asked.join().expect("it ended");
    let reason = answer.header("x-evenkeel-reason");
    assert_eq!((answer.status, reason), (503, Some("draining")), "{answer}");
    assert_eq!(exit_code(&mut evenkeel), Some(0));
    evenkeel
        .wait_log("stopped: 4 requests cut", SOON)
        .expect("a last line");
}

#[test]
fn an_answer_that_is_half_sent_at_the_timeout_does_not_look_whole() {
    let origin = Origin::start(|conn| {
        while let Some(request) = conn.read_request()? {
            if request.target == "/health" {
                conn.write(reply(200, "well"))?;
                continue;
            }
            conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")?;
            conn.hang(SOON);
        }
        Ok(())
    })
    .expect("an origin");
    let config = site(&[origin.address()], "").replace("timeout: 10s", "timeout: 1s");
    let config = format!("access_log: {{ to: stderr }}\n{config}");
    let mut evenkeel = start(&config);
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut client = connect(web(&evenkeel));
    client
        .send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    client.read_exactly(head.len()).expect("a beginning");
    terminate(&mut evenkeel);
    let rest = client.read_to_end();
    assert!(rest.is_err(), "it ended cleanly: {rest:?}");
    assert_eq!(exit_code(&mut evenkeel), Some(0));
    evenkeel
        .wait_log("\"reason\":\"draining\"", SOON)
        .expect("a line of it");
    evenkeel
        .wait_log("stopped: 1 request cut", SOON)
        .expect("a last line");
}

#[test]
fn a_second_signal_cuts_at_once() {
    let (_go, wait) = channel();
    let origin = slow_origin(wait);
    let mut evenkeel = start(&site(&[origin.address()], ""));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut client = connect(web(&evenkeel));
    client
        .send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    wait_target(&origin, "/slow");
    terminate(&mut evenkeel);
    evenkeel.wait_log("stopping", SOON).expect("a line");
    evenkeel.signal(Signal::INT).expect("a signal");
    let status = evenkeel.wait_exit(Duration::from_secs(3)).expect("an end");
    assert_eq!(status.code(), Some(1));
    evenkeel
        .wait_log("stopped at once: 1 request cut", SOON)
        .expect("a last line");
    client.expect_close().expect("closed");
}

#[test]
fn idle_connections_are_closed_cleanly_after_idle_wait() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let mut evenkeel = start(&site(&[origin.address()], ""));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut used = connect(web(&evenkeel));
    used.get("/").expect("an answer");
    let mut fresh = connect(web(&evenkeel));
    let mut half = connect(web(&evenkeel));
    half.send("GET / HTTP/1.1\r\nHo").expect("sent");
    terminate(&mut evenkeel);
    // A reset would be an error here.
    assert_eq!(used.read_to_end().expect("a clean end"), b"");
    assert_eq!(fresh.read_to_end().expect("a clean end"), b"");
    half.send("st: x\r\n\r\n").expect("sent");
    assert_eq!(half.response().expect("an answer").status, 200);
    assert_eq!(exit_code(&mut evenkeel), Some(0));
    evenkeel
        .wait_log("stopped: 0 requests cut", SOON)
        .expect("a last line");
}

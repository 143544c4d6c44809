//! How many sockets and requests a server of HTTP/2 gets at once: `limits.connections_per_server` bounds sockets, each of
//! which carries many requests, of whichever worker.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use testkit::http2::{END_STREAM, Frame, kind};
use testkit::{Conn, Evenkeel, Load, Nghttpd, Origin, Raw, missing, run, wait_until};

use crate::life_support::{SOON, ask, connect, metric, reload, server, site, start, web};

const NO_PROBES: &str = "health_check: off, outlier_detection: off";
const MAX_CONCURRENT_STREAMS: u16 = 3;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// A server whose requests end when they are let go.
struct Gated {
    origin: Origin,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    running: AtomicUsize,
    /// The most that ran at once.
    most: AtomicUsize,
    sockets: AtomicUsize,
    most_sockets: AtomicUsize,
    /// So many may end.
    passes: AtomicUsize,
    /// All may end.
    open: AtomicBool,
    /// Each socket has one more request, and takes no further one.
    leaves: AtomicBool,
}

impl Gate {
    fn may_pass(&self) -> bool {
        let taken = |passes: usize| passes.checked_sub(1);
        self.open.load(SeqCst) || self.passes.fetch_update(SeqCst, SeqCst, taken).is_ok()
    }

    fn serve(&self, conn: &mut Conn, settings: &[(u16, u32)]) -> anyhow::Result<()> {
        conn.greet(settings)?;
        let mut held = VecDeque::new();
        let mut left = false;
        loop {
            if conn.comes_within(Duration::from_millis(2))? {
                let Some(frame) = conn.any_frame()? else {
                    return Ok(());
                };
                match frame.kind {
                    kind::HEADERS => {
                        held.push_back(frame.stream);
                        let running = self.running.fetch_add(1, SeqCst) + 1;
                        self.most.fetch_max(running, SeqCst);
                    }
                    kind::RST_STREAM if held.contains(&frame.stream) => {
                        held.retain(|stream| *stream != frame.stream);
                        self.running.fetch_sub(1, SeqCst);
                    }
                    kind::SETTINGS if frame.flags == 0 => {
                        conn.send(Frame::new(kind::SETTINGS, 0, []).with(1))?;
                    }
                    _ => {}
                }
            }
            if self.leaves.load(SeqCst) && !left && !held.is_empty() {
                left = true;
                let last = held.back().copied().unwrap_or_default();
                conn.send(Frame::goaway(last, 0))?;
            }
            while !held.is_empty() && self.may_pass() {
                let stream = held.pop_front().unwrap_or_default();
                self.running.fetch_sub(1, SeqCst);
                conn.answer(stream, conn.number().to_string())?;
            }
        }
    }
}

impl Gated {
    fn start(settings: &'static [(u16, u32)]) -> Self {
        let gate = Arc::new(Gate::default());
        let shared = gate.clone();
        let origin = Origin::start(move |conn| {
            let sockets = shared.sockets.fetch_add(1, SeqCst) + 1;
            shared.most_sockets.fetch_max(sockets, SeqCst);
            let served = shared.serve(conn, settings);
            shared.sockets.fetch_sub(1, SeqCst);
            served
        });
        let origin = origin.expect("it listens");
        Self { origin, gate }
    }

    fn address(&self) -> SocketAddr {
        self.origin.address()
    }

    fn wait_running(&self, count: usize) {
        let runs = || self.gate.running.load(SeqCst) == count;
        wait_until(&format!("{count} run"), SOON, runs)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.gate.running));
    }

    fn open(&self, open: bool) {
        self.gate.open.store(open, SeqCst);
    }

    fn let_go(&self, count: usize) {
        self.gate.passes.fetch_add(count, SeqCst);
    }

    fn most(&self) -> (usize, usize) {
        (
            self.gate.most_sockets.load(SeqCst),
            self.gate.most.load(SeqCst),
        )
    }
}

fn config(workers: u32, servers: &[SocketAddr], settings: &str) -> String {
    format!(
        "workers: {workers}\n{}",
        site(servers, &format!("{NO_PROBES}, {settings}"))
    )
}

/// A request that has been sent, and whose answer is read later.
fn begin(evenkeel: &Evenkeel) -> Raw {
    let mut client = connect(web(evenkeel));
    client
        .send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    client
}

fn begin_some(evenkeel: &Evenkeel, count: usize) -> Vec<Raw> {
    (0..count).map(|_| begin(evenkeel)).collect()
}

fn assert_served(evenkeel: &Evenkeel, clients: &mut [Raw]) {
    for client in clients {
        let answer = client.response().expect("an answer");
        assert_eq!(answer.status, 200, "{answer}\n{}", evenkeel.log());
    }
}

fn wait_metric(evenkeel: &Evenkeel, start: &str, expected: f64) {
    wait_until(&format!("{start} is {expected}"), SOON, || {
        metric(evenkeel, start) == expected
    })
    .unwrap_or_else(|error| panic!("{error}: {}\n{}", metric(evenkeel, start), evenkeel.log()));
}

/// The bound of the one server of the pool, and what it comes from.
fn limit(evenkeel: &Evenkeel, address: SocketAddr) -> (Option<u64>, String) {
    let server = server(evenkeel, "site", &address.to_string());
    let by = server
        .get("limited_by")
        .and_then(|it| it.as_str())
        .unwrap_or_default();
    (
        server.get("limit").and_then(serde_json::Value::as_u64),
        by.to_owned(),
    )
}

#[test]
fn a_server_has_so_many_sockets_and_each_carries_so_many_requests() {
    for workers in [1, 4] {
        let gated = Gated::start(&[]);
        let settings = "http: { version: 2, streams: 3 }, limits: { connections_per_server: 2 }";
        let evenkeel = start(&config(workers, &[gated.address()], settings));
        let mut clients = begin_some(&evenkeel, 6);
        gated.wait_running(6);
        clients.extend(begin_some(&evenkeel, 4));
        wait_metric(&evenkeel, "evenkeel_queue_length{", 4.0);
        assert_eq!(
            limit(&evenkeel, gated.address()),
            (Some(6), "connections_per_server".to_owned())
        );
        let why = ask(
            &evenkeel,
            &[
                "explain",
                "--live",
                &format!("GET http://{}/", web(&evenkeel)),
            ],
        );
        let expected = "at its limit: 6 of 6 in use, as 2 connections of 3 requests allow";
        assert!(why.text().contains(expected), "{}", why.text());
        assert_eq!(gated.most(), (2, 6), "{workers} workers");
        gated.let_go(1);
        wait_metric(&evenkeel, "evenkeel_queue_length{", 3.0);
        gated.wait_running(6);
        gated.open(true);
        assert_served(&evenkeel, &mut clients);
        let load = Load::to(web(&evenkeel)).clients(16).start();
        load.wait_ok(300, SOON).expect("traffic");
        load.stop().assert_none_failed();
        let (sockets, requests) = gated.most();
        assert!(sockets <= 2 && requests <= 6, "{sockets}, {requests}");
    }
}

/// The one socket is another worker's, and never without a request.
#[test]
fn a_worker_without_a_socket_has_its_requests_on_another_s() {
    let gated = Gated::start(&[]);
    let settings = "http: 2, limits: { connections_per_server: 1, queue: off }";
    let evenkeel = start(&config(4, &[gated.address()], settings));
    let mut held = begin_some(&evenkeel, 1);
    gated.wait_running(1);
    let mut clients: Vec<_> = (0..12).map(|_| connect(web(&evenkeel))).collect();
    for round in 0..20 {
        for client in &mut clients {
            client
                .send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                .expect("sent");
        }
        // The first that came stays.
        gated.wait_running(13);
        gated.let_go(13);
        held.extend(begin_some(&evenkeel, 1));
        let mut done = held.remove(0);
        assert_served(&evenkeel, std::slice::from_mut(&mut done));
        assert_served(&evenkeel, &mut clients);
        gated.wait_running(1);
        assert_eq!(gated.gate.passes.load(SeqCst), 0, "round {round}");
    }
    assert_eq!(gated.origin.connections(), 1);
    gated.open(true);
    assert_served(&evenkeel, &mut held);
}

#[test]
fn a_server_that_wants_fewer_requests_has_them_in_turn() {
    for workers in [1, 4] {
        let gated = Gated::start(&[(MAX_CONCURRENT_STREAMS, 2)]);
        let settings = "http: 2, limits: { connections_per_server: 1 }";
        let evenkeel = start(&config(workers, &[gated.address()], settings));
        // All at once, before it has said what it wants.
        let mut clients = begin_some(&evenkeel, 8);
        gated.wait_running(2);
        let wants = || limit(&evenkeel, gated.address()).0 == Some(2);
        wait_until("what it wants is known", SOON, wants).expect("in time");
        clients.extend(begin_some(&evenkeel, 3));
        // Some of the first may have come late enough to be there, too.
        let queued = || metric(&evenkeel, "evenkeel_queue_length{") >= 3.0;
        wait_until("the last are queued", SOON, queued).expect("in time");
        gated.open(true);
        assert_served(&evenkeel, &mut clients);
        let load = Load::to(web(&evenkeel)).clients(12).start();
        load.wait_ok(300, SOON).expect("traffic");
        load.stop().assert_none_failed();
        assert_eq!(gated.most(), (1, 2), "{workers} workers");
    }
}

#[test]
fn a_wait_for_a_place_has_the_queue_s_end_and_is_no_fault_of_the_server() {
    let gated = Gated::start(&[(MAX_CONCURRENT_STREAMS, 1)]);
    let settings = "http: 2, limits: { connections_per_server: 1, queue_wait: 400ms }, timeouts: { connect: 100ms }";
    let evenkeel = start(&config(2, &[gated.address()], settings));
    let mut clients = begin_some(&evenkeel, 3);
    let mut statuses: Vec<(u16, String)> = Vec::new();
    thread::scope(|scope| {
        let answers: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(|| client.response().expect("an answer")))
            .collect();
        wait_metric(&evenkeel, "evenkeel_requests_total{", 2.0);
        gated.open(true);
        for answer in answers {
            let answer = answer.join().expect("it ends");
            let reason = answer.header("x-evenkeel-reason").unwrap_or_default();
            statuses.push((answer.status, reason.to_owned()));
        }
    });
    statuses.sort();
    let late = (503, "queue_timeout".to_owned());
    assert_eq!(statuses, [(200, String::new()), late.clone(), late]);
    assert_served(&evenkeel, &mut begin_some(&evenkeel, 1));
    let address = gated.address();
    let failed = format!(
        "evenkeel_server_requests_total{{pool=\"site\",server=\"{address}\",class=\"error\"}}"
    );
    assert_eq!(metric(&evenkeel, &failed), 0.0);

    // Without a queue nobody waits.
    gated.open(false);
    let off = settings.replace("queue_wait: 400ms", "queue: off");
    reload(&evenkeel, &config(2, &[gated.address()], &off));
    let mut first = begin_some(&evenkeel, 1);
    gated.wait_running(1);
    let answer = begin(&evenkeel).response().expect("an answer");
    assert_eq!(
        (answer.status, answer.header("x-evenkeel-reason")),
        (503, Some("server_limit"))
    );
    gated.open(true);
    assert_served(&evenkeel, &mut first);
}

/// Its connection takes nothing any more, and there may be no other one yet.
#[test]
fn a_server_that_has_said_goaway_gets_a_new_socket_when_the_old_one_ends() {
    for workers in [1, 4] {
        let gated = Gated::start(&[]);
        gated.gate.leaves.store(true, SeqCst);
        let settings = "http: 2, limits: { connections_per_server: 1 }";
        let one = config(workers, &[gated.address()], settings);
        let evenkeel = start(&one);
        let mut old = begin_some(&evenkeel, 1);
        gated.wait_running(1);
        let mut new = begin_some(&evenkeel, 5);
        new.iter_mut().for_each(|it| {
            it.expect_silence(Duration::from_millis(100))
                .expect("it waits")
        });
        assert_eq!(gated.gate.running.load(SeqCst), 1);
        gated.gate.leaves.store(false, SeqCst);
        gated.open(true);
        assert_served(&evenkeel, &mut old);
        assert_served(&evenkeel, &mut new);
        assert_eq!(gated.origin.connections(), 2);
        assert!(metric(&evenkeel, "evenkeel_server_sockets{") <= 1.0);

        // Another server's place is better than the wait.
        gated.open(false);
        gated.gate.leaves.store(true, SeqCst);
        let other = Gated::start(&[]);
        other.open(true);
        let mut old = begin_some(&evenkeel, 1);
        gated.wait_running(1);
        let both = [gated.address(), other.address()];
        reload(&evenkeel, &config(workers, &both, settings));
        assert_served(&evenkeel, &mut begin_some(&evenkeel, 12));
        gated.open(true);
        assert_served(&evenkeel, &mut old);
    }
}

#[test]
fn who_leaves_while_it_waits_for_a_place_leaves_it_to_the_next() {
    let gated = Gated::start(&[(MAX_CONCURRENT_STREAMS, 1)]);
    let settings = "http: 2, limits: { connections_per_server: 1 }";
    let evenkeel = start(&config(2, &[gated.address()], settings));
    // All of them before what it wants is known.
    let mut clients = begin_some(&evenkeel, 6);
    gated.wait_running(1);
    // One of them runs, and is answered by nobody if it is among those that go.
    clients.drain(2..5).for_each(drop);
    gated.open(true);
    let served = clients.iter_mut().filter_map(|it| it.response().ok());
    assert_eq!(served.filter(|it| it.status == 200).count(), 3);
    wait_metric(&evenkeel, "evenkeel_active_connections{", 0.0);
    assert_served(&evenkeel, &mut begin_some(&evenkeel, 3));
    assert_eq!(gated.origin.connections(), 1);
}

#[test]
fn who_waits_for_a_place_on_a_connection_is_seen_as_waiting() {
    let gated = Gated::start(&[(MAX_CONCURRENT_STREAMS, 1)]);
    let settings = "http: 2, limits: { connections_per_server: 1 }";
    let evenkeel = start(&config(1, &[gated.address()], settings));
    // All at once, before the server has said what it wants: the pool's queue knows nothing of them.
    let mut clients: Vec<_> = (0..5).map(|_| connect(web(&evenkeel))).collect();
    for client in &mut clients {
        let sent = client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        sent.expect("sent");
    }
    gated.wait_running(1);
    wait_metric(&evenkeel, "evenkeel_queue_length{", 4.0);
    gated.let_go(1);
    wait_metric(&evenkeel, "evenkeel_queue_length{", 3.0);
    gated.open(true);
    assert_served(&evenkeel, &mut clients);
    wait_metric(&evenkeel, "evenkeel_queue_length{", 0.0);
}

#[test]
fn a_reload_changes_how_many_sockets_there_may_be_and_what_is_spoken() {
    let gated = Gated::start(&[]);
    let settings = |version: &str, sockets: u32| {
        let settings = format!("http: {version}, limits: {{ connections_per_server: {sockets} }}");
        config(2, &[gated.address()], &settings)
    };
    let http2 = "{ version: 2, streams: 2 }";
    let evenkeel = start(&settings("1", 1));
    assert_eq!(limit(&evenkeel, gated.address()).0, Some(1));
    reload(&evenkeel, &settings(http2, 1));
    assert_eq!(limit(&evenkeel, gated.address()).0, Some(2));
    let mut clients = begin_some(&evenkeel, 5);
    gated.wait_running(2);
    wait_metric(&evenkeel, "evenkeel_queue_length{", 3.0);
    reload(&evenkeel, &settings(http2, 2));
    gated.wait_running(4);
    wait_metric(&evenkeel, "evenkeel_queue_length{", 1.0);
    reload(&evenkeel, &settings("{ version: 2, streams: 3 }", 2));
    gated.wait_running(5);
    assert_eq!(gated.most(), (2, 5));
    gated.open(true);
    assert_served(&evenkeel, &mut clients);
}

#[test]
fn uploads_and_downloads_pass_on_another_worker_s_socket() {
    if missing("nghttpd") || missing("h2load") {
        return;
    }
    let arguments = ["--echo-upload", "--max-concurrent-streams=8"];
    let nghttpd = Nghttpd::start(&arguments).expect("nghttpd starts");
    let settings = "http: 2, limits: { connections_per_server: 1 }";
    let evenkeel = start(&config(4, &[nghttpd.address()], settings));
    let transfer = || {
        let mut client = connect(web(&evenkeel));
        for (path, size) in [("/1k", 1 << 10), ("/1m", 1 << 20), ("/64k", 1 << 16)] {
            let answer = client.get(path).expect("an answer");
            assert_eq!((answer.status, answer.body.len()), (200, size));
        }
        let body = "0123456789".repeat(60_000);
        let length = body.len();
        let head = format!("POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        let answer = client.exchange(head + &body).expect("an answer");
        assert!(answer.status == 200 && answer.text() == body);
    };
    let transfers = || {
        thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(transfer))));
        wait_metric(&evenkeel, "evenkeel_active_connections{", 0.0);
        metric(&evenkeel, "evenkeel_buffer_bytes ")
    };
    // What goes from one worker's memory into another's is not counted for ever.
    let before = transfers();
    let after = [(); 4].map(|()| transfers());
    assert!(after[3] < before + 4e6, "{before} {after:?}");
    let url = format!("http://{}/64k", web(&evenkeel));
    let mut command = Command::new("h2load");
    command.args(["-n", "1500", "-c", "8", "-m", "10", &url]);
    let finished = run(command, Duration::from_secs(60)).expect("h2load runs");
    let text = finished.text();
    assert!(text.contains("status codes: 1500 2xx"), "{text}");
    assert_eq!(metric(&evenkeel, "evenkeel_errors_total"), 0.0, "{text}");
    assert!(metric(&evenkeel, "evenkeel_server_sockets{") <= 1.0);
}

#[test]
fn websockets_share_the_socket_of_another_worker() {
    let origin = Origin::start(|conn| {
        conn.greet(&[(ENABLE_CONNECT_PROTOCOL, 1)])?;
        while let Some(frame) = conn.next_frame()? {
            match frame.kind {
                kind::HEADERS => conn.send(Frame::headers(frame.stream, 200, &[]))?,
                kind::DATA => conn.send(frame)?,
                _ => {}
            }
        }
        Ok(())
    });
    let origin = origin.expect("it listens");
    let settings = "http: 2, limits: { connections_per_server: 1 }";
    let text = config(4, &[origin.address()], settings);
    let evenkeel = start(&text.replace("web: {", "web: { upgrades: [websocket],"));
    let request = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut clients: Vec<_> = (0..8).map(|_| connect(web(&evenkeel))).collect();
    for client in &mut clients {
        let answer = client.exchange(request).expect("an answer");
        assert_eq!(answer.status, 101, "{answer}");
    }
    for round in 0..5 {
        for (number, client) in clients.iter_mut().enumerate() {
            let text = format!("{round}-{number}");
            client.send(&text).expect("sent");
            let echo = client.read_exactly(text.len()).expect("an echo");
            assert_eq!(echo, text.as_bytes());
        }
    }
    for client in &mut clients {
        client.half_close().expect("closed");
        assert_eq!(client.read_to_end().expect("an end"), b"");
    }
    assert_eq!(origin.connections(), 1);
}

/// It ends with its worker's table, and so do the requests of others on it.
#[test]
fn a_socket_that_ends_takes_the_requests_of_all_workers_with_it_and_is_replaced() {
    let origin = Origin::start(|conn| {
        conn.greet(&[])?;
        let mut held = Vec::new();
        while let Some(stream) = conn.next_stream()? {
            if conn.number() > 0 {
                conn.answer(stream, "again")?;
                continue;
            }
            held.push(stream);
            // Half of an answer to each, and no more.
            conn.send(Frame::headers(stream, 200, &[]))?;
            conn.send(Frame::new(kind::DATA, stream, *b"half"))?;
            if held.len() == 8 {
                return Ok(());
            }
        }
        Ok(())
    });
    let origin = origin.expect("it listens");
    let settings = "http: 2, limits: { connections_per_server: 1 }";
    let evenkeel = start(&config(4, &[origin.address()], settings));
    for client in &mut begin_some(&evenkeel, 8) {
        client.response().expect_err("half an answer");
    }
    wait_metric(&evenkeel, "evenkeel_active_connections{", 0.0);
    assert_served(&evenkeel, &mut begin_some(&evenkeel, 8));
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_drain_waits_for_the_requests_of_all_workers() {
    let gated = Gated::start(&[]);
    let settings = "http: 2, limits: { connections_per_server: 1 }";
    let evenkeel = start(&config(4, &[gated.address()], settings));
    let mut clients = begin_some(&evenkeel, 9);
    gated.wait_running(9);
    let address = gated.address().to_string();
    thread::scope(|scope| {
        let drained = scope.spawn(|| ask(&evenkeel, &["server", "drain", "site", &address]));
        let state = || server(&evenkeel, "site", &address).get("state") == Some(&"drain".into());
        wait_until("it drains", SOON, state).expect("in time");
        gated.open(true);
        assert_served(&evenkeel, &mut clients);
        let drained = drained.join().expect("it ends");
        assert_eq!(drained.code, Some(0), "{}", drained.stderr);
    });
    let closed = || gated.gate.sockets.load(SeqCst) == 0;
    wait_until("it is closed", SOON, closed).expect("in time");
}

#[test]
fn an_idle_socket_of_another_worker_serves_at_once() {
    let origin = Origin::start(|conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            let body = Frame::new(kind::DATA, stream, *b"hello").with(END_STREAM);
            conn.send(Frame::headers(stream, 200, &[]))?;
            conn.send(body)?;
        }
        Ok(())
    });
    let origin = origin.expect("it listens");
    let settings =
        "http: 2, limits: { connections_per_server: 1, queue: off }, timeouts: { keep_alive: 1h }";
    let evenkeel = start(&config(4, &[origin.address()], settings));
    let mut clients: Vec<_> = (0..8).map(|_| connect(web(&evenkeel))).collect();
    for _ in 0..25 {
        for client in &mut clients {
            let answer = client.get("/").expect("an answer");
            assert_eq!(answer.text(), "hello", "{}", evenkeel.log());
        }
    }
    assert_eq!(origin.connections(), 1);
}

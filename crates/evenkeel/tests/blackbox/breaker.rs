//! Bounds of a whole pool, and servers that come back from an ejection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use testkit::{Evenkeel, Load, Origin, Raw, reply, wait_until};

use crate::life_support::{
    SOON, ask, connect, metric, picks, reload, server, site, start, wait_all, wait_health, web,
};

/// A server that answers `/held` while it is open, the rest at once.
struct Held {
    origin: Origin,
    open: Arc<AtomicBool>,
}

impl Held {
    fn start() -> Self {
        let open = Arc::new(AtomicBool::new(false));
        let gate = open.clone();
        let origin = Origin::http(move |request| {
            if request.target == "/held" {
                wait_until("it is open", SOON, || gate.load(SeqCst)).ok();
            }
            reply(200, "here")
        });
        let origin = origin.expect("an origin");
        Self { origin, open }
    }

    fn open(&self, open: bool) {
        self.open.store(open, SeqCst);
    }

    fn address(&self) -> SocketAddr {
        self.origin.address()
    }
}

fn send(evenkeel: &Evenkeel, target: &str) -> Raw {
    let mut client = connect(web(evenkeel));
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    client.send(request).expect("sent");
    client
}

fn wait_metric(evenkeel: &Evenkeel, start: &str, expected: f64) {
    wait_until(&format!("{start} is {expected}"), SOON, || {
        metric(evenkeel, start) == expected
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
}

/// So many requests that hold a server each.
fn hold(evenkeel: &Evenkeel, count: usize) -> Vec<Raw> {
    let clients = (0..count).map(|_| send(evenkeel, "/held")).collect();
    wait_metric(evenkeel, "evenkeel_active_connections{", count as f64);
    clients
}

fn running(config: &str, servers: &[SocketAddr]) -> Evenkeel {
    let evenkeel = start(&format!("workers: 2\n{config}"));
    wait_all(&evenkeel, servers, "healthy");
    evenkeel
}

fn assert_refused(client: &mut Raw, reason: &str) {
    let answer = client.response().expect("an answer");
    assert_eq!(answer.status, 503, "{answer}");
    assert_eq!(answer.header("x-evenkeel-reason"), Some(reason), "{answer}");
}

fn overflows(evenkeel: &Evenkeel, limit: &str) -> f64 {
    metric(
        evenkeel,
        &format!("evenkeel_overflows_total{{pool=\"site\",limit=\"{limit}\"}}"),
    )
}

#[test]
fn a_pool_takes_so_many_requests_and_refuses_the_rest_at_once() {
    let (a, b) = (Held::start(), Held::start());
    let addresses = [a.address(), b.address()];
    let config = site(&addresses, "limits: { max_requests: 4 }");
    let evenkeel = running(&config, &addresses);
    let mut held = hold(&evenkeel, 4);
    let mut client = connect(web(&evenkeel));
    for _ in 0..3 {
        client
            .send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("sent");
        assert_refused(&mut client, "pool_limit");
    }
    assert_eq!(overflows(&evenkeel, "max_requests"), 3.0);
    // A higher bound counts those that run.
    reload(
        &evenkeel,
        &format!("workers: 2\n{}", config.replace(": 4", ": 5")),
    );
    assert_eq!(client.get("/").expect("an answer").status, 200);
    a.open(true);
    b.open(true);
    for client in &mut held {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
    assert_eq!(client.get("/").expect("an answer").status, 200);
}

#[test]
fn a_pool_has_so_many_connections_and_the_rest_wait() {
    let (a, b) = (Held::start(), Held::start());
    let addresses = [a.address(), b.address()];
    let config = site(&addresses, "limits: { max_connections: 3 }");
    let evenkeel = running(&config, &addresses);
    let mut held = hold(&evenkeel, 3);
    let mut waits: Vec<_> = (0..5).map(|_| send(&evenkeel, "/")).collect();
    wait_metric(&evenkeel, "evenkeel_queue_length{", 5.0);
    assert!(metric(&evenkeel, "evenkeel_server_sockets{") <= 3.0);
    a.open(true);
    b.open(true);
    for client in held.iter_mut().chain(&mut waits) {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
    wait_metric(&evenkeel, "evenkeel_active_connections{", 0.0);
    assert!(overflows(&evenkeel, "max_connections") >= 1.0);
    // Under load the bound holds all the while, idle connections of both workers included.
    let load = Load::to(web(&evenkeel)).clients(16).start();
    for _ in 0..20 {
        load.wait_ok(20, SOON).expect("traffic");
        let sockets = metric(&evenkeel, "evenkeel_server_sockets{");
        assert!(sockets <= 3.0, "{sockets} sockets");
    }
    load.stop().assert_none_failed();
    let off = config.replace("max_connections: 3", "max_connections: 3, queue: off");
    reload(&evenkeel, &format!("workers: 2\n{off}"));
    a.open(false);
    b.open(false);
    let _held = hold(&evenkeel, 3);
    assert_refused(&mut send(&evenkeel, "/"), "pool_limit");
}

/// A queue that is never empty decides alone who serves: a server that comes back must not be left out for as long.
#[test]
fn a_server_that_comes_back_serves_though_its_pool_is_at_its_bound() {
    let slow = || {
        Origin::http(|_| {
            std::thread::sleep(Duration::from_millis(5));
            reply(200, "here")
        })
        .expect("an origin")
    };
    let (a, b) = (slow(), slow());
    let addresses = [a.address(), b.address()];
    let config = site(&addresses, "limits: { max_connections: 6 }");
    let evenkeel = running(&config, &addresses);
    let name = b.address().to_string();
    let told = ask(&evenkeel, &["server", "drain", "site", &name]);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    let load = Load::to(web(&evenkeel)).clients(24).start();
    load.wait_ok(200, SOON).expect("traffic");
    assert!(metric(&evenkeel, "evenkeel_queue_length{") > 0.0);
    let before = picks(&evenkeel, b.address());
    let told = ask(&evenkeel, &["server", "enable", "site", &name]);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    wait_until("it has half of the connections", SOON, || {
        server(&evenkeel, "site", &name)["active"] == 3
    })
    .expect("it serves");
    let of_a = picks(&evenkeel, a.address());
    load.wait_ok(600, SOON).expect("traffic");
    let of_a = (picks(&evenkeel, a.address()) - of_a) as f64;
    let of_b = (picks(&evenkeel, b.address()) - before) as f64;
    assert!(of_b > of_a * 0.6, "{of_b} beside {of_a}");
    load.stop().assert_none_failed();
}

/// Idle connections of other workers make room.
#[test]
fn idle_sockets_of_other_workers_give_way() {
    let a = Held::start();
    let config = site(
        &[a.address()],
        "limits: { connections_per_server: 1, queue: off }, timeouts: { keep_alive: 1h }",
    );
    let evenkeel = start(&format!("workers: 4\n{config}"));
    wait_all(&evenkeel, &[a.address()], "healthy");
    let mut clients: Vec<_> = (0..8).map(|_| connect(web(&evenkeel))).collect();
    for round in 0..25 {
        for client in &mut clients {
            let answer = client.get("/").expect("an answer");
            assert_eq!(answer.status, 200, "{round}: {answer}\n{}", evenkeel.log());
            assert!(metric(&evenkeel, "evenkeel_server_sockets{") <= 1.0);
        }
    }
}

#[test]
fn so_many_requests_are_tried_again_at_once() {
    let (good, stuck) = (Held::start(), Arc::new(AtomicU32::new(0)));
    // Its answers are to be tried again elsewhere, where the first such request waits.
    let seen = stuck.clone();
    let bad = Origin::http(move |request| {
        if request.target == "/health" {
            return reply(200, "well");
        }
        seen.fetch_add(1, SeqCst);
        reply(503, "no")
    });
    let bad = bad.expect("an origin");
    let addresses = [good.address(), bad.address()];
    let settings = "balance: round_robin, outlier_detection: off, limits: { max_retries: 1 }, retries: { attempts: 1, budget: 100%, on: 503 }";
    let evenkeel = running(&site(&addresses, settings), &addresses);
    // One request is held at its second try. Those that meet the good server first are held there at their first.
    let mut held = Vec::new();
    while stuck.load(SeqCst) == 0 {
        held.push(send(&evenkeel, "/held"));
        wait_metric(&evenkeel, "evenkeel_active_connections{", held.len() as f64);
    }
    let mut refused = 0;
    let mut client = connect(web(&evenkeel));
    for _ in 0..4 {
        refused += u32::from(client.get("/").expect("an answer").status == 503);
    }
    assert_eq!(refused, 2, "those that met the bad server");
    assert_eq!(overflows(&evenkeel, "max_retries"), 2.0);
    good.open(true);
    for client in &mut held {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
    for _ in 0..4 {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
}

/// A server that hangs until it is told to be well; counts how many requests it has at once.
struct Hanging {
    origin: Origin,
    hangs: Arc<AtomicBool>,
    most: Arc<AtomicU32>,
}

impl Hanging {
    fn start() -> Self {
        let (hangs, most) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
        let (now, bad, seen) = (AtomicU32::new(0), hangs.clone(), most.clone());
        let origin = Origin::http(move |request| {
            if request.target == "/health" {
                return reply(200, "well");
            }
            seen.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            if bad.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(600));
            }
            now.fetch_sub(1, SeqCst);
            reply(200, "here")
        });
        let origin = origin.expect("an origin");
        Self {
            origin,
            hangs,
            most,
        }
    }
}

#[test]
fn a_server_back_from_an_ejection_gets_one_request_at_a_time_until_one_succeeds() {
    let (good, bad) = (Held::start(), Hanging::start());
    let addresses = [good.address(), bad.origin.address()];
    let settings = "balance: round_robin, retries: off, timeouts: { first_byte: 300ms }, outlier_detection: { interval: 500ms, ejection_time: 1s, max_ejection_time: 1s, latency: off }";
    let evenkeel = running(&site(&addresses, settings), &addresses);
    let load = Load::to(web(&evenkeel))
        .clients(16)
        .check(|_| Ok(()))
        .start();
    wait_health(&evenkeel, addresses[1], "ejected");
    // What it held then is over before it comes back.
    wait_until("it is half open", SOON, || {
        metric(&evenkeel, "evenkeel_server_half_open{") == 1.0
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    bad.most.store(0, SeqCst);
    let shown = server(&evenkeel, "site", &addresses[1].to_string());
    // Between the two looks its first request may have failed, so that it is out again.
    if shown["limited_by"] == "half_open" {
        assert_eq!(shown["limit"], 1, "{shown}");
    }
    // It is ejected again and again, by one request each.
    let ejections = || metric(&evenkeel, "evenkeel_ejections_total{");
    let before = ejections();
    wait_until("it is ejected twice more", SOON, || {
        ejections() >= before + 2.0
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    // One that was given up may still run there beside the next one.
    let most = bad.most.load(SeqCst);
    assert!((1..=2).contains(&most), "{most} at once while half open");
    bad.hangs.store(false, SeqCst);
    wait_until("it is open", SOON, || {
        let shown = server(&evenkeel, "site", &addresses[1].to_string());
        shown["limited_by"] == "connections_per_server" && shown["health"] == "healthy"
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    load.stop();
}

/// Works on so many requests at once, 10 ms each; the others wait in it.
struct Busy {
    origin: Origin,
    capacity: Arc<AtomicU32>,
    most: Arc<AtomicU32>,
}

impl Busy {
    fn start(capacity: u32) -> Self {
        let capacity = Arc::new(AtomicU32::new(capacity));
        let most = Arc::new(AtomicU32::new(0));
        let (limit, seen) = (capacity.clone(), most.clone());
        let (now, working) = (AtomicU32::new(0), (Mutex::new(0), Condvar::new()));
        let origin = Origin::http(move |request| {
            if request.target == "/health" {
                return reply(200, "well");
            }
            seen.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            let (count, freed) = &working;
            let guard = count.lock().expect("a lock");
            let full = |count: &mut u32| *count >= limit.load(SeqCst);
            let mut guard = freed.wait_while(guard, full).expect("a lock");
            *guard += 1;
            drop(guard);
            std::thread::sleep(Duration::from_millis(10));
            *count.lock().expect("a lock") -= 1;
            freed.notify_one();
            now.fetch_sub(1, SeqCst);
            reply(200, "here")
        });
        let origin = origin.expect("an origin");
        Self {
            origin,
            capacity,
            most,
        }
    }
}

#[test]
fn a_limit_follows_what_the_server_can_do() {
    /// From a limit far off to one that fits, measurements included.
    const SETTLED: Duration = Duration::from_secs(60);
    let busy = Busy::start(4);
    let addresses = [busy.origin.address()];
    let evenkeel = running(
        &site(&addresses, "adaptive_concurrency: gradient"),
        &addresses,
    );
    let limit = || metric(&evenkeel, "evenkeel_server_limit{");
    assert_eq!(limit(), 20.0);
    let load = Load::to(web(&evenkeel)).clients(48).start();
    wait_until("the limit is near what the server can do", SETTLED, || {
        limit() <= 14.0
    })
    .unwrap_or_else(|error| panic!("{error}: {}", limit()));
    let shown = server(&evenkeel, "site", &addresses[0].to_string());
    assert_eq!(shown["limited_by"], "latency", "{shown}");
    // Once those are over that an earlier limit let in.
    load.wait_ok(50, SOON).expect("traffic");
    busy.most.store(0, SeqCst);
    load.wait_ok(200, SOON).expect("traffic");
    let most = busy.most.load(SeqCst);
    assert!((3..=30).contains(&most), "{most} at once");
    busy.capacity.store(1000, SeqCst);
    wait_until("the limit rises", SETTLED, || limit() >= 40.0)
        .unwrap_or_else(|error| panic!("{error}: {}", limit()));
    load.stop().assert_none_failed();
    // It is one bound of several, and goes with the setting.
    reload(&evenkeel, &format!("workers: 2\n{}", site(&addresses, "")));
    assert_eq!(limit(), 10_000.0);
}

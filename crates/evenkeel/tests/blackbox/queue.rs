//! Servers are full: who waits, for how long, and who is served next.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::{Evenkeel, Load, Origin, Raw, reply, wait_until};

use crate::life_support::{
    SOON, admin_get, ask, assert_metric, connect, metric, reload, server, site, start, wait_all,
    web,
};

/// A server that answers one request for each `go`, and counts those that it holds.
struct Held {
    origin: Origin,
    go: Sender<()>,
    most: Arc<AtomicU32>,
}

impl Held {
    fn new() -> Self {
        let (go, wait): (_, Receiver<()>) = channel();
        let (wait, now) = (Mutex::new(wait), AtomicU32::new(0));
        let most = Arc::new(AtomicU32::new(0));
        let seen = most.clone();
        let origin = Origin::http(move |request| {
            if request.target == "/health" {
                return reply(200, "well");
            }
            seen.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            wait.lock().expect("a lock").recv_timeout(SOON).ok();
            now.fetch_sub(1, SeqCst);
            reply(200, &request.target)
        });
        let origin = origin.expect("an origin");
        Self { origin, go, most }
    }

    fn address(&self) -> SocketAddr {
        self.origin.address()
    }

    fn go(&self, count: usize) {
        (0..count).for_each(|_| self.go.send(()).expect("it runs"));
    }

    /// The targets of requests other than probes, in the order in which they came.
    fn targets(&self) -> Vec<String> {
        let seen = self.origin.seen().into_iter().map(|request| request.target);
        seen.filter(|target| target != "/health").collect()
    }

    fn wait_targets(&self, count: usize) {
        wait_until(&format!("{count} requests came"), SOON, || {
            self.targets().len() == count
        })
        .unwrap_or_else(|error| panic!("{error}: {:?}", self.targets()));
    }
}

/// Each server takes one request at a time; two workers.
fn one_each(servers: &[&Held], settings: &str) -> String {
    let list: Vec<_> = servers
        .iter()
        .map(|it| format!("{{ address: '{}', max_connections: 1 }}", it.address()))
        .collect();
    let addresses: Vec<_> = servers.iter().map(|it| it.address()).collect();
    let plain = crate::life_support::list(&addresses);
    let config = site(&addresses, settings).replace(&plain, &format!("[{}]", list.join(", ")));
    format!("workers: 2\n{config}")
}

fn running(config: &str, servers: &[&Held]) -> Evenkeel {
    let evenkeel = start(config);
    let addresses: Vec<_> = servers.iter().map(|it| it.address()).collect();
    wait_all(&evenkeel, &addresses, "healthy");
    evenkeel
}

fn send(evenkeel: &Evenkeel, target: &str) -> Raw {
    let mut client = connect(web(evenkeel));
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    client.send(request).expect("sent");
    client
}

fn wait_waiting(evenkeel: &Evenkeel, count: usize) {
    wait_until(&format!("{count} wait"), SOON, || {
        metric(evenkeel, "evenkeel_queue_length{") == count as f64
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
}

/// One request that holds the only server, and so many that wait, in this order: `/0` holds, `/1` is next.
fn line_up(evenkeel: &Evenkeel, held: &Held, waiting: usize) -> Vec<Raw> {
    let mut clients = vec![send(evenkeel, "/0")];
    held.wait_targets(1);
    for number in 1..=waiting {
        clients.push(send(evenkeel, &format!("/{number}")));
        wait_waiting(evenkeel, number);
    }
    clients
}

fn assert_refused(client: &mut Raw, reason: &str) {
    let answer = client.response().expect("an answer");
    assert_eq!(answer.status, 503, "{answer}");
    assert_eq!(answer.header("x-evenkeel-reason"), Some(reason), "{answer}");
}

fn assert_served(client: &mut Raw) -> String {
    let answer = client.response().expect("an answer");
    assert_eq!(answer.status, 200, "{answer}");
    answer.text()
}

#[test]
fn a_burst_is_answered_in_order_within_the_limit() {
    let held = Held::new();
    let evenkeel = running(&one_each(&[&held], ""), &[&held]);
    let mut clients = line_up(&evenkeel, &held, 49);
    let pools = admin_get(&evenkeel, "/api/v1/pools");
    assert!(pools.contains("\"waiting\":49"), "{pools}");
    let status = ask(&evenkeel, &["status"]);
    assert!(
        status.text().contains("site: 49 wait for a server"),
        "{}",
        status.text()
    );
    held.go(50);
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(assert_served(client), format!("/{number}"));
    }
    let expected: Vec<_> = (0..50).map(|number| format!("/{number}")).collect();
    assert_eq!(held.targets(), expected);
    assert_eq!(held.most.load(SeqCst), 1);
    assert_metric(
        &evenkeel,
        "evenkeel_queue_waits_total{pool=\"site\",end=\"served\"}",
        49.0,
    );
    assert_metric(&evenkeel, "evenkeel_queue_seconds_count{", 49.0);
    // Nobody waits any more: the way in is free again.
    held.go(1);
    assert_eq!(assert_served(&mut send(&evenkeel, "/after")), "/after");
    assert_metric(&evenkeel, "evenkeel_queue_waits_total{", 49.0);
}

#[test]
fn the_higher_priority_goes_first() {
    let held = Held::new();
    let config = one_each(&[&held], "").replace(
        "pool: site }",
        "routes: [{ match: { path: /high }, priority: high, pool: site }, { match: { path: /9 }, priority: 9, pool: site }, \
         { match: { path: /low }, priority: low, pool: site }, { pool: site }] }",
    );
    let evenkeel = running(&config, &[&held]);
    let mut clients = vec![send(&evenkeel, "/first")];
    held.wait_targets(1);
    for (at, target) in ["/low", "/a", "/high", "/b", "/9"].iter().enumerate() {
        clients.push(send(&evenkeel, target));
        wait_waiting(&evenkeel, at + 1);
    }
    held.go(6);
    clients
        .iter_mut()
        .for_each(|client| drop(assert_served(client)));
    assert_eq!(
        held.targets(),
        ["/first", "/9", "/high", "/a", "/b", "/low"]
    );
}

#[test]
fn a_wait_has_an_end_and_the_log_says_how_long_it_was() {
    let held = Held::new();
    let config = one_each(&[&held], "limits: { queue_wait: 300ms }");
    let mut evenkeel = running(&format!("access_log: {{ to: stdout }}\n{config}"), &[&held]);
    let mut clients = line_up(&evenkeel, &held, 1);
    assert_refused(&mut clients[1], "queue_timeout");
    wait_waiting(&evenkeel, 0);
    assert_metric(
        &evenkeel,
        "evenkeel_queue_waits_total{pool=\"site\",end=\"timeout\"}",
        1.0,
    );
    held.go(1);
    assert_served(&mut clients[0]);
    evenkeel
        .wait_log("\"waited_ms\":", SOON)
        .expect("a line of the log");
    // The connection lives on, and so does the server.
    held.go(1);
    clients[1]
        .send("GET /again HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    assert_eq!(assert_served(&mut clients[1]), "/again");
}

#[test]
fn a_full_queue_answers_at_once_but_for_the_more_important() {
    let held = Held::new();
    let config = one_each(&[&held], "limits: { queue: 1 }").replace(
        "pool: site }",
        "routes: [{ match: { path: /high }, priority: high, pool: site }, { pool: site }] }",
    );
    let evenkeel = running(&config, &[&held]);
    let mut clients = line_up(&evenkeel, &held, 1);
    assert_refused(&mut send(&evenkeel, "/2"), "queue_full");
    let mut high = send(&evenkeel, "/high");
    assert_refused(&mut clients[1], "queue_full");
    held.go(2);
    assert_served(&mut clients[0]);
    assert_eq!(assert_served(&mut high), "/high");
}

#[test]
fn who_leaves_while_it_waits_takes_nothing() {
    let held = Held::new();
    let evenkeel = running(&one_each(&[&held], ""), &[&held]);
    let mut clients = line_up(&evenkeel, &held, 3);
    drop(clients.remove(1));
    wait_waiting(&evenkeel, 2);
    clients.remove(1).reset().expect("reset");
    wait_waiting(&evenkeel, 1);
    held.go(2);
    clients
        .iter_mut()
        .for_each(|client| drop(assert_served(client)));
    assert_eq!(held.targets(), ["/0", "/3"]);
    assert_metric(
        &evenkeel,
        "evenkeel_queue_waits_total{pool=\"site\",end=\"left\"}",
        2.0,
    );
}

/// Two servers, each with a request; further ones wait.
fn two_busy(evenkeel: &Evenkeel, servers: [&Held; 2], waiting: usize) -> Vec<Raw> {
    let mut clients: Vec<_> = (0..2).map(|_| send(evenkeel, "/busy")).collect();
    servers.iter().for_each(|held| held.wait_targets(1));
    for number in 1..=waiting {
        clients.push(send(evenkeel, "/waits"));
        wait_waiting(evenkeel, number);
    }
    clients
}

#[test]
fn who_waits_when_a_server_is_drained_gets_another() {
    let (a, b) = (Held::new(), Held::new());
    let evenkeel = running(&one_each(&[&a, &b], ""), &[&a, &b]);
    let mut clients = two_busy(&evenkeel, [&a, &b], 4);
    let name = a.address().to_string();
    // The other has less room than there is under way.
    let disable = ["server", "disable", "site", &name, "--force"];
    let drained = ask(&evenkeel, &disable);
    assert_eq!(drained.code, Some(0), "{}", drained.stderr);
    a.go(1);
    b.go(5);
    clients
        .iter_mut()
        .for_each(|client| drop(assert_served(client)));
    assert_eq!((a.targets().len(), b.targets().len()), (1, 5));
    assert_eq!(server(&evenkeel, "site", &name)["picks"], 1);
}

#[test]
fn who_waits_when_the_last_server_goes_is_told_so() {
    let held = Held::new();
    let evenkeel = running(&one_each(&[&held], "limits: { queue_wait: 1h }"), &[&held]);
    let mut clients = line_up(&evenkeel, &held, 2);
    let name = held.address().to_string();
    let disable = ["server", "disable", "site", &name, "--force"];
    let disabled = ask(&evenkeel, &disable);
    assert_eq!(disabled.code, Some(0), "{}", disabled.stderr);
    assert_refused(&mut clients[1], "no_usable_server");
    assert_refused(&mut clients[2], "no_usable_server");
    held.go(1);
    assert_served(&mut clients[0]);
}

#[test]
fn who_waits_when_a_server_dies_gets_another() {
    let (mut a, b) = (Held::new(), Held::new());
    let evenkeel = running(&one_each(&[&a, &b], ""), &[&a, &b]);
    let mut clients = two_busy(&evenkeel, [&a, &b], 4);
    // Its request is a GET, which is served elsewhere in its turn.
    a.origin.stop();
    a.go(1);
    b.go(6);
    clients
        .iter_mut()
        .for_each(|client| drop(assert_served(client)));
    assert_eq!(b.most.load(SeqCst), 1);
}

#[test]
fn a_reload_that_raises_the_limit_lets_in_who_waits() {
    let held = Held::new();
    let config = one_each(&[&held], "");
    let evenkeel = running(&config, &[&held]);
    let mut clients = line_up(&evenkeel, &held, 4);
    reload(
        &evenkeel,
        &config.replace("max_connections: 1", "max_connections: 3"),
    );
    wait_waiting(&evenkeel, 2);
    held.wait_targets(3);
    held.go(5);
    clients
        .iter_mut()
        .for_each(|client| drop(assert_served(client)));
    assert_eq!(held.most.load(SeqCst), 3);
}

/// Who waits was let in by the bound of before, and needs a socket by that of now.
#[test]
fn a_reload_that_raises_the_bound_of_sockets_lets_in_who_waits() {
    let held = Held::new();
    let config = |sockets: u32| {
        let settings = format!("limits: {{ connections_per_server: {sockets} }}");
        format!("workers: 2\n{}", site(&[held.address()], &settings))
    };
    let evenkeel = running(&config(1), &[&held]);
    let mut clients = line_up(&evenkeel, &held, 4);
    reload(&evenkeel, &config(3));
    held.wait_targets(3);
    held.go(5);
    for client in &mut clients {
        assert_served(client);
    }
}

#[test]
fn who_waits_for_a_pool_that_a_reload_removes_is_served_all_the_same() {
    let (old, new) = (Held::new(), Held::new());
    let config = one_each(&[&old], "");
    let evenkeel = running(&config, &[&old]);
    let mut clients = line_up(&evenkeel, &old, 3);
    let after = one_each(&[&new], "").replace("site", "other");
    reload(&evenkeel, &after);
    new.go(1);
    assert_served(&mut send(&evenkeel, "/new"));
    old.go(4);
    clients
        .iter_mut()
        .for_each(|client| drop(assert_served(client)));
    assert_eq!(old.targets(), ["/0", "/1", "/2", "/3"]);
}

#[test]
fn a_tcp_connection_waits_for_a_server() {
    let held = Held::new();
    let config = one_each(&[&held], "limits: { queue: 2 }")
        .replace("pool: site }", "protocol: tcp, pool: site }");
    let evenkeel = running(&config, &[&held]);
    let mut clients = line_up(&evenkeel, &held, 2);
    // It may be reset before it has connected.
    let _refused = Raw::connect(web(&evenkeel));
    let refused = "evenkeel_errors_total{reason=\"queue_full\"}";
    wait_until("the queue is full", SOON, || {
        metric(&evenkeel, refused) == 1.0
    })
    .unwrap_or_else(|error| panic!("{error}"));
    held.go(1);
    for mut client in clients.drain(..) {
        assert_served(&mut client);
        held.go(1);
    }
    assert_eq!(held.targets(), ["/0", "/1", "/2"]);
    assert_eq!(held.most.load(SeqCst), 1);
}

#[test]
fn under_load_no_limit_is_passed_and_nobody_is_left_behind() {
    let now: [Arc<(AtomicU32, AtomicU32)>; 3] = Default::default();
    let origins = now.each_ref().map(|now| {
        let now = now.clone();
        let origin = Origin::http(move |request| {
            if request.target != "/health" {
                now.1.fetch_max(now.0.fetch_add(1, SeqCst) + 1, SeqCst);
                std::thread::yield_now();
                now.0.fetch_sub(1, SeqCst);
            }
            reply(200, "here")
        });
        origin.expect("an origin")
    });
    let addresses = origins.each_ref().map(Origin::address);
    let plain = crate::life_support::list(&addresses);
    let long = addresses
        .map(|it| format!("{{ address: '{it}', max_connections: 2 }}"))
        .join(", ");
    let config = site(&addresses, "").replace(&plain, &format!("[{long}]"));
    let evenkeel = start(&format!("workers: 4\n{config}"));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = Load::to(web(&evenkeel)).clients(48).start();
    load.wait_ok(5_000, Duration::from_secs(60))
        .expect("traffic");
    load.stop().assert_none_failed();
    for now in &now {
        assert!(now.1.load(SeqCst) <= 2, "{} at once", now.1.load(SeqCst));
    }
    assert!(
        metric(
            &evenkeel,
            "evenkeel_queue_waits_total{pool=\"site\",end=\"served\"}"
        ) > 0.0
    );
    wait_waiting(&evenkeel, 0);
}

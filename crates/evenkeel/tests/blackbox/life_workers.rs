//! Several workers: connections spread evenly over them, however the kernel deals them out.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Barrier;

use testkit::{Evenkeel, Origin, Raw, reply, wait_until};

use crate::life_support::{
    SOON, admin_get, assert_metric, connect, metric, site, start, wait_all, web,
};

const CONNECTIONS: usize = 64;

/// What each of four workers serves.
fn per_worker(evenkeel: &Evenkeel) -> Vec<f64> {
    let text = admin_get(evenkeel, "/metrics");
    let lines = text
        .lines()
        .filter(|line| line.starts_with("evenkeel_worker_connections{"));
    let numbers = lines.map(|line| line.rsplit(' ').next().expect(line).parse().expect(line));
    numbers.collect()
}

/// Waits until every connection is counted, and fails if two workers differ by more than two.
fn assert_even(evenkeel: &Evenkeel) {
    wait_until("all are counted", SOON, || {
        per_worker(evenkeel).iter().sum::<f64>() == CONNECTIONS as f64
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", per_worker(evenkeel)));
    let loads = per_worker(evenkeel);
    assert_eq!(loads.len(), 4);
    let most = loads.iter().copied().fold(0.0, f64::max);
    let least = loads.iter().copied().fold(f64::MAX, f64::min);
    assert!(most - least <= 2.0, "{loads:?}");
}

fn four_workers(config: &str) -> String {
    format!("workers: 4\n{config}")
}

/// A connection that has had an answer.
fn served(evenkeel: &Evenkeel) -> Raw {
    let mut client = connect(web(evenkeel));
    assert_eq!(client.get("/").expect("an answer").status, 200);
    client
}

#[test]
fn long_lived_http_connections_spread_evenly() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let evenkeel = start(&four_workers(&site(&[origin.address()], "")));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut clients: Vec<Raw> = (0..CONNECTIONS).map(|_| served(&evenkeel)).collect();
    for _ in 0..3 {
        for client in &mut clients {
            assert_eq!(client.get("/").expect("an answer").status, 200);
        }
    }
    assert_even(&evenkeel);
    // Which worker has one is settled when it is accepted: served, it stays.
    let handed = metric(&evenkeel, "evenkeel_worker_handed_total{");
    for client in &mut clients {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
    assert_metric(&evenkeel, "evenkeel_worker_handed_total{", handed);
    assert_metric(
        &evenkeel,
        "evenkeel_listener_accepted_total{",
        CONNECTIONS as f64,
    );
    drop(clients);
    wait_until("all have ended", SOON, || {
        per_worker(&evenkeel).iter().sum::<f64>() == 0.0
    })
    .expect("all have ended");
}

#[test]
fn connections_that_come_at_the_same_moment_spread_evenly() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let evenkeel = start(&four_workers(&site(&[origin.address()], "")));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let address = web(&evenkeel);
    for _ in 0..5 {
        let together = Barrier::new(CONNECTIONS);
        let clients: Vec<Raw> = std::thread::scope(|scope| {
            let opening: Vec<_> = (0..CONNECTIONS)
                .map(|_| {
                    scope.spawn(|| {
                        together.wait();
                        connect(address)
                    })
                })
                .collect();
            let opened = opening.into_iter().map(|it| it.join());
            opened.map(|client| client.expect("a connection")).collect()
        });
        assert_even(&evenkeel);
        drop(clients);
        wait_until("all have ended", SOON, || {
            per_worker(&evenkeel).iter().sum::<f64>() == 0.0
        })
        .expect("all have ended");
    }
}

#[test]
fn long_lived_tcp_connections_spread_evenly() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let config =
        site(&[origin.address()], "").replace("pool: site }", "protocol: tcp, pool: site }");
    let evenkeel = start(&four_workers(&config));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut clients: Vec<Raw> = (0..CONNECTIONS).map(|_| served(&evenkeel)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
    assert_even(&evenkeel);
}

#[test]
fn a_unix_socket_that_all_workers_poll_spreads_evenly_too() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let dir = testkit::TempDir::new("spread").expect("a folder");
    let path = dir.path().join("web.sock");
    let bind = format!("bind: 'unix:{}', pool: site }}", path.display());
    let config = site(&[origin.address()], "").replace("bind: '127.0.0.1:0', pool: site }", &bind);
    let evenkeel = start(&four_workers(&config));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let _clients: Vec<UnixStream> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = UnixStream::connect(&path).expect("a connection");
            client.set_read_timeout(Some(SOON)).expect("set");
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                .expect("sent");
            let mut status = [0; 12];
            client.read_exact(&mut status).expect("an answer");
            assert_eq!(&status, b"HTTP/1.1 200");
            client
        })
        .collect();
    assert_even(&evenkeel);
}

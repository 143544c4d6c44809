//! Pieces of our own work, each with what it needs laid out: one table, run by whoever counts instructions
//! (`bin/count.rs`) or takes the time (`benches/micro.rs`).

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use balance::{Algorithm, Candidate, Local, Rotation, Server, Share, View, hash_key};
use control::metrics::RouteCells;
use rules::{HostPattern, Match, NoTrace, PathPattern, Request, RouteTable, Scratch};
use wire::http1::{Decoded, HeadLimits, RequestHead, decode_request, encode};

use crate::browser;

/// Fields of the head that is decoded and encoded: nine and `Host`.
const FIELDS: usize = 9;
const ROUTES: [usize; 3] = [10, 1_000, 10_000];
const SERVERS: [usize; 3] = [3, 100, 10_000];

/// Does a piece of work again and again.
pub trait Runner {
    /// `work` is one turn of it.
    fn run(&mut self, work: impl FnMut());
}

/// The name of every case.
#[must_use]
pub fn names() -> Vec<String> {
    let mut names = vec!["decode".into(), "encode".into(), "record".into()];
    names.extend(ROUTES.map(|count| format!("route/{count}")));
    for (algorithm, _) in algorithms() {
        names.extend(SERVERS.map(|count| format!("pick/{algorithm}/{count}")));
    }
    names
}

/// Lays a case out and hands its work to `runner`.
///
/// # Errors
/// When nothing has this name, or the work does not do what it should.
pub fn run(name: &str, runner: &mut impl Runner) -> Result<()> {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        ["decode"] => decode(runner),
        ["encode"] => encode(runner),
        ["record"] => {
            record(runner);
            Ok(())
        }
        ["route", count] => route(count.parse()?, runner),
        ["pick", algorithm, count] => pick(algorithm, count.parse()?, runner),
        ["build", algorithm, count] => build(algorithm, count.parse()?, runner),
        _ => bail!("nothing is called {name}; see count --list"),
    }
}

fn algorithms() -> Vec<(&'static str, Algorithm)> {
    let least_response_time = Algorithm::LeastResponseTime {
        times_connections: false,
    };
    let consistent_hash = Algorithm::ConsistentHash { bounded_load: None };
    vec![
        ("round_robin", Algorithm::RoundRobin),
        ("least_connections", Algorithm::LeastConnections),
        ("least_response_time", least_response_time),
        ("ip_hash", Algorithm::IpHash),
        ("consistent_hash", consistent_hash),
        ("maglev", Algorithm::Maglev),
        ("random", Algorithm::Random),
        ("power_of_two", Algorithm::PowerOfTwo),
        ("peak_ewma", Algorithm::PeakEwma),
    ]
}

fn algorithm(name: &str) -> Result<Algorithm> {
    let mut known = algorithms().into_iter();
    let found = known.find(|(known, _)| *known == name);
    Ok(found.with_context(|| format!("no algorithm {name}"))?.1)
}

fn request_bytes() -> Vec<u8> {
    let mut bytes =
        b"GET /articles/2026/load-balancing?page=2 HTTP/1.1\r\nHost: www.example.com\r\n".to_vec();
    for (name, value) in browser::fields(FIELDS) {
        encode::field(&mut bytes, name.as_bytes(), value.as_bytes());
    }
    bytes.extend_from_slice(encode::CRLF);
    bytes
}

fn decoded(bytes: &[u8]) -> Result<RequestHead> {
    let mut head = RequestHead::default();
    let outcome = decode_request(bytes, &HeadLimits::REQUEST, &mut head);
    ensure!(matches!(outcome, Ok(Decoded::Complete(()))), "it is valid");
    Ok(head)
}

fn decode(runner: &mut impl Runner) -> Result<()> {
    let bytes = request_bytes();
    let mut head = decoded(&bytes)?;
    runner.run(|| {
        let outcome = decode_request(black_box(&bytes), &HeadLimits::REQUEST, &mut head);
        black_box(outcome.is_ok());
    });
    Ok(())
}

fn encode(runner: &mut impl Runner) -> Result<()> {
    let bytes = request_bytes();
    let head = decoded(&bytes)?;
    let mut out = Vec::with_capacity(bytes.len());
    runner.run(|| {
        out.clear();
        let bytes = black_box(&bytes);
        encode::request_line(&mut out, head.method_text.of(bytes), head.target.of(bytes));
        for field in &head.fields {
            encode::field(&mut out, field.name.of(bytes), field.value.of(bytes));
        }
        out.extend_from_slice(encode::CRLF);
        black_box(&out);
    });
    Ok(())
}

fn record(runner: &mut impl Runner) {
    let cells = RouteCells::default();
    let mut at = 0_u64;
    runner.run(|| {
        let cells = black_box(&cells);
        cells.classes.record(200);
        cells.seconds.record(Duration::from_micros(at % 4_000));
        at += 1;
    });
}

/// Half of the routes by host and prefix, half by prefix alone; one near the end is asked for.
fn route(count: usize, runner: &mut impl Runner) -> Result<()> {
    let matches = (0..count).map(|at| {
        let path = PathPattern::compile(&format!("/team{}/service{at}/*", at % 50));
        let host = HostPattern::compile(&format!("app{at}.example.com"));
        Match {
            host: host.into_iter().filter(|_| at % 2 == 0).collect(),
            path: path.into_iter().collect(),
            ..Match::default()
        }
    });
    let table = RouteTable::build(matches.collect());
    let late = count - 2;
    let (host, path) = (
        format!("app{late}.example.com"),
        format!("/team{}/service{late}/users/7/orders", late % 50),
    );
    let bytes = request_bytes();
    let head = decoded(&bytes)?;
    let request = Request {
        method: b"GET",
        host: host.as_bytes(),
        path: path.as_bytes(),
        query: None,
        head: &head,
        bytes: &bytes,
        source: IpAddr::V4(Ipv4Addr::LOCALHOST),
        tls: None,
        https: false,
    };
    let mut scratch = Scratch::new();
    let found = table.find(&request, &mut scratch, &mut NoTrace);
    ensure!(found == Some(late), "another route: {found:?}");
    runner.run(|| {
        black_box(table.find(black_box(&request), &mut scratch, &mut NoTrace));
    });
    Ok(())
}

/// Servers of weights 1 to 5, each with requests in use and an average.
fn candidates(count: usize) -> Vec<Candidate> {
    let candidate = |index: usize| {
        let server = Server::new();
        for _ in 0..index % 7 {
            let _ = server.acquire(None);
        }
        let latency = Duration::from_micros(500 + index as u64 % 100);
        server.record_latency(Duration::ZERO, latency);
        Candidate {
            server: Arc::new(server),
            id: index as u32,
            hash_name: hash_key(&index.to_le_bytes()),
            weight: 1 + index as u32 % 5,
            share: Share::FULL,
        }
    };
    (0..count).map(candidate).collect()
}

fn pick(name: &str, count: usize, runner: &mut impl Runner) -> Result<()> {
    let view = View::build(&algorithm(name)?, candidates(count));
    let (rotation, mut local) = (Rotation::new(), Local::new(1));
    let now = Duration::from_secs(1);
    let mut key = 0_u64;
    runner.run(|| {
        key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
        black_box(view.pick(black_box(&rotation), &mut local, Some(key), &[], now));
    });
    Ok(())
}

/// What a change of health costs a pool.
fn build(name: &str, count: usize, runner: &mut impl Runner) -> Result<()> {
    let (algorithm, candidates) = (algorithm(name)?, candidates(count));
    runner.run(|| {
        black_box(View::build(&algorithm, black_box(&candidates).clone()));
    });
    Ok(())
}

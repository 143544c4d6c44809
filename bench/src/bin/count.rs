//! What is counted by callgrind: one piece of our own work, again and again. `count NAME TIMES`, or `count --list`.
//! What a run costs beside the work is taken out by running it twice with different TIMES.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use balance::{Algorithm, Candidate, Local, Rotation, Server, Share, View, hash_key};
use control::metrics::RouteCells;
use evenkeel_bench::browser;
use rules::{HostPattern, Match, NoTrace, PathPattern, Request, RouteTable, Scratch};
use wire::http1::{Decoded, HeadLimits, RequestHead, decode_request, encode};

/// Fields of the head that is decoded and encoded: nine and `Host`.
const FIELDS: usize = 9;
const ROUTES: [usize; 3] = [10, 1_000, 10_000];
const SERVERS: [usize; 3] = [3, 100, 10_000];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["--list"] => {
            list().iter().for_each(|name| println!("{name}"));
            Ok(())
        }
        [name, times] => count(name, times.parse()?),
        _ => bail!("count NAME TIMES, or count --list"),
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

fn list() -> Vec<String> {
    let mut names = vec!["decode".into(), "encode".into(), "record".into()];
    names.extend(ROUTES.map(|count| format!("route/{count}")));
    for (algorithm, _) in algorithms() {
        names.extend(SERVERS.map(|count| format!("pick/{algorithm}/{count}")));
    }
    names
}

fn count(name: &str, times: u64) -> Result<()> {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        ["decode"] => decode(times),
        ["encode"] => encode(times),
        ["record"] => {
            record(times);
            Ok(())
        }
        ["route", count] => route(count.parse()?, times),
        ["pick", algorithm, count] => pick(algorithm, count.parse()?, times),
        _ => bail!("nothing is called {name}; see count --list"),
    }
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

fn decode(times: u64) -> Result<()> {
    let bytes = request_bytes();
    let mut head = decoded(&bytes)?;
    for _ in 0..times {
        let outcome = decode_request(black_box(&bytes), &HeadLimits::REQUEST, &mut head);
        black_box(outcome.is_ok());
    }
    Ok(())
}

fn encode(times: u64) -> Result<()> {
    let bytes = request_bytes();
    let head = decoded(&bytes)?;
    let mut out = Vec::with_capacity(bytes.len());
    for _ in 0..times {
        out.clear();
        let bytes = black_box(&bytes);
        encode::request_line(&mut out, head.method_text.of(bytes), head.target.of(bytes));
        for field in &head.fields {
            encode::field(&mut out, field.name.of(bytes), field.value.of(bytes));
        }
        out.extend_from_slice(encode::CRLF);
        black_box(&out);
    }
    Ok(())
}

fn record(times: u64) {
    let cells = RouteCells::default();
    for at in 0..times {
        let cells = black_box(&cells);
        cells.classes.record(200);
        cells.seconds.record(Duration::from_micros(at % 4_000));
    }
}

/// Half of the routes by host and prefix, half by prefix alone; one near the end is asked for.
fn route(count: usize, times: u64) -> Result<()> {
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
    };
    let mut scratch = Scratch::new();
    let found = table.find(&request, &mut scratch, &mut NoTrace);
    ensure!(found == Some(late), "another route: {found:?}");
    for _ in 0..times {
        black_box(table.find(black_box(&request), &mut scratch, &mut NoTrace));
    }
    Ok(())
}

/// Servers of weights 1 to 5, each with requests in use and an average.
fn pick(algorithm: &str, count: usize, times: u64) -> Result<()> {
    let known = algorithms();
    let known = known.iter().find(|(name, _)| *name == algorithm);
    let (_, algorithm) = known.with_context(|| format!("no algorithm {algorithm}"))?;
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
    let view = View::build(algorithm, (0..count).map(candidate).collect());
    let (rotation, mut local) = (Rotation::new(), Local::new(1));
    let now = Duration::from_secs(1);
    let mut key = 0_u64;
    for _ in 0..times {
        key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
        black_box(view.pick(black_box(&rotation), &mut local, Some(key), &[], now));
    }
    Ok(())
}

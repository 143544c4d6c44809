//! How long it takes to find a route among 10, 1,000 and 10,000.
//!
//! `cargo bench -p evenkeel-rules`. Half of the routes are by host and prefix, half by prefix
//! alone; `late` asks for one near the end, `none` for what only the last route takes.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{Criterion, criterion_group, criterion_main};
use evenkeel_rules::{HostPattern, Match, NoTrace, PathPattern, Request, RouteTable, Scratch};
use wire::http1::{Decoded, HeadLimits, RequestHead, decode_request};

fn table(routes: usize) -> RouteTable {
    let mut matches = Vec::new();
    for at in 0..routes - 1 {
        let path = PathPattern::compile(&format!("/team{}/service{at}/*", at % 50));
        let host = HostPattern::compile(&format!("app{at}.example.com"));
        let host = if at % 2 == 0 {
            host.into_iter().collect()
        } else {
            Vec::new()
        };
        matches.push(Match {
            host,
            path: path.into_iter().collect(),
            ..Match::default()
        });
    }
    matches.push(Match::default());
    RouteTable::build(matches)
}

fn routes(criterion: &mut Criterion) {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
    let mut head = RequestHead::default();
    let decoded = decode_request(bytes, &HeadLimits::REQUEST, &mut head);
    assert!(matches!(decoded, Ok(Decoded::Complete(()))));
    for count in [10, 1_000, 10_000] {
        let table = table(count);
        let late = count - 2 - (count % 2);
        let team = late % 50;
        let path = format!("/team{team}/service{late}/users/7/orders");
        let host = format!("app{late}.example.com");
        let cases = [
            ("late", host.as_str(), path.as_str(), late),
            (
                "none",
                "www.example.com",
                "/a/path/that/no/route/has",
                count - 1,
            ),
        ];
        for (name, host, path, expected) in cases {
            let request = Request {
                method: b"GET",
                host: host.as_bytes(),
                path: path.as_bytes(),
                query: None,
                head: &head,
                bytes,
                source: IpAddr::V4(Ipv4Addr::LOCALHOST),
                tls: None,
                https: false,
            };
            let mut scratch = Scratch::new();
            assert_eq!(
                table.find(&request, &mut scratch, &mut NoTrace),
                Some(expected)
            );
            criterion.bench_function(&format!("{name}/{count}"), |bencher| {
                bencher.iter(|| table.find(black_box(&request), &mut scratch, &mut NoTrace));
            });
        }
    }
}

criterion_group!(benches, routes);
criterion_main!(benches);

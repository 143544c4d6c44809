//! Explanations of requests to one config, as printed.

use std::net::IpAddr;
use std::time::Duration;

use super::request::Asked;
use super::*;
use crate::source;

const CONFIG: &str = r#"
listeners:
  web:
    bind: "127.0.0.1:8080"
    trusted_proxies: [10.0.0.0/8]
    routes:
      - name: api
        match: { path: /api/*, method: [GET, HEAD] }
        filters: [{ strip_prefix: /api }, { set_header: { x-tier: api } }]
        pool: api
      - { name: moved, match: { host: old.example }, filters: [{ redirect: "https://new.example{path}" }] }
      - { name: shop, match: { path: /shop }, split: { api: 90, hashed: 10 } }
      - { name: named, match: { path: /named }, pool: named }
      - { name: v2, match: { path: /v2 }, pool: { name: marked, labels: { version: v2 } } }
  inner: { bind: "127.0.0.1:8081", pool: hashed }
  bound:
    bind: "127.0.0.1:8082"
    routes:
      - { match: { path: /carts }, pool: carts }
      - { match: { path: /named }, pool: by-name }
      - { match: { path: /users }, pool: users }
      - { match: { path: /learnt }, pool: learnt }
      - { match: { path: /split }, split: { carts: 50, more: 50 } }
  db: { bind: "127.0.0.1:5432", protocol: tcp, pool: api }
pools:
  api:
    balance: round_robin
    servers: ["127.0.0.1:1", { name: spare, address: "127.0.0.1:2", weight: 0 }, "127.0.0.1:3"]
  hashed:
    balance: { consistent_hash: { key: { header: x-user } } }
    servers: ["127.0.0.1:4", "127.0.0.1:5"]
  named: { servers: ["two.test:80", "none.test:80"] }
  carts: &carts
    balance: round_robin
    affinity: { cookie: { name: S, value: name, max_age: 1h, strength: required } }
    servers: [{ name: a, address: "127.0.0.1:11" }, { name: b, address: "127.0.0.1:12", weight: 0 }, { name: c, address: "127.0.0.1:13", max_connections: 1 }]
  more: { <<: *carts, affinity: { cookie: { name: S, value: name } }, servers: [{ name: d, address: "127.0.0.1:14" }] }
  by-name: { <<: *carts, affinity: { header: { name: x-server, strength: required } } }
  users: { <<: *carts, affinity: { hash: { cookie: user } } }
  learnt: { <<: *carts, affinity: { app_cookie: JSESSIONID } }
  marked:
    balance: round_robin
    servers:
      - { name: old, address: "127.0.0.1:6", labels: { version: v1 } }
      - { name: new, address: "127.0.0.1:7", labels: { version: v2, tier: gold } }
      - { name: lost, address: "none.test:80", labels: { version: v2 } }
      - { name: gone, address: "none.test:81", labels: { version: v1 } }
      - "127.0.0.1:8"
"#;

fn explained(request: &str, headers: &[&str], from: &str) -> Result<String, String> {
    let origin = Origin::Text {
        name: "x.yaml",
        text: CONFIG.to_owned(),
    };
    let snapshot = origin.load().snapshot.expect("a good config");
    let resolve = |name: &str, _: Duration| match name {
        "two.test" => Ok(vec![
            IpAddr::from([192, 0, 2, 1]),
            IpAddr::from([192, 0, 2, 2]),
        ]),
        _ => Err("no such name".to_owned()),
    };
    let world = pick::world(Arc::new(snapshot), resolve);
    let headers: Vec<String> = headers.iter().map(|&header| header.to_owned()).collect();
    let asked = Asked::parse(request, &headers).expect(request);
    explain(&world, &asked, from.parse().expect(from), Known::Config)
        .map(|explained| format::text(&explained))
}

#[track_caller]
fn check(request: &str, headers: &[&str], from: &str, expected: &str) {
    assert_eq!(
        explained(request, headers, from).as_deref(),
        Ok(expected),
        "{request}"
    );
}

#[test]
fn a_route_with_filters_and_a_pool() {
    check(
        "GET http://x:8080/api/a%41",
        &[],
        "192.0.2.1",
        "\
request   GET http://x:8080/api/a%41 from 192.0.2.1
listener  web on 127.0.0.1:8080
route     api
filters
  strip_prefix  path /api/aA -> /aA
  set_header    request x-tier: api
pool      api (round_robin)
server    127.0.0.1:1  (the first request after a start; the next ones go on in turn)
retries   2 further tries, at most 20% of requests
  not spare        127.0.0.1:2  weight 0: takes no new traffic
  not 127.0.0.1:3               not its turn
",
    );
}

#[test]
fn what_is_refused_says_why_each_route_did_not_match() {
    let text = explained(
        "POST http://x/api/a",
        &["X-Forwarded-For: 203.0.113.9, 10.1.1.1"],
        "10.0.0.1",
    )
    .expect("an explanation");
    for part in [
        "POST http://x/api/a from 203.0.113.9\n",
        "web on 127.0.0.1:8080  (no HTTP listener is on port 80: this is the first)\n",
        "  not api    method",
        "  not moved  host",
        "  not shop   path",
        "answered  404 no_route: no route of the listener matched\n",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

#[test]
fn a_filter_that_answers_ends_it() {
    let text = explained("GET http://old.example:8080/a?b", &[], "192.0.2.1").expect("answer");
    assert!(
        text.ends_with("answered  302 by the last filter\n  location:  https://new.example/a\n"),
        "{text}"
    );
}

#[test]
fn a_split_shows_each_arm() {
    let text = explained("GET http://a:8080/shop", &["X-User: u1"], "192.0.2.1").expect("split");
    assert!(
        text.contains("pool      api (round_robin), 90 % of the route\n"),
        "{text}"
    );
    assert!(
        text.contains(
            "pool      hashed (consistent_hash, header x-user = u1), 10 % of the route\n"
        ),
        "{text}"
    );
}

#[test]
fn a_missing_key_a_name_and_other_listeners() {
    let text = explained("GET http://a:8081/", &[], "192.0.2.1").expect("inner");
    assert!(
        text.contains("listener  inner on 127.0.0.1:8081\n"),
        "{text}"
    );
    assert!(
        text.contains("header x-user is not there: drawn at random"),
        "{text}"
    );
    let text = explained("GET http://a:8080/named", &[], "192.0.2.1").expect("named");
    assert!(text.contains("two.test:80@192.0.2.1:80"), "{text}");
    assert!(text.contains("`none.test` does not resolve now"), "{text}");
    let error = explained("GET http://a:5432/", &[], "192.0.2.1").expect_err("tcp");
    assert!(error.contains("takes TCP"), "{error}");
}

#[test]
fn what_is_no_http_is_answered_as_the_listener_would() {
    for (request, header, expected) in [
        ("GET http://x:8080/../a", "a: b", "400 bad_request"),
        ("GET http://x:8080/a%00", "a: b", "400 bad_request"),
        ("GET http://x:8080/", "bad name: b", "400 bad_framing"),
        ("CONNECT http://x:8080/", "a: b", "405 method_refused"),
    ] {
        let text = explained(request, &[header], "192.0.2.1").expect(request);
        assert!(text.contains(expected), "{request}: {text}");
    }
}

#[test]
fn a_route_that_chooses_by_label_says_what_it_does_not_choose() {
    check(
        "GET http://x:8080/v2",
        &[],
        "192.0.2.9",
        "\
request   GET http://x:8080/v2 from 192.0.2.9
listener  web on 127.0.0.1:8080
route     v2
  not api    path /v2 does not match /api/*
  not moved  host x does not match old.example
  not shop   path /v2 does not match /shop
  not named  path /v2 does not match /named
pool      marked (round_robin, version=v2)
server    new  (the first request after a start; the next ones go on in turn)
retries   2 further tries, at most 20% of requests
  not lost         none.test:80  `none.test` does not resolve now
  not old          127.0.0.1:6   the route wants version=v2: it has version=v1
  not 127.0.0.1:8                the route wants version=v2: it has no labels
",
    );
}

/// The lines on affinity and server of an explanation.
#[track_caller]
fn binds(path: &str, header: &str, affinity: &str, server: &str) {
    let request = format!("GET http://x:8082{path}");
    let text = explained(&request, &[header], "192.0.2.9").expect(path);
    for part in [
        format!("affinity  {affinity}\n"),
        format!("server    {server}"),
    ] {
        assert!(text.contains(&part), "{header}: {part:?} in\n{text}");
    }
    assert!(!text.contains("s3cr3t"), "{text}");
}

#[test]
fn what_binds_a_request_is_told_and_why_it_goes_there() {
    let wall = source::wall().as_secs();
    let (new, old) = (format!("~t{:x}", wall - 5), format!("~t{:x}", wall - 5000));
    binds(
        "/carts",
        "X: y",
        "cookie S: the request has none  (any server will do, and the answer sets the cookie for it)",
        "a  (the first request",
    );
    binds(
        "/carts",
        &format!("Cookie: S=c{new}"),
        "cookie S: names c  (it stays)",
        "c  (it is bound to it)\n",
    );
    binds(
        "/carts",
        &format!("Cookie: S=b{new}"),
        "cookie S: names b  (it has weight 0, and its clients stay (on_drain: keep))",
        "b  (it is bound to it)\n",
    );
    binds(
        "/carts",
        &format!("Cookie: S=b{old}"),
        "cookie S: was given longer ago than 1h  (it is ignored, and replaced: any server will do)",
        "a  (",
    );
    binds(
        "/carts",
        &format!("Cookie: S=s3cr3t; S=~; S=c{new}; S=a"),
        "cookie S: number 1 names no server of this pool: forged, of another secret or pool, or its server is gone; \
         number 2 is none of ours: forged, or cut off; number 3 names c  (it stays)",
        "c  (",
    );
    binds(
        "/named",
        "X-Server: c",
        "header x-server: names c  (it stays)",
        "c  (it is bound to it)",
    );
    binds(
        "/named",
        "X-Server: s3cr3t",
        "header x-server: names no server of this pool  (there is no such server (strength: required))",
        "none: 503 affinity_server_unavailable\n",
    );
    binds(
        "/learnt",
        "Cookie: JSESSIONID=s3cr3t",
        "app_cookie JSESSIONID, learnt: a config does not show what was learnt: ask with --live  \
         (any server will do; it is bound to the one that gives it a session)",
        "a  (",
    );
}

#[test]
fn a_hash_is_told_without_what_is_hashed() {
    let text = explained(
        "GET http://x:8082/users",
        &["Cookie: user=s3cr3t"],
        "192.0.2.9",
    );
    let text = text.expect("an answer");
    let hash = balance::hash_key(b"s3cr3t");
    let part = format!("affinity  hash of cookie user: it has the hash {hash:016x}, which is ");
    assert!(text.contains(&part) && !text.contains("s3cr3t"), "{text}");
    assert!(text.contains("(it is bound to it)"), "{text}");
    let text = explained("GET http://x:8082/users", &[], "192.0.2.9").expect("an answer");
    assert!(
        text.contains("hash of cookie user: the request has none  (`balance` decides)"),
        "{text}"
    );
}

#[test]
fn who_has_been_given_an_arm_of_a_split_keeps_it() {
    let arm = |header: &str| {
        let text = explained("GET http://x:8082/split", &[header], "192.0.2.9").expect(header);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("arm       "));
        line.expect(&text).to_owned()
    };
    assert!(arm("X: y").starts_with("none yet: a place is drawn"));
    for (cookie, pool) in [("S=c", "carts"), ("S=d", "more")] {
        let expected = format!("{pool}: it is remembered, whatever the shares are");
        assert_eq!(arm(&format!("Cookie: {cookie}")), expected);
    }
    // A place is kept, whichever server goes with it.
    let arms: Vec<_> = (0..20)
        .map(|place| arm(&format!("Cookie: S=x~s{place:x}0000000")))
        .collect();
    for pool in ["carts", "more"] {
        assert!(arms.iter().any(|arm| arm.starts_with(pool)), "{arms:?}");
    }
}

//! Which route a request takes, and what filters do to it, as a client and the servers see it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use testkit::{Evenkeel, Origin, Port, Raw, Request, Response, reply};

use crate::command::BINARY;
use crate::http_setup::{Outcome, ensure_ok, ensure_refused};

/// Tells its name and what it saw.
fn named(name: &'static str) -> Result<Origin> {
    Origin::http(move |request: &Request| {
        let tier = request.header("x-tier").unwrap_or("-").to_owned();
        let answer = reply(200, format!("{name} {} {tier}", request.target));
        let text = String::from_utf8_lossy(&answer).replace("\r\n\r\n", "\r\nX-Secret: s\r\n\r\n");
        text.into_bytes()
    })
}

/// One listener with these routes, before the pools `a` and `b`.
fn routed(a: &Origin, b: &Origin, listener: &str) -> Result<Evenkeel> {
    let (a, b) = (a.address(), b.address());
    let config = format!(
        r#"
admin: off
workers: 2
listeners:
  web:
    bind: "127.0.0.1:0"
{listener}
pools:
  a: {{ servers: ["{a}"], health_check: off }}
  b: {{ servers: ["{b}"], health_check: off }}
"#
    );
    Evenkeel::start(BINARY, &config)
}

fn ask(evenkeel: &Evenkeel, request: &str) -> Result<Response> {
    Raw::connect(evenkeel.address("web")?)?.exchange(request)
}

/// `METHOD target` and field lines apart by `;`.
fn request(line: &str) -> String {
    let mut parts = line.split(';').map(str::trim);
    let start = parts.next().unwrap_or_default();
    let fields: String = parts.map(|field| format!("{field}\r\n")).collect();
    let host = if fields.to_ascii_lowercase().contains("host:") {
        ""
    } else {
        "Host: x.test\r\n"
    };
    format!("{start} HTTP/1.1\r\n{host}{fields}\r\n")
}

#[test]
fn each_kind_of_match_decides() -> Outcome {
    let (a, b) = (named("a")?, named("b")?);
    let cases: [(&str, &[&str], &[&str]); 14] = [
        (
            "{ host: one.test }",
            &["GET /; Host: ONE.test.:80"],
            &["GET /; Host: two.test", "GET /; Host: x.one.test"],
        ),
        (
            "{ host: \"*.one.test\" }",
            &["GET /; Host: a.one.test", "GET /; Host: a.b.one.test"],
            &["GET /; Host: one.test", "GET /; Host: xone.test"],
        ),
        (
            "{ path: /exact }",
            &[
                "GET /exact",
                "GET /exact?q",
                "GET /%65xact",
                "GET /x/../exact",
            ],
            &["GET /exact/", "GET /Exact"],
        ),
        (
            "{ path: /api/* }",
            &["GET /api", "GET /api/", "GET /api/x/y", "GET /x/../api/z"],
            &["GET /apix", "GET /", "GET /a%2Fpi/x", "GET /api/.."],
        ),
        (
            "{ path: \"~^/v[0-9]+/\" }",
            &["GET /v1/", "GET /v22/x"],
            &["GET /v/x", "GET /x/v1/"],
        ),
        (
            "{ method: [POST, PUT] }",
            &["POST /", "PUT /"],
            &["GET /", "post /"],
        ),
        (
            "{ header: { x-kind: new* } }",
            &["GET /; X-Kind: newer", "GET /; x-kind: old; x-kind: new"],
            &["GET /", "GET /; X-Kind: old"],
        ),
        (
            "{ header: { x-kind: false } }",
            &["GET /"],
            &["GET /; X-Kind: "],
        ),
        (
            "{ cookie: { who: me } }",
            &["GET /; Cookie: a=b; Cookie: who=me"],
            &["GET /; Cookie: who=you", "GET /"],
        ),
        (
            "{ query: { v: \"2\" } }",
            &["GET /?v=2", "GET /?a=1&v=2", "GET /?v=1&v=2", "GET /?v=%32"],
            &["GET /?v=22", "GET /?x=v=2", "GET /"],
        ),
        (
            "{ query: { v: true } }",
            &["GET /?v", "GET /?v="],
            &["GET /?w", "GET /"],
        ),
        (
            "{ source: 10.0.0.0/8 }",
            &[
                "GET /; X-Forwarded-For: 10.1.2.3",
                "GET /; X-Forwarded-For: 9.9.9.9, 10.1.2.3",
            ],
            &["GET /", "GET /; X-Forwarded-For: 10.1.2.3, 9.9.9.9"],
        ),
        (
            "{ path: /p/*, not: { method: GET } }",
            &["POST /p/x"],
            &["GET /p/x", "POST /q"],
        ),
        (
            "{ host: one.test, header: { x: \"1\" } }",
            &["GET /; Host: one.test; X: 1"],
            &["GET /; Host: one.test", "GET /; X: 1"],
        ),
    ];
    for (matching, takes, leaves) in cases {
        let listener = format!(
            "    trusted_proxies: [127.0.0.0/8]\n    routes: [{{ match: {matching}, pool: a }}, {{ pool: b }}]"
        );
        let evenkeel = routed(&a, &b, &listener)?;
        for (lines, name) in [(takes, "a "), (leaves, "b ")] {
            for line in lines {
                let response = ask(&evenkeel, &request(line))?;
                ensure!(
                    response.text().starts_with(name),
                    "{matching} and {line}: {response}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn an_untrusted_peer_cannot_choose_its_source() -> Outcome {
    let (a, b) = (named("a")?, named("b")?);
    let evenkeel = routed(
        &a,
        &b,
        "    routes: [{ match: { source: 10.0.0.0/8 }, pool: a }, { pool: b }]",
    )?;
    let response = ask(&evenkeel, &request("GET /; X-Forwarded-For: 10.1.2.3"))?;
    ensure!(response.text().starts_with("b "), "{response}");
    Ok(())
}

#[test]
fn a_split_keeps_its_shares() -> Outcome {
    let (a, b) = (named("a")?, named("b")?);
    let evenkeel = routed(&a, &b, "    split: { a: 90, b: 10 }")?;
    // Several connections, so that both workers take part.
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..20 {
        let mut client = Raw::connect(evenkeel.address("web")?)?;
        for _ in 0..5 {
            let text = client.get("/")?.text();
            *counts.entry(text.chars().take(1).collect()).or_default() += 1;
        }
    }
    assert_eq!(
        counts,
        BTreeMap::from([("a".to_owned(), 90), ("b".to_owned(), 10)])
    );
    Ok(())
}

#[test]
fn filters_change_answers_made_here_as_those_of_servers() -> Outcome {
    let dead = Port::reserve()?.address();
    let evenkeel = Evenkeel::start(
        BINARY,
        &format!(
            "admin: off
listeners:
  web:
    bind: '127.0.0.1:0'
    routes:
      - filters: [{{ set_response_header: {{ content-type: text/x, Date: today, grpc-status: '0' }} }}, {{ remove_response_header: retry-after }}]
        pool: site
pools: {{ site: {{ servers: ['{dead}'], health_check: off, outlier_detection: off }} }}
"
        ),
    )?;
    let mut client = Raw::connect(evenkeel.address("web")?)?;
    let fields = |response: &Response| {
        let names = ["content-type", "date", "grpc-status", "x-evenkeel-reason"];
        names.map(|name| response.headers.all(name).join("|"))
    };
    let refused = client.get("/")?;
    let expected = ["text/x", "today", "0", "connect_refused"];
    assert_eq!(fields(&refused), expected);
    // What makes it an answer of gRPC stays.
    let call = request("POST /; Content-Type: application/grpc; Content-Length: 0");
    let call = client.exchange(call)?;
    let expected = ["application/grpc", "today", "14", "connect_refused"];
    assert_eq!(fields(&call), expected);
    Ok(())
}

#[test]
fn filters_change_requests_and_responses() -> Outcome {
    let (a, b) = (named("a")?, named("b")?);
    let evenkeel = routed(
        &a,
        &b,
        r#"
    routes:
      - match: { path: /api/* }
        filters:
          - { strip_prefix: /api }
          - { set_header: { x-tier: api, host: inner.test } }
          - { remove_header: x-drop }
          - { set_response_header: { x-from: evenkeel } }
          - { remove_response_header: x-secret }
        pool: a
      - match: { path: /old/* }
        filters: [{ redirect: { to: "https://{host}/new{path}?{query}", status: 308 } }]
      - match: { path: /teapot }
        filters: [{ respond: { status: 418, body: "short and stout", headers: { x-pot: tea } } }]
      - pool: b
"#,
    )?;
    for (target, expected) in [
        ("/api/x?q=1", "a /x?q=1 api"),
        ("/api", "a / api"),
        ("/api/", "a / api"),
    ] {
        let response = ask(
            &evenkeel,
            &request(&format!("GET {target}; X-Tier: mine; X-Drop: 1")),
        )?;
        assert_eq!(response.text(), expected, "{target}");
        assert_eq!(response.headers.all("x-from"), ["evenkeel"]);
        assert_eq!(response.header("x-secret"), None);
        let seen = a.seen().pop().context("a request")?;
        assert_eq!(seen.headers.all("host"), ["inner.test"]);
        assert_eq!(seen.headers.all("x-tier"), ["api"]);
        assert_eq!(seen.header("x-drop"), None);
    }
    let moved = ask(&evenkeel, &request("GET /old/x?y=z"))?;
    assert_eq!(
        (moved.status, moved.header("location")),
        (308, Some("https://x.test/new/old/x?y=z"))
    );
    let mut client = Raw::connect(evenkeel.address("web")?)?;
    let pot = client.exchange(request("POST /teapot; Content-Length: 0"))?;
    assert_eq!(
        (pot.status, pot.text().as_str(), pot.header("x-pot")),
        (418, "short and stout", Some("tea"))
    );
    ensure_ok(&client.get("/")?)?;
    assert_eq!(
        client
            .exchange(request("HEAD /teapot"))?
            .header("content-length"),
        Some("15")
    );
    ensure_ok(&client.get("/")?)?;
    Ok(())
}

#[test]
fn a_redirect_cannot_be_split_by_its_request() -> Outcome {
    let (a, b) = (named("a")?, named("b")?);
    let route = r#"    routes: [{ filters: [{ redirect: "https://{host}{path}?{query}" }] }]"#;
    let evenkeel = routed(&a, &b, &format!("{route}\n"))?;
    for target in ["/%0d%0aSet-Cookie:%20a=b", "/?%0d%0aSet-Cookie:%20a=b"] {
        let response = ask(&evenkeel, &request(&format!("GET {target}")))?;
        assert_eq!(response.status, 302);
        assert_eq!(response.header("set-cookie"), None, "{response}");
    }
    Ok(())
}

#[test]
fn who_names_no_host_is_sent_to_none() -> Outcome {
    let (a, b) = (named("a")?, named("b")?);
    let filters = |filter: &str| format!("    routes: [{{ filters: [{filter}] }}]\n");
    let bare = "GET /x HTTP/1.0\r\n\r\n";
    for filter in [
        "{ redirect: \"https://{host}{path}?{query}\" }",
        "https_redirect",
    ] {
        let evenkeel = routed(&a, &b, &filters(filter))?;
        let refused = ask(&evenkeel, bare)?;
        ensure_refused(&refused, 400, "bad_request")?;
        assert_eq!(refused.header("location"), None);
        let sent = ask(&evenkeel, "GET /x HTTP/1.0\r\nHost: a.test\r\n\r\n")?;
        assert_eq!(sent.header("location"), Some("https://a.test/x"), "{sent}");
    }
    let evenkeel = routed(&a, &b, &filters("{ redirect: \"/login?from={host}\" }"))?;
    assert_eq!(
        ask(&evenkeel, bare)?.header("location"),
        Some("/login?from=")
    );
    Ok(())
}

#[test]
fn what_is_answered_here_is_text_or_json_as_the_client_likes() -> Outcome {
    let (a, b) = (named("a")?, named("b")?);
    let evenkeel = routed(
        &a,
        &b,
        "    trusted_proxies: [127.0.0.0/8]\n    routes: [{ match: { path: /a }, pool: a }, { match: { path: /b }, pool: b }]",
    )?;
    let mut client = Raw::connect(evenkeel.address("web")?)?;
    let text = client.get("/none")?;
    ensure_refused(&text, 404, "no_route")?;
    ensure!(
        text.header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain")),
        "{text}"
    );
    ensure!(text.text().contains("no_route"), "{text}");
    for accept in ["application/json", "application/json;q=0.9, */*"] {
        let json = client.exchange(
            request(&format!(
                "GET /none; Accept: {}",
                accept.replace(';', "\u{1}")
            ))
            .replace('\u{1}', ";"),
        )?;
        ensure_refused(&json, 404, "no_route")?;
        assert_eq!(
            json.header("content-type"),
            Some("application/json"),
            "{accept}"
        );
        let value: serde_json::Value = serde_json::from_slice(&json.body)?;
        assert_eq!(
            (value["status"].as_u64(), value["reason"].as_str()),
            (Some(404), Some("no_route"))
        );
        ensure!(
            value["request_id"]
                .as_str()
                .is_some_and(|id| id.len() == 32),
            "{value}"
        );
    }
    let named = client.exchange(request(
        "GET /none; Accept: application/json; X-Request-ID: mine",
    ))?;
    ensure!(
        named.text().contains("\"request_id\":\"mine\""),
        "the id of a trusted peer: {named}"
    );
    for accept in ["text/html, application/json", "*/*"] {
        let text = client.exchange(request(&format!("GET /none; Accept: {accept}")))?;
        ensure!(
            text.header("content-type")
                .is_some_and(|kind| kind.starts_with("text/plain")),
            "{accept}: {text}"
        );
    }
    Ok(())
}

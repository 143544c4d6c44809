//! Calls of gRPC as HTTP/1.1 carries them, which is how every version of HTTP passes through: answers made here, the
//! client's deadline, retries and verdicts by code.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use testkit::{Evenkeel, Origin, Port, Response, reply, wait_until};

use crate::http_setup::{Outcome, chunks};
use crate::life_support::{SOON, assert_metric, connect, list, metric, picks, start, web};

/// A message of gRPC, `hello`.
const HELLO: &[u8] = b"\0\0\0\0\x05hello";

fn call(content_type: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /shop.Cart/Add HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\n{more}Transfer-Encoding: chunked\r\n\r\n"
    );
    [head.into_bytes(), chunks(body, 7, "")].concat()
}

/// An answer with a message, whose call ends with this code in the trailers.
fn answer(code: u8, body: &[u8]) -> Vec<u8> {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n";
    let trailers = format!("grpc-status: {code}\r\n");
    [head.as_bytes(), &chunks(body, 5, &trailers)].concat()
}

/// An answer that is nothing but a code.
fn only(code: u8) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: {code}\r\ngrpc-message: as told\r\nContent-Length: 0\r\n\r\n").into()
}

fn run(servers: &[SocketAddr], listener: &str, pool: &str) -> Evenkeel {
    start(&format!(
        "admin: {{ bind: '127.0.0.1:0' }}
workers: 1
access_log: {{ to: stdout, format: json }}
listeners:
  web: {{ bind: '127.0.0.1:0', {listener} routes: [{{ name: calls, match: {{ path: /shop.Cart/* }}, pool: site }}] }}
pools:
  site: {{ servers: {}, health_check: off, balance: round_robin, {pool} }}
",
        list(servers)
    ))
}

#[track_caller]
fn assert_told(response: &Response, content_type: &str, code: &str, reason: &str) {
    let fields = [
        "content-type",
        "grpc-status",
        "grpc-message",
        "x-evenkeel-reason",
    ];
    assert_eq!(
        (response.status, fields.map(|name| response.header(name))),
        (
            200,
            [Some(content_type), Some(code), Some(reason), Some(reason)]
        ),
        "{response}"
    );
    assert!(response.body.is_empty(), "{response}");
}

#[test]
fn answers_made_here_are_of_grpc_and_counted_as_what_they_are() -> Outcome {
    let dead = Port::reserve()?.address();
    let mut evenkeel = run(&[dead], "limits: { body_bytes: 64B },", "");
    let mut client = connect(web(&evenkeel));
    for content_type in [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc-web+proto",
        "application/grpc-web-text",
    ] {
        let response = client.exchange(call(content_type, "", HELLO))?;
        assert_told(&response, content_type, "14", "connect_refused");
    }
    let line = evenkeel.wait_log("\"grpc_status\":14,", SOON)?;
    assert!(line.contains("\"status\":502,"), "{line}");
    let large = client.exchange(call("application/grpc", "", &[0; 100]))?;
    assert_told(&large, "application/grpc", "8", "body_too_large");
    let mut client = connect(web(&evenkeel));
    let elsewhere = String::from_utf8_lossy(&call("application/grpc", "", HELLO))
        .replace("/shop.Cart/Add", "/shop.Other/Add");
    let nowhere = client.exchange(elsewhere)?;
    assert_told(&nowhere, "application/grpc", "12", "no_route");
    // Whoever does not call gets what he always got.
    for request in [
        "GET /shop.Cart/Add HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\n\r\n",
        "POST /shop.Cart/Add HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n",
    ] {
        let response = client.exchange(request)?;
        assert_eq!(response.status, 502, "{response}");
        assert_eq!(response.header("grpc-status"), None);
    }
    let failed = "evenkeel_requests_total{listener=\"web\",route=\"calls\",class=\"5xx\"}";
    wait_until("calls count as failed", SOON, || {
        metric(&evenkeel, failed) >= 6.0
    })?;
    Ok(())
}

/// Reads requests and never answers.
fn hanging() -> anyhow::Result<Origin> {
    Origin::start(|conn| {
        while conn.read_request()?.is_some() {}
        Ok(())
    })
}

#[test]
fn the_time_of_the_client_holds_and_is_no_fault_of_the_server() -> Outcome {
    let slow = hanging()?;
    let pool = "timeouts: { request: 20s }, outlier_detection: { consecutive_gateway_errors: 2 }";
    let evenkeel = run(&[slow.address()], "", pool);
    let mut client = connect(web(&evenkeel));
    for _ in 0..4 {
        let began = Instant::now();
        let response =
            client.exchange(call("application/grpc", "grpc-timeout: 150m\r\n", HELLO))?;
        assert_told(&response, "application/grpc", "4", "deadline_exceeded");
        assert!(began.elapsed() >= Duration::from_millis(150));
        assert!(began.elapsed() < Duration::from_secs(15));
    }
    let over = client.exchange(call("application/grpc", "grpc-timeout: 0n\r\n", HELLO))?;
    assert_told(&over, "application/grpc", "4", "deadline_exceeded");
    assert_eq!(metric(&evenkeel, "evenkeel_ejections_total"), 0.0);
    // The smaller of the two holds, and what is no time is none.
    let pool = "timeouts: { request: 200ms }, outlier_detection: off";
    let evenkeel = run(&[slow.address()], "", pool);
    let mut client = connect(web(&evenkeel));
    for timeout in ["20S", "1 S", "123456789n"] {
        let more = format!("grpc-timeout: {timeout}\r\n");
        let response = client.exchange(call("application/grpc", &more, HELLO))?;
        assert_told(&response, "application/grpc", "4", "first_byte_timeout");
    }
    Ok(())
}

#[test]
fn a_deadline_also_ends_the_wait_for_a_server_with_room() -> Outcome {
    let slow = hanging()?;
    let pool = "timeouts: { request: 20s }, limits: { max_connections: 1, queue_wait: 20s }";
    let evenkeel = run(&[slow.address()], "", pool);
    let mut first = connect(web(&evenkeel));
    first.send(call("application/grpc", "", HELLO))?;
    wait_until("the server is full", SOON, || slow.requests() == 1)?;
    let mut second = connect(web(&evenkeel));
    let response = second.exchange(call("application/grpc", "grpc-timeout: 100m\r\n", HELLO))?;
    assert_told(&response, "application/grpc", "4", "deadline_exceeded");
    Ok(())
}

#[test]
fn a_call_is_tried_again_after_the_codes_that_are_named() -> Outcome {
    let busy = Origin::http(|request| match &*request.target {
        "/shop.Cart/Http" => reply(503, "no"),
        _ => only(14),
    })?;
    let well = Origin::http(|request| answer(0, &request.body))?;
    let servers = [busy.address(), well.address()];
    let off = "outlier_detection: off";
    let named = run(
        &servers,
        "",
        &format!("{off}, retries: {{ on: [503, unavailable] }}"),
    );
    let mut client = connect(web(&named));
    for _ in 0..4 {
        let response = client.exchange(call("application/grpc", "", HELLO))?;
        assert_eq!(response.body, HELLO, "{response}");
    }
    assert!(busy.requests() >= 1, "the busy one was never asked");
    assert!(
        metric(
            &named,
            "evenkeel_retries_total{pool=\"site\",cause=\"status\"}"
        ) >= 1.0
    );
    // A status of HTTP is another thing: `methods` does not name POST.
    let calls = String::from_utf8_lossy(&call("application/grpc", "", HELLO)).into_owned();
    let by_http = calls.replace("/shop.Cart/Add", "/shop.Cart/Http");
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(client.exchange(&by_http)?.status);
    }
    assert_eq!(statuses.iter().filter(|it| **it == 503).count(), 2);
    // Neither is a code that is not named, nor where nobody else is.
    for (servers, on) in [(&servers[..], "aborted"), (&servers[..1], "unavailable")] {
        let evenkeel = run(servers, "", &format!("{off}, retries: {{ on: {on} }}"));
        let mut client = connect(web(&evenkeel));
        let responses = [0; 2].map(|_| client.exchange(&calls).expect("an answer"));
        let refused = responses
            .iter()
            .find(|it| it.header("grpc-status") == Some("14"))
            .expect("the busy server's answer");
        assert_eq!(refused.header("grpc-message"), Some("as told"));
        assert_eq!(refused.header("x-evenkeel-reason"), None);
    }
    Ok(())
}

#[test]
fn a_server_is_judged_by_the_codes_of_its_answers() -> Outcome {
    let pool = "outlier_detection: { consecutive_gateway_errors: 3, degrade: false }";
    type Answers = fn() -> Vec<u8>;
    let cases: [(Answers, bool); 5] = [
        (|| only(14), true),
        (|| answer(14, HELLO), true),
        (|| only(3), false),
        (|| answer(5, b""), false),
        (|| only(4), false),
    ];
    for (made, ejected) in cases {
        let bad = Origin::http(move |_| made())?;
        let well = Origin::http(|_| answer(0, HELLO))?;
        let evenkeel = run(&[bad.address(), well.address()], "", pool);
        let mut client = connect(web(&evenkeel));
        for _ in 0..8 {
            let response = client.exchange(call("application/grpc", "", HELLO))?;
            assert_eq!(response.status, 200, "{response}");
        }
        let is_ejected = || metric(&evenkeel, "evenkeel_ejections_total") >= 1.0;
        if ejected {
            wait_until("it is ejected", SOON, is_ejected)?;
            let picked = picks(&evenkeel, bad.address());
            let series = format!(
                "evenkeel_server_requests_total{{pool=\"site\",server=\"{}\",class=\"5xx\"}}",
                bad.address()
            );
            assert_metric(&evenkeel, &series, picked as f64);
        } else {
            assert_eq!(picks(&evenkeel, bad.address()), 4);
            assert!(!is_ejected());
        }
    }
    Ok(())
}

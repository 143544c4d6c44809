//! Requests that mean one thing to one reader and another to the next: none reaches a server.

use anyhow::ensure;
use testkit::{Haproxy, Nginx, Origin, missing, reply};

use crate::http_setup::{Outcome, client, proxy, proxy_with};

/// Each carries a request to `/evil` that some reader somewhere has taken for one of its own.
const PAYLOADS: [&str; 22] = [
    // CL.TE, TE.CL, TE.TE
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 45\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n1f\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\nContent-Length: 4\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    // Lengths
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 31\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00000000000000000000000000x\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\rX: \r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent\0-Length: 31\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    // Chunks
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;\nx\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    // Heads
    "GET / HTTP/1.1\r\nHost: a\r\nX: y\n\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\nConnection: Content-Length, Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
];

#[test]
fn no_payload_reaches_a_server() -> Outcome {
    let origin = Origin::http(|_| reply(200, "ok"))?;
    let evenkeel = proxy(&[origin.address()])?;
    for payload in PAYLOADS {
        let mut client = client(&evenkeel)?;
        client.send(payload)?;
        let response = client.response()?;
        ensure!(
            matches!(response.status, 400 | 501),
            "{}: {response}",
            payload.escape_debug()
        );
        client.half_close().ok();
        client.expect_close()?;
    }
    assert_eq!(origin.requests(), 0, "{:?}", origin.seen());
    Ok(())
}

/// What is no attack is one request with its body, whatever the body looks like.
#[test]
fn a_body_that_looks_like_a_request_stays_a_body() -> Outcome {
    const EVIL: &str = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
    let origin = Origin::http(|request| reply(200, &request.body))?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut client = client(&evenkeel)?;
    let length = EVIL.len();
    let chunk = format!("{length:x}\r\n{EVIL}\r\n0\r\n\r\n");
    for method in ["GET", "POST", "HEAD", "DELETE", "OPTIONS"] {
        for rest in [
            format!("Content-Length: {length}\r\n\r\n{EVIL}"),
            format!("Content-Length: {length}\r\nContent-Length: {length}\r\n\r\n{EVIL}"),
            format!("Transfer-Encoding: chunked\r\n\r\n{chunk}"),
            format!("Transfer-Encoding: Chunked\r\n\r\n{chunk}"),
        ] {
            let before = origin.requests();
            client.send(format!("{method} /own HTTP/1.1\r\nHost: a\r\n{rest}"))?;
            let response = client.response_to(method)?;
            // Equal lengths twice may be refused; if they pass, then as one.
            if response.status == 400 && rest.matches("Content-Length").count() == 2 {
                client = crate::http_setup::client(&evenkeel)?;
                continue;
            }
            assert_eq!(response.status, 200, "{method} {rest}");
            assert_eq!(origin.requests(), before + 1, "{method} {rest}");
        }
    }
    for seen in origin.seen() {
        assert_eq!(
            (seen.target.as_str(), seen.body.as_slice()),
            ("/own", EVIL.as_bytes())
        );
        ensure!(seen.headers.all("content-length").len() <= 1, "{seen:?}");
    }
    Ok(())
}

/// nginx and HAProxy read what they get over one kept connection just as we do.
#[test]
fn real_servers_behind_stay_in_step() -> Outcome {
    if missing("nginx") || missing("haproxy") {
        return Ok(());
    }
    let nginx = Nginx::start(
        "one",
        "location /own { return 200 \"own\"; } location /evil { return 200 \"evil\"; }",
    )?;
    let haproxy = Haproxy::start(
        "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
         frontend f\n bind 127.0.0.1:{port}\n http-request return status 200 content-type text/plain string evil if { path /evil }\n\
         http-request return status 200 content-type text/plain string own\n",
    )?;
    for server in [nginx.address(), haproxy.address()] {
        let evenkeel = proxy(&[server])?;
        let mut other = client(&evenkeel)?;
        for payload in PAYLOADS {
            let mut client = client(&evenkeel)?;
            client.send(payload)?;
            client.response().ok();
            let response = other.get("/own")?;
            assert_eq!(response.text(), "own", "after {}", payload.escape_debug());
        }
    }
    Ok(())
}

/// An answer made here does not wait for the body: what comes of it later is no request either.
#[test]
fn a_late_body_of_a_request_answered_here_is_no_request() -> Outcome {
    const EVIL: &str = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
    let origin = Origin::http(|_| reply(200, "ok"))?;
    let evenkeel = proxy_with(&[origin.address()], &["limits: { body_bytes: 10B }"], &[])?;
    let length = EVIL.len();
    for (start, expected) in [
        (
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"),
            413,
        ),
        (
            format!("POST /.. HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"),
            400,
        ),
        (
            format!("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: {length}\r\n\r\n"),
            405,
        ),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned(), 405),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n"
            ),
            413,
        ),
    ] {
        let mut client = client(&evenkeel)?;
        client.send(&start)?;
        if expected == 413 && start.contains("chunked") {
            client.send(EVIL)?;
        }
        let response = client.response()?;
        assert_eq!(response.status, expected, "{start}");
        client.send(EVIL.repeat(3)).ok();
        client.half_close().ok();
        client.expect_close()?;
    }
    assert_eq!(origin.seen().len(), 0, "{:?}", origin.seen());
    Ok(())
}

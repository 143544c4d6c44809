//! What a server is told and what it is not: forwarding headers, hop-by-hop fields, the target it sees.

use anyhow::{Context, ensure};
use testkit::{Evenkeel, Origin, Request, reply};

use crate::http_setup::{Outcome, client, ensure_ok, ensure_refused, proxy, proxy_with};

fn origin() -> anyhow::Result<Origin> {
    Origin::http(|_| reply(200, "ok"))
}

/// Sends `GET / HTTP/1.1` with these field lines; gives what the origin saw.
fn seen(evenkeel: &Evenkeel, origin: &Origin, fields: &str) -> anyhow::Result<Request> {
    let request = format!("GET / HTTP/1.1\r\nHost: a.example:81\r\n{fields}\r\n");
    ensure_ok(&client(evenkeel)?.exchange(request)?)?;
    origin.seen().pop().context("a request")
}

const CLAIMS: &str = "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: claimed\r\n\
    X-Real-IP: 9.9.9.9\r\nX-Request-ID: mine\r\nForwarded: for=9.9.9.9\r\nVia: 1.1 x\r\n";

#[test]
fn an_untrusted_peer_is_not_believed() -> Outcome {
    let origin = origin()?;
    let evenkeel = proxy(&[origin.address()])?;
    let request = seen(&evenkeel, &origin, CLAIMS)?;
    assert_eq!(request.headers.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.headers.all("x-forwarded-proto"), ["http"]);
    assert_eq!(request.headers.all("x-forwarded-host"), ["a.example:81"]);
    assert_eq!(request.headers.all("host"), ["a.example:81"]);
    for name in ["x-real-ip", "forwarded"] {
        assert_eq!(request.header(name), None, "{name}");
    }
    let id = request.header("x-request-id").context("an id")?;
    ensure!(id.len() == 32 && id != "mine", "{id}");
    let other = seen(&evenkeel, &origin, "")?;
    ensure!(other.header("x-request-id") != Some(id), "ids differ");
    Ok(())
}

#[test]
fn a_trusted_peer_is_believed() -> Outcome {
    let origin = origin()?;
    let trust = [
        "trusted_proxies: [127.0.0.0/8]",
        "forwarded: { forwarded: true, via: true }",
    ];
    let evenkeel = proxy_with(&[origin.address()], &trust, &[])?;
    let request = seen(&evenkeel, &origin, CLAIMS)?;
    let whom = request.headers.all("x-forwarded-for").join(", ");
    assert_eq!(whom, "9.9.9.9, 127.0.0.1");
    assert_eq!(request.headers.all("x-forwarded-proto"), ["https"]);
    assert_eq!(request.headers.all("x-forwarded-host"), ["claimed"]);
    assert_eq!(request.headers.all("x-request-id"), ["mine"]);
    let forwarded = request.headers.all("forwarded").join(", ");
    ensure!(
        forwarded.starts_with("for=9.9.9.9, for=127.0.0.1"),
        "{forwarded}"
    );
    let via = request.headers.all("via").join(", ");
    ensure!(via.starts_with("1.1 x, 1.1 "), "{via}");
    for bad in ["", "a b", "a;b", &"x".repeat(129)] {
        let request = seen(&evenkeel, &origin, &format!("X-Request-ID: {bad}\r\n"))?;
        let ids = request.headers.all("x-request-id");
        ensure!(
            ids.len() == 1 && ids.first().is_some_and(|id| id.len() == 32),
            "{bad:?}: {ids:?}"
        );
    }
    Ok(())
}

#[test]
fn what_is_for_one_hop_does_not_pass() -> Outcome {
    const FIELDS: &str = "Connection: keep-alive, X-Mine, x-other\r\nKeep-Alive: timeout=9\r\nX-Mine: 1\r\nX-Kept: 2\r\n\
        X-OTHER: 3\r\nTE: trailers\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nProxy-Authorization: Basic x\r\n";
    let origin = Origin::http(|_| {
        format!("HTTP/1.1 200 OK\r\n{FIELDS}Proxy-Authenticate: y\r\nContent-Length: 2\r\n\r\nok")
            .into_bytes()
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let response =
        client(&evenkeel)?.exchange(format!("GET / HTTP/1.1\r\nHost: a\r\n{FIELDS}\r\n"))?;
    let request = origin.seen().pop().context("a request")?;
    for (side, headers) in [
        ("request", &request.headers),
        ("response", &response.headers),
    ] {
        for name in [
            "connection",
            "keep-alive",
            "x-mine",
            "x-other",
            "te",
            "proxy-connection",
            "upgrade",
            "proxy-authorization",
            "proxy-authenticate",
        ] {
            assert_eq!(headers.get(name), None, "{side}: {name}");
        }
        assert_eq!(headers.get("x-kept"), Some("2"), "{side}");
    }
    assert_eq!(response.text(), "ok");
    Ok(())
}

#[test]
fn connection_cannot_take_away_what_guards() -> Outcome {
    let origin = origin()?;
    let evenkeel = proxy(&[origin.address()])?;
    let names = "Connection: close, host, content-length, transfer-encoding, x-forwarded-for, x-request-id, cookie\r\n";
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{names}Content-Length: 3\r\n\r\nabc");
    ensure_ok(&client(&evenkeel)?.exchange(request)?)?;
    let seen = origin.seen().pop().context("a request")?;
    assert_eq!(seen.body, b"abc", "its length is still told");
    assert_eq!(seen.header("host"), Some("a"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    ensure!(seen.header("x-request-id").is_some(), "an id");
    Ok(())
}

#[test]
fn repeated_and_odd_fields_pass_unchanged_and_in_order() -> Outcome {
    let origin = Origin::http(|_| {
        b"HTTP/1.1 299 Very Own Reason\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Empty:\r\nX-Latin: caf\xe9\r\nContent-Length: 0\r\n\r\n".to_vec()
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let response = client(&evenkeel)?.exchange(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Many: 1\r\nAccept:  */* \r\nx-many: 2\r\nX-Empty:\r\n\r\n",
    )?;
    let seen = origin.seen().pop().context("a request")?;
    assert_eq!(seen.headers.all("x-many"), ["1", "2"]);
    assert_eq!(
        (seen.header("accept"), seen.header("x-empty")),
        (Some("*/*"), Some(""))
    );
    assert_eq!(
        (response.status, response.reason.as_str()),
        (299, "Very Own Reason")
    );
    assert_eq!(response.headers.all("set-cookie"), ["a=1", "b=2"]);
    ensure!(
        response
            .header("x-latin")
            .is_some_and(|value| value.starts_with("caf")),
        "{response}"
    );
    Ok(())
}

#[test]
fn the_server_sees_the_path_that_was_matched() -> Outcome {
    let origin = origin()?;
    let evenkeel = proxy(&[origin.address()])?;
    let cases = [
        ("/a/./b/../c", "/a/c"),
        ("/a/%2e%2E/b", "/b"),
        ("/%7Euser/%41", "/~user/A"),
        ("/a%2Fb/%2f", "/a%2Fb/%2f"),
        ("/a//b//", "/a//b//"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/x?a=/../b&c=%41", "/x?a=/../b&c=%41"),
        ("/x?", "/x?"),
        ("/caf%C3%A9", "/caf%C3%A9"),
    ];
    for (sent, expected) in cases {
        ensure_ok(&client(&evenkeel)?.get(sent)?).context(sent)?;
        let seen = origin.seen().pop().context("a request")?;
        ensure!(
            seen.target.eq_ignore_ascii_case(expected),
            "{sent}: {} and not {expected}",
            seen.target
        );
    }
    let before = origin.requests();
    for sent in ["/..", "/a/../../b", "/%2e%2e/", "/a%00b"] {
        ensure_refused(&client(&evenkeel)?.get(sent)?, 400, "bad_request").context(sent)?;
    }
    assert_eq!(origin.requests(), before);
    Ok(())
}

#[test]
fn a_server_may_say_which_upgrade_it_requires() -> Outcome {
    let origin = Origin::http(|_| {
        b"HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: foo/2\r\nContent-Length: 2\r\n\r\nno"
            .to_vec()
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut client = client(&evenkeel)?;
    for _ in 0..2 {
        let answer = client.get("/")?;
        ensure!(answer.status == 426, "{answer}");
        ensure!(answer.header("upgrade") == Some("foo/2"), "{answer}");
        ensure!(
            answer.headers.has_token("connection", "upgrade"),
            "{answer}"
        );
    }
    Ok(())
}

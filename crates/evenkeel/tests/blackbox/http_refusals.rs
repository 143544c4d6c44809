//! What is refused, with which status and reason, and that no server sees it.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use testkit::{Origin, reply};

use crate::http_setup::{Outcome, client, ensure_ok, ensure_refused, noise, proxy, proxy_with};

#[test]
fn every_doubt_in_framing_is_a_400_and_a_close() -> Outcome {
    let origin = Origin::http(|_| reply(200, "ok"))?;
    let evenkeel = proxy(&[origin.address()])?;
    let with_fields = [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "Content-Length: 3, 4\r\n\r\nabcd",
        "Content-Length: +3\r\n\r\nabc",
        "Content-Length: -1\r\n\r\n",
        "Content-Length: 0x3\r\n\r\nabc",
        "Content-Length: 3 3\r\n\r\nabc",
        "Content-Length: \r\n\r\n",
        "Content-Length: 99999999999999999999999\r\n\r\n",
        "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "X: a\r\n folded\r\n\r\n",
        "X: a\r\n\tfolded\r\n\r\n",
        " X: a\r\n\r\n",
        "X: a\nY: b\r\n\r\n",
        "X: a\rY: b\r\n\r\n",
        "X: a\0b\r\n\r\n",
        "X: a\x01b\r\n\r\n",
        "X : a\r\n\r\n",
        ": a\r\n\r\n",
        "no colon\r\n\r\n",
        "Host: b\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nx\r\n",
        "Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\nbad trailer\r\n\r\n",
    ];
    let mut cases: Vec<String> = with_fields
        .iter()
        .map(|fields| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}"))
        .collect();
    cases.extend(
        [
            "GET / HTTP/1.1\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "GET /\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "GET noslash HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /.. HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a/%2e%2E/../b HTTP/1.1\r\nHost: a\r\n\r\n",
            "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n",
        ]
        .map(str::to_owned),
    );
    for case in &cases {
        let shown = case.escape_debug().to_string();
        let mut client = client(&evenkeel)?;
        client.send(case)?;
        let response = client.response().with_context(|| shown.clone())?;
        ensure!(matches!(response.status, 400 | 501), "{shown}: {response}");
        ensure!(
            response.header("x-evenkeel-reason").is_some(),
            "{shown}: {response}"
        );
        ensure!(response.closes(), "{shown}: {response}");
        client.half_close().ok();
        client.expect_close().with_context(|| shown.clone())?;
    }
    assert_eq!(origin.requests(), 0, "{:?}", origin.seen());
    Ok(())
}

#[test]
fn versions_and_methods_that_are_not_served() -> Outcome {
    let origin = Origin::http(|_| reply(200, "ok"))?;
    let evenkeel = proxy(&[origin.address()])?;
    let cases = [
        (
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
            405,
            "method_refused",
        ),
        (
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            505,
            "version_not_supported",
        ),
        (
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            505,
            "version_not_supported",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            501,
            "not_implemented",
        ),
    ];
    for (request, status, reason) in cases {
        let mut client = client(&evenkeel)?;
        let response = client.exchange(request)?;
        ensure_refused(&response, status, reason).context(request)?;
        ensure!(response.closes(), "{request}: {response}");
    }
    assert_eq!(origin.requests(), 0);
    Ok(())
}

#[test]
fn whole_uris_and_asterisks_reach_the_server_in_its_form() -> Outcome {
    let origin = Origin::http(|_| reply(200, "ok"))?;
    let evenkeel = proxy(&[origin.address()])?;
    let cases = [
        (
            "GET http://b:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
            "/x?y",
            "b:81",
        ),
        ("GET HTTP://b HTTP/1.1\r\nHost: a\r\n\r\n", "/", "b"),
        ("GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n", "/?q", "b"),
        ("GET http://b/ HTTP/1.0\r\n\r\n", "/", "b"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "*", "a"),
        ("OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n", "*", "b"),
    ];
    for (request, target, host) in cases {
        ensure_ok(&client(&evenkeel)?.exchange(request)?).context(request)?;
        let seen = origin.seen();
        let last = seen.last().context("a request")?;
        assert_eq!(last.target, target, "{request}");
        assert_eq!(last.headers.all("host"), [host], "{request}");
    }
    Ok(())
}

#[test]
fn what_is_too_large_is_said_so() -> Outcome {
    let origin = Origin::http(|_| reply(200, "ok"))?;
    let limits = "limits: { header_bytes: 4KiB, headers: 20, uri_bytes: 1KiB, body_bytes: 100KiB }";
    let evenkeel = proxy_with(&[origin.address()], &[limits], &[])?;
    let long = "x".repeat(1100);
    let cases = [
        (
            format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            414,
            "uri_too_long",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
                format!("X: {long}\r\n").repeat(4)
            ),
            431,
            "header_too_large",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(20)),
            431,
            "header_too_large",
        ),
        // It never ends, and the limit is not waited past.
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(5000)),
            431,
            "header_too_large",
        ),
        (format!("GET /{}", "y".repeat(5000)), 414, "uri_too_long"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 102401\r\n\r\n".to_owned(),
            413,
            "body_too_large",
        ),
    ];
    for (request, status, reason) in &cases {
        let start: String = request.chars().take(30).collect();
        let mut client = client(&evenkeel)?;
        client.send(request)?;
        let response = client.response().with_context(|| start.clone())?;
        ensure_refused(&response, *status, reason).with_context(|| start.clone())?;
        ensure!(response.closes(), "{start}: {response}");
    }
    assert_eq!(origin.requests(), 0);
    let whole = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 102400\r\n\r\n{}",
        "z".repeat(102_400)
    );
    ensure_ok(&client(&evenkeel)?.exchange(whole)?)?;
    // The limit is of the content: the framing of small chunks does not count.
    let content = vec![b'z'; 102_400];
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = [&head[..], &crate::http_setup::chunks(&content, 16, "")].concat();
    ensure_ok(&client(&evenkeel)?.exchange(chunked)?)
}

#[test]
fn a_refusal_in_mid_upload_reaches_a_client_that_is_still_sending() -> Outcome {
    let origin = Origin::http(|_| reply(200, "ok"))?;
    let evenkeel = proxy_with(&[origin.address()], &["limits: { body_bytes: 1MiB }"], &[])?;
    let cases = [
        ("Content-Length: 30000000\r\n\r\n", 413, "body_too_large"),
        (
            "Transfer-Encoding: chunked\r\n\r\n2000000\r\n",
            413,
            "body_too_large",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n10000\r\n",
            400,
            "bad_framing",
        ),
        ("Content-Length: x\r\n\r\n", 400, "bad_framing"),
    ];
    for (rest, status, reason) in cases {
        let mut client = client(&evenkeel)?;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{rest}"))?;
        let mut sender = client.stream().try_clone()?;
        let block = noise(64 * 1024);
        for _ in 0..400 {
            if std::io::Write::write_all(&mut sender, &block).is_err() {
                break;
            }
        }
        let response = client.response().context(rest)?;
        ensure_refused(&response, status, reason).context(rest)?;
    }
    assert_eq!(origin.seen().len(), 0, "no server got a whole request");
    Ok(())
}

#[test]
fn clients_that_stop_sending_are_let_go() -> Outcome {
    let origin = Origin::http(|_| reply(200, "ok"))?;
    let timeouts = "timeouts: { header: 300ms, body_idle: 300ms, keep_alive: 300ms }";
    let evenkeel = proxy_with(&[origin.address()], &[timeouts], &[])?;

    let mut silent = client(&evenkeel)?;
    let mut idle = client(&evenkeel)?;
    ensure_ok(&idle.get("/")?)?;
    let mut half = client(&evenkeel)?;
    half.send("GET / HTTP/1.1\r\nHost:")?;
    ensure_refused(&half.response()?, 408, "header_timeout")?;
    half.expect_close()?;
    silent.expect_close()?;
    idle.expect_close()?;

    // A byte now and then does not push the end of a head away.
    let started = Instant::now();
    let mut slow = client(&evenkeel)?;
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(200));
    for byte in head.as_bytes() {
        if slow.send([*byte]).is_err() || started.elapsed() > Duration::from_secs(3) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        if started.elapsed() > Duration::from_millis(900) {
            break;
        }
    }
    ensure_refused(&slow.response()?, 408, "header_timeout")?;

    for body in [
        "Content-Length: 10\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    ] {
        let mut stuck = client(&evenkeel)?;
        stuck.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{body}"))?;
        ensure_refused(&stuck.response()?, 408, "body_timeout").context(body)?;
    }
    Ok(())
}

#[test]
fn a_server_that_talks_nonsense_is_a_502() -> Outcome {
    let cases = [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 99 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "220 smtp.example.com ESMTP\r\n\r\n",
        "\x15\x03\x01\0\x02\x02\x28 not HTTP\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    ];
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(70_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(300));
    let all: Vec<String> = cases
        .iter()
        .map(|case| (*case).to_owned())
        .chain([large, many])
        .collect();
    let answers = all.clone();
    let origin = Origin::http(move |request| {
        let number: usize = request.target.trim_start_matches('/').parse().unwrap_or(0);
        answers
            .get(number)
            .cloned()
            .unwrap_or_default()
            .into_bytes()
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    for (number, answer) in all.iter().enumerate() {
        let shown: String = answer.escape_debug().to_string().chars().take(90).collect();
        for method in ["GET", "POST"] {
            let request =
                format!("{method} /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
            let response = client(&evenkeel)?
                .exchange(request)
                .with_context(|| shown.clone())?;
            ensure_refused(&response, 502, "bad_response").with_context(|| shown.clone())?;
        }
    }
    let asked = 2 * all.len() as u64;
    assert_eq!(origin.requests(), asked, "a bad response is not retried");
    assert_eq!(origin.connections(), asked, "nor its connection used again");
    Ok(())
}

#[test]
fn a_response_that_breaks_off_is_never_taken_for_a_whole_one() -> Outcome {
    let cases = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Half: ",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n",
    ];
    let origin = Origin::start(move |conn| {
        let request = conn.read_request()?.context("a request")?;
        let number: usize = request.target.trim_start_matches('/').parse()?;
        conn.write(cases.get(number).context("a case")?)?;
        if number == 6 {
            conn.write(noise(2_000_000))?;
        }
        Ok(())
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    for (number, case) in cases.iter().enumerate() {
        let case = case.escape_debug();
        for version in ["1.1", "1.0"] {
            let mut client = client(&evenkeel)?;
            client.send(format!("GET /{number} HTTP/{version}\r\nHost: a\r\n\r\n"))?;
            let outcome = client.response();
            let told = match &outcome {
                // When nothing was passed on yet, saying so is better still.
                Ok(response) => response.status == 502,
                Err(_) => true,
            };
            ensure!(told, "HTTP/{version} {case}: {outcome:?}");
        }
    }
    Ok(())
}

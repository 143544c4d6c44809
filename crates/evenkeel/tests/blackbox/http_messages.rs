//! Messages in every framing and version: kept connections, pipelines, bodies both ways.

use anyhow::ensure;
use testkit::{Nginx, Origin, Raw, Request, missing, reply};

use crate::http_setup::{Outcome, chunks, client, ensure_ok, noise, proxy};

/// Answers with what came: method, target and body.
fn tell(request: &Request) -> Vec<u8> {
    let line = format!("{} {} ", request.method, request.target);
    reply(200, [line.as_bytes(), &request.body].concat())
}

#[test]
fn connections_are_kept_on_both_sides() -> Outcome {
    let origin = Origin::http(tell)?;
    let evenkeel = proxy(&[origin.address()])?;
    for _ in 0..3 {
        let mut client = client(&evenkeel)?;
        for n in 0..20 {
            let response = client.get(&format!("/{n}"))?;
            ensure!(response.text() == format!("GET /{n} "), "{response}");
            ensure!(!response.closes(), "{response}");
        }
    }
    assert_eq!(origin.requests(), 60);
    assert_eq!(origin.connections(), 1, "one server connection for all");
    Ok(())
}

#[test]
fn pipelined_requests_are_answered_in_order() -> Outcome {
    let origin = Origin::http(tell)?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut all = Vec::new();
    let mut expected = Vec::new();
    for n in 0..60 {
        let body = format!("body of {n}");
        let (method, rest, body) = match n % 4 {
            0 => (
                "POST",
                format!("Content-Length: {}\r\n\r\n{body}", body.len()),
                body,
            ),
            1 => {
                let chunked = String::from_utf8(chunks(body.as_bytes(), 3, ""))?;
                (
                    "PUT",
                    format!("Transfer-Encoding: chunked\r\n\r\n{chunked}"),
                    body,
                )
            }
            _ => ("GET", "\r\n".to_owned(), String::new()),
        };
        all.extend_from_slice(format!("{method} /{n} HTTP/1.1\r\nHost: a\r\n{rest}").as_bytes());
        expected.push(format!("{method} /{n} {body}"));
    }
    // At once, and in pieces that end anywhere.
    for piece in [all.len(), 700, 61] {
        let mut client = client(&evenkeel)?;
        client.send_in_pieces(&all, piece, std::time::Duration::from_micros(100))?;
        for text in &expected {
            assert_eq!(&client.response()?.text(), text, "pieces of {piece}");
        }
    }
    assert_eq!(origin.connections(), 1);
    Ok(())
}

#[test]
fn http_1_0_clients_are_served() -> Outcome {
    let origin = Origin::http(|request| {
        match request.target.as_str() {
        "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-End: 1\r\n\r\n".to_vec(),
        _ => tell(request),
    }
    })?;
    let evenkeel = proxy(&[origin.address()])?;

    let mut once = client(&evenkeel)?;
    let response = once.exchange("GET /once HTTP/1.0\r\nHost: a\r\n\r\n")?;
    assert_eq!(response.text(), "GET /once ");
    once.expect_close()?;

    let mut kept = client(&evenkeel)?;
    for n in 0..3 {
        let head = format!("GET /{n} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let response = kept.exchange(head)?;
        assert_eq!(response.text(), format!("GET /{n} "));
        ensure!(
            response.headers.has_token("connection", "keep-alive"),
            "{response}"
        );
    }
    let response =
        kept.exchange("GET /chunked HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")?;
    assert_eq!(response.header("transfer-encoding"), None, "{response}");
    assert_eq!(
        response.text(),
        "abcde",
        "de-chunked, and ended by the close"
    );
    Ok(())
}

#[test]
fn an_http_1_0_client_without_host_is_served_by_nginx() -> Outcome {
    if missing("nginx") {
        return Ok(());
    }
    let nginx = Nginx::start("one", "")?;
    let evenkeel = proxy(&[nginx.address()])?;
    let response = client(&evenkeel)?.exchange("GET / HTTP/1.0\r\n\r\n")?;
    assert_eq!(response.text(), "one\n", "{response}");
    Ok(())
}

#[test]
fn http_1_0_servers_are_read_to_their_close() -> Outcome {
    let origin = Origin::start(|conn| {
        let request = conn.read_request()?.expect("a request");
        let head = match request.target.as_str() {
            "/1.0" => "HTTP/1.0 200 OK\r\n\r\n",
            "/1.1" => "HTTP/1.1 200 OK\r\n\r\n",
            _ => "HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n",
        };
        conn.write(head)?;
        conn.write(noise(100_000))
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    for target in ["/1.0", "/1.1", "/length"] {
        let response = client(&evenkeel)?.get(target)?;
        ensure!(response.body == noise(100_000), "{target}: {response}");
    }
    Ok(())
}

#[test]
fn answers_without_a_body_end_with_their_head() -> Outcome {
    let origin = Origin::http(|request| {
        let head: &str = match request.target.as_str() {
            "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "/neither" => "HTTP/1.1 200 OK\r\n\r\n",
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
            _ => "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n",
        };
        head.into()
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut client = client(&evenkeel)?;
    let cases = [
        ("HEAD", "/length", 200, Some("5")),
        ("HEAD", "/chunked", 200, None),
        ("HEAD", "/neither", 200, None),
        ("GET", "/204", 204, None),
        ("HEAD", "/204", 204, None),
        ("GET", "/304", 304, Some("5")),
    ];
    for (method, target, status, length) in cases {
        let response = client.exchange(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"))?;
        assert_eq!(response.status, status, "{method} {target}");
        assert_eq!(
            response.header("content-length"),
            length,
            "{method} {target}"
        );
    }
    assert_eq!(origin.connections(), 1, "all over one connection");
    Ok(())
}

#[test]
fn trailers_pass_and_chunk_extensions_do_not() -> Outcome {
    const EXTENDED: &str = "5;a=b\r\nhello\r\n6 ; c=\"d\"\r\n world\r\n0;e\r\nX-Sum: 1\r\n\r\n";
    const PLAIN: &str = "5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n";
    let origin = Origin::start(|conn| {
        conn.read_head()?;
        let body = conn.read_exactly(PLAIN.len())?;
        ensure!(body == PLAIN.as_bytes(), "{}", body.escape_ascii());
        conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")?;
        conn.write(EXTENDED.replace(" ; ", ";"))
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let head =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    for piece in [1, 7, 1000] {
        let mut client = client(&evenkeel)?;
        let request = format!("{head}{}", EXTENDED.replace(" ; ", ";"));
        client.send_in_pieces(request, piece, std::time::Duration::from_micros(200))?;
        let all = String::from_utf8(client.read_to_end()?)?;
        ensure!(
            all.ends_with(&format!("\r\n\r\n{PLAIN}")),
            "pieces of {piece}: {all}"
        );
    }
    assert_eq!(origin.errors(), Vec::<String>::new());
    Ok(())
}

#[test]
fn large_bodies_pass_whole_both_ways() -> Outcome {
    let origin = Origin::http(|request| match request.target.as_str() {
        "/length" => reply(200, &request.body),
        _ => {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            [&head[..], &chunks(&request.body, 70_001, "")].concat()
        }
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let body = noise(5 * 1024 * 1024 + 7);
    let sized = [
        format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes(),
        body.clone(),
    ];
    let chunked = |size| {
        [
            b"Transfer-Encoding: chunked\r\n\r\n".to_vec(),
            chunks(&body, size, ""),
        ]
    };
    let mut client = client(&evenkeel)?;
    for (target, rest) in [
        ("/length", sized.clone()),
        ("/chunked", sized),
        ("/length", chunked(100_000)),
        ("/chunked", chunked(4_093)),
    ] {
        let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\n");
        let response =
            send_while_reading(&mut client, [head.into_bytes(), rest.concat()].concat())?;
        ensure_ok(&response)?;
        ensure!(
            response.body == body,
            "{target}: {} bytes came back",
            response.body.len()
        );
    }
    assert_eq!(origin.connections(), 1);
    Ok(())
}

fn send_while_reading(client: &mut Raw, bytes: Vec<u8>) -> anyhow::Result<testkit::Response> {
    let mut sender = client.stream().try_clone()?;
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut sender, &bytes));
    let response = client.response();
    sending.join().expect("the sender ends")?;
    response
}

#[test]
fn a_client_that_says_close_may_still_have_sent_more() -> Outcome {
    let origin = Origin::http(|_| reply(200, noise(300_000)))?;
    let evenkeel = proxy(&[origin.address()])?;
    for more in ["\r\n", "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"] {
        for _ in 0..10 {
            let mut client = client(&evenkeel)?;
            let close = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            client.send(format!("{close}{more}"))?;
            let response = client.response()?;
            ensure!(
                response.body == noise(300_000) && response.closes(),
                "{response}"
            );
            client.expect_close()?;
        }
    }
    assert_eq!(origin.requests(), 20);
    Ok(())
}

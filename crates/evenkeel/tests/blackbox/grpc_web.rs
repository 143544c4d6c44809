//! gRPC-Web, translated: what a browser sends and gets, and what the server behind it sees.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use testkit::{Evenkeel, Origin, Raw, Response, reply};

use crate::http_setup::{Outcome, chunks};
use crate::life_support::{SOON, connect, list, start, web};

const HELLO: &[u8] = b"\0\0\0\0\x05hello";
/// The frame of `grpc-status: 0` alone.
const ENDS: &[u8] = b"\x80\0\0\0\x10grpc-status: 0\r\n";

fn run(servers: &[SocketAddr]) -> Evenkeel {
    start(&format!(
        "workers: 1
listeners:
  web:
    bind: '127.0.0.1:0'
    routes:
      - match: {{ path: /bare/* }}
        filters: [grpc_web]
        pool: site
      - filters: [{{ grpc_web: {{}} }}, {{ set_response_header: {{ access-control-allow-origin: '*' }} }}]
        pool: site
pools:
  site: {{ servers: {}, health_check: off, outlier_detection: off }}
",
        list(servers)
    ))
}

fn call(content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /shop.Cart/Add HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nX-Grpc-Web: 1\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn grpc_answer(body: &[u8], trailers: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc+proto\r\nTransfer-Encoding: chunked\r\n\r\n";
    [head.as_bytes(), &chunks(body, 4, trailers)].concat()
}

/// Echoes messages as a server of gRPC does.
fn echo() -> anyhow::Result<Origin> {
    Origin::http(|request| grpc_answer(&request.body, "Grpc-Status: 0\r\n"))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at > group.len() { '=' } else { letter.into() });
        }
    }
    text
}

/// The other way round, each group of four for itself, as browsers' libraries do.
fn unbase64(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for group in text.chunks(4) {
        let value = |letter: u8| match letter {
            b'A'..=b'Z' => u32::from(letter - b'A'),
            b'a'..=b'z' => u32::from(letter - b'a') + 26,
            b'0'..=b'9' => u32::from(letter - b'0') + 52,
            b'+' => 62,
            b'/' => 63,
            _ => 0,
        };
        let bits = group.iter().fold(0, |bits, it| bits << 6 | value(*it));
        let padding = group.iter().filter(|it| **it == b'=').count();
        bytes.extend_from_slice(&bits.to_be_bytes()[1..4 - padding]);
    }
    bytes
}

#[track_caller]
fn assert_answer(response: &Response, content_type: &str, body: &[u8]) {
    assert_eq!(response.status, 200, "{response}");
    assert_eq!(response.header("content-type"), Some(content_type));
    let found = if content_type.contains("text") {
        unbase64(&response.body)
    } else {
        response.body.clone()
    };
    assert_eq!(found, body, "{response}");
    assert!(response.trailers.0.is_empty(), "{response}");
}

#[test]
fn binary_and_text_become_grpc_and_back() -> Outcome {
    let server = echo()?;
    let evenkeel = run(&[server.address()]);
    let mut client = connect(web(&evenkeel));
    let whole = [HELLO, ENDS].concat();
    for path in ["/shop.Cart/Add", "/bare/Add"] {
        let request = call("application/grpc-web+proto", HELLO);
        let request = String::from_utf8_lossy(&request).replace("/shop.Cart/Add", path);
        let response = client.exchange(request)?;
        assert_answer(&response, "application/grpc-web+proto", &whole);
    }
    let text = call("application/grpc-web-text", base64(HELLO).as_bytes());
    let response = client.exchange(&text)?;
    assert_answer(&response, "application/grpc-web-text+proto", &whole);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    // Nothing at all is a body too.
    let response = client.exchange(call("application/grpc-web-text", b""))?;
    assert_answer(&response, "application/grpc-web-text+proto", ENDS);
    let types = [
        "application/grpc+proto",
        "application/grpc+proto",
        "application/grpc",
    ];
    for (seen, content_type) in server.seen().iter().zip(types) {
        assert_eq!(seen.header("content-type"), Some(content_type));
        assert_eq!(seen.body, HELLO);
    }
    assert_eq!(server.connections(), 1, "its connection is used again");
    // Who speaks gRPC itself on the same route is left alone.
    let response = client.exchange(call("application/grpc", HELLO))?;
    assert_eq!(
        response.header("content-type"),
        Some("application/grpc+proto")
    );
    assert_eq!(response.trailers.get("grpc-status"), Some("0"));
    Ok(())
}

#[test]
fn text_may_be_cut_anywhere_and_is_judged() -> Outcome {
    let server = echo()?;
    let evenkeel = run(&[server.address()]);
    let long: Vec<u8> = (0..40_000_u32).map(|at| (at % 251) as u8).collect();
    let framed = [&b"\0\0\0\x9c\x40"[..], &long].concat();
    let text = base64(&framed);
    let mut client = connect(web(&evenkeel));
    let head = "POST /shop.Cart/Add HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web-text\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(head)?;
    for piece in chunks(text.as_bytes(), 1001, "").chunks(7777) {
        client.send(piece)?;
    }
    let response = client.response()?;
    let whole = [&framed[..], ENDS].concat();
    assert_answer(&response, "application/grpc-web-text+proto", &whole);
    assert_eq!(server.seen()[0].body, framed);
    for bad in ["AAA", "AAAA*AAA", "A"] {
        let mut client = connect(web(&evenkeel));
        let response = client.exchange(call("application/grpc-web-text", bad.as_bytes()))?;
        assert_eq!(response.header("grpc-status"), Some("13"), "{response}");
        assert_eq!(response.header("x-evenkeel-reason"), Some("bad_request"));
    }
    Ok(())
}

#[test]
fn text_that_comes_in_pieces_is_kept_for_another_try() -> Outcome {
    let busy = Origin::http(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 14\r\nContent-Length: 0\r\n\r\n".to_vec()
    })?;
    let server = echo()?;
    let evenkeel = start(&format!(
        "workers: 1
listeners: {{ web: {{ bind: '127.0.0.1:0', routes: [{{ filters: [grpc_web], pool: site }}] }} }}
pools:
  site: {{ servers: {}, balance: round_robin, health_check: off, outlier_detection: off, retries: {{ on: [unavailable] }} }}
",
        list(&[busy.address(), server.address()])
    ));
    let text = base64(HELLO);
    let whole = [HELLO, ENDS].concat();
    for cuts in [&[4][..], &[2, 8, 11], &[0]] {
        let busy_before = busy.requests();
        // One of two begins at the busy one.
        for _ in 0..2 {
            let mut client = connect(web(&evenkeel));
            let head = "POST /shop.Cart/Add HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web-text\r\nTransfer-Encoding: chunked\r\n\r\n";
            client.send(head)?;
            let mut at = 0;
            for cut in cuts.iter().copied().chain([text.len()]) {
                let piece = &text.as_bytes()[at..cut];
                if !piece.is_empty() {
                    // The head, and each piece, is read before the next one comes.
                    std::thread::sleep(std::time::Duration::from_millis(50));
                    client.send(
                        [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat(),
                    )?;
                }
                at = cut;
            }
            client.send("0\r\n\r\n")?;
            let response = client.response()?;
            assert_answer(&response, "application/grpc-web-text+proto", &whole);
        }
        assert_eq!(busy.requests(), busy_before + 1);
    }
    assert!(server.seen().iter().all(|seen| seen.body == HELLO));
    assert!(busy.seen().iter().all(|seen| seen.body == HELLO));
    Ok(())
}

#[test]
fn other_ends_of_a_call() -> Outcome {
    let server = Origin::http(|request| {
        match &*request.target {
        "/only" => b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 5\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/more" => grpc_answer(HELLO, "grpc-status: 13\r\ngrpc-message: no%20luck\r\nX-Own: 1\r\n"),
        _ => reply(502, "a page"),
    }
    })?;
    let evenkeel = run(&[server.address()]);
    let mut client = connect(web(&evenkeel));
    let mut ask = |path: &str| {
        let request = String::from_utf8_lossy(&call("application/grpc-web", HELLO)).into_owned();
        client.exchange(request.replace("/shop.Cart/Add", path))
    };
    let only = ask("/only")?;
    assert_answer(&only, "application/grpc-web", b"");
    assert_eq!(only.header("grpc-status"), Some("5"));
    let more = ask("/more")?;
    let trailers = "grpc-status: 13\r\ngrpc-message: no%20luck\r\nx-own: 1\r\n";
    let header = [0x80, 0, 0, 0, trailers.len() as u8];
    let whole = [HELLO, &header, trailers.as_bytes()].concat();
    assert_answer(&more, "application/grpc-web+proto", &whole);
    let page = ask("/page")?;
    assert_eq!((page.status, &*page.text()), (502, "a page"));
    Ok(())
}

/// Reads one chunk of an answer.
fn chunk(client: &mut Raw) -> Vec<u8> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(client.read_exactly(1).expect("a size"));
    }
    let size = String::from_utf8_lossy(&line);
    let size = usize::from_str_radix(size.trim(), 16).expect("a number");
    let mut data = client.read_exactly(size + 2).expect("a chunk");
    data.truncate(size);
    data
}

#[test]
fn a_stream_goes_on_as_it_comes() -> Outcome {
    for content_type in ["application/grpc-web", "application/grpc-web-text"] {
        let (go, gone) = mpsc::channel::<()>();
        let gone = Arc::new(Mutex::new(gone));
        let server = Origin::start(move |conn| {
            while let Some(_call) = conn.read_request()? {
                conn.write("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                for _ in 0..3 {
                    gone.lock().expect("a lock").recv_timeout(SOON)?;
                    conn.write([b"a\r\n", HELLO, b"\r\n"].concat())?;
                }
                gone.lock().expect("a lock").recv_timeout(SOON)?;
                conn.write("0\r\ngrpc-status: 0\r\n\r\n")?;
            }
            Ok(())
        })?;
        let evenkeel = run(&[server.address()]);
        let mut client = connect(web(&evenkeel));
        let is_text = content_type.ends_with("text");
        let body = if is_text {
            base64(HELLO).into_bytes()
        } else {
            HELLO.to_vec()
        };
        client.send(call(content_type, &body))?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(client.read_exactly(1)?);
        }
        for _ in 0..3 {
            go.send(())?;
            let piece = chunk(&mut client);
            let piece = if is_text { unbase64(&piece) } else { piece };
            assert_eq!(piece, HELLO, "each before the next one is sent");
        }
        go.send(())?;
        let last = chunk(&mut client);
        let last = if is_text { unbase64(&last) } else { last };
        assert_eq!(last, ENDS);
        assert_eq!(chunk(&mut client), b"");
    }
    Ok(())
}

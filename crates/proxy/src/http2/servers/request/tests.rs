//! What HTTP/1 says is what HTTP/2 says, and what belongs to one connection stays behind.

use super::*;

fn run(head: &str, secure: bool) -> Result<(String, Asked), String> {
    let bytes = head.replace('\n', "\r\n");
    let (asked, len) = translate(bytes.as_bytes(), secure, &mut RequestHead::default())?
        .ok_or("not there whole")?;
    assert_eq!(len, bytes.find("\r\n\r\n").map_or(0, |at| at + 4));
    let request = &asked.request;
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", value.to_str().unwrap_or("?")));
    }
    Ok((text, asked))
}

#[track_caller]
fn check(head: &str, secure: bool, expected: &str, body: Body) {
    let (text, asked) = run(head, secure).expect("it can be said");
    assert_eq!(text, expected);
    assert_eq!(asked.body, body);
}

#[test]
fn what_http1_says_is_said() {
    check(
        "GET /a?b=c HTTP/1.1\nHost: x.example:81\nAccept: a\nX-A: 1\nX-A: 2\n\n",
        false,
        "GET http://x.example:81/a?b=c\naccept: a\nx-a: 1\nx-a: 2\n",
        Body::None,
    );
    check(
        "POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello",
        true,
        "POST https://x/\ncontent-length: 5\n",
        Body::Length(5),
    );
    check(
        "PUT / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nTE: trailers, gzip\n\n",
        true,
        "PUT https://x/\nte: trailers\n",
        Body::Chunked,
    );
    check(
        "OPTIONS * HTTP/1.1\nHost: x\n\n",
        true,
        "OPTIONS https://x*\n",
        Body::None,
    );
    check(
        "GET / HTTP/1.0\nConnection: close\n\n",
        false,
        "GET /\n",
        Body::None,
    );
}

#[test]
fn what_belongs_to_one_connection_stays_behind() {
    check(
        "GET / HTTP/1.1\nHost: x\nConnection: keep-alive, x-hop\nKeep-Alive: 5\nX-Hop: 1\nProxy-Connection: y\nHTTP2-Settings: z\nTE: gzip\nX-End: 2\n\n",
        false,
        "GET http://x/\nx-end: 2\n",
        Body::None,
    );
}

#[test]
fn what_no_uri_holds_is_escaped() {
    check(
        "GET /a<b>^`?\\c HTTP/1.1\nHost: x\n\n",
        false,
        "GET http://x/a%3Cb%3E%5E%60?%5Cc\n",
        Body::None,
    );
}

#[test]
fn an_upgrade_is_an_extended_connect() {
    let head = "GET /chat HTTP/1.1\nHost: x\nConnection: upgrade\nUpgrade: WebSocket\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n";
    let (text, asked) = run(head, true).expect("it can be said");
    assert_eq!(text, "CONNECT https://x/chat\nsec-websocket-version: 13\n");
    let protocol = asked.request.extensions().get::<Protocol>();
    assert_eq!(protocol.map(Protocol::as_str), Some("websocket"));
    let upgrade = asked.upgrade.expect("one is asked for");
    assert_eq!(
        upgrade.accept.as_deref(),
        Some(&b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="[..])
    );
}

#[test]
fn a_head_that_is_not_whole_waits() {
    let bytes = b"GET / HTTP/1.1\r\nHost: x\r\n";
    let translated = translate(bytes, false, &mut RequestHead::default());
    assert!(matches!(translated, Ok(None)));
}

//! Responses as RFC 9112 §6.3 frames them, and what is refused.

use super::*;

fn told(input: &[u8], request: Method, limits: &HeadLimits) -> String {
    let mut head = ResponseHead::default();
    match decode_response(input, request, limits, &mut head) {
        Ok(Decoded::Incomplete) => "incomplete".to_owned(),
        Err(error) => format!("{error:?}"),
        Ok(Decoded::Complete(())) => {
            let text = |span: Span| String::from_utf8_lossy(span.of(input)).into_owned();
            let mut told = format!(
                "{} {} {:?} {}",
                head.status,
                text(head.reason),
                head.body,
                if head.keep_alive { "keep" } else { "close" },
            );
            if let Some(seconds) = head.keep_alive_timeout {
                told += &format!(" timeout={seconds}");
            }
            if let Some(upgrade) = head.upgrade {
                told += &format!(" upgrade={}", text(upgrade));
            }
            told
        }
    }
}

#[track_caller]
fn check(input: &str, expected: &str) {
    assert_eq!(
        told(input.as_bytes(), Method::Get, &HeadLimits::RESPONSE),
        expected,
        "{input:?}"
    );
}

/// A response `HTTP/1.1 status X` with these field lines.
#[track_caller]
fn check_body(request: Method, status: u16, fields: &str, expected: &str) {
    let input = format!("HTTP/1.1 {status} X\r\n{fields}\r\n\r\n");
    let told = told(input.as_bytes(), request, &HeadLimits::RESPONSE);
    assert_eq!(told, format!("{status} X {expected}"), "{input:?}");
}

#[test]
fn status_lines() {
    for (line, expected) in [
        ("HTTP/1.1 200 OK", "200 OK Length(0) keep"),
        ("HTTP/1.0 200 OK", "200 OK Length(0) close"),
        ("HTTP/1.1 200 ", "200  Length(0) keep"),
        ("HTTP/1.1 200", "200  Length(0) keep"),
        ("HTTP/1.1 404 Nöt Found", "404 Nöt Found Length(0) keep"),
        ("HTTP/1.1 999 X Y", "999 X Y Length(0) keep"),
        ("HTTP/1.1 099 X", "StatusLine"),
        ("HTTP/1.1 20 OK", "StatusLine"),
        ("HTTP/1.1 2000 OK", "StatusLine"),
        ("HTTP/1.1  200 OK", "StatusLine"),
        ("HTTP/1.1 200\tOK", "StatusLine"),
        ("HTTP/1.1 200 O\0K", "StatusLine"),
        ("HTTP/1.1 200 O\rK", "StatusLine"),
        ("HTTP/1.1\t200 OK", "Version"),
        ("HTTP/2.0 200 OK", "Version"),
        ("HTTP/1.2 200 OK", "Version"),
        ("http/1.1 200 OK", "Version"),
        ("ICY 200 OK", "Version"),
        (" HTTP/1.1 200 OK", "Version"),
        ("\r\nHTTP/1.1 200 OK", "Version"),
        ("HTTP/1.1 200 OK\n", "Head(LineEnd)"),
    ] {
        check(&format!("{line}\r\nContent-Length: 0\r\n\r\n"), expected);
    }
    check("HTTP/1.1 200 OK\nA: b\n\n", "Head(LineEnd)");
    check("", "incomplete");
    check("H", "incomplete");
    check("HTTX", "Version");
    check("HTTP/1.1 200 OK\r\nA : b", "Head(FieldName)");
}

#[test]
fn faults_in_fields() {
    for (fields, expected) in [
        ("A: b\r\n c", "Head(FieldName)"),
        ("A : b", "Head(FieldName)"),
        ("A: b\0", "Head(FieldValue)"),
        ("A: b\nC: d", "Head(LineEnd)"),
        ("A: b\rC: d", "Head(FieldValue)"),
        (
            "Content-Length: 5\r\nContent-Length: 5",
            "Head(ManyLengths)",
        ),
        (
            "Content-Length: 5\r\nContent-Length: 6",
            "Head(ManyLengths)",
        ),
        ("Content-Length: 5, 5", "Head(BadLength)"),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Head(LengthAndCoding)",
        ),
        ("Transfer-Encoding: gzip", "Head(UnknownCoding)"),
        ("Transfer-Encoding: gzip, chunked", "Head(UnknownCoding)"),
        ("Transfer-Encoding: chunked, gzip", "Head(BadCoding)"),
        ("Content_Length: 5", "Head(FramingLookAlike)"),
    ] {
        check(&format!("HTTP/1.1 200 X\r\n{fields}\r\n\r\n"), expected);
        let head = told(
            format!("HTTP/1.1 304 X\r\n{fields}\r\n\r\n").as_bytes(),
            Method::Head,
            &HeadLimits::RESPONSE,
        );
        assert_eq!(head, expected, "no body is no excuse: {fields:?}");
    }
    check(
        "HTTP/1.0 200 X\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Head(CodingInHttp10)",
    );
}

#[test]
fn bodies() {
    use Method::{Get, Head};
    let (length, chunked) = ("Content-Length: 5", "Transfer-Encoding: chunked");
    for (request, status, fields, expected) in [
        (Get, 200, length, "Length(5) keep"),
        (Get, 200, chunked, "Chunked keep"),
        (Get, 200, "A: b", "UntilClose close"),
        (Get, 200, "Connection: keep-alive", "UntilClose close"),
        (Get, 205, "Content-Length: 0", "Length(0) keep"),
        (Get, 205, "A: b", "UntilClose close"),
        (Get, 500, "A: b", "UntilClose close"),
        (Head, 200, length, "None keep"),
        (Head, 200, chunked, "None keep"),
        (Head, 200, "A: b", "None keep"),
        (Get, 304, length, "None keep"),
        (Get, 304, "A: b", "None keep"),
        (Get, 204, "A: b", "None keep"),
        (Get, 204, "Content-Length: 0", "None keep"),
        (Get, 204, length, "None close"),
        (Get, 204, chunked, "None close"),
        (Get, 100, "A: b", "None keep"),
        (Get, 103, "Link: </a>", "None keep"),
        (Get, 103, length, "None close"),
    ] {
        check_body(request, status, fields, expected);
    }
}

#[test]
fn persistence() {
    for (fields, expected) in [
        ("Connection: close", "Length(1) close"),
        ("Connection: keep-alive, close", "Length(1) close"),
        ("Connection: keep-alive", "Length(1) keep"),
        ("Proxy-Connection: close", "Length(1) keep"),
        ("Keep-Alive: timeout=5", "Length(1) keep timeout=5"),
        ("Keep-Alive: max=9, Timeout=7", "Length(1) keep timeout=7"),
        ("Keep-Alive: timeout=x", "Length(1) keep"),
        ("Keep-Alive: timeout=99999999999", "Length(1) keep"),
    ] {
        let fields = format!("Content-Length: 1\r\n{fields}");
        check_body(Method::Get, 200, &fields, expected);
    }
    check(
        "HTTP/1.0 200 X\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n",
        "200 X Length(1) keep",
    );
    check_body(
        Method::Get,
        101,
        "Connection: Upgrade\r\nUpgrade: websocket",
        "None keep upgrade=websocket",
    );
}

#[test]
fn limits() {
    let limits = HeadLimits {
        head_bytes: 40,
        headers: 1,
        uri_bytes: 0,
    };
    for (input, expected) in [
        ("HTTP/1.1 204 X\r\nA: b\r\n\r\n", "204 X None keep"),
        (
            "HTTP/1.1 204 X\r\nA: b\r\nC: d\r\n\r\n",
            "Head(TooManyFields)",
        ),
        (
            "HTTP/1.1 204 X\r\nA: bbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n\r\n",
            "Head(TooLarge)",
        ),
        (
            "HTTP/1.1 204 X\r\nA: bbbbbbbbbbbbbbbbbbbbb",
            "Head(TooLarge)",
        ),
        ("HTTP/1.1 204 X\r\nA: bbbbbbbbbbbbbbbbbbb", "incomplete"),
    ] {
        assert_eq!(
            told(input.as_bytes(), Method::Get, &limits),
            expected,
            "{input:?}"
        );
    }
}

//! Requests as RFC 9110 and RFC 9112 tell them, and what is refused.

use super::*;

/// `METHOD target version body persistence …`, or the status and the error.
fn told(input: &[u8], limits: &HeadLimits) -> String {
    let mut head = RequestHead::default();
    match decode_request(input, limits, &mut head) {
        Ok(Decoded::Incomplete) => "incomplete".to_owned(),
        Err(error) => format!("{} {error:?}", error.status()),
        Ok(Decoded::Complete(())) => {
            let text = |span: Span| String::from_utf8_lossy(span.of(input)).into_owned();
            let mut told = format!(
                "{} {} {} {:?} {}",
                text(head.method_text),
                text(head.target),
                if head.version == Version::Http10 {
                    "1.0"
                } else {
                    "1.1"
                },
                head.body,
                if head.keep_alive { "keep" } else { "close" },
            );
            if head.expect_continue {
                told += " expects";
            }
            if let Some(upgrade) = head.upgrade {
                told += &format!(" upgrade={}", text(upgrade));
            }
            if head.connection_names {
                told += " names";
            }
            told
        }
    }
}

#[track_caller]
fn check(input: &str, expected: &str) {
    assert_eq!(
        told(input.as_bytes(), &HeadLimits::REQUEST),
        expected,
        "{input:?}"
    );
}

/// The same, for field lines of a request that is otherwise plain.
#[track_caller]
fn check_fields(fields: &str, expected: &str) {
    check(
        &format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"),
        expected,
    );
}

#[track_caller]
fn check_http10(fields: &str, expected: &str) {
    check(&format!("POST / HTTP/1.0\r\n{fields}\r\n\r\n"), expected);
}

#[track_caller]
fn check_host(target: &str, host: &str, expected: &str) {
    check(
        &format!("GET {target} HTTP/1.1\r\nHost:{host}\r\n\r\n"),
        expected,
    );
}

#[test]
fn request_lines() {
    for (line, expected) in [
        ("GET / HTTP/1.1", "GET / 1.1 None keep"),
        ("GET / HTTP/1.0", "GET / 1.0 None close"),
        ("get / HTTP/1.1", "get / 1.1 None keep"),
        ("M-SEARCH * HTTP/1.1", "M-SEARCH * 1.1 None keep"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * 1.1 None keep"),
        ("CONNECT a:443 HTTP/1.1", "CONNECT a:443 1.1 None keep"),
        (
            "GET http://b/c?d HTTP/1.1",
            "GET http://b/c?d 1.1 None keep",
        ),
        (
            "GET /a|b?{c}^[d] HTTP/1.1",
            "GET /a|b?{c}^[d] 1.1 None keep",
        ),
        ("GET / HTTP/2.0", "505 Version"),
        ("PRI * HTTP/2.0", "505 Version"),
        ("GET / HTTP/1.2", "505 Version"),
        ("GET / HTTP/0.9", "505 Version"),
        ("GET / HTTP/1.10", "400 Head(LineEnd)"),
        ("GET / HTTP/11", "400 RequestLine"),
        ("GET / http/1.1", "400 RequestLine"),
        ("GET / HTTPS/1.1", "400 RequestLine"),
        ("GET / HTTP/1.1 ", "400 Head(LineEnd)"),
        ("GET / HTTP/1.1 HTTP/1.1", "400 Head(LineEnd)"),
        ("GET /", "400 RequestLine"),
        ("GET", "400 RequestLine"),
        ("GET  / HTTP/1.1", "400 RequestLine"),
        ("GET /  HTTP/1.1", "400 RequestLine"),
        (" GET / HTTP/1.1", "400 RequestLine"),
        ("GET\t/ HTTP/1.1", "400 RequestLine"),
        ("GET /\tHTTP/1.1", "400 RequestLine"),
        ("G@T / HTTP/1.1", "400 RequestLine"),
        ("GET: / HTTP/1.1", "400 RequestLine"),
        ("GET\0 / HTTP/1.1", "400 RequestLine"),
        ("GET /a b HTTP/1.1", "400 RequestLine"),
        ("GET /\0 HTTP/1.1", "400 RequestLine"),
        ("GET /\x7f HTTP/1.1", "400 RequestLine"),
        ("GET /a#b HTTP/1.1", "400 Target"),
        ("GET /ä HTTP/1.1", "400 Target"),
        ("GET /\rX HTTP/1.1", "400 RequestLine"),
        ("GET / HTTP/1.1\rX", "400 Head(LineEnd)"),
        ("\r\nGET / HTTP/1.1", "GET / 1.1 None keep"),
        ("\r\n\r\nGET / HTTP/1.1", "400 RequestLine"),
        ("\nGET / HTTP/1.1", "400 Head(LineEnd)"),
        ("\rGET / HTTP/1.1", "400 Head(LineEnd)"),
        ("", "400 RequestLine"),
    ] {
        check(&format!("{line}\r\nHost: a\r\n\r\n"), expected);
    }
}

#[test]
fn line_ends() {
    check("GET / HTTP/1.1\nHost: a\r\n\r\n", "400 Head(LineEnd)");
    check("GET / HTTP/1.1\r\nHost: a\n\r\n", "400 Head(LineEnd)");
    check("GET / HTTP/1.1\r\nHost: a\r\n\n", "400 Head(LineEnd)");
    check("GET / HTTP/1.1\r\nHost: a\n\n", "400 Head(LineEnd)");
    check("GET / HTTP/1.1\r\nHost: a\r\n\rX", "400 Head(LineEnd)");
    check_fields("A: b\rC: d", "400 Head(FieldValue)");
    check_fields("A: b\nC: d", "400 Head(LineEnd)");
    check_fields("A: b\r\r\nC: d", "400 Head(FieldValue)");
    check_fields("A:\r b", "400 Head(FieldValue)");
}

#[test]
fn field_lines() {
    for (fields, expected) in [
        ("A:b", "POST / 1.1 None keep"),
        ("A: \t b \t ", "POST / 1.1 None keep"),
        ("A:", "POST / 1.1 None keep"),
        ("A: \t", "POST / 1.1 None keep"),
        ("A: b\tc, ä", "POST / 1.1 None keep"),
        ("!#$%&'*+-.^_`|~09azAZ: b", "POST / 1.1 None keep"),
        ("A : b", "400 Head(FieldName)"),
        ("A\t: b", "400 Head(FieldName)"),
        (" A: b", "400 Head(FieldName)"),
        ("A: b\r\n c", "400 Head(FieldName)"),
        ("A: b\r\n\tc", "400 Head(FieldName)"),
        ("A: b\r\n ", "400 Head(FieldName)"),
        (": b", "400 Head(FieldName)"),
        ("A", "400 Head(FieldName)"),
        ("A\0: b", "400 Head(FieldName)"),
        ("Ä: b", "400 Head(FieldName)"),
        ("A(: b", "400 Head(FieldName)"),
    ] {
        check_fields(fields, expected);
    }
}

#[test]
fn a_blank_before_the_first_field_is_refused() {
    check("GET / HTTP/1.1\r\n Host: a\r\n\r\n", "400 Head(FieldName)");
}

#[test]
fn every_control_byte_in_a_value_is_refused_wherever_it_stands() {
    for byte in (0..0x20_u8).chain([0x7f]).filter(|&b| b != b'\t') {
        for (before, after) in [(0, 0), (0, 5), (5, 0), (7, 40), (40, 7), (100, 100)] {
            let mut input = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
            input.extend(std::iter::repeat_n(b'v', before));
            input.push(byte);
            input.extend(std::iter::repeat_n(b'v', after));
            input.extend(b"\r\n\r\n");
            let told = told(&input, &HeadLimits::REQUEST);
            assert!(told.starts_with("400 "), "byte {byte}: {told}");
        }
    }
}

#[test]
fn lengths() {
    for (fields, expected) in [
        ("Content-Length: 0", "POST / 1.1 Length(0) keep"),
        ("Content-Length: 5", "POST / 1.1 Length(5) keep"),
        ("content-LENGTH:\t5 ", "POST / 1.1 Length(5) keep"),
        ("Content-Length: 005", "POST / 1.1 Length(5) keep"),
        (
            "Content-Length: 18446744073709551615",
            "POST / 1.1 Length(18446744073709551615) keep",
        ),
        (
            "Content-Length: 18446744073709551616",
            "400 Head(BadLength)",
        ),
        (
            "Content-Length: 99999999999999999999",
            "400 Head(BadLength)",
        ),
        ("Content-Length:", "400 Head(BadLength)"),
        ("Content-Length: +5", "400 Head(BadLength)"),
        ("Content-Length: -5", "400 Head(BadLength)"),
        ("Content-Length: 0x5", "400 Head(BadLength)"),
        ("Content-Length: 5 5", "400 Head(BadLength)"),
        ("Content-Length: 5.0", "400 Head(BadLength)"),
        ("Content-Length: 5,", "400 Head(BadLength)"),
        ("Content-Length: 5, 5", "400 Head(BadLength)"),
        ("Content-Length: \"5\"", "400 Head(BadLength)"),
        ("Content-Length: ٥", "400 Head(BadLength)"),
        (
            "Content-Length: 5\r\nContent-Length: 5",
            "400 Head(ManyLengths)",
        ),
        (
            "Content-Length: 5\r\nA: b\r\ncontent-length: 6",
            "400 Head(ManyLengths)",
        ),
    ] {
        check_fields(fields, expected);
    }
    check_http10("Content-Length: 5", "POST / 1.0 Length(5) close");
}

#[test]
fn transfer_codings() {
    for (fields, expected) in [
        ("Transfer-Encoding: chunked", "POST / 1.1 Chunked keep"),
        ("TRANSFER-ENCODING: \tChUnKeD\t", "POST / 1.1 Chunked keep"),
        ("Transfer-Encoding: gzip", "501 Head(UnknownCoding)"),
        ("Transfer-Encoding: xchunked", "501 Head(UnknownCoding)"),
        ("Transfer-Encoding: identity", "501 Head(UnknownCoding)"),
        (
            "Transfer-Encoding: gzip, chunked",
            "501 Head(UnknownCoding)",
        ),
        ("Transfer-Encoding: chunked, gzip", "400 Head(BadCoding)"),
        ("Transfer-Encoding: chunked, chunked", "400 Head(BadCoding)"),
        ("Transfer-Encoding: gzip, deflate", "400 Head(BadCoding)"),
        ("Transfer-Encoding: chunked,", "400 Head(BadCoding)"),
        ("Transfer-Encoding: , chunked", "400 Head(BadCoding)"),
        ("Transfer-Encoding: chunked;a=b", "400 Head(BadCoding)"),
        ("Transfer-Encoding: \"chunked\"", "400 Head(BadCoding)"),
        ("Transfer-Encoding: chunked chunked", "400 Head(BadCoding)"),
        ("Transfer-Encoding:", "400 Head(BadCoding)"),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "400 Head(BadCoding)",
        ),
        (
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            "400 Head(BadCoding)",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "400 Head(LengthAndCoding)",
        ),
        (
            "Content-Length: 5\r\nTransfer-Encoding: gzip",
            "400 Head(LengthAndCoding)",
        ),
        ("Transfer_Encoding: chunked", "400 Head(FramingLookAlike)"),
        ("-Transfer-Encoding: chunked", "400 Head(FramingLookAlike)"),
        ("transferencoding: x", "400 Head(FramingLookAlike)"),
        ("Content--Length: 5", "400 Head(FramingLookAlike)"),
        ("CONTENT_LENGTH: 5", "400 Head(FramingLookAlike)"),
        ("X-Content-Length: 5", "POST / 1.1 None keep"),
        ("Content-Lengths: 5", "POST / 1.1 None keep"),
    ] {
        check_fields(fields, expected);
    }
    check_http10("Transfer-Encoding: chunked", "400 Head(CodingInHttp10)");
    check_http10("Transfer-Encoding: gzip", "400 Head(CodingInHttp10)");
}

#[test]
fn hosts() {
    let ok = "GET / 1.1 None keep";
    for (host, expected) in [
        (" a", ok),
        (" A.example.:80", ok),
        (" a_b~c%20", ok),
        (" 127.0.0.1:8080", ok),
        (" [::1]", ok),
        (" [::ffff:1.2.3.4]:443", ok),
        (" a:", ok),
        ("", "400 BadHost"),
        (" :80", "400 BadHost"),
        (" a b", "400 BadHost"),
        (" a/b", "400 BadHost"),
        (" a?b", "400 BadHost"),
        (" a#b", "400 BadHost"),
        (" u@a", "400 BadHost"),
        (" a\\b", "400 BadHost"),
        (" ä", "400 BadHost"),
        (" a:b", "400 BadHost"),
        (" a:80:80", "400 BadHost"),
        (" a:123456", "400 BadHost"),
        (" http://a", "400 BadHost"),
        (" ::1", "400 BadHost"),
        (" []", "400 BadHost"),
        (" [::1", "400 BadHost"),
        (" [::1]a", "400 BadHost"),
        (" [a]", "400 BadHost"),
        (" [fe80::1%25lo]", "400 BadHost"),
        (" a\r\nHost: a", "400 ManyHosts"),
    ] {
        check_host("/", host, expected);
    }
    check_host("*", "", "GET * 1.1 None keep");
    check_host("http://a/", "", "GET http://a/ 1.1 None keep");
    check("GET / HTTP/1.1\r\n\r\n", "400 NoHost");
    check("GET http://a/ HTTP/1.1\r\n\r\n", "400 NoHost");
    check("GET / HTTP/1.0\r\n\r\n", "GET / 1.0 None close");
    check(
        "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        "400 ManyHosts",
    );
}

#[test]
fn persistence() {
    for (fields, expected) in [
        ("Connection: close", "POST / 1.1 None close"),
        ("Connection: Close, keep-alive", "POST / 1.1 None close"),
        ("Connection: keep-alive,close", "POST / 1.1 None close"),
        (
            "Connection: keep-alive\r\nConnection: close",
            "POST / 1.1 None close",
        ),
        ("Connection: keep-alive", "POST / 1.1 None keep"),
        ("Connection: , ,", "POST / 1.1 None keep"),
        ("Connection: closed", "POST / 1.1 None keep names"),
        ("Connection: close, X-Foo", "POST / 1.1 None close names"),
        ("Connection: TE, Content-Length", "POST / 1.1 None keep"),
        ("Proxy-Connection: close", "POST / 1.1 None keep"),
    ] {
        check_fields(fields, expected);
    }
    for (fields, expected) in [
        ("Connection: Keep-Alive", "POST / 1.0 None keep"),
        ("Connection: keep-alive, close", "POST / 1.0 None close"),
        ("Proxy-Connection: keep-alive", "POST / 1.0 None close"),
        ("Keep-Alive: timeout=5", "POST / 1.0 None close"),
    ] {
        check_http10(fields, expected);
    }
}

#[test]
fn expectations_and_upgrades() {
    let upgrade = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade";
    check_fields("Expect: 100-Continue", "POST / 1.1 None keep expects");
    check_fields("Expect: 200-ok", "POST / 1.1 None keep");
    check_http10("Expect: 100-continue", "POST / 1.0 None close");
    check_fields(upgrade, "POST / 1.1 None keep upgrade=websocket");
    check_http10(upgrade, "POST / 1.0 None keep");
    check_fields("Upgrade: websocket", "POST / 1.1 None keep");
    check_fields("Connection: upgrade", "POST / 1.1 None keep");
    check_fields(
        "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b",
        "POST / 1.1 None keep",
    );
}

#[test]
fn limits() {
    let limits = HeadLimits {
        head_bytes: 64,
        headers: 2,
        uri_bytes: 10,
    };
    let check = |input: &str, expected: &str| {
        assert_eq!(told(input.as_bytes(), &limits), expected, "{input:?}");
    };
    check(
        "GET /123456789 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /123456789 1.1 None keep",
    );
    check(
        "GET /1234567890 HTTP/1.1\r\nHost: a\r\n\r\n",
        "414 UriTooLong",
    );
    check("GET /1234567890", "414 UriTooLong");
    check("GET /123456789", "incomplete");
    check(&format!("GET /{}", "a".repeat(100)), "414 UriTooLong");
    check(
        "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\nD: e\r\n\r\n",
        "431 Head(TooManyFields)",
    );
    check(
        "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\nD: e\r\nE",
        "431 Head(TooManyFields)",
    );
    let of_length = |len: usize| {
        let rest = "GET / HTTP/1.1\r\nHost: a\r\nB: \r\n\r\n".len();
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nB: {}\r\n\r\n",
            "c".repeat(len - rest)
        )
    };
    check(&of_length(64), "GET / 1.1 None keep");
    check(&of_length(65), "431 Head(TooLarge)");
    check(&of_length(65)[..64], "431 Head(TooLarge)");
    check(&of_length(64)[..63], "incomplete");
}

#[test]
fn more_fields_than_fit_on_the_stack() {
    let fields = "A: b\r\n".repeat(300);
    let limits = HeadLimits {
        headers: 301,
        ..HeadLimits::REQUEST
    };
    let input = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let mut head = RequestHead::default();
    assert_eq!(
        decode_request(input.as_bytes(), &limits, &mut head),
        Ok(Decoded::Complete(()))
    );
    assert_eq!(head.fields.len(), 301);
    assert_eq!(head.len, input.len());
}

#[test]
fn faults_are_told_before_the_head_is_complete() {
    for (input, expected) in [
        ("\x16\x03\x01\x02\x00\x01\x00", "400 RequestLine"),
        ("GET / HTTP/2.0\r\n", "505 Version"),
        ("GET / HTTP/2", "incomplete"),
        ("GET / HTTP/1.1\r\nHost : a", "400 Head(FieldName)"),
        ("GET / HTTP/1.1\r\nHost: a\n", "400 Head(LineEnd)"),
        ("\r\n\r\n", "400 RequestLine"),
        ("", "incomplete"),
        ("\r", "incomplete"),
        ("\r\n", "incomplete"),
    ] {
        check(input, expected);
    }
}

#[test]
fn fields_are_offsets_into_the_buffer() {
    let input = b"\r\nPUT /x HTTP/1.1\r\nHost:  h:1 \r\nX-One:\r\nCookie: a=b\r\n\r\nBODY";
    let mut head = RequestHead::default();
    decode_request(input, &HeadLimits::REQUEST, &mut head).unwrap();
    assert_eq!(head.method, Method::Put);
    assert_eq!(&input[head.len..], b"BODY");
    let fields: Vec<_> = head
        .fields
        .iter()
        .map(|f| (f.name.of(input), f.value.of(input)))
        .collect();
    let expected: [(&[u8], &[u8]); 3] = [(b"Host", b"h:1"), (b"X-One", b""), (b"Cookie", b"a=b")];
    assert_eq!(fields, expected);
    assert_eq!(head.host.map(|host| host.of(input)), Some(&b"h:1"[..]));
    assert_eq!(
        head.present,
        KnownSet::of(&[super::super::Known::Host, super::super::Known::Cookie])
    );
}

#[test]
fn a_recycled_head_forgets_what_it_held() {
    let mut head = RequestHead::default();
    let full = b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: upgrade, x\r\n\
        Upgrade: b\r\nTransfer-Encoding: chunked\r\n\r\n";
    decode_request(full, &HeadLimits::REQUEST, &mut head).unwrap();
    let plain = b"GET / HTTP/1.0\r\n\r\n";
    decode_request(plain, &HeadLimits::REQUEST, &mut head).unwrap();
    let mut fresh = RequestHead::default();
    decode_request(plain, &HeadLimits::REQUEST, &mut fresh).unwrap();
    assert_eq!(head, fresh);
}

#[test]
fn only_unknown_names_can_be_given_away_by_connection() {
    let input = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Foo\r\n\
        Connection: host , cookie\r\n\r\n";
    let mut head = RequestHead::default();
    decode_request(input, &HeadLimits::REQUEST, &mut head).unwrap();
    let named = |name| super::super::named_by_connection(&head.fields, input, name);
    assert!(named(b"x-foo"));
    assert!(!named(b"x-fo"));
    assert!(!named(b"host"));
    assert!(!named(b"cookie"));
}

//! The guards as tables: a request in one line, and the status that it is refused with.

use super::*;

const LOOPBACK: &str = "127.0.0.1:9900";
const WIDE: &str = "0.0.0.0:9900";

/// Judges a request given as `METHOD TARGET` and header lines; 0 is let pass.
fn status(bind: &str, token: Option<&str>, text: &str) -> u16 {
    let guard = Guard::new(bind.parse().unwrap(), token.map(str::to_owned));
    let mut lines = text.split('|').map(str::trim);
    let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        request = request.header(name, value.trim());
    }
    let request = request.body(()).unwrap();
    guard
        .judge(&request)
        .err()
        .map_or(0, |refused| refused.status)
}

#[track_caller]
fn check(bind: &str, cases: &[(&str, u16)]) {
    for (text, expected) in cases {
        assert_eq!(
            status(bind, Some("s3cret"), text),
            *expected,
            "{text} at {bind}"
        );
    }
}

#[test]
fn on_loopback_the_host_gives_a_rebound_name_away() {
    check(
        LOOPBACK,
        &[
            ("GET /metrics | host: 127.0.0.1:9900", 0),
            ("GET /metrics | host: 127.0.0.1", 0),
            ("GET /metrics | host: LocalHost:9900", 0),
            ("GET /metrics | host: localhost", 0),
            ("GET /metrics | host: [::1]:9900", 0),
            ("GET /metrics | host: 127.9.9.9", 0),
            ("GET /metrics | host: localhost:1234", 0),
            ("GET /metrics | host: evil.example:9900", 403),
            ("GET /metrics | host: localhost.evil.example", 403),
            ("GET /metrics | host: 10.0.0.1:9900", 403),
            ("GET /metrics | host: ", 403),
            ("GET /metrics", 403),
            ("GET /metrics | host: localhost | host: localhost", 400),
            ("GET http://evil.example/metrics | host: localhost", 403),
            ("GET http://localhost:9900/metrics | host: evil.example", 0),
            ("GET /livez | host: evil.example", 0),
            ("GET /health", 0),
        ],
    );
    check(
        "[::1]:9900",
        &[("GET / | host: localhost", 0), ("GET / | host: evil", 403)],
    );
    check("[::ffff:127.0.0.1]:9900", &[("GET / | host: 127.0.0.1", 0)]);
}

#[test]
fn a_write_needs_its_content_type_and_no_foreign_origin() {
    let json = "content-type: application/json";
    for (rest, expected) in [
        (json, 0),
        ("content-type: Application/JSON; charset=utf-8", 0),
        ("accept: */*", 415),
        ("content-type: text/plain", 415),
        ("content-type: application/jsonp", 415),
        (
            "content-type: application/json | content-type: text/plain",
            400,
        ),
        (
            "content-type: application/json | origin: http://localhost:9900",
            0,
        ),
        (
            "content-type: application/json | origin: https://localhost:9900",
            0,
        ),
        (
            "content-type: application/json | origin: http://localhost:3000",
            403,
        ),
        (
            "content-type: application/json | origin: http://evil.example",
            403,
        ),
        ("content-type: application/json | origin: null", 403),
        (
            "content-type: text/plain | origin: http://evil.example",
            403,
        ),
    ] {
        for method in ["POST", "PATCH", "DELETE", "OPTIONS"] {
            let text = format!("{method} /api/v1/reload | host: localhost:9900 | {rest}");
            check(LOOPBACK, &[(&text, expected)]);
        }
    }
    check(
        LOOPBACK,
        &[(
            "POST /api/v1/reload | host: evil.example | content-type: application/json",
            403,
        )],
    );
}

#[test]
fn away_from_loopback_the_token_is_asked_for() {
    check(
        WIDE,
        &[
            ("GET /livez", 0),
            ("GET /health | host: lb.example", 0),
            ("GET /metrics | host: 127.0.0.1:9900", 401),
            ("GET / | host: lb.example | authorization: Bearer s3cret", 0),
            ("GET / | host: lb.example | authorization: bearer s3cret", 0),
            (
                "GET / | host: lb.example | authorization: Bearer s3cre",
                401,
            ),
            (
                "GET / | host: lb.example | authorization: Bearer s3crets3cret",
                401,
            ),
            ("GET / | host: lb.example | authorization: Bearer ", 401),
            (
                "GET / | host: lb.example | authorization: Basic s3cret",
                401,
            ),
            ("GET /livez/ | host: lb.example", 401),
            ("GET /livez/../metrics | host: lb.example", 401),
            (
                "POST /api/v1/reload | host: x | authorization: Bearer s3cret",
                415,
            ),
            (
                "POST /api/v1/reload | host: x | authorization: Bearer s3cret | content-type: application/json",
                0,
            ),
            (
                "GET / | host: x | authorization: Bearer s3cret | origin: http://evil.example",
                403,
            ),
        ],
    );
    for none in [None, Some("")] {
        let text = "GET /metrics | host: lb.example | authorization: Bearer ";
        assert_eq!(status(WIDE, none, text), 401);
        assert_eq!(status(WIDE, none, "GET /health"), 0);
    }
}

//! Which version of HTTP a pool's servers speak.

use std::time::Duration;

use super::Given;
use crate::{Http2, ServerHttp};

fn pool(keys: &str) -> Given {
    Given::main(&format!(
        "listeners: {{ l: {{ bind: \":1\", pool: p }} }}\npools: {{ p: {{ servers: [10.0.0.1:1],\n {keys}\n }} }}\n"
    ))
}

fn compiled(keys: &str) -> crate::Pool {
    let given = pool(keys);
    let snapshot = given.load().snapshot;
    let snapshot = snapshot.unwrap_or_else(|| panic!("{:?}", given.found()));
    snapshot.pools[0].clone()
}

const STANDARD: Http2 = Http2 {
    streams: 128,
    ping_after: Some(Duration::from_secs(10)),
    ping_timeout: Duration::from_secs(5),
    auto: false,
};

#[test]
fn one_unless_two_is_written() {
    for keys in ["", "http: 1", "http: { version: 1 }"] {
        assert_eq!(compiled(keys).http2, None, "{keys}");
    }
    for keys in ["http: 2", "http: { version: 2 }"] {
        assert_eq!(compiled(keys).http2, Some(STANDARD), "{keys}");
    }
    let long = "http: { version: 2, streams: 7, ping_after: off, ping_timeout: 1s }";
    let expected = Http2 {
        streams: 7,
        ping_after: None,
        ping_timeout: Duration::from_secs(1),
        auto: false,
    };
    assert_eq!(compiled(long).http2, Some(expected));
    for (keys, streams) in [
        ("tls: on, http: auto", 128),
        ("tls: on, http: { version: auto, streams: 7 }", 7),
    ] {
        let expected = Http2 {
            streams,
            auto: true,
            ..STANDARD
        };
        assert_eq!(compiled(keys).http2, Some(expected), "{keys}");
    }
}

#[test]
fn probes_and_tls_know_of_it() {
    for (keys, expected) in [
        ("tls: on", ServerHttp::Http1),
        ("tls: on, http: 2", ServerHttp::Http2),
        ("tls: on, http: auto", ServerHttp::Auto),
    ] {
        let pool = compiled(keys);
        assert_eq!(pool.tls.as_ref().map(|tls| tls.http), Some(expected));
        assert_eq!(pool.health_check.map(|check| check.http), Some(expected));
    }
}

#[test]
fn mistakes_have_their_place() {
    for (keys, expected) in [
        (
            "http: 3",
            "3:8: error[type]: expected the HTTP version `1`, `2` or `auto`, or a map, found a number",
        ),
        (
            "http: two",
            "3:8: error[type]: expected the HTTP version `1`, `2` or `auto`, or a map, found the text `two`",
        ),
        (
            "http: { version: 3 }",
            "3:19: error[type]: expected the HTTP version `1`, `2` or `auto`, found a number",
        ),
        (
            "http: auto",
            "3:8: error[conflict]: with `auto` servers choose their version in the TLS handshake (ALPN), and this pool has no `tls`: write `http: 1` or `http: 2`",
        ),
        (
            "tls: off, http: { version: auto }",
            "3:12: error[conflict]: with `auto` servers choose their version in the TLS handshake (ALPN), and this pool has no `tls`: write `http: 1` or `http: 2`",
        ),
        (
            "http: { streams: 7 }",
            "3:8: error[missing]: `pool http` lacks `version`",
        ),
        (
            "http: { version: 2, stream: 7 }",
            "3:22: error[unknown_key]: unknown key `stream` in `pool http` (did you mean `streams`?)",
        ),
        (
            "http: { version: 2, streams: 0 }",
            "3:31: error[value]: expected a whole number from 1 to 10000",
        ),
        (
            "http: { version: 1, streams: 7 }",
            "3:22: error[conflict]: `streams` is only for `version: 2` and `version: auto`",
        ),
        (
            "http: { version: 2, ping_after: 5 }",
            "3:34: error[type]: `5` lacks its unit (write `5s` if that is meant)",
        ),
    ] {
        let found = pool(keys).found();
        let errors: Vec<_> = found
            .iter()
            .filter(|line| line.contains("error["))
            .collect();
        assert_eq!(errors, [expected], "{keys}");
    }
}

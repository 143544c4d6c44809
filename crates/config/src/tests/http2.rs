//! HTTP/2 with clients.

use std::time::Duration;

use super::Given;
use crate::{Http2ToClients, Protocol};

fn listener(keys: &str) -> Given {
    Given::main(&format!(
        "listeners: {{ l: {{ bind: \":1\", pool: p,\n {keys}\n }} }}\npools: {{ p: {{ servers: [10.0.0.1:1] }} }}\n"
    ))
}

fn compiled(keys: &str) -> Option<Http2ToClients> {
    let given = listener(keys);
    let loaded = given.load();
    let snapshot = loaded
        .snapshot
        .unwrap_or_else(|| panic!("{:?}", given.found()));
    match &snapshot.listeners[0].protocol {
        Protocol::Http(http) => http.http2.clone(),
        Protocol::Tcp(_) => panic!("a listener of HTTP"),
    }
}

#[test]
fn it_is_on_unless_it_is_off() {
    let standard = Http2ToClients {
        streams: 128,
        stream_window: 256 << 10,
        connection_window: 1 << 20,
        resets: Some(100),
        ping_after: Some(Duration::from_secs(60)),
        ping_timeout: Duration::from_secs(20),
    };
    assert_eq!(compiled(""), Some(standard.clone()));
    assert_eq!(compiled("http2: {}"), Some(standard));
    assert_eq!(compiled("http2: off"), None);
    let own = "http2: { streams: 1, stream_window: 16KiB, connection_window: 64KiB, resets: off, ping_after: off, ping_timeout: 1s }";
    let own = compiled(own).unwrap();
    assert_eq!(
        (own.streams, own.stream_window, own.connection_window),
        (1, 16 << 10, 64 << 10)
    );
    assert_eq!((own.resets, own.ping_after), (None, None));
    assert_eq!(own.ping_timeout, Duration::from_secs(1));
}

#[test]
fn mistakes_have_their_place() {
    for (keys, expected) in [
        ("http2: { stream: 5 }", "2:11: error[unknown_key]: "),
        ("http2: { streams: 0 }", "2:20: error[value]: "),
        ("http2: { stream_window: 1KiB }", "2:26: error[value]: "),
        ("http2: 2", "2:9: error[type]: "),
        (
            "http2: { connection_window: 64KiB }",
            "2:30: error[conflict]: `stream_window` is larger than",
        ),
        (
            "protocol: tcp, http2: off",
            "2:17: error[conflict]: `http2` is only for a listener with `protocol: http`",
        ),
    ] {
        let found = listener(keys).found();
        assert!(
            found.iter().any(|error| error.contains(expected)),
            "{keys}: {found:?}"
        );
    }
}

//! `evenkeel explain`, offline.

use crate::command::evenkeel_with;

const CONFIG: &str = r#"
listeners:
  web:
    bind: "127.0.0.1:8080"
    trusted_proxies: [10.0.0.0/8]
    routes:
      - { name: api, match: { path: /api/*, header: { x-beta: true } }, filters: [{ strip_prefix: /api }], pool: api }
      - { name: rest, pool: site }
pools:
  site: { balance: round_robin, servers: ["127.0.0.1:1", "127.0.0.1:2"] }
  api: { servers: ["127.0.0.1:3"] }
"#;

#[test]
fn a_request_is_followed_to_its_server() {
    let finished = evenkeel_with(
        CONFIG,
        &["explain", "GET http://x:8080/api/a", "--from", "192.0.2.1"],
    );
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let text = finished.text();
    for part in [
        "listener  web on 127.0.0.1:8080\n",
        "route     rest\n",
        "  not api  header x-beta",
        "server    127.0.0.1:1  (the first request after a start",
        "  not 127.0.0.1:2  not its turn\n",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

#[test]
fn headers_and_a_trusted_proxy_count() {
    let finished = evenkeel_with(
        CONFIG,
        &[
            "explain",
            "http://x:8080/api/a",
            "-H",
            "X-Beta: 1",
            "-H",
            "X-Forwarded-For: 203.0.113.7",
            "--from",
            "10.1.2.3",
            "--json",
        ],
    );
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let json: serde_json::Value = serde_json::from_slice(&finished.stdout).expect("JSON");
    let at = |pointer: &str| json.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(at("/source"), "203.0.113.7");
    assert_eq!(at("/route"), "api");
    assert_eq!(at("/filters/0/effect"), "path /api/a -> /a");
    assert_eq!(at("/pools/0/pool"), "api");
    assert_eq!(at("/pools/0/server"), "127.0.0.1:3");
}

#[test]
fn what_is_wrong_is_exit_1() {
    for (config, request, part) in [
        (CONFIG, "nonsense", "is no request"),
        (CONFIG, "GET /", "no host"),
        ("pools: {}\n", "GET http://x/", "error["),
    ] {
        let finished = evenkeel_with(config, &["explain", request]);
        assert_eq!(finished.code, Some(1), "{request}: {}", finished.stderr);
        assert!(
            finished.stderr.contains(part),
            "{request}: {}",
            finished.stderr
        );
    }
}

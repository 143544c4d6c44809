//! Servers that speak HTTP/2: real ones, by prior knowledge and over TLS.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use testkit::{Nghttpd, Nginx, TempDir, missing, run};

use crate::life_support::{connect, metric, reload, site, start, wait_health, web};
use crate::tls_support::Authority;

pub(crate) const NO_PROBES: &str = "health_check: off, outlier_detection: off, http: 2";

fn nghttpd(arguments: &[&str]) -> Nghttpd {
    Nghttpd::start(arguments).expect("nghttpd starts")
}

fn get(address: SocketAddr, path: &str) -> testkit::Response {
    connect(address).get(path).expect("an answer")
}

#[test]
fn an_http1_client_gets_what_a_server_says_over_h2c() {
    if missing("nghttpd") {
        return;
    }
    let server = nghttpd(&[]);
    let evenkeel = start(&site(&[server.address()], NO_PROBES));
    let answer = get(web(&evenkeel), "/1k");
    assert_eq!(
        (answer.status, answer.body.len()),
        (200, 1 << 10),
        "{answer}"
    );
    assert!(
        answer
            .header("server")
            .is_some_and(|it| it.contains("nghttp"))
    );
    for (path, size) in [("/64k", 64 << 10), ("/1m", 1 << 20)] {
        let answer = get(web(&evenkeel), path);
        assert_eq!(answer.body.len(), size);
        assert_eq!(&answer.body[..64], &answer.body[size - 64..]);
    }
    assert_eq!(get(web(&evenkeel), "/nothing").status, 404);
    let mut client = connect(web(&evenkeel));
    let head = client
        .exchange("HEAD /1k HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("an answer");
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("1024"))
    );
    assert_eq!(client.get("/1k").expect("an answer").body.len(), 1 << 10);
}

/// nginx that speaks HTTP/1.1 and HTTP/2 over TLS, whichever is agreed on.
fn secure_nginx(authority: &Authority) -> (Nginx, TempDir) {
    let dir = TempDir::new("server").expect("a folder");
    authority
        .issue(&["localhost", "127.0.0.1"])
        .write(&dir, "server");
    let path = dir.path().display();
    let snippet = format!(
        "ssl_certificate {path}/server.pem; ssl_certificate_key {path}/server.key;
location = /seen {{ return 200 \"$server_protocol $connection $http_host $scheme\"; }}"
    );
    let nginx = Nginx::start_http2("a", &snippet).expect("nginx starts");
    (nginx, dir)
}

#[test]
fn over_tls_both_agree_on_it_and_a_reload_changes_what_is_spoken() {
    if missing("nginx") {
        return;
    }
    let authority = Authority::new("the authority");
    let (nginx, _dir) = secure_nginx(&authority);
    let ca = TempDir::new("ca").expect("a folder");
    let file = ca.write("ca.pem", &authority.pem).expect("written");
    let config = |version: u8| {
        let tls = format!("tls: {{ ca: '{}' }}", file.display());
        let settings = format!("health_check: off, outlier_detection: off, {tls}, http: {version}");
        format!("workers: 1\n{}", site(&[nginx.address()], &settings))
    };
    let evenkeel = start(&config(2));
    let seen = || get(web(&evenkeel), "/seen").text();
    let first = seen();
    assert!(first.starts_with("HTTP/2.0 "), "{first}");
    assert!(first.ends_with(" https"), "{first}");
    for _ in 0..5 {
        assert_eq!(connection_of(&seen()), connection_of(&first));
    }
    assert_eq!(get(web(&evenkeel), "/1m").body.len(), 1 << 20);
    reload(&evenkeel, &config(1));
    let after = seen();
    assert!(after.starts_with("HTTP/1.1 "), "{after}");
    reload(&evenkeel, &config(2));
    assert!(seen().starts_with("HTTP/2.0 "));
}

fn connection_of(seen: &str) -> Option<&str> {
    seen.split(' ').nth(1)
}

#[test]
fn a_server_of_tls_that_does_not_agree_is_no_server() {
    if missing("nginx") {
        return;
    }
    let authority = Authority::new("the authority");
    let dir = TempDir::new("server").expect("a folder");
    authority
        .issue(&["localhost", "127.0.0.1"])
        .write(&dir, "server");
    let path = dir.path().display();
    let ca = dir.write("ca.pem", &authority.pem).expect("written");
    let snippet =
        format!("ssl_certificate {path}/server.pem; ssl_certificate_key {path}/server.key;");
    let nginx = Nginx::start_tls("a", &snippet).expect("nginx starts");
    let settings = format!("{NO_PROBES}, tls: {{ ca: '{}' }}", ca.display());
    let evenkeel = start(&site(&[nginx.address()], &settings));
    let answer = get(web(&evenkeel), "/");
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("x-evenkeel-reason"), Some("server_handshake"));
}

#[test]
fn uploads_and_trailers_pass() {
    if missing("nghttpd") {
        return;
    }
    let server = nghttpd(&["--echo-upload", "--trailer=x-end: yes"]);
    let evenkeel = start(&site(&[server.address()], NO_PROBES));
    let body = "0123456789".repeat(30_000);
    let length = body.len();
    for request in [
        format!("POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"),
        format!(
            "PUT /e HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\nx-sum: 1\r\n\r\n"
        ),
    ] {
        let mut client = connect(web(&evenkeel));
        let answer = client.exchange(request).expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (200, length));
        assert!(answer.text() == body, "it came back as it was");
        assert_eq!(
            answer.trailers.get("x-end"),
            Some("yes"),
            "{:?}",
            answer.headers
        );
        assert_eq!(client.get("/1k").expect("an answer").body.len(), 1 << 10);
    }
}

#[test]
fn probes_speak_it_too_and_a_server_that_comes_back_serves() {
    if missing("nghttpd") {
        return;
    }
    let mut server = nghttpd(&[]);
    let evenkeel = start(&site(&[server.address()], "http: 2"));
    wait_health(&evenkeel, server.address(), "healthy");
    assert_eq!(get(web(&evenkeel), "/1k").status, 200);
    server.kill();
    wait_health(&evenkeel, server.address(), "unhealthy");
    server.restart().expect("nghttpd starts");
    wait_health(&evenkeel, server.address(), "healthy");
    assert_eq!(get(web(&evenkeel), "/1k").status, 200);
}

#[test]
fn readers_who_take_nothing_hold_up_nobody() {
    if missing("nghttpd") {
        return;
    }
    let files = TempDir::new("files").expect("a folder");
    files.write("big", vec![b'x'; 32 << 20]).expect("written");
    files.write("small", "small").expect("written");
    let root = format!("--htdocs={}", files.path().display());
    let server = nghttpd(&[&root]);
    let evenkeel = start(&format!(
        "workers: 1\n{}",
        site(&[server.address()], NO_PROBES)
    ));
    let stalled: Vec<_> = (0..8)
        .map(|_| {
            let mut client = connect(web(&evenkeel));
            client
                .send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
                .expect("sent");
            // Some of it has come: it is on its way.
            assert_eq!(client.read_exactly(12).expect("a head"), b"HTTP/1.1 200");
            client
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(get(web(&evenkeel), "/small").text(), "small");
    }
    drop(stalled);
    let whole = get(web(&evenkeel), "/big");
    assert_eq!(whole.body.len(), 32 << 20);
}

#[test]
fn both_sides_at_once_under_load() {
    if missing("nghttpd") || missing("h2load") {
        return;
    }
    let server = nghttpd(&["--max-concurrent-streams=16"]);
    let evenkeel = start(&site(&[server.address()], NO_PROBES));
    let url = format!("http://{}/1k", web(&evenkeel));
    let mut command = Command::new("h2load");
    command.args(["-n", "4000", "-c", "8", "-m", "10", &url]);
    let finished = run(command, Duration::from_secs(60)).expect("h2load runs");
    let text = finished.text();
    assert!(text.contains("status codes: 4000 2xx"), "{text}");
    let failed = "evenkeel_errors_total";
    assert_eq!(metric(&evenkeel, failed), 0.0, "{text}");
}

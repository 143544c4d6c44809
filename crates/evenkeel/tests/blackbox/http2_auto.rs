//! Servers that choose their version of HTTP in the TLS handshake: `http: auto`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use testkit::{Evenkeel, Load, Nginx, TempDir, missing};

use crate::life_support::{
    SOON, connect, metric, picks, reload, server, site, start, wait_all, wait_health, web,
};
use crate::tls_support::Authority;

/// What servers show, and whom Evenkeel believes.
struct Trust {
    dir: TempDir,
    ca: PathBuf,
}

impl Trust {
    fn new() -> Self {
        let authority = Authority::new("the authority");
        let dir = TempDir::new("trust").expect("a folder");
        let issued = authority.issue(&["localhost", "127.0.0.1"]);
        issued.write(&dir, "server");
        let ca = dir.write("ca.pem", &authority.pem).expect("written");
        Self { dir, ca }
    }

    /// A server; `/seen` says what it has seen.
    fn nginx(&self, name: &str, http2: bool) -> Nginx {
        let path = self.dir.path().display();
        let snippet = format!(
            "ssl_certificate {path}/server.pem; ssl_certificate_key {path}/server.key;
location = /seen {{ return 200 \"{name} $server_protocol $connection te=$http_te upgrade=$http_upgrade \"; }}
location = /busy {{ return {busy}; }}",
            busy = if http2 { 503 } else { 200 },
        );
        let start = if http2 {
            Nginx::start_http2
        } else {
            Nginx::start_tls
        };
        start(name, &snippet).expect("nginx starts")
    }

    /// A config for these servers, in turn.
    fn config(&self, servers: &[&Nginx], settings: &str) -> String {
        let servers: Vec<_> = servers.iter().map(|server| server.address()).collect();
        let ca = self.ca.display();
        let settings = format!(
            "tls: {{ ca: '{ca}' }}, balance: round_robin, outlier_detection: off, timeouts: {{ keep_alive: 1m }}, {settings}"
        );
        format!("workers: 1\n{}", site(&servers, &settings))
    }
}

const AUTO: &str = "http: auto";
const UNPROBED: &str = "http: auto, health_check: off";

/// Which server answered, in which version, on which of its connections.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    server: String,
    version: String,
    connection: String,
    rest: String,
}

fn seen(evenkeel: &Evenkeel, fields: &str) -> Seen {
    let request = format!("GET /seen HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let answer = connect(web(evenkeel)).exchange(request);
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 200, "{answer}\n{}", evenkeel.log());
    let text = answer.text();
    let mut words = text.splitn(4, ' ').map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    Seen {
        server: word(),
        version: word(),
        connection: word(),
        rest: word(),
    }
}

#[test]
fn what_each_server_chooses_is_spoken_to_it() {
    if missing("nginx") {
        return;
    }
    let trust = Trust::new();
    let (new, old) = (trust.nginx("new", true), trust.nginx("old", false));
    let evenkeel = start(&trust.config(&[&new, &old], AUTO));
    // Probes too, though only one of both speaks HTTP/2.
    wait_all(&evenkeel, &[new.address(), old.address()], "healthy");
    let all: BTreeSet<Seen> = (0..12).map(|_| seen(&evenkeel, "")).collect();
    let versions: Vec<_> = all
        .iter()
        .map(|seen| (&*seen.server, &*seen.version))
        .collect();
    // One connection each: what was learnt is remembered, and both kinds are used again.
    assert_eq!(versions, [("new", "HTTP/2.0"), ("old", "HTTP/1.1")]);

    // That trailers are welcome is heard in both versions.
    for _ in 0..2 {
        let heard = seen(&evenkeel, "TE: trailers\r\nConnection: TE\r\n");
        assert!(heard.rest.starts_with("te=trailers "), "{heard:?}");
    }
    let body = "x".repeat(100_000);
    let post = format!(
        "POST /1k HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..2 {
        let answer = connect(web(&evenkeel)).exchange(&*post).expect("an answer");
        assert_eq!(answer.status, 405, "both refuse it alike: {answer}");
    }
}

#[test]
fn tries_pass_from_one_version_to_the_other() {
    if missing("nginx") {
        return;
    }
    let trust = Trust::new();
    let (mut new, old) = (trust.nginx("new", true), trust.nginx("old", false));
    let retries = "retries: { on: [503], budget: 100% }";
    let evenkeel = start(&trust.config(&[&new, &old], &format!("{UNPROBED}, {retries}")));
    for _ in 0..6 {
        let answer = connect(web(&evenkeel)).get("/busy").expect("an answer");
        assert_eq!(answer.status, 200, "{answer}");
        assert_eq!(answer.header("x-server"), Some("old"));
    }
    let answered = "evenkeel_retries_total{pool=\"site\",cause=\"status\"}";
    assert!(metric(&evenkeel, answered) >= 3.0);
    // One that is gone, with the connections that were open to it.
    assert!((0..2).any(|_| seen(&evenkeel, "").version == "HTTP/2.0"));
    new.kill();
    for _ in 0..6 {
        assert_eq!(seen(&evenkeel, "").server, "old");
    }
}

#[test]
fn a_hedge_may_speak_the_other_version() {
    if missing("nginx") {
        return;
    }
    let trust = Trust::new();
    let (new, old) = (trust.nginx("new", true), trust.nginx("old", false));
    let hedge = "hedge: { after: 1ms, max: 1 }, retries: { budget: 100% }";
    let evenkeel = start(&trust.config(&[&new, &old], &format!("{UNPROBED}, {hedge}")));
    for _ in 0..40 {
        let answer = connect(web(&evenkeel)).get("/1m").expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (200, 1 << 20));
    }
    assert!(picks(&evenkeel, new.address()) > 0 && picks(&evenkeel, old.address()) > 0);
}

#[test]
fn a_server_that_is_deployed_with_the_other_version_is_learnt_anew() {
    if missing("nginx") {
        return;
    }
    let trust = Trust::new();
    let mut server = trust.nginx("one", true);
    let evenkeel = start(&trust.config(&[&server], UNPROBED));
    assert_eq!(seen(&evenkeel, "").version, "HTTP/2.0");
    for http2 in [false, true, false] {
        server.restart_with(http2).expect("nginx starts");
        let expected = if http2 { "HTTP/2.0" } else { "HTTP/1.1" };
        let first = seen(&evenkeel, "");
        assert_eq!(first.version, expected);
        for _ in 0..4 {
            assert_eq!(seen(&evenkeel, ""), first);
        }
    }
}

#[test]
fn a_reload_to_and_from_auto_changes_what_is_spoken() {
    if missing("nginx") {
        return;
    }
    let trust = Trust::new();
    let new = trust.nginx("new", true);
    let evenkeel = start(&trust.config(&[&new], "http: 1, health_check: off"));
    assert_eq!(seen(&evenkeel, "").version, "HTTP/1.1");
    for (settings, expected) in [
        (UNPROBED, "HTTP/2.0"),
        ("http: 1, health_check: off", "HTTP/1.1"),
        (
            "http: { version: auto, streams: 4 }, health_check: off",
            "HTTP/2.0",
        ),
        ("http: 2, health_check: off", "HTTP/2.0"),
    ] {
        reload(&evenkeel, &trust.config(&[&new], settings));
        assert_eq!(seen(&evenkeel, "").version, expected, "{settings}");
    }
    reload(&evenkeel, &trust.config(&[&new], AUTO));
    wait_health(&evenkeel, new.address(), "healthy");
}

#[test]
fn upgrades_are_asked_for_in_http1() {
    if missing("nginx") {
        return;
    }
    let trust = Trust::new();
    let (new, old) = (trust.nginx("new", true), trust.nginx("old", false));
    let config = trust.config(&[&new, &old], UNPROBED);
    let evenkeel = start(&config.replace("web: {", "web: { upgrades: [websocket],"));
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for _ in 0..4 {
        // nginx takes none itself, and says what it was asked.
        let asked = seen(&evenkeel, upgrade);
        assert_eq!(asked.version, "HTTP/1.1");
        assert!(asked.rest.contains("upgrade=websocket"), "{asked:?}");
    }
    let versions: BTreeSet<_> = (0..4).map(|_| seen(&evenkeel, "").version).collect();
    assert_eq!(versions.len(), 2, "other requests are as before");
}

/// It says GOAWAY every 40 requests, and its next connection may be opened only when the one before is gone.
#[test]
fn the_one_socket_of_four_workers_is_renewed_under_load() {
    if missing("nginx") {
        return;
    }
    let trust = Trust::new();
    let path = trust.dir.path().display();
    let snippet = format!(
        "ssl_certificate {path}/server.pem; ssl_certificate_key {path}/server.key; keepalive_requests 40;"
    );
    let nginx = Nginx::start_http2("renews", &snippet).expect("nginx starts");
    let settings = format!("{UNPROBED}, limits: {{ connections_per_server: 1 }}");
    let config = trust.config(&[&nginx], &settings);
    let evenkeel = start(&config.replace("workers: 1", "workers: 4"));
    let load = Load::to(web(&evenkeel))
        .request("GET", "/1k")
        .clients(16)
        .start();
    for _ in 0..10 {
        load.wait_ok(60, SOON).expect("traffic");
        let sockets = metric(&evenkeel, "evenkeel_server_sockets{");
        assert!(sockets <= 1.0, "{sockets} sockets");
    }
    load.stop().assert_none_failed();
    let server = server(&evenkeel, "site", &nginx.address().to_string());
    // What nginx says that it wants.
    assert_eq!(server.get("limit"), Some(&128.into()), "{server}");
}

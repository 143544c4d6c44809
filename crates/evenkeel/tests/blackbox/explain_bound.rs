//! What `explain` says of affinity, live, and that asking binds nobody; and of requests whose clients show a certificate.

use std::net::SocketAddr;

use serde_json::Value;
use testkit::{Evenkeel, TempDir, reply, wait_until};

use crate::affinity::{Browser, bindings, config, origins};
use crate::command::{BINARY, evenkeel_in};
use crate::life_support::{SOON, admin_get, admin_write, ask, connect, reload, start, web};
use crate::tls_support::{Authority, Issued};

/// The pool's part of an explanation: what binds a request with these headers, and which server it would get.
fn bound(evenkeel: &Evenkeel, header: &str) -> (Value, Value) {
    let request = format!("GET http://x:{}/", web(evenkeel).port());
    let args = ["explain", "--live", &request, "-H", header, "--json"];
    let finished = ask(evenkeel, &args);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let json: Value = serde_json::from_slice(&finished.stdout).expect("JSON");
    let pool = json.pointer("/pools/0").expect("a pool");
    (pool["affinity"].clone(), pool["server"].clone())
}

#[track_caller]
fn says(evenkeel: &Evenkeel, header: &str, binding: &str, why: &str, server: Option<&str>) {
    let (affinity, picked) = bound(evenkeel, header);
    assert_eq!(affinity["binding"], binding, "{affinity}");
    let said = affinity["why"].as_str().unwrap_or_default();
    assert!(said.contains(why), "{why:?} in {affinity}");
    assert_eq!(picked.as_str(), server, "{affinity}");
}

fn three(settings: &str) -> ([testkit::Origin; 3], Evenkeel) {
    let origins = origins(["a", "b", "c"]);
    let servers = places(&origins);
    let evenkeel = start(&config(settings, &servers));
    (origins, evenkeel)
}

fn places(origins: &[testkit::Origin; 3]) -> [(&'static str, SocketAddr, &'static str); 3] {
    let [a, b, c] = origins;
    [
        ("a", a.address(), ""),
        ("b", b.address(), ""),
        ("c", c.address(), ""),
    ]
}

#[test]
fn a_cookie_is_followed_to_its_server_as_that_stands() {
    let (origins, evenkeel) = three("affinity: { cookie: { name: S } }");
    let mut browser = Browser::new(web(&evenkeel));
    let home = browser.server("/");
    let cookie = format!("Cookie: {}", browser.jar[0]);
    let is = |state: &[&str]| {
        let done = ask(&evenkeel, &[&["server"], state, &["site", &home]].concat());
        assert_eq!(done.code, Some(0), "{}", done.stderr);
    };
    let counted = |binding| bindings(&evenkeel, binding);
    let before = ["kept", "new", "foreign", "moved"].map(counted);
    says(
        &evenkeel,
        &cookie,
        "kept",
        "it stays: its server is",
        Some(&home),
    );
    says(
        &evenkeel,
        "Cookie: S=AAAAAAAAAAAAAAAA",
        "foreign",
        "ignored, and replaced",
        Some("b"),
    );
    says(
        &evenkeel,
        "X: y",
        "new",
        "the answer sets the cookie",
        Some("b"),
    );
    is(&["disable"]);
    let (affinity, server) = bound(&evenkeel, &cookie);
    assert_eq!(affinity["binding"], "moved", "{affinity}");
    let why = affinity["why"].as_str().expect("words");
    assert!(
        why.contains("its server is disabled by its operator"),
        "{why}"
    );
    assert_ne!(server.as_str(), Some(&*home));
    is(&["enable"]);
    says(&evenkeel, &cookie, "kept", "it stays", Some(&home));
    let path = format!("/api/v1/pools/site/servers/{home}");
    let drained = admin_write(&evenkeel, "PATCH", &path, r#"{"state":"drain"}"#);
    assert_eq!(drained.status, 200);
    says(
        &evenkeel,
        &cookie,
        "kept",
        "it drains, and its clients stay",
        Some(&home),
    );
    assert_eq!(
        ["kept", "new", "foreign", "moved"].map(counted),
        before,
        "asking counts nothing"
    );
    assert_eq!(browser.server("/"), home, "and what it says is so");
    // Its server is gone: nobody knows whose the cookie was.
    let left = places(&origins)
        .into_iter()
        .filter(|(name, ..)| *name != home);
    let left: Vec<_> = left.collect();
    reload(
        &evenkeel,
        &config("affinity: { cookie: { name: S } }", &left),
    );
    let (affinity, _) = bound(&evenkeel, &cookie);
    assert_eq!(affinity["binding"], "foreign", "{affinity}");
    let required = "affinity: { cookie: { name: S, strength: required } }";
    reload(&evenkeel, &config(required, &places(&origins)));
    is(&["disable"]);
    says(&evenkeel, &cookie, "refused", "strength: required", None);
    assert_eq!(browser.get("/").status, 503, "and what it says is so");
}

#[test]
fn a_full_server_is_waited_for() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = testkit::Origin::http(move |request| {
        if request.target == "/slow" {
            let wait = wait.lock().expect("one at a time");
            wait.recv_timeout(SOON).ok();
        }
        reply(200, "slow ")
    });
    let slow = slow.expect("an origin");
    let [other] = origins(["other"]);
    let servers = [
        ("slow", slow.address(), "max_connections: 1"),
        ("other", other.address(), ""),
    ];
    let named = "affinity: { cookie: { name: S, value: name, queue_wait: 3s } }";
    let evenkeel = start(&config(named, &servers));
    let mut client = connect(web(&evenkeel));
    client
        .send("GET /slow HTTP/1.1\r\nHost: x\r\nCookie: S=slow\r\n\r\n")
        .expect("sent");
    wait_until("it is there", SOON, || slow.requests() > 0).expect("it is there");
    let why = "its server is full: waits up to 3s for it alone, then another takes it";
    says(&evenkeel, "Cookie: S=slow", "waits", why, None);
    says(
        &evenkeel,
        "Cookie: S=other",
        "kept",
        "it stays",
        Some("other"),
    );
    go.send(()).expect("sent");
    assert_eq!(client.response().expect("an answer").status, 200);
    wait_until("there is room again", SOON, || {
        bound(&evenkeel, "Cookie: S=slow").0["binding"] == "kept"
    })
    .expect("there is room again");
}

#[test]
fn while_a_server_is_out_its_keys_are_told_to_go_where_they_do() {
    let (_origins, evenkeel) = three("affinity: { hash: { header: X-User } }");
    let command = |word: &str, name: &str| {
        let done = ask(&evenkeel, &["server", word, "site", name]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
    };
    let mut client = connect(web(&evenkeel));
    for user in 0..6 {
        let header = format!("X-User: {user}");
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n");
        let mut serving = || {
            let answer = client.exchange(&*request).expect("an answer");
            answer.text().trim().to_owned()
        };
        let home = serving();
        command("disable", &home);
        let request = format!("GET http://x:{}/", web(&evenkeel).port());
        let said = ask(&evenkeel, &["explain", "--live", &request, "-H", &header]).text();
        for _ in 0..3 {
            let meanwhile = serving();
            for part in [
                format!("operator: {meanwhile}, the next of its hash, takes it meanwhile)"),
                format!("server    {meanwhile}  (the next of its hash, while its own cannot"),
            ] {
                assert!(said.contains(&part), "{part:?} in\n{said}");
            }
        }
        assert!(said.contains("the key belongs elsewhere"), "{said}");
        command("enable", &home);
        assert_eq!(serving(), home);
    }
}

#[test]
fn nobody_is_told_to_be_picked_where_only_one_may_serve() {
    let settings = "affinity: { cookie: { name: S, value: name, strength: required } }";
    let (_origins, evenkeel) = three(settings);
    ask(&evenkeel, &["server", "disable", "site", "b"]);
    let request = format!("GET http://x:{}/", web(&evenkeel).port());
    let args = ["explain", "--live", &request, "-H", "Cookie: S=b"];
    let said = ask(&evenkeel, &args).text();
    assert!(
        said.contains("server    none: 503 affinity_server_unavailable\n"),
        "{said}"
    );
    let others = said.lines().filter(|line| line.starts_with("  not "));
    for line in others {
        let why = match line.contains("not b") {
            true => "disabled, by its operator",
            false => "no other may take the request (strength: required)",
        };
        assert!(line.ends_with(why), "{said}");
    }
    let request = "GET / HTTP/1.1\r\nHost: x\r\nCookie: S=b\r\n\r\n";
    let answer = connect(web(&evenkeel)).exchange(request);
    let answer = answer.expect("an answer");
    let reason = answer.header("x-evenkeel-reason");
    assert_eq!(reason, Some("affinity_server_unavailable"), "{answer}");
}

#[test]
fn what_was_learnt_is_told_and_asking_teaches_nothing() {
    let settings = "affinity: { header: { name: X-Session, mode: learn } }";
    let (origins, evenkeel) = three(settings);
    let learnt = || {
        let text = admin_get(&evenkeel, "/api/v1/pools/site/affinity");
        let json: Value = serde_json::from_str(&text).expect(&text);
        json["entries"].as_u64().expect("a count")
    };
    let header = "X-Session: s3cr3t";
    says(
        &evenkeel,
        header,
        "new",
        "any server will do, and it is bound to that",
        Some("a"),
    );
    assert_eq!(learnt(), 0);
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n");
    let answer = connect(web(&evenkeel))
        .exchange(request)
        .expect("an answer");
    let home = answer.text().trim().to_owned();
    let (affinity, server) = bound(&evenkeel, header);
    assert_eq!(
        (affinity["binding"].as_str(), server.as_str()),
        (Some("kept"), Some(&*home))
    );
    // As `evenkeel affinity list` has it, and never the value itself.
    let listed = ask(&evenkeel, &["affinity", "list", "site"]).text();
    let read = affinity["read"].as_str().expect("words");
    let key = read
        .split("the key ")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    assert!(listed.contains(key.expect(read)), "{read} and {listed}");
    assert!(read.contains(&format!("learnt for {home}")), "{read}");
    assert!(!affinity.to_string().contains("s3cr3t"), "{affinity}");
    assert_eq!(learnt(), 1);
    // A server that is gone is still named.
    let left = places(&origins)
        .into_iter()
        .filter(|(name, ..)| *name != home);
    let left: Vec<_> = left.collect();
    reload(&evenkeel, &config(settings, &left));
    let (affinity, server) = bound(&evenkeel, header);
    assert_eq!(affinity["server"], home, "{affinity}");
    assert_eq!(affinity["binding"], "moved", "{affinity}");
    assert!(
        affinity["why"]
            .as_str()
            .expect("words")
            .contains("no longer in the pool")
    );
    assert_ne!(server.as_str(), Some(&*home));
}

/// Two routes by a client's certificate, and one for all.
const BY_CERTIFICATE: &str = "
admin: { bind: '127.0.0.1:0' }
listeners:
  web:
    bind: '127.0.0.1:0'
    tls: { certificates: [{ cert: a.pem, key: a.key }], client_ca: clients.pem, client_auth: optional }
    routes:
      - { name: ops, match: { client_cert: { subject: 'CN=ops*' } }, pool: site }
      - { name: known, match: { path: /known/* }, client_auth: required, pool: site }
      - { name: rest, pool: site }
pools:
  site: { servers: ['127.0.0.1:1'], health_check: off }
";

fn put(dir: &std::path::Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).expect("written");
}

#[test]
fn a_clients_certificate_can_be_asked_about() {
    let (authority, clients) = (
        Authority::new("the authority"),
        Authority::new("of clients"),
    );
    let own: Issued = authority.issue(&["a.example"]);
    let fill = |dir: &std::path::Path| {
        put(dir, "a.pem", &own.cert);
        put(dir, "a.key", &own.key);
        put(dir, "clients.pem", &clients.pem);
        put(dir, "ops.pem", &clients.issue_for_client("ops-1").cert);
        put(
            dir,
            "stranger.pem",
            &authority.issue_for_client("ops-2").cert,
        );
        put(dir, "none.pem", "nothing");
    };
    let dir = TempDir::new("explain").expect("a folder");
    fill(dir.path());
    put(dir.path(), "evenkeel.yaml", BY_CERTIFICATE);
    put(
        dir.path(),
        "plain.yaml",
        "listeners: { w: { bind: '127.0.0.1:80', pool: s } }\npools: { s: { servers: ['127.0.0.1:1'] } }\n",
    );
    let required = BY_CERTIFICATE.replace("client_auth: optional", "client_auth: required");
    put(
        dir.path(),
        "required.yaml",
        &required.replace("client_auth: required, pool", "pool"),
    );
    let evenkeel = Evenkeel::start_with(BINARY, BY_CERTIFICATE, |command| {
        fill(command.get_current_dir().expect("a folder"));
    });
    let evenkeel = evenkeel.expect("evenkeel starts");
    let (ops, url) = (
        ["--client-cert", "ops.pem"],
        "GET https://a.example/known/x",
    );
    for live in [false, true] {
        let run = |args: &[&str]| match live {
            false => evenkeel_in(dir.path(), &[&["explain"], args].concat()),
            true => ask(&evenkeel, &[&["explain", "--live"], args].concat()),
        };
        let says = |args: &[&str], part: &str| {
            let finished = run(args);
            assert_eq!(finished.code, Some(0), "{}", finished.stderr);
            assert!(
                finished.text().contains(part),
                "{part:?} in\n{}",
                finished.text()
            );
        };
        says(&[url, ops[0], ops[1]], "route     ops\n");
        says(&[url], "answered  403 client_certificate");
        says(&["GET https://a.example/"], "route     rest\n");
        let refuses = |args: &[&str], part: &str| {
            let finished = run(args);
            assert_eq!(finished.code, Some(1), "{}", finished.text());
            assert!(
                finished.stderr.contains(part),
                "{part:?} in\n{}",
                finished.stderr
            );
        };
        refuses(
            &[url, ops[0], "stranger.pem"],
            "the handshake refuses the client's certificate",
        );
        refuses(
            &[url, ops[0], "none.pem"],
            "there is no certificate in the client's",
        );
        refuses(&["GET http://a.example/", ops[0], ops[1]], "write https://");
        refuses(&[url, ops[0], "missing.pem"], "missing.pem: No such file");
    }
    for (config, args, part) in [
        ("plain.yaml", &ops[..], "the listener speaks no TLS"),
        (
            "required.yaml",
            &[],
            "takes no client without a certificate",
        ),
    ] {
        let args = [&["explain", url, "-c", config], args].concat();
        let finished = evenkeel_in(dir.path(), &args);
        assert_eq!(finished.code, Some(1), "{}", finished.text());
        assert!(finished.stderr.contains(part), "{}", finished.stderr);
    }
}

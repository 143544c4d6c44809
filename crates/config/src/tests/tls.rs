//! TLS: what is read, and what is said of files that do not fit.

use std::time::Duration;

use super::{Given, check_given};
use crate::{Bind, KeyForm, Protocol, TlsVersion};

const POOL: &str = "pools: { p: { servers: [127.0.0.1:2] } }\n";
const PAIR: &str = "certificates: [{ cert: tls/cert.pem, key: tls/key.pem }]";
/// Within the time that the sample is good for.
const WALL: Duration = Duration::from_secs(2_000_000_000);

fn given(listener: &str) -> Given {
    let mut given = Given::main(&format!("listeners: {{ l: {{\n {listener}\n }} }}\n{POOL}"));
    given.wall = Some(WALL);
    given
}

#[track_caller]
fn check(listener: &str, expected: &[&str]) {
    check_given(&given(listener), expected);
}

#[test]
fn certificates_are_read_and_looked_at() {
    let given = given(&format!(
        "bind: [\":1\", \":2\"], pool: p, tls: {{ {PAIR} }}"
    ));
    check_given(&given, &[]);
    let snapshot = given.load().snapshot.expect("a good config");
    let listener = &snapshot.listeners[0];
    assert_eq!(listener.handshake, Some(Duration::from_secs(10)));
    assert_eq!(listener.tls.len(), 2);
    let tls = listener.tls[1].as_ref().expect("TLS");
    assert_eq!(tls.min_version, TlsVersion::Tls12);
    assert_eq!(tls.alpn, ["h2", "http/1.1"]);
    assert_eq!(tls.client, None);
    let certificate = &tls.certificates[0];
    assert_eq!(
        certificate.names,
        ["a.example", "*.b.example", "api.example.com", "127.0.0.1"]
    );
    assert_eq!(certificate.key.form, KeyForm::Pkcs8);
    assert_eq!(&*certificate.file, "etc/tls/cert.pem");
    assert!(certificate.not_before < WALL && WALL < certificate.not_after);
    let covered = ["a.example", "x.b.example", "127.0.0.1"];
    assert!(covered.iter().all(|name| certificate.covers(name)));
    let others = ["b.example", "x.y.b.example", ".b.example", "x.a.example"];
    assert!(!others.iter().any(|name| certificate.covers(name)));
    // The key stays out of sight.
    let shown = format!("{snapshot:?}");
    let key = format!("{:?}", &certificate.key.der[30..40]);
    assert!(!shown.contains(key.trim_matches(['[', ']'])));
}

#[test]
fn an_address_may_have_its_own_and_another_none() {
    let given = given(&format!(
        "bind: [\":1\", {{ address: \":2\", tls: {{ {PAIR}, min_version: 1.3 }} }}], pool: p"
    ));
    check_given(&given, &[]);
    let listener = &given.load().snapshot.expect("a good config").listeners[0];
    let Bind::Tcp { address, .. } = &listener.binds[1] else {
        panic!("an address");
    };
    assert_eq!(address.port(), 2);
    assert_eq!(listener.tls[0], None);
    let own = listener.tls[1].as_ref().expect("TLS");
    assert_eq!(own.min_version, TlsVersion::Tls13);
}

#[test]
fn what_is_wrong_is_told() {
    check(
        "bind: \":1\", pool: p, tls: {}",
        &[
            "2:23: error[empty]: TLS needs a certificate: `certificates: [{ cert: FILE, key: FILE }]`, or `acme`",
        ],
    );
    check(
        "bind: \":1\", pool: p, tls: { certificates: [] }",
        &[
            "2:30: error[empty]: TLS needs a certificate: `certificates: [{ cert: FILE, key: FILE }]`, or `acme`",
        ],
    );
    check(
        "bind: \":1\", pool: p, tls: { certificates: [{ cert: none.pem, key: tls/cert.pem }] }",
        &[
            "2:53: error[file]: cannot read `etc/none.pem`: no such file",
            "2:68: error[certificate]: there is no private key (PEM) in `etc/tls/cert.pem` (it should hold a block `-----BEGIN PRIVATE KEY-----`)",
        ],
    );
    check(
        "bind: \":1\", pool: p, tls: { certificates: [{ cert: tls/key.pem, key: tls/key.pem }] }",
        &[
            "2:53: error[certificate]: there is no certificate (PEM) in `etc/tls/key.pem`, where a certificate should be (it should hold a block `-----BEGIN CERTIFICATE-----`)",
        ],
    );
    check(
        &format!("bind: \":1\", pool: p, tls: {{ {PAIR}, min_version: 1.1, alpn: [h2, x] }}"),
        &[
            "2:101: error[value]: `1.1` is not a version of TLS (did you mean `1.2`?)",
            "2:117: error[value]: an HTTP listener does not speak `x` (known: `h2`, `http/1.1`)",
        ],
    );
    check(
        &format!("bind: \":1\", pool: p, tls: {{ {PAIR}, client_auth: optional }}"),
        &[
            "2:88: error[missing]: `client_auth` says nothing without `client_ca` (give `client_ca`: the authorities whose certificates clients show)",
        ],
    );
    check(
        "bind: \":1\", pool: p, timeouts: { handshake: 1s }",
        &["2:35: error[conflict]: `handshake` is only for a listener with `tls`"],
    );
}

#[test]
fn a_route_for_a_host_that_no_certificate_bears_is_warned_of() {
    let routes = "routes: [{ name: own, match: { host: [a.example, x.b.example] }, pool: p }, { name: other, match: { host: [other.example, \"*.c.example\"] }, pool: p }]";
    check(
        &format!("bind: [\":1\", \":2\"], tls: {{ {PAIR} }}, {routes}"),
        &[
            "2:196: warning[certificate]: the route `other` of `l` is for `other.example`, which no certificate there bears",
            "2:211: warning[certificate]: the route `other` of `l` is for `*.c.example`, which no certificate there bears",
        ],
    );
}

#[test]
fn tls_that_is_passed_on_has_routes_by_what_is_asked_for() {
    let tcp = |rest: &str| format!("bind: \":1\", protocol: tcp, {rest}");
    let given = given(&tcp(
        "routes: [{ match: { sni: \"*.A.example\", alpn: [h2, x] }, pool: p }, { name: rest, pool: p }]",
    ));
    check_given(&given, &[]);
    let snapshot = given.load().snapshot.expect("a good config");
    let Protocol::Tcp(tcp_listener) = &snapshot.listeners[0].protocol else {
        panic!("TCP");
    };
    let taken = |name: Option<&str>, alpn: &[&str]| {
        let alpn: Vec<_> = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut scratch = rules::Scratch::new();
        let mut routes = tcp_listener.routes.iter();
        let found = routes.find(|route| route.takes(name, &alpn, &mut scratch));
        found.map(|route| route.name.to_string())
    };
    assert_eq!(
        taken(Some("b.a.example"), &["y", "x"]).as_deref(),
        Some("1")
    );
    assert_eq!(taken(Some("b.a.example"), &["y"]).as_deref(), Some("rest"));
    assert_eq!(taken(Some("a.example"), &["x"]).as_deref(), Some("rest"));
    assert_eq!(taken(None, &[]).as_deref(), Some("rest"));
    check(
        &tcp("routes: [{ match: { sni: a, path: /x }, pool: p, filters: [] }]"),
        &[
            "2:38: error[conflict]: `filters` of a route is only for a listener with `protocol: http`",
            "2:40: error[conflict]: `path` is only for a listener with `protocol: http` (of a connection that is passed on as it is, `sni` and `alpn` are known)",
        ],
    );
    check(
        &tcp(&format!("tls: {{ {PAIR} }}, routes: [{{ pool: p }}]")),
        &[
            "2:96: error[conflict]: a listener with `tls` ends TLS itself: `routes` of TCP are for TLS that is passed on as it is",
        ],
    );
    check(
        "bind: \":1\", routes: [{ match: { sni: a, alpn: h2 }, pool: p }]",
        &["2:42: error[conflict]: `alpn` is only for a listener with `protocol: tcp`"],
    );
}

#[test]
fn times_and_open_keys_are_warned_of() {
    let listener = format!("bind: \":1\", pool: p, tls: {{ {PAIR} }}");
    let of = |wall: u64| {
        let mut given = given(&listener);
        given.wall = Some(Duration::from_secs(wall));
        given.found().join("\n")
    };
    assert!(of(1).contains(
        "2:53: warning[certificate]: the certificate in `etc/tls/cert.pem` is not good yet"
    ));
    assert!(of(90_000_000_000).contains("expired"));
    let mut open = given(&listener);
    open.open.push("etc/tls/key.pem".to_owned());
    check_given(
        &open,
        &[
            "2:72: warning[certificate]: the private key in `etc/tls/key.pem` can be read by every user of this machine",
        ],
    );
}

#[test]
fn what_routes_ask_of_tls_is_looked_at() {
    let tls = format!("tls: {{ {PAIR}, client_ca: tls/cert.pem, client_auth: optional }}");
    let with = |tls: &str, route: &str| {
        format!("bind: \":1\", {tls}, routes: [{{ {route} }}, {{ pool: p }}]")
    };
    let print = "fingerprint: '0A:".to_owned() + &"0a:".repeat(30) + "0a'";
    let good = given(&with(
        &tls,
        &format!(
            "client_auth: required, match: {{ sni: \"*.A.example\", client_cert: {{ subject: CN=a, san: [\"DNS:A.b\", \"~x\"], serial: 0A:bc, {print} }} }}, pool: p"
        ),
    ));
    check_given(&good, &[]);
    let snapshot = good.load().snapshot.expect("a good config");
    let Protocol::Http(http) = &snapshot.listeners[0].protocol else {
        panic!("HTTP");
    };
    let required: Vec<_> = http
        .routes
        .iter()
        .map(|it| it.requires_client_cert)
        .collect();
    assert_eq!(required, [true, false]);
    let rule = &http.table.matches()[0];
    let wanted = rule
        .client_cert
        .as_ref()
        .expect("a certificate")
        .to_string();
    let print = "0a".repeat(32);
    assert_eq!(
        wanted,
        format!("subject CN=a and serial 0abc and san DNS:a.b or ~x and fingerprint {print}")
    );
    let refuses = |more: &str| {
        let given = given(&format!("bind: \":1\", pool: p, tls: {{ {PAIR}{more} }}"));
        let snapshot = given.load().snapshot.expect("a good config");
        snapshot.listeners[0].tls[0]
            .as_ref()
            .is_some_and(|tls| tls.refuses_misdirected)
    };
    assert!(!refuses("") && refuses(", misdirected: refuse"));
    assert!(refuses(", client_ca: tls/cert.pem"));
    assert!(!refuses(", client_ca: tls/cert.pem, misdirected: allow"));
}

#[test]
fn what_routes_ask_of_tls_and_cannot_get_is_told() {
    let with = |route: &str| format!("bind: \":1\", routes: [{{ {route} }}]");
    check(
        &with("client_auth: required, pool: p"),
        &[
            "2:25: error[missing]: no client of `l` can show a certificate (give its `tls` a `client_ca`, and `client_auth: optional`)",
        ],
    );
    check(
        &with("match: { sni: a, client_cert: true, not: { client_cert: true } }, pool: p"),
        &[
            "2:34: warning[unreachable]: this route can never match: `l` speaks no TLS",
            "2:42: warning[unreachable]: this route can never match: `l` asks no client for a certificate",
        ],
    );
    check(
        &with("match: { client_cert: { san: a.example, fingerprint: 00 } }, pool: p"),
        &[
            "2:54: error[value]: `a.example` is no name of a certificate (write its kind before it: `DNS:`, `URI:`, `IP:` or `email:`)",
            "2:78: error[value]: a SHA-256 has 64 hexadecimal digits (`openssl x509 -noout -fingerprint -sha256 -in FILE` shows it)",
        ],
    );
    check(
        &with("match: { client_cert: {} }, pool: p"),
        &["2:34: error[empty]: no part to match is given (write `true` for any certificate)"],
    );
    check(
        &with("match: { client_cert: maybe }, pool: p"),
        &[
            "2:47: error[type]: expected `true`, `false`, or a map of its parts, found the text `maybe`",
        ],
    );
    check(
        &with("filters: [{ set_header: { x-a: '{client_cert.sbject}' } }], pool: p"),
        &[
            "2:51: error[value]: unknown placeholder {client_cert.sbject}; expected {host}, {path}, {query}, {source}, {sni}, {client_cert.subject}, {client_cert.issuer}, {client_cert.serial}, {client_cert.san}, {client_cert.fingerprint} or {client_cert.der}",
        ],
    );
}

#[test]
fn from_http_to_https_and_nothing_else() {
    let with = |listener: &str, filters: &str| {
        format!(
            "bind: \":1\", {listener} routes: [{{ match: {{ path: /x }}, filters: [{filters}] }}, {{ pool: p }}]"
        )
    };
    // Who comes to a listener without TLS is sent on: the route needs no pool.
    check(&with("", "{ https_redirect: 8443 }"), &[]);
    check(&with("", "{ https_redirect: {} }"), &[]);
    let tls = format!("tls: {{ {PAIR} }},");
    for listener in [&*tls, "trusted_proxies: [10.0.0.1],"] {
        let found = given(&with(listener, "{ https_redirect: 443 }"))
            .found()
            .join("\n");
        let expected = "error[missing]: who comes to `l` by HTTPS is led nowhere (give the route a `pool` or a `split`)";
        assert!(found.contains(expected), "{found}");
    }
    check(
        &with("", "{ https_redirect: { port: 0, status: 304 } }"),
        &[
            "2:83: error[value]: expected a whole number from 1 to 65535",
            "2:94: error[value]: 304 is no redirect; expected 301, 302, 303, 307 or 308",
        ],
    );
    check(
        &with(
            "",
            "{ hsts: { preload: true, max_age: 364d, include_subdomains: true } }, { https_redirect: 1 }",
        ),
        &[
            "2:76: error[value]: lists of browsers take a host only with `include_subdomains: true` and a `max_age` of 365d or more",
        ],
    );
    check(
        &with("", "{ hsts: { preload: true } }, { https_redirect: 1 }"),
        &["2:65: error[missing]: `hsts` lacks `max_age`"],
    );
    check(&with("", "{ hsts: 365d }, { https_redirect: 1 }"), &[]);
}

#[test]
fn an_answer_of_the_authority_is_shown_while_it_is_good() {
    let listener = "bind: \":1\", pool: p, tls: { certificates: [{ cert: tls/cert.pem, key: tls/key.pem, ocsp: tls/ocsp.der }] }";
    let shown = |given: &Given| {
        let snapshot = given.load().snapshot.expect("a good config");
        let tls = snapshot.listeners[0].tls[0].clone().expect("TLS");
        tls.certificates[0].ocsp.clone()
    };
    let good = given(listener);
    check_given(&good, &[]);
    let staple = shown(&good).expect("a staple");
    assert_eq!(staple.until, Some(Duration::from_secs(4_948_898_264)));
    for (wall, said) in [
        (1_795_298_000, "is not good yet"),
        (4_948_898_264 + 7200, "is out of date since 2 hours"),
    ] {
        let mut given = given(listener);
        given.wall = Some(Duration::from_secs(wall));
        let found = given.found().join("\n");
        let expected = format!(
            "2:91: warning[certificate]: the answer in `etc/tls/ocsp.der` {said} (it is not shown to clients)"
        );
        assert!(found.contains(&expected), "{found}");
        assert_eq!(shown(&given), None);
    }
    // About another certificate: the last byte of the serial number is another one.
    let real = include_bytes!("tls/ocsp.der");
    let serial = [0x51, 0xc9, 0xa1];
    let at = real
        .windows(3)
        .position(|found| found == serial)
        .expect("the serial");
    let mut other = real.to_vec();
    other[at + 2] ^= 1;
    let other = given(listener).bytes("etc/tls/ocsp.der", &other);
    check_given(
        &other,
        &[
            "2:91: warning[certificate]: the answer in `etc/tls/ocsp.der` is about another certificate than `cert` (it is not shown to clients)",
        ],
    );
    assert_eq!(shown(&other), None);
    let refused = given(listener).bytes("etc/tls/ocsp.der", &[0x30, 3, 0x0a, 1, 3]);
    check_given(
        &refused,
        &[
            "2:91: warning[certificate]: in `etc/tls/ocsp.der` the authority refuses an answer (status 3) (it is not shown to clients)",
        ],
    );
    let nonsense = given(listener).bytes("etc/tls/ocsp.der", b"nonsense");
    check_given(
        &nonsense,
        &[
            "2:91: error[certificate]: there is no answer of an authority (OCSP, DER) in `etc/tls/ocsp.der` (`openssl ocsp -respout FILE` writes one)",
        ],
    );
}

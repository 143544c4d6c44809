//! Automatic certificates: what is read, and what is said of what cannot be asked for.

use super::{Given, check_given};
use crate::{Challenge, Issuer, Snapshot, Trust};

const POOLS: &str = "pools: { p: { servers: [127.0.0.1:2] } }\n";

fn given(listeners: &str) -> Given {
    Given::main(&format!("listeners:\n{listeners}\n{POOLS}"))
        .file("etc/hmac", "Zm9v\n")
        .file("etc/bad", "not a key!")
}

/// What is found in `acme: { … }` of a TLS listener beside a plain one.
#[track_caller]
fn check(acme: &str, expected: &[&str]) {
    let text = format!(
        "  plain: {{ bind: \":1\", pool: p }}\n  l: {{ bind: \":2\", pool: p, tls: {{\n    acme: {{ {acme} }} }} }}"
    );
    check_given(&given(&text), expected);
}

fn load(listeners: &str) -> Snapshot {
    let given = given(listeners);
    check_given(&given, &[]);
    given.load().snapshot.expect("a good config")
}

fn issuer(snapshot: &Snapshot, listener: usize) -> &Issuer {
    let tls = snapshot.listeners[listener].tls[0].as_ref().expect("TLS");
    &tls.acme.as_ref().expect("acme").issuer
}

fn domains(snapshot: &Snapshot, listener: usize) -> Vec<&str> {
    let tls = snapshot.listeners[listener].tls[0].as_ref().expect("TLS");
    let acme = tls.acme.as_ref().expect("acme");
    acme.domains.iter().map(|domain| &**domain).collect()
}

#[test]
fn little_is_enough() {
    let snapshot = load(
        "  plain: { bind: \":80\", pool: p }\n  l: { bind: \":443\", routes: [{ match: { host: a.example, path: /x }, pool: p }, { match: { host: [A.example, b.example] }, pool: p }], tls: { acme: {} } }",
    );
    assert_eq!(domains(&snapshot, 1), ["a.example", "b.example"]);
    let issuer = issuer(&snapshot, 1);
    assert_eq!(&*issuer.directory, crate::defaults::ACME_DIRECTORY);
    assert_eq!(
        (&*issuer.host, issuer.port),
        ("acme-v02.api.letsencrypt.org", 443)
    );
    assert_eq!(issuer.challenge, Challenge::Http01);
    assert_eq!(issuer.trust.trust, Trust::System);
    assert_eq!(
        issuer.file("a.example"),
        "/var/lib/evenkeel/acme/acme-v02.api.letsencrypt.org_directory/a.example.pem"
    );
}

#[test]
fn everything_can_be_said() {
    let snapshot = load(
        "  l: { bind: \":443\", protocol: tcp, pool: p, tls: { acme: { email: [a@example.org, \"mailto:b@example.org\"], directory: \"https://ca.internal:9000/acme/dir\", ca: tls/cert.pem, domains: [One.example., two.example], challenge: tls-alpn-01, store: certs/, external_account: { id: kid, key_file: hmac } } } }",
    );
    assert_eq!(domains(&snapshot, 0), ["one.example", "two.example"]);
    let issuer = issuer(&snapshot, 0);
    let contacts: Vec<&str> = issuer.contacts.iter().map(|it| &**it).collect();
    assert_eq!(contacts, ["mailto:a@example.org", "mailto:b@example.org"]);
    assert_eq!(&*issuer.folder, "etc/certs/ca.internal_9000_acme_dir");
    assert!(matches!(&issuer.trust.trust, Trust::Authorities(all) if all.len() == 1));
    let account = issuer.external_account.as_ref().expect("an account");
    assert_eq!((&*account.id, &*account.key), ("kid", b"foo".as_slice()));
    assert!(!format!("{snapshot:?}").contains("102, 111, 111"));
}

#[test]
fn without_a_plain_listener_names_are_proved_by_tls() {
    let snapshot = load("  l: { bind: \":443\", pool: p, tls: { acme: { domains: a.example } } }");
    assert_eq!(issuer(&snapshot, 0).challenge, Challenge::TlsAlpn01);
    check_given(
        &given(
            "  l: { bind: \":443\", pool: p, tls: { acme: { domains: a.example, challenge: http-01 } } }",
        ),
        &[
            "2:77: warning[certificate]: no HTTP listener here is without TLS, so somebody else has to answer for `http-01`",
        ],
    );
}

#[test]
fn files_go_before_and_patterns_of_hosts_are_told_of() {
    let routes =
        "routes: [{ match: { host: [a.example, new.example, \"*.c.example\"] }, pool: p }]";
    let tls = "tls: { certificates: [{ cert: tls/cert.pem, key: tls/key.pem }], acme: {} }";
    let given = given(&format!(
        "  plain: {{ bind: \":80\", pool: p }}\n  l: {{ bind: \":443\", {routes}, {tls} }}"
    ));
    check_given(
        &given,
        &[
            "3:3: warning[certificate]: `acme` of `l` gets certificates for plain names: a route there is for a pattern of hosts",
            "3:73: warning[certificate]: the route `1` of `l` is for `*.c.example`, which no certificate there bears",
        ],
    );
    let snapshot = given.load().snapshot.expect("a good config");
    assert_eq!(domains(&snapshot, 1), ["new.example"]);
}

#[test]
fn one_folder_has_one_account() {
    let two = |second: &str| {
        format!(
            "  l: {{ bind: \":1\", pool: p, tls: {{ acme: {{ domains: a.example, email: a@example.org }} }} }}\n  m: {{ bind: \":2\", pool: p, tls: {{ acme: {{ domains: b.example, {second} }} }} }}"
        )
    };
    let snapshot = load(&two("email: a@example.org"));
    assert!(std::ptr::eq(issuer(&snapshot, 0), issuer(&snapshot, 1)));
    load(&two("email: b@example.org, store: other"));
    check_given(
        &given(&two("email: b@example.org")),
        &[
            "3:36: error[conflict]: this `acme` has the directory and the store of another one (etc/main.yaml:2:36), and is not like it otherwise (they share one account: make them alike, or give this one another `store`)",
        ],
    );
}

#[test]
fn what_cannot_be_asked_for_is_told() {
    check(
        "domains: [\"*.a.example\", 127.0.0.1, bücher.example, a..b, a.example, A.example]",
        &[
            "4:23: error[value]: `*.a.example`: a wildcard is proved by DNS, which is not supported by this version; name the hosts",
            "4:38: error[value]: `127.0.0.1`: certificates are for names, not for addresses",
            "4:49: error[value]: `bücher.example`: write the name as DNS has it (`xn--…`)",
            "4:65: error[value]: `a..b` is no name that a certificate can bear",
            "4:82: error[duplicate]: `a.example` is given twice",
        ],
    );
    check(
        "domains: a.example, directory: \"http://ca.example/dir\"",
        &[
            "4:44: error[value]: `http://ca.example/dir` is no URL of an ACME directory: it begins with `https://`, as in `https://acme-v02.api.letsencrypt.org/directory`",
        ],
    );
    check(
        "domains: a.example, email: [admin, \"a@example.org,b@example.org\"]",
        &[
            "4:41: error[value]: `admin` is no address of mail, as `admin@example.com` is",
            "4:48: error[value]: `a@example.org,b@example.org` is no address of mail, as `admin@example.com` is",
        ],
    );
    check(
        "domains: a.example, challenge: dns-01, mail: x",
        &[
            "4:44: error[value]: `dns-01` is not a challenge (known: `http-01`, `tls-alpn-01`)",
            "4:52: error[unknown_key]: unknown key `mail` in `acme` (did you mean `email`?)",
        ],
    );
    check(
        "domains: a.example, external_account: { id: x, key_file: bad }",
        &["4:70: error[certificate]: there is no key in `etc/bad`: it should hold base64url text"],
    );
    check(
        "",
        &[
            "3:3: error[missing]: `acme` of `l` has no name to get a certificate for (give it `domains`, or the routes a `host`)",
        ],
    );
}

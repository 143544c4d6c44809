//! Who clients are: their certificates in headers, in matches and as a condition of a route; and requests that belong on
//! another connection.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
    SerialNumber,
};
use rustls::{ClientConfig, HandshakeKind};
use testkit::{Evenkeel, Origin, TempDir, missing, reply};

use crate::command::BINARY;
use crate::life_support::{assert_metric, reload, web};
use crate::tls_support::{Authority, Issued, Wants, config, send, sha256, shake};

/// A listener whose clients may show a certificate of `clients.pem`; `routes` are the lines below `routes:`.
fn text(tls: &str, routes: &str, origin: &Origin) -> String {
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web:
    bind: '127.0.0.1:0'
    tls: {{ certificates: [{{ cert: a.pem, key: a.key }}, {{ cert: b.pem, key: b.key }}]{tls} }}
    routes:
{routes}
pools:
  site: {{ servers: ['{}'], health_check: off }}
",
        origin.address()
    )
}

const OPTIONAL: &str = ", client_ca: clients.pem, client_auth: optional";

fn start(text: &str, authority: &Authority, clients: &Authority) -> Evenkeel {
    let (a, b) = (
        authority.issue(&["a.example", "also-a.example"]),
        authority.issue(&["b.example"]),
    );
    Evenkeel::start_with(BINARY, text, |command| {
        let folder = command.get_current_dir().expect("a folder").to_owned();
        for (name, issued) in [("a", &a), ("b", &b)] {
            std::fs::write(folder.join(format!("{name}.pem")), &issued.cert).expect("written");
            std::fs::write(folder.join(format!("{name}.key")), &issued.key).expect("written");
        }
        std::fs::write(folder.join("clients.pem"), &clients.pem).expect("written");
    })
    .expect("evenkeel starts")
}

fn origin() -> Origin {
    Origin::http(|request| reply(200, request.header("x-route").unwrap_or("none")))
        .expect("an origin")
}

/// A certificate with every part that is told of.
fn rich(clients: &Authority) -> Issued {
    clients.issue_with(&["Client.example"], &PKCS_ECDSA_P256_SHA256, describe)
}

fn describe(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, "Zoë, \"ops\"");
    name.push(DnType::OrganizationName, "Example + Sons");
    params.serial_number = Some(SerialNumber::from(vec![0x0a, 0xbc, 0xde]));
    let uri = "spiffe://example/ns/ops/sa/deploy".try_into();
    let address = "10.1.2.3".parse().expect("an address");
    let more = [
        SanType::URI(uri.expect("a URI")),
        SanType::IpAddress(address),
    ];
    params.subject_alt_names.extend(more);
}

fn of(authority: &Authority, shows: Option<&Issued>) -> Arc<ClientConfig> {
    let wants = Wants {
        shows,
        ..Wants::default()
    };
    config(authority, &wants)
}

fn get(
    address: SocketAddr,
    sni: &str,
    config: &Arc<ClientConfig>,
    fields: &[&str],
) -> testkit::Response {
    let mut tls = shake(address, sni, config).expect("a session");
    send(&mut tls, "GET /", fields)
}

/// What openssl says of a certificate.
fn openssl(issued: &Issued, args: &[&str]) -> String {
    let dir = TempDir::new("openssl").expect("a folder");
    let file = dir.write("cert.pem", &issued.cert).expect("written");
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-in"]).arg(file).args(args);
    let finished = testkit::run(command, std::time::Duration::from_secs(20)).expect("openssl runs");
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let text = finished.text();
    let (_, value) = text.trim_end().split_once('=').expect("a value");
    value.to_owned()
}

const TOLD: &str = "      - filters:
          - set_header:
              X-Client-Subject: '{client_cert.subject}'
              x-client-issuer: '{client_cert.issuer}'
              x-client-serial: '{client_cert.serial}'
              x-client-san: '{client_cert.san}'
              x-client-fingerprint: '{client_cert.fingerprint}'
              client-cert: '{client_cert.der}'
              x-asked: '{sni} from {source}'
        pool: site";

#[test]
fn servers_hear_who_a_client_is_and_from_nobody_else() {
    if missing("openssl") {
        return;
    }
    let (authority, clients) = (
        Authority::new("the authority"),
        Authority::new("of clients"),
    );
    let origin = origin();
    let evenkeel = start(&text(OPTIONAL, TOLD, &origin), &authority, &clients);
    let known = rich(&clients);
    let names = [
        "x-client-subject",
        "x-client-issuer",
        "x-client-serial",
        "x-client-san",
        "x-client-fingerprint",
        "client-cert",
    ];
    // What a client says itself of these counts for nothing, in any spelling that a server might take for them.
    let lies = [
        "Host: a.example",
        "x-client-SUBJECT: CN=root",
        "X_Client_Subject: CN=root",
        "x-client_san: DNS:root",
        "Client-Cert: :AAAA:",
        "x-client-fingerprint: 00",
    ];
    let shows = of(&authority, Some(&known));
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut tls = shake(web(&evenkeel), "a.example", &shows).expect("a session");
        assert_eq!(send(&mut tls, "GET /", &lies).status, 200);
        assert_eq!(tls.conn.handshake_kind(), Some(kind));
        let seen = origin.seen().pop().expect("a request");
        let value = |name: &str| seen.headers.all(name).join("|");
        let by_rfc = ["-nameopt", "RFC2253", "-subject"];
        assert_eq!(value("x-client-subject"), openssl(&known, &by_rfc));
        assert_eq!(value("x-client-issuer"), "CN=of clients");
        assert_eq!(value("x-client-serial"), "0abcde");
        assert_eq!(
            value("x-client-san"),
            "DNS:client.example, URI:spiffe://example/ns/ops/sa/deploy, IP:10.1.2.3"
        );
        let fingerprint = openssl(&known, &["-fingerprint", "-sha256"]);
        let fingerprint = fingerprint.replace(':', "").to_lowercase();
        assert_eq!(value("x-client-fingerprint"), fingerprint);
        let body: String = known
            .cert
            .lines()
            .filter(|line| !line.contains("--"))
            .collect();
        assert_eq!(value("client-cert"), format!(":{}:", body.trim()));
        assert_eq!(value("x-asked"), "a.example from 127.0.0.1");
        assert_eq!(value("x_client_subject") + &value("x-client_san"), "");
    }
    // Who shows none is nobody.
    let answer = get(web(&evenkeel), "a.example", &of(&authority, None), &lies);
    assert_eq!(answer.status, 200);
    let seen = origin.seen().pop().expect("a request");
    for name in names.iter().chain(&["x_client_subject", "x-client_san"]) {
        assert_eq!(seen.headers.get(name), None, "{name}");
    }
    assert_eq!(seen.header("x-asked"), Some("a.example from 127.0.0.1"));
}

#[test]
fn a_route_may_be_for_clients_with_a_certificate_alone() {
    let (authority, clients) = (
        Authority::new("the authority"),
        Authority::new("of clients"),
    );
    let origin = origin();
    let routes = "      - { match: { path: /own }, client_auth: required, pool: site }
      - pool: site";
    let evenkeel = start(&text(OPTIONAL, routes, &origin), &authority, &clients);
    let known = clients.issue_for_client("known");
    let ask = |shows: Option<&Issued>, path: &str| {
        let config = of(&authority, shows);
        let mut tls = shake(web(&evenkeel), "a.example", &config).expect("a session");
        send(&mut tls, &format!("GET {path}"), &["Host: a.example"])
    };
    let refused = ask(None, "/own");
    assert_eq!(refused.status, 403);
    assert_eq!(
        refused.header("x-evenkeel-reason"),
        Some("client_certificate")
    );
    assert_eq!(ask(None, "/other").status, 200);
    assert_eq!(ask(Some(&known), "/own").status, 200);
    assert_eq!(origin.requests(), 2);
    let series = "evenkeel_errors_total{reason=\"client_certificate\"}";
    assert_metric(&evenkeel, series, 1.0);
    // Taken away by a reload, for connections that are open already too.
    let mut open = shake(web(&evenkeel), "a.example", &of(&authority, None)).expect("a session");
    reload(&evenkeel, &text(OPTIONAL, "      - pool: site", &origin));
    assert_eq!(
        send(&mut open, "GET /own", &["Host: a.example"]).status,
        200
    );
}

#[test]
fn routes_are_chosen_by_certificate_and_by_the_name_asked_for() {
    let (authority, clients) = (
        Authority::new("the authority"),
        Authority::new("of clients"),
    );
    let origin = origin();
    let (ops, dev) = (rich(&clients), clients.issue_for_client("dev.example"));
    let hex = |issued: &Issued| -> String {
        let digest = sha256(&issued.der());
        digest.iter().map(|byte| format!("{byte:02X}:")).collect()
    };
    let route = |name: &str, rule: &str| {
        format!(
            "      - {{ match: {{ {rule} }}, filters: [{{ set_header: {{ x-route: {name} }} }}], pool: site }}\n"
        )
    };
    let routes = [
        route("asked", "sni: also-a.example, client_cert: false"),
        route(
            "ops",
            "client_cert: { san: 'URI:spiffe://example/ns/ops/*', subject: '~CN=Zo' }",
        ),
        route(
            "dev",
            &format!(
                "client_cert: {{ fingerprint: '{}' }}",
                hex(&dev).trim_end_matches(':')
            ),
        ),
        route("any", "client_cert: true"),
        route("rest", "host: '*'"),
    ]
    .concat();
    let evenkeel = start(&text(OPTIONAL, &routes, &origin), &authority, &clients);
    let other = clients.issue_for_client("other.example");
    for (sni, shows, expected) in [
        ("a.example", Some(&ops), "ops"),
        ("a.example", Some(&dev), "dev"),
        ("also-a.example", Some(&other), "any"),
        ("also-a.example", None, "asked"),
        ("a.example", None, "rest"),
    ] {
        let answer = get(
            web(&evenkeel),
            sni,
            &of(&authority, shows),
            &["Host: a.example"],
        );
        assert_eq!(answer.text(), expected, "{sni}");
    }
}

#[test]
fn a_request_for_a_host_that_its_connection_was_not_shown_is_sent_away() {
    let (authority, clients) = (
        Authority::new("the authority"),
        Authority::new("of clients"),
    );
    let origin = origin();
    let routes = "      - pool: site";
    let evenkeel = start(&text(OPTIONAL, routes, &origin), &authority, &clients);
    let ask = |sni: &str, host: &str| {
        let host = format!("Host: {host}");
        let answer = get(web(&evenkeel), sni, &of(&authority, None), &[&host]);
        (
            answer.status,
            answer.header("x-evenkeel-reason").map(str::to_owned),
        )
    };
    let (well, sent_away) = ((200, None), (421, Some("misdirected".to_owned())));
    assert_eq!(ask("a.example", "A.example:443"), well);
    // One certificate bears both, as browsers know.
    assert_eq!(ask("a.example", "also-a.example"), well);
    assert_eq!(ask("a.example", "b.example"), sent_away);
    assert_eq!(ask("b.example", "a.example"), sent_away);
    assert_eq!(ask("b.example", "nobody.example"), sent_away);
    assert_eq!(ask("a.example", "[::1]"), sent_away);
    reload(
        &evenkeel,
        &text(&format!("{OPTIONAL}, misdirected: allow"), routes, &origin),
    );
    assert_eq!(ask("a.example", "b.example"), well);
    // Without client certificates nothing hangs on it, unless that is wished for.
    reload(&evenkeel, &text("", routes, &origin));
    assert_eq!(ask("a.example", "b.example"), well);
    reload(&evenkeel, &text(", misdirected: refuse", routes, &origin));
    assert_eq!(ask("a.example", "b.example"), sent_away);
    assert_eq!(ask("a.example", "a.example"), well);
}

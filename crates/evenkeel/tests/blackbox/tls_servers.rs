//! TLS to servers: who is believed, what is shown, and what becomes of those that are not.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::ensure;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use testkit::{Conn, Evenkeel, Nginx, Origin, TempDir, missing, wait_until};

use crate::command::BINARY;
use crate::life_support::{SOON, admin_get, connect, metric, reload, server, web};
use crate::tls_support::{Authority, Issued, Wants, ask_once, config, shake};

/// nginx that speaks TLS on the port of its plain one, with a certificate; `more` goes into its server block.
struct Server {
    nginx: Nginx,
    _dir: TempDir,
}

impl Server {
    fn start(name: &str, issued: &Issued, more: &str) -> Self {
        let dir = TempDir::new("server").expect("a folder");
        issued.write(&dir, "server");
        let path = dir.path().display();
        let snippet = format!(
            "ssl_certificate {path}/server.pem; ssl_certificate_key {path}/server.key; {more}
location = /seen {{ return 200 \"$ssl_server_name $ssl_client_s_dn $ssl_protocol $connection\"; }}"
        );
        let nginx = Nginx::start_tls(name, &snippet).expect("nginx starts");
        Self { nginx, _dir: dir }
    }

    fn address(&self) -> SocketAddr {
        self.nginx.address()
    }
}

fn text(servers: &[SocketAddr], tls: &str, more: &str) -> String {
    let servers: Vec<_> = servers.iter().map(|it| format!("'{it}'")).collect();
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
workers: 1
listeners:
  web: {{ bind: '127.0.0.1:0', pool: site }}
pools:
  site: {{ servers: [{}], tls: {tls}, outlier_detection: off{more} }}
",
        servers.join(", ")
    )
}

fn start(authority: &Authority, client: Option<&Issued>, text: &str) -> Evenkeel {
    Evenkeel::start_with(BINARY, text, |command| {
        let folder = command.get_current_dir().expect("a folder").to_owned();
        std::fs::write(folder.join("ca.pem"), &authority.pem).expect("written");
        if let Some(client) = client {
            std::fs::write(folder.join("client.pem"), &client.cert).expect("written");
            std::fs::write(folder.join("client.key"), &client.key).expect("written");
        }
    })
    .expect("evenkeel starts")
}

/// A server of TLS 1.3 that believes no certificate of ours: its client hears of it when the handshake is over for that one,
/// and its request on its way.
fn distrustful(issued: &Issued) -> Origin {
    let config = asking(issued, &Authority::new("nobody"), 2);
    let serve = move |conn: &mut Conn| {
        let mut tls = ServerConnection::new(config.clone())?;
        let shaken = tls.complete_io(&mut conn.stream());
        ensure!(shaken.is_err(), "the client was believed");
        conn.half_close()?;
        // Closed on what was not read it would be a reset, which takes the alert away.
        conn.read_to_end()?;
        Ok(())
    };
    Origin::start(serve).expect("a server")
}

/// A server of TLS 1.3 that believes clients of `authority`, gives so many tickets, and says nothing else.
fn trusting(issued: &Issued, authority: &Authority, tickets: usize) -> Origin {
    let config = asking(issued, authority, tickets);
    let serve = move |conn: &mut Conn| {
        let mut tls = ServerConnection::new(config.clone())?;
        tls.complete_io(&mut conn.stream())?;
        conn.read_to_end()?;
        Ok(())
    };
    Origin::start(serve).expect("a server")
}

/// What a server of TLS 1.3 does that asks clients for a certificate of `authority`.
fn asking(issued: &Issued, authority: &Authority, tickets: usize) -> Arc<ServerConfig> {
    let believed = CertificateDer::from_pem_slice(authority.pem.as_bytes());
    let mut roots = RootCertStore::empty();
    roots
        .add(believed.expect("a certificate"))
        .expect("one to believe");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(vec![issued.der()], key);
    let mut config = config.expect("a config");
    config.send_tls13_tickets = tickets;
    // For those who offer it.
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

#[test]
fn a_request_that_is_on_its_way_when_a_server_refuses_this_ends_certificate_goes_elsewhere() {
    if missing("nginx") {
        return;
    }
    let authority = Authority::new("the authority");
    let issued = authority.issue(&["127.0.0.1"]);
    let (distrustful, other) = (distrustful(&issued), Server::start("a", &issued, ""));
    let client = authority.issue_for_client("evenkeel");
    let tls = "{ ca: ca.pem, client: { cert: client.pem, key: client.key } }";
    let started = |servers: &[SocketAddr]| {
        let more = format!("{NO_PROBES}, balance: round_robin");
        start(&authority, Some(&client), &text(servers, tls, &more))
    };
    let post = "POST /seen HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let evenkeel = started(&[distrustful.address(), other.address()]);
    for _ in 0..4 {
        let answer = connect(web(&evenkeel)).exchange(post).expect("an answer");
        assert_eq!(answer.status, 200, "{answer}");
    }
    assert!(distrustful.connections() >= 2, "it was asked");
    let evenkeel = started(&[distrustful.address()]);
    for request in [post, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut client = connect(web(&evenkeel));
        let answer = client.exchange(request).expect("an answer");
        let reason = answer.header("x-evenkeel-reason");
        assert_eq!((answer.status, reason), (502, Some("server_handshake")));
    }
}

#[test]
fn the_log_says_in_words_what_was_wrong_with_a_server() {
    if missing("nginx") {
        return;
    }
    let authority = Authority::new("the authority");
    let issued = authority.issue(&["127.0.0.1"]);
    let distrustful = distrustful(&issued);
    let good = Server::start("good", &issued, "");
    let named = Server::start("named", &authority.issue(&["elsewhere.example"]), "");
    let plain = Nginx::start("plain", "").expect("nginx starts");
    let client = authority.issue_for_client("evenkeel");
    let shows = "{ ca: ca.pem, client: { cert: client.pem, key: client.key } }";
    let alone = [
        (named.address(), "", "TLS: invalid peer certificate: "),
        (plain.address(), "", "TLS: received corrupt message"),
        (distrustful.address(), "", "TLS: received fatal alert: "),
        (
            distrustful.address(),
            ", http: 2",
            "TLS: received fatal alert: ",
        ),
        (
            good.address(),
            ", http: 2",
            "TLS: received fatal alert: NoApplicationProtocol",
        ),
    ];
    for (server, http, words) in alone {
        let text = text(&[server], shows, &format!("{NO_PROBES}{http}"));
        let mut evenkeel = start(&authority, Some(&client), &text);
        assert_eq!(refused(&evenkeel).0, 502, "{words}");
        let expected = format!("\"detail\":\"{server}: {words}");
        evenkeel.wait_log(&expected, SOON).expect("words");
    }
    // Where another server has answered.
    let servers = [distrustful.address(), good.address()];
    let more = format!("{NO_PROBES}, balance: round_robin");
    let text = format!(
        "access_log: {{ to: stderr }}\n{}",
        text(&servers, shows, &more)
    );
    let mut evenkeel = start(&authority, Some(&client), &text);
    for _ in 0..2 {
        seen(&evenkeel);
    }
    let tried = format!(
        "\"failed\":[{{\"server\":\"{}\",\"cause\":\"server_handshake\",\"detail\":\"TLS: received fatal alert: ",
        distrustful.address()
    );
    evenkeel.wait_log(&tried, SOON).expect("words");
}

const NO_PROBES: &str = ", health_check: off";

fn seen(evenkeel: &Evenkeel) -> String {
    let answer = connect(web(evenkeel)).get("/seen").expect("an answer");
    assert_eq!(answer.status, 200, "{answer}");
    answer.text()
}

fn refused(evenkeel: &Evenkeel) -> (u16, String) {
    let answer = connect(web(evenkeel)).get("/seen").expect("an answer");
    let reason = answer
        .header("x-evenkeel-reason")
        .unwrap_or_default()
        .to_owned();
    (answer.status, reason)
}

#[test]
fn a_server_is_asked_by_name_verified_and_used_again() {
    if missing("nginx") {
        return;
    }
    let authority = Authority::new("the authority");
    for (more, version) in [
        ("ssl_protocols TLSv1.2;", "TLSv1.2"),
        ("ssl_protocols TLSv1.2 TLSv1.3;", "TLSv1.3"),
    ] {
        let nginx = Server::start("a", &authority.issue(&["localhost", "127.0.0.1"]), more);
        let port = nginx.address().port();
        let by_ip = text(&[nginx.address()], "{ ca: ca.pem }", NO_PROBES);
        let by_name = by_ip.replace(&format!("127.0.0.1:{port}"), &format!("localhost:{port}"));
        let evenkeel = start(&authority, None, &by_name);
        let first = seen(&evenkeel);
        assert!(first.starts_with("localhost "), "{first}");
        assert!(first.contains(version), "{first}");
        for _ in 0..5 {
            assert_eq!(seen(&evenkeel), first, "the same connection");
        }
        let large = connect(web(&evenkeel)).get("/1m").expect("an answer");
        assert_eq!(large.body.len(), 1 << 20);
        assert_eq!(&large.body[..64], &large.body[large.body.len() - 64..]);
    }
}

#[test]
fn certificates_that_are_not_to_be_believed_are_refused_and_counted() {
    if missing("nginx") {
        return;
    }
    let (authority, stranger) = (
        Authority::new("the authority"),
        Authority::new("a stranger"),
    );
    let cases = [
        ("expired", authority.issue_expired(&["127.0.0.1"])),
        ("another name", authority.issue(&["elsewhere.example"])),
        ("nobody known", stranger.issue(&["127.0.0.1"])),
    ];
    for (what, issued) in cases {
        let nginx = Server::start("a", &issued, "");
        let evenkeel = start(
            &authority,
            None,
            &text(&[nginx.address()], "{ ca: ca.pem }", NO_PROBES),
        );
        let expected = (502, "server_certificate".to_owned());
        assert_eq!(refused(&evenkeel), expected, "{what}");
        let series = "evenkeel_errors_total{reason=\"server_certificate\"}";
        assert!(metric(&evenkeel, series) >= 1.0, "{what}");
        let retries = metric(&evenkeel, "evenkeel_retries_total{");
        assert_eq!(retries, 0.0, "{what}: there is nobody else");

        // The same server serves once nobody asks who it is; and no longer once somebody does.
        let told = reload(
            &evenkeel,
            &text(&[nginx.address()], "{ insecure: true }", NO_PROBES),
        );
        assert!(told.contains("1 pool changed"), "{told}");
        seen(&evenkeel);
        reload(
            &evenkeel,
            &text(&[nginx.address()], "{ ca: ca.pem }", NO_PROBES),
        );
        assert_eq!(
            refused(&evenkeel),
            expected,
            "{what}: no connection is used on"
        );
    }
    // The system's own authorities know none of these.
    let nginx = Server::start("a", &authority.issue(&["localhost", "127.0.0.1"]), "");
    let dir = TempDir::new("roots").expect("a folder");
    let roots = dir.write("roots.pem", &stranger.pem).expect("written");
    let evenkeel = Evenkeel::start_with(BINARY, &text(&[nginx.address()], "on", NO_PROBES), |it| {
        it.env("SSL_CERT_FILE", &roots);
    })
    .expect("evenkeel starts");
    assert_eq!(refused(&evenkeel).1, "server_certificate");
}

#[test]
fn a_name_may_be_pinned_and_a_certificate_shown() {
    if missing("nginx") {
        return;
    }
    let authority = Authority::new("the authority");
    let issued = authority.issue(&["site.internal"]);
    let ca = TempDir::new("ca").expect("a folder");
    let file = ca.write("ca.pem", &authority.pem).expect("written");
    let asks = format!(
        "ssl_verify_client on; ssl_client_certificate {};",
        file.display()
    );
    let nginx = Server::start("a", &issued, &asks);
    let client = authority.issue_for_client("the balancer");
    let pinned =
        "{ ca: ca.pem, server_name: site.internal, client: { cert: client.pem, key: client.key } }";
    let evenkeel = start(
        &authority,
        Some(&client),
        &text(&[nginx.address()], pinned, NO_PROBES),
    );
    let answer = seen(&evenkeel);
    assert!(
        answer.starts_with("site.internal CN=the balancer"),
        "{answer}"
    );
}

#[test]
fn a_server_without_tls_is_no_server_and_others_take_its_traffic() {
    if missing("nginx") {
        return;
    }
    let authority = Authority::new("the authority");
    let plain = Nginx::start("plain", "").expect("nginx starts");
    let good = Server::start("good", &authority.issue(&["localhost", "127.0.0.1"]), "");
    let evenkeel = start(
        &authority,
        None,
        &text(
            &[plain.address(), good.address()],
            "{ ca: ca.pem }",
            NO_PROBES,
        ),
    );
    for _ in 0..6 {
        // A POST too: nothing was sent to the one that shook no hands.
        let answer = connect(web(&evenkeel))
            .exchange("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
            .expect("an answer");
        assert_eq!(answer.text(), "good\n");
    }
    let series = "evenkeel_retries_total{pool=\"site\",cause=\"server_handshake\"}";
    assert!(metric(&evenkeel, series) >= 1.0);
    reload(
        &evenkeel,
        &text(&[plain.address()], "{ ca: ca.pem }", NO_PROBES),
    );
    assert_eq!(refused(&evenkeel), (502, "server_handshake".to_owned()));
}

#[test]
fn probes_speak_tls_too_and_say_what_was_wrong() {
    if missing("nginx") {
        return;
    }
    let authority = Authority::new("the authority");
    let good = Server::start("good", &authority.issue(&["localhost", "127.0.0.1"]), "");
    let expired = Server::start("expired", &authority.issue_expired(&["127.0.0.1"]), "");
    let probes =
        ", health_check: { path: /health, interval: 200ms, timeout: 2s, unhealthy_threshold: 1 }";
    let evenkeel = start(
        &authority,
        None,
        &text(
            &[good.address(), expired.address()],
            "{ ca: ca.pem }",
            probes,
        ),
    );
    let health = |at: &Server| {
        let server = server(&evenkeel, "site", &at.address().to_string());
        let text = |key: &str| {
            server
                .get(key)
                .and_then(|it| it.as_str())
                .unwrap_or_default()
                .to_owned()
        };
        (text("health"), text("cause"))
    };
    wait_until("both are judged", SOON, || {
        health(&good).0 == "healthy" && health(&expired).0 == "unhealthy"
    })
    .unwrap_or_else(|error| {
        panic!(
            "{error}: {}",
            admin_get(&evenkeel, "/api/v1/pools/site/servers")
        )
    });
    let (_, cause) = health(&expired);
    assert!(cause.contains("TLS") && cause.contains("xpired"), "{cause}");
}

#[test]
fn a_probe_that_asks_for_nothing_hears_of_a_certificate_that_is_refused() {
    let authority = Authority::new("the authority");
    let issued = authority.issue(&["127.0.0.1"]);
    let servers = [
        distrustful(&issued),
        trusting(&issued, &authority, 2),
        trusting(&issued, &authority, 0),
    ];
    let addresses = servers.each_ref().map(Origin::address);
    let client = authority.issue_for_client("evenkeel");
    // The last of them says nothing, and half of so short a time is enough to tell.
    let probes = ", health_check: { interval: 200ms, timeout: 400ms, unhealthy_threshold: 1 }";
    let shows = "{ ca: ca.pem, client: { cert: client.pem, key: client.key } }";
    for (tls, good) in [(shows, true), ("{ ca: ca.pem }", false)] {
        let evenkeel = start(&authority, Some(&client), &text(&addresses, tls, probes));
        let health = |at: &SocketAddr| {
            let server = server(&evenkeel, "site", &at.to_string());
            let text = |key: &str| server[key].as_str().unwrap_or_default().to_owned();
            (text("health"), text("cause"))
        };
        let believed = if good { "healthy" } else { "unhealthy" };
        wait_until("all are judged", SOON, || {
            let healths = addresses.each_ref().map(|at| health(at).0);
            healths == ["unhealthy", believed, believed]
        })
        .unwrap_or_else(|error| {
            let servers = admin_get(&evenkeel, "/api/v1/pools/site/servers");
            panic!("{error}, with {tls}: {servers}")
        });
        let (_, cause) = health(&addresses[0]);
        assert!(cause.starts_with("TLS: received fatal alert"), "{cause}");
    }
}

#[test]
fn both_sides_at_once() {
    if missing("nginx") {
        return;
    }
    let authority = Authority::new("the authority");
    let nginx = Server::start("behind", &authority.issue(&["localhost", "127.0.0.1"]), "");
    let own = authority.issue(&["front.example"]);
    let text = text(&[nginx.address()], "{ ca: ca.pem }", NO_PROBES).replace(
        "web: { bind",
        "web: { tls: { certificates: [{ cert: client.pem, key: client.key }] }, bind",
    );
    let evenkeel = start(&authority, Some(&own), &text);
    let config = config(&authority, &Wants::default());
    let mut tls = shake(web(&evenkeel), "front.example", &config).expect("a session");
    let answer = ask_once(&mut tls, "front.example").expect("an answer");
    assert!(answer.ends_with("behind\n"), "{answer}");
}

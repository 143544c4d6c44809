//! Sessions: resumed on any worker, and only where the same rules hold; clients that show who they are.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::{ClientConfig, HandshakeKind};
use testkit::{Evenkeel, Origin, reply};

use crate::command::BINARY;
use crate::life_support::{reload, web};
use crate::tls_support::{Authority, Issued, Wants, ask_once, config, shake};
use crate::upgrade::upgrade;

fn text(web: &str, other: &str, origin: &Origin) -> String {
    let pair = "certificates: [{ cert: a.pem, key: a.key }]";
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
workers: 3
listeners:
  web: {{ bind: '127.0.0.1:0', tls: {{ {pair}{web} }}, pool: site }}
  other: {{ bind: '127.0.0.2:0', tls: {{ {pair}{other} }}, pool: site }}
pools:
  site: {{ servers: ['{}'], health_check: off }}
",
        origin.address()
    )
}

fn start(text: &str, issued: &Issued, authorities: &[(&str, &Authority)]) -> Evenkeel {
    Evenkeel::start_with(BINARY, text, |command| {
        let folder = command.get_current_dir().expect("a folder").to_owned();
        std::fs::write(folder.join("a.pem"), &issued.cert).expect("written");
        std::fs::write(folder.join("a.key"), &issued.key).expect("written");
        for (name, authority) in authorities {
            std::fs::write(folder.join(name), &authority.pem).expect("written");
        }
    })
    .expect("evenkeel starts")
}

fn origin() -> Origin {
    Origin::http(|_| reply(200, "well")).expect("an origin")
}

/// A whole visit, so that tickets have come; how its handshake went.
fn visit(address: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<HandshakeKind> {
    let mut tls = shake(address, "a.example", config)?;
    let answer = ask_once(&mut tls, "a.example")?;
    assert!(answer.ends_with("well"), "{answer}");
    Ok(tls.conn.handshake_kind().expect("a handshake"))
}

#[test]
fn a_session_is_resumed_on_any_worker_and_over_a_reload() {
    let authority = Authority::new("the authority");
    let origin = origin();
    let evenkeel = start(
        &text("", "", &origin),
        &authority.issue(&["a.example"]),
        &[],
    );
    for version in rustls::ALL_VERSIONS {
        let wants = Wants {
            versions: &[version],
            ..Wants::default()
        };
        let config = config(&authority, &wants);
        assert_eq!(
            visit(web(&evenkeel), &config).expect("served"),
            HandshakeKind::Full
        );
        for _ in 0..8 {
            assert_eq!(
                visit(web(&evenkeel), &config).expect("served"),
                HandshakeKind::Resumed
            );
        }
        let new = authority.issue(&["a.example"]);
        std::fs::write(evenkeel.dir().path().join("a.pem"), &new.cert).expect("written");
        std::fs::write(evenkeel.dir().path().join("a.key"), &new.key).expect("written");
        reload(&evenkeel, &text("", "", &origin));
        assert_eq!(
            visit(web(&evenkeel), &config).expect("served"),
            HandshakeKind::Resumed
        );
    }
}

#[test]
fn a_client_that_says_nothing_more_has_its_tickets() {
    let authority = Authority::new("the authority");
    let origin = origin();
    let evenkeel = start(
        &text("", "", &origin),
        &authority.issue(&["a.example"]),
        &[],
    );
    let config = config(&authority, &Wants::default());
    let mut tls = shake(web(&evenkeel), "a.example", &config).expect("a handshake");
    while tls.conn.tls13_tickets_received() < 2 {
        let count = tls.conn.read_tls(&mut tls.sock).expect("tickets come");
        assert!(count > 0, "the connection ended without them");
        tls.conn.process_new_packets().expect("they are understood");
    }
    assert_eq!(origin.requests(), 0);
    // And the session goes on.
    let answer = ask_once(&mut tls, "a.example").expect("an answer");
    assert!(answer.ends_with("well"), "{answer}");
}

#[test]
fn a_session_is_resumed_by_the_process_after_an_upgrade() {
    let authority = Authority::new("the authority");
    let origin = origin();
    let mut evenkeel = start(
        &text("", "", &origin),
        &authority.issue(&["a.example"]),
        &[],
    );
    let config = config(&authority, &Wants::default());
    let address = web(&evenkeel);
    let first = visit(address, &config).expect("served");
    assert_eq!(first, HandshakeKind::Full);
    let _newest = upgrade(&mut evenkeel, &[]);
    let then = visit(address, &config).expect("served");
    assert_eq!(then, HandshakeKind::Resumed);
}

#[test]
fn a_client_must_show_a_certificate_or_may() {
    let (authority, clients) = (
        Authority::new("the authority"),
        Authority::new("of clients"),
    );
    let origin = origin();
    let evenkeel = start(
        &text(
            ", client_ca: clients.pem",
            ", client_ca: clients.pem, client_auth: optional",
            &origin,
        ),
        &authority.issue(&["a.example"]),
        &[("clients.pem", &clients)],
    );
    let other = evenkeel.address("other").expect("an address");
    let known = clients.issue_for_client("known");
    let stranger = authority.issue_for_client("stranger");
    let of = |shows| {
        let wants = Wants {
            shows,
            ..Wants::default()
        };
        config(&authority, &wants)
    };
    let cases = [
        (Some(&known), true, true),
        (Some(&stranger), false, false),
        (None, false, true),
    ];
    for (shows, required, optional) in cases {
        assert_eq!(visit(web(&evenkeel), &of(shows)).is_ok(), required);
        assert_eq!(visit(other, &of(shows)).is_ok(), optional);
    }
    assert_eq!(origin.requests(), 3);
}

#[test]
fn a_client_that_was_verified_by_other_rules_does_not_resume() {
    let authority = Authority::new("the authority");
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let origin = origin();
    let both = text(", client_ca: first.pem", ", client_ca: second.pem", &origin);
    let evenkeel = start(
        &both,
        &authority.issue(&["a.example"]),
        &[("first.pem", &first), ("second.pem", &second)],
    );
    let other = evenkeel.address("other").expect("an address");
    let known = first.issue_for_client("known");
    for version in rustls::ALL_VERSIONS {
        let wants = Wants {
            versions: &[version],
            shows: Some(&known),
        };
        let config = config(&authority, &wants);
        assert_eq!(
            visit(web(&evenkeel), &config).expect("served"),
            HandshakeKind::Full
        );
        assert_eq!(
            visit(web(&evenkeel), &config).expect("served"),
            HandshakeKind::Resumed
        );
        // Its ticket is of no use where another authority is asked.
        assert!(visit(other, &config).is_err());
        visit(web(&evenkeel), &config).expect("served");
        // Nor on its own listener, once that asks another one.
        let changed = text(
            ", client_ca: second.pem",
            ", client_ca: second.pem",
            &origin,
        );
        reload(&evenkeel, &changed);
        assert!(visit(web(&evenkeel), &config).is_err());
        reload(&evenkeel, &both);
    }
}

/// How long the certificate of the test is good for; a handshake on a busy machine takes less.
const SHORT: Duration = Duration::from_secs(6);

#[test]
fn a_session_ends_with_the_certificate_that_its_client_has_shown() {
    let (authority, clients) = (
        Authority::new("the authority"),
        Authority::new("of clients"),
    );
    let origin = origin();
    let evenkeel = start(
        &text(", client_ca: clients.pem", "", &origin),
        &authority.issue(&["a.example"]),
        &[("clients.pem", &clients)],
    );
    let until = SystemTime::now() + SHORT;
    let short = clients.issue_until("short", until);
    let configs = rustls::ALL_VERSIONS.iter().map(|version| {
        let wants = Wants {
            versions: &[version],
            shows: Some(&short),
        };
        config(&authority, &wants)
    });
    let configs: Vec<_> = configs.collect();
    for config in &configs {
        let visits = [(); 3].map(|()| visit(web(&evenkeel), config).expect("served"));
        // Each brings a newer ticket, which is to last no longer than the first one.
        let (full, resumed) = (HandshakeKind::Full, HandshakeKind::Resumed);
        assert_eq!(visits, [full, resumed, resumed]);
    }
    // Certificates count whole seconds.
    let over = until + Duration::from_secs(1);
    std::thread::sleep(over.duration_since(SystemTime::now()).unwrap_or_default());
    for config in &configs {
        let visited = visit(web(&evenkeel), config);
        assert!(
            visited.is_err(),
            "{visited:?} with a certificate that is out of date"
        );
    }
}

#[test]
fn bytes_that_come_with_the_end_of_the_handshake_are_not_lost() {
    let authority = Authority::new("the authority");
    let origin = origin();
    let evenkeel = start(
        &text("", "", &origin),
        &authority.issue(&["a.example"]),
        &[],
    );
    let config = config(&authority, &Wants::default());
    let mut tls = shake(web(&evenkeel), "a.example", &config).expect("a session");
    // Two requests in one record, and a third in pieces of records.
    let request = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    tls.write_all(&[&request[..], &request[..]].concat())
        .expect("sent");
    for piece in request.chunks(5) {
        tls.write_all(piece).expect("sent");
    }
    let mut answers = Vec::new();
    while answers.windows(4).filter(|found| found == b"well").count() < 3 {
        let mut piece = [0; 4096];
        let count = tls.read(&mut piece).expect("answers");
        assert!(count > 0, "{}", String::from_utf8_lossy(&answers));
        answers.extend_from_slice(&piece[..count]);
    }
}

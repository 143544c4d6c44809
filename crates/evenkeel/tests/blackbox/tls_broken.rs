//! Handshakes that come to nothing, records that break the rules, and certificates that will not load: nobody else
//! notices.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use testkit::{Evenkeel, Origin, Raw, reply, wait_until};

use crate::command::BINARY;
use crate::life_support::{SOON, ask, metric, web};
use crate::tls_support::{Authority, Issued, Wants, ask_once, config, shake, shown};

fn start(issued: &Issued, origin: &Origin) -> Evenkeel {
    let text = format!(
        "admin: {{ bind: '127.0.0.1:0' }}
workers: 2
listeners:
  web:
    bind: '127.0.0.1:0'
    tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }}
    timeouts: {{ handshake: 5s }}
    pool: site
pools:
  site: {{ servers: ['{}'], health_check: off }}
",
        origin.address()
    );
    Evenkeel::start_with(BINARY, &text, |command| {
        let folder = command.get_current_dir().expect("a folder").to_owned();
        std::fs::write(folder.join("a.pem"), &issued.cert).expect("written");
        std::fs::write(folder.join("a.key"), &issued.key).expect("written");
    })
    .expect("evenkeel starts")
}

fn origin() -> Origin {
    Origin::http(|_| reply(200, "well")).expect("an origin")
}

/// What a client says first.
fn first_message(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("a.example").expect("a name");
    let mut connection = ClientConnection::new(config.clone(), name).expect("a client");
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("a message");
    bytes
}

/// Numbers that look random, always the same ones.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}

#[test]
fn first_messages_that_are_cut_changed_or_invented_end_alone() {
    let (authority, origin) = (Authority::new("the authority"), origin());
    let evenkeel = start(&authority.issue(&["a.example"]), &origin);
    let config = config(&authority, &Wants::default());
    // One that shook hands before they came, and is served after them all.
    let mut patient = shake(web(&evenkeel), "a.example", &config).expect("a session");
    let hello = first_message(&config);
    let mut numbers = Numbers(20_261_121);
    for round in 0..150 {
        let mut bytes = hello.clone();
        match round % 3 {
            0 => bytes.truncate(1 + numbers.below(hello.len())),
            1 => {
                for _ in 0..=numbers.below(4) {
                    let at = numbers.below(bytes.len());
                    bytes[at] ^= 1 << numbers.below(8);
                }
            }
            _ => bytes.iter_mut().skip(5 * (round % 2)).for_each(|byte| {
                *byte = u8::try_from(numbers.below(256)).expect("a byte");
            }),
        }
        let mut client = Raw::connect(web(&evenkeel)).expect("a connection");
        client.send(&bytes).expect("sent");
        // It may have been closed already.
        let _ = client.half_close();
        let _ = client.read_to_end();
    }
    assert!(
        ask_once(&mut patient, "a.example")
            .expect("an answer")
            .ends_with("well")
    );
    let mut tls = shake(web(&evenkeel), "a.example", &config).expect("a session");
    assert!(
        ask_once(&mut tls, "a.example")
            .expect("an answer")
            .ends_with("well")
    );
    let failed = || {
        metric(
            &evenkeel,
            "evenkeel_errors_total{reason=\"handshake_failed\"}",
        )
    };
    assert!(failed() > 50.0, "{}", failed());
    wait_until("all are closed", SOON, || {
        metric(&evenkeel, "evenkeel_listener_connections{listener=\"web\"}") == 0.0
    })
    .expect("all are closed");
}

#[test]
fn a_client_that_leaves_or_lies_in_the_middle_is_counted_and_closed() {
    let (authority, origin) = (Authority::new("the authority"), origin());
    let evenkeel = start(&authority.issue(&["a.example"]), &origin);
    let config = config(&authority, &Wants::default());
    let hello = first_message(&config);
    let counted = || {
        metric(
            &evenkeel,
            "evenkeel_errors_total{reason=\"handshake_failed\"}",
        )
    };
    // Gone once it has heard of us; nonsense where the end of its handshake should be; a record longer than any may be.
    let lies: [&[u8]; 3] = [
        b"",
        b"\x17\x03\x03\x00\x20nonsense.nonsense.nonsense.nonse",
        b"\x17\x03\x03\x48\x01",
    ];
    for lie in lies {
        let mut client = Raw::connect(web(&evenkeel)).expect("a connection");
        client.send(&hello).expect("sent");
        let answer = client.read_exactly(5).expect("an answer");
        assert_eq!(answer[..3], [0x16, 3, 3]);
        client.send(lie).expect("sent");
        let _ = client.half_close();
        let _ = client.read_to_end();
    }
    wait_until("they are counted", SOON, || counted() == 3.0).expect("all are counted");
    // The same after a handshake: the request before it is served, and nothing of the lie reaches a server.
    for lie in [
        &b"\x17\x03\x03\x48\x01"[..],
        b"\x17\x03\x03\x00\x05nonse",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut tls = shake(web(&evenkeel), "a.example", &config).expect("a session");
        tls.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            .expect("sent");
        let mut answer = [0; 12];
        tls.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
        tls.sock.write_all(lie).expect("sent");
        let mut rest = Vec::new();
        // An alert, or a close without a word: never an end that looks like one.
        let end = tls.read_to_end(&mut rest);
        assert!(end.is_err(), "{end:?}");
    }
    assert_eq!(origin.requests(), 3);
}

#[test]
fn a_certificate_that_will_not_load_leaves_the_old_one_and_is_told() {
    let (authority, origin) = (Authority::new("the authority"), origin());
    let old = authority.issue(&["a.example"]);
    let evenkeel = start(&old, &origin);
    let folder = evenkeel.dir().path().to_owned();
    let (cert, key) = (folder.join("a.pem"), folder.join("a.key"));
    let other = authority.issue(&["a.example"]);
    let damaged = old.cert.replacen('M', "!", 3);
    let cases: [(&str, Option<&str>, Option<&str>, &str); 5] = [
        (
            "no PEM",
            Some("nothing"),
            Some(&old.key),
            "there is no certificate (PEM)",
        ),
        ("damaged", Some(&damaged), Some(&old.key), "certificate"),
        ("gone", None, Some(&old.key), "cannot read"),
        (
            "no key",
            Some(&old.cert),
            Some("nothing"),
            "there is no private key (PEM)",
        ),
        (
            "another's key",
            Some(&old.cert),
            Some(&other.key),
            "does not belong to the certificate",
        ),
    ];
    for (name, new_cert, new_key, expected) in cases {
        for (file, text) in [(&cert, new_cert), (&key, new_key)] {
            match text {
                Some(text) => std::fs::write(file, text).expect("written"),
                None => std::fs::remove_file(file).expect("removed"),
            }
        }
        let refused = ask(&evenkeel, &["reload"]);
        let said = refused.text() + &refused.stderr;
        assert_eq!(refused.code, Some(1), "{name}: {said}");
        assert!(
            said.contains(expected) && said.contains("evenkeel.yaml:6:"),
            "{name}: {said}"
        );
        // A client without a session to resume still gets the old one.
        let config = config(&authority, &Wants::default());
        let tls = shake(web(&evenkeel), "a.example", &config).expect("a session");
        assert_eq!(shown(&tls), old.der(), "{name}");
    }
    std::fs::write(&cert, &other.cert).expect("written");
    std::fs::write(&key, &other.key).expect("written");
    assert_eq!(ask(&evenkeel, &["reload"]).code, Some(0));
    let config = config(&authority, &Wants::default());
    let tls = shake(web(&evenkeel), "a.example", &config).expect("a session");
    assert_eq!(shown(&tls), other.der());
}

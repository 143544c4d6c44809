//! TLS that is passed on as it is, by what its client asks for.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use testkit::{Evenkeel, Nginx, Raw, TempDir, missing, wait_until};

use crate::life_support::{SOON, metric, start, web};
use crate::tls_support::{Authority, Issued, Wants, ask_once, config, shake, shown};

struct Server {
    nginx: Nginx,
    issued: Issued,
    _dir: TempDir,
}

fn server(authority: &Authority, name: &str, names: &[&str]) -> Server {
    let dir = TempDir::new("server").expect("a folder");
    let issued = authority.issue(names);
    issued.write(&dir, "server");
    let path = dir.path().display();
    let snippet =
        format!("ssl_certificate {path}/server.pem; ssl_certificate_key {path}/server.key;");
    let nginx = Nginx::start_tls(name, &snippet).expect("nginx starts");
    Server {
        nginx,
        issued,
        _dir: dir,
    }
}

fn text(a: SocketAddr, b: SocketAddr) -> String {
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web:
    bind: '127.0.0.1:0'
    protocol: tcp
    timeouts: {{ handshake: 500ms }}
    routes:
      - match: {{ sni: a.example }}
        pool: a
      - match: {{ sni: '*.b.example', alpn: [spdy, http/1.1] }}
        pool: a
      - match: {{ sni: '*.b.example' }}
        pool: b
pools:
  a: {{ servers: ['{a}'] }}
  b: {{ servers: ['{b}'] }}
"
    )
}

fn counted(evenkeel: &Evenkeel, reason: &str) -> f64 {
    metric(
        evenkeel,
        &format!("evenkeel_errors_total{{reason=\"{reason}\"}}"),
    )
}

fn with_alpn(authority: &Authority, protocol: &str) -> Arc<ClientConfig> {
    let mut config = (*config(authority, &Wants::default())).clone();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Arc::new(config)
}

#[test]
fn what_a_client_asks_for_decides_and_its_tls_ends_at_the_server() {
    if missing("nginx") {
        return;
    }
    let authority = Authority::new("the authority");
    let a = server(&authority, "a", &["a.example", "x.b.example"]);
    let b = server(&authority, "b", &["x.b.example"]);
    let evenkeel = start(&text(a.nginx.address(), b.nginx.address()));
    let plain = config(&authority, &Wants::default());
    let http = with_alpn(&authority, "http/1.1");
    for (name, config, expected) in [
        ("a.example", &plain, &a),
        ("x.b.example", &plain, &b),
        ("X.B.Example", &plain, &b),
        ("a.example", &http, &a),
        ("x.b.example", &http, &a),
    ] {
        let mut tls = shake(web(&evenkeel), name, config).expect(name);
        assert_eq!(shown(&tls), expected.issued.der(), "{name}");
        let answer = ask_once(&mut tls, name).expect("an answer");
        assert!(
            answer.ends_with(&format!("{}\n", expected.nginx.name())),
            "{answer}"
        );
    }
    // Nobody bears that name: told, closed and counted.
    let Err(refused) = shake(web(&evenkeel), "other.example", &plain) else {
        panic!("it leads somewhere");
    };
    assert!(
        refused.to_string().contains("UnrecognisedName"),
        "{refused}"
    );
    assert_eq!(counted(&evenkeel, "no_route"), 1.0);
}

#[test]
fn a_first_message_in_pieces_is_heard_and_arrives_whole() {
    if missing("nginx") {
        return;
    }
    let authority = Authority::new("the authority");
    let b = server(&authority, "b", &["x.b.example"]);
    let evenkeel = start(&text(b.nginx.address(), b.nginx.address()));
    let name = ServerName::try_from("x.b.example").expect("a name");
    let config = config(&authority, &Wants::default());
    let mut connection = ClientConnection::new(config, name).expect("a client");
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).expect("a message");
    let raw = Raw::connect(web(&evenkeel)).expect("a connection");
    let mut socket = raw.stream().try_clone().expect("a clone");
    socket.set_nodelay(true).expect("set");
    for piece in hello.chunks(hello.len() / 5) {
        socket.write_all(piece).expect("sent");
        std::thread::yield_now();
    }
    let mut tls = rustls::StreamOwned::new(connection, socket);
    let answer = ask_once(&mut tls, "x.b.example").expect("an answer");
    assert!(answer.ends_with("b\n"), "{answer}");
}

#[test]
fn what_is_no_first_message_is_closed_and_counted() {
    let nowhere: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    let evenkeel = start(&text(nowhere, nowhere));
    let mut long = Vec::new();
    for _ in 0..9 {
        long.extend_from_slice(&[22, 3, 1, 8, 0]);
        long.extend_from_slice(&[1, 0, 0x3f, 0xff].repeat(512));
    }
    let cases: [&[u8]; 3] = [
        b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        &long,
    ];
    for (at, bytes) in cases.iter().enumerate() {
        let mut client = Raw::connect(web(&evenkeel)).expect("a connection");
        client.send(bytes).expect("sent");
        let said = client.read_to_end().expect("an alert and a close");
        assert_eq!(said, [21, 3, 3, 0, 2, 2, 50], "{at}");
    }
    wait_until("they are counted", SOON, || {
        counted(&evenkeel, "handshake_failed") == 3.0
    })
    .expect("they are counted");
    // One that never says anything more.
    let mut client = Raw::connect(web(&evenkeel)).expect("a connection");
    client.set_timeout(Duration::from_secs(10)).expect("set");
    client.send(b"\x16\x03\x01\x01\x00").expect("sent");
    client.expect_close().expect("closed");
    assert_eq!(counted(&evenkeel, "handshake_timeout"), 1.0);
}

//! TLS on listeners: handshakes, bytes both ways, ends and faults.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};

use rustls::version::{TLS12, TLS13};
use testkit::{Evenkeel, Origin, Raw, curl, missing, reply, wait_until};

use crate::command::BINARY;
use crate::http_setup::noise;
use crate::life_support::{SOON, list, metric, web};
use crate::tls_support::{Authority, Wants, ask_once, config, shake};

/// One listener with a certificate for `a.example`, before these servers. `{…}` in `listener` are more of its keys.
fn start(authority: &Authority, servers: &[SocketAddr], listener: &str) -> Evenkeel {
    let issued = authority.issue(&["a.example"]);
    let text = format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web:
    bind: '127.0.0.1:0'
    tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }}
    pool: site
    {listener}
pools:
  site: {{ servers: {}, health_check: off }}
",
        list(servers)
    );
    Evenkeel::start_with(BINARY, &text, |command| {
        let folder = command.get_current_dir().expect("a folder").to_owned();
        std::fs::write(folder.join("a.pem"), &issued.cert).expect("written");
        std::fs::write(folder.join("a.key"), &issued.key).expect("written");
    })
    .expect("evenkeel starts")
}

fn site() -> Origin {
    Origin::http(|request| reply(200, request.header("x-forwarded-proto").unwrap_or("none")))
        .expect("an origin")
}

#[test]
fn curl_speaks_tls_1_2_and_1_3_and_the_server_hears_of_it() {
    if missing("curl") {
        return;
    }
    let authority = Authority::new("the authority");
    let origin = site();
    let evenkeel = start(&authority, &[origin.address()], "");
    let ca = evenkeel
        .dir()
        .write("ca.pem", &authority.pem)
        .expect("written");
    let port = web(&evenkeel).port();
    let url = format!("https://a.example:{port}/");
    let resolve = format!("a.example:{port}:127.0.0.1");
    let ca = ca.to_string_lossy().into_owned();
    for max in ["1.2", "1.3"] {
        let version = format!("--tlsv{max}");
        let args = [
            "--cacert",
            &ca,
            "--resolve",
            &resolve,
            &version,
            "--tls-max",
            max,
            &url,
        ];
        let answer = curl(&args).expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "https"));
    }
    // Both offers of ALPN are understood: what is spoken is HTTP/1.1.
    let answer = curl(&["--http2", "--cacert", &ca, "--resolve", &resolve, &url]);
    assert_eq!(answer.expect("an answer").status, 200);
    // Another name than the certificate's is the client's to refuse.
    let other = curl(&["--cacert", &ca, &format!("https://127.0.0.1:{port}/")]);
    assert!(other.is_err());
}

#[test]
fn keys_are_agreed_upon_that_hold_against_quantum_computers_too() {
    let authority = Authority::new("the authority");
    let origin = site();
    let evenkeel = start(&authority, &[origin.address()], "");
    let of = |version| {
        let wants = Wants {
            versions: &[version],
            ..Wants::default()
        };
        let tls = shake(web(&evenkeel), "a.example", &config(&authority, &wants));
        let group = tls.expect("a session").conn.negotiated_key_exchange_group();
        format!("{:?}", group.expect("a group").name())
    };
    assert_eq!(of(&TLS13), "X25519MLKEM768");
    // TLS 1.2 knows none.
    assert_eq!(of(&TLS12), "X25519");
}

#[test]
fn many_requests_of_one_connection_and_an_end_that_is_said() {
    let authority = Authority::new("the authority");
    let origin = site();
    let evenkeel = start(&authority, &[origin.address()], "");
    for version in [&TLS12, &TLS13] {
        let wants = Wants {
            versions: &[version],
            ..Wants::default()
        };
        let mut tls =
            shake(web(&evenkeel), "a.example", &config(&authority, &wants)).expect("a session");
        for _ in 0..3 {
            tls.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
                .expect("sent");
            let mut answer = Vec::new();
            while !answer.ends_with(b"https") {
                let mut piece = [0; 1024];
                let count = tls.read(&mut piece).expect("an answer");
                assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&piece[..count]);
            }
        }
        let answer = ask_once(&mut tls, "a.example").expect("an answer and its end");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(origin.requests(), 8);
}

#[test]
fn every_byte_of_large_bodies_arrives_both_ways() {
    let authority = Authority::new("the authority");
    let origin = Origin::http(|request| reply(200, &request.body)).expect("an origin");
    let evenkeel = start(&authority, &[origin.address()], "");
    for (version, size) in [
        (&TLS13, 8 << 20),
        (&TLS12, 3 << 20),
        (&TLS13, 16_385),
        (&TLS13, 1),
    ] {
        let wants = Wants {
            versions: &[version],
            ..Wants::default()
        };
        let tls =
            shake(web(&evenkeel), "a.example", &config(&authority, &wants)).expect("a session");
        let body = noise(size);
        let head = format!(
            "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
        );
        let mut tls = tls;
        tls.write_all(head.as_bytes()).expect("sent");
        tls.write_all(&body).expect("sent");
        tls.flush().expect("sent");
        let mut answer = Vec::new();
        tls.read_to_end(&mut answer).expect("an answer and its end");
        assert!(answer.ends_with(&body), "{} of {size} bytes", answer.len());
    }
}

#[test]
fn an_answer_that_breaks_off_does_not_end_as_a_whole_one() {
    let authority = Authority::new("the authority");
    let origin = Origin::start(|conn| {
        conn.read_request()?;
        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")?;
        conn.close()
    })
    .expect("an origin");
    let evenkeel = start(&authority, &[origin.address()], "");
    let config = config(&authority, &Wants::default());
    let mut tls = shake(web(&evenkeel), "a.example", &config).expect("a session");
    let cut = ask_once(&mut tls, "a.example");
    assert!(cut.is_err(), "{cut:?}");
}

#[test]
fn plain_http_on_a_tls_port_is_told_so() {
    let authority = Authority::new("the authority");
    let origin = site();
    let evenkeel = start(&authority, &[origin.address()], "");
    let mut client = Raw::connect(web(&evenkeel)).expect("a connection");
    let answer = client.get("/").expect("an answer");
    assert_eq!(answer.status, 400);
    assert_eq!(answer.header("x-evenkeel-reason"), Some("plain_http"));
    assert!(answer.text().contains("https://"), "{answer}");
    client.expect_close().expect("closed");
    assert_eq!(origin.requests(), 0);
    let count = metric(&evenkeel, "evenkeel_errors_total{reason=\"plain_http\"}");
    assert_eq!(count, 1.0);
}

#[test]
fn broken_and_slow_handshakes_end_and_are_counted() {
    let authority = Authority::new("the authority");
    let origin = site();
    let listener = "timeouts: { handshake: 300ms }";
    let evenkeel = start(&authority, &[origin.address()], listener);
    let counted = |reason: &str| {
        let series = format!("evenkeel_errors_total{{reason=\"{reason}\"}}");
        metric(&evenkeel, &series)
    };
    // No handshake, no version that is spoken, a record longer than any may be, a message longer than any may be.
    let broken: [&[u8]; 4] = [
        b"\x16\x03\x01\x00\x05hello",
        b"\x16\x03\x00\x00\x02\x01\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
    ];
    for bytes in broken {
        let mut client = Raw::connect(web(&evenkeel)).expect("a connection");
        client.send(bytes).expect("sent");
        client.half_close().expect("half-closed");
        // An alert, or nothing.
        let said = client.read_to_end().expect("closed");
        assert!(said.is_empty() || said.first() == Some(&21), "{said:?}");
    }
    wait_until("they are counted", SOON, || {
        counted("handshake_failed") == 4.0
    })
    .unwrap_or_else(|error| panic!("{error}: {}", counted("handshake_failed")));
    // Somebody who says nothing, and somebody who stops in the middle.
    for begun in [&b""[..], b"\x16\x03\x01"] {
        let mut client = Raw::connect(web(&evenkeel)).expect("a connection");
        client.send(begun).expect("sent");
        client.expect_close().expect("closed");
    }
    wait_until("they are counted", SOON, || {
        counted("handshake_timeout") == 2.0
    })
    .expect("both are counted");
    // A probe by TCP connect is no fault.
    drop(Raw::connect(web(&evenkeel)).expect("a connection"));
    let config = config(&authority, &Wants::default());
    let mut tls = shake(web(&evenkeel), "a.example", &config).expect("a session");
    ask_once(&mut tls, "a.example").expect("an answer");
    assert_eq!(counted("handshake_failed"), 4.0);
}

#[test]
fn a_tcp_listener_carries_bytes_through_tls_and_passes_ends_on() {
    let authority = Authority::new("the authority");
    let origin = Origin::start(|conn| {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = conn.stream().read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            conn.write(&buffer[..count])?;
        }
    })
    .expect("an origin");
    let evenkeel = start(&authority, &[origin.address()], "protocol: tcp");
    let config = config(&authority, &Wants::default());
    for size in [0, 1, 100_000, 4 << 20] {
        let sent = noise(size);
        let mut tls = shake(web(&evenkeel), "a.example", &config).expect("a session");
        let mut received = Vec::new();
        for piece in sent.chunks(150_000) {
            tls.write_all(piece).expect("sent");
            let mut echo = vec![0; piece.len()];
            tls.read_exact(&mut echo).expect("an echo");
            received.extend(echo);
        }
        // The end is said, passed on as an end, and comes back as one.
        tls.conn.send_close_notify();
        tls.flush().expect("sent");
        tls.sock.shutdown(Shutdown::Write).expect("half-closed");
        tls.read_to_end(&mut received).expect("the end");
        assert!(received == sent, "{} of {size} bytes", received.len());
    }
    wait_until("the server's ends are closed", SOON, || origin.open() == 0)
        .expect("the server's ends are closed");
}

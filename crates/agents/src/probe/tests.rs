//! Probes of real sockets that answer well, badly or not at all.

use std::net::SocketAddr;

use config::{HealthCheck, InitialHealth};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use super::*;

/// What a server does once it has read a request head.
enum Then {
    Close,
    Reset,
    Hold,
}

/// For pools that speak none.
pub(crate) fn no_tls() -> Secure {
    Arc::new(|_, _, _| Err("no TLS is spoken here".to_owned()))
}

async fn probe(what: &Probe) -> Option<Outcome> {
    probe_and_hear(what, &no_tls()).await.0
}

fn http() -> HttpProbe {
    HttpProbe {
        path: "/health?deep=1".to_owned(),
        method: "GET".to_owned(),
        host: None,
        headers: Vec::new(),
        status: vec![(200, 299)],
        body: None,
        drain: Box::default(),
        maintenance: Box::default(),
    }
}

fn a_probe(endpoint: Endpoint, probe: config::Probe) -> Probe {
    Probe {
        member: 1,
        number: 1,
        endpoint,
        host: None,
        check: Arc::new(HealthCheck {
            probe,
            tls: None,
            http: config::ServerHttp::Http1,
            port: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_millis(500),
            healthy_threshold: 2,
            unhealthy_threshold: 3,
            initial: InitialHealth::Unknown,
        }),
    }
}

/// A server of one connection that answers with these bytes; it ends with the request head that it read.
async fn server(answer: Vec<u8>, then: Then) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                break;
            }
            head.extend(byte);
        }
        let _ = stream.write_all(&answer).await;
        match then {
            Then::Close => {}
            Then::Reset => stream.set_zero_linger().unwrap(),
            Then::Hold => tokio::time::sleep(Duration::from_secs(5)).await,
        }
        String::from_utf8(head).unwrap()
    });
    (address, serving)
}

async fn outcome(check: HttpProbe, answer: impl Into<Vec<u8>>, then: Then) -> String {
    let (address, _) = server(answer.into(), then).await;
    show(
        &probe(&a_probe(Endpoint::Ip(address), config::Probe::Http(check)))
            .await
            .unwrap(),
    )
}

fn show(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Success => "success".to_owned(),
        Outcome::Failure(cause) => cause.to_string(),
    }
}

#[track_caller]
fn assert_is(found: &str, expected: &str, of: &str) {
    assert_eq!(found, expected, "{of:?}");
}

#[tokio::test]
async fn an_answer_is_judged_by_its_status() {
    let many = vec![(200, 204), (301, 301), (404, 404)];
    for (status, answer, expected) in [
        (
            vec![(200, 299)],
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "success",
        ),
        (
            vec![(200, 299)],
            "HTTP/1.1 204 No Content\r\n\r\n",
            "success",
        ),
        (vec![(200, 299)], "HTTP/1.0 200 OK\r\n\r\nok", "success"),
        (
            vec![(200, 299)],
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "success",
        ),
        (
            vec![(200, 299)],
            "HTTP/1.1 503 Busy\r\n\r\n",
            "503 where 200-299 was expected",
        ),
        (
            vec![(200, 299)],
            "HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n",
            "302 where 200-299 was expected",
        ),
        (
            many.clone(),
            "HTTP/1.1 301 Moved\r\nLocation: /x\r\n\r\n",
            "success",
        ),
        (
            many,
            "HTTP/1.1 500 Oops\r\n\r\n",
            "500 where 200-204, 301, 404 was expected",
        ),
    ] {
        let check = HttpProbe { status, ..http() };
        assert_is(&outcome(check, answer, Then::Close).await, expected, answer);
    }
}

#[tokio::test]
async fn what_is_no_answer_says_what_it_was() {
    for (answer, then, expected) in [
        ("", Then::Close, "connection closed without an answer"),
        ("", Then::Reset, "connection closed without an answer"),
        ("", Then::Hold, "timeout after 500 ms"),
        (
            "HTTP/1.1 200 OK\r\nContent-",
            Then::Close,
            "connection closed without an answer",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-",
            Then::Hold,
            "timeout after 500 ms",
        ),
        (
            "220 mail.example ESMTP\r\n\r\n",
            Then::Close,
            "an answer that cannot be read",
        ),
        (
            "HTTP/1.1 2x0 OK\r\n\r\n",
            Then::Close,
            "an answer that cannot be read",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            Then::Close,
            "an answer that cannot be read",
        ),
    ] {
        assert_is(&outcome(http(), answer, then).await, expected, answer);
    }
}

#[tokio::test]
async fn a_text_is_looked_for_in_the_first_64_kib_of_the_body() {
    let missing = "a body without \"all is well\"";
    let at = |offset: usize| {
        format!(
            "HTTP/1.1 200 OK\r\n\r\n{}all is well{}",
            "x".repeat(offset),
            "y".repeat(99_999)
        )
    };
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (answer, then, expected) in [
        (at(0), Then::Hold, "success"),
        (at(65_536 - 11), Then::Close, "success"),
        (at(65_536 - 10), Then::Close, missing),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad".to_owned(),
            Then::Hold,
            missing,
        ),
        (
            format!("{chunked}5\r\nall i\r\n6\r\ns well\r\n0\r\n\r\n"),
            Then::Close,
            "success",
        ),
        (
            format!("{chunked}nonsense\r\n"),
            Then::Close,
            "an answer that cannot be read",
        ),
        (
            format!("{chunked}5\r\nall i\r\n"),
            Then::Close,
            "connection closed without an answer",
        ),
        (
            "HTTP/1.1 500 Oops\r\n\r\nall is well".to_owned(),
            Then::Close,
            "500 where 200-299 was expected",
        ),
    ] {
        let check = HttpProbe {
            body: Some("all is well".to_owned()),
            ..http()
        };
        let start: String = answer.chars().take(90).collect();
        assert_is(&outcome(check, answer, then).await, expected, &start);
    }
}

#[tokio::test]
async fn a_body_without_end_does_not_hold_up_a_verdict() {
    let began = std::time::Instant::now();
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    assert_eq!(outcome(http(), answer, Then::Hold).await, "success");
    assert!(began.elapsed() < Duration::from_millis(400));
}

#[tokio::test]
async fn the_request_is_what_the_check_says() {
    let (address, serving) = server(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), Then::Close).await;
    let plain = a_probe(Endpoint::Ip(address), config::Probe::Http(http()));
    assert_eq!(probe(&plain).await.unwrap(), Outcome::Success);
    let expected = format!(
        "GET /health?deep=1 HTTP/1.1\r\nhost: {address}\r\nuser-agent: evenkeel\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(serving.await.unwrap(), expected);

    let (address, serving) = server(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), Then::Close).await;
    let check = HttpProbe {
        method: "HEAD".to_owned(),
        host: Some("api.internal".to_owned()),
        headers: [
            ("X-Probe", "a"),
            ("x-probe", "b"),
            ("User-Agent", "mine"),
            ("Connection", "keep-alive"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        ..http()
    };
    let full = a_probe(Endpoint::Ip(address), config::Probe::Http(check));
    assert_eq!(probe(&full).await.unwrap(), Outcome::Success);
    assert_eq!(
        serving.await.unwrap(),
        "HEAD /health?deep=1 HTTP/1.1\r\nhost: api.internal\r\nuser-agent: mine\r\nx-probe: a\r\nx-probe: b\r\nconnection: close\r\n\r\n"
    );
}

#[tokio::test]
async fn a_connect_is_success_or_says_why_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tcp = a_probe(Endpoint::Ip(address), config::Probe::Tcp);
    assert_eq!(probe(&tcp).await.unwrap(), Outcome::Success);
    drop(listener);
    assert_eq!(probe(&tcp).await.unwrap(), Outcome::Failure(Cause::Refused));
    let web = a_probe(Endpoint::Ip(address), config::Probe::Http(http()));
    assert_eq!(probe(&web).await.unwrap(), Outcome::Failure(Cause::Refused));
    let nowhere = a_probe(
        Endpoint::Unix("/nonexistent/socket".into()),
        config::Probe::Tcp,
    );
    assert_eq!(show(&probe(&nowhere).await.unwrap()), "no such socket");
}

#[tokio::test]
async fn a_check_may_name_another_port() {
    let (address, _) = server(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), Then::Close).await;
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let mut elsewhere = a_probe(Endpoint::Ip(nobody), config::Probe::Http(http()));
    Arc::get_mut(&mut elsewhere.check).unwrap().port = Some(address.port());
    assert_eq!(probe(&elsewhere).await.unwrap(), Outcome::Success);
}

#[tokio::test]
async fn a_unix_socket_is_probed_too() {
    let path = std::env::temp_dir().join(format!("evenkeel-probe-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 200];
        let count = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&head[..count]).into_owned()
    });
    let endpoint = Endpoint::Unix(path.to_str().unwrap().into());
    assert_eq!(
        probe(&a_probe(endpoint, config::Probe::Http(http())))
            .await
            .unwrap(),
        Outcome::Success
    );
    assert!(serving.await.unwrap().contains("\r\nhost: localhost\r\n"));
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn an_answer_may_say_what_traffic_its_server_wants() {
    let check = HttpProbe {
        drain: Box::new(config::Mark {
            status: vec![(429, 429)],
            headers: vec![("x-drain".to_owned(), Some("true".to_owned()))],
        }),
        maintenance: Box::new(config::Mark {
            status: Vec::new(),
            headers: vec![("x-off".to_owned(), None)],
        }),
        ..http()
    };
    let failed = |status| {
        Outcome::Failure(Cause::Status {
            status,
            expected: "200-299".into(),
        })
    };
    for (head, outcome, says) in [
        ("200 OK", Outcome::Success, State::Ready),
        ("200 OK\r\nX-Drain: TRUE", Outcome::Success, State::Drain),
        ("200 OK\r\nX-Drain: false", Outcome::Success, State::Ready),
        ("429 Wait", Outcome::Success, State::Drain),
        ("429 Wait\r\nX-Off: ", Outcome::Success, State::Disabled),
        ("503 No\r\nX-Drain: true", failed(503), State::Drain),
        ("500 No", failed(500), State::Ready),
    ] {
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n");
        let (address, _serving) = server(answer.into_bytes(), Then::Close).await;
        let probe = a_probe(Endpoint::Ip(address), config::Probe::Http(check.clone()));
        assert_eq!(
            probe_and_hear(&probe, &no_tls()).await,
            (Some(outcome), Some(says)),
            "{head}"
        );
    }
    let (address, _serving) = server(b"HTTP/1.1 429 Wait\r\n\r\n".to_vec(), Then::Close).await;
    let probe = a_probe(Endpoint::Ip(address), config::Probe::Http(http()));
    assert_eq!(
        probe_and_hear(&probe, &no_tls()).await.1,
        None,
        "nobody asked for marks"
    );
}

//! Calls of real sockets that answer well, badly or not at all.

use std::net::SocketAddr;
use std::sync::Arc;

use config::InitialHealth;
use control::live::Endpoint;
use control::publisher::Probe;
use hyper::HeaderMap;
use hyper::header::HeaderName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::probe::probe_and_hear;
use crate::probe::tests::no_tls;
use balance::health::Outcome;

/// What a server answers to a call.
struct Answer {
    status: u16,
    fields: &'static [(&'static str, &'static str)],
    /// `None`: the head is all there is.
    body: Option<Vec<u8>>,
    trailers: &'static [(&'static str, &'static str)],
}

const OK: &[(&str, &str)] = &[("grpc-status", "0")];
const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc")];

/// A whole message.
fn framed(flag: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_header(flag, payload.len() as u32).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

fn serving() -> Answer {
    Answer {
        status: 200,
        fields: GRPC,
        body: Some(framed(0, b"\x08\x01")),
        trailers: OK,
    }
}

fn fields(list: &'static [(&'static str, &'static str)]) -> HeaderMap {
    let fields = list.iter().map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    fields.collect()
}

/// A server of one connection and one call; it ends with the head and the body that it got.
async fn server(
    answer: Answer,
) -> (
    SocketAddr,
    JoinHandle<(hyper::http::request::Parts, Vec<u8>)>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let driving = tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let (head, mut body) = request.into_parts();
        let mut got = Vec::new();
        while let Some(data) = body.data().await {
            got.extend_from_slice(&data.unwrap());
        }
        let mut response = Response::new(());
        *response.status_mut() = answer.status.try_into().unwrap();
        *response.headers_mut() = fields(answer.fields);
        let mut sending = respond
            .send_response(response, answer.body.is_none())
            .unwrap();
        if let Some(body) = answer.body {
            let ends = answer.trailers.is_empty();
            sending.send_data(body.into(), ends).unwrap();
            if !ends {
                sending.send_trailers(fields(answer.trailers)).unwrap();
            }
        }
        driving.await.unwrap();
        (head, got)
    });
    (address, serving)
}

fn a_probe(address: SocketAddr, service: &str) -> Probe {
    let check = HealthCheck {
        probe: config::Probe::Grpc(GrpcProbe {
            service: service.to_owned(),
            host: None,
            headers: vec![("x-token".to_owned(), "secret".to_owned())],
        }),
        tls: None,
        http: config::ServerHttp::Http1,
        port: None,
        interval: Duration::from_secs(10),
        timeout: Duration::from_millis(500),
        healthy_threshold: 2,
        unhealthy_threshold: 3,
        initial: InitialHealth::Unknown,
    };
    Probe {
        member: 1,
        number: 1,
        endpoint: Endpoint::Ip(address),
        host: None,
        check: Arc::new(check),
    }
}

async fn outcome(address: SocketAddr) -> String {
    let probed = probe_and_hear(&a_probe(address, "a.B"), &no_tls()).await;
    match probed.0.unwrap() {
        Outcome::Success => "success".to_owned(),
        Outcome::Failure(cause) => cause.to_string(),
    }
}

#[tokio::test]
async fn an_answer_is_judged_by_what_it_says_and_how_it_ends() {
    let unreadable = "an answer that cannot be read";
    let said = |payload: &'static [u8]| Answer {
        body: Some(framed(0, payload)),
        ..serving()
    };
    let only_head = |fields| Answer {
        fields,
        body: None,
        ..serving()
    };
    let ends = |trailers| Answer {
        trailers,
        ..serving()
    };
    let body = |body| Answer {
        body: Some(body),
        ..serving()
    };
    for (answer, expected) in [
        (serving(), "success"),
        (said(b""), "UNKNOWN where SERVING was expected"),
        (said(b"\x08\x02"), "NOT_SERVING where SERVING was expected"),
        (
            said(b"\x08\x03"),
            "SERVICE_UNKNOWN where SERVING was expected",
        ),
        (said(b"\x08"), unreadable),
        (
            only_head(&[
                ("content-type", "application/grpc+proto"),
                ("grpc-status", "5"),
            ]),
            "NOT_FOUND where SERVING was expected",
        ),
        (
            only_head(&[
                ("content-type", "application/grpc"),
                ("grpc-status", "12"),
                ("grpc-message", "no%20such%0Amethod"),
            ]),
            "UNIMPLEMENTED (no suchmethod) where SERVING was expected",
        ),
        // `OK` without a message is no answer.
        (
            only_head(&[("content-type", "application/grpc"), ("grpc-status", "0")]),
            unreadable,
        ),
        (
            ends(&[("grpc-status", "14"), ("grpc-message", "busy")]),
            "UNAVAILABLE (busy) where SERVING was expected",
        ),
        (ends(&[]), unreadable),
        (ends(&[("x-other", "1")]), unreadable),
        (body(framed(1, b"\x08\x01")), unreadable),
        (body(vec![0, 0, 0, 0, 9, 8, 1]), unreadable),
        (body([framed(0, b"\x08\x01"), vec![0]].concat()), unreadable),
        (body(vec![0; 9000]), unreadable),
        (
            Answer {
                fields: &[("content-type", "text/html")],
                ..serving()
            },
            unreadable,
        ),
        (
            Answer {
                status: 503,
                ..serving()
            },
            "503 where 200 was expected",
        ),
    ] {
        let (address, _serving) = server(answer).await;
        assert_eq!(outcome(address).await, expected);
    }
}

#[tokio::test]
async fn the_call_is_what_the_check_says() {
    let (address, serving) = server(serving()).await;
    assert_eq!(outcome(address).await, "success");
    let (head, body) = serving.await.unwrap();
    assert_eq!(head.method, "POST");
    assert_eq!(
        head.uri.to_string(),
        format!("http://{address}/grpc.health.v1.Health/Check")
    );
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "evenkeel"),
        ("x-token", "secret"),
        ("grpc-timeout", "500000u"),
    ] {
        assert_eq!(head.headers[name], value);
    }
    assert_eq!(body, framed(0, b"\x0a\x03a.B"));
}

#[tokio::test]
async fn who_speaks_something_else_or_nothing_is_found_out() {
    for (greeting, closes, expected) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            false,
            "an answer that cannot be read",
        ),
        (b"", true, "connection closed without an answer"),
        (b"", false, "timeout after 500 ms"),
        // An empty SETTINGS, and nothing more.
        (b"\0\0\0\x04\0\0\0\0\0", false, "timeout after 500 ms"),
        // The same, and GOAWAY with ENHANCE_YOUR_CALM.
        (
            b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b",
            true,
            "HTTP/2: detected excessive load generating behavior",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            stream.write_all(greeting).await.unwrap();
            if closes {
                stream.shutdown().await.unwrap();
            }
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        });
        assert_eq!(outcome(address).await, expected, "{greeting:?}");
        serving.abort();
    }
}

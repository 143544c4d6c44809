//! Calls of gRPC that end in the middle of their answer: their clients are told how, where their protocol can say it.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use testkit::http2::Frame as ServerFrame;
use testkit::{Conn, Evenkeel, Origin};

use crate::http_setup::Outcome;
use crate::http2_support::{
    DATA, END_STREAM, Frames, HEADERS, INTERNAL_ERROR, RST_STREAM, WINDOW_UPDATE, fields,
};
use crate::life_support::{SOON, connect, list, start, web};

/// A message of gRPC, `hello`.
const HELLO: &[u8] = b"\0\0\0\0\x05hello";
/// The same in the text form of gRPC-Web.
const HELLO_TEXT: &[u8] = b"AAAAAAVoZWxsbw==";
const INITIAL_WINDOW_SIZE: u16 = 4;
/// Enough for a message to be on its way before it is over.
const TIME: &str = "1S";

/// Holds a server back until the client has seen what comes before.
fn gate() -> (Sender<()>, impl Fn() -> anyhow::Result<()> + Send + Sync) {
    let (go, gone) = channel();
    let gone = Mutex::new(gone);
    let wait = move || Ok(gone.lock().expect("a lock").recv_timeout(SOON)?);
    (go, wait)
}

/// Begins every answer with a message, and ends it as the path says; what may overtake that, when it is told to.
fn server() -> anyhow::Result<(Origin, Sender<()>)> {
    let (go, wait) = gate();
    let origin = Origin::start(move |conn: &mut Conn| {
        let Some(request) = conn.read_head()? else {
            return Ok(());
        };
        let path = request.target.rsplit('/').next().unwrap_or_default();
        let (kind, framing) = match path {
            "page" => ("text/plain", "Transfer-Encoding: chunked"),
            "length" => ("application/grpc", "Content-Length: 100"),
            _ => ("application/grpc", "Transfer-Encoding: chunked"),
        };
        conn.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n"
        ))?;
        match path {
            "length" => conn.write(HELLO)?,
            "half" => conn.write([b"7\r\n", &HELLO[..7], b"\r\n"].concat())?,
            _ => conn.write([b"a\r\n", HELLO, b"\r\n"].concat())?,
        }
        if !matches!(path, "hang" | "half" | "close") {
            wait()?;
        }
        match path {
            "hang" | "half" => {}
            "bad" => conn.write("nonsense\r\n")?,
            "reset" => return conn.reset(),
            _ => conn.half_close()?,
        }
        conn.hang(SOON);
        Ok(())
    })?;
    Ok((origin, go))
}

fn run(server: &Origin, http: u8, settings: &str) -> Evenkeel {
    start(&format!(
        "admin: {{ bind: '127.0.0.1:0' }}
workers: 1
access_log: {{ to: stdout, format: json }}
listeners: {{ web: {{ bind: '127.0.0.1:0', routes: [{{ filters: [grpc_web], pool: site }}] }} }}
pools:
  site: {{ http: {http}, servers: {}, health_check: off, outlier_detection: off, {settings} }}
",
        list(&[server.address()])
    ))
}

fn head<'a>(path: &'a str, content_type: &'a str, timeout: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a.example"),
        ("content-type", content_type),
        ("te", "trailers"),
    ];
    if !timeout.is_empty() {
        fields.push(("grpc-timeout", timeout));
    }
    fields
}

/// How a stream ended.
#[derive(Debug, PartialEq)]
enum End {
    /// By trailers: status, message and reason.
    Told(String),
    /// With the body.
    Whole,
    Reset(u32),
    Lost,
}

/// What is left of a stream whose head has come.
fn rest(client: &mut Frames) -> (Vec<u8>, End) {
    let mut body = Vec::new();
    while let Some(frame) = client.next() {
        match frame.kind {
            DATA => body.extend_from_slice(&frame.payload),
            HEADERS => {
                assert!(frame.ends_stream(), "{frame:?}");
                let told = fields(&frame.payload);
                let told = told.iter().map(|(name, it)| format!("{name}: {it}"));
                let told: Vec<_> = told.collect();
                return (body, End::Told(told.join(", ")));
            }
            RST_STREAM => return (body, End::Reset(frame.code())),
            _ => {}
        }
        if frame.ends_stream() {
            return (body, End::Whole);
        }
    }
    (body, End::Lost)
}

fn told(status: u8, reason: &str) -> End {
    End::Told(format!(
        "grpc-status: {status}, grpc-message: {reason}, x-evenkeel-reason: {reason}"
    ))
}

/// A call that goes on as long as it is answered: its client has not said all.
fn begin(evenkeel: &Evenkeel, settings: &[(u16, u32)], head: &[(&str, &str)]) -> Frames {
    let mut client = Frames::connect_with(web(evenkeel), settings);
    client.request(1, head, false);
    client.send(DATA, 0, 1, HELLO);
    let answer = client.find(|frame| frame.kind == HEADERS);
    assert!(!answer.expect("a head").ends_stream());
    client
}

#[test]
fn a_deadline_amid_an_answer_is_told_by_trailers() -> Outcome {
    let (server, _go) = server()?;
    let cases = [
        (TIME, "", "deadline_exceeded"),
        // Both were waited for: the client might have gone on, too.
        ("20S", "timeouts: { request: 1s }", "request_timeout"),
        ("", "timeouts: { idle: 1s }", "response_timeout"),
    ];
    for (timeout, settings, reason) in cases {
        let mut evenkeel = run(&server, 1, settings);
        let mut client = begin(&evenkeel, &[], &head("/hang", "application/grpc", timeout));
        assert_eq!(rest(&mut client), (HELLO.to_vec(), told(4, reason)));
        let line = evenkeel.wait_log("\"grpc_status\":4,", SOON)?;
        assert!(line.contains(&format!("\"reason\":\"{reason}\"")), "{line}");
        // The connection goes on.
        client.send(DATA, END_STREAM, 1, b"");
        client.request(3, &head("/close", "application/grpc", ""), true);
        let next = client.find(|frame| frame.kind == HEADERS && frame.stream == 3);
        assert!(next.is_some());
    }
    Ok(())
}

#[test]
fn an_answer_that_breaks_off_is_told_by_trailers_to_calls_alone() -> Outcome {
    let (server, go) = server()?;
    let evenkeel = run(&server, 1, "");
    let call = "application/grpc+proto";
    for (path, content_type, end) in [
        ("/close", call, told(14, "server_closed")),
        ("/reset", call, told(14, "server_reset")),
        ("/bad", call, told(14, "bad_response")),
        // What was announced, or is no answer of gRPC, or to no call, cannot end so.
        ("/length", call, End::Reset(INTERNAL_ERROR)),
        ("/page", call, End::Reset(INTERNAL_ERROR)),
        ("/late", "text/plain", End::Reset(INTERNAL_ERROR)),
    ] {
        let mut client = begin(&evenkeel, &[], &head(path, content_type, ""));
        if path != "/close" {
            go.send(())?;
        }
        let (body, ended) = rest(&mut client);
        assert_eq!(ended, end, "{path} {content_type}");
        assert!(HELLO.starts_with(&body), "{body:?}");
    }
    // In the middle of a message too: the status counts.
    let mut client = begin(&evenkeel, &[], &head("/half", call, TIME));
    let end = told(4, "deadline_exceeded");
    assert_eq!(rest(&mut client), (HELLO[..7].to_vec(), end));
    Ok(())
}

#[test]
fn a_stream_that_its_server_resets_is_told_by_trailers() -> Outcome {
    let (go, wait) = gate();
    let server = Origin::start(move |conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            let kind = [("content-type", "application/grpc")];
            conn.send(ServerFrame::headers(stream, 200, &kind))?;
            conn.send(ServerFrame::new(DATA, stream, HELLO))?;
            wait()?;
            if conn.number() > 0 {
                conn.close()?;
            }
            conn.send(ServerFrame::reset(stream, INTERNAL_ERROR))?;
            if stream == 1 {
                // The next one comes on another connection.
                conn.send(ServerFrame::goaway(1, 0))?;
            }
        }
        Ok(())
    })?;
    let evenkeel = run(&server, 2, "");
    for reason in ["server_reset", "server_closed"] {
        let head = head("/any", "application/grpc", "");
        let mut client = begin(&evenkeel, &[], &head);
        go.send(())?;
        let (_, end) = rest(&mut client);
        assert_eq!(end, told(14, reason));
    }
    Ok(())
}

#[test]
fn trailers_follow_what_the_client_has_not_taken_yet() -> Outcome {
    let (server, _go) = server()?;
    let mut evenkeel = run(&server, 1, "");
    let head = head("/hang", "application/grpc", TIME);
    let mut client = begin(&evenkeel, &[(INITIAL_WINDOW_SIZE, 0)], &head);
    evenkeel.wait_log("\"grpc_status\":4,", SOON)?;
    assert!(client.is_quiet(Duration::from_millis(100)));
    client.send(WINDOW_UPDATE, 0, 1, &1000_u32.to_be_bytes());
    let end = told(4, "deadline_exceeded");
    assert_eq!(rest(&mut client), (HELLO.to_vec(), end));
    Ok(())
}

/// What gRPC-Web ends with.
fn frame(status: u8, reason: &str) -> Vec<u8> {
    let text = format!(
        "grpc-status: {status}\r\ngrpc-message: {reason}\r\nx-evenkeel-reason: {reason}\r\n"
    );
    [&[0x80, 0, 0, 0, text.len() as u8], text.as_bytes()].concat()
}

#[test]
fn grpc_web_is_told_by_its_last_frame_between_two_messages() -> Outcome {
    let (server, _go) = server()?;
    let evenkeel = run(&server, 1, "");
    let late = frame(4, "deadline_exceeded");
    let lost = frame(14, "server_closed");
    for (path, timeout, last) in [("/hang", TIME, &late), ("/close", "", &lost)] {
        let head = head(path, "application/grpc-web", timeout);
        let mut client = begin(&evenkeel, &[], &head);
        assert_eq!(rest(&mut client), ([HELLO, last].concat(), End::Whole));
        let timeout = match timeout {
            "" => String::new(),
            timeout => format!("grpc-timeout: {timeout}\r\n"),
        };
        let request = |kind: &str, body: &[u8]| {
            let length = body.len();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n{timeout}Content-Length: {length}\r\n\r\n"
            );
            [head.as_bytes(), body].concat()
        };
        let mut client = connect(web(&evenkeel));
        let response = client.exchange(request("application/grpc-web", HELLO))?;
        assert_eq!(response.body, [HELLO, last].concat(), "{response}");
        assert_eq!(client.read_to_end()?, b"");
        let mut client = connect(web(&evenkeel));
        let response = client.exchange(request("application/grpc-web-text", HELLO_TEXT))?;
        assert!(response.body.starts_with(HELLO_TEXT), "{response}");
        assert!(response.body.len() > HELLO_TEXT.len(), "{response}");
    }
    // What would stand in a message is not said.
    let head = head("/half", "application/grpc-web", TIME);
    let mut client = begin(&evenkeel, &[], &head);
    let end = End::Reset(INTERNAL_ERROR);
    assert_eq!(rest(&mut client), (HELLO[..7].to_vec(), end));
    Ok(())
}

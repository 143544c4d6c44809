//! Server-sent events are never held back: a server sends the next one only when its client has the one before.

use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use testkit::http2::{END_STREAM, Frame, kind};
use testkit::{Conn, Evenkeel, Origin, Process, missing};

use crate::command::BINARY;
use crate::life_support::{SOON, list, start, web};
use crate::tls_support::Authority;

const EVENTS: usize = 12;
/// Longer than an event takes to its client.
const LIMIT: Duration = Duration::from_secs(20);

/// How a server frames its events.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Framing {
    Chunked,
    Close,
    Http2,
}

/// Tiny ones first.
fn event(at: usize) -> String {
    format!("data: {at}:{}\n\n", "x".repeat(at * at * 10))
}

/// Sends its events, each when the client has the one before.
fn send(conn: &mut Conn, framing: Framing, has: &Receiver<()>) -> anyhow::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n";
    let stream = match framing {
        Framing::Http2 => {
            conn.greet(&[])?;
            let stream = conn.next_stream()?.expect("a request");
            let fields = [("content-type", "text/event-stream")];
            conn.send(Frame::headers(stream, 200, &fields))?;
            stream
        }
        Framing::Chunked | Framing::Close => {
            conn.read_request()?;
            let rest = match framing {
                Framing::Chunked => "Transfer-Encoding: chunked\r\n\r\n",
                _ => "Connection: close\r\n\r\n",
            };
            conn.write(format!("{head}{rest}"))?;
            0
        }
    };
    for at in 0..EVENTS {
        let event = event(at);
        match framing {
            Framing::Chunked => conn.write(format!("{:x}\r\n{event}\r\n", event.len()))?,
            Framing::Close => conn.write(event)?,
            Framing::Http2 => conn.send(Frame::new(kind::DATA, stream, event))?,
        }
        has.recv_timeout(LIMIT)?;
    }
    match framing {
        Framing::Chunked => conn.write("0\r\n\r\n"),
        Framing::Close => Ok(()),
        Framing::Http2 => conn.send(Frame::new(kind::DATA, stream, []).with(END_STREAM)),
    }
}

/// A client, `curl -N` with these arguments, that hears all events from a server behind.
fn hear(framing: Framing, start: impl Fn(&str) -> Evenkeel, scheme: &str, args: &[&str]) {
    let (got, has) = channel();
    let has = Mutex::new(has);
    let origin = Origin::start(move |conn| {
        let has = has.lock().unwrap_or_else(PoisonError::into_inner);
        send(conn, framing, &has)
    })
    .expect("an origin");
    let http = if framing == Framing::Http2 { 2 } else { 1 };
    let evenkeel = start(&format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web: {{ bind: '127.0.0.1:0', pool: site }}
pools:
  site: {{ http: {http}, servers: {}, health_check: off }}
",
        list(&[origin.address()])
    ));
    let mut command = Command::new("curl");
    command.args(["-q", "-sS", "-N", "-k", "--noproxy", "*"]);
    command.args(["--max-time", "60", "-H", "Accept: text/event-stream"]);
    command.args(args);
    command.arg(format!("{scheme}://{}/events", web(&evenkeel)));
    let mut client = Process::spawn("curl", command).expect("curl starts");
    for at in 0..EVENTS {
        let line = client.wait_log(&format!("data: {at}:"), LIMIT);
        let line = line.unwrap_or_else(|error| {
            panic!(
                "{framing:?} {scheme} {args:?}: event {at}: {error:#}\n{:?}",
                origin.errors()
            )
        });
        assert_eq!(line, event(at).trim_end());
        got.send(()).expect("the server waits");
    }
    let ended = client.wait_exit(SOON).expect("it ends");
    assert!(ended.success(), "{framing:?} {scheme} {args:?}: {ended}");
}

const FRAMINGS: [Framing; 3] = [Framing::Chunked, Framing::Close, Framing::Http2];

#[test]
fn each_event_comes_before_the_next_is_sent() {
    if missing("curl") {
        return;
    }
    for framing in FRAMINGS {
        for args in [
            &["--http1.1"][..],
            &["--http1.0"],
            &["--http2-prior-knowledge"],
        ] {
            hear(framing, start, "http", args);
        }
    }
}

#[test]
fn the_same_through_tls() {
    if missing("curl") {
        return;
    }
    let issued = Authority::new("the authority").issue(&["localhost"]);
    let secure = |text: &str| {
        let tls = "web: { tls: { certificates: [{ cert: it.pem, key: it.key }] },";
        Evenkeel::start_with(BINARY, &text.replace("web: {", tls), |command| {
            let folder = command.get_current_dir().expect("a folder").to_owned();
            std::fs::write(folder.join("it.pem"), &issued.cert).expect("written");
            std::fs::write(folder.join("it.key"), &issued.key).expect("written");
        })
        .expect("evenkeel starts")
    };
    for framing in FRAMINGS {
        for args in [&["--http1.1"][..], &["--http2"]] {
            hear(framing, secure, "https", args);
        }
    }
}

//! Bodies that wait in connections of HTTP/2, in both directions, count among the buffers of the process.

use std::net::SocketAddr;

use testkit::http2::kind;
use testkit::{Evenkeel, Nghttpd, Origin, TempDir, missing, wait_until};

use crate::http2_servers::NO_PROBES;
use crate::http2_support::{DATA, Frames, WINDOW_UPDATE};
use crate::life_support::{SOON, connect, metric, site, start, web};

const MIB: f64 = 1024.0 * 1024.0;
const INITIAL_WINDOW_SIZE: u16 = 4;
const POST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "a.example"),
];

fn held(evenkeel: &Evenkeel) -> f64 {
    metric(evenkeel, "evenkeel_buffer_bytes ")
}

fn wait_held(evenkeel: &Evenkeel, what: &str, is_so: impl Fn(f64) -> bool) {
    wait_until(what, SOON, || is_so(held(evenkeel)))
        .unwrap_or_else(|error| panic!("{error}: {} held\n{}", held(evenkeel), evenkeel.log()));
}

/// A server that answers GET, and takes no byte of a body.
fn takes_nothing() -> Origin {
    let origin = Origin::start(|conn| {
        conn.greet(&[(INITIAL_WINDOW_SIZE, 0)])?;
        while let Some(frame) = conn.next_frame()? {
            if frame.kind == kind::HEADERS && frame.ends() {
                conn.send(testkit::http2::Frame::headers(frame.stream, 204, &[]).with(5))?;
            }
        }
        Ok(())
    });
    origin.expect("an origin")
}

/// A client whose connection has been accepted.
fn client(address: SocketAddr) -> Frames {
    let mut client = Frames::connect(address);
    let window = client.find(|frame| frame.kind == WINDOW_UPDATE && frame.stream == 0);
    assert!(window.is_some(), "the connection's window is opened");
    client
}

/// Sends as much as the client may on four streams: 960 KiB.
fn upload(client: &mut Frames) {
    for stream in [1, 3, 5, 7] {
        client.request(stream, POST, false);
        for _ in 0..15 {
            client.send(DATA, 0, stream, &[b'x'; 16 * 1024]);
        }
    }
}

#[test]
fn uploads_that_no_server_takes_are_seen_by_who_sheds_load() {
    let origin = takes_nothing();
    let site = site(&[origin.address()], NO_PROBES);
    let evenkeel = start(&format!(
        "workers: 1\nlimits: {{ buffer_bytes: 4MiB }}\n{site}"
    ));
    let mut honest = connect(web(&evenkeel));
    assert_eq!(honest.get("/").expect("an answer").status, 204);
    // All are connected before accepting pauses.
    let mut clients: Vec<_> = (0..6).map(|_| client(web(&evenkeel))).collect();
    let (first, others) = clients.split_first_mut().expect("clients");
    upload(first);
    wait_held(&evenkeel, "one client's bodies are counted", |held| {
        held > 0.85 * MIB
    });
    assert_eq!(honest.get("/").expect("an answer").status, 204);
    others.iter_mut().for_each(upload);
    wait_until("requests are refused", SOON, || {
        let answer = honest.get("/").expect("an answer");
        answer.header("x-evenkeel-reason") == Some("overloaded")
    })
    .unwrap_or_else(|error| panic!("{error}: {} held", held(&evenkeel)));
    let most = held(&evenkeel);
    assert!(most < 5.0 * MIB, "{most} bytes");
    drop(clients);
    wait_held(&evenkeel, "all is let go", |held| held < 0.5 * MIB);
    assert_eq!(honest.get("/").expect("an answer").status, 204);
    // Nothing is counted for what has gone.
    let mut again = connect(web(&evenkeel));
    assert_eq!(again.get("/").expect("an answer").status, 204);
}

#[test]
fn answers_that_no_client_reads_are_counted() {
    if missing("nghttpd") {
        return;
    }
    let files = TempDir::new("files").expect("a folder");
    files.write("big", vec![b'x'; 32 << 20]).expect("written");
    let root = format!("--htdocs={}", files.path().display());
    let server = Nghttpd::start(&[&root]).expect("nghttpd starts");
    let evenkeel = start(&format!(
        "workers: 1\nlimits: {{ buffer_bytes: 64MiB }}\n{}",
        site(&[server.address()], NO_PROBES)
    ));
    let stalled: Vec<_> = (0..16)
        .map(|_| {
            let mut client = connect(web(&evenkeel));
            client
                .send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
                .expect("sent");
            client
        })
        .collect();
    // The window of each is 256 KiB.
    wait_held(&evenkeel, "what waits is counted", |held| held > 3.5 * MIB);
    drop(stalled);
    wait_held(&evenkeel, "all is let go", |held| held < 1.0 * MIB);
}

//! Streams that end before their time: what the other side may take for whole, and whom it costs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use testkit::http2::{Frame as Said, kind};
use testkit::{Evenkeel, Origin, reply, wait_until};

use crate::http2_servers::NO_PROBES;
use crate::http2_support::*;
use crate::life_support::{SOON, connect, site, start, web};

const INITIAL_WINDOW_SIZE: u16 = 4;

/// One worker, so that requests share connections.
fn in_front(servers: &[SocketAddr], settings: &str) -> Evenkeel {
    start(&format!("workers: 1\n{}", site(servers, settings)))
}

/// How a request's body ended at a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Whole,
    Cut,
}

/// What a server has had of uploads: of each its bytes, and how it ended.
type Uploads = Arc<Mutex<BTreeMap<u32, (usize, End)>>>;

/// A server of HTTP/2 that writes down what comes of uploads, and answers what has no body.
fn notes_uploads(window: u32, uploads: &Uploads) -> Origin {
    let uploads = uploads.clone();
    let origin = Origin::start(move |conn| {
        conn.greet(&[(INITIAL_WINDOW_SIZE, window)])?;
        while let Some(frame) = conn.next_frame()? {
            let stream = frame.stream;
            if frame.kind == kind::HEADERS && frame.ends() {
                conn.answer(stream, "other")?;
                continue;
            }
            let mut uploads = uploads.lock().expect("one at a time");
            if frame.kind == kind::HEADERS {
                uploads.insert(stream, (0, End::Open));
                // The answer may begin before its request is whole.
                conn.send(Said::headers(stream, 200, &[]))?;
            }
            let Some((bytes, end)) = uploads.get_mut(&stream) else {
                continue;
            };
            match frame.kind {
                kind::DATA if frame.ends() => *end = End::Whole,
                kind::DATA => *bytes += frame.payload.len(),
                kind::RST_STREAM if frame.code() == Some(CANCEL) => *end = End::Cut,
                _ => {}
            }
        }
        Ok(())
    });
    origin.expect("it listens")
}

/// The same of HTTP/1.1.
fn notes_uploads_in_chunks(uploads: &Uploads) -> Origin {
    let uploads = uploads.clone();
    let origin = Origin::start(move |conn| {
        let Some(head) = conn.read_head()? else {
            return Ok(());
        };
        if head.method == "GET" {
            return conn.write(reply(200, "other"));
        }
        let number = u32::try_from(conn.number())?;
        let note = |bytes, end| uploads.lock().expect("one").insert(number, (bytes, end));
        note(0, End::Open);
        let mut come = Vec::new();
        while let Ok(byte) = conn.read_exactly(1) {
            come.extend(byte);
            note(come.len(), End::Open);
        }
        let length = head.header("content-length").and_then(|it| it.parse().ok());
        let whole = match length {
            Some(length) => come.len() >= length,
            None => come.windows(3).any(|it| it == b"\n0\r") || come.starts_with(b"0\r"),
        };
        note(come.len(), if whole { End::Whole } else { End::Cut });
        Ok(())
    });
    origin.expect("it listens")
}

/// How a client gives its upload up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GivesUp {
    Reset(u32),
    Leaves,
}

/// Has a client give an upload up that has a head and so many pieces, `seen` of which have reached the server before.
fn give_up(evenkeel: &Evenkeel, uploads: &Uploads, case: &Case) {
    let mut client = Frames::connect(web(evenkeel));
    let mut fields = GET.to_vec();
    fields[0].1 = "POST";
    if case.length {
        fields.push(("content-length", "1000"));
    }
    uploads.lock().expect("one").clear();
    let piece = frame(DATA, 0, 1, b"some bytes");
    let head = frame(HEADERS, END_HEADERS, 1, &block(&fields));
    let before = [head, piece.repeat(case.pieces)].concat();
    let last = match case.gives_up {
        GivesUp::Reset(code) => frame(RST_STREAM, 0, 1, &code.to_be_bytes()),
        GivesUp::Leaves => Vec::new(),
    };
    match case.seen {
        None => assert!(client.send_bytes(&[before, last].concat())),
        Some(wanted) => {
            assert!(client.send_bytes(&before));
            let seen = || {
                let uploads = uploads.lock().expect("one");
                uploads.values().any(|(bytes, _)| *bytes >= wanted)
            };
            wait_until("the server has it", SOON, seen).expect("in time");
            assert!(client.send_bytes(&[piece, last].concat()));
        }
    }
    drop(client);
    // What came before that is there when this is answered.
    assert_eq!(
        connect(web(evenkeel)).get("/").expect("an answer").text(),
        "other"
    );
    let over = || {
        let uploads = uploads.lock().expect("one");
        uploads.values().all(|(_, end)| *end != End::Open)
    };
    wait_until("all are over", SOON, over).unwrap_or_else(|error| panic!("{case:?}: {error}"));
    for (_, end) in uploads.lock().expect("one").values() {
        assert_eq!(*end, End::Cut, "{case:?}");
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    pieces: usize,
    /// Bytes that the server has had when it is given up; `None`: all goes out at once.
    seen: Option<usize>,
    length: bool,
    gives_up: GivesUp,
}

fn cases(takes_bodies: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for gives_up in [
        GivesUp::Reset(CANCEL),
        GivesUp::Reset(NO_ERROR),
        GivesUp::Leaves,
    ] {
        for length in [false, true] {
            for (pieces, seen) in [
                (0, None),
                (3, None),
                (0, Some(0)),
                (3, Some(0)),
                (3, Some(30)),
            ] {
                cases.push(Case {
                    pieces,
                    seen: seen.filter(|bytes| takes_bodies || *bytes == 0),
                    length,
                    gives_up,
                });
            }
        }
    }
    cases
}

#[test]
fn an_upload_that_its_client_gives_up_never_looks_whole_to_a_server() {
    for window in [65_535, 0] {
        let uploads = Uploads::default();
        let server = notes_uploads(window, &uploads);
        let evenkeel = in_front(&[server.address()], NO_PROBES);
        for case in cases(window > 0) {
            give_up(&evenkeel, &uploads, &case);
        }
        assert_eq!(server.connections(), 1);
    }
    let uploads = Uploads::default();
    let server = notes_uploads_in_chunks(&uploads);
    let settings = "health_check: off, outlier_detection: off";
    let evenkeel = in_front(&[server.address()], settings);
    for case in cases(true) {
        give_up(&evenkeel, &uploads, &case);
    }
}

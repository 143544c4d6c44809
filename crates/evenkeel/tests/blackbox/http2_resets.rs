//! Streams that end before their time: what the other side may take for whole, and whom it costs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::http2::{Frame as Said, kind};
use testkit::{Evenkeel, Origin, reply, wait_until};

use crate::http2_servers::NO_PROBES;
use crate::http2_support::*;
use crate::life_support::{SOON, connect, metric, site, start, web};

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
            // Closed on: an upload may not be sent on it.
            let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nother";
            return conn.write(answer);
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
            wait_until("the server has it", SOON, seen)
                .unwrap_or_else(|error| panic!("{case:?}: {error}"));
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

/// Streams that are given up at once, and how often.
const BURST: u32 = 120;
const BURSTS: u32 = 26;

/// A server that keeps all its streams open. When all but the first were given up, it says more in each of them, three
/// times, each when the other side has heard what was said before; and then `tick` in the first.
fn speaks_late() -> Origin {
    let origin = Origin::start(|conn| {
        conn.greet(&[])?;
        let (mut first, mut open, mut gone) = (None, 0, Vec::new());
        while let Some(frame) = conn.next_frame()? {
            match frame.kind {
                kind::HEADERS => {
                    if first.is_some() {
                        open += 1;
                    }
                    first.get_or_insert(frame.stream);
                    conn.send(Said::headers(frame.stream, 200, &[]))?;
                    conn.send(Said::new(kind::DATA, frame.stream, *b"hello"))?;
                }
                // Late words may be answered with others.
                kind::RST_STREAM if frame.code() == Some(CANCEL) => gone.push(frame.stream),
                _ => {}
            }
            if open == 0 || gone.len() < open {
                continue;
            }
            for _ in 0..3 {
                conn.send(Said::new(kind::PING, 0, [7; 8]))?;
                while conn.any_frame()?.is_some_and(|it| it.kind != kind::PING) {}
                for stream in &gone {
                    conn.send(Said::new(kind::DATA, *stream, *b"too late"))?;
                }
            }
            (open, gone) = (0, Vec::new());
            if let Some(first) = first {
                conn.send(Said::new(kind::DATA, first, *b"tick"))?;
            }
        }
        Ok(())
    });
    origin.expect("it listens")
}

/// Waits until so many frames of bodies have come that say this.
fn hear(client: &mut Frames, word: &[u8], count: u32) {
    for number in 0..count {
        let said = client.find(|frame| frame.kind == DATA && frame.payload == word);
        assert!(
            said.is_some(),
            "{number} of {count}: {}",
            word.escape_ascii()
        );
    }
}

#[test]
fn what_a_server_still_says_of_streams_that_were_given_up_is_held_against_nobody() {
    let servers = [speaks_late(), speaks_late()];
    let addresses = servers.each_ref().map(Origin::address);
    let settings = "health_check: off, balance: round_robin, http: 2";
    let evenkeel = in_front(&addresses, settings);
    // One long stream at each server.
    let mut watching = Frames::connect(web(&evenkeel));
    for stream in [1, 3] {
        watching.request(stream, GET, true);
        hear(&mut watching, b"hello", 1);
    }
    for _ in 0..BURSTS {
        let mut leaves = Frames::connect(web(&evenkeel));
        for number in 0..BURST {
            leaves.request(2 * number + 1, GET, true);
        }
        hear(&mut leaves, b"hello", BURST);
        drop(leaves);
        hear(&mut watching, b"tick", 2);
    }
    for server in &servers {
        assert_eq!(server.connections(), 1);
    }
    assert_eq!(metric(&evenkeel, "evenkeel_ejections_total"), 0.0);
}

/// Opens streams that break their rules: bodies longer than they said.
fn fail(client: &mut Frames, first: u32, count: u32) {
    let mut fields = GET.to_vec();
    fields[0].1 = "POST";
    fields.push(("content-length", "1"));
    for number in 0..count {
        let stream = first + 2 * number;
        client.request(stream, &fields, false);
        client.send(DATA, END_STREAM, stream, b"more");
    }
}

#[test]
fn streams_that_fail_count_within_a_time_and_not_over_a_life() {
    let server = Origin::http(|_| reply(200, "well")).expect("it listens");
    let evenkeel = in_front(&[server.address()], "health_check: off");
    let mut client = Frames::connect(web(&evenkeel));
    let mut stream = 1;
    for _ in 0..2 {
        fail(&mut client, stream, 60);
        stream += 120;
        client.request(stream, GET, true);
        let answered = client.find(|it| it.kind == HEADERS && it.stream == stream);
        assert!(answered.is_some(), "it goes on");
        stream += 2;
        // As long as they are counted together.
        while !client.is_quiet(Duration::from_millis(10_100)) {
            client.next().expect("a frame");
        }
    }
    fail(&mut client, stream, 250);
    let told = client.find(|it| it.kind == GOAWAY).expect("a word");
    assert_eq!(told.code(), ENHANCE_YOUR_CALM);
}

#[test]
fn streams_past_the_limit_are_refused_for_as_long_as_their_client_likes() {
    let server = Origin::http(|_| reply(200, "well")).expect("it listens");
    let text = site(&[server.address()], "health_check: off")
        .replace("web: {", "web: { http2: { streams: 1, resets: 10 },");
    let evenkeel = start(&text);
    let mut client = Frames::connect(web(&evenkeel));
    client.send(PING, 0, 0, &[7; 8]);
    client.find(|it| it.kind == PING).expect("an answer");
    let mut fields = GET.to_vec();
    fields[0].1 = "POST";
    client.request(1, &fields, false);
    for number in 1..100 {
        let stream = 2 * number + 1;
        client.request(stream, GET, true);
        assert_eq!(client.fate(stream), Fate::Reset(REFUSED_STREAM));
    }
    client.send(DATA, END_STREAM, 1, b"");
    assert_eq!(client.fate(1), Fate::Status(200));
}

#[test]
fn requests_that_are_none_are_a_flood_when_there_are_many() {
    let server = Origin::http(|_| reply(200, "well")).expect("it listens");
    let text = site(&[server.address()], "health_check: off")
        .replace("web: {", "web: { http2: { resets: 10 },");
    let evenkeel = start(&text);
    let mut client = Frames::connect(web(&evenkeel));
    let pathless: Vec<_> = GET.iter().filter(|it| it.0 != ":path").copied().collect();
    for number in 0..90 {
        let stream = 2 * number + 1;
        client.request(stream, &pathless, true);
        assert_eq!(client.fate(stream), Fate::Reset(PROTOCOL_ERROR));
    }
    client.request(181, GET, true);
    assert_eq!(client.fate(181), Fate::Status(200), "others are served");
    for number in 91..191 {
        client.request(2 * number + 1, &pathless, true);
    }
    let told = client.find(|it| it.kind == GOAWAY).expect("a word");
    assert_eq!(told.code(), ENHANCE_YOUR_CALM);
    drop(client);
    wait_until("it is counted", SOON, || {
        metric(&evenkeel, "evenkeel_errors_total{reason=\"http2_flood\"}") >= 1.0
    })
    .expect("it is counted");
}

#[test]
fn streams_that_are_given_up_while_a_server_works_on_them_are_a_flood() {
    let server = Origin::start(|conn| {
        conn.read_request()?;
        conn.hang(SOON);
        Ok(())
    });
    let server = server.expect("it listens");
    for (trusted, floods) in [("[]", true), ("['127.0.0.1']", false)] {
        let settings = format!("web: {{ http2: {{ resets: 1 }}, trusted_proxies: {trusted},");
        let text = site(&[server.address()], "health_check: off").replace("web: {", &settings);
        let evenkeel = start(&text);
        let mut client = Frames::connect(web(&evenkeel));
        for batch in 0..3 {
            let streams = (0..8).map(|number| 16 * batch + 2 * number + 1);
            for stream in streams.clone() {
                client.request(stream, GET, true);
            }
            wait_until("the server has them", SOON, || {
                metric(&evenkeel, "evenkeel_active_connections") >= 8.0
            })
            .expect("the server has them");
            for stream in streams {
                client.send(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
            }
            wait_until("they are over", SOON, || {
                metric(&evenkeel, "evenkeel_active_connections") == 0.0
            })
            .expect("they are over");
            if batch > 0 && floods {
                break;
            }
        }
        if floods {
            let told = client.find(|it| it.kind == GOAWAY).expect("a word");
            assert_eq!(told.code(), ENHANCE_YOUR_CALM);
        } else {
            client.send(PING, 0, 0, &[7; 8]);
            let answer = client.find(|it| matches!(it.kind, PING | GOAWAY));
            assert_eq!(answer.expect("an answer").kind, PING);
        }
    }
}

/// A server that takes ten requests on a connection, and then closes it without a word.
fn closes_on_ten() -> Origin {
    let origin = Origin::start(|conn| {
        conn.greet(&[])?;
        let mut requests = 0;
        while let Some(frame) = conn.next_frame()? {
            requests += u32::from(frame.kind == kind::HEADERS);
            if requests == 10 {
                return conn.close();
            }
        }
        Ok(())
    });
    origin.expect("it listens")
}

#[test]
fn a_connection_that_a_server_closes_is_one_failure_however_many_shared_it() {
    let servers = [closes_on_ten(), closes_on_ten()];
    let addresses = servers.each_ref().map(Origin::address);
    let settings = "health_check: off, http: 2, retries: { attempts: 0 },
        outlier_detection: { consecutive_gateway_errors: 3 }";
    let evenkeel = in_front(&addresses, settings);
    let mut client = Frames::connect(web(&evenkeel));
    let mut fields = GET.to_vec();
    fields[0].1 = "POST";
    for number in 0..20 {
        client.request(2 * number + 1, &fields, true);
    }
    wait_until("all have failed", SOON, || {
        metric(&evenkeel, "evenkeel_requests_total{listener=\"web\"") >= 20.0
    })
    .expect("all have failed");
    assert!(
        !evenkeel.log().contains("server is ejected"),
        "{}",
        evenkeel.log()
    );
    let failed = metric(&evenkeel, "evenkeel_server_failed_total");
    assert!((1.0..=2.0).contains(&failed), "{failed}");
}

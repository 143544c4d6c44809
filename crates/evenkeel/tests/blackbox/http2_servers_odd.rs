//! Servers that speak HTTP/2 frame by frame: what no real one does on demand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use testkit::http2::{END_STREAM, Frame, kind};
use testkit::{Conn, Evenkeel, Origin, Raw, Response, reply, wait_until};

use crate::http2_servers::NO_PROBES;
use crate::life_support::{SOON, ask, connect, metric, site, start, web};

const REFUSED_STREAM: u32 = 7;
const INTERNAL_ERROR: u32 = 2;
const CANCEL: u32 = 8;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

fn origin(handle: impl Fn(&mut Conn) -> anyhow::Result<()> + Send + Sync + 'static) -> Origin {
    Origin::start(handle).expect("it listens")
}

/// One worker, so that requests share connections.
fn in_front(servers: &[SocketAddr], settings: &str) -> Evenkeel {
    start(&format!("workers: 1\n{}", site(servers, settings)))
}

fn get(evenkeel: &Evenkeel) -> Response {
    connect(web(evenkeel)).get("/").expect("an answer")
}

fn post(evenkeel: &Evenkeel, body: &str) -> Response {
    let length = body.len();
    let request = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
    connect(web(evenkeel)).exchange(request).expect("an answer")
}

fn reason(answer: &Response) -> (u16, &str) {
    let reason = answer.header("x-evenkeel-reason");
    (answer.status, reason.unwrap_or_default())
}

/// A request that has been sent, and whose answer is read later.
fn begin(evenkeel: &Evenkeel) -> Raw {
    let mut client = connect(web(evenkeel));
    client
        .send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    client
}

fn not_taken(evenkeel: &Evenkeel) -> f64 {
    metric(
        evenkeel,
        "evenkeel_retries_total{pool=\"site\",cause=\"not_taken\"}",
    )
}

#[test]
fn a_refused_stream_was_not_sent() {
    let server = origin(|conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            if conn.number() == 0 && stream > 1 {
                conn.send(Frame::reset(stream, REFUSED_STREAM))?;
            } else {
                conn.answer(stream, conn.number().to_string())?;
            }
        }
        Ok(())
    });
    let evenkeel = in_front(&[server.address()], NO_PROBES);
    assert_eq!(get(&evenkeel).text(), "0");
    // The one server there is, asked again on a new connection, whatever the method.
    let answer = post(&evenkeel, "body");
    assert_eq!((answer.status, &*answer.text()), (200, "1"), "{answer}");
    assert_eq!(not_taken(&evenkeel), 1.0);
    assert_eq!(get(&evenkeel).text(), "1");
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_server_that_refuses_everything_is_left_for_others_and_then_told() {
    let refuses = || {
        origin(|conn| {
            conn.greet(&[])?;
            while let Some(stream) = conn.next_stream()? {
                conn.send(Frame::reset(stream, REFUSED_STREAM))?;
            }
            Ok(())
        })
    };
    let takes = origin(|conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            conn.answer(stream, "taken")?;
        }
        Ok(())
    });
    let (one, two) = (refuses(), refuses());
    let evenkeel = in_front(&[one.address(), takes.address(), two.address()], NO_PROBES);
    for _ in 0..9 {
        assert_eq!(post(&evenkeel, "body").text(), "taken");
    }
    let evenkeel = in_front(&[one.address(), two.address()], NO_PROBES);
    let answer = post(&evenkeel, "body");
    assert_eq!(reason(&answer), (503, "request_refused"), "{answer}");
}

#[test]
fn what_a_goaway_leaves_out_was_not_sent_and_the_rest_ends_in_peace() {
    let server = origin(|conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            match (conn.number(), stream) {
                (0, 1) => {}
                (0, 3) => {
                    conn.send(Frame::goaway(1, 0))?;
                    conn.answer(1, "old")?;
                }
                _ => conn.answer(stream, "new")?,
            }
        }
        Ok(())
    });
    let evenkeel = in_front(&[server.address()], NO_PROBES);
    let mut first = begin(&evenkeel);
    wait_until("it is sent", SOON, || server.requests() == 1).expect("in time");
    let answer = post(&evenkeel, "body");
    assert_eq!((answer.status, &*answer.text()), (200, "new"), "{answer}");
    assert_eq!(first.response().expect("an answer").text(), "old");
    assert_eq!(not_taken(&evenkeel), 1.0);
    wait_until("the old one is closed", SOON, || server.open() == 1).expect("in time");
    assert_eq!(get(&evenkeel).text(), "new");
}

/// As nginx does after `keepalive_requests`, with a crowd.
#[test]
fn a_server_that_takes_few_requests_on_each_connection_serves_all_in_the_end() {
    const ALL: usize = 12;
    let taken = Arc::new(AtomicUsize::new(0));
    let server = origin(move |conn| {
        conn.greet(&[])?;
        let mut held = Vec::new();
        while held.len() < 2
            && let Some(stream) = conn.next_stream()?
        {
            held.push(stream);
            if taken.fetch_add(1, Ordering::SeqCst) + 1 == ALL {
                break;
            }
        }
        conn.send(Frame::goaway(held.last().copied().unwrap_or_default(), 0))?;
        for stream in held {
            conn.answer(stream, "taken")?;
        }
        while conn.next_stream()?.is_some() {}
        Ok(())
    });
    let evenkeel = in_front(&[server.address()], NO_PROBES);
    let mut clients: Vec<_> = (0..ALL).map(|_| connect(web(&evenkeel))).collect();
    for client in &mut clients {
        let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
        client.send(post).expect("sent");
    }
    for client in &mut clients {
        let answer = client.response().expect("an answer");
        assert_eq!((answer.status, &*answer.text()), (200, "taken"), "{answer}");
    }
    assert!(not_taken(&evenkeel) > 0.0);
}

/// A server that answers the first request of its first connection, and ends that with `last_word` as the second comes; it
/// answers all on further ones. Counts the requests that it had.
fn leaves_at_the_second(last_word: Option<Frame>) -> (Origin, Arc<AtomicUsize>) {
    let had = Arc::new(AtomicUsize::new(0));
    let server = origin({
        let had = had.clone();
        move |conn| {
            conn.greet(&[])?;
            while let Some(stream) = conn.next_stream()? {
                had.fetch_add(1, Ordering::SeqCst);
                if conn.number() == 0 && stream > 1 {
                    return last_word.clone().map_or(Ok(()), |word| conn.send(word));
                }
                conn.answer(stream, "answered")?;
            }
            Ok(())
        }
    });
    (server, had)
}

#[test]
fn a_request_on_an_old_connection_is_lost_only_where_its_server_leaves_without_a_word() {
    // Whatever the method: the last word says that it was not taken.
    let (server, had) = leaves_at_the_second(Some(Frame::goaway(1, 0)));
    let evenkeel = in_front(&[server.address()], NO_PROBES);
    assert_eq!(get(&evenkeel).text(), "answered");
    let answer = post(&evenkeel, "body");
    assert_eq!(
        (answer.status, &*answer.text()),
        (200, "answered"),
        "{answer}"
    );
    assert_eq!(had.load(Ordering::SeqCst), 3);
    assert_eq!(not_taken(&evenkeel), 1.0);

    // Without one nobody knows whether it was: only what may be repeated is.
    let (server, had) = leaves_at_the_second(None);
    let evenkeel = in_front(&[server.address()], NO_PROBES);
    assert_eq!(get(&evenkeel).text(), "answered");
    let answer = post(&evenkeel, "body");
    assert_eq!(answer.status, 502, "{answer}");
    assert!(reason(&answer).1.starts_with("server_"), "{answer}");
    assert_eq!(had.load(Ordering::SeqCst), 2);
    let (server, _) = leaves_at_the_second(None);
    let evenkeel = in_front(&[server.address()], NO_PROBES);
    assert_eq!(get(&evenkeel).text(), "answered");
    assert_eq!(get(&evenkeel).text(), "answered");
}

#[test]
fn a_connection_that_its_server_has_closed_is_not_used_again() {
    let server = origin(|conn| {
        conn.greet(&[])?;
        // Answers one request of each connection, and leaves without a word.
        if let Some(stream) = conn.next_stream()? {
            conn.answer(stream, "once")?;
        }
        Ok(())
    });
    let evenkeel = in_front(&[server.address()], NO_PROBES);
    for _ in 0..5 {
        let answer = post(&evenkeel, "body");
        assert_eq!(answer.text(), "once", "{answer}");
        let open = || metric(&evenkeel, "evenkeel_server_sockets{") == 0.0;
        wait_until("its end is seen", SOON, open).expect("in time");
    }
}

#[test]
fn a_reset_is_that_of_one_stream_and_the_server_s_fault() {
    let server = origin(|conn| {
        conn.greet(&[])?;
        let mut held = None;
        while let Some(stream) = conn.next_stream()? {
            match held {
                None => held = Some(stream),
                Some(first) => {
                    conn.send(Frame::reset(stream, INTERNAL_ERROR))?;
                    conn.answer(first, "held")?;
                    held = None;
                }
            }
        }
        Ok(())
    });
    let evenkeel = in_front(&[server.address()], NO_PROBES);
    let mut first = begin(&evenkeel);
    wait_until("it is sent", SOON, || server.requests() == 1).expect("in time");
    let answer = post(&evenkeel, "body");
    assert_eq!(reason(&answer), (502, "server_reset"), "{answer}");
    assert_eq!(first.response().expect("an answer").text(), "held");
    assert_eq!(server.connections(), 1);

    // What may be sent twice goes to another server.
    let other = origin(|conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            conn.answer(stream, "other")?;
        }
        Ok(())
    });
    let resets = origin(|conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            conn.send(Frame::reset(stream, INTERNAL_ERROR))?;
        }
        Ok(())
    });
    let evenkeel = in_front(&[resets.address(), other.address()], NO_PROBES);
    for _ in 0..4 {
        assert_eq!(get(&evenkeel).text(), "other");
    }
    let series = "evenkeel_retries_total{pool=\"site\",cause=\"server_reset\"}";
    assert!(metric(&evenkeel, series) >= 1.0);
}

#[test]
fn no_more_streams_than_the_server_wants() {
    let begun = Arc::new(AtomicUsize::new(0));
    let server = origin({
        let begun = begun.clone();
        move |conn| {
            conn.greet(&[(MAX_CONCURRENT_STREAMS, 2)])?;
            let mut streams = Vec::new();
            while let Some(stream) = conn.next_stream()? {
                streams.push(stream);
                begun.fetch_add(1, Ordering::SeqCst);
                if streams.len() == 2 {
                    wait_until("all have come", SOON, || begun.load(Ordering::SeqCst) >= 6)?;
                    for stream in streams.drain(..) {
                        conn.answer(stream, "done")?;
                    }
                }
            }
            Ok(())
        }
    });
    let evenkeel = in_front(&[server.address()], NO_PROBES);
    let clients: Vec<Raw> = (0..6).map(|_| begin(&evenkeel)).collect();
    for mut client in clients {
        assert_eq!(client.response().expect("an answer").text(), "done");
    }
    assert_eq!(server.connections(), 3);
}

#[test]
fn an_upload_waits_for_the_server_s_window_and_nobody_waits_for_it() {
    let server = origin(|conn| {
        conn.greet(&[(INITIAL_WINDOW_SIZE, 0)])?;
        let mut count = 0;
        while let Some(frame) = conn.next_frame()? {
            match (frame.kind, frame.stream) {
                (kind::HEADERS, 1) => {}
                (kind::HEADERS, stream) => {
                    conn.answer(stream, "beside")?;
                    conn.send(Frame::window(1, 10))?;
                }
                (kind::DATA, 1) => {
                    count += frame.payload.len();
                    if frame.ends() {
                        conn.answer(1, count.to_string())?;
                    } else {
                        conn.send(Frame::window(1, 10_000))?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    });
    for chunked in [false, true] {
        let evenkeel = in_front(&[server.address()], NO_PROBES);
        let mut upload = connect(web(&evenkeel));
        let body = "x".repeat(50_000);
        let request = if chunked {
            format!(
                "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            )
        } else {
            format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n{body}")
        };
        let before = server.requests();
        upload.send(request).expect("sent");
        wait_until("it is sent", SOON, || server.requests() > before).expect("in time");
        assert_eq!(get(&evenkeel).text(), "beside");
        assert_eq!(upload.response().expect("an answer").text(), "50000");
    }
}

#[test]
fn a_client_that_leaves_cancels_its_stream_alone() {
    let cancelled = Arc::new(AtomicBool::new(false));
    let begun = Arc::new(AtomicBool::new(false));
    let server = origin({
        let (cancelled, begun) = (cancelled.clone(), begun.clone());
        move |conn| {
            conn.greet(&[])?;
            while let Some(frame) = conn.next_frame()? {
                match frame.kind {
                    kind::HEADERS if frame.stream == 3 => begun.store(true, Ordering::SeqCst),
                    kind::HEADERS => conn.answer(frame.stream, "other")?,
                    kind::RST_STREAM => {
                        let right = frame.stream == 3 && frame.code() == Some(CANCEL);
                        cancelled.store(right, Ordering::SeqCst);
                    }
                    _ => {}
                }
            }
            Ok(())
        }
    });
    let evenkeel = in_front(&[server.address()], NO_PROBES);
    // One that has been waited for, so that its end is seen.
    let mut client = begin(&evenkeel);
    assert_eq!(client.response().expect("an answer").text(), "other");
    client
        .send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    wait_until("it is sent", SOON, || begun.load(Ordering::SeqCst)).expect("in time");
    assert_eq!(get(&evenkeel).text(), "other");
    client.reset().expect("reset");
    let seen = || cancelled.load(Ordering::SeqCst);
    wait_until("the stream is cancelled", SOON, seen).expect("in time");
    assert_eq!(get(&evenkeel).text(), "other");
    assert_eq!(server.connections(), 1);
}

#[test]
fn what_is_no_http2_is_refused_with_a_reason() {
    // Spoken to by prior knowledge, it answers in HTTP/1: nothing was sent, and another one takes even a POST.
    let old = Origin::http(|_| reply(400, "what?")).expect("it listens");
    let good = origin(|conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            conn.answer(stream, "good")?;
        }
        Ok(())
    });
    let evenkeel = in_front(&[old.address(), good.address()], NO_PROBES);
    for _ in 0..4 {
        assert_eq!(post(&evenkeel, "body").text(), "good");
    }
    let evenkeel = in_front(&[old.address()], NO_PROBES);
    assert_eq!(reason(&get(&evenkeel)), (502, "server_handshake"));

    let breaks_rules = origin(|conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            // A body before a head (RFC 9113 §8.1).
            conn.send(Frame::new(kind::DATA, stream, *b"body"))?;
        }
        Ok(())
    });
    let evenkeel = in_front(&[breaks_rules.address()], NO_PROBES);
    assert_eq!(reason(&get(&evenkeel)), (502, "bad_response"));
    let switches = origin(|conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            conn.send(Frame::headers(stream, 101, &[]))?;
        }
        Ok(())
    });
    let evenkeel = in_front(&[switches.address()], NO_PROBES);
    assert_eq!(reason(&get(&evenkeel)), (502, "bad_response"));
}

#[test]
fn an_idle_connection_ends_with_a_word_and_a_drained_server_has_none() {
    let said = Arc::new(AtomicUsize::new(0));
    let server = origin({
        let said = said.clone();
        move |conn| {
            conn.greet(&[])?;
            while let Some(frame) = conn.next_frame()? {
                match frame.kind {
                    kind::HEADERS => conn.answer(frame.stream, "hello")?,
                    kind::GOAWAY if frame.code() == Some(0) => {
                        said.fetch_add(1, Ordering::SeqCst);
                    }
                    _ => {}
                }
            }
            Ok(())
        }
    });
    let short = format!("{NO_PROBES}, timeouts: {{ keep_alive: 1s }}");
    let evenkeel = in_front(&[server.address()], &short);
    assert_eq!(get(&evenkeel).text(), "hello");
    wait_until("it is closed", SOON, || server.open() == 0).expect("in time");
    assert_eq!(said.load(Ordering::SeqCst), 1);

    let long = format!("{NO_PROBES}, timeouts: {{ keep_alive: 1h }}");
    let evenkeel = in_front(&[server.address()], &long);
    for _ in 0..3 {
        assert_eq!(get(&evenkeel).text(), "hello");
    }
    assert_eq!(server.open(), 1);
    let address = server.address().to_string();
    let drained = ask(&evenkeel, &["server", "drain", "site", &address]);
    assert_eq!(drained.code, Some(0), "{}", drained.stderr);
    wait_until("it is closed", SOON, || server.open() == 0).expect("in time");
    assert_eq!(said.load(Ordering::SeqCst), 2);
}

#[test]
fn a_dead_peer_is_found_and_its_requests_go_elsewhere() {
    let server = origin(|conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            if conn.number() == 0 && stream > 1 {
                conn.hang(SOON);
            }
            conn.answer(stream, conn.number().to_string())?;
        }
        Ok(())
    });
    let settings = "health_check: off, outlier_detection: off, http: { version: 2, ping_after: 1s, ping_timeout: 1s }";
    let evenkeel = in_front(&[server.address()], settings);
    assert_eq!(get(&evenkeel).text(), "0");
    let answer = post(&evenkeel, "body");
    assert_eq!(reason(&answer).0, 502, "{answer}");
    assert_eq!(get(&evenkeel).text(), "1");
}

#[test]
fn interim_responses_and_trailers_pass() {
    let server = origin(|conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            conn.send(Frame::headers(stream, 103, &[("link", "</a>")]))?;
            conn.send(Frame::headers(stream, 200, &[("x-kind", "streamed")]))?;
            conn.send(Frame::new(kind::DATA, stream, *b"some"))?;
            conn.send(Frame::new(kind::DATA, stream, *b" more"))?;
            conn.send(Frame::trailers(stream, &[("grpc-status", "0")]))?;
        }
        Ok(())
    });
    let evenkeel = in_front(&[server.address()], NO_PROBES);
    let answer = get(&evenkeel);
    assert_eq!((answer.status, &*answer.text()), (200, "some more"));
    assert_eq!(answer.header("x-kind"), Some("streamed"));
    assert_eq!(answer.trailers.get("grpc-status"), Some("0"));
    let interim: Vec<_> = answer.interim.iter().map(|it| it.status).collect();
    assert_eq!(interim, [103]);
    assert_eq!(answer.interim[0].headers.get("link"), Some("</a>"));
}

#[test]
fn bare_answers_have_no_body() {
    let server = origin(|conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            let status = if stream % 4 == 1 { 204 } else { 304 };
            let head = Frame::headers(stream, status, &[]);
            let flags = head.flags | END_STREAM;
            conn.send(head.with(flags))?;
        }
        Ok(())
    });
    let evenkeel = in_front(&[server.address()], NO_PROBES);
    let mut client = connect(web(&evenkeel));
    for expected in [204, 304, 204] {
        let answer = client.get("/").expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (expected, 0));
    }
}

#[test]
fn a_websocket_is_an_extended_connect_where_the_server_offers_it() {
    let server = origin(|conn| {
        conn.greet(&[(ENABLE_CONNECT_PROTOCOL, 1)])?;
        while let Some(frame) = conn.next_frame()? {
            match frame.kind {
                kind::HEADERS => conn.send(Frame::headers(frame.stream, 200, &[]))?,
                kind::DATA => conn.send(frame)?,
                _ => {}
            }
        }
        Ok(())
    });
    let request = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let in_front = |server: SocketAddr| {
        let text = format!("workers: 1\n{}", site(&[server], NO_PROBES));
        start(&text.replace("web: {", "web: { upgrades: [websocket],"))
    };
    let evenkeel = in_front(server.address());
    let mut client = connect(web(&evenkeel));
    let answer = client.exchange(request).expect("an answer");
    assert_eq!(answer.status, 101, "{answer}");
    let accept = answer.header("sec-websocket-accept");
    assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for _ in 0..3 {
        client.send("ping").expect("sent");
        assert_eq!(client.read_exactly(4).expect("an echo"), b"ping");
    }
    client.half_close().expect("closed");
    assert_eq!(client.read_to_end().expect("an end"), b"");

    let without = origin(|conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            conn.answer(stream, "plain")?;
        }
        Ok(())
    });
    let evenkeel = in_front(without.address());
    let answer = connect(web(&evenkeel))
        .exchange(request)
        .expect("an answer");
    assert_eq!(reason(&answer), (501, "not_implemented"), "{answer}");
    assert_eq!(get(&evenkeel).text(), "plain");
}

#[test]
fn many_requests_share_one_connection_and_one_death_is_that_of_its_own() {
    let server = origin(|conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            if conn.number() == 0 && stream > 201 {
                return Ok(());
            }
            conn.answer(stream, "x".repeat(100))?;
        }
        Ok(())
    });
    let evenkeel = in_front(&[server.address()], NO_PROBES);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = connect(web(&evenkeel));
                for _ in 0..40 {
                    let answer = client.get("/").expect("an answer");
                    assert_eq!((answer.status, answer.body.len()), (200, 100));
                }
            });
        }
    });
    assert_eq!(server.connections(), 2);
}

#[test]
fn at_the_limit_of_sockets_requests_wait_for_a_place() {
    let server = origin(|conn| {
        conn.greet(&[(MAX_CONCURRENT_STREAMS, 1)])?;
        while let Some(stream) = conn.next_stream()? {
            conn.answer(stream, "done")?;
        }
        Ok(())
    });
    let settings = format!("{NO_PROBES}, limits: {{ connections_per_server: 1 }}");
    let evenkeel = in_front(&[server.address()], &settings);
    let clients: Vec<Raw> = (0..8).map(|_| begin(&evenkeel)).collect();
    for mut client in clients {
        assert_eq!(client.response().expect("an answer").text(), "done");
    }
    assert_eq!(server.connections(), 1);
}

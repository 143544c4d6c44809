//! HTTP/2 with clients, frame by frame: what is refused, what is bounded, and how connections end.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::{Evenkeel, Origin, Signal, reply, wait_until};

use crate::command::BINARY;
use crate::http_setup::{noise, proxy_with};
use crate::http2_support::*;
use crate::life_support::{SOON, list, web};

type Fields<'a> = &'a [(&'a str, &'a str)];

/// One worker with an admin API, before these servers.
fn start(servers: &[SocketAddr], listener: &str) -> Evenkeel {
    let text = format!(
        "admin: {{ bind: '127.0.0.1:0' }}
workers: 1
access_log: {{ to: stdout, format: json }}
shutdown: {{ idle_wait: 1s, timeout: 10s }}
listeners: {{ web: {{ bind: '127.0.0.1:0', pool: site, {listener} }} }}
pools: {{ site: {{ servers: {}, health_check: off }} }}
",
        list(servers)
    );
    Evenkeel::start(BINARY, &text).expect("evenkeel starts")
}

/// An origin that answers `/wait` only when it is told to; every other request at once.
fn gated() -> (Origin, Sender<()>) {
    let (go, wait): (Sender<()>, Receiver<()>) = channel();
    let wait = Arc::new(Mutex::new(wait));
    let origin = Origin::http(move |request| {
        if request.target == "/wait" {
            let wait = wait.lock().expect("one at a time");
            wait.recv_timeout(SOON).ok();
        }
        reply(200, &request.target)
    });
    (origin.expect("an origin"), go)
}

fn with<'a>(changes: Fields<'a>) -> Vec<(&'a str, &'a str)> {
    let mut fields: Vec<_> = GET.to_vec();
    for (name, value) in changes {
        match fields.iter_mut().find(|(known, _)| known == name) {
            Some(field) if name.starts_with(':') => field.1 = value,
            _ => fields.push((name, value)),
        }
    }
    fields.retain(|(_, value)| *value != "-");
    fields
}

#[test]
fn what_could_smuggle_a_request_is_refused_and_reaches_no_server() {
    let origin = Origin::http(|_| reply(200, "")).expect("an origin");
    let evenkeel = start(&[origin.address()], "");
    let bad = Fate::Status(400);
    let reset = Fate::Reset(PROTOCOL_ERROR);
    let goaway = Fate::GoAway(PROTOCOL_ERROR);
    let table: &[(Fields<'_>, Fate)] = &[
        (&[("transfer-encoding", "chunked")], reset),
        (&[("connection", "close")], reset),
        (&[("connection", "x"), ("x", "1")], reset),
        (&[("upgrade", "h2c")], reset),
        (&[("keep-alive", "timeout=5")], reset),
        (&[("proxy-connection", "close")], reset),
        (&[("te", "gzip")], reset),
        (&[("content-length", "5")], reset),
        (&[("content-length", "0"), ("content-length", "1")], reset),
        (&[("content-length", "0x5")], reset),
        (&[("content-length", "+0")], reset),
        (&[("content_length", "5")], bad),
        (&[("host", "b.example")], bad),
        (&[("host", "a.example"), ("host", "a.example")], bad),
        (&[(":authority", "a.example/x")], reset),
        (&[(":authority", "user@a.example")], bad),
        (&[(":authority", "-")], bad),
        (&[(":path", "-")], reset),
        (&[(":path", "")], reset),
        (&[(":path", "b")], reset),
        (&[(":path", "*")], bad),
        (&[(":path", "http://b.example/")], reset),
        (&[(":path", "/ HTTP/1.1\r\nHost: b")], reset),
        (&[(":method", "-")], reset),
        (&[(":method", "GET / HTTP/1.1\r\nx: y")], goaway),
        (&[(":method", "GE T")], goaway),
        (&[(":scheme", "-")], reset),
        (&[(":scheme", "gopher")], bad),
        (&[(":status", "200")], reset),
        (&[("x", "1"), (":path2", "/b")], goaway),
        (&[(":protocol", "websocket")], reset),
        (&[("x", " padded")], bad),
        (&[("x", "padded ")], bad),
    ];
    let mut wrong = Vec::new();
    for (changes, expected) in table {
        let mut client = Frames::connect(web(&evenkeel));
        client.request(1, &with(changes), true);
        let fate = client.fate(1);
        if fate != *expected {
            wrong.push(format!("{changes:?}: {fate:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // What no field may hold is an error of the connection's compression, or of the stream.
    for (name, value) in [
        ("x", "a\r\ny: z"),
        ("x", "a\nb"),
        ("x", "a\0b"),
        ("x\r\ny", "a"),
        ("x y", "a"),
        ("X-Upper", "a"),
        ("", "a"),
        ("x:", "a"),
    ] {
        let mut client = Frames::connect(web(&evenkeel));
        client.request(1, &with(&[(name, value)]), true);
        let fate = client.fate(1);
        assert!(
            matches!(fate, Fate::Reset(_) | Fate::GoAway(_) | Fate::Status(400)),
            "{name:?}: {value:?}: {fate:?}"
        );
    }
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_body_that_belies_its_length_ends_its_stream_and_no_other() {
    let origin = Origin::http(|_| reply(200, "")).expect("an origin");
    let evenkeel = start(&[origin.address()], "");
    for body in ["1234", "123456"] {
        let mut client = Frames::connect(web(&evenkeel));
        let fields = with(&[(":method", "POST"), ("content-length", "5")]);
        client.request(1, &fields, false);
        client.send(DATA, END_STREAM, 1, body.as_bytes());
        assert_eq!(client.fate(1), Fate::Reset(PROTOCOL_ERROR), "{body}");
        client.request(3, GET, true);
        assert_eq!(client.fate(3), Fate::Status(200));
    }
}

#[test]
fn trailers_of_a_body_with_a_length_pass_where_they_are_announced_and_are_left_out_elsewhere() {
    let origin = Origin::http(|request| {
        let length = request.header("content-length").unwrap_or("none");
        let trailer = request.trailers.get("x-sum").unwrap_or("none");
        let body = String::from_utf8_lossy(&request.body);
        reply(200, format!("{length} {body} {trailer}"))
    });
    let origin = origin.expect("an origin");
    let evenkeel = start(&[origin.address()], "");
    for (announced, expected) in [("x-sum", "none hello 42"), ("-", "5 hello none")] {
        let mut client = Frames::connect(web(&evenkeel));
        let changes = [
            (":method", "POST"),
            ("content-length", "5"),
            ("trailer", announced),
        ];
        client.request(1, &with(&changes), false);
        client.send(DATA, 0, 1, b"hello");
        let flags = END_HEADERS | END_STREAM;
        client.send(HEADERS, flags, 1, &block(&[("x-sum", "42")]));
        assert_eq!(client.fate(1), Fate::Status(200));
        assert_eq!(String::from_utf8_lossy(&client.body(1)), expected);
    }
    // Nothing of them is taken for the next request.
    let mut client = Frames::connect(web(&evenkeel));
    client.request(1, GET, true);
    assert_eq!(client.fate(1), Fate::Status(200));
    assert_eq!((origin.requests(), origin.connections()), (3, 1));
}

#[test]
fn crumbs_of_cookies_are_one_field_for_the_server() {
    let origin = Origin::http(|request| reply(200, request.headers.all("cookie").join("|")));
    let origin = origin.expect("an origin");
    let evenkeel = start(&[origin.address()], "");
    let mut client = Frames::connect(web(&evenkeel));
    client.request(
        1,
        &with(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]),
        true,
    );
    assert_eq!(client.fate(1), Fate::Status(200));
    assert_eq!(client.body(1), b"a=1; b=2");
}

#[test]
fn streams_that_are_opened_and_given_up_end_the_connection() {
    let (origin, go) = gated();
    let mut evenkeel = start(&[origin.address()], "");
    let mut client = Frames::connect(web(&evenkeel));
    let mut sent = 0;
    for number in 0..1000_u32 {
        let stream = 2 * number + 1;
        let bytes = [
            frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(GET)),
            frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()),
        ];
        if !client.send_bytes(&bytes.concat()) {
            break;
        }
        sent += 1;
    }
    let goaway = client.find(|frame| frame.kind == GOAWAY).expect("a GOAWAY");
    assert_eq!(goaway.code(), ENHANCE_YOUR_CALM);
    assert!(sent > 0);
    evenkeel.wait_log("http2_flood", SOON).expect("a log line");
    assert!(origin.requests() < 300, "{}", origin.requests());
    // Others are served.
    let mut other = Frames::connect(web(&evenkeel));
    other.request(1, GET, true);
    assert_eq!(other.fate(1), Fate::Status(200));
    drop(go);
}

#[test]
fn frames_that_carry_nothing_are_bounded() {
    let origin = Origin::http(|_| reply(200, "")).expect("an origin");
    let mut evenkeel = start(&[origin.address()], "");
    let floods: [(&str, Vec<u8>); 3] = [
        ("pings", frame(PING, 0, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("unknown", frame(99, 0, 0, &[0; 8])),
    ];
    for (name, one) in floods {
        let mark = evenkeel.mark();
        let mut client = Frames::connect(web(&evenkeel));
        client.answers_pings = false;
        let many = one.repeat(500);
        let closed = (0..200).any(|_| !client.send_bytes(&many));
        let goaway = client.find(|frame| frame.kind == GOAWAY);
        // A reset may come before it is read, and after all was taken.
        let ended = closed || goaway.is_some() || !client.is_quiet(Duration::from_millis(10));
        assert!(ended, "{name}");
        assert!(
            goaway.is_none_or(|it| it.code() == ENHANCE_YOUR_CALM),
            "{name}"
        );
        evenkeel
            .wait_log_after(mark, "http2_flood", SOON)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_head_without_end_ends_the_connection() {
    let origin = Origin::http(|_| reply(200, "")).expect("an origin");
    let evenkeel = start(&[origin.address()], "");
    let mut client = Frames::connect(web(&evenkeel));
    client.send(HEADERS, END_STREAM, 1, &block(GET));
    let more = block(&[("x-many", &"y".repeat(10_000))]);
    for _ in 0..10_000 {
        if !client.send_bytes(&frame(CONTINUATION, 0, 1, &more)) {
            break;
        }
    }
    let fate = client.fate(1);
    assert!(matches!(fate, Fate::GoAway(_) | Fate::Closed), "{fate:?}");
    assert_eq!(origin.requests(), 0);
}

#[test]
fn streams_past_the_limit_are_refused_for_the_client_to_try_again() {
    let (origin, go) = gated();
    let evenkeel = start(&[origin.address()], "http2: { streams: 2 }");
    let mut client = Frames::connect(web(&evenkeel));
    // The limit counts once the client has heard of it.
    let ping = [7; 8];
    client.send(PING, 0, 0, &ping);
    client.find(|it| it.kind == PING).expect("an answer");
    for stream in [1, 3, 5] {
        client.request(stream, &with(&[(":path", "/wait")]), true);
    }
    assert_eq!(client.fate(5), Fate::Reset(REFUSED_STREAM));
    go.send(()).expect("heard");
    go.send(()).expect("heard");
    let mut done = 0;
    while done < 2 {
        let frame = client.next().expect("a frame");
        done += u32::from(frame.ends_stream());
    }
}

#[test]
fn one_slow_reader_stops_no_other_stream_and_grows_no_buffer() {
    let body = noise(4_000_000);
    let sent = body.clone();
    let origin = Origin::http(move |request| match request.target.as_str() {
        "/large" => reply(200, &sent),
        _ => reply(200, "small"),
    })
    .expect("an origin");
    let evenkeel = start(&[origin.address()], "");
    // A window for the stream of 1,000 bytes, and a large one for the connection.
    let mut client = Frames::connect_with(web(&evenkeel), &[(4, 1000)]);
    client.send(WINDOW_UPDATE, 0, 0, &100_000_000_u32.to_be_bytes());
    client.request(1, &with(&[(":path", "/large")]), true);
    let mut got = Vec::new();
    while got.len() < 1000 {
        let frame = client.next().expect("a frame");
        if frame.kind == DATA {
            assert_eq!(frame.stream, 1);
            got.extend_from_slice(&frame.payload);
        }
    }
    assert_eq!(got.len(), 1000);
    for stream in [3, 5, 7] {
        client.request(stream, GET, true);
        let answer = client.body(stream);
        assert_eq!(answer, b"small", "beside a stream that nobody reads");
    }
    client.send(WINDOW_UPDATE, 0, 1, &100_000_000_u32.to_be_bytes());
    got.extend(client.body(1));
    assert!(got == body);
}

#[test]
fn an_upload_waits_in_its_client_until_the_server_takes_it() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |conn| {
        let Some(mut request) = conn.read_head()? else {
            return Ok(());
        };
        wait.lock().expect("one").recv_timeout(SOON)?;
        conn.read_body(&mut request)?;
        conn.write(reply(200, request.body.len().to_string()))
    })
    .expect("an origin");
    let evenkeel = start(&[origin.address()], "");
    let mut client = Frames::connect(web(&evenkeel));
    let total = 32_000_000;
    let length = total.to_string();
    let changes = [(":method", "POST"), ("content-length", length.as_str())];
    let fields = with(&changes);
    client.request(1, &fields, false);
    // What the client may send: its windows, as they are opened. Sending stops for good while the server reads nothing.
    let (mut stream_window, mut connection_window) = (65_535_i64, 65_535_i64);
    let mut sent = 0;
    let mut gone = false;
    while sent < total {
        let room = stream_window.min(connection_window).min(16_384);
        if room > 0 {
            let size = (room as usize).min(total - sent);
            sent += size;
            let flags = if sent == total { END_STREAM } else { 0 };
            client.send(DATA, flags, 1, &vec![b'x'; size]);
            stream_window -= size as i64;
            connection_window -= size as i64;
            continue;
        }
        if sent > 12_000_000 && !gone {
            panic!("{sent} bytes were taken, though the server reads nothing");
        }
        if !gone && client.is_quiet(Duration::from_millis(500)) {
            gone = true;
            go.send(()).expect("heard");
        }
        let frame = client.next_with_settings().expect("a frame");
        match (frame.kind, frame.stream) {
            (SETTINGS, _) => {
                for setting in frame.payload.chunks(6) {
                    if setting[..2] == [0, 4] {
                        stream_window += i64::from(value(&setting[2..])) - 65_535;
                    }
                }
            }
            (WINDOW_UPDATE, 0) => connection_window += i64::from(value(&frame.payload)),
            (WINDOW_UPDATE, 1) => stream_window += i64::from(value(&frame.payload)),
            _ => {}
        }
    }
    assert!(gone, "the server was never waited for");
    assert_eq!(client.fate(1), Fate::Status(200));
    assert_eq!(client.body(1), length.as_bytes());
}

fn value(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

#[test]
fn a_client_that_gives_up_ends_its_request_at_the_server() {
    let (gone, heard) = channel();
    let gone = Mutex::new(gone);
    let origin = Origin::start(move |conn| {
        if conn.read_request()?.is_some() {
            conn.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
            conn.read_to_end().ok();
            gone.lock().expect("one").send(()).ok();
        }
        Ok(())
    })
    .expect("an origin");
    let mut evenkeel = start(&[origin.address()], "");
    let mut client = Frames::connect(web(&evenkeel));
    client.request(1, GET, true);
    client.find(|frame| frame.kind == DATA).expect("a piece");
    client.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes());
    heard.recv_timeout(SOON).expect("the server is let go");
    let logged = "\"version\":\"HTTP/2\",\"status\":200,\"reason\":\"client_closed\"";
    evenkeel.wait_log(logged, SOON).expect("a line");
    client.request(3, GET, true);
    assert_eq!(client.fate(3), Fate::Status(200));
}

#[test]
fn a_response_that_breaks_off_is_a_reset_stream() {
    let origin = Origin::start(|conn| {
        if conn.read_request()?.is_some() {
            conn.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
        }
        Ok(())
    })
    .expect("an origin");
    let evenkeel = start(&[origin.address()], "");
    let mut client = Frames::connect(web(&evenkeel));
    for stream in [1, 3] {
        client.request(stream, GET, true);
        let end = client.find(|it| it.kind == RST_STREAM || it.ends_stream());
        assert_eq!(end.map(|it| it.kind), Some(RST_STREAM));
    }
}

#[test]
fn the_end_of_the_process_is_told_with_goaway_and_what_runs_is_finished() {
    let (origin, go) = gated();
    let mut evenkeel = start(&[origin.address()], "");
    let mut busy = Frames::connect(web(&evenkeel));
    busy.request(1, &with(&[(":path", "/wait")]), true);
    let mut idle = Frames::connect(web(&evenkeel));
    idle.request(1, GET, true);
    assert_eq!(idle.fate(1), Fate::Status(200));
    assert_eq!(idle.body(1), b"/");
    wait_until("the request is there", SOON, || origin.requests() == 2).expect("in time");
    evenkeel.signal(Signal::TERM).expect("a signal");
    let told = idle.find(|frame| frame.kind == GOAWAY).expect("a GOAWAY");
    assert_eq!((value(&told.payload), told.code()), (0x7fff_ffff, NO_ERROR));
    let last = idle
        .find(|frame| frame.kind == GOAWAY)
        .expect("another one");
    assert_eq!((value(&last.payload), last.code()), (1, NO_ERROR));
    assert_eq!(idle.next(), None, "and then the end");
    busy.find(|frame| frame.kind == GOAWAY).expect("a GOAWAY");
    go.send(()).expect("heard");
    assert_eq!(busy.fate(1), Fate::Status(200));
    assert_eq!(busy.body(1), b"/wait");
    drop((busy, idle));
    assert_eq!(evenkeel.wait_exit(SOON).expect("an end").code(), Some(0));
    evenkeel
        .wait_log("stopped: 0 requests cut", SOON)
        .expect("it says so");
}

#[test]
fn a_listener_that_a_reload_removes_says_goaway_to_its_clients() {
    let (origin, go) = gated();
    let mut evenkeel = start(&[origin.address()], "");
    let mut client = Frames::connect(web(&evenkeel));
    client.request(1, &with(&[(":path", "/wait")]), true);
    wait_until("the request is there", SOON, || origin.requests() == 1).expect("in time");
    let text = std::fs::read_to_string(evenkeel.config_path()).expect("the config");
    let text = text.replace("listeners: { web:", "listeners: { other:");
    evenkeel.write_config(&text).expect("written");
    evenkeel.signal(Signal::HUP).expect("a signal");
    client.find(|frame| frame.kind == GOAWAY).expect("a GOAWAY");
    go.send(()).expect("heard");
    assert_eq!(client.fate(1), Fate::Status(200));
}

#[test]
fn connections_that_are_idle_or_silent_end() {
    let (origin, go) = gated();
    let keys = "timeouts: { keep_alive: 300ms, header: 300ms }, http2: { ping_after: 200ms, ping_timeout: 300ms }";
    let evenkeel = start(&[origin.address()], keys);
    // No request at all.
    let mut silent = Frames::connect(web(&evenkeel));
    assert!(silent.find(|frame| frame.kind == GOAWAY).is_some());
    // None after the first.
    let mut idle = Frames::connect(web(&evenkeel));
    idle.request(1, GET, true);
    assert_eq!(idle.fate(1), Fate::Status(200));
    assert!(idle.find(|frame| frame.kind == GOAWAY).is_some());
    // Whoever answers pings may wait for its response for long.
    let mut alive = Frames::connect(web(&evenkeel));
    alive.request(1, &with(&[(":path", "/wait")]), true);
    for _ in 0..3 {
        while alive.next_with_settings().expect("a frame").kind != PING {}
    }
    go.send(()).expect("heard");
    assert_eq!(alive.fate(1), Fate::Status(200));
    // Whoever does not is given up, and its request with it.
    let mut dead = Frames::connect(web(&evenkeel));
    dead.answers_pings = false;
    dead.request(1, &with(&[(":path", "/wait")]), true);
    assert!(dead.find(|frame| frame.kind == PING).is_some());
    assert!(matches!(dead.fate(1), Fate::Closed | Fate::Reset(_)));
    drop(go);
}

#[test]
fn what_breaks_the_connection_is_logged_and_told() {
    let origin = Origin::http(|_| reply(200, "")).expect("an origin");
    let mut evenkeel = start(&[origin.address()], "");
    let mut client = Frames::connect(web(&evenkeel));
    // DATA on a stream that was never opened.
    client.send(DATA, 0, 7, b"x");
    assert_eq!(client.fate(7), Fate::GoAway(PROTOCOL_ERROR));
    let line = evenkeel.wait_log("http2_error", SOON).expect("a line");
    assert!(line.contains("protocol error"), "{line}");
}

#[test]
fn a_websocket_over_http_2_is_one_over_http_1_for_the_server() {
    let origin = Origin::start(|conn| {
        let Some(request) = conn.read_head()? else {
            return Ok(());
        };
        if request.target == "/refused" {
            return conn.write(reply(403, "no"));
        }
        if request.target == "/page" {
            return conn.write(reply(200, "a page"));
        }
        let key = request.header("sec-websocket-key").unwrap_or_default();
        anyhow::ensure!(request.method == "GET" && key.len() == 24, "{request:?}");
        anyhow::ensure!(request.header("upgrade") == Some("websocket"), "no upgrade");
        anyhow::ensure!(
            request.headers.has_token("connection", "upgrade"),
            "no upgrade"
        );
        let accept = if request.target == "/wrong" {
            "wrong".to_owned()
        } else {
            accept_of(key)
        };
        conn.write(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\nfirst"
        ))?;
        let got = conn.read_exactly(5)?;
        conn.write(&got)?;
        conn.read_to_end()?;
        Ok(())
    })
    .expect("an origin");
    let mut evenkeel = start(&[origin.address()], "upgrades: [websocket]");
    let address = web(&evenkeel);
    let connect = |path: &'static str| {
        let mut client = Frames::connect(address);
        let fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "a.example"),
            (":path", path),
            ("sec-websocket-version", "13"),
        ];
        client.request(1, &fields, false);
        client
    };
    let mut client = connect("/chat");
    assert_eq!(client.fate(1), Fate::Status(200));
    let mut got = Vec::new();
    client.send(DATA, 0, 1, b"hello");
    while got.len() < 10 {
        let frame = client.next().expect("a frame");
        if frame.kind == DATA {
            got.extend_from_slice(&frame.payload);
        }
    }
    assert_eq!(got, b"firsthello");
    client.send(DATA, END_STREAM, 1, b"");
    assert!(client.find(Frame::ends_stream).is_some());
    assert_eq!(connect("/refused").fate(1), Fate::Status(403));
    assert_eq!(connect("/wrong").fate(1), Fate::Status(502));
    // 200 would say that the tunnel stands.
    assert_eq!(connect("/page").fate(1), Fate::Status(501));
    let line = evenkeel.wait_log("\"target\":\"/page\"", SOON);
    let line = line.expect("a line");
    assert!(line.contains("\"reason\":\"not_implemented\""), "{line}");
}

/// What a server makes of a key (RFC 6455 §4.2.2), by programs that we did not write.
fn accept_of(key: &str) -> String {
    let script =
        "printf '%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11' \"$1\" | openssl sha1 -binary | base64";
    let output = std::process::Command::new("sh")
        .args(["-c", script, "sh", key])
        .output()
        .expect("sh runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_preface_that_goes_wrong_is_refused() {
    let origin = Origin::http(|_| reply(200, "")).expect("an origin");
    let evenkeel = proxy_with(&[origin.address()], &[], &[]).expect("evenkeel starts");
    let mut raw = testkit::Raw::connect(web(&evenkeel)).expect("a connection");
    raw.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").expect("taken");
    raw.read_to_end().expect("an end");
    // With one byte at a time it is a preface all the same.
    let mut raw = testkit::Raw::connect(web(&evenkeel)).expect("a connection");
    let bytes = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(SETTINGS, 0, 0, &[]),
        &frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(GET)),
    ];
    raw.send_in_pieces(bytes.concat(), 1, Duration::ZERO)
        .expect("taken");
    let head = raw.read_exactly(4).expect("settings");
    assert_eq!(head[3], SETTINGS);
    wait_until("the server is asked", SOON, || origin.requests() == 1).expect("in time");
}

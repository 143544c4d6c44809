//! Clients that read slowly, and those that do not read at all.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use testkit::{Evenkeel, Origin, Signal, reply, wait_until};

use crate::command::BINARY;
use crate::http2_support::*;
use crate::life_support::{SOON, web};

/// More than the kernel holds of what a client does not read.
const BODY: usize = 16 << 20;
/// `write_idle`.
const IDLE: Duration = Duration::from_secs(2);
/// A window that stops nothing.
const WIDE: [u8; 4] = 0x7000_0000_u32.to_be_bytes();

fn start(origin: &Origin) -> Evenkeel {
    let text = format!(
        "admin: off
workers: 1
shutdown: {{ idle_wait: 1s, timeout: 1m }}
access_log: {{ to: stdout, format: json }}
listeners: {{ web: {{ bind: '127.0.0.1:0', pool: site, timeouts: {{ write_idle: 2s }} }} }}
pools: {{ site: {{ servers: ['{}'], health_check: off }} }}
",
        origin.address()
    );
    Evenkeel::start(BINARY, &text).expect("evenkeel starts")
}

fn large() -> Origin {
    let body = vec![b'x'; BODY];
    Origin::http(move |_| reply(200, &body)).expect("an origin")
}

/// A client whose kernel holds little.
fn connect(evenkeel: &Evenkeel) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(64 * 1024).expect("a size");
    let address = web(evenkeel).into();
    socket.connect(&address).expect("a connection");
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(SOON)).expect("a limit");
    client
}

fn send(mut client: &TcpStream, frames: &[&[u8]]) {
    client.write_all(&frames.concat()).expect("sent");
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Asks in one of the protocols, with windows that stop nothing.
fn ask(evenkeel: &Evenkeel, http2: bool) -> TcpStream {
    let client = connect(evenkeel);
    if http2 {
        let frames: [&[u8]; 4] = [
            PREFACE,
            &frame(SETTINGS, 0, 0, &[&[0, 4][..], &WIDE].concat()),
            &frame(WINDOW_UPDATE, 0, 0, &WIDE),
            &frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(GET)),
        ];
        send(&client, &frames);
    } else {
        send(&client, &[b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]);
    }
    client
}

/// Reads `enough` bytes: 160 KB a second while `slowly` says so of those that it has, the others at once. How many there were.
fn read(mut client: &TcpStream, enough: usize, slowly: impl Fn(usize) -> bool) -> usize {
    let mut piece = vec![0; 64 * 1024];
    let mut total = 0;
    while total < enough {
        let room = if slowly(total) {
            thread::sleep(Duration::from_millis(100));
            &mut piece[..16 * 1024]
        } else {
            &mut piece[..]
        };
        match client.read(room) {
            Ok(count) if count > 0 => total += count,
            _ => break,
        }
    }
    total
}

/// Reads until this has come.
fn read_to(mut client: &TcpStream, what: &[u8]) {
    let (mut piece, mut all) = ([0; 1024], Vec::new());
    while !all.windows(what.len()).any(|it| it == what) {
        let count = client.read(&mut piece).expect("more comes");
        assert_ne!(count, 0, "the end came before");
        all.extend_from_slice(&piece[..count]);
    }
}

#[test]
fn who_reads_slowly_is_not_taken_for_one_that_does_not() {
    let origin = large();
    let evenkeel = start(&origin);
    thread::scope(|scope| {
        for http2 in [false, true] {
            let client = ask(&evenkeel, http2);
            scope.spawn(move || {
                let until = Instant::now() + 4 * IDLE;
                let total = read(&client, BODY, |_| Instant::now() < until);
                assert!(total >= BODY, "{total} bytes, HTTP/2: {http2}");
            });
        }
    });
}

#[test]
fn who_reads_nothing_is_let_go() {
    let origin = large();
    for http2 in [false, true] {
        let mut evenkeel = start(&origin);
        let began = Instant::now();
        let client = ask(&evenkeel, http2);
        let line = evenkeel.wait_log("\"reason\":\"client_closed\"", SOON);
        line.unwrap_or_else(|error| panic!("HTTP/2: {http2}: {error}"));
        assert!(began.elapsed() >= IDLE);
        drop(client);
    }
}

#[test]
fn the_end_of_the_process_waits_for_who_reads_slowly() {
    let body = vec![b'x'; 60_000];
    let origin = Origin::http(move |_| reply(200, &body)).expect("an origin");
    let mut evenkeel = start(&origin);
    let client = connect(&evenkeel);
    let wide = [&[0, 4][..], &WIDE].concat();
    let mut asks = [
        PREFACE,
        &frame(SETTINGS, 0, 0, &wide),
        &frame(WINDOW_UPDATE, 0, 0, &WIDE),
    ]
    .concat();
    for number in 0..100 {
        let flags = END_HEADERS | END_STREAM;
        asks.extend(frame(HEADERS, flags, 2 * number + 1, &block(GET)));
    }
    send(&client, &[&asks]);
    // What is logged is with h2, or with the kernel.
    let logged = || evenkeel.log().matches("\"status\":200").count() == 100;
    wait_until("all are answered", SOON, logged).expect("in time");
    evenkeel.signal(Signal::TERM).expect("a signal");
    // Slowly while h2 has some of it, and when the kernel has it all. As clients do it says that it has read, and that it has
    // heard of the end: by what h2 asks with.
    let began = Instant::now();
    let heard = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];
    let more = [
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(PING, ACK, 0, &heard),
    ]
    .concat();
    let slowly = |total| {
        let slowly = match began.elapsed().as_secs() {
            0..4 => true,
            4..10 => total > 4_000_000,
            _ => false,
        };
        // Who is cut hears of it by the next read.
        let _ = (&client).write_all(if slowly { &more } else { &[] });
        slowly
    };
    let total = read(&client, 100 * 60_000, slowly);
    assert!(total >= 100 * 60_000, "{total} bytes");
}

#[test]
fn who_only_pings_keeps_no_connection_from_its_end() {
    // In chunks: a little of it goes to h2 whether there is a window or not.
    let origin = Origin::start(|conn| {
        conn.read_request()?;
        conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    });
    let origin = origin.expect("an origin");
    let mut evenkeel = start(&origin);
    let mut client = Frames::connect_with(web(&evenkeel), &[(4, 0)]);
    client.request(1, GET, true);
    evenkeel.wait_log("\"status\":200", SOON).expect("a line");
    evenkeel.signal(Signal::TERM).expect("a signal");
    let began = Instant::now();
    let mut gone = false;
    while began.elapsed() < SOON && !gone {
        client.send(PING, 0, 0, &[7; 8]);
        while !gone && !client.is_quiet(Duration::from_millis(300)) {
            gone = client.next_with_settings().is_none();
        }
    }
    assert!(gone, "it goes on after {:?}", began.elapsed());
}

#[test]
fn a_stream_whose_window_stays_shut_is_let_go_beside_one_that_is_read_slowly() {
    let origin = large();
    let mut evenkeel = start(&origin);
    let client = connect(&evenkeel);
    let frames: [&[u8]; 4] = [
        PREFACE,
        &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 100]),
        &frame(WINDOW_UPDATE, 0, 0, &WIDE),
        &frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(GET)),
    ];
    send(&client, &frames);
    // It waits before the kernel has minutes' worth of the other one ahead of it.
    read_to(&client, &[b'x'; 100]);
    let frames: [&[u8]; 2] = [
        &frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(GET)),
        &frame(WINDOW_UPDATE, 0, 3, &WIDE),
    ];
    send(&client, &frames);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let stopped = stopped;
            read(&client, BODY, |_| {
                stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty)
            })
        });
        let line = evenkeel.wait_log("\"reason\":\"client_closed\"", 2 * SOON);
        drop(stop);
        line.expect("the one that is shut is let go");
        assert!(reader.join().expect("it ends") >= BODY, "and no other");
    });
    let logged = "\"status\":200,\"reason\":\"client_closed\"";
    assert_eq!(evenkeel.log().matches(logged).count(), 1);
}

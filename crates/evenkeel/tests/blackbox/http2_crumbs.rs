//! Bodies in many small frames over HTTP/2, which cost more than their bytes, toward who does not take them.

use std::sync::{Arc, Mutex};

use testkit::http2::{END_STREAM as LAST, Frame as Said, kind};
use testkit::{Evenkeel, Origin};

use crate::http2_servers::NO_PROBES;
use crate::http2_support::*;
use crate::life_support::{site, start, web};

const INITIAL_WINDOW_SIZE: u16 = 4;
/// Frames of a stream, which its window of 256 KiB takes whole.
const FRAMES: u32 = 43_000;

/// One worker, so that requests share connections.
fn in_front(server: &Origin) -> Evenkeel {
    start(&format!(
        "workers: 1\n{}",
        site(&[server.address()], NO_PROBES)
    ))
}

/// A piece of a body that is like no other.
fn crumb(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [a, b, c, d, b'-', b'\n']
}

#[test]
fn a_call_of_many_small_messages_waits_for_its_server_and_ends_no_other() {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let server = Origin::start({
        let taken = taken.clone();
        move |conn| {
            conn.greet(&[(INITIAL_WINDOW_SIZE, 0)])?;
            while let Some(frame) = conn.next_frame()? {
                match (frame.kind, frame.stream) {
                    (kind::HEADERS, 1) => {}
                    // Bodies are taken from now on.
                    (kind::HEADERS, stream) => {
                        conn.send(Said::headers(stream, 204, &[]).with(END_HEADERS | LAST))?;
                        conn.send(Said::window(1, 1 << 30))?;
                        conn.send(Said::window(0, 1 << 30))?;
                    }
                    (kind::DATA, 1) => {
                        let ends = frame.ends();
                        taken.lock().expect("one").extend(frame.payload);
                        if ends {
                            conn.answer(1, "all of it")?;
                        }
                    }
                    _ => {}
                }
            }
            Ok(())
        }
    });
    let server = server.expect("it listens");
    let evenkeel = in_front(&server);
    let mut client = Frames::connect(web(&evenkeel));
    // Then the window that it was told of holds.
    client.send(PING, 0, 0, &[7; 8]);
    client.find(|it| it.kind == PING).expect("an answer");
    let mut fields = GET.to_vec();
    fields[0].1 = "POST";
    client.request(1, &fields, false);
    let mut body = Vec::new();
    for number in 0..FRAMES {
        body.extend(crumb(number));
    }
    let frames: Vec<u8> = body
        .chunks(6)
        .flat_map(|crumb| frame(DATA, 0, 1, crumb))
        .collect();
    assert!(client.send_bytes(&frames));
    // It has all come when this is answered.
    client.send(PING, 0, 0, &[8; 8]);
    client.find(|it| it.kind == PING).expect("an answer");
    client.request(3, GET, true);
    assert_eq!(client.fate(3), Fate::Status(204));
    client.send(DATA, END_STREAM, 1, b"");
    assert_eq!(client.body(1), b"all of it");
    assert!(*taken.lock().expect("one") == body);
}

#[test]
fn answers_of_many_small_messages_wait_for_their_clients_and_end_no_other() {
    let server = Origin::start(|conn| {
        conn.greet(&[])?;
        let mut streams = 0;
        while let Some(stream) = conn.next_stream()? {
            streams += 1;
            if streams > 4 {
                conn.answer(stream, "beside")?;
                continue;
            }
            conn.send(Said::headers(stream, 200, &[]))?;
            let frames: Vec<u8> = (0..FRAMES)
                .flat_map(|number| frame(DATA, 0, stream, &crumb(number)))
                .collect();
            conn.write(frames)?;
            conn.send(Said::new(kind::DATA, stream, []).with(LAST))?;
        }
        Ok(())
    });
    let server = server.expect("it listens");
    let evenkeel = in_front(&server);
    let mut client = Frames::connect_with(web(&evenkeel), &[(INITIAL_WINDOW_SIZE, 0)]);
    for stream in [1, 3, 5, 7] {
        client.request(stream, GET, true);
        let head = client.find(|it| it.kind == HEADERS && it.stream == stream);
        assert!(head.is_some());
    }
    client.request(9, GET, true);
    client.send(WINDOW_UPDATE, 0, 9, &1000_u32.to_be_bytes());
    assert_eq!(client.body(9), b"beside");
    client.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    let expected: Vec<u8> = (0..FRAMES).flat_map(crumb).collect();
    for stream in [1, 3, 5, 7] {
        client.send(WINDOW_UPDATE, 0, stream, &(1_u32 << 30).to_be_bytes());
        assert!(client.body(stream) == expected, "stream {stream}");
    }
    assert_eq!(server.connections(), 1);
}

//! Bodies that an empty frame ends, as many clients and servers write them: on connections that live long.

use testkit::Origin;
use testkit::http2::{END_STREAM, Frame, kind};

use crate::http2_servers::NO_PROBES;
use crate::http2_support::{DATA, END_HEADERS, END_STREAM as LAST, Frames, HEADERS, block, frame};
use crate::life_support::{metric, site, start, web};

const ROUNDS: u32 = 100;
const AT_ONCE: u32 = 100;

#[test]
fn a_connection_bears_any_number_of_bodies_that_an_empty_frame_ends() {
    let origin = Origin::start(|conn| {
        conn.greet(&[])?;
        while let Some(frame) = conn.next_frame()? {
            if frame.ends() {
                conn.send(Frame::headers(frame.stream, 200, &[]))?;
                conn.send(Frame::new(kind::DATA, frame.stream, *b"x"))?;
                conn.send(Frame::new(kind::DATA, frame.stream, []).with(END_STREAM))?;
            }
        }
        Ok(())
    });
    let origin = origin.expect("it listens");
    let evenkeel = start(&format!(
        "workers: 1\n{}",
        site(&[origin.address()], NO_PROBES)
    ));
    let post = block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a.example"),
    ]);
    let mut client = Frames::connect(web(&evenkeel));
    for round in 0..ROUNDS {
        let streams = (0..AT_ONCE).map(|at| (round * AT_ONCE + at) * 2 + 1);
        let requests = streams.flat_map(|stream| {
            let head = frame(HEADERS, END_HEADERS, stream, &post);
            [head, frame(DATA, LAST, stream, &[])].concat()
        });
        let requests: Vec<u8> = requests.collect();
        assert!(client.send_bytes(&requests), "round {round}");
        let mut answered = 0;
        while answered < AT_ONCE {
            let frame = client.next().expect("a frame");
            assert!(
                matches!(
                    frame.kind,
                    HEADERS | DATA | crate::http2_support::WINDOW_UPDATE
                ),
                "round {round}: {frame:?}"
            );
            answered += u32::from(frame.ends_stream());
        }
    }
    assert_eq!(origin.requests(), u64::from(ROUNDS * AT_ONCE));
    assert_eq!(origin.connections(), 1);
    assert_eq!(metric(&evenkeel, "evenkeel_errors_total"), 0.0);
}

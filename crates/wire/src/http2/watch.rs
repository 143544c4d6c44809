//! What of a connection's frames must be counted, since it costs the receiver more than the sender.
//!
//! ```text
//! Length (24), Type (8), Flags (8), Reserved (1), Stream Identifier (31), Payload …     RFC 9113 §4.1
//! ```
//!
//! Only heads of frames are looked at, and the last stream that a GOAWAY names; nothing is kept of what lies between them.

use std::fmt;
use std::time::Duration;

/// What a client says first (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Over which time frames are counted.
pub const CONTROL_WINDOW: Duration = Duration::from_secs(10);

const FRAME_HEAD: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
/// The bits of a stream's number.
const STREAM: u32 = u32::MAX >> 1;

/// What a settings frame counts for: it is answered, and every stream's window may change by it.
const SETTINGS_WEIGHT: u32 = 10;

/// What a connection sends too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Streams that are given up as soon as they are opened (CVE-2023-44487), or made to fail.
    Resets,
    /// Frames that carry nothing: pings, settings, priorities, empty ones (CVE-2019-9512 and its like).
    Control,
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resets => "too many streams are reset",
            Self::Control => "too many frames that carry nothing",
        })
    }
}

/// How much of something there is in a window of time.
#[derive(Debug, Clone)]
pub struct Rate {
    max: u32,
    window: Duration,
    since: Duration,
    count: u32,
}

impl Rate {
    /// At most `max` within `window`.
    pub fn new(max: u32, window: Duration) -> Self {
        Self {
            max,
            window,
            since: Duration::ZERO,
            count: 0,
        }
    }

    /// Counts `more` at `now`; true when that is too much.
    pub fn count(&mut self, more: u32, now: Duration) -> bool {
        if now.saturating_sub(self.since) >= self.window {
            self.since = now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(more);
        self.count > self.max
    }
}

/// Looks at what comes of a connection, piece by piece.
#[derive(Debug, Clone)]
pub struct FrameWatch {
    /// Bytes until the next frame's head: of the preface, or of a payload.
    skip: usize,
    head: [u8; FRAME_HEAD],
    /// How much of the head has come.
    have: usize,
    control: Rate,
    /// The last stream that was opened, and how many were.
    last: u32,
    opened: u64,
    /// The last stream that the newest GOAWAY names, and how many of its bytes are still to come.
    named: u32,
    unnamed: usize,
}

impl FrameWatch {
    /// For what a client sends, the preface first. At most `control_max` frames that carry nothing within
    /// [`CONTROL_WINDOW`].
    pub fn of_client(control_max: u32) -> Self {
        Self {
            skip: PREFACE.len(),
            head: [0; FRAME_HEAD],
            have: 0,
            control: Rate::new(control_max, CONTROL_WINDOW),
            last: 0,
            opened: 0,
            named: 0,
            unnamed: 0,
        }
    }

    /// Streams that the other side has opened, whatever became of them.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Whether the other side has said GOAWAY, and that it has taken some of the streams (RFC 9113 §6.8).
    pub fn has_taken_some(&self) -> bool {
        self.unnamed == 0 && self.named & STREAM > 0
    }

    /// For what a server sends: it is trusted with frames that carry nothing.
    pub fn of_server() -> Self {
        Self {
            skip: 0,
            ..Self::of_client(u32::MAX)
        }
    }

    /// Takes in what came at `now`, in any pieces. `data` is told of each frame of a body, as its head has come: which
    /// stream, and how many bytes (its padding included).
    pub fn handle(
        &mut self,
        mut bytes: &[u8],
        now: Duration,
        mut data: impl FnMut(u32, usize),
    ) -> Option<Flood> {
        loop {
            while self.unnamed > 0
                && let Some((byte, rest)) = bytes.split_first()
            {
                self.named = self.named << 8 | u32::from(*byte);
                self.unnamed -= 1;
                self.skip = self.skip.saturating_sub(1);
                bytes = rest;
            }
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if bytes.is_empty() {
                return None;
            }
            let room = self.head.get_mut(self.have..).unwrap_or_default();
            let taken = room.len().min(bytes.len());
            for (place, byte) in room.iter_mut().zip(bytes) {
                *place = *byte;
            }
            bytes = bytes.get(taken..).unwrap_or_default();
            self.have += taken;
            if self.have < FRAME_HEAD {
                return None;
            }
            self.have = 0;
            let [a, b, c, kind, flags, stream @ ..] = self.head;
            let length = u32::from_be_bytes([0, a, b, c]);
            self.skip = usize::try_from(length).unwrap_or(usize::MAX);
            let stream = u32::from_be_bytes(stream) & STREAM;
            if kind == DATA && self.skip > 0 {
                data(stream, self.skip);
            }
            if kind == GOAWAY && self.skip >= 4 {
                (self.named, self.unnamed) = (0, 4);
            }
            if kind == HEADERS && stream > self.last {
                self.last = stream;
                self.opened += 1;
            }
            let weight = weight(kind, flags, length);
            if weight > 0 && self.control.count(weight, now) {
                return Some(Flood::Control);
            }
        }
    }
}

/// What a frame counts for; 0: it carries something, or its use is bounded elsewhere.
fn weight(kind: u8, flags: u8, length: u32) -> u32 {
    match kind {
        DATA => u32::from(length == 0 && flags & END_STREAM == 0),
        HEADERS | WINDOW_UPDATE => 0,
        CONTINUATION => u32::from(length == 0 || flags & END_HEADERS == 0),
        SETTINGS => SETTINGS_WEIGHT,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u32;
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        bytes.extend_from_slice(payload);
        bytes
    }

    /// How many of `frame` pass within a second, of 1,000 that come in pieces of `piece` bytes.
    fn passing(frame: &[u8], piece: usize) -> usize {
        let mut watch = FrameWatch::of_client(100);
        let all: Vec<u8> = frame.repeat(1000);
        let bytes = [PREFACE, &all].concat();
        let mut seen = 0;
        for piece in bytes.chunks(piece) {
            let now = Duration::from_secs(60);
            if watch.handle(piece, now, |_, _| {}).is_some() {
                return (seen + piece.len() - PREFACE.len()).div_ceil(frame.len());
            }
            seen += piece.len();
        }
        1000
    }

    #[test]
    fn what_carries_nothing_is_bounded_however_it_comes() {
        let ping = frame(6, 0, &[0; 8]);
        let settings = frame(4, 0, &[0; 6]);
        let empty = frame(0, 0, &[]);
        let unknown = frame(77, 0, b"hello");
        let last = frame(0, 1, &[]);
        let data = frame(0, 0, b"hello");
        let headers = frame(1, 4, b"hello");
        let window = frame(8, 0, &[0, 0, 0, 1]);
        for (frame, expected) in [
            (&ping, 101),
            (&settings, 11),
            (&empty, 101),
            (&unknown, 101),
            (&last, 1000),
            (&data, 1000),
            (&headers, 1000),
            (&window, 1000),
        ] {
            assert_eq!(passing(frame, 1), expected, "{frame:?}");
            for piece in [3, 9, 10, 1000, 1 << 20] {
                assert!(passing(frame, piece) >= expected, "{frame:?} by {piece}");
            }
        }
    }

    #[test]
    fn frames_of_bodies_are_told_whoever_sends_them() {
        let mut body = frame(0, 0, b"hello");
        body.extend(frame(1, 4, b"head"));
        body.extend(frame(0, 0, b""));
        body.extend(frame(0, 1, &[7; 300]));
        let of_client = [PREFACE, &body].concat();
        for piece in 1..400 {
            for (mut watch, bytes) in [
                (FrameWatch::of_client(100), &of_client),
                (FrameWatch::of_server(), &body),
            ] {
                let mut told = Vec::new();
                for piece in bytes.chunks(piece) {
                    let now = Duration::ZERO;
                    let flood = watch.handle(piece, now, |stream, length| {
                        told.push((stream, length));
                    });
                    assert_eq!(flood, None);
                }
                assert_eq!(told, [(1, 5), (1, 300)], "by {piece}");
            }
        }
    }

    #[test]
    fn the_last_stream_that_a_server_takes_is_read_in_any_pieces() {
        let goaway = |last: u32| frame(7, 0, &[last.to_be_bytes(), [0; 4]].concat());
        let none = goaway(0);
        let some = [goaway(u32::MAX), frame(6, 0, &[1; 8]), goaway(5)].concat();
        let taken_back = [goaway(5), goaway(0), frame(0, 0, b"hello")].concat();
        let short = frame(7, 0, &[1; 3]);
        for (bytes, expected) in [
            (&none, false),
            (&some, true),
            (&taken_back, false),
            (&short, false),
        ] {
            for piece in 1..40 {
                let mut watch = FrameWatch::of_server();
                for piece in bytes.chunks(piece) {
                    assert_eq!(watch.handle(piece, Duration::ZERO, |_, _| {}), None);
                }
                assert_eq!(watch.has_taken_some(), expected, "{bytes:?} by {piece}");
            }
        }
    }

    #[test]
    fn a_rate_begins_anew_with_each_window() {
        let mut rate = Rate::new(2, Duration::from_secs(10));
        let at = |seconds| Duration::from_secs(seconds);
        assert!(!rate.count(1, at(1)));
        assert!(!rate.count(1, at(2)));
        assert!(rate.count(1, at(9)));
        assert!(!rate.count(1, at(12)));
        assert!(!rate.count(1, at(21)));
        assert!(rate.count(u32::MAX, at(21)));
    }
}

//! A client of HTTP/2 that sends what it is told, frame by frame.

use std::io::Read as _;
use std::net::SocketAddr;
use std::time::Duration;

use testkit::Raw;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a GET of `/` has.
pub(crate) const GET: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "a.example"),
];

/// A connection, preface and settings exchanged.
pub(crate) struct Frames {
    raw: Raw,
    /// Whether pings are answered.
    pub(crate) answers_pings: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Status(u16),
    Reset(u32),
    GoAway(u32),
    Closed,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        number(&self.payload[at..])
    }

    pub(crate) fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

impl Frames {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[])
    }

    /// `settings`: identifiers and values.
    pub(crate) fn connect_with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let raw = Raw::connect(address).expect("a connection");
        let mut frames = Self {
            raw,
            answers_pings: true,
        };
        frames.raw.send(PREFACE).expect("taken");
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        frames.send(SETTINGS, 0, 0, &payload);
        frames
    }

    /// Sends a frame; a connection that is gone by then takes nothing.
    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _ = self.raw.send(frame(kind, flags, stream, payload));
    }

    /// Sends bytes as they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.raw.send(bytes).is_ok()
    }

    /// Sends a request's head.
    pub(crate) fn request(&mut self, stream: u32, fields: &[(&str, &str)], ends: bool) {
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.send(HEADERS, flags, stream, &block(fields));
    }

    /// The next frame; settings and pings are answered by the way. `None`: the connection has ended.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = self.next_with_settings()?;
            match frame.kind {
                SETTINGS => {}
                PING if frame.flags & ACK == 0 && self.answers_pings => {}
                _ => return Some(frame),
            }
        }
    }

    /// Whether nothing comes for this long.
    pub(crate) fn is_quiet(&mut self, time: Duration) -> bool {
        let stream = self.raw.stream();
        stream.set_read_timeout(Some(time)).expect("a limit");
        let quiet = stream.peek(&mut [0]).is_err();
        stream
            .set_read_timeout(Some(Duration::from_secs(15)))
            .expect("a limit");
        quiet
    }

    /// The next frame, whatever it is; settings and pings are answered.
    pub(crate) fn next_with_settings(&mut self) -> Option<Frame> {
        {
            let mut head = [0; 9];
            let mut stream = self.raw.stream();
            stream.read_exact(&mut head).ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).ok()?;
            let frame = Frame {
                kind: head[3],
                flags: head[4],
                stream: number(&head[5..]) & 0x7fff_ffff,
                payload,
            };
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
                PING if frame.flags & ACK == 0 && self.answers_pings => {
                    self.send(PING, ACK, 0, &frame.payload);
                }
                _ => {}
            }
            Some(frame)
        }
    }

    /// The next frame of which this is true.
    pub(crate) fn find(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// What becomes of a stream: its final status, or why there is none.
    pub(crate) fn fate(&mut self, stream: u32) -> Fate {
        loop {
            let Some(frame) = self.next() else {
                return Fate::Closed;
            };
            match frame.kind {
                HEADERS if frame.stream == stream && status(&frame.payload) >= 200 => {
                    return Fate::Status(status(&frame.payload));
                }
                RST_STREAM if frame.stream == stream => return Fate::Reset(frame.code()),
                GOAWAY if frame.code() != NO_ERROR => return Fate::GoAway(frame.code()),
                _ => {}
            }
        }
    }

    /// The body of a stream whose head has been read.
    pub(crate) fn body(&mut self, stream: u32) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(frame) = self.next() {
            if frame.stream != stream {
                continue;
            }
            if frame.kind == DATA {
                body.extend_from_slice(&frame.payload);
            }
            if frame.ends_stream() || frame.kind == RST_STREAM {
                break;
            }
        }
        body
    }
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Fields as literals that no table keeps (RFC 7541 §6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            length(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        bytes.push(length as u8);
        return;
    }
    bytes.push(127);
    let mut left = length - 127;
    while left >= 128 {
        bytes.push((left % 128 + 128) as u8);
        left /= 128;
    }
    bytes.push(left as u8);
}

/// The status of a response, which is its first field: one of the static table, or three digits. Only for the first
/// response of a connection: later ones may be in the dynamic table.
fn status(block: &[u8]) -> u16 {
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match without_update(block) {
        [first @ 0x88..=0x8e, ..] => KNOWN[usize::from(first - 0x88)],
        [0x08 | 0x18 | 0x48, rest @ ..] => {
            let (status, _) = text(rest);
            status.parse().expect("a number")
        }
        other => panic!("no status in {other:02x?}"),
    }
}

/// The fields of a block of literals that no table holds, such as the first trailers of a connection with names of their
/// own.
pub(crate) fn fields(block: &[u8]) -> Vec<(String, String)> {
    let mut rest = without_update(block);
    let mut fields = Vec::new();
    while let [0x00 | 0x10 | 0x40, after @ ..] = rest {
        let (name, after) = text(after);
        let (value, after) = text(after);
        fields.push((name, value));
        rest = after;
    }
    assert!(rest.is_empty(), "in a table: {rest:02x?}");
    fields
}

/// A block without the update of the table's size that it may begin with.
fn without_update(block: &[u8]) -> &[u8] {
    match block {
        [first, rest @ ..] if first & 0xe0 == 0x20 => rest,
        block => block,
    }
}

/// A string of less than 127 bytes (RFC 7541 §5.2), and what follows it.
fn text(bytes: &[u8]) -> (String, &[u8]) {
    let [first, rest @ ..] = bytes else {
        panic!("no string");
    };
    let (coded, rest) = rest.split_at(usize::from(first & 0x7f));
    let text = match first & 0x80 {
        0 => String::from_utf8_lossy(coded).into_owned(),
        _ => unhuffman(coded),
    };
    (text, rest)
}

/// Text whose letters have codes of up to eight bits (RFC 7541, Appendix B): codes of one length follow one another.
fn unhuffman(coded: &[u8]) -> String {
    const CODES: [(u32, u32, &str); 4] = [
        (5, 0x00, "012aceiost"),
        (6, 0x14, " %-./3456789=A_bdfghlmnpru"),
        (7, 0x5c, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
        (8, 0xf8, "&*,;XZ"),
    ];
    let mut text = String::new();
    let (mut code, mut length) = (0, 0);
    for byte in coded {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            let codes = CODES.iter().find(|(bits, ..)| *bits == length);
            let letter = codes.and_then(|(_, first, letters)| {
                letters.chars().nth(code.checked_sub(*first)? as usize)
            });
            if let Some(letter) = letter {
                text.push(letter);
                (code, length) = (0, 0);
            }
        }
    }
    // What fills the last byte is the beginning of a longer code.
    assert!(length < 8 && code + 1 == 1 << length, "a longer code");
    text
}

#[test]
fn statuses_are_read() {
    assert_eq!(status(&[0x88]), 200);
    assert_eq!(status(&[0x20, 0x8c, 1]), 400);
    assert_eq!(status(b"\x48\x03405"), 405);
    // 4: 011010, 3: 011001, 1: 00001
    assert_eq!(
        status(&[0x48, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111]),
        431
    );
}

#[test]
fn fields_are_read() {
    // 1: 00001, 4: 011010, x: 1111001
    let block = b"\x40\x81\xf3\x01a\x00\x01b\x82\x0b\x5f";
    let expected = [("x", "a"), ("b", "14")].map(|(name, it)| (name.into(), it.into()));
    assert_eq!(fields(block), expected);
}

//! HTTP/2 by hand, frame by frame (RFC 9113 §4.1), for servers that do what no real one does on demand. Field sections
//! are written without compression, and not read: a test knows what it asked for.

use crate::origin::Conn;
use anyhow::{Result, ensure};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_BYTES_MAX: usize = 1 << 20;

/// Kinds of frames (RFC 9113 §6).
pub mod kind {
    #![expect(missing_docs, reason = "the names are those of the RFC")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
}

/// `END_STREAM` of DATA and HEADERS; `ACK` of SETTINGS and PING.
pub const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// One frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// See [`kind`].
    pub kind: u8,
    /// As the kind has them.
    pub flags: u8,
    /// 0 is the connection.
    pub stream: u32,
    /// As the kind has it.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame without flags.
    pub fn new(kind: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            flags: 0,
            stream,
            payload: payload.into(),
        }
    }

    /// The same with flags.
    pub fn with(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// HEADERS of a response.
    pub fn headers(stream: u32, status: u16, fields: &[(&str, &str)]) -> Self {
        let mut block = Vec::new();
        let status = status.to_string();
        for (name, value) in [(":status", &*status)].iter().chain(fields) {
            literal(&mut block, name, value);
        }
        Self::new(kind::HEADERS, stream, block).with(END_HEADERS)
    }

    /// HEADERS after the body.
    pub fn trailers(stream: u32, fields: &[(&str, &str)]) -> Self {
        let mut block = Vec::new();
        for (name, value) in fields {
            literal(&mut block, name, value);
        }
        Self::new(kind::HEADERS, stream, block).with(END_HEADERS | END_STREAM)
    }

    /// GOAWAY: the server has taken no stream above `last`.
    pub fn goaway(last: u32, code: u32) -> Self {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        Self::new(kind::GOAWAY, 0, payload)
    }

    /// RST_STREAM.
    pub fn reset(stream: u32, code: u32) -> Self {
        Self::new(kind::RST_STREAM, stream, code.to_be_bytes())
    }

    /// WINDOW_UPDATE.
    pub fn window(stream: u32, more: u32) -> Self {
        Self::new(kind::WINDOW_UPDATE, stream, more.to_be_bytes())
    }

    /// Whether it is the last of its stream.
    pub fn ends(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & END_STREAM != 0
    }

    /// The code of a RST_STREAM, in which it stands first, or of a GOAWAY, in which it stands second.
    pub fn code(&self) -> Option<u32> {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        let bytes = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// A literal field without indexing, with a new name (RFC 7541 §6.2.2); both shorter than 127 bytes.
fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        block.push(u8::try_from(text.len()).expect("a short text"));
        block.extend(text.as_bytes());
    }
}

impl Conn {
    /// Takes the client's preface, and sends settings: pairs of identifier and value (RFC 9113 §6.5.2).
    ///
    /// # Errors
    ///
    /// When something else comes.
    pub fn greet(&mut self, settings: &[(u16, u32)]) -> Result<()> {
        let preface = self.read_exactly(PREFACE.len())?;
        ensure!(preface == PREFACE, "no preface: {preface:?}");
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        self.send(Frame::new(kind::SETTINGS, 0, payload))
    }

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn send(&mut self, frame: Frame) -> Result<()> {
        self.write(frame.bytes())
    }

    /// The next frame that is no matter of course: settings and pings are answered, windows left aside. `None` when the
    /// peer ended the connection between two.
    ///
    /// # Errors
    ///
    /// When it is cut, or does not come in time.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        loop {
            let Some(frame) = self.any_frame()? else {
                return Ok(None);
            };
            match frame.kind {
                kind::SETTINGS if frame.flags & ACK == 0 => {
                    self.send(Frame::new(kind::SETTINGS, 0, []).with(ACK))?;
                }
                kind::PING if frame.flags & ACK == 0 => {
                    self.send(Frame::new(kind::PING, 0, frame.payload).with(ACK))?;
                }
                kind::SETTINGS | kind::PING | kind::WINDOW_UPDATE => {}
                _ => return Ok(Some(frame)),
            }
        }
    }

    /// The next frame, whatever it is; `None` when the peer ended the connection between two.
    ///
    /// # Errors
    ///
    /// As [`next_frame`](Self::next_frame).
    pub fn any_frame(&mut self) -> Result<Option<Frame>> {
        let Some(first) = self.read_one()? else {
            return Ok(None);
        };
        let head = [vec![first], self.read_exactly(8)?].concat();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff,
            payload: self.read_exactly(length)?,
        };
        if frame.kind == kind::HEADERS {
            self.count_head(frame.stream);
        }
        Ok(Some(frame))
    }

    /// The next request's stream, once its head has come; `None` when the peer ended the connection. What comes of the
    /// streams before is left aside.
    ///
    /// # Errors
    ///
    /// As [`next_frame`](Self::next_frame).
    pub fn next_stream(&mut self) -> Result<Option<u32>> {
        loop {
            match self.next_frame()? {
                None => return Ok(None),
                Some(frame) if frame.kind == kind::HEADERS => return Ok(Some(frame.stream)),
                Some(frame) if frame.kind == kind::GOAWAY => return Ok(None),
                Some(_) => {}
            }
        }
    }

    /// Answers a request with 200 and a body.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn answer(&mut self, stream: u32, body: impl AsRef<[u8]>) -> Result<()> {
        self.send(Frame::headers(stream, 200, &[]))?;
        self.send(Frame::new(kind::DATA, stream, body.as_ref()).with(END_STREAM))
    }
}

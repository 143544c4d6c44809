//! A message in a body, behind its prefix.
//!
//! ```text
//! Length-Prefixed-Message = Compressed-Flag Message-Length Message
//! Compressed-Flag         = 0 / 1                  ; 1 byte
//! Message-Length          = {length of Message}    ; 4 bytes, big endian
//! ```
//!
//! In gRPC-Web the highest bit of the flag marks a frame of trailers.

use crate::http1::Decoded;

/// Bytes before a message.
pub const FRAME_HEADER_BYTES: usize = 5;

/// A message with its flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'b> {
    /// 0 or 1, or with [`super::TRAILER_FLAG`].
    pub flag: u8,
    /// Its bytes.
    pub payload: &'b [u8],
}

/// A message is longer than its reader takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameTooLarge;

/// What stands before a message of `length` bytes.
#[must_use]
pub fn frame_header(flag: u8, length: u32) -> [u8; FRAME_HEADER_BYTES] {
    let [a, b, c, d] = length.to_be_bytes();
    [flag, a, b, c, d]
}

/// Reads the message at the start of `bytes`.
///
/// # Errors
/// When it announces more than `payload_max` bytes.
pub fn decode_frame(bytes: &[u8], payload_max: usize) -> Result<Decoded<Frame<'_>>, FrameTooLarge> {
    let [flag, a, b, c, d, rest @ ..] = bytes else {
        return Ok(Decoded::Incomplete);
    };
    let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
    if length > payload_max {
        return Err(FrameTooLarge);
    }
    Ok(match rest.get(..length) {
        None => Decoded::Incomplete,
        Some(payload) => Decoded::Complete(Frame {
            flag: *flag,
            payload,
        }),
    })
}

/// Where a body that goes by stands between its messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Boundary {
    /// Bytes of a header that have gone by.
    header: usize,
    /// The length of its message, as far as that is known.
    length: u32,
    /// Bytes that are missing of the message.
    missing: u32,
}

impl Boundary {
    /// Takes in that these bytes follow.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while let [first, rest @ ..] = bytes {
            if self.missing > 0 {
                let missing = usize::try_from(self.missing).unwrap_or(usize::MAX);
                let (message, rest) = bytes.split_at(missing.min(bytes.len()));
                self.missing -= u32::try_from(message.len()).unwrap_or(self.missing);
                bytes = rest;
                continue;
            }
            if self.header > 0 {
                self.length = self.length << 8 | u32::from(*first);
            }
            self.header += 1;
            if self.header == FRAME_HEADER_BYTES {
                self.missing = std::mem::take(&mut self.length);
                self.header = 0;
            }
            bytes = rest;
        }
    }

    /// Whether every message that has begun is whole.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.header == 0 && self.missing == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_whole_where_the_next_one_begins() {
        let mut body = frame_header(0, 3).to_vec();
        body.extend_from_slice(b"abc");
        body.extend_from_slice(&frame_header(1, 0));
        body.extend_from_slice(&frame_header(0, 300));
        body.resize(body.len() + 300, 7);
        let whole = [0, 8, 13, body.len()];
        for at in 0..=body.len() {
            let (first, rest) = body.split_at(at);
            let mut boundary = Boundary::default();
            boundary.pass(first);
            assert_eq!(boundary.is_between(), whole.contains(&at), "{at}");
            boundary.pass(rest);
            assert!(boundary.is_between(), "{at}");
        }
    }

    #[test]
    fn a_message_is_there_when_its_last_byte_is() {
        let mut bytes = frame_header(1, 3).to_vec();
        bytes.extend_from_slice(b"abcd");
        for end in 0..8 {
            let decoded = decode_frame(&bytes[..end], 3);
            assert_eq!(decoded, Ok(Decoded::Incomplete), "{end}");
        }
        let frame = Frame {
            flag: 1,
            payload: b"abc",
        };
        assert_eq!(decode_frame(&bytes, 3), Ok(Decoded::Complete(frame)));
        assert_eq!(decode_frame(&bytes[..5], 2), Err(FrameTooLarge));
        let none = Frame {
            flag: 0,
            payload: b"",
        };
        assert_eq!(
            decode_frame(&frame_header(0, 0), 0),
            Ok(Decoded::Complete(none))
        );
    }
}

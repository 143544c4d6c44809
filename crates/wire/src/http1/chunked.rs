//! A chunked body, decoded in the buffer that it came in.
//!
//! ```text
//! chunked-body = *chunk last-chunk trailer-section CRLF        RFC 9112 §7.1
//! chunk        = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
//! chunk-size   = 1*HEXDIG
//! last-chunk   = 1*("0") [ chunk-ext ] CRLF
//! ```
//!
//! Extensions are dropped and sizes written without leading zeros, so that what
//! goes on is canonical whatever came in. It does not buffer: what is not
//! complete stays with the caller.

use std::fmt;
use std::ops::Range;

use super::known::{Known, KnownSet, is_framing_look_alike};
use super::text::{is_text, is_token, trim};

/// Bytes of a chunk extension, from after the size to before the CR LF.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 256;

/// Bytes of a trailer section, final CR LF included.
pub const TRAILER_BYTES_MAX: usize = 8 << 10;

/// Hexadecimal digits of a chunk size: what fits 64 bits.
const SIZE_DIGITS_MAX: usize = 16;

/// Where in a chunked body the next byte stands. As small as can be, so that
/// one fits every exchange.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChunkedDecoder {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Before a size line.
    #[default]
    Size,
    /// In the data of a chunk: bytes that are missing, at least 1.
    Data(u64),
    /// Before the CR LF after the data.
    DataEnd,
    /// After the last chunk.
    Trailers,
    /// Behind the body.
    Done,
}

/// What to leave in the buffer for the next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Chunks, to be relayed as they are.
    Framing,
    /// Only the data, for a peer that does not know chunks.
    DataOnly,
}

/// What one call did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// `bytes[..kept]` may be forwarded.
    pub kept: usize,
    /// How many of these are data, framing aside.
    pub data: usize,
    /// `bytes[..consumed]` of the input are used up; `bytes[consumed..]` are
    /// untouched and must be given again, with more after them.
    pub consumed: usize,
    /// Whether the body ends at `consumed`.
    pub end: bool,
    /// Where in the input the trailer fields stand, for [`trailer_fields`],
    /// without the final empty line; empty if there are none. Only with `end`;
    /// they are still in the buffer after the call.
    pub trailers: Option<Range<usize>>,
}

/// Why a chunked body is refused. The connection cannot be used any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkError {
    /// A size that is not 1 to 16 hexadecimal digits and CR LF.
    Size,
    /// A chunk extension that is too long, does not start with `;`, or holds a
    /// control byte or half a line end.
    Extension,
    /// No CR LF after the data of a chunk.
    DataEnd,
    /// A trailer that is no valid field line.
    Trailer,
    /// More trailers than [`TRAILER_BYTES_MAX`].
    TrailersTooLarge,
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChunkError::Size => "a chunk size is malformed",
            ChunkError::Extension => "a chunk extension is malformed or too long",
            ChunkError::DataEnd => "a chunk does not end where its size says",
            ChunkError::Trailer => "a trailer is malformed",
            ChunkError::TrailersTooLarge => "the trailers are too large",
        })
    }
}

impl std::error::Error for ChunkError {}

impl ChunkedDecoder {
    /// Takes from `bytes`, the next piece of the body and perhaps what follows
    /// it, as much as is complete, and moves what is kept to its start: all
    /// chunks, but not the last one and the trailers, which the caller writes
    /// itself when `end` is told ([`super::encode::LAST_CHUNK`], the trailers
    /// that may pass, CR LF). Chunks without extension are not moved.
    ///
    /// A size line, and the whole trailer section, are taken only when complete:
    /// the buffer must have room for [`TRAILER_BYTES_MAX`].
    ///
    /// # Errors
    /// See [`ChunkError`]; what the same call had decoded before is lost.
    pub fn decode(&mut self, bytes: &mut [u8], keep: Keep) -> Result<Progress, ChunkError> {
        let mut consumed = 0;
        let mut kept = 0;
        let mut data = 0;
        let mut trailers = None;
        loop {
            let rest = bytes.get(consumed..).unwrap_or_default();
            match self.state {
                State::Size => {
                    let Some(line) = size_line(rest)? else { break };
                    if line.size == 0 {
                        self.state = State::Trailers;
                    } else {
                        if keep == Keep::Framing {
                            let digits = consumed + line.zeros..consumed + line.digits;
                            let end = consumed + line.len;
                            kept = slide(bytes, digits, kept);
                            kept = slide(bytes, end - 2..end, kept);
                        }
                        self.state = State::Data(line.size);
                    }
                    consumed += line.len;
                }
                State::Data(missing) => {
                    let here = usize::try_from(missing).map_or(rest.len(), |n| n.min(rest.len()));
                    kept = slide(bytes, consumed..consumed + here, kept);
                    consumed += here;
                    data += here;
                    let missing = missing - here as u64;
                    if missing > 0 {
                        self.state = State::Data(missing);
                        break;
                    }
                    self.state = State::DataEnd;
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        if keep == Keep::Framing {
                            kept = slide(bytes, consumed..consumed + 2, kept);
                        }
                        consumed += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => break,
                    _ => return Err(ChunkError::DataEnd),
                },
                State::Trailers => {
                    let Some(len) = trailer_section(rest)? else {
                        break;
                    };
                    trailers = Some(consumed..consumed + len - 2);
                    consumed += len;
                    self.state = State::Done;
                }
                State::Done => break,
            }
        }
        Ok(Progress {
            kept,
            data,
            consumed,
            end: self.is_done(),
            trailers,
        })
    }

    /// Whether the last chunk has come and the trailer section has not.
    pub fn in_trailers(&self) -> bool {
        self.state == State::Trailers
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of data that the current chunk still lacks; 0 between chunks.
    pub fn missing(&self) -> u64 {
        match self.state {
            State::Data(missing) => missing,
            _ => 0,
        }
    }
}

/// Moves `range`, which lies within `bytes` and not before `to`, down to `to`;
/// returns where it ends.
#[inline]
fn slide(bytes: &mut [u8], range: Range<usize>, to: usize) -> usize {
    let len = range.len();
    if range.start != to {
        bytes.copy_within(range, to);
    }
    to + len
}

/// A complete size line.
struct SizeLine {
    size: u64,
    /// Leading zeros that say nothing.
    zeros: usize,
    /// Digits, leading zeros included.
    digits: usize,
    /// The whole line, extension and CR LF included.
    len: usize,
}

fn size_line(input: &[u8]) -> Result<Option<SizeLine>, ChunkError> {
    let mut size = 0_u64;
    let mut zeros = 0;
    let mut digits = 0;
    for &byte in input {
        let Some(digit) = (byte as char).to_digit(16) else {
            break;
        };
        digits += 1;
        if digits > SIZE_DIGITS_MAX {
            return Err(ChunkError::Size);
        }
        size = size << 4 | u64::from(digit);
        zeros += usize::from(size == 0);
    }
    let rest = input.get(digits..).unwrap_or_default();
    let extension = match rest {
        [] => return Ok(None),
        _ if digits == 0 => return Err(ChunkError::Size),
        [b'\r'] => return Ok(None),
        [b'\r', b'\n', ..] => 0,
        [b';' | b' ' | b'\t', ..] => match extension(rest)? {
            Some(len) => len,
            None => return Ok(None),
        },
        _ => return Err(ChunkError::Size),
    };
    Ok(Some(SizeLine {
        size,
        zeros,
        digits,
        len: digits + extension + 2,
    }))
}

/// The length of the extension that `input` starts with, if its line is
/// complete. It is dropped, so its grammar is of no interest, but where it ends
/// must be beyond doubt.
fn extension(input: &[u8]) -> Result<Option<usize>, ChunkError> {
    let window = input.get(..CHUNK_EXTENSION_BYTES_MAX + 2).unwrap_or(input);
    let Some(line_feed) = memchr::memchr(b'\n', window) else {
        return if input.len() >= CHUNK_EXTENSION_BYTES_MAX + 2 {
            Err(ChunkError::Extension)
        } else {
            Ok(None)
        };
    };
    let line = window.get(..line_feed).unwrap_or_default();
    match line.strip_suffix(b"\r") {
        Some(text) if trim(text).starts_with(b";") && text.iter().all(|&b| is_text(b)) => {
            Ok(Some(text.len()))
        }
        _ => Err(ChunkError::Extension),
    }
}

/// The length of the trailer section that `input` starts with, final CR LF
/// included, if it is complete.
fn trailer_section(input: &[u8]) -> Result<Option<usize>, ChunkError> {
    let window = input.get(..TRAILER_BYTES_MAX).unwrap_or(input);
    let mut rest = window;
    while let Some(line_feed) = memchr::memchr(b'\n', rest) {
        let (line, after) = split_line(rest, line_feed).ok_or(ChunkError::Trailer)?;
        rest = after;
        if line.is_empty() {
            return Ok(Some(window.len() - rest.len()));
        }
        field_of(line).ok_or(ChunkError::Trailer)?;
    }
    if input.len() >= TRAILER_BYTES_MAX {
        return Err(ChunkError::TrailersTooLarge);
    }
    Ok(None)
}

/// The trailers that may be passed on, from the bytes that
/// [`Progress::trailers`] points at: those without a name that is forbidden
/// there ([`KnownSet::NEVER_TRAILERS`], RFC 9110 §6.5.1).
pub fn trailer_fields(bytes: &[u8]) -> TrailerFields<'_> {
    TrailerFields { rest: bytes }
}

/// See [`trailer_fields`].
#[derive(Debug, Clone)]
pub struct TrailerFields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for TrailerFields<'a> {
    /// Name and value.
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((line, rest)) =
            memchr::memchr(b'\n', self.rest).and_then(|at| split_line(self.rest, at))
        {
            self.rest = rest;
            match field_of(line) {
                Some((name, value))
                    if !KnownSet::NEVER_TRAILERS.contains(Known::of(name))
                        && !is_framing_look_alike(name) =>
                {
                    return Some((name, value));
                }
                _ => {}
            }
        }
        None
    }
}

/// The line that ends at `line_feed`, without its CR LF, and what follows it.
fn split_line(bytes: &[u8], line_feed: usize) -> Option<(&[u8], &[u8])> {
    let (line, rest) = bytes.split_at_checked(line_feed + 1)?;
    Some((line.strip_suffix(b"\r\n")?, rest))
}

/// RFC 9112 §5, folded lines refused.
fn field_of(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
    let value = trim(value.get(1..)?);
    (is_token(name) && value.iter().all(|&b| is_text(b))).then_some((name, value))
}

#[cfg(test)]
mod tests;

//! The head of a response.
//!
//! ```text
//! status-line = HTTP-version SP status-code [ SP reason-phrase ]   RFC 9112 §4
//!      *( field-name ":" OWS field-value OWS CRLF ) CRLF           RFC 9112 §5
//! ```
//!
//! Interim responses (1xx) are heads like any other here, 101 included: the
//! caller reads on, or makes a tunnel.

use std::fmt;

use super::fields::{Field, Said, line_feed};
use super::head::{Body, Decoded, HeadFault, HeadLimits, Method, Span, Version};
use super::known::KnownSet;
use super::scan;

/// A decoded response head: offsets into the caller's buffer. Keep one and
/// decode into it again and again; `fields` keeps its capacity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// The server's version.
    pub version: Version,
    /// The reason phrase as it was sent, maybe empty, maybe not ASCII.
    pub reason: Span,
    /// All field lines in their order, repeats kept.
    pub fields: Vec<Field>,
    /// Bytes of the head, blank line included.
    pub len: usize,
    /// What follows the head, the request's method considered.
    pub body: Body,
    /// Whether the server keeps the connection open and it can be used again
    /// once the body is read (RFC 9112 §9.3): false also when the end of the
    /// body is the end of the connection, and when a response that cannot have
    /// a body announces one.
    pub keep_alive: bool,
    /// Seconds of `Keep-Alive: timeout=`: how long the server keeps it idle.
    pub keep_alive_timeout: Option<u32>,
    /// The value of `Upgrade`, only if `Connection` lists it too, in HTTP/1.1.
    pub upgrade: Option<Span>,
    /// Whether `Connection` names fields that are not [`super::Known`], so that
    /// [`super::named_by_connection`] must be asked before one is forwarded.
    pub connection_names: bool,
    /// Which known names are among the fields.
    pub present: KnownSet,
}

/// Why a response head is refused. The connection cannot be used any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseError {
    /// Something about its size, fields or framing.
    Head(HeadFault),
    /// The first line is no status line, or holds a control byte.
    StatusLine,
    /// It does not start with HTTP/1.0 or HTTP/1.1.
    Version,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ResponseError::Head(fault) => fault.text(),
            ResponseError::StatusLine => "the status line is malformed",
            ResponseError::Version => "the response is not HTTP/1.0 or HTTP/1.1",
        })
    }
}

impl std::error::Error for ResponseError {}

impl From<HeadFault> for ResponseError {
    fn from(fault: HeadFault) -> Self {
        ResponseError::Head(fault)
    }
}

/// Decodes the head at the start of `bytes`, as the answer to a request of the
/// method `request`.
///
/// # Errors
/// See [`ResponseError`]; also for an incomplete head that is certainly wrong or
/// too large already. `head` then holds nothing meaningful.
pub fn decode_response(
    bytes: &[u8],
    request: Method,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Decoded<()>, ResponseError> {
    let head_bytes_max = limits.head_bytes_addressable();
    let window = bytes.get(..head_bytes_max).unwrap_or(bytes);
    let decoded = decode_window(window, request, limits, head)?;
    if decoded == Decoded::Incomplete && window.len() >= head_bytes_max {
        return Err(HeadFault::TooLarge.into());
    }
    Ok(decoded)
}

fn decode_window(
    bytes: &[u8],
    request: Method,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Decoded<()>, ResponseError> {
    let Decoded::Complete(fields_start) = status_line(bytes, head)? else {
        return Ok(Decoded::Incomplete);
    };
    let read = Said::read(bytes, fields_start, limits.headers, &mut head.fields)?;
    let Decoded::Complete((said, end)) = read else {
        return Ok(Decoded::Incomplete);
    };
    head.len = end;
    conclude(&said, request, head)?;
    Ok(Decoded::Complete(()))
}

/// Reads the status line, and tells where the fields start.
#[inline]
fn status_line(bytes: &[u8], head: &mut ResponseHead) -> Result<Decoded<usize>, ResponseError> {
    head.version = match Version::read(bytes, 0) {
        Some(Decoded::Complete(version)) => version,
        Some(Decoded::Incomplete) => return Ok(Decoded::Incomplete),
        None => return Err(ResponseError::Version),
    };
    let mut rest = bytes.get(Version::BYTES..).unwrap_or_default();
    match rest.split_off_first() {
        None => return Ok(Decoded::Incomplete),
        Some(b' ') => {}
        Some(_) => return Err(ResponseError::Version),
    }
    head.status = 0;
    for _ in 0..3 {
        match rest.split_off_first() {
            None => return Ok(Decoded::Incomplete),
            Some(digit @ b'0'..=b'9') => head.status = head.status * 10 + u16::from(digit - b'0'),
            Some(_) => return Err(ResponseError::StatusLine),
        }
    }
    // RFC 9110 §15; what is above 599 some servers do send
    if head.status < 100 {
        return Err(ResponseError::StatusLine);
    }
    let code_end = bytes.len() - rest.len();
    let mut line_end = code_end;
    head.reason = Span::default();
    // The blank is due even without a phrase (RFC 9112 §4), but not all servers send it.
    if rest.first() == Some(&b' ') {
        line_end = scan::control(bytes, code_end);
        while let Some(b'\t') = bytes.get(line_end) {
            line_end = scan::control(bytes, line_end + 1);
        }
        head.reason = Span::between(code_end + 1, line_end);
    }
    match bytes.get(line_end) {
        None => Ok(Decoded::Incomplete),
        Some(b'\r') => line_feed(bytes, line_end + 1, ResponseError::StatusLine),
        Some(b'\n') => Err(HeadFault::LineEnd.into()),
        Some(_) => Err(ResponseError::StatusLine),
    }
}

/// What follows from the fields, RFC 9112 §6.3.
fn conclude(said: &Said, request: Method, head: &mut ResponseHead) -> Result<(), ResponseError> {
    let chunked = said.chunked(head.version)?;
    head.keep_alive = said.persists(head.version);
    head.body = if request == Method::Head || head.status == 304 {
        Body::None
    } else if head.status < 200 || head.status == 204 {
        // Some servers send a body regardless: never trust what comes next.
        head.keep_alive &= !chunked && said.length.unwrap_or(0) == 0;
        Body::None
    } else if chunked {
        Body::Chunked
    } else if let Some(length) = said.length {
        Body::Length(length)
    } else {
        head.keep_alive = false;
        Body::UntilClose
    };
    head.keep_alive_timeout = said.keep_alive_timeout;
    head.upgrade = said.upgrade(head.version);
    head.connection_names = said.connection_names;
    head.present = said.present;
    Ok(())
}

#[cfg(test)]
mod tests;

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

use super::fields::{Field, Said};
use super::head::{Body, Decoded, HeadFault, HeadLimits, Method, Slot, Span, Version, with_slots};
use super::known::KnownSet;

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
    // httparse would skip empty lines here; nothing allows them.
    if bytes.first().is_some_and(|&byte| byte != b'H') {
        return Err(ResponseError::Version);
    }
    let head_bytes_max = limits.head_bytes_addressable();
    let window = bytes.get(..head_bytes_max).unwrap_or(bytes);
    let decoded = with_slots(limits.headers, |slots| {
        decode_window(window, slots, request, head)
    })?;
    if decoded == Decoded::Incomplete && window.len() >= head_bytes_max {
        return Err(HeadFault::TooLarge.into());
    }
    Ok(decoded)
}

fn decode_window<'b>(
    window: &'b [u8],
    slots: &mut [Slot<'b>],
    request: Method,
    head: &mut ResponseHead,
) -> Result<Decoded<()>, ResponseError> {
    let config = httparse::ParserConfig::default();
    let mut parsed = httparse::Response::new(&mut []);
    let len = match config.parse_response_with_uninit_headers(&mut parsed, window, slots) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(Decoded::Incomplete),
        Err(error) => return Err(fault_of(error)),
    };
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else {
        return Err(ResponseError::StatusLine);
    };
    // RFC 9110 §15; what is above 599 some servers do send
    if status < 100 {
        return Err(ResponseError::StatusLine);
    }
    head.status = status;
    head.version = if version == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    head.len = len;
    let whole = window.get(..len).unwrap_or_default();
    head.reason = reason(whole);
    let line_end = b"HTTP/1.1 200".len();
    let said = Said::read(whole, line_end, parsed.headers, &mut head.fields)?;
    conclude(&said, request, head)?;
    Ok(Decoded::Complete(()))
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

/// The phrase after `HTTP/1.1 200 `; httparse hides one that is not ASCII.
fn reason(whole: &[u8]) -> Span {
    let line = memchr::memchr(b'\r', whole).and_then(|end| whole.get(..end));
    let phrase = line.and_then(|line| line.get(b"HTTP/1.1 200 ".len()..));
    phrase.map_or(Span::default(), |phrase| Span::locate(whole, phrase))
}

fn fault_of(error: httparse::Error) -> ResponseError {
    match error {
        httparse::Error::HeaderName => HeadFault::FieldName.into(),
        httparse::Error::HeaderValue => HeadFault::FieldValue.into(),
        httparse::Error::NewLine => HeadFault::LineEnd.into(),
        httparse::Error::TooManyHeaders => HeadFault::TooManyFields.into(),
        httparse::Error::Version => ResponseError::Version,
        httparse::Error::Status | httparse::Error::Token => ResponseError::StatusLine,
    }
}

#[cfg(test)]
mod tests;

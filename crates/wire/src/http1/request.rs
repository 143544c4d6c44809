//! The head of a request.
//!
//! ```text
//! request-line = method SP request-target SP HTTP-version      RFC 9112 §3
//!      *( field-name ":" OWS field-value OWS CRLF ) CRLF       RFC 9112 §5
//! ```
//!
//! It does not split or normalise the target, and does not compare it with
//! `Host`; `rules` does.

use std::fmt;

use super::fields::{Field, Said, line_feed};
use super::head::{Body, Decoded, HeadFault, HeadLimits, Method, Span, Version};
use super::known::KnownSet;
use super::scan;
use super::text::{is_host, is_token_byte};

/// A decoded request head: offsets into the caller's buffer. Keep one and decode
/// into it again and again; `fields` keeps its capacity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestHead {
    /// The method, if it is one that matters.
    pub method: Method,
    /// The method as it was sent.
    pub method_text: Span,
    /// The request target as it was sent, in any of its four forms: visible
    /// ASCII without `#`, not empty.
    pub target: Span,
    /// The client's version.
    pub version: Version,
    /// All field lines in their order, repeats kept.
    pub fields: Vec<Field>,
    /// Bytes of the head from the start of the buffer, blank line included.
    pub len: usize,
    /// What follows the head; never [`Body::UntilClose`].
    pub body: Body,
    /// Whether the client wants the connection to stay open (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends its body.
    /// Never in HTTP/1.0 (RFC 9110 §10.1.1).
    pub expect_continue: bool,
    /// The value of `Host`, valid as an authority; there is always one in
    /// HTTP/1.1, and it is empty only where the target tells the host or needs
    /// none (absolute and asterisk form).
    pub host: Option<Span>,
    /// The value of `Upgrade`, only if `Connection` lists it too, in HTTP/1.1.
    pub upgrade: Option<Span>,
    /// Whether `Connection` names fields that are not [`super::Known`], so that
    /// [`super::named_by_connection`] must be asked before one is forwarded.
    pub connection_names: bool,
    /// Which known names are among the fields.
    pub present: KnownSet,
}

/// Why a request head is refused. The connection cannot be used any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    /// Something about its size, fields or framing.
    Head(HeadFault),
    /// The first line is no request line: a bad method, blanks where they do
    /// not belong, control bytes, no version (HTTP/0.9).
    RequestLine,
    /// The target holds `#` or a byte outside ASCII.
    Target,
    /// The target is longer than `HeadLimits::uri_bytes`.
    UriTooLong,
    /// A version of HTTP other than 1.0 and 1.1.
    Version,
    /// HTTP/1.1 without `Host`.
    NoHost,
    /// More than one `Host`.
    ManyHosts,
    /// `Host` is no authority, or empty with a target that needs it.
    BadHost,
}

/// How a refused request is answered and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestErrorKind {
    /// 400, the request itself.
    BadRequest,
    /// 400, where its parts begin and end.
    BadFraming,
    /// 414
    UriTooLong,
    /// 431
    HeaderTooLarge,
    /// 501
    UnknownCoding,
    /// 505
    Version,
}

impl RequestError {
    /// How it is to be answered and counted.
    pub fn kind(self) -> RequestErrorKind {
        match self {
            RequestError::Head(HeadFault::TooLarge | HeadFault::TooManyFields) => {
                RequestErrorKind::HeaderTooLarge
            }
            RequestError::Head(HeadFault::UnknownCoding) => RequestErrorKind::UnknownCoding,
            RequestError::Head(_) => RequestErrorKind::BadFraming,
            RequestError::UriTooLong => RequestErrorKind::UriTooLong,
            RequestError::Version => RequestErrorKind::Version,
            RequestError::RequestLine
            | RequestError::Target
            | RequestError::NoHost
            | RequestError::ManyHosts
            | RequestError::BadHost => RequestErrorKind::BadRequest,
        }
    }

    /// The status of the answer: 400, 414, 431, 501 or 505.
    pub fn status(self) -> u16 {
        match self.kind() {
            RequestErrorKind::BadRequest | RequestErrorKind::BadFraming => 400,
            RequestErrorKind::UriTooLong => 414,
            RequestErrorKind::HeaderTooLarge => 431,
            RequestErrorKind::UnknownCoding => 501,
            RequestErrorKind::Version => 505,
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RequestError::Head(fault) => fault.text(),
            RequestError::RequestLine => "the request line is malformed",
            RequestError::Target => "the request target holds a byte that it may not",
            RequestError::UriTooLong => "the request target is too long",
            RequestError::Version => "an HTTP version other than 1.0 and 1.1",
            RequestError::NoHost => "no Host in HTTP/1.1",
            RequestError::ManyHosts => "more than one Host",
            RequestError::BadHost => "Host is not a host and port",
        })
    }
}

impl std::error::Error for RequestError {}

impl From<HeadFault> for RequestError {
    fn from(fault: HeadFault) -> Self {
        RequestError::Head(fault)
    }
}

/// Decodes the head at the start of `bytes`. One empty line before it is skipped
/// (RFC 9112 §2.2) and counts into `head.len`, not into the limits. An incomplete
/// head is read from its start again with the next call, which for what fits the
/// limits costs less than the packet that brought it.
///
/// # Errors
/// See [`RequestError`]; also for an incomplete head that is certainly wrong or
/// too large already. `head` then holds nothing meaningful.
pub fn decode_request(
    bytes: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Decoded<()>, RequestError> {
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    match bytes.get(start) {
        Some(b'\n') => return Err(HeadFault::LineEnd.into()),
        Some(b'\r') if start > 0 => return Err(RequestError::RequestLine),
        Some(b'\r') => {
            return line_feed(bytes, 1, HeadFault::LineEnd.into()).map(|_| Decoded::Incomplete);
        }
        _ => {}
    }
    let end = limits
        .head_bytes_addressable()
        .saturating_add(start)
        .min(bytes.len());
    let window = bytes.get(..end).unwrap_or_default();
    let decoded = decode_window(window, start, limits, head)?;
    if decoded == Decoded::Incomplete {
        let so_far = window.get(start..).unwrap_or_default();
        if target_in(so_far).len() > limits.uri_bytes {
            return Err(RequestError::UriTooLong);
        }
        if so_far.len() >= limits.head_bytes_addressable() {
            return Err(HeadFault::TooLarge.into());
        }
    }
    Ok(decoded)
}

fn decode_window(
    bytes: &[u8],
    start: usize,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Decoded<()>, RequestError> {
    let Decoded::Complete(fields_start) = request_line(bytes, start, limits, head)? else {
        return Ok(Decoded::Incomplete);
    };
    let read = Said::read(bytes, fields_start, limits.headers, &mut head.fields)?;
    let Decoded::Complete((said, end)) = read else {
        return Ok(Decoded::Incomplete);
    };
    head.len = end;
    conclude(bytes, &said, head)?;
    Ok(Decoded::Complete(()))
}

/// Reads the request line that starts at `start`, and tells where the fields do.
#[inline]
fn request_line(
    bytes: &[u8],
    start: usize,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Decoded<usize>, RequestError> {
    let rest = bytes.get(start..).unwrap_or_default();
    let Some(blank) = rest.iter().position(|&byte| !is_token_byte(byte)) else {
        return Ok(Decoded::Incomplete);
    };
    let method = rest.get(..blank).unwrap_or_default();
    if method.is_empty() || rest.get(blank) != Some(&b' ') {
        return Err(RequestError::RequestLine);
    }
    let target_start = start + blank + 1;
    let target_end = scan::target_end(bytes, target_start);
    if target_end - target_start > limits.uri_bytes {
        return Err(RequestError::UriTooLong);
    }
    match bytes.get(target_end) {
        None => return Ok(Decoded::Incomplete),
        Some(b' ') if target_end > target_start => {}
        Some(b'#' | 0x80..) => return Err(RequestError::Target),
        Some(_) => return Err(RequestError::RequestLine),
    }
    head.method = Method::of(method);
    head.method_text = Span::between(start, start + blank);
    head.target = Span::between(target_start, target_end);
    let version_start = target_end + 1;
    let read = match Version::read(bytes, version_start) {
        Some(Decoded::Complete(version)) => version,
        Some(Decoded::Incomplete) => return Ok(Decoded::Incomplete),
        None => return bad_version(rest),
    };
    head.version = read;
    let line_end = version_start + Version::BYTES;
    match bytes.get(line_end) {
        None => Ok(Decoded::Incomplete),
        Some(b'\r') => line_feed(bytes, line_end + 1, HeadFault::LineEnd.into()),
        Some(_) => Err(HeadFault::LineEnd.into()),
    }
}

/// A version that cannot be read: which it would be is not told by half a line.
#[cold]
fn bad_version(head: &[u8]) -> Result<Decoded<usize>, RequestError> {
    match first_line(head) {
        None => Ok(Decoded::Incomplete),
        Some(line) if names_a_version(line) => Err(RequestError::Version),
        Some(_) => Err(RequestError::RequestLine),
    }
}

/// What follows from the fields.
fn conclude(bytes: &[u8], said: &Said, head: &mut RequestHead) -> Result<(), RequestError> {
    head.body = match (said.chunked(head.version)?, said.length) {
        (true, _) => Body::Chunked,
        (false, Some(length)) => Body::Length(length),
        (false, None) => Body::None,
    };
    match said.host {
        _ if said.many_hosts => return Err(RequestError::ManyHosts),
        None if head.version == Version::Http11 => return Err(RequestError::NoHost),
        None => {}
        // RFC 9112 §3.2: empty where the target tells the authority, or needs none
        Some(host) if host.is_empty() && !head.target.of(bytes).starts_with(b"/") => {}
        Some(host) if !is_host(host.of(bytes)) => return Err(RequestError::BadHost),
        Some(_) => {}
    }
    head.host = said.host;
    head.keep_alive = said.persists(head.version);
    head.expect_continue = said.expect_continue && head.version == Version::Http11;
    head.upgrade = said.upgrade(head.version);
    head.connection_names = said.connection_names;
    head.present = said.present;
    Ok(())
}

/// The target of a request line, as far as it has come.
fn target_in(window: &[u8]) -> &[u8] {
    let line = first_line(window).unwrap_or(window);
    let mut parts = line.splitn(3, |&byte| byte == b' ');
    parts.nth(1).unwrap_or_default()
}

fn first_line(head: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr(b'\n', head)?;
    let line = head.get(..end)?;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// Whether the third part of the line is a well-formed version (RFC 9112 §2.3).
fn names_a_version(line: &[u8]) -> bool {
    let mut parts = line.splitn(3, |&byte| byte == b' ');
    let version = parts.nth(2).unwrap_or_default();
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

#[cfg(test)]
mod tests;

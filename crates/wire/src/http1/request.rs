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

use super::fields::{Field, Said};
use super::head::{Body, Decoded, HeadFault, HeadLimits, Method, Slot, Span, Version, with_slots};
use super::known::KnownSet;
use super::text::is_host;

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
    // httparse would skip any number of empty lines, with or without CR.
    match bytes.get(start) {
        Some(b'\n') => return Err(HeadFault::LineEnd.into()),
        Some(b'\r') if start > 0 => return Err(RequestError::RequestLine),
        _ => {}
    }
    let end = limits
        .head_bytes_addressable()
        .saturating_add(start)
        .min(bytes.len());
    let window = bytes.get(start..end).unwrap_or_default();
    let decoded = with_slots(limits.headers, |slots| {
        decode_window(bytes, window, slots, limits, head)
    })?;
    if decoded == Decoded::Incomplete {
        if target_in(window).len() > limits.uri_bytes {
            return Err(RequestError::UriTooLong);
        }
        if window.len() >= limits.head_bytes_addressable() {
            return Err(HeadFault::TooLarge.into());
        }
    }
    Ok(decoded)
}

fn decode_window<'b>(
    bytes: &'b [u8],
    window: &'b [u8],
    slots: &mut [Slot<'b>],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Decoded<()>, RequestError> {
    let mut parsed = httparse::Request::new(&mut []);
    let len = match parsed.parse_with_uninit_headers(window, slots) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(Decoded::Incomplete),
        // Which version it would be is not told by half of it.
        Err(httparse::Error::Version) if first_line(window).is_none() => {
            return Ok(Decoded::Incomplete);
        }
        Err(error) => return Err(fault_of(error, window)),
    };
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(RequestError::RequestLine);
    };
    let (method, target) = (method.as_bytes(), target.as_bytes());
    if target.len() > limits.uri_bytes {
        return Err(RequestError::UriTooLong);
    }
    if !target.is_ascii() || memchr::memchr(b'#', target).is_some() {
        return Err(RequestError::Target);
    }
    head.method = Method::of(method);
    head.method_text = Span::locate(bytes, method);
    head.target = Span::locate(bytes, target);
    head.version = if parsed.version == Some(0) {
        Version::Http10
    } else {
        Version::Http11
    };
    head.len = Span::locate(bytes, window).start as usize + len;
    let whole = bytes.get(..head.len).unwrap_or_default();
    let line_end = head.target.end() + b" HTTP/1.1".len();
    let said = Said::read(whole, line_end, parsed.headers, &mut head.fields)?;
    conclude(bytes, &said, head)?;
    Ok(Decoded::Complete(()))
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

fn fault_of(error: httparse::Error, head: &[u8]) -> RequestError {
    match error {
        httparse::Error::HeaderName => HeadFault::FieldName.into(),
        httparse::Error::HeaderValue => HeadFault::FieldValue.into(),
        httparse::Error::NewLine => HeadFault::LineEnd.into(),
        httparse::Error::TooManyHeaders => HeadFault::TooManyFields.into(),
        httparse::Error::Version if names_a_version(first_line(head).unwrap_or(head)) => {
            RequestError::Version
        }
        httparse::Error::Version | httparse::Error::Status | httparse::Error::Token => {
            RequestError::RequestLine
        }
    }
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

//! What requests and responses have in common: spans, versions, limits and faults.
//!
//! Reading the fields is `fields`' duty, start lines belong to `request` and
//! `response`.

use std::fmt;

/// A piece of the buffer that a head was decoded from, by offset, so that heads
/// borrow nothing and can be recycled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Offset in bytes from the start of the buffer.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Span {
    /// The bytes themselves, given the buffer that was decoded; empty if the
    /// span is not of this buffer, never a panic.
    #[inline]
    pub fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize;
        start
            .checked_add(self.len as usize)
            .and_then(|end| bytes.get(start..end))
            .unwrap_or_default()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// From `start` to before `end`. Heads are shorter than 4 GiB (`HeadLimits`), so the
    /// casts lose nothing.
    #[inline]
    pub(super) fn between(start: usize, end: usize) -> Span {
        Span {
            start: start as u32,
            len: end.saturating_sub(start) as u32,
        }
    }
}

/// The two versions that share this framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Version {
    /// HTTP/1.0: closes by default, knows neither chunked nor `Host`.
    Http10,
    /// HTTP/1.1: persists by default.
    #[default]
    Http11,
}

impl Version {
    /// Bytes of `HTTP/1.1`.
    pub(super) const BYTES: usize = 8;

    /// The version whose text starts at `at`; `None` if it is none of the two.
    #[inline]
    pub(super) fn read(bytes: &[u8], at: usize) -> Option<Decoded<Version>> {
        let rest = bytes.get(at..).unwrap_or_default();
        match rest.first_chunk::<{ Version::BYTES }>() {
            Some(b"HTTP/1.1") => Some(Decoded::Complete(Version::Http11)),
            Some(b"HTTP/1.0") => Some(Decoded::Complete(Version::Http10)),
            None if b"HTTP/1.".starts_with(rest) => Some(Decoded::Incomplete),
            _ => None,
        }
    }
}

/// The methods that something here depends on. They are case-sensitive: `get`
/// is [`Method::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`: the response has no body whatever its fields say.
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// `TRACE`
    Trace,
    /// `PATCH`
    Patch,
    /// `CONNECT`: decoded, so that it can be answered (405).
    Connect,
    /// Any other token; its text is in the head.
    #[default]
    Other,
}

impl Method {
    /// The method that this token names.
    pub fn of(token: &[u8]) -> Method {
        match token {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            b"CONNECT" => Method::Connect,
            _ => Method::Other,
        }
    }

    /// Whether sending the request twice does no more than sending it once
    /// (RFC 9110 §9.2.2), so that it may be retried on another server.
    pub fn is_idempotent(self) -> bool {
        matches!(
            self,
            Method::Get
                | Method::Head
                | Method::Options
                | Method::Trace
                | Method::Put
                | Method::Delete
        )
    }
}

/// How the body after a head is delimited, RFC 9112 §6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Body {
    /// No body follows.
    #[default]
    None,
    /// That many bytes; 0 when `Content-Length: 0` was said.
    Length(u64),
    /// Chunks, for [`super::ChunkedDecoder`].
    Chunked,
    /// Everything until the connection ends. Responses only.
    UntilClose,
}

/// What a head may cost before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, blank line included.
    pub head_bytes: usize,
    /// Number of field lines.
    pub headers: usize,
    /// Bytes of the request target; not looked at in responses.
    pub uri_bytes: usize,
}

impl HeadLimits {
    /// The defaults for requests: 32 KiB, 128 fields, 8 KiB of target.
    pub const REQUEST: HeadLimits = HeadLimits {
        head_bytes: 32 << 10,
        headers: 128,
        uri_bytes: 8 << 10,
    };
    /// The defaults for responses: 64 KiB, 256 fields.
    pub const RESPONSE: HeadLimits = HeadLimits {
        head_bytes: 64 << 10,
        headers: 256,
        uri_bytes: 0,
    };

    /// `head_bytes`, within what a [`Span`] can address.
    pub(super) fn head_bytes_addressable(&self) -> usize {
        self.head_bytes.min(u32::MAX as usize / 2)
    }
}

/// Whether there was enough input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<T> {
    /// All of it is here.
    Complete(T),
    /// Nothing is wrong so far; call again with the same bytes and more.
    Incomplete,
}

/// What may be wrong with the fields of either kind of head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFault {
    /// The head is longer than `HeadLimits::head_bytes`.
    TooLarge,
    /// There are more fields than `HeadLimits::headers`.
    TooManyFields,
    /// A line that does not end with CR LF, or one of the two alone.
    LineEnd,
    /// A field name that is no token: a blank before the colon, a folded line,
    /// a control byte.
    FieldName,
    /// A control byte in a field's value.
    FieldValue,
    /// A name that some parsers take for `Content-Length` or
    /// `Transfer-Encoding`, such as `Content_Length`.
    FramingLookAlike,
    /// More than one `Content-Length`, alike or not.
    ManyLengths,
    /// A `Content-Length` that is not plain digits, or that overflows.
    BadLength,
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndCoding,
    /// `Transfer-Encoding` in HTTP/1.0, where it means nothing.
    CodingInHttp10,
    /// A `Transfer-Encoding` that does not end with one `chunked`, is repeated,
    /// or is no list of tokens.
    BadCoding,
    /// A transfer coding other than `chunked`.
    UnknownCoding,
}

impl HeadFault {
    /// A few words for the log and the client.
    pub fn text(self) -> &'static str {
        match self {
            HeadFault::TooLarge => "the head is too large",
            HeadFault::TooManyFields => "too many header fields",
            HeadFault::LineEnd => "a line does not end with CR LF",
            HeadFault::FieldName => "a header name holds a blank or another invalid byte",
            HeadFault::FieldValue => "a header value holds a control byte",
            HeadFault::FramingLookAlike => {
                "a header name looks like Content-Length or Transfer-Encoding but is not"
            }
            HeadFault::ManyLengths => "more than one Content-Length",
            HeadFault::BadLength => "Content-Length is not a number of bytes",
            HeadFault::LengthAndCoding => "both Content-Length and Transfer-Encoding",
            HeadFault::CodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            HeadFault::BadCoding => "Transfer-Encoding is not exactly chunked",
            HeadFault::UnknownCoding => "a transfer coding other than chunked",
        }
    }
}

impl fmt::Display for HeadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

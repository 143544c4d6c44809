//! A response of HTTP/2 as a head of HTTP/1.1.
//!
//! ```text
//! :status          RFC 9113 §8.3.2
//! ```
//!
//! The decoder of HTTP/1 judges the head once more: lengths above all are its part.

use std::fmt;

use super::request::{Body, RequestFault, judge};
use crate::http1::{Known, Method, encode};

/// What of a request its response has to be read with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked<'a> {
    /// The request's method.
    pub method: Method,
    /// Trailers say how it ended, as gRPC's do: a length is kept from who asks, since nothing follows a body of known
    /// length. So it is where the response announces trailers.
    pub trailers: bool,
    /// The protocol of an extended CONNECT (RFC 8441).
    pub protocol: Option<&'a [u8]>,
    /// `Sec-WebSocket-Accept` of its answer.
    pub accept: Option<&'a [u8]>,
}

/// Why a response is malformed (RFC 9113 §8.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFault {
    /// A status that no response of HTTP/2 has: 101 (RFC 9113 §8.6), or one that is no status.
    Status,
    /// A field, by what is wrong with it.
    Field(RequestFault),
    /// A length that the stream's end belies, or two of them.
    Length,
}

impl From<RequestFault> for ResponseFault {
    fn from(fault: RequestFault) -> Self {
        Self::Field(fault)
    }
}

impl fmt::Display for ResponseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status => f.write_str(":status is not one of HTTP/2"),
            Self::Field(fault) => fault.fmt(f),
            Self::Length => f.write_str("content-length without a body of that length"),
        }
    }
}

impl std::error::Error for ResponseFault {}

/// Writes an interim response (1xx) as HTTP/1.1 has it, to the end of `out`.
///
/// # Errors
/// See [`ResponseFault`].
pub fn encode_interim<'f>(
    out: &mut Vec<u8>,
    status: u16,
    fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
) -> Result<(), ResponseFault> {
    if !(100..200).contains(&status) || status == 101 {
        return Err(ResponseFault::Status);
    }
    encode::status_line(out, status, b"");
    for (name, value) in fields {
        if judge(name, value)? != Known::ContentLength {
            encode::field(out, name, value);
        }
    }
    out.extend_from_slice(encode::CRLF);
    Ok(())
}

/// Writes a final response's head as HTTP/1.1 has it, to the end of `out`; says how its body is to follow. Success of an
/// extended CONNECT becomes a 101. `ended`: the stream ended with the head.
///
/// # Errors
/// See [`ResponseFault`]. What was written until then means nothing.
pub fn encode_response<'f>(
    out: &mut Vec<u8>,
    status: u16,
    fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
    asked: &Asked<'_>,
    ended: bool,
) -> Result<Body, ResponseFault> {
    if !(200..1000).contains(&status) {
        return Err(ResponseFault::Status);
    }
    if let Some(protocol) = asked.protocol
        && status < 300
    {
        switch(out, protocol, fields, asked.accept)?;
        return Ok(Body::Tunnel);
    }
    let bare = asked.method == Method::Head || status == 204 || status == 304;
    encode::status_line(out, status, b"");
    let mut length = None;
    let mut trailers = asked.trailers;
    for (name, value) in fields {
        match judge(name, value)? {
            Known::ContentLength if length.replace(value).is_some() => {
                return Err(ResponseFault::Length);
            }
            Known::ContentLength => continue,
            Known::Trailer => trailers = true,
            _ => {}
        }
        encode::field(out, name, value);
    }
    let body = match length {
        Some(length) if ended && !bare && length.iter().any(|digit| *digit != b'0') => {
            return Err(ResponseFault::Length);
        }
        None if ended && !bare => {
            encode::content_length(out, 0);
            Body::None
        }
        Some(length) if bare || ended || !trailers => {
            encode::field(out, b"content-length", length);
            if bare || ended {
                Body::None
            } else {
                Body::Length
            }
        }
        _ if bare => Body::None,
        _ => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Body::Chunked
        }
    };
    out.extend_from_slice(encode::CRLF);
    Ok(body)
}

/// The answer to an upgrade.
fn switch<'f>(
    out: &mut Vec<u8>,
    protocol: &[u8],
    fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
    accept: Option<&[u8]>,
) -> Result<(), ResponseFault> {
    encode::status_line(out, 101, b"");
    for (name, value) in fields {
        let known = judge(name, value)?;
        if known != Known::ContentLength && !name.eq_ignore_ascii_case(b"sec-websocket-accept") {
            encode::field(out, name, value);
        }
    }
    out.extend_from_slice(b"connection: upgrade\r\n");
    encode::field(out, b"upgrade", protocol);
    if let Some(accept) = accept {
        encode::field(out, b"sec-websocket-accept", accept);
    }
    out.extend_from_slice(encode::CRLF);
    Ok(())
}

#[cfg(test)]
mod tests;

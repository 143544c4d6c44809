//! A request of HTTP/2 as a head of HTTP/1.1.
//!
//! ```text
//! :method :scheme :authority :path          RFC 9113 §8.3.1
//! :protocol                                 RFC 8441 §4
//! ```
//!
//! What two readers could take in two ways is refused, so that the head that comes out means what the frames meant. The
//! decoder of HTTP/1 judges it once more, as it judges every head: lengths, sizes and the target are its part.

use std::fmt;

use crate::http1::{Known, KnownSet, encode, is_field_value, is_host, is_token};

/// The pseudo-header fields of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pseudo<'a> {
    /// `:method`
    pub method: &'a [u8],
    /// `:scheme`; none where the frames' decoder drops it.
    pub scheme: Option<&'a [u8]>,
    /// `:authority`
    pub authority: Option<&'a [u8]>,
    /// `:path`
    pub path: Option<&'a [u8]>,
    /// `:protocol` of an extended CONNECT.
    pub protocol: Option<&'a [u8]>,
}

/// What follows the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// The stream ended with the head.
    None,
    /// As many bytes as `content-length` says.
    Length,
    /// Nobody knows how much: chunks.
    Chunked,
    /// Bytes of a tunnel, if the server agrees.
    Tunnel,
}

/// Why a request is malformed (RFC 9113 §8.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFault {
    /// `:method` is no token.
    Method,
    /// `:scheme` is neither `http` nor `https`.
    Scheme,
    /// `:path` is missing, empty, or holds what no path may; or CONNECT has one.
    Path,
    /// `:authority` is no host and port.
    Authority,
    /// `Host` names another host than `:authority`, or comes twice.
    Host,
    /// `:protocol` is no token, or stands where it may not.
    Protocol,
    /// A name is no token, or not in lower case.
    FieldName,
    /// A value holds a byte that it may not, or a blank at its end.
    FieldValue,
    /// A field that only means something to one connection of HTTP/1.
    ConnectionField,
    /// `te` with anything but `trailers`.
    Te,
    /// A length that the stream's end belies.
    Length,
}

impl RequestFault {
    /// Whether it is about where the request ends, not about what it says.
    pub fn is_framing(self) -> bool {
        matches!(self, Self::Length | Self::ConnectionField)
    }
}

impl fmt::Display for RequestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => ":method is no method",
            Self::Scheme => ":scheme is neither http nor https",
            Self::Path => ":path is missing or malformed",
            Self::Authority => ":authority is not a host and port",
            Self::Host => "Host and :authority name different hosts",
            Self::Protocol => ":protocol is malformed or out of place",
            Self::FieldName => "a field name is malformed or not in lower case",
            Self::FieldValue => "a field value holds a byte that it may not",
            Self::ConnectionField => "a field of HTTP/1 connections in HTTP/2",
            Self::Te => "te with anything but trailers",
            Self::Length => "content-length without a body of that length",
        })
    }
}

impl std::error::Error for RequestFault {}

/// Fields of HTTP/1 connections (RFC 9113 §8.2.2).
const OF_CONNECTION: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
]);

/// Whether a field may stand in a message of HTTP/2. Neither may what `Connection` names.
#[inline]
pub fn passes(known: Known) -> bool {
    !OF_CONNECTION.contains(known)
}

/// Writes a request's head as HTTP/1.1 has it, to the end of `out`; says how its body is to follow. An extended CONNECT
/// becomes a GET with `Upgrade`, its WebSocket key aside. Cookies become one field (RFC 9113 §8.2.3). A body that says its
/// length and announces trailers comes in chunks without the length, since these alone have a place for them. `ended`: the
/// stream ended with the head. `fields` gives its fields each time that it is asked.
///
/// # Errors
/// See [`RequestFault`]. What was written until then means nothing.
pub fn encode_request<'f, I: Iterator<Item = (&'f [u8], &'f [u8])>>(
    out: &mut Vec<u8>,
    pseudo: &Pseudo<'_>,
    fields: impl Fn() -> I,
    ended: bool,
) -> Result<Body, RequestFault> {
    let said = Said::read(fields())?;
    let authority = authority(pseudo, said.host)?;
    request_line(out, pseudo)?;
    if let Some(authority) = authority {
        encode::field(out, b"host", authority);
    }
    let in_chunks = !ended && pseudo.protocol.is_none() && said.announces_trailers();
    for (name, value) in fields() {
        match Known::of(name) {
            Known::Host | Known::Cookie => {}
            Known::ContentLength if in_chunks => {}
            _ => encode::field(out, name, value),
        }
    }
    if said.cookies {
        cookies(out, fields());
    }
    let body = match (pseudo.protocol, said.length, ended) {
        (Some(protocol), None, _) => {
            out.extend_from_slice(b"connection: upgrade\r\n");
            encode::field(out, b"upgrade", protocol);
            Body::Tunnel
        }
        (Some(_), Some(_), _) => return Err(RequestFault::Length),
        (None, Some(length), true) if length.iter().any(|digit| *digit != b'0') => {
            return Err(RequestFault::Length);
        }
        (None, _, true) => Body::None,
        (None, Some(_), false) if !in_chunks => Body::Length,
        // What follows CONNECT is no body; it is refused in any case.
        (None, None, false) if pseudo.method == b"CONNECT" => Body::None,
        (None, _, false) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Body::Chunked
        }
    };
    if body != Body::Tunnel {
        out.extend_from_slice(encode::CRLF);
    }
    Ok(body)
}

/// Writes trailer fields as lines of HTTP/1.1, without the empty one after them.
///
/// # Errors
/// See [`RequestFault`].
pub fn encode_trailers<'f>(
    out: &mut Vec<u8>,
    fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
) -> Result<(), RequestFault> {
    for (name, value) in fields {
        judge(name, value)?;
        encode::field(out, name, value);
    }
    Ok(())
}

/// What the fields say that must be known before a byte is written.
#[derive(Default)]
struct Said<'f> {
    host: Option<&'f [u8]>,
    length: Option<&'f [u8]>,
    /// Whether there is more than one length.
    lengths: bool,
    cookies: bool,
    /// Whether `trailer` names fields that follow the body.
    trailers: bool,
}

impl<'f> Said<'f> {
    fn read(fields: impl Iterator<Item = (&'f [u8], &'f [u8])>) -> Result<Self, RequestFault> {
        let mut said = Self::default();
        for (name, value) in fields {
            match judge(name, value)? {
                Known::Host if said.host.is_some() => return Err(RequestFault::Host),
                Known::Host => said.host = Some(value),
                Known::ContentLength => said.lengths |= said.length.replace(value).is_some(),
                Known::Cookie => said.cookies = true,
                Known::Trailer => said.trailers = true,
                _ => {}
            }
        }
        Ok(said)
    }

    /// Whether trailers are to follow a body of a length that is one. Any other length stays, to be refused as one of
    /// HTTP/1 is.
    fn announces_trailers(&self) -> bool {
        let is_length = |length: &[u8]| !length.is_empty() && length.iter().all(u8::is_ascii_digit);
        self.trailers && !self.lengths && self.length.is_some_and(is_length)
    }
}

pub(super) fn judge(name: &[u8], value: &[u8]) -> Result<Known, RequestFault> {
    if !is_token(name) || name.iter().any(u8::is_ascii_uppercase) {
        return Err(RequestFault::FieldName);
    }
    if !is_field_value(value) {
        return Err(RequestFault::FieldValue);
    }
    let known = Known::of(name);
    if !passes(known) {
        return Err(RequestFault::ConnectionField);
    }
    if known == Known::Te && !value.eq_ignore_ascii_case(b"trailers") {
        return Err(RequestFault::Te);
    }
    Ok(known)
}

/// The one host that is asked for (RFC 9113 §8.3.1).
fn authority<'b>(
    pseudo: &Pseudo<'b>,
    host: Option<&'b [u8]>,
) -> Result<Option<&'b [u8]>, RequestFault> {
    if let Some(authority) = pseudo.authority
        && !is_host(authority)
    {
        return Err(RequestFault::Authority);
    }
    match (pseudo.authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err(RequestFault::Host)
        }
        (authority, host) => Ok(authority.or(host)),
    }
}

fn request_line(out: &mut Vec<u8>, pseudo: &Pseudo<'_>) -> Result<(), RequestFault> {
    let Pseudo {
        method,
        scheme,
        authority,
        path,
        protocol,
    } = *pseudo;
    if !is_token(method) {
        return Err(RequestFault::Method);
    }
    let known_scheme = |scheme: &[u8]| {
        scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https")
    };
    if !scheme.is_none_or(known_scheme) {
        return Err(RequestFault::Scheme);
    }
    let (method, target) = match (method == b"CONNECT", protocol) {
        (true, None) => {
            if path.is_some() || scheme.is_some() {
                return Err(RequestFault::Path);
            }
            (method, authority.ok_or(RequestFault::Authority)?)
        }
        (true, Some(protocol)) if is_token(protocol) => {
            authority.ok_or(RequestFault::Authority)?;
            (&b"GET"[..], path.ok_or(RequestFault::Path)?)
        }
        (_, Some(_)) => return Err(RequestFault::Protocol),
        (false, None) => (method, path.ok_or(RequestFault::Path)?),
    };
    let of_options = target == b"*" && method == b"OPTIONS";
    if method != b"CONNECT" && !target.starts_with(b"/") && !of_options {
        return Err(RequestFault::Path);
    }
    if !target
        .iter()
        .all(|byte| byte.is_ascii_graphic() && *byte != b'#')
    {
        return Err(RequestFault::Path);
    }
    encode::request_line(out, method, target);
    Ok(())
}

fn cookies<'f>(out: &mut Vec<u8>, fields: impl Iterator<Item = (&'f [u8], &'f [u8])>) {
    let mut before: &[u8] = b"cookie: ";
    for (name, value) in fields {
        if Known::of(name) == Known::Cookie {
            out.extend_from_slice(before);
            out.extend_from_slice(value);
            before = b"; ";
        }
    }
    out.extend_from_slice(encode::CRLF);
}

#[cfg(test)]
mod tests;

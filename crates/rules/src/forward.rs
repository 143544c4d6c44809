//! Whom to believe about the client, and what servers are told about it.
//!
//! | field | from an untrusted peer | from a trusted one |
//! | --- | --- | --- |
//! | `X-Forwarded-For` | replaced by the peer | the peer is appended |
//! | `X-Forwarded-Proto`, `-Host` | replaced | kept, or set when absent |
//! | `X-Request-ID` | replaced by a new one | kept if valid and alone, else replaced |
//! | `X-Real-IP` | removed | kept |
//! | `Forwarded`, `Via` | replaced, or removed when off | appended to, or kept when off |
//!
//! With `x_forwarded` off the first two lines set nothing: untrusted ones are removed, trusted ones
//! pass. It makes no request ids, and does not know the names of servers.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use wire::http1::{Known, KnownSet, RequestHead, Span};

use crate::Cidr;

/// Longest request id that is kept, bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// What a listener tells servers about the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// `X-Forwarded-For`, `-Proto` and `-Host`.
    pub x_forwarded: bool,
    /// `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// `Via` (RFC 9110 §7.6.3).
    pub via: bool,
    /// `X-Request-ID`.
    pub request_id: RequestId,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            x_forwarded: true,
            forwarded: false,
            via: false,
            request_id: RequestId::Keep,
        }
    }
}

/// What happens to `X-Request-ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestId {
    /// A valid one of a trusted peer is kept, else a new one is made.
    Keep,
    /// Always a new one.
    Replace,
    /// None is sent.
    Off,
}

/// The values of every field that is `known`, in order.
pub fn values<'a>(
    head: &'a RequestHead,
    bytes: &'a [u8],
    known: Known,
) -> impl DoubleEndedIterator<Item = &'a [u8]> {
    head.fields
        .iter()
        .filter(move |field| field.known == known)
        .map(|field| field.value.of(bytes))
}

/// Whether `peer` is one of the trusted proxies.
pub fn is_trusted(peer: IpAddr, trusted: &[Cidr]) -> bool {
    trusted.iter().any(|range| range.contains(peer))
}

/// Whether a trusted proxy says that the client came to it by HTTPS.
pub fn tells_https(head: &RequestHead, bytes: &[u8]) -> bool {
    head.present.contains(Known::XForwardedProto)
        && values(head, bytes, Known::XForwardedProto)
            .next()
            .and_then(|value| value.split(|byte| *byte == b',').next())
            .is_some_and(|first| first.trim_ascii().eq_ignore_ascii_case(b"https"))
}

/// The client's address: `peer` itself, or, if it is trusted, the rightmost untrusted address of
/// the `X-Forwarded-For` values (the leftmost when all are trusted).
///
/// Reading from the right, what is no address ends it: nothing left of it can be believed, and the
/// last address before it counts.
pub fn source<'a>(
    peer: IpAddr,
    trusted: &[Cidr],
    values: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> IpAddr {
    let mut source = peer.to_canonical();
    let addresses = values
        .rev()
        .flat_map(|value| value.rsplit(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        // Empty elements of a list count for nothing (RFC 9110 §5.6.1.2).
        .filter(|element| !element.is_empty());
    for element in addresses {
        if !is_trusted(source, trusted) {
            break;
        }
        match address(element) {
            Some(address) => source = address,
            None => break,
        }
    }
    source
}

/// An address as proxies write it: with a port or without, IPv6 in brackets or bare.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        is_port(port).then_some(())?;
        IpAddr::V6(address.parse().ok()?)
    } else if let Some((address, port)) = text.split_once(':')
        && !port.contains(':')
    {
        port.parse::<u16>().ok()?;
        IpAddr::V4(address.parse().ok()?)
    } else {
        text.parse().ok()?
    };
    Some(address.to_canonical())
}

fn is_port(text: &str) -> bool {
    text.is_empty()
        || text
            .strip_prefix(':')
            .is_some_and(|digits| digits.parse::<u16>().is_ok())
}

/// Whether a request id may be kept: 1-128 of `[A-Za-z0-9._-]`.
pub fn is_request_id(value: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&value.len())
        && value
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// What becomes of the forwarding fields of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Incoming fields that are not copied.
    pub drop: KnownSet,
    /// Where the request's id comes from.
    pub request_id: IdFrom,
    /// Fields that [`Plan::encode`] writes.
    add: KnownSet,
    /// Whether incoming values come before our own.
    append: bool,
}

/// Where a request's id comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdFrom {
    /// The field with this value is copied like any other.
    Incoming(Span),
    /// The caller makes one, for [`Hop::request_id`].
    New,
    /// Servers are told none.
    Nowhere,
}

/// What this hop knows about a request.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The other end of the client's connection.
    pub peer: IpAddr,
    /// Whether that connection is encrypted.
    pub secure: bool,
    /// The version that the client spoke, as `Via` names it: `1.0`, `1.1` or `2.0`.
    pub version: &'static str,
    /// Host and port as the client wrote them; may be empty (HTTP/1.0).
    pub authority: &'a [u8],
    /// Made by the caller if [`Plan::request_id`] says [`IdFrom::New`].
    pub request_id: &'a [u8],
}

/// Who we are in `Via`.
const VIA_NAME: &str = "evenkeel";

impl Plan {
    /// Decides by the options, by whether the peer is trusted, and by what came in.
    pub fn new(options: &Options, trusted: bool, head: &RequestHead, bytes: &[u8]) -> Plan {
        let mut plan = Plan {
            drop: KnownSet::default(),
            request_id: IdFrom::Nowhere,
            add: KnownSet::default(),
            append: trusted,
        };
        plan.list(Known::XForwardedFor, options.x_forwarded, trusted);
        plan.single(Known::XForwardedProto, options.x_forwarded, trusted, head);
        plan.single(Known::XForwardedHost, options.x_forwarded, trusted, head);
        plan.list(Known::Forwarded, options.forwarded, trusted);
        plan.list(Known::Via, options.via, trusted);
        if !trusted {
            plan.drop.insert(Known::XRealIp);
        }
        plan.id(options.request_id, trusted, head, bytes);
        plan
    }

    /// A list that each hop appends to. What is appended to is written anew, hence dropped.
    fn list(&mut self, known: Known, on: bool, trusted: bool) {
        if on {
            self.add.insert(known);
        }
        if on || !trusted {
            self.drop.insert(known);
        }
    }

    /// A field that the first trusted hop sets.
    fn single(&mut self, known: Known, on: bool, trusted: bool, head: &RequestHead) {
        if !trusted {
            self.drop.insert(known);
        }
        if on && !(trusted && head.present.contains(known)) {
            self.add.insert(known);
        }
    }

    fn id(&mut self, option: RequestId, trusted: bool, head: &RequestHead, bytes: &[u8]) {
        let mut incoming = head
            .fields
            .iter()
            .filter(|field| field.known == Known::XRequestId);
        if option == RequestId::Keep
            && trusted
            && let (Some(field), None) = (incoming.next(), incoming.next())
            && is_request_id(field.value.of(bytes))
        {
            self.request_id = IdFrom::Incoming(field.value);
            return;
        }
        self.drop.insert(Known::XRequestId);
        if option != RequestId::Off {
            self.request_id = IdFrom::New;
            self.add.insert(Known::XRequestId);
        }
    }

    /// Whether [`Plan::encode`] writes this field.
    pub fn adds(&self, known: Known) -> bool {
        self.add.contains(known)
    }

    /// Appends the new field lines to `out`. `head` and `bytes` are those that the plan was made for.
    pub fn encode(&self, hop: &Hop<'_>, head: &RequestHead, bytes: &[u8], out: &mut Vec<u8>) {
        let list = |name: &[u8], known: Known, out: &mut Vec<u8>| {
            out.extend_from_slice(name);
            if self.append && head.present.contains(known) {
                for value in values(head, bytes, known).filter(|value| !value.is_empty()) {
                    out.extend_from_slice(value);
                    out.extend_from_slice(b", ");
                }
            }
        };
        if self.adds(Known::XForwardedFor) {
            list(b"X-Forwarded-For: ", Known::XForwardedFor, out);
            push_address(hop.peer, out);
            out.extend_from_slice(b"\r\n");
        }
        if self.adds(Known::XForwardedProto) {
            push_field(b"X-Forwarded-Proto: ", hop.proto(), out);
        }
        if self.adds(Known::XForwardedHost) && !hop.authority.is_empty() {
            push_field(b"X-Forwarded-Host: ", hop.authority, out);
        }
        if self.adds(Known::XRequestId) && !hop.request_id.is_empty() {
            push_field(b"X-Request-ID: ", hop.request_id, out);
        }
        if self.adds(Known::Forwarded) {
            list(b"Forwarded: ", Known::Forwarded, out);
            push_forwarded(hop, out);
            out.extend_from_slice(b"\r\n");
        }
        if self.adds(Known::Via) {
            list(b"Via: ", Known::Via, out);
            out.extend_from_slice(hop.version.as_bytes());
            push_field(b" ", VIA_NAME.as_bytes(), out);
        }
    }
}

impl Hop<'_> {
    fn proto(&self) -> &'static [u8] {
        if self.secure { b"https" } else { b"http" }
    }
}

#[inline(always)]
fn push_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// One element of RFC 7239 §4. An IPv6 address stands in brackets and quotes (§6).
fn push_forwarded(hop: &Hop<'_>, out: &mut Vec<u8>) {
    match hop.peer.to_canonical() {
        IpAddr::V4(address) => {
            out.extend_from_slice(b"for=");
            push_ipv4(address, out);
        }
        IpAddr::V6(address) => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "for=\"[{address}]\"");
        }
    }
    // What does not need escaping in quotes; an authority that was checked holds nothing else.
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if !hop.authority.is_empty() && hop.authority.iter().all(is_plain) {
        out.extend_from_slice(b";host=\"");
        out.extend_from_slice(hop.authority);
        out.push(b'"');
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(hop.proto());
}

/// As text, without going through a formatter for the common case.
fn push_address(address: IpAddr, out: &mut Vec<u8>) {
    match address.to_canonical() {
        IpAddr::V4(address) => push_ipv4(address, out),
        IpAddr::V6(address) => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{address}");
        }
    }
}

fn push_ipv4(address: Ipv4Addr, out: &mut Vec<u8>) {
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        if octet >= 100 {
            out.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            out.push(b'0' + octet / 10 % 10);
        }
        out.push(b'0' + octet % 10);
    }
}

#[cfg(test)]
mod tests;

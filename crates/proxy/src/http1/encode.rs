//! Heads as the other side gets them. Header bytes are touched once: runs of fields that go on are copied whole.

use rules::forward::{Hop, Plan};
use rules::{Edits, On};
use wire::grpc::Dialect;
use wire::http1::{
    Body, Field, Known, KnownSet, RequestHead, ResponseHead, Version, encode, named_by_connection,
    reason_phrase,
};

/// What the server's head is made of, besides the client's own.
pub(super) struct RequestParts<'a> {
    pub(super) path: &'a [u8],
    pub(super) query: Option<&'a [u8]>,
    /// The authority of an absolute target: it replaces `Host`.
    pub(super) authority: Option<&'a [u8]>,
    pub(super) plan: &'a Plan,
    pub(super) hop: &'a Hop<'a>,
    /// The protocol that the listener lets this request upgrade to.
    pub(super) upgrade: Option<&'a [u8]>,
    /// Lines that tell the server that trailers are welcome; empty where it is not told.
    pub(super) trailers: &'a [u8],
    pub(super) edits: &'a Edits,
    /// A cookie that the server is not to see, and that is there.
    pub(super) hidden_cookie: Option<&'a [u8]>,
}

/// Writes the head that the server gets.
pub(super) fn request(
    out: &mut Vec<u8>,
    head: &RequestHead,
    bytes: &[u8],
    parts: &RequestParts<'_>,
) {
    out.clear();
    out.extend_from_slice(head.method_text.of(bytes));
    out.push(b' ');
    out.extend_from_slice(parts.edits.path().unwrap_or(parts.path));
    if let Some(query) = parts.query {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    let nameless = is_nameless(head, parts.authority, parts.edits);
    out.extend_from_slice(if nameless {
        b" HTTP/1.0\r\nConnection: close\r\n"
    } else {
        b" HTTP/1.1\r\n"
    });
    if let Some(authority) = parts.authority
        && parts.edits.field(On::Request, b"host").is_none()
    {
        encode::field(out, b"Host", authority);
    }
    let mut drop = KnownSet(KnownSet::HOP_BY_HOP.0 | parts.plan.drop.0);
    if parts.authority.is_some() {
        drop.insert(Known::Host);
    }
    let hidden_cookie = parts
        .hidden_cookie
        .filter(|_| parts.edits.field(On::Request, b"cookie").is_none());
    if hidden_cookie.is_some() {
        drop.insert(Known::Cookie);
    }
    copy_fields(
        out,
        &head.fields,
        bytes,
        head.len,
        drop,
        head.connection_names,
        parts.edits,
        On::Request,
    );
    if let Some(hidden) = hidden_cookie {
        other_cookies(out, head, bytes, hidden);
    }
    forwarding(out, head, bytes, parts);
    write_edits(out, parts.edits, On::Request);
    if head.body == Body::Chunked || is_decoded(head.body, parts.edits) {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    out.extend_from_slice(parts.trailers);
    if let Some(upgrade) = parts.upgrade {
        out.extend_from_slice(b"Connection: upgrade\r\n");
        encode::field(out, b"Upgrade", upgrade);
    }
    out.extend_from_slice(encode::CRLF);
}

/// Whether the server gets not the body's own bytes, but what they stand for, in chunks.
pub(super) fn is_decoded(body: Body, edits: &Edits) -> bool {
    edits.web() == Some(Dialect::WebText) && body != Body::None
}

/// Writes the cookies that are not called `hidden`.
fn other_cookies(out: &mut Vec<u8>, head: &RequestHead, bytes: &[u8], hidden: &[u8]) {
    for field in head
        .fields
        .iter()
        .filter(|field| field.known == Known::Cookie)
    {
        let before = out.len();
        out.extend_from_slice(b"Cookie: ");
        if rules::without_cookie(field.value.of(bytes), hidden, out) {
            out.extend_from_slice(encode::CRLF);
        } else {
            out.truncate(before);
        }
    }
}

/// Whether nobody says which host is meant, as HTTP/1.0 allows: the server must then get HTTP/1.0 too, since HTTP/1.1
/// without `Host` is refused (RFC 9112 §3.2).
pub(super) fn is_nameless(head: &RequestHead, authority: Option<&[u8]>, edits: &Edits) -> bool {
    head.host.is_none() && authority.is_none() && edits.field(On::Request, b"host").is_none()
}

/// Writes what the server is told of the client, except where a filter of the route sets the same field.
fn forwarding(out: &mut Vec<u8>, head: &RequestHead, bytes: &[u8], parts: &RequestParts<'_>) {
    if parts.edits.is_empty() {
        parts.plan.encode(parts.hop, head, bytes, out);
        return;
    }
    let mut lines = Vec::new();
    parts.plan.encode(parts.hop, head, bytes, &mut lines);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if parts.edits.field(On::Request, name).is_none() {
            out.extend_from_slice(line);
        }
    }
}

/// An answer that names the protocols by which the request would be served.
const UPGRADE_REQUIRED: u16 = 426;

/// How the client's connection goes on after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Keep,
    Close,
    /// 101: the connection is a tunnel.
    Upgrade,
    /// 1xx: nothing is said about the connection.
    Interim,
}

/// What the client's head is made of, besides the server's own.
pub(super) struct ResponseParts<'a> {
    /// The client's.
    pub(super) version: Version,
    pub(super) edits: &'a Edits,
    /// Lines by which the client is bound to a server; empty as a rule.
    pub(super) binding: &'a [u8],
}

/// Writes the head that the client gets.
pub(super) fn response(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    bytes: &[u8],
    chunked: bool,
    after: After,
    parts: &ResponseParts<'_>,
) {
    let &ResponseParts {
        version,
        edits,
        binding,
    } = parts;
    out.clear();
    let reason = head.reason.of(bytes);
    let reason = if reason.is_empty() {
        reason_phrase(head.status).as_bytes()
    } else {
        reason
    };
    encode::status_line(out, head.status, reason);
    let mut drop = KnownSet::HOP_BY_HOP;
    if head.status < 200 || head.status == 204 {
        // RFC 9110 §8.6: no length where there can be no content.
        drop.insert(Known::ContentLength);
    }
    copy_fields(
        out,
        &head.fields,
        bytes,
        head.len,
        drop,
        head.connection_names,
        edits,
        On::Response,
    );
    if after != After::Interim {
        write_edits(out, edits, On::Response);
        out.extend_from_slice(binding);
    }
    if chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    match after {
        After::Keep => connection(out, version, true),
        After::Close => connection(out, version, false),
        After::Interim | After::Upgrade => {}
    }
    // The protocol that is spoken from now on, or those that would do (RFC 9110 §15.5.22).
    if (after == After::Upgrade || head.status == UPGRADE_REQUIRED)
        && let Some(upgrade) = head.upgrade
    {
        out.extend_from_slice(b"Connection: upgrade\r\n");
        encode::field(out, b"Upgrade", upgrade.of(bytes));
    }
    out.extend_from_slice(encode::CRLF);
}

/// Says what the version does not say by itself.
pub(super) fn connection(out: &mut Vec<u8>, version: Version, keep: bool) {
    match (version, keep) {
        (Version::Http11, true) | (Version::Http10, false) => {}
        (Version::Http11, false) => out.extend_from_slice(b"Connection: close\r\n"),
        (Version::Http10, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one inner loop for both directions; a struct would only rename them"
)]
fn copy_fields(
    out: &mut Vec<u8>,
    fields: &[Field],
    bytes: &[u8],
    head_len: usize,
    drop: KnownSet,
    connection_names: bool,
    edits: &Edits,
    on: On,
) {
    let edited = !edits.is_empty();
    let mut run: Option<usize> = None;
    for field in fields {
        let start = field.name.start as usize;
        let drops = drop.contains(field.known)
            || (connection_names && named_by_connection(fields, bytes, field.name.of(bytes)))
            || (edited && edits.field(on, field.name.of(bytes)).is_some());
        match (drops, run) {
            (false, None) => run = Some(start),
            // A field ends where the next one begins.
            (true, Some(from)) => {
                out.extend_from_slice(bytes.get(from..start).unwrap_or_default());
                run = None;
            }
            _ => {}
        }
    }
    if let Some(from) = run {
        // The blank line of the head is left out.
        out.extend_from_slice(
            bytes
                .get(from..head_len.saturating_sub(2))
                .unwrap_or_default(),
        );
    }
}

fn write_edits(out: &mut Vec<u8>, edits: &Edits, on: On) {
    for edit in edits.fields(on) {
        if let Some(value) = edit.value {
            encode::field(out, edit.name, value);
        }
    }
}

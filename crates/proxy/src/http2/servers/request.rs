//! A request as an exchange writes it for HTTP/1.1, as HTTP/2 says it (RFC 9113 §8.3.1).

use bytes::Bytes;
use h2::ext::Protocol;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use wire::http1::{
    Body, Decoded, HeadLimits, Known, Method, RequestHead, decode_request, named_by_connection,
};
use wire::http2::passes;

use super::super::websocket;

/// The head was written here, within the bounds of a listener, which are the user's.
const LIMITS: HeadLimits = HeadLimits {
    head_bytes: 64 << 20,
    headers: 65_536,
    uri_bytes: 64 << 20,
};

/// A request for a server that speaks HTTP/2, and what its response is read with.
pub(super) struct Asked {
    pub(super) request: http::Request<()>,
    pub(super) method: Method,
    /// How its body follows.
    pub(super) body: Body,
    /// Trailers say how it ended.
    pub(super) grpc: bool,
    pub(super) upgrade: Option<Upgrade>,
}

/// A protocol to change to, by an extended CONNECT (RFC 8441).
pub(super) struct Upgrade {
    pub(super) protocol: Vec<u8>,
    /// What answers its `Sec-WebSocket-Key`.
    pub(super) accept: Option<Vec<u8>>,
}

/// Says in HTTP/2 what the head at the start of `bytes` says; also how many bytes that is. `None`: it is not there
/// whole. `scratch` is for the decoder.
///
/// # Errors
/// What of it cannot be said in HTTP/2.
pub(super) fn translate(
    bytes: &[u8],
    secure: bool,
    scratch: &mut RequestHead,
) -> Result<Option<(Asked, usize)>, String> {
    match decode_request(bytes, &LIMITS, scratch) {
        Ok(Decoded::Complete(())) => {}
        Ok(Decoded::Incomplete) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    }
    // Names and values are slices of one copy.
    let bytes = Bytes::copy_from_slice(bytes.get(..scratch.len).unwrap_or_default());
    let head = &*scratch;
    let upgrade = head.upgrade.map(|protocol| Upgrade {
        protocol: protocol.of(&bytes).to_ascii_lowercase(),
        accept: None,
    });
    let mut asked = Asked {
        request: http::Request::new(()),
        method: head.method,
        body: head.body,
        grpc: false,
        upgrade,
    };
    name(&mut asked, head, &bytes, secure)?;
    fields(&mut asked, head, &bytes)?;
    let len = head.len;
    Ok(Some((asked, len)))
}

/// Sets what is asked for, of whom.
fn name(asked: &mut Asked, head: &RequestHead, bytes: &Bytes, secure: bool) -> Result<(), String> {
    let request = &mut asked.request;
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(target(head.target.of(bytes))?);
    let host = head.host.filter(|host| !host.is_empty());
    match host {
        Some(host) => {
            let host = slice(bytes, host.of(bytes));
            let authority = Authority::from_maybe_shared(host);
            parts.authority =
                Some(authority.map_err(|error| format!("the host in HTTP/2: {error}"))?);
            parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
            *request.version_mut() = Version::HTTP_2;
        }
        // Without an authority h2 takes the head for one of HTTP/1, which may have none (RFC 9113 §8.3.1).
        None => *request.version_mut() = Version::HTTP_11,
    }
    *request.uri_mut() =
        Uri::from_parts(parts).map_err(|error| format!("the target in HTTP/2: {error}"))?;
    *request.method_mut() = match &asked.upgrade {
        None => http::Method::from_bytes(head.method_text.of(bytes))
            .map_err(|error| format!("the method in HTTP/2: {error}"))?,
        Some(upgrade) => {
            let protocol = String::from_utf8_lossy(&upgrade.protocol);
            request
                .extensions_mut()
                .insert(Protocol::from(protocol.as_ref()));
            http::Method::CONNECT
        }
    };
    Ok(())
}

/// A target as it is; what of it is no URI is escaped, as the other end would read it anyway.
fn target(text: &[u8]) -> Result<PathAndQuery, String> {
    let wrong = |error: http::uri::InvalidUri| format!("the target in HTTP/2: {error}");
    match PathAndQuery::try_from(text) {
        Ok(target) => Ok(target),
        Err(_) => {
            let mut escaped = String::with_capacity(text.len() + 16);
            for byte in text {
                if byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(byte) {
                    escaped.push(char::from(*byte));
                } else {
                    escaped.push_str(&format!("%{byte:02X}"));
                }
            }
            PathAndQuery::try_from(escaped).map_err(wrong)
        }
    }
}

fn fields(asked: &mut Asked, head: &RequestHead, bytes: &Bytes) -> Result<(), String> {
    let mut map = HeaderMap::with_capacity(head.fields.len());
    let mut trailers = false;
    for field in &head.fields {
        let value = field.value.of(bytes);
        match field.known {
            Known::Host | Known::Http2Settings => continue,
            Known::Te => {
                let mut members = value.split(|byte| *byte == b',');
                trailers |=
                    members.any(|member| member.trim_ascii().eq_ignore_ascii_case(b"trailers"));
                continue;
            }
            Known::ContentType if value.starts_with(b"application/grpc") => asked.grpc = true,
            known if !passes(known) => continue,
            _ => {}
        }
        let name = field.name.of(bytes);
        if head.connection_names && named_by_connection(&head.fields, bytes, name) {
            continue;
        }
        if let Some(upgrade) = &mut asked.upgrade
            && name.eq_ignore_ascii_case(b"sec-websocket-key")
        {
            upgrade.accept = Some(websocket::accept_of(value));
            continue;
        }
        let wrong = || format!("the field `{}` in HTTP/2", name.escape_ascii());
        let name = HeaderName::from_bytes(name).map_err(|_| wrong())?;
        let value = HeaderValue::from_maybe_shared(slice(bytes, value)).map_err(|_| wrong())?;
        map.try_append(name, value)
            .map_err(|_| "too many fields for HTTP/2".to_owned())?;
    }
    // Servers of gRPC refuse a call without it.
    if trailers || asked.grpc {
        map.insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    *asked.request.headers_mut() = map;
    Ok(())
}

/// `part`, which is a slice of `whole`, without a copy; an empty one is of nothing.
fn slice(whole: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() {
        return Bytes::new();
    }
    whole.slice_ref(part)
}

#[cfg(test)]
mod tests;

//! Heads and fields, between the maps of the http crate and lines of HTTP/1.

use bytes::Bytes;
use h2::RecvStream;
use h2::ext::Protocol;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use wire::http1::ResponseHead;
use wire::http2::{Body, Pseudo, RequestFault, encode_request, passes};

/// Writes a request's head as HTTP/1.1 has it; a tunnel's without the empty line at its end.
pub(super) fn request(
    out: &mut Vec<u8>,
    head: &Parts,
    body: &RecvStream,
) -> Result<Body, RequestFault> {
    let protocol = head.extensions.get::<Protocol>();
    let path = head
        .uri
        .path_and_query()
        .map(|path| path.as_str().as_bytes());
    let pseudo = Pseudo {
        method: head.method.as_str().as_bytes(),
        scheme: head.uri.scheme_str().map(str::as_bytes),
        authority: head.uri.authority().map(|it| it.as_str().as_bytes()),
        path,
        protocol: protocol.map(|protocol| protocol.as_str().as_bytes()),
    };
    encode_request(out, &pseudo, || pairs(&head.headers), body.is_end_stream())
}

/// The fields of a map, in its order.
pub(super) fn pairs(map: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    map.iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// A response's head as h2 has it; `bytes` is the head that was decoded. `None`: it cannot be said in HTTP/2.
pub(super) fn response(head: &ResponseHead, bytes: &[u8]) -> Option<Response<()>> {
    let all = Bytes::copy_from_slice(bytes.get(..head.len)?);
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).ok()?;
    let map = response.headers_mut();
    map.try_reserve(head.fields.len()).ok()?;
    for field in head.fields.iter().filter(|field| passes(field.known)) {
        let value = all.slice_ref(field.value.of(&all));
        append(map, field.name.of(bytes), value)?;
    }
    Some(response)
}

/// Trailer fields as h2 has them.
pub(super) fn trailers<'t>(
    fields: impl Iterator<Item = (&'t [u8], &'t [u8])>,
) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        append(&mut map, name, Bytes::copy_from_slice(value))?;
    }
    Some(map)
}

fn append(map: &mut HeaderMap, name: &[u8], value: Bytes) -> Option<()> {
    let name = HeaderName::from_bytes(name).ok()?;
    let value = HeaderValue::from_maybe_shared(value).ok()?;
    map.try_append(name, value).ok().map(|_| ())
}

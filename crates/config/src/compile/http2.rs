//! HTTP/2 with clients: windows, bounds, signs of life.

use super::wait_or_off;
use crate::defaults;
use crate::diagnostic::{Kind, Report};
use crate::raw::RawHttp2;
use crate::read::At;
use crate::snapshot::Http2ToClients;
use crate::values::Off;

/// What HTTP/2 is called in ALPN (RFC 9113 §3.2).
const HTTP2_ALPN: &str = "h2";
/// What HTTP/1.1 is called there.
const HTTP_ALPN: &str = "http/1.1";

/// What an HTTP listener speaks over TLS, best first.
pub(crate) fn spoken(raw: Option<&At<Off<RawHttp2>>>) -> &'static [&'static str] {
    match raw {
        Some(At {
            value: Off::Off, ..
        }) => &[HTTP_ALPN],
        _ => &[HTTP2_ALPN, HTTP_ALPN],
    }
}

/// `None`: only HTTP/1 is spoken.
pub(crate) fn compile_http2(
    raw: Option<At<Off<RawHttp2>>>,
    report: &mut Report,
) -> Option<Http2ToClients> {
    let raw = match raw {
        Some(raw) => raw.value.on()?,
        None => RawHttp2::absent(),
    };
    let window = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX >> 1);
    let stream_window = raw
        .stream_window
        .as_ref()
        .map_or(defaults::HTTP2_STREAM_WINDOW, |size| size.value.0);
    let connection_window = raw
        .connection_window
        .as_ref()
        .map_or(defaults::HTTP2_CONNECTION_WINDOW, |size| size.value.0);
    if stream_window > connection_window {
        let written = raw.stream_window.as_ref().map(|size| size.span);
        let written = written.or(raw.connection_window.as_ref().map(|size| size.span));
        if let Some(span) = written {
            let message = "`stream_window` is larger than `connection_window`, which all streams of a connection share";
            report.error(Kind::Conflict, span, message);
        }
    }
    Some(Http2ToClients {
        streams: raw
            .streams
            .map_or(defaults::HTTP2_STREAMS, |streams| streams.value.u32()),
        stream_window: window(stream_window),
        connection_window: window(connection_window),
        resets: raw.resets.map_or(Some(defaults::HTTP2_RESETS), |resets| {
            resets.value.on().map(|resets| resets.u32())
        }),
        ping_after: wait_or_off(raw.ping_after, Some(defaults::HTTP2_PING_AFTER)),
        ping_timeout: raw
            .ping_timeout
            .map_or(defaults::HTTP2_PING_TIMEOUT, |wait| wait.value.0),
    })
}

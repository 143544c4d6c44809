//! Which version of HTTP a pool's servers speak, with its defaults.

use crate::defaults;
use crate::diagnostic::{Kind, Report};
use crate::raw::{HttpVersion, RawHttp, RawHttpMap};
use crate::read::At;
use crate::snapshot::Http2;

/// `None`: HTTP/1.1, which is the default.
pub(super) fn compile_http(raw: Option<At<RawHttp>>, report: &mut Report) -> Option<Http2> {
    let RawHttp(RawHttpMap {
        version,
        streams,
        ping_after,
        ping_timeout,
        ..
    }) = raw?.value;
    let version = version?.value;
    if version == HttpVersion::One {
        let keys = [
            streams.map(|key| ("streams", key.key)),
            ping_after.map(|key| ("ping_after", key.key)),
            ping_timeout.map(|key| ("ping_timeout", key.key)),
        ];
        for (name, span) in keys.into_iter().flatten() {
            let message = format!("`{name}` is only for `version: 2` and `version: auto`");
            report.error(Kind::Conflict, span, message);
        }
        return None;
    }
    Some(Http2 {
        streams: streams.map_or(defaults::SERVER_HTTP2_STREAMS, |streams| {
            streams.value.u32()
        }),
        ping_after: match ping_after {
            None => Some(defaults::SERVER_HTTP2_PING_AFTER),
            Some(after) => after.value.on().map(|after| after.0),
        },
        ping_timeout: ping_timeout.map_or(defaults::SERVER_HTTP2_PING_TIMEOUT, |time| time.value.0),
        auto: version == HttpVersion::Auto,
    })
}

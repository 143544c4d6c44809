//! HTTP/2 with clients as written.

use crate::defaults;
use crate::read::{or, section};
use crate::units::{Size, Wait, show_duration, show_size};
use crate::values::{Off, Whole};

section! {
    /// HTTP/2 with clients: by ALPN over TLS, with prior knowledge (h2c) without it.
    RawHttp2 "http2" {
        /// Streams of one connection at once; further ones are refused, for the client to try again.
        "streams" streams: Whole<1, 10_000> = or(defaults::HTTP2_STREAMS),
        /// Bytes of a request body that a client may send before the server behind has taken any.
        "stream_window" stream_window: Size<16_384, 2_147_483_647> = or(show_size(defaults::HTTP2_STREAM_WINDOW)),
        /// The same for all streams of a connection together.
        "connection_window" connection_window: Size<65_536, 2_147_483_647> = or(show_size(defaults::HTTP2_CONNECTION_WINDOW)),
        /// Streams that one connection's client may give up at once, or make fail, within 10 s, and a tenth of those that it may give up while a server works on them; past it the connection ends. Peers of `trusted_proxies` have no such bound.
        "resets" resets: Off<Whole<1, 1_000_000>> = or(defaults::HTTP2_RESETS),
        /// A client with open streams that has been silent for so long is asked for a sign of life.
        "ping_after" ping_after: Off<Wait> = or(show_duration(defaults::HTTP2_PING_AFTER)),
        /// How long that may take before the connection ends.
        "ping_timeout" ping_timeout: Wait = or(show_duration(defaults::HTTP2_PING_TIMEOUT)),
    } later []
}

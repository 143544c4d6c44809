//! Listeners as written.

use super::{RawDestination, RawHttp2, RawPriority, RawRoute, RawSplit, RawTls, words};
use crate::defaults;
use crate::diagnostic::{Report, Span};
use crate::read::{At, Read, Shape, or, required, section, unsupported, word, wrong_type};
use crate::scalar::{Scalar, ScalarKind};
use crate::tree::{Node, Value};
use crate::units::{Size, Time, Wait, show_duration, show_size};
use crate::values::{List, Many, Off, Text, Whole};

section! {
    /// An address and protocol on which traffic is accepted.
    RawListener "listener" {
        /// One address or several: `":443"` (IPv6 and IPv4), `IP:port`, `"[v6]:port"`, `unix:/path`.
        "bind" bind: Many<RawBind> = required(),
        /// What is spoken.
        "protocol" protocol: ProtocolWord = or("http"),
        /// Shorthand for a single route to this pool, or to the servers of it with certain labels.
        "pool" pool: RawDestination = or("none"),
        /// Shorthand for a single route that shares by weight, 0-1000 for each pool; or a list of arms.
        "split" split: RawSplit = or("none"),
        /// Routes, the first match wins; or the name of a list under the top's `routes`. On a TCP listener by what TLS clients ask for.
        "routes" routes: RawRoutes = or("none"),
        /// Who is served first while a pool's servers are full, unless a route says so itself: `high` (8), `normal` (5), `low` (2) or 0-9.
        "priority" priority: RawPriority = or("normal"),
        /// Peers (CIDR) whose forwarding headers are believed; HTTP only.
        "trusted_proxies" trusted_proxies: Many<Text> = or("none"),
        /// What servers are told about the client; HTTP only.
        "forwarded" forwarded: RawForwarded = or("its own defaults"),
        /// `Upgrade` tokens that may pass, such as `websocket`; HTTP only.
        "upgrades" upgrades: Many<Text> = or("none"),
        /// Client-side times.
        "timeouts" timeouts: RawListenerTimeouts = or("its own defaults"),
        /// Client-side bounds.
        "limits" limits: RawListenerLimits = or("its own defaults"),
        /// TLS on all of its addresses.
        "tls" tls: RawTls = or("none"),
        /// HTTP/2 with clients, or `off`: only HTTP/1; HTTP only.
        "http2" http2: Off<RawHttp2> = or("its own defaults"),
    } later []
}

section! {
    /// One address of a listener, long form.
    RawBindMap "bind" {
        /// As in the short form.
        "address" address: Text = required(),
        /// TLS on this address, instead of the listener's.
        "tls" tls: RawTls = or("the listener's"),
    } later []
}

section! {
    /// What servers are told about the client.
    RawForwarded "forwarded" {
        /// `X-Forwarded-For`, `-Proto` and `-Host`.
        "x_forwarded" x_forwarded: bool = or(true),
        /// `Forwarded` (RFC 7239).
        "forwarded" forwarded: bool = or(false),
        /// `Via`.
        "via" via: bool = or(false),
        /// `X-Request-ID`: `keep` a valid one of a trusted peer, `replace` always, or `off`.
        "request_id" request_id: RequestIdWord = or("keep"),
    } later []
}

section! {
    /// Client-side times.
    RawListenerTimeouts "listener timeouts" {
        /// From the connection to the end of its TLS handshake; on a TCP listener with `routes`, of its client's first message.
        "handshake" handshake: Off<Wait> = or(show_duration(defaults::HANDSHAKE)),
        /// From the first byte of a request head to its end; HTTP only.
        "header" header: Off<Wait> = or(show_duration(defaults::CLIENT_HEADER)),
        /// Between two pieces of a request body; HTTP only.
        "body_idle" body_idle: Off<Wait> = or(show_duration(defaults::CLIENT_BODY_IDLE)),
        /// While the client takes nothing of an answer, not even of what the kernel holds; HTTP only.
        "write_idle" write_idle: Off<Wait> = or(show_duration(defaults::CLIENT_WRITE_IDLE)),
        /// Between two requests of one connection; HTTP only.
        "keep_alive" keep_alive: Off<Time> = or(show_duration(defaults::CLIENT_KEEP_ALIVE)),
        /// Without a byte in either direction; TCP only.
        "idle" idle: Off<Wait> = or(show_duration(defaults::TCP_IDLE)),
        /// Half-closed and silent; TCP only.
        "half_closed" half_closed: Off<Wait> = or(show_duration(defaults::TCP_HALF_CLOSED)),
    } later []
}

section! {
    /// Client-side bounds.
    RawListenerLimits "listener limits" {
        /// Connections at once; past it accepting pauses.
        "connections" connections: Whole<1, 10_000_000> = or("(open-file limit - 512) / 2"),
        /// Bytes of a request head, else 431; HTTP only.
        "header_bytes" header_bytes: Size<256, 1_048_576> = or(show_size(defaults::HEADER_BYTES)),
        /// Fields of a request head, else 431; HTTP only.
        "headers" headers: Whole<1, 4096> = or(defaults::HEADERS),
        /// Bytes of a request target, else 414; HTTP only.
        "uri_bytes" uri_bytes: Size<16, 1_048_576> = or(show_size(defaults::URI_BYTES)),
        /// Bytes of a request body, else 413; HTTP only.
        "body_bytes" body_bytes: Off<Size<0, { u64::MAX }>> = or("off"),
    } later []
}

words! {
    /// What happens to `X-Request-ID`.
    RequestIdWord "a way to treat request ids" ["keep", "replace", "off"]
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProtocolWord {
    Http,
    Tcp,
}

impl Read for ProtocolWord {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(&node.value, Value::Scalar(Scalar { text, .. }) if text == "udp") {
            unsupported(node.span, "udp", report);
            return None;
        }
        match word(node, "a protocol", &["http", "tcp"], report)? {
            "tcp" => Some(Self::Tcp),
            _ => Some(Self::Http),
        }
    }

    fn shape() -> Shape {
        Shape::Words(&["http", "tcp"])
    }
}

/// One address of a listener.
#[derive(Debug)]
pub(crate) struct RawBind {
    pub(crate) address: String,
    pub(crate) span: Span,
    pub(crate) tls: Option<At<RawTls>>,
}

impl Read for RawBind {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            let map = RawBindMap::read(node, report)?;
            let address = map.address?;
            return Some(Self {
                address: address.value.0,
                span: address.span,
                tls: map.tls,
            });
        }
        let address = crate::read::text(node, "an address (text) or a map", report)?;
        Some(Self {
            address: address.to_owned(),
            span: node.span,
            tls: None,
        })
    }

    fn shape() -> Shape {
        let address = Shape::Text {
            what: "address",
            pattern: None,
        };
        Shape::Any(vec![address, RawBindMap::shape()])
    }
}

/// A listener's routes: a list, or the name of one.
#[derive(Debug)]
pub(crate) enum RawRoutes {
    List(List<RawRoute>),
    Name(String),
}

impl Read for RawRoutes {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::List(_) => List::read(node, report).map(Self::List),
            Value::Scalar(Scalar {
                text,
                kind: ScalarKind::Text | ScalarKind::Int(_),
            }) => Some(Self::Name(text.clone())),
            _ => {
                wrong_type(node, "a list of routes, or the name of one", report);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![
            List::<RawRoute>::shape(),
            Shape::Text {
                what: "name",
                pattern: None,
            },
        ])
    }
}

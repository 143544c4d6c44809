//! Which version of HTTP a pool's servers speak, as written.

use crate::defaults;
use crate::diagnostic::Report;
use crate::read::{At, Read, Shape, or, required, section, wrong_type};
use crate::scalar::ScalarKind;
use crate::tree::{Node, Value};
use crate::units::{Wait, show_duration};
use crate::values::{Off, Whole};

/// What leaves the version to the server.
const AUTO: &str = "auto";

section! {
    /// The HTTP version that a pool's servers speak, long form. In short: `http: 2`.
    RawHttpMap "pool http" {
        /// 1; 2: over TLS agreed by ALPN, else spoken from the first byte on (h2c with prior knowledge); `auto`: what each server chooses by ALPN, over TLS.
        "version" version: HttpVersion = required(),
        /// Requests at once on one connection; a server that wants fewer gets fewer. With `limits.connections_per_server` it bounds the requests at a server. HTTP/2 only.
        "streams" streams: Whole<1, 10_000> = or(defaults::SERVER_HTTP2_STREAMS),
        /// A server that was sent something and has said nothing for this long is asked whether it is there (PING). HTTP/2 only.
        "ping_after" ping_after: Off<Wait> = or(show_duration(defaults::SERVER_HTTP2_PING_AFTER)),
        /// If it has not answered that within this, its connection is given up. HTTP/2 only.
        "ping_timeout" ping_timeout: Wait = or(show_duration(defaults::SERVER_HTTP2_PING_TIMEOUT)),
    } later []
}

/// 1, 2 or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    One,
    Two,
    Auto,
}

impl HttpVersion {
    fn of(node: &Node) -> Option<Self> {
        let Value::Scalar(scalar) = &node.value else {
            return None;
        };
        match scalar.kind {
            ScalarKind::Int(1) => Some(Self::One),
            ScalarKind::Int(2) => Some(Self::Two),
            ScalarKind::Text if scalar.text == AUTO => Some(Self::Auto),
            _ => None,
        }
    }
}

impl Read for HttpVersion {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let version = Self::of(node);
        if version.is_none() {
            wrong_type(node, "the HTTP version `1`, `2` or `auto`", report);
        }
        version
    }

    fn shape() -> Shape {
        Shape::Any(vec![Whole::<1, 2>::shape(), Shape::Words(&[AUTO])])
    }
}

/// `http: 2`, or the long form.
#[derive(Debug)]
pub(crate) struct RawHttp(pub(crate) RawHttpMap);

impl Read for RawHttp {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if let Value::Map(_) = &node.value {
            return RawHttpMap::read(node, report).map(Self);
        }
        let Some(version) = HttpVersion::of(node) else {
            let expected = "the HTTP version `1`, `2` or `auto`, or a map";
            wrong_type(node, expected, report);
            return None;
        };
        let mut section = RawHttpMap::absent();
        section.version = Some(At::here(version, node));
        Some(Self(section))
    }

    fn shape() -> Shape {
        Shape::Any(vec![HttpVersion::shape(), RawHttpMap::shape()])
    }
}

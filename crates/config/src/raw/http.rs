//! Which version of HTTP a pool's servers speak, as written.

use crate::defaults;
use crate::diagnostic::Report;
use crate::read::{At, Read, Shape, or, required, section, wrong_type};
use crate::scalar::{Scalar, ScalarKind};
use crate::tree::{Node, Value};
use crate::units::{Wait, show_duration};
use crate::values::{Off, Whole};

section! {
    /// The HTTP version that a pool's servers speak, long form. In short: `http: 2`.
    RawHttpMap "pool http" {
        /// 1, or 2: over TLS agreed by ALPN, else spoken from the first byte on (h2c with prior knowledge).
        "version" version: Whole<1, 2> = required(),
        /// Requests at once on one connection; a server that wants fewer gets fewer. HTTP/2 only.
        "streams" streams: Whole<1, 10_000> = or(defaults::SERVER_HTTP2_STREAMS),
        /// A server that was sent something and has said nothing for this long is asked whether it is there (PING). HTTP/2 only.
        "ping_after" ping_after: Off<Wait> = or(show_duration(defaults::SERVER_HTTP2_PING_AFTER)),
        /// If it has not answered that within this, its connection is given up. HTTP/2 only.
        "ping_timeout" ping_timeout: Wait = or(show_duration(defaults::SERVER_HTTP2_PING_TIMEOUT)),
    } later []
}

/// `http: 2`, or the long form.
#[derive(Debug)]
pub(crate) struct RawHttp(pub(crate) RawHttpMap);

impl Read for RawHttp {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Map(_) => RawHttpMap::read(node, report).map(Self),
            Value::Scalar(Scalar {
                kind: ScalarKind::Int(1 | 2),
                ..
            }) => {
                let version = Whole::read(node, report)?;
                let mut section = RawHttpMap::absent();
                section.version = Some(At::here(version, node));
                Some(Self(section))
            }
            _ => {
                wrong_type(node, "the HTTP version `1` or `2`, or a map", report);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Whole::<1, 2>::shape(), RawHttpMap::shape()])
    }
}

//! What servers may say of themselves, as written: marks in the answer to a probe, and HAProxy's agent check.

use crate::defaults;
use crate::diagnostic::{Kind, Report};
use crate::read::{At, Read, Shape, or, required, section, text, wrong_type};
use crate::scalar::{Scalar, ScalarKind};
use crate::tree::{Node, Value};
use crate::units::{Wait, show_duration};
use crate::values::{Text, Whole};

section! {
    /// HAProxy's agent check: a line over TCP by which a server says how much traffic it wants.
    RawAgentCheck "agent_check" {
        /// Port of the agent, on the server's own address.
        "port" port: Whole<1, 65_535> = required(),
        /// Between two checks.
        "interval" interval: Wait = or(show_duration(defaults::AGENT_INTERVAL)),
        /// Of a whole check.
        "timeout" timeout: Wait = or(show_duration(defaults::AGENT_TIMEOUT)),
        /// Sent once connected, as it is written.
        "send" send: Text = or("nothing"),
    } later []
}

/// An agent check, or its port alone.
#[derive(Debug)]
pub(crate) struct RawAgent(pub(crate) RawAgentCheck);

impl Read for RawAgent {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            return RawAgentCheck::read(node, report).map(Self);
        }
        if !matches!(
            &node.value,
            Value::Scalar(Scalar {
                kind: ScalarKind::Int(_),
                ..
            })
        ) {
            wrong_type(node, "a port or a map for `agent_check`", report);
            return None;
        }
        let port = Whole::read(node, report)?;
        let mut section = RawAgentCheck::absent();
        section.port = Some(At::here(port, node));
        Some(Self(section))
    }

    fn shape() -> Shape {
        Shape::Any(vec![Whole::<1, 65_535>::shape(), RawAgentCheck::shape()])
    }
}

/// A field of an answer: `name: value`, or `name` with any value.
#[derive(Debug, Clone)]
pub(crate) struct RawMark {
    /// In lower case.
    pub(crate) name: String,
    pub(crate) value: Option<String>,
}

impl Read for RawMark {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let found = text(node, "a header such as `x-drain: true` (in quotes)", report)?;
        let (name, value) = match found.split_once(':') {
            Some((name, value)) => (name.trim(), Some(value.trim().to_owned())),
            None => (found.trim(), None),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) {
            let message = format!("`{found}` is not a header such as `x-drain: true` or `x-drain`");
            report.error(Kind::Value, node.span, message);
            return None;
        }
        Some(Self {
            name: name.to_ascii_lowercase(),
            value,
        })
    }

    fn shape() -> Shape {
        Shape::Text {
            what: "header",
            pattern: None,
        }
    }
}

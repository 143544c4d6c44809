//! What a server's place in its pool is made of, as written: zones and slow start.

use crate::diagnostic::{Kind, Report};
use crate::read::{
    At, Read, Shape, Table, choice, one_key, or, required, section, word, wrong_type,
};
use crate::scalar::{Scalar, ScalarKind};
use crate::tree::{Node, Value};
use crate::units::{Percent, Time};

/// What zones mean to a pool.
#[derive(Debug)]
pub(crate) enum RawZones {
    Any,
    PreferOwn(RawPreferOwn),
}

const ZONES: &[&str] = &["any", "prefer_own"];

section! {
    /// Options of `prefer_own`.
    RawPreferOwn "prefer_own" {
        /// What part of the pool's whole traffic comes in at this zone, 1% to 100%.
        "traffic" traffic: Percent = or("as much as at each other zone of the pool"),
    } later []
}

impl Read for RawZones {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let prefer = |options| Self::PreferOwn(options);
        if matches!(&node.value, Value::Scalar(_)) {
            return Some(match word(node, "a use of zones", ZONES, report)? {
                "any" => Self::Any,
                _ => prefer(RawPreferOwn::absent()),
            });
        }
        let (name, entry) = one_key(node, "a use of zones", ZONES, report)?;
        if name == "any" {
            super::no_options(&entry.value, report)?;
            return Some(Self::Any);
        }
        RawPreferOwn::read(&entry.value, report).map(prefer)
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(ZONES), Shape::OneKey(uses)])
    }
}

fn uses() -> Table {
    Table {
        name: "zones",
        about: "What zones mean: a bare name, or a map with exactly one of these keys.",
        keys: vec![
            choice("any", "Nothing: all servers are alike.", Shape::Empty),
            choice(
                "prefer_own",
                "Servers of the top's `zone` take what they can bear of the traffic, other zones the rest.",
                RawPreferOwn::shape(),
            ),
        ],
    }
}

section! {
    /// How a server that begins to serve beside others gets its weight, long form.
    RawSlowStartMap "slow_start" {
        /// How long it takes.
        "duration" duration: Time = required(),
        /// 1 raises the weight evenly; above 1 most of it comes early, below 1 late; 0.1-10.
        "aggression" aggression: Aggression = or("1.0"),
        /// The part of its weight that it begins with, 1% to 100%.
        "floor" floor: Percent = or("10%"),
    } later []
}

/// `slow_start: 30s`, or the long form.
#[derive(Debug)]
pub(crate) struct RawSlowStart(pub(crate) RawSlowStartMap);

impl Read for RawSlowStart {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            return RawSlowStartMap::read(node, report).map(Self);
        }
        let duration = Time::read(node, report)?;
        let mut section = RawSlowStartMap::absent();
        section.duration = Some(At::here(duration, node));
        Some(Self(section))
    }

    fn shape() -> Shape {
        Shape::Any(vec![Time::shape(), RawSlowStartMap::shape()])
    }
}

/// The curve of a slow start, 0.1 to 10.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aggression(pub(crate) f64);

impl Read for Aggression {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        number(node, 0.1, 10.0, report).map(Self)
    }

    fn shape() -> Shape {
        Shape::Number {
            min: 0.1,
            max: 10.0,
        }
    }
}

/// A number within bounds.
pub(super) fn number(node: &Node, min: f64, max: f64, report: &mut Report) -> Option<f64> {
    let expected = format!("a number from {min} to {max}");
    let value = match &node.value {
        Value::Scalar(Scalar {
            kind: ScalarKind::Float(value),
            ..
        }) => *value,
        Value::Scalar(Scalar {
            text,
            kind: ScalarKind::Int(_),
        }) => text.parse().unwrap_or(f64::NAN),
        _ => {
            wrong_type(node, &expected, report);
            return None;
        }
    };
    if (min..=max).contains(&value) {
        return Some(value);
    }
    report.error(Kind::Value, node.span, format!("expected {expected}"));
    None
}

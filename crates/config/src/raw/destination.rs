//! Where a route leads, as written: a pool or a part of it, or several that share.

use super::Weight;
use crate::diagnostic::Report;
use crate::read::{At, Read, Shape, or, required, section, text, wrong_type};
use crate::tree::{Node, Value};
use crate::values::{List, Named, Text};

section! {
    /// A pool, or the servers of it that have certain labels.
    RawDestinationMap "destination" {
        /// The pool.
        "name" name: Text = required(),
        /// Only its servers that have all of these labels: a name and its exact value each.
        "labels" labels: Named<Text> = or("all servers"),
    } later []
}

/// `pool: NAME`, or the long form.
#[derive(Debug)]
pub(crate) struct RawDestination {
    pub(crate) name: At<Text>,
    pub(crate) labels: Option<At<Named<Text>>>,
}

impl Read for RawDestination {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            let section = RawDestinationMap::read(node, report)?;
            return Some(Self {
                name: section.name?,
                labels: section.labels,
            });
        }
        let name = text(node, "the name of a pool (text) or a map", report)?.to_owned();
        Some(Self {
            name: At::here(Text(name), node),
            labels: None,
        })
    }

    fn shape() -> Shape {
        let name = Shape::Text {
            what: "name",
            pattern: None,
        };
        Shape::Any(vec![name, RawDestinationMap::shape()])
    }
}

section! {
    /// One of several destinations that share by weight.
    RawArm "arm" {
        /// The pool that its requests go to, or the servers of it with certain labels.
        "pool" pool: RawDestination = required(),
        /// Its share among its neighbours, 0-1000.
        "weight" weight: Weight = or(1),
    } later []
}

/// Pools with their weights, or a list of arms.
#[derive(Debug)]
pub(crate) enum RawSplit {
    Pools(Named<Weight>),
    Arms(List<RawArm>),
}

impl Read for RawSplit {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::List(_) => List::read(node, report).map(Self::Arms),
            Value::Map(_) => Named::read(node, report).map(Self::Pools),
            _ => {
                wrong_type(node, "a map of pools to weights, or a list of arms", report);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Named::<Weight>::shape(), List::<RawArm>::shape()])
    }
}

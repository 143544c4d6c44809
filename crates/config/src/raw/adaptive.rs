//! A limit of requests that follows latency, as written.

use crate::diagnostic::Report;
use crate::read::{Read, Shape, or, section, word};
use crate::tree::{Node, Value};
use crate::units::{Percent, Wait, show_duration};
use crate::values::Whole;

/// The defaults, which the reference shows.
fn standard() -> balance::adaptive::Settings {
    balance::adaptive::Settings::default()
}

const ALGORITHMS: &[&str] = &["gradient"];

section! {
    /// How the requests that a server holds at once are bounded by what its latency shows, long form.
    RawAdaptiveMap "adaptive_concurrency" {
        /// Requests at once that a server always gets.
        "min" min: Whole<1, 1_000_000> = or(standard().min),
        /// Requests at once that a server never gets more than.
        "max" max: Whole<1, 1_000_000> = or(standard().max),
        /// By how much a server may answer more slowly than it does without load.
        "tolerance" tolerance: Percent = or(format!("{}%", standard().tolerance * 100.0)),
        /// How often the latency without load is measured, by letting half of the limit in for a moment.
        "measure_every" measure_every: Wait = or(show_duration(standard().measure_every)),
    } later []
}

/// `adaptive_concurrency: gradient`, or the long form.
#[derive(Debug)]
pub(crate) struct RawAdaptive(pub(crate) RawAdaptiveMap);

impl Read for RawAdaptive {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            return RawAdaptiveMap::read(node, report).map(Self);
        }
        word(node, "a way to find the limit", ALGORITHMS, report)?;
        Some(Self(RawAdaptiveMap::absent()))
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(ALGORITHMS), RawAdaptiveMap::shape()])
    }
}

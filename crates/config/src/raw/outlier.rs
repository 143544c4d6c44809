//! How servers are judged by their traffic, as written.

use super::place::number;
use crate::diagnostic::Report;
use crate::read::{Read, Shape, or, section};
use crate::tree::Node;
use crate::units::{Percent, Wait, show_duration};
use crate::values::{Off, Whole};

/// The defaults, which the reference shows.
fn standard() -> balance::outlier::Settings {
    balance::outlier::Settings::default()
}

section! {
    /// How servers are judged by their traffic: who fails is ejected for a while, or gets less than its weight.
    RawOutlier "outlier_detection" {
        /// Gateway errors in a row that eject: no connection, no whole answer, or 502, 503, 504.
        "consecutive_gateway_errors" consecutive_gateway_errors: Off<Whole<1, 1000>> = or(5),
        /// The same for every status from 500 on.
        "consecutive_5xx" consecutive_5xx: Off<Whole<1, 1000>> = or("off"),
        /// Ejects a server that fails far more often than the rest of its pool.
        "success_rate" success_rate: Off<RawSuccessRate> = or("its own defaults"),
        /// Gives less to a server that answers far more slowly than the rest of its pool.
        "latency" latency: Off<RawLatency> = or("its own defaults"),
        /// Gives a server that fails more often than the rest less than its weight.
        "degrade" degrade: bool = or("true"),
        /// The time that rates are taken over.
        "interval" interval: Wait = or(show_duration(standard().interval)),
        /// The first ejection; the second in a row is twice as long, and so on.
        "ejection_time" ejection_time: Wait = or(show_duration(standard().ejection)),
        /// The longest ejection.
        "max_ejection_time" max_ejection_time: Wait = or(show_duration(standard().ejection_max)),
        /// Share of the pool that may be ejected; one server of several may be, the last never.
        "max_ejected" max_ejected: Percent = or(format!("{}%", standard().ejected_max)),
        /// Requests at once for a server whose ejection is over, until one of them succeeds.
        "half_open_requests" half_open_requests: Whole<1, 1000> = or(standard().half_open),
    } later []
}

section! {
    /// When a server fails far more often than the rest.
    RawSuccessRate "success_rate" {
        /// Standard deviations of the rest that its success rate is below their mean; half of its requests more must fail besides.
        "deviations" deviations: Deviations = or(1.9),
        /// Servers with enough requests that there have to be.
        "min_servers" min_servers: Whole<2, 10_000> = or(3),
        /// Requests within the interval that a server needs to be judged.
        "min_requests" min_requests: Whole<1, 1_000_000> = or(100),
    } later []
}

section! {
    /// When a server answers far more slowly than the rest.
    RawLatency "latency" {
        /// Standard deviations of the rest that its average is above their mean; a third of the mean is taken at least.
        "deviations" deviations: Deviations = or("3.0"),
        /// Servers with enough requests that there have to be.
        "min_servers" min_servers: Whole<2, 10_000> = or(3),
        /// Requests within the interval that a server needs to be judged.
        "min_requests" min_requests: Whole<1, 1_000_000> = or(100),
    } later []
}

/// A number of standard deviations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deviations(pub(crate) f64);

impl Read for Deviations {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        number(node, 0.1, 100.0, report).map(Self)
    }

    fn shape() -> Shape {
        Shape::Number {
            min: 0.1,
            max: 100.0,
        }
    }
}

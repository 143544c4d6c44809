//! Algorithms as written: a bare name, or one key with options.

use super::no_options;
use crate::diagnostic::{Kind, Report};
use crate::read::{At, Read, Shape, Table, choice, one_key, or, section, text};
use crate::scalar::Scalar;
use crate::tree::{Node, Value};
use crate::values::Text;

/// The algorithm, by name, with its options.
#[derive(Debug)]
pub(crate) struct RawBalance {
    pub(crate) name: &'static str,
    pub(crate) key: Option<At<RawKey>>,
    pub(crate) bounded_load: Option<At<LoadFactor>>,
    pub(crate) times_connections: bool,
}

/// Every algorithm's name.
pub(crate) const ALGORITHMS: &[&str] = &[
    "power_of_two",
    "round_robin",
    "weighted_round_robin",
    "least_connections",
    "weighted_least_connections",
    "least_response_time",
    "ip_hash",
    "consistent_hash",
    "maglev",
    "random",
    "peak_ewma",
];

section! {
    /// Options of `consistent_hash`.
    RawConsistentHash "consistent_hash" {
        /// What is hashed.
        "key" key: RawKey = or("source"),
        /// No server gets more than this times its fair share; at least 1.
        "bounded_load" bounded_load: LoadFactor = or("none"),
    } later []
}

section! {
    /// Options of `maglev`.
    RawMaglev "maglev" {
        /// What is hashed.
        "key" key: RawKey = or("source"),
    } later []
}

section! {
    /// Options of `least_response_time`.
    RawLeastResponseTime "least_response_time" {
        /// Multiply the moving average by the connections in use.
        "times_connections" times_connections: bool = or(false),
    } later []
}

impl Read for RawBalance {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let bare = |name| Self {
            name,
            key: None,
            bounded_load: None,
            times_connections: false,
        };
        if matches!(&node.value, Value::Scalar(_)) {
            return crate::read::word(node, "an algorithm", ALGORITHMS, report).map(bare);
        }
        let (name, entry) = one_key(node, "an algorithm", ALGORITHMS, report)?;
        let mut balance = bare(name);
        match name {
            "consistent_hash" => {
                let options = RawConsistentHash::read(&entry.value, report)?;
                (balance.key, balance.bounded_load) = (options.key, options.bounded_load);
            }
            "maglev" => balance.key = RawMaglev::read(&entry.value, report)?.key,
            "least_response_time" => {
                let options = RawLeastResponseTime::read(&entry.value, report)?;
                balance.times_connections = options.times_connections.is_some_and(|on| on.value);
            }
            _ => no_options(&entry.value, report)?,
        }
        Some(balance)
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(ALGORITHMS), Shape::OneKey(algorithms)])
    }
}

fn algorithms() -> Table {
    let bare = |name, about| choice(name, about, Shape::Empty);
    Table {
        name: "balance",
        about: "An algorithm: its bare name, or a map with exactly one of these keys. Weights count in each.",
        keys: vec![
            bare(
                "power_of_two",
                "Of two servers drawn at random the one with fewer connections per weight.",
            ),
            bare("round_robin", "In turn, smoothly by weight."),
            bare(
                "weighted_round_robin",
                "The explicit spelling of `round_robin`.",
            ),
            bare("least_connections", "The fewest connections per weight."),
            bare(
                "weighted_least_connections",
                "The explicit spelling of `least_connections`.",
            ),
            choice(
                "least_response_time",
                "The lowest moving average of response times.",
                RawLeastResponseTime::shape(),
            ),
            bare("ip_hash", "The client's address decides."),
            choice(
                "consistent_hash",
                "A key decides, on a ring with virtual nodes.",
                RawConsistentHash::shape(),
            ),
            choice(
                "maglev",
                "A key decides, by Maglev's table: nearly perfectly even.",
                RawMaglev::shape(),
            ),
            bare("random", "At random."),
            bare(
                "peak_ewma",
                "As `power_of_two`, by latency that rises at once and falls slowly.",
            ),
        ],
    }
}

/// What a hashing algorithm hashes.
#[derive(Debug, Clone)]
pub(crate) enum RawKey {
    Source,
    Path,
    Header(String),
    Cookie(String),
    Query(String),
}

impl Read for RawKey {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        const NAMED: &[&str] = &["header", "cookie", "query"];
        if matches!(node.value, Value::Map(_)) {
            let (name, entry) = one_key(node, "a hash key", NAMED, report)?;
            let value = text(&entry.value, "a name (text)", report)?.to_owned();
            return Some(match name {
                "header" => Self::Header(value.to_ascii_lowercase()),
                "cookie" => Self::Cookie(value),
                _ => Self::Query(value),
            });
        }
        if let Value::Scalar(Scalar { text, .. }) = &node.value
            && NAMED.contains(&text.as_str())
        {
            let message = format!("which {text} is hashed?");
            report.error_help(
                Kind::Value,
                node.span,
                message,
                format!("write `{{ {text}: NAME }}`"),
            );
            return None;
        }
        Some(
            match crate::read::word(node, "a hash key", &["source", "path"], report)? {
                "path" => Self::Path,
                _ => Self::Source,
            },
        )
    }

    fn shape() -> Shape {
        Shape::Any(vec![
            Shape::Words(&["source", "path"]),
            Shape::OneKey(hash_keys),
        ])
    }
}

fn hash_keys() -> Table {
    Table {
        name: "hash key",
        about: "What is hashed: `source`, `path`, or a map with exactly one of these keys.",
        keys: vec![
            choice("header", "The value of this header.", Text::shape()),
            choice("cookie", "The value of this cookie.", Text::shape()),
            choice("query", "The value of this query parameter.", Text::shape()),
        ],
    }
}

/// How many times a fair share: 1 to 100.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadFactor(pub(crate) f64);

impl Read for LoadFactor {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        super::place::number(node, 1.0, 100.0, report).map(Self)
    }

    fn shape() -> Shape {
        Shape::Number {
            min: 1.0,
            max: 100.0,
        }
    }
}

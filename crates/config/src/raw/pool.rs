//! Pools as written: servers, balance, health and resilience.

use super::{Weight, no_options, words};
use crate::defaults;
use crate::diagnostic::{Kind, Report};
use crate::read::{
    At, Read, Shape, Table, choice, one_key, or, required, section, text, unsupported, wrong_type,
};
use crate::scalar::{Scalar, ScalarKind};
use crate::tree::{Node, Value};
use crate::units::{Percent, Time, Wait, show_duration};
use crate::values::{List, Many, Named, Off, Text, Whole};

section! {
    /// A set of servers with one balancing, health and resilience policy.
    RawPool "pool" {
        /// Addresses, or maps with more.
        "servers" servers: List<RawServer> = required(),
        /// The algorithm that picks a server.
        "balance" balance: RawBalance = or("power_of_two"),
        /// How servers are probed; without it by TCP connect.
        "health_check" health_check: RawHealth = or("tcp"),
        /// Server-side times.
        "timeouts" timeouts: RawPoolTimeouts = or("its own defaults"),
        /// Server-side bounds.
        "limits" limits: RawPoolLimits = or("its own defaults"),
        /// When and how often another server is tried.
        "retries" retries: Off<RawRetries> = or("its own defaults"),
        /// How draining a server goes.
        "drain" drain: RawDrain = or("its own defaults"),
        /// The HTTP version that its servers speak.
        "http" http: HttpVersion = or(1),
        /// Below this share of usable servers all are used; only `0%` in this version.
        "panic_threshold" panic_threshold: NoPanic = or("0%"),
    } later ["tls", "affinity", "zone"]
}

section! {
    /// One server, long form.
    RawServerMap "server" {
        /// `IP:port`, `"[v6]:port"`, `name:port` or `unix:/path`.
        "address" address: Text = required(),
        /// Identifies it across reloads; unique in its pool.
        "name" name: Text = or("the address"),
        /// 0-1000, counts in every algorithm; 0 takes no new traffic.
        "weight" weight: Weight = or(defaults::WEIGHT),
        /// Requests in use at once.
        "max_connections" max_connections: Whole<1, 1_000_000> = or("none"),
    } later ["zone"]
}

section! {
    /// Server-side times.
    RawPoolTimeouts "pool timeouts" {
        /// One connection attempt.
        "connect" connect: Off<Wait> = or(show_duration(defaults::CONNECT)),
        /// From the last byte of the request to the first of the response.
        "first_byte" first_byte: Off<Wait> = or(show_duration(defaults::FIRST_BYTE)),
        /// Between two pieces of a response.
        "idle" idle: Off<Wait> = or(show_duration(defaults::IDLE)),
        /// The whole request.
        "request" request: Off<Wait> = or("off"),
        /// Silence of a WebSocket or another tunnel, both directions.
        "tunnel" tunnel: Off<Wait> = or(show_duration(defaults::TUNNEL)),
        /// How long an idle connection to a server is kept; its `Keep-Alive: timeout` less 1s goes before.
        "keep_alive" keep_alive: Time = or(show_duration(defaults::SERVER_KEEP_ALIVE)),
    } later []
}

section! {
    /// Server-side bounds.
    RawPoolLimits "pool limits" {
        /// Sockets open to one server, idle ones included.
        "connections_per_server" connections_per_server: Whole<1, 1_000_000> = or(defaults::CONNECTIONS_PER_SERVER),
    } later ["queue", "queue_wait"]
}

section! {
    /// When and how often another server is tried.
    RawRetries "retries" {
        /// Further tries after the first, on other servers.
        "attempts" attempts: Whole<0, 100> = or(defaults::RETRY_ATTEMPTS),
        /// Share of live requests that may be retries; 10 a second are always allowed.
        "budget" budget: Percent = or(format!("{}%", defaults::RETRY_BUDGET)),
    } later []
}

section! {
    /// How draining a server goes.
    RawDrain "drain" {
        /// How long a drain waits before it cuts what is left.
        "timeout" timeout: Off<Time> = or(show_duration(defaults::DRAIN_TIMEOUT)),
    } later []
}

section! {
    /// How servers are probed. With any key of HTTP it is an HTTP probe, else a TCP connect.
    RawHealthCheck "health_check" {
        /// Target of the request; HTTP.
        "path" path: Text = or(defaults::HEALTH_PATH),
        /// Method of the request; HTTP.
        "method" method: Text = or(defaults::HEALTH_METHOD),
        /// `Host` of the request; HTTP.
        "host" host: Text = or("the server's address"),
        /// Further headers of the request; HTTP.
        "headers" headers: Named<Text> = or("none"),
        /// Statuses that are success: a number, a range `200-299`, or a list of them; HTTP.
        "status" status: Many<RawStatus> = or("200-299"),
        /// Text that the first 64 KiB of the answer's body must hold; HTTP.
        "body" body: Text = or("any"),
        /// Probe this port instead of the server's own.
        "port" port: Whole<1, 65_535> = or("the server's"),
        /// Between two probes of a server that is up.
        "interval" interval: Wait = or(show_duration(defaults::HEALTH_INTERVAL)),
        /// Of a whole probe.
        "timeout" timeout: Wait = or(show_duration(defaults::HEALTH_TIMEOUT)),
        /// Successes in a row until a server that was down is up.
        "healthy_threshold" healthy_threshold: Whole<1, 1000> = or(defaults::HEALTHY_THRESHOLD),
        /// Failures in a row until it is down.
        "unhealthy_threshold" unhealthy_threshold: Whole<1, 1000> = or(defaults::UNHEALTHY_THRESHOLD),
        /// What a server is before its first probe has ended.
        "initial" initial: InitialWord = or("unknown"),
    } later []
}

words! {
    /// What a server is before its first probe has ended.
    InitialWord "an initial health" ["unknown", "healthy", "unhealthy"]
}

/// A health check in any of its spellings.
#[derive(Debug)]
pub(crate) enum RawHealth {
    Off,
    Tcp(Box<RawHealthCheck>),
    Http(Box<RawHealthCheck>),
    /// A map without a tag: its keys tell which.
    Either(Box<RawHealthCheck>),
}

impl Read for RawHealth {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => {
                let [entry] = entries.as_slice() else {
                    return RawHealthCheck::read(node, report)
                        .map(|check| Self::Either(Box::new(check)));
                };
                match entry.key.as_str() {
                    "tcp" => Box::read(&entry.value, report).map(Self::Tcp),
                    "http" => Box::read(&entry.value, report).map(Self::Http),
                    _ => Box::read(node, report).map(Self::Either),
                }
            }
            Value::Scalar(Scalar {
                kind: ScalarKind::Text,
                ..
            }) => {
                let absent = || Box::new(RawHealthCheck::absent());
                Some(
                    match crate::read::word(
                        node,
                        "a health check",
                        &["off", "tcp", "http"],
                        report,
                    )? {
                        "off" => Self::Off,
                        "tcp" => Self::Tcp(absent()),
                        _ => Self::Http(absent()),
                    },
                )
            }
            _ => {
                wrong_type(node, "`off`, `tcp`, `http` or a map", report);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![
            Shape::Words(&["off", "tcp", "http"]),
            Shape::OneKey(probes),
            RawHealthCheck::shape(),
        ])
    }
}

fn probes() -> Table {
    Table {
        name: "probe",
        about: "A health check that says what it is: a map with exactly one of these keys.",
        keys: vec![
            choice("tcp", "A TCP connect.", RawHealthCheck::shape()),
            choice(
                "http",
                "An HTTP request on a new connection.",
                RawHealthCheck::shape(),
            ),
        ],
    }
}

/// A status or an inclusive range of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawStatus(pub(crate) u16, pub(crate) u16);

impl Read for RawStatus {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let found = text(
            node,
            "a status such as `200` or a range such as `200-299`",
            report,
        )?;
        let (from, to) = found.split_once('-').unwrap_or((found, found));
        let status = |part: &str| {
            part.trim()
                .parse::<u16>()
                .ok()
                .filter(|status| (100..=599).contains(status))
        };
        match (status(from), status(to)) {
            (Some(from), Some(to)) if from <= to => Some(Self(from, to)),
            _ => {
                let message =
                    format!("`{found}` is not a status such as `200` or a range such as `200-299`");
                report.error(Kind::Value, node.span, message);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Text {
            what: "status",
            pattern: Some("^[1-5][0-9][0-9]( *- *[1-5][0-9][0-9])?$"),
        }
    }
}

/// One server, short or long.
#[derive(Debug)]
pub(crate) struct RawServer(pub(crate) RawServerMap);

impl Read for RawServer {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            return RawServerMap::read(node, report).map(Self);
        }
        let address = text(node, "an address (text) or a map", report)?.to_owned();
        let mut section = RawServerMap::absent();
        section.address = Some(At::here(Text(address), node));
        Some(Self(section))
    }

    fn shape() -> Shape {
        let address = Shape::Text {
            what: "address",
            pattern: None,
        };
        Shape::Any(vec![address, RawServerMap::shape()])
    }
}

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

/// A bounded load, 1 to 100 times the fair share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadFactor(pub(crate) f64);

impl Read for LoadFactor {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
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
                wrong_type(node, "a number from 1 to 100", report);
                return None;
            }
        };
        if (1.0..=100.0).contains(&value) {
            return Some(Self(value));
        }
        report.error(Kind::Value, node.span, "expected a number from 1 to 100");
        None
    }

    fn shape() -> Shape {
        Shape::Number {
            min: 1.0,
            max: 100.0,
        }
    }
}

/// `http: 1`.
#[derive(Debug)]
pub(crate) struct HttpVersion;

impl Read for HttpVersion {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Scalar(Scalar {
                kind: ScalarKind::Int(1),
                ..
            }) => Some(Self),
            Value::Scalar(Scalar {
                kind: ScalarKind::Int(2),
                ..
            }) => {
                unsupported(node.span, "http: 2", report);
                None
            }
            _ => {
                wrong_type(node, "the HTTP version `1`", report);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Integer { min: 1, max: 1 }
    }
}

/// `panic_threshold: 0%`.
#[derive(Debug)]
pub(crate) struct NoPanic;

impl Read for NoPanic {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let Percent(percent) = Percent::read(node, report)?;
        if percent > 0 {
            unsupported(node.span, "panic_threshold` above `0%", report);
            return None;
        }
        Some(Self)
    }

    fn shape() -> Shape {
        Shape::Measure {
            what: "percentage",
            pattern: "^(0|0%)$",
        }
    }
}

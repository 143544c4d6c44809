//! Pools as written: servers, balance, health and resilience.

use super::{
    LoadFactor, RawAdaptive, RawAffinity, RawAgent, RawBalance, RawHedge, RawHttp, RawMark,
    RawOutlier, RawPoolTls, RawRetries, RawSlowStart, RawZones, Weight, words,
};
use crate::defaults;
use crate::diagnostic::{Kind, Report};
use crate::read::{At, Read, Shape, Table, choice, or, required, section, text, wrong_type};
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
        /// What zones mean: `any` nothing, `prefer_own` that servers of the top's `zone` are used before others.
        "zones" zones: RawZones = or("any"),
        /// How many times its fair part of the traffic a server can bear, 1-100: what priority groups and zones take before they overflow.
        "overprovision" overprovision: LoadFactor = or(format!("{:.1}", defaults::OVERPROVISION)),
        /// How long a server that begins to serve beside others takes to get all of its weight, or the long form.
        "slow_start" slow_start: Off<RawSlowStart> = or("off"),
        /// How servers are probed; without it by TCP connect.
        "health_check" health_check: RawHealth = or("tcp"),
        /// How servers are asked what traffic they want, beside their health.
        "agent_check" agent_check: Off<RawAgent> = or("off"),
        /// Server-side times.
        "timeouts" timeouts: RawPoolTimeouts = or("its own defaults"),
        /// Server-side bounds.
        "limits" limits: RawPoolLimits = or("its own defaults"),
        /// When and how often another server is tried.
        "retries" retries: Off<RawRetries> = or("its own defaults"),
        /// A second try beside a slow first one: the first response head below 500 wins.
        "hedge" hedge: Off<RawHedge> = or("off"),
        /// How draining a server goes.
        "drain" drain: RawDrain = or("its own defaults"),
        /// The HTTP version that its servers speak: 1, 2, or `auto`, which each of them chooses; or the long form.
        "http" http: RawHttp = or(1),
        /// Bounds the requests that each server holds at once by what its latency shows: `gradient`, or the long form. HTTP only.
        "adaptive_concurrency" adaptive_concurrency: Off<RawAdaptive> = or("off"),
        /// How servers are judged by their traffic; on by default. `off`: only by connections that they refuse.
        "outlier_detection" outlier_detection: Off<RawOutlier> = or("its own defaults"),
        /// When fewer than this share of the servers are not judged bad, those that answer serve too, however they are judged.
        "panic_threshold" panic_threshold: Percent = or("0%"),
        /// The alarm goes on when, without the biggest server or zone, the load would be this share of the room that is left; known where every server has `max_connections`.
        "capacity_alarm" capacity_alarm: Off<Percent> = or(format!("{}%", defaults::CAPACITY_ALARM)),
        /// TLS to its servers: `on`, or the long form.
        "tls" tls: Off<RawPoolTls> = or("off"),
        /// What binds a client to a server: a kind by its name, or one key with more.
        "affinity" affinity: Off<RawAffinity> = or("off"),
    } later []
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
        /// Its group: servers of 0 are used first, and overflow to 1 and so on; 0-100.
        "priority" priority: Whole<0, 100> = or(0),
        /// Used only while no other server of the pool is fit to serve.
        "backup" backup: bool = or(false),
        /// Where it is.
        "zone" zone: Text = or("none"),
        /// What it is marked with, for routes that choose servers by label: names with a value each.
        "labels" labels: Named<Text> = or("none"),
    } later []
}

section! {
    /// Server-side times.
    RawPoolTimeouts "pool timeouts" {
        /// One connection attempt, with its TLS handshake.
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
        /// Sockets open to one server, idle ones included. Each carries one request, or over HTTP/2 as many as `http.streams` and the server allow.
        "connections_per_server" connections_per_server: Whole<1, 1_000_000> = or(defaults::CONNECTIONS_PER_SERVER),
        /// Requests that wait while every server is full (elsewhere: max_pending); `off`: they are answered 503 at once.
        "queue" queue: Off<Whole<1, 1_000_000>> = or(defaults::QUEUE),
        /// Requests in use at once, and sockets open, at all servers together; further requests wait in the queue.
        "max_connections" max_connections: Off<Whole<1, 10_000_000>> = or("off"),
        /// Requests at once, those that wait included; further ones are answered 503 at once.
        "max_requests" max_requests: Off<Whole<1, 10_000_000>> = or("off"),
        /// Requests at their further try at once; further ones are not tried again.
        "max_retries" max_retries: Off<Whole<0, 10_000_000>> = or("off"),
        /// How long a request waits in the queue.
        "queue_wait" queue_wait: Wait = or(show_duration(defaults::QUEUE_WAIT)),
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
    /// How servers are probed. With `service` it is a gRPC probe, with any key of HTTP an HTTP probe, else a TCP connect.
    RawHealthCheck "health_check" {
        /// Target of the request; HTTP.
        "path" path: Text = or(defaults::HEALTH_PATH),
        /// Method of the request; HTTP.
        "method" method: Text = or(defaults::HEALTH_METHOD),
        /// `Host` of the request; HTTP and gRPC.
        "host" host: Text = or("the server's address"),
        /// Further headers of the request; HTTP and gRPC.
        "headers" headers: Named<Text> = or("none"),
        /// Statuses that are success: a number, a range `200-299`, or a list of them; HTTP.
        "status" status: Many<RawStatus> = or("200-299"),
        /// Text that the first 64 KiB of the answer's body must hold; HTTP.
        "body" body: Text = or("any"),
        /// Statuses by which a server that is well asks for no new traffic; HTTP.
        "drain_status" drain_status: Many<RawStatus> = or("none"),
        /// Fields by which it does, any of them: `"x-drain: true"`, or `x-drain` with any value; HTTP.
        "drain_header" drain_header: Many<RawMark> = or("none"),
        /// Statuses by which it asks for no traffic at all; HTTP.
        "maintenance_status" maintenance_status: Many<RawStatus> = or("none"),
        /// Fields by which it does; HTTP.
        "maintenance_header" maintenance_header: Many<RawMark> = or("none"),
        /// What `grpc.health.v1.Health/Check` is asked about; empty for the server as a whole; gRPC.
        "service" service: Text = or("the server as a whole"),
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
    Grpc(Box<RawHealthCheck>),
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
                    "grpc" => Box::read(&entry.value, report).map(Self::Grpc),
                    _ => Box::read(node, report).map(Self::Either),
                }
            }
            Value::Scalar(Scalar {
                kind: ScalarKind::Text,
                ..
            }) => {
                let absent = || Box::new(RawHealthCheck::absent());
                Some(
                    match crate::read::word(node, "a health check", HEALTH_WORDS, report)? {
                        "off" => Self::Off,
                        "tcp" => Self::Tcp(absent()),
                        "grpc" => Self::Grpc(absent()),
                        _ => Self::Http(absent()),
                    },
                )
            }
            _ => {
                wrong_type(node, "`off`, `tcp`, `http`, `grpc` or a map", report);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![
            Shape::Words(HEALTH_WORDS),
            Shape::OneKey(probes),
            RawHealthCheck::shape(),
        ])
    }
}

/// A health check by its bare name.
const HEALTH_WORDS: &[&str] = &["off", "tcp", "http", "grpc"];

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
            choice(
                "grpc",
                "A `grpc.health.v1.Health/Check` on a new connection of HTTP/2: success is `SERVING`.",
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

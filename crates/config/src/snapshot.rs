//! The compiled, immutable form of one config, which every worker reads.
//!
//! Everything here is resolved: defaults are filled in, names are indices, texts are compiled.
//! It holds no live state; what a server is doing right now lives in `control`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use balance::Percentile;
use rules::{Cidr, Filter, HostPattern, RouteTable, Scratch};
use wire::grpc::Code;

use crate::labels::Labels;

mod acme;
mod affinity;
mod learning;
mod tls;

pub use acme::{Acme, Challenge, ExternalAccount, Issuer};
pub use affinity::{Affinity, AffinityKind, InsertedCookie, Secret, Strength};
pub use learning::{Learning, LearntBy};
pub use tls::{
    Certificate, ClientAuth, KeyForm, ListenerTls, PoolTls, PrivateKey, Staple, TlsVersion, Trust,
};

/// One whole config, compiled.
#[derive(Debug)]
pub struct Snapshot {
    /// Worker threads; `None`: one for each core that the process may use.
    pub workers: Option<u16>,
    /// The admin listener; `None` when the config says `off`.
    pub admin: Option<Admin>,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// Bytes that buffers of the process may hold: `None` not given, `Some(None)` off.
    pub buffer_bytes_max: Option<Option<u64>>,
    /// Where the access log goes; `None` when it is off.
    pub access_log: Option<AccessLog>,
    /// Signs what clients carry.
    pub secret: Option<Secret>,
    /// Path of the file that keeps operators' words over a restart; `None` when it is off.
    pub state_file: Option<String>,
    /// In the order of the file.
    pub listeners: Vec<Listener>,
    /// In the order of the file; routes refer to them by index.
    pub pools: Vec<Pool>,
    /// Every file that this config was read from, the main one first.
    pub files: Vec<String>,
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Where it listens.
    pub bind: SocketAddr,
    /// Whether the user wrote the address: then a taken port is an error, else the next free one is used.
    pub written: bool,
    /// File that holds the token; required away from loopback.
    pub token_file: Option<String>,
}

/// How the process ends after SIGTERM.
#[derive(Debug, Clone, PartialEq)]
pub struct Shutdown {
    /// Time between `/health` saying "draining" and the sockets closing.
    pub delay: Duration,
    /// How long an idle keep-alive connection stays open for one more request.
    pub idle_wait: Duration,
    /// After this, what is left is cut, and who waits for an answer is told so.
    pub timeout: Duration,
}

/// The access log.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// Where lines go.
    pub to: LogTarget,
    /// How a line looks.
    pub format: LogFormat,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to and opened again on a reload.
    File(String),
}

/// How an access-log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// The Common Log Format of the NCSA server.
    Common,
}

/// An address and protocol on which traffic is accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Its key in the config.
    pub name: Arc<str>,
    /// One or more addresses.
    pub binds: Vec<Bind>,
    /// TLS by the index of the bind; empty where none speaks it.
    pub tls: Vec<Option<Arc<ListenerTls>>>,
    /// A TLS handshake must be over within this; `None` is `off`.
    pub handshake: Option<Duration>,
    /// Connections at once; `None`: derived from the open-file limit at start.
    pub connections_max: Option<u32>,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: Arc<[Cidr]>,
    /// What is spoken, with what only that protocol has.
    pub protocol: Protocol,
}

/// One address of a listener.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bind {
    /// An IP address and port. `dual_stack`: an IPv6 wildcard that takes IPv4 too (written `":443"`).
    Tcp {
        /// The address; port 0 asks the kernel for one.
        address: SocketAddr,
        /// Whether IPv4 arrives on the same socket.
        dual_stack: bool,
        /// Whose it is, with port 0: each listener has a port of its own. `None` with any other port.
        listener: Option<Arc<str>>,
    },
    /// A Unix socket path.
    Unix(String),
}

impl Bind {
    /// Whether both ask the kernel for a port at the same address, each for its own listener.
    #[must_use]
    pub fn is_same_but_for_owner(&self, other: &Self) -> bool {
        let without = |bind: &Self| match bind.clone() {
            Self::Tcp {
                address,
                dual_stack,
                listener: Some(_),
            } => Some((address, dual_stack)),
            _ => None,
        };
        without(self).is_some() && without(self) == without(other)
    }
}

/// What a listener speaks.
#[derive(Debug, Clone, PartialEq)]
pub enum Protocol {
    /// HTTP/1.1 (and 1.0).
    Http(Box<HttpListener>),
    /// Bytes.
    Tcp(TcpListener),
}

/// The HTTP half of a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpListener {
    /// Finds the index into `routes`.
    pub table: RouteTable,
    /// In matching order.
    pub routes: Vec<Route>,
    /// 0-9: while a pool's servers are full, the higher is served first; a route's own goes before.
    pub priority: u8,
    /// Client-side times.
    pub timeouts: ClientTimeouts,
    /// Client-side bounds.
    pub limits: ClientLimits,
    /// What is told to servers about the client.
    pub forwarded: rules::forward::Options,
    /// Lower-case `Upgrade` tokens that may pass.
    pub upgrades: Vec<String>,
    /// HTTP/2; `None`: only HTTP/1 is spoken.
    pub http2: Option<Http2ToClients>,
}

/// HTTP/2 with clients.
#[derive(Debug, Clone, PartialEq)]
pub struct Http2ToClients {
    /// Streams of one connection at once.
    pub streams: u32,
    /// Bytes of a request body that may wait for its server, below 2^31.
    pub stream_window: u32,
    /// The same for all streams of a connection, below 2^31.
    pub connection_window: u32,
    /// Streams that the client of one connection may give up within 10 s.
    pub resets: Option<u32>,
    /// Silence of a client with open streams after which it is asked for a sign of life.
    pub ping_after: Option<Duration>,
    /// How long it may take to answer.
    pub ping_timeout: Duration,
}

/// The TCP half of a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpListener {
    /// Where connections go; nowhere where there are routes.
    pub target: Target,
    /// By what TLS clients ask for, the first match wins; what none takes is closed.
    pub routes: Vec<TcpRoute>,
    /// 0-9: while its pool's servers are full, the higher is served first.
    pub priority: u8,
    /// Closed after this long without a byte in either direction.
    pub idle: Option<Duration>,
    /// Closed after this long half-closed and silent.
    pub half_closed: Option<Duration>,
}

/// Where TLS goes that is passed on as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpRoute {
    /// Given, or its position counted from 1.
    pub name: Arc<str>,
    /// Names that a client asks for; empty: any, or none.
    pub sni: Vec<HostPattern>,
    /// What it would speak, any of these; empty: whatever it is.
    pub alpn: Vec<String>,
    /// Where it goes.
    pub target: Target,
}

impl TcpRoute {
    /// Whether it takes a client that asks for this name, in lower case, and would speak this.
    pub fn takes(&self, name: Option<&str>, alpn: &[Vec<u8>], scratch: &mut Scratch) -> bool {
        let named = |pattern: &HostPattern, scratch: &mut Scratch| {
            name.is_some_and(|name| pattern.matches(name.as_bytes(), scratch))
        };
        let speaks = |wanted: &String| alpn.iter().any(|offered| offered == wanted.as_bytes());
        (self.sni.is_empty() || self.sni.iter().any(|pattern| named(pattern, scratch)))
            && (self.alpn.is_empty() || self.alpn.iter().any(speaks))
    }
}

/// What a route leads to.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// One place.
    Pool(Destination),
    /// Arms with their weights, at least one above 0.
    Split(Vec<Arm>),
    /// Nothing: a filter of the route answers (`respond`, `redirect`).
    Answer,
}

impl Target {
    /// All the places that it leads to.
    #[must_use]
    pub fn destinations(&self) -> Vec<Destination> {
        match self {
            Self::Pool(to) => vec![*to],
            Self::Split(arms) => arms.iter().map(|arm| arm.to).collect(),
            Self::Answer => Vec::new(),
        }
    }
}

/// A pool, or a subset of its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Pool index.
    pub pool: usize,
    /// Index among the pool's subsets; `None`: all of its servers.
    pub subset: Option<u32>,
}

impl Destination {
    /// All servers of the pool with this index.
    #[must_use]
    pub const fn whole(pool: usize) -> Self {
        Self { pool, subset: None }
    }

    /// The labels of the servers that are meant; `None`: all of the pool are.
    #[must_use]
    pub fn labels<'a>(&self, pools: &'a [Pool]) -> Option<&'a Labels> {
        let subset = usize::try_from(self.subset?).ok()?;
        pools.get(self.pool)?.subsets.get(subset)
    }

    /// As people read it: `web`, `web (version=v2)`.
    #[must_use]
    pub fn shown(&self, pools: &[Pool]) -> String {
        let name = pools.get(self.pool).map_or("?", |pool| &*pool.name);
        match self.labels(pools) {
            Some(labels) => format!("{name} ({labels})"),
            None => name.to_owned(),
        }
    }
}

/// One arm of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arm {
    /// Where its requests go.
    pub to: Destination,
    /// 0-1000.
    pub weight: u32,
}

/// A match (in the table) plus what happens to what matches.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Given, or its position counted from 1.
    pub name: Arc<str>,
    /// Whether clients that have shown no certificate are refused.
    pub requires_client_cert: bool,
    /// In order.
    pub filters: Vec<Filter>,
    /// Where requests go.
    pub target: Target,
    /// Overrides the pool's `timeouts.request`: `None` not given, `Some(None)` off.
    pub request_timeout: Option<Option<Duration>>,
    /// 0-9: while its pool's servers are full, the higher is served first. `None`: as the listener says.
    pub priority: Option<u8>,
    /// Its own policy for each pool that it leads to; empty: as the pools say.
    pub retries: Vec<(usize, Retries)>,
}

impl Route {
    /// Its policy for requests that go to the pool with this index: its own, or the pool's. A route without one of its
    /// own costs no search.
    #[must_use]
    pub fn retries_of<'a>(&'a self, index: usize, pool: &'a Pool) -> &'a Retries {
        let own = self.retries.iter().find(|(of, _)| *of == index);
        own.map_or(&pool.retries, |(_, own)| own)
    }
}

/// Client-side times; `None` is `off`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientTimeouts {
    /// From the first byte of a head to its end (and from accept to the first byte of a new connection).
    pub header: Option<Duration>,
    /// Between two pieces of a request body.
    pub body_idle: Option<Duration>,
    /// Between two successful writes to the client.
    pub write_idle: Option<Duration>,
    /// Between two requests of one connection.
    pub keep_alive: Option<Duration>,
}

/// Client-side bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientLimits {
    /// Bytes of a request head.
    pub header_bytes: usize,
    /// Fields of a request head.
    pub headers: usize,
    /// Bytes of a request target.
    pub uri_bytes: usize,
    /// Bytes of a request body; `None` is `off`.
    pub body_bytes: Option<u64>,
}

/// A set of servers with one balancing, health and resilience policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Its key in the config.
    pub name: Arc<str>,
    /// In the order of the file.
    pub servers: Vec<Server>,
    /// Which server gets a request.
    pub balance: Balance,
    /// What binds a client to a server; `None`: nothing does.
    pub affinity: Option<Affinity>,
    /// TLS to its servers; `None`: plain.
    pub tls: Option<Arc<PoolTls>>,
    /// How HTTP/2 is spoken to its servers; `None`: they get HTTP/1.1.
    pub http2: Option<Http2>,
    /// Server-side times.
    pub timeouts: ServerTimeouts,
    /// Sockets open to one server, idle ones included.
    pub connections_per_server: u32,
    /// Requests in use, and sockets open, at all servers together; `None` is `off`.
    pub connections_max: Option<u32>,
    /// Requests at once, those that wait included; `None` is `off`.
    pub requests_max: Option<u32>,
    /// Requests at their further try at once; `None` is `off`.
    pub retries_max: Option<u32>,
    /// How the requests in use of each server are bounded by its latency; `None` is `off`.
    pub adaptive_concurrency: Option<balance::adaptive::Settings>,
    /// Where requests wait while every server is full; `None` is `off`.
    pub queue: Option<Queue>,
    /// When and how often another server is tried.
    pub retries: Retries,
    /// Own zone, if its servers are preferred.
    pub prefer_zone: Option<PreferZone>,
    /// How many times its fair part of the traffic a server can bear; at least 1.
    pub overprovision: f64,
    /// How a server that begins to serve beside others gets its weight; `None` is `off`.
    pub slow_start: Option<balance::SlowStart>,
    /// Active probes; `None` is `off`.
    pub health_check: Option<HealthCheck>,
    /// How servers are judged by their traffic; `None` is `off`.
    pub outlier_detection: Option<balance::outlier::Settings>,
    /// Percent of the servers: with fewer than that not judged bad, those that answer serve too.
    pub panic_threshold: u32,
    /// Percent of the room that is left without the biggest server or zone: from there on the alarm is on; `None` is
    /// `off`.
    pub capacity_alarm: Option<u32>,
    /// How servers are asked what traffic they want; `None` is `off`.
    pub agent_check: Option<AgentCheck>,
    /// What routes choose of its servers by label.
    pub subsets: Vec<Labels>,
    /// How long a drain waits, unless told otherwise.
    pub drain_timeout: Option<Duration>,
    /// How long a resolved name is kept when its answer states no TTL.
    pub name_ttl: Duration,
}

/// How HTTP/2 is spoken to servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2 {
    /// Requests at once on one connection, if the server wants no fewer.
    pub streams: u32,
    /// Silence of a server that was sent something, after which it is asked whether it is there; `None` is `off`.
    pub ping_after: Option<Duration>,
    /// Silence after that, after which its connection is given up.
    pub ping_timeout: Duration,
    /// Whether each server chooses between it and HTTP/1.1, by ALPN.
    pub auto: bool,
}

/// What is spoken to servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerHttp {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// What each server chooses of both, by ALPN.
    Auto,
}

impl ServerHttp {
    /// That of a pool.
    pub(crate) fn of(http2: Option<&Http2>) -> Self {
        match http2 {
            None => Self::Http1,
            Some(http2) if http2.auto => Self::Auto,
            Some(_) => Self::Http2,
        }
    }
}

/// The zone whose servers a pool prefers.
#[derive(Debug, Clone, PartialEq)]
pub struct PreferZone {
    /// This instance's own.
    pub zone: Arc<str>,
    /// What percentage of the pool's whole traffic comes in there; `None`: as much as at each other zone.
    pub traffic: Option<u32>,
}

/// Where requests wait while every server of a pool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Requests that wait at once.
    pub max: u32,
    /// How long each waits, over all its tries.
    pub wait: Duration,
}

/// A server as configured. A DNS name may become several members at run time.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Identifies it across reloads; unique in its pool.
    pub name: Arc<str>,
    /// Where it is.
    pub address: Address,
    /// 0-1000; 0 takes no new traffic.
    pub weight: u32,
    /// Requests in use at once.
    pub connections_max: Option<u32>,
    /// Its group: 0 is used first.
    pub priority: u32,
    /// Used only while no other is fit to serve.
    pub backup: bool,
    /// Where it is, as other servers' zones and the own one are named.
    pub zone: Option<Arc<str>>,
    /// What it is marked with.
    pub labels: Arc<Labels>,
    /// Where the user wrote it: `FILE:LINE:COLUMN`.
    pub place: Arc<str>,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A DNS name and port.
    Name(Arc<str>, u16),
    /// A Unix socket path.
    Unix(Arc<str>),
}

/// Which server gets a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Balance {
    /// As the user wrote it, for display.
    pub name: &'static str,
    /// The algorithm.
    pub algorithm: balance::Algorithm,
    /// What hashing algorithms hash.
    pub key: HashKey,
}

/// What hashing algorithms hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The source address.
    Source,
    /// The value of a header, by lower-case name.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// The value of a query parameter.
    Query(String),
    /// The normalised path.
    Path,
}

/// Server-side times; `None` is `off`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerTimeouts {
    /// For one connection attempt.
    pub connect: Option<Duration>,
    /// From the last byte of the request to the first of the response.
    pub first_byte: Option<Duration>,
    /// Between two pieces of a response.
    pub idle: Option<Duration>,
    /// The whole request.
    pub request: Option<Duration>,
    /// Silence of a tunnel, both directions.
    pub tunnel: Option<Duration>,
    /// How long an idle connection to a server is kept.
    pub keep_alive: Duration,
}

/// When and how often another server is tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Retries {
    /// Further tries after the first.
    pub attempts: u32,
    /// Share of live requests that may be retries, percent; the pool's, whatever a route says.
    pub budget_percent: u32,
    /// From the last byte of the request to the whole response head, before another server is tried.
    pub per_try_timeout: Option<Duration>,
    /// Statuses after which another server is tried, as inclusive ranges.
    pub statuses: Vec<(u16, u16)>,
    /// Codes of gRPC after which a call is tried again at another server; bit 14 is `UNAVAILABLE`.
    pub codes: u32,
    /// Waits before a request that was sent is sent again.
    pub backoff: Option<Backoff>,
    /// POST may be done twice.
    pub repeats_post: bool,
    /// PATCH may be done twice.
    pub repeats_patch: bool,
    /// A further try beside a slow one.
    pub hedge: Option<Hedge>,
}

impl Retries {
    /// Whether a server is ever given up that has not failed: for its slowness, or for its answer.
    #[must_use]
    pub fn gives_up(&self) -> bool {
        self.attempts > 0
            && (self.per_try_timeout.is_some() || !self.statuses.is_empty() || self.codes != 0)
    }

    /// Whether a call of gRPC may be tried again because of the code that a server answered, whatever its method.
    #[must_use]
    pub fn repeats_calls(&self) -> bool {
        self.attempts > 0 && self.codes != 0
    }

    /// Whether another server is tried after an answer with this code of gRPC.
    #[must_use]
    pub fn is_code_retried(&self, code: Code) -> bool {
        self.codes >> code.number() & 1 == 1
    }

    /// Whether another server is tried after an answer with `status`.
    #[must_use]
    pub fn is_retried(&self, status: u16) -> bool {
        let mut ranges = self.statuses.iter();
        ranges.any(|(from, to)| (*from..=*to).contains(&status))
    }
}

/// Bounds of the random wait before a further try: `base`, doubled each time, at most `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Bound of the first wait.
    pub base: Duration,
    /// Bound of each.
    pub max: Duration,
}

impl Backoff {
    /// The bound of the wait before the further try with this number, from 1.
    #[must_use]
    pub fn bound(&self, retry: u32) -> Duration {
        let doublings = retry.saturating_sub(1).min(31);
        self.base.saturating_mul(1 << doublings).min(self.max)
    }
}

/// A further try beside a slow one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedge {
    /// How long the response head of the try before may take.
    pub after: HedgeAfter,
    /// Such tries of one request, at most.
    pub max: u32,
}

/// How long a try goes on alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeAfter {
    /// So long.
    Time(Duration),
    /// As long as most answers took.
    Measured(Measured),
}

/// A time that follows from what was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// The share of answers that came sooner.
    pub percentile: Percentile,
    /// No sooner than this.
    pub at_least: Duration,
    /// No later than this, which also holds until enough was measured; `None`: until then there is no further try.
    pub at_most: Option<Duration>,
    /// A route's own: measured on its requests, not on those of the pool.
    pub of_route: bool,
}

impl Measured {
    /// The wait, with what was `found` up to now; `None`: not known yet.
    #[must_use]
    pub fn wait(&self, found: Option<Duration>) -> Option<Duration> {
        let wait = found.or(self.at_most)?.max(self.at_least);
        Some(self.at_most.map_or(wait, |most| wait.min(most)))
    }
}

/// Active probes of a pool's servers.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// What a probe does.
    pub probe: Probe,
    /// TLS of the pool: a probe speaks it too.
    pub tls: Option<Arc<PoolTls>>,
    /// What an HTTP probe speaks: the same as the pool's traffic.
    pub http: ServerHttp,
    /// Probe this port instead of the server's own.
    pub port: Option<u16>,
    /// Between two probes of one server that is up.
    pub interval: Duration,
    /// Of a whole probe.
    pub timeout: Duration,
    /// Successes in a row until a server that was down is up.
    pub healthy_threshold: u32,
    /// Failures in a row until it is down.
    pub unhealthy_threshold: u32,
    /// What a server is before its first probe has ended.
    pub initial: InitialHealth,
}

/// What a server is before its first probe has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialHealth {
    /// Picked only while its pool has no healthy one.
    Unknown,
    /// Picked at once.
    Healthy,
    /// Not picked before its first success.
    Unhealthy,
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// A TCP connect.
    Tcp,
    /// One HTTP request on a new connection.
    Http(HttpProbe),
    /// One `grpc.health.v1.Health/Check` on a new connection.
    Grpc(GrpcProbe),
}

/// One gRPC probe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrpcProbe {
    /// What is asked about; empty for the server as a whole.
    pub service: String,
    /// `:authority`; the server's address when not given.
    pub host: Option<String>,
    /// Further metadata.
    pub headers: Vec<(String, String)>,
}

/// One HTTP probe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpProbe {
    /// Request target.
    pub path: String,
    /// `GET` unless given.
    pub method: String,
    /// `Host`; the server's address when not given.
    pub host: Option<String>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Inclusive ranges of statuses that count as success.
    pub status: Vec<(u16, u16)>,
    /// Text that the first 64 KiB of the body must hold.
    pub body: Option<String>,
    /// By what in its answer a server that is well asks for no new traffic.
    pub drain: Box<Mark>,
    /// By what it asks for no traffic at all.
    pub maintenance: Box<Mark>,
}

/// What of an answer to a probe is a word of the server's own: any of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// Inclusive ranges of statuses.
    pub status: Vec<(u16, u16)>,
    /// Fields by lower-case name; without a value, any will do.
    pub headers: Vec<(String, Option<String>)>,
}

impl Mark {
    /// Whether nothing is such a word.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.status.is_empty() && self.headers.is_empty()
    }
}

/// HAProxy's agent check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCheck {
    /// On the server's own address.
    pub port: u16,
    /// Between two checks.
    pub interval: Duration,
    /// Of a whole check.
    pub timeout: Duration,
    /// Sent once connected; possibly nothing.
    pub send: String,
}

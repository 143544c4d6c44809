//! Every default of the config in one place; the readers, the schema and the reference use these.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Where the admin listener binds: loopback, unless told otherwise.
pub const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);

/// Before the sockets close at the end; 0: at once.
pub const SHUTDOWN_DELAY: Duration = Duration::ZERO;
/// An idle keep-alive connection stays open this long for one more request at the end.
pub const SHUTDOWN_IDLE_WAIT: Duration = Duration::from_secs(5);
/// After this, what is left at the end is cut.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// Certificates from files that end within this are told of.
pub const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// The directory of Let's Encrypt.
pub const ACME_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Where accounts, keys and certificates are kept.
pub const ACME_STORE: &str = "/var/lib/evenkeel/acme";

/// A TLS handshake must be over within this.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// A request head must be complete within this: slowloris.
pub const CLIENT_HEADER: Duration = Duration::from_secs(10);
/// Between two pieces of a request body.
pub const CLIENT_BODY_IDLE: Duration = Duration::from_secs(30);
/// While a client takes nothing of an answer.
pub const CLIENT_WRITE_IDLE: Duration = Duration::from_secs(30);
/// Above the 60 s idle of a cloud balancer in front.
pub const CLIENT_KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Database pools sit idle.
pub const TCP_IDLE: Duration = Duration::from_secs(3600);
/// Half-closed and silent.
pub const TCP_HALF_CLOSED: Duration = Duration::from_secs(300);

/// Bytes of a request head; more is 431.
pub const HEADER_BYTES: u64 = 32 << 10;
/// Fields of a request head; more is 431.
pub const HEADERS: u64 = 128;
/// Bytes of a request target; more is 414.
pub const URI_BYTES: u64 = 8 << 10;

/// Streams of one HTTP/2 connection of a client at once.
pub const HTTP2_STREAMS: u32 = 128;
/// Bytes of a request body over HTTP/2 that may wait here, for one stream.
pub const HTTP2_STREAM_WINDOW: u64 = 256 << 10;
/// The same for all streams of a connection.
pub const HTTP2_CONNECTION_WINDOW: u64 = 1 << 20;
/// Streams that a client may give up within 10 s: rapid reset.
pub const HTTP2_RESETS: u32 = 100;
/// Silence of a client with open streams before it is asked whether it lives.
pub const HTTP2_PING_AFTER: Duration = Duration::from_secs(60);
/// How long it may take to answer.
pub const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Survives one lost SYN.
pub const CONNECT: Duration = Duration::from_secs(2);
/// What nginx users expect.
pub const FIRST_BYTE: Duration = Duration::from_secs(60);
/// What nginx users expect.
pub const IDLE: Duration = Duration::from_secs(60);
/// Silence of a WebSocket; 60 s is what people complain of.
pub const TUNNEL: Duration = Duration::from_secs(3600);
/// Many servers close at 5 s: the classic 502 race.
pub const SERVER_KEEP_ALIVE: Duration = Duration::from_secs(4);
/// Below the number of local ports for one address.
pub const CONNECTIONS_PER_SERVER: u32 = 10_000;
/// Requests of one pool that wait while its servers are full.
pub const QUEUE: u32 = 1_000;
/// How long one waits: longer than a busy moment, shorter than a client's patience.
pub const QUEUE_WAIT: Duration = Duration::from_secs(5);
/// Of a request whose route says nothing, from 0 to 9.
pub const PRIORITY: u8 = 5;
/// Further tries, on other servers.
pub const RETRY_ATTEMPTS: u32 = 2;
/// Percent of live requests that may be retries.
pub const RETRY_BUDGET: u32 = 20;
/// Bound of the wait before a further try, where waits are asked for.
pub const BACKOFF_BASE: Duration = Duration::from_millis(25);
/// Bound of every such wait.
pub const BACKOFF_MAX: Duration = Duration::from_millis(250);
/// Further tries beside a slow one, where they are asked for.
pub const HEDGE_MAX: u32 = 1;
/// The shortest wait before them that follows from a percentile.
pub const HEDGE_AT_LEAST: Duration = Duration::from_millis(10);
/// Requests at once on one connection to a server over HTTP/2.
pub const SERVER_HTTP2_STREAMS: u32 = 128;
/// Silence over HTTP/2 after which a server is asked whether it is there: no request is answered so late by one that is
/// well, and servers do not mind one PING in so long.
pub const SERVER_HTTP2_PING_AFTER: Duration = Duration::from_secs(10);
/// For the answer to that.
pub const SERVER_HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Percent of the room that is left without the biggest server or zone.
pub const CAPACITY_ALARM: u32 = 100;
/// How long a drain waits.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Counts in every algorithm.
pub const WEIGHT: u32 = 1;
/// How many times its fair part of the traffic a server can bear before it overflows: what Envoy uses.
pub const OVERPROVISION: f64 = 1.4;
/// The slope of a slow start.
pub const SLOW_START_AGGRESSION: f64 = 1.0;
/// Percent of its weight that a slow start begins with.
pub const SLOW_START_FLOOR: u32 = 10;
/// How long a resolved name is kept when its answer states no TTL.
pub const NAME_TTL: Duration = Duration::from_secs(30);

/// Between two probes of a server that is up.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
/// Of a whole probe.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// Successes in a row until a server that was down is up.
pub const HEALTHY_THRESHOLD: u32 = 2;
/// Failures in a row until a server is down.
pub const UNHEALTHY_THRESHOLD: u32 = 3;
/// Target of an HTTP probe.
pub const HEALTH_PATH: &str = "/";
/// Method of an HTTP probe.
pub const HEALTH_METHOD: &str = "GET";
/// Statuses that an HTTP probe takes for success.
pub const HEALTH_STATUS: (u16, u16) = (200, 299);

/// Between two agent checks, as HAProxy has it.
pub const AGENT_INTERVAL: Duration = Duration::from_secs(2);

/// Of a whole agent check.
pub const AGENT_TIMEOUT: Duration = Duration::from_secs(2);

/// Name of the cookie that says which server a client is bound to.
pub const AFFINITY_COOKIE: &str = "SERVERID";
/// Bits of an IPv6 address that tell clients apart: what one household or machine gets.
pub const AFFINITY_IPV6_PREFIX: u8 = 64;
/// Clients of a pool whose server is learnt.
pub const LEARNT_ENTRIES: u32 = 100_000;
/// A client that did not come for so long is forgotten.
pub const LEARNT_EXPIRE: Duration = Duration::from_secs(30 * 60);
/// A part of a pool's requests, percent: one address that sends so many is told of.
pub const SOURCE_ALARM: u32 = 25;
/// Bytes that a secret has at least.
pub const SECRET_BYTES_MIN: usize = 16;

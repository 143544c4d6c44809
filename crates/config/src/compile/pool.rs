//! Pools: servers, algorithm, health.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use balance::Algorithm;

use super::adaptive::compile_adaptive;
use super::affinity::compile_affinity;
use super::destination::compile_labels;
use super::http::compile_http;
use super::outlier::compile_outlier;
use super::probe::{self, Kinds};
use super::retries::compile_retries;
use super::room::warn_of_room;
use super::tls::Keys;
use super::{address_error, check_unique, place, said, section_or_absent, wait_or_off};
use crate::address::parse_server;
use crate::diagnostic::{Kind, Report, Span};
use crate::raw::{
    RawBalance, RawDrain, RawHealth, RawHealthCheck, RawKey, RawPool, RawPoolLimits,
    RawPoolTimeouts, RawServer,
};
use crate::read::At;
use crate::snapshot::{
    Address, Balance, HashKey, HealthCheck, InitialHealth, Pool, PoolTls, Probe, Queue, Server,
    ServerHttp, ServerTimeouts,
};
use crate::units::{Wait, show_duration};
use crate::values::{self, Named, Off, Whole};
use crate::{Source, defaults};

/// Probes of one server are at least this far apart.
pub(super) const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Every pool that could be read, in the order of the file.
pub(crate) fn compile_pools(
    raw: Named<RawPool>,
    zone: Option<&Arc<str>>,
    source: &dyn Source,
    keys: &mut Keys<'_>,
    report: &mut Report,
) -> Vec<Pool> {
    let mut resolved = BTreeMap::new();
    let mut resolves = |name: &Arc<str>| -> bool {
        *resolved
            .entry(Arc::clone(name))
            .or_insert_with(|| source.resolves(name) != Some(false))
    };
    raw.items
        .into_iter()
        .map(|(name, pool)| compile_pool(&name, pool, zone, &mut resolves, keys, report))
        .collect()
}

fn compile_pool(
    name: &str,
    At {
        value: raw, key, ..
    }: At<RawPool>,
    zone: Option<&Arc<str>>,
    resolves: &mut dyn FnMut(&Arc<str>) -> bool,
    keys: &mut Keys<'_>,
    report: &mut Report,
) -> Pool {
    let mut servers = Vec::new();
    let mut names = BTreeMap::new();
    if let Some(raw) = raw.servers {
        if raw.value.empty {
            report.error(
                Kind::Empty,
                raw.key,
                format!("the pool `{name}` has no servers"),
            );
        }
        for server in raw.value.items {
            servers.extend(compile_server(server, &mut names, resolves, report));
        }
    }
    if !servers.is_empty() && servers.iter().all(|server| server.weight == 0) {
        let message = format!("every weight of the pool `{name}` is 0: it takes no new traffic");
        report.warn(Kind::Weight, key, message);
    }
    if !raw.written.contains(&"health_check") {
        let message = format!(
            "the pool `{name}` is probed by TCP connect only; `health_check: {{ path: /health }}` asks its servers"
        );
        report.note(Kind::TcpOnly, key, message);
    }
    let prefer_zone = place::compile_zones(raw.zones, zone, &servers, report);
    place::warn_all_backups(&servers, key, report);
    let agent_check = said::compile_agent(raw.agent_check, &servers, report);
    let http_at = raw.http.as_ref().map(|http| http.span);
    let http2 = compile_http(raw.http, report);
    let http = ServerHttp::of(http2.as_ref());
    let tls = keys.pool(raw.tls, http, report);
    check_auto(http, tls.is_some(), http_at, report);
    let affinity = compile_affinity(raw.affinity, &servers, report);
    let timeouts = section_or_absent!(raw.timeouts, RawPoolTimeouts);
    let limits = section_or_absent!(raw.limits, RawPoolLimits);
    let drain = section_or_absent!(raw.drain, RawDrain);
    let sockets_at = limits.connections_per_server.as_ref().map(|n| n.key);
    let pool = Pool {
        name: name.into(),
        servers,
        balance: compile_balance(raw.balance),
        affinity,
        tls: tls.clone(),
        http2,
        timeouts: compile_timeouts(timeouts),
        connections_per_server: limits
            .connections_per_server
            .map_or(defaults::CONNECTIONS_PER_SERVER, |n| n.value.u32()),
        connections_max: count_or_off(limits.max_connections),
        requests_max: count_or_off(limits.max_requests),
        retries_max: count_or_off(limits.max_retries),
        adaptive_concurrency: compile_adaptive(raw.adaptive_concurrency, report),
        queue: compile_queue(limits.queue, limits.queue_wait),
        retries: compile_retries(raw.retries.as_ref(), raw.hedge.as_ref(), report),
        prefer_zone,
        overprovision: raw
            .overprovision
            .map_or(defaults::OVERPROVISION, |factor| factor.value.0),
        slow_start: place::compile_slow_start(raw.slow_start, report),
        health_check: compile_health(raw.health_check, tls, http, report),
        outlier_detection: compile_outlier(raw.outlier_detection, report),
        panic_threshold: raw.panic_threshold.map_or(0, |share| share.value.0),
        capacity_alarm: match raw.capacity_alarm {
            None => Some(defaults::CAPACITY_ALARM),
            Some(share) => share.value.on().map(|share| share.0),
        },
        agent_check,
        subsets: Vec::new(),
        drain_timeout: drain.timeout.map_or(Some(defaults::DRAIN_TIMEOUT), |time| {
            time.value.on().map(|time| time.0)
        }),
        name_ttl: defaults::NAME_TTL,
    };
    warn_of_room(&pool, sockets_at.unwrap_or(key), report);
    pool
}

/// Servers choose within the TLS handshake only.
fn check_auto(http: ServerHttp, secure: bool, at: Option<Span>, report: &mut Report) {
    if http == ServerHttp::Auto
        && !secure
        && let Some(at) = at
    {
        let message = "with `auto` servers choose their version in the TLS handshake (ALPN), and this pool has no `tls`: write `http: 1` or `http: 2`";
        report.error(Kind::Conflict, at, message);
    }
}

/// A number that `off` makes endless, which is the default.
fn count_or_off<const MIN: u64, const MAX: u64>(
    count: Option<At<Off<Whole<MIN, MAX>>>>,
) -> Option<u32> {
    count?.value.on().map(Whole::u32)
}

fn compile_server(
    At {
        value: RawServer(raw),
        ..
    }: At<RawServer>,
    names: &mut BTreeMap<String, Span>,
    resolves: &mut dyn FnMut(&Arc<str>) -> bool,
    report: &mut Report,
) -> Option<Server> {
    let written = raw.address?;
    let (name, name_span) = match raw.name {
        Some(name) => (name.value.0, name.span),
        None => (written.value.0.clone(), written.span),
    };
    let unique = check_unique(names, &name, name_span, "server", report);
    let address = match parse_server(&written.value.0) {
        Ok(address) => address,
        Err(error) => {
            address_error(error, written.span, report);
            return None;
        }
    };
    if let Address::Name(host, _) = &address
        && !resolves(host)
    {
        report.warn(
            Kind::Resolve,
            written.span,
            format!("`{host}` does not resolve now"),
        );
    }
    let zone = raw.zone.map(|zone| {
        values::check_name(&zone.value.0, zone.span, report);
        Arc::from(zone.value.0)
    });
    let place = report.files.place(written.span).to_string();
    unique.then(|| Server {
        name: name.into(),
        address,
        weight: raw
            .weight
            .map_or(defaults::WEIGHT, |weight| weight.value.u32()),
        connections_max: raw.max_connections.map(|max| max.value.u32()),
        priority: raw.priority.map_or(0, |priority| priority.value.u32()),
        backup: raw.backup.is_some_and(|backup| backup.value),
        zone,
        labels: Arc::new(compile_labels(raw.labels.as_ref(), report)),
        place: place.into(),
    })
}

fn compile_balance(raw: Option<At<RawBalance>>) -> Balance {
    let Some(At { value: raw, .. }) = raw else {
        return Balance {
            name: "power_of_two",
            algorithm: Algorithm::PowerOfTwo,
            key: HashKey::Source,
        };
    };
    let algorithm = match raw.name {
        "round_robin" | "weighted_round_robin" => Algorithm::RoundRobin,
        "least_connections" | "weighted_least_connections" => Algorithm::LeastConnections,
        "least_response_time" => Algorithm::LeastResponseTime {
            times_connections: raw.times_connections,
        },
        "ip_hash" => Algorithm::IpHash,
        "consistent_hash" => Algorithm::ConsistentHash {
            bounded_load: raw.bounded_load.map(|load| load.value.0),
        },
        "maglev" => Algorithm::Maglev,
        "random" => Algorithm::Random,
        "peak_ewma" => Algorithm::PeakEwma,
        _ => Algorithm::PowerOfTwo,
    };
    let key = hash_key_of(raw.key.map(|key| key.value));
    Balance {
        name: raw.name,
        algorithm,
        key,
    }
}

/// What is hashed; the client's address if nothing is said.
pub(super) fn hash_key_of(raw: Option<RawKey>) -> HashKey {
    match raw {
        None | Some(RawKey::Source) => HashKey::Source,
        Some(RawKey::Path) => HashKey::Path,
        Some(RawKey::Header(name)) => HashKey::Header(name),
        Some(RawKey::Cookie(name)) => HashKey::Cookie(name),
        Some(RawKey::Query(name)) => HashKey::Query(name),
    }
}

fn compile_timeouts(raw: RawPoolTimeouts) -> ServerTimeouts {
    ServerTimeouts {
        connect: wait_or_off(raw.connect, Some(defaults::CONNECT)),
        first_byte: wait_or_off(raw.first_byte, Some(defaults::FIRST_BYTE)),
        idle: wait_or_off(raw.idle, Some(defaults::IDLE)),
        request: wait_or_off(raw.request, None),
        tunnel: wait_or_off(raw.tunnel, Some(defaults::TUNNEL)),
        keep_alive: raw
            .keep_alive
            .map_or(defaults::SERVER_KEEP_ALIVE, |time| time.value.0),
    }
}

fn compile_queue(
    max: Option<At<Off<Whole<1, 1_000_000>>>>,
    wait: Option<At<Wait>>,
) -> Option<Queue> {
    let max = match max.map(|max| max.value) {
        None => defaults::QUEUE,
        Some(Off::Off) => return None,
        Some(Off::On(max)) => max.u32(),
    };
    let wait = wait.map_or(defaults::QUEUE_WAIT, |wait| wait.value.0);
    Some(Queue { max, wait })
}

fn compile_health(
    raw: Option<At<RawHealth>>,
    tls: Option<Arc<PoolTls>>,
    http: ServerHttp,
    report: &mut Report,
) -> Option<HealthCheck> {
    let (raw, tag) = match raw.map(|raw| raw.value) {
        None => (Box::new(RawHealthCheck::absent()), Some(Kinds::Tcp)),
        Some(RawHealth::Off) => return None,
        Some(RawHealth::Tcp(raw)) => (raw, Some(Kinds::Tcp)),
        Some(RawHealth::Http(raw)) => (raw, Some(Kinds::Http)),
        Some(RawHealth::Grpc(raw)) => (raw, Some(Kinds::Grpc)),
        Some(RawHealth::Either(raw)) => (raw, None),
    };
    let kind = probe::kind(&raw, tag, report);
    let (port, interval, timeout) = (
        raw.port.as_ref().map(|port| port.value.u16()),
        raw.interval.as_ref(),
        raw.timeout.as_ref(),
    );
    let health = HealthCheck {
        port,
        interval: interval.map_or(defaults::HEALTH_INTERVAL, |time| time.value.0),
        timeout: timeout.map_or(defaults::HEALTH_TIMEOUT, |time| time.value.0),
        healthy_threshold: raw
            .healthy_threshold
            .as_ref()
            .map_or(defaults::HEALTHY_THRESHOLD, |n| n.value.u32()),
        unhealthy_threshold: raw
            .unhealthy_threshold
            .as_ref()
            .map_or(defaults::UNHEALTHY_THRESHOLD, |n| n.value.u32()),
        initial: match raw.initial.as_ref().map(|initial| initial.value.0) {
            Some("healthy") => InitialHealth::Healthy,
            Some("unhealthy") => InitialHealth::Unhealthy,
            _ => InitialHealth::Unknown,
        },
        probe: Probe::Tcp,
        tls,
        http,
    };
    if let Some(interval) = interval.filter(|interval| interval.value.0 < INTERVAL_MIN) {
        let message = format!("probes come at most every {}", show_duration(INTERVAL_MIN));
        report.error(Kind::Value, interval.span, message);
    }
    Some(HealthCheck {
        probe: match kind {
            Kinds::Tcp => Probe::Tcp,
            Kinds::Http => Probe::Http(probe::compile_http(*raw, report)),
            Kinds::Grpc => Probe::Grpc(probe::compile_grpc(*raw, report)),
        },
        ..health
    })
}

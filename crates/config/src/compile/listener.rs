//! Listeners: binds, protocol, client-side times and bounds.

use std::sync::Arc;
use std::time::Duration;

use super::acme;
use super::destination::compile_target;
use super::http2::{compile_http2, spoken};
use super::passthrough::compile_tcp_routes;
use super::route::{NamedLists, catch_all, compile_cidrs, compile_routes};
use super::secured::check_tls;
use super::tls::Keys;
use super::{PlacedBind, PoolNames, address_error, section_or_absent, value_or, wait_or_off};
use crate::address::parse_bind;
use crate::defaults;
use crate::diagnostic::{Kind, Report, Span};
use crate::raw::{
    ProtocolWord, RawForwarded, RawListener, RawListenerLimits, RawListenerTimeouts, RawPriority,
    RawRoutes,
};
use crate::read::At;
use crate::snapshot::{
    Bind, ClientLimits, ClientTimeouts, HashKey, HttpListener, Listener, ListenerTls, Pool,
    Protocol, Target, TcpListener, TcpRoute,
};
use crate::values::{Many, Named, Off, Text};

/// What listeners refer to.
pub(crate) struct Known<'k, 's> {
    pub(crate) lists: &'k mut NamedLists,
    pub(crate) pools: &'k [Pool],
    pub(crate) names: &'k mut PoolNames,
    pub(crate) keys: &'k mut Keys<'s>,
}

/// Every listener that could be read, in the order of the file; binds are collected for the check.
pub(crate) fn compile_listeners(
    raw: Named<RawListener>,
    mut known: Known<'_, '_>,
    binds: &mut Vec<PlacedBind>,
    report: &mut Report,
) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for (name, listener) in raw.items {
        listeners.extend(compile_listener(name, listener, &mut known, binds, report));
    }
    listeners
}

fn compile_listener(
    name: String,
    At {
        value: mut raw,
        key,
        ..
    }: At<RawListener>,
    known: &mut Known<'_, '_>,
    all_binds: &mut Vec<PlacedBind>,
    report: &mut Report,
) -> Option<Listener> {
    let is_tcp = |raw: &RawListener| {
        let protocol = raw.protocol.as_ref();
        protocol.is_some_and(|protocol| protocol.value == ProtocolWord::Tcp)
    };
    let tcp = is_tcp(&raw);
    let shared = raw.tls.take();
    let spoken = if tcp { &[] } else { spoken(raw.http2.as_ref()) };
    let shared = shared.map(|tls| known.keys.listener(tls, spoken, report));
    let raw_binds = raw.bind.take();
    let (binds, mut tls) = compile_binds(
        raw_binds, &name, spoken, shared, known.keys, all_binds, report,
    );
    let shakes = !tls.is_empty() || (tcp && raw.routes.is_some());
    let handshake = handshake(raw.timeouts.as_ref(), shakes, report);
    if let (true, Some(routes), false) = (tcp, &raw.routes, tls.is_empty()) {
        let message = "a listener with `tls` ends TLS itself: `routes` of TCP are for TLS that is passed on as it is";
        report.error(Kind::Conflict, routes.key, message);
    }
    let connections_max = raw
        .limits
        .as_ref()
        .and_then(|limits| limits.value.connections.as_ref())
        .map(|n| n.value.u32());
    check_keys(&raw, tcp, report);
    let trusted = raw
        .trusted_proxies
        .as_ref()
        .map(|trusted| compile_cidrs(&trusted.value, report));
    let protocol = if tcp {
        compile_tcp(raw, key, known, report).map(Protocol::Tcp)
    } else {
        compile_http(&name, raw, key, &tls, known, report)
            .map(|http| Protocol::Http(Box::new(http)))
    };
    let http = match &protocol {
        Some(Protocol::Http(http)) => Some(&**http),
        _ => None,
    };
    if protocol.is_some() {
        acme::fill_domains(&name, key, http, &mut tls, report);
    }
    Some(Listener {
        name: name.into(),
        binds,
        tls,
        handshake,
        connections_max,
        trusted_proxies: trusted.unwrap_or_default().into(),
        protocol: protocol?,
    })
}

/// The addresses, and TLS by their indices: empty where none speaks it. `shared` is the listener's own.
fn compile_binds(
    raw: Option<At<Many<crate::raw::RawBind>>>,
    name: &str,
    spoken: &[&str],
    shared: Option<Option<Arc<ListenerTls>>>,
    keys: &mut Keys<'_>,
    all: &mut Vec<PlacedBind>,
    report: &mut Report,
) -> (Vec<Bind>, Vec<Option<Arc<ListenerTls>>>) {
    let Some(raw) = raw else {
        return Default::default();
    };
    if raw.value.0.empty {
        report.error(Kind::Empty, raw.key, "a listener needs an address to bind");
    }
    let (mut binds, mut all_tls) = (Vec::new(), Vec::new());
    for bind in raw.value.0.items {
        let own = bind.value.tls.map(|tls| keys.listener(tls, spoken, report));
        let tls = own.or_else(|| shared.clone()).flatten();
        match parse_bind(&bind.value.address) {
            Ok(parsed) => {
                let parsed = own_port(parsed, name, &binds);
                let owner = format!("the listener `{name}`");
                all.push(PlacedBind {
                    bind: parsed.clone(),
                    span: bind.value.span,
                    owner,
                });
                binds.push(parsed);
                all_tls.push(tls);
            }
            Err(error) => address_error(error, bind.value.span, report),
        }
    }
    if all_tls.iter().all(Option::is_none) {
        all_tls.clear();
    }
    (binds, all_tls)
}

/// What asks the kernel for a port says whose it is: otherwise two listeners would share one.
fn own_port(mut bind: Bind, name: &str, before: &[Bind]) -> Bind {
    if let Bind::Tcp {
        address, listener, ..
    } = &mut bind
        && address.port() == 0
    {
        let is_one =
            |bind: &&Bind| matches!(bind, Bind::Tcp { address, .. } if address.port() == 0);
        let own = match before.iter().filter(is_one).count() {
            0 => name.into(),
            number => format!("{name}/{number}").into(),
        };
        *listener = Some(own);
    }
    bind
}

fn handshake(
    timeouts: Option<&At<RawListenerTimeouts>>,
    shakes: bool,
    report: &mut Report,
) -> Option<Duration> {
    let Some(written) = timeouts.and_then(|timeouts| timeouts.value.handshake.as_ref()) else {
        return Some(defaults::HANDSHAKE);
    };
    if !shakes && !report.has_errors() {
        let message = "`handshake` is only for a listener with `tls`";
        report.error(Kind::Conflict, written.key, message);
    }
    written.value.clone().on().map(|wait| wait.0)
}

/// Nothing is accepted and ignored: keys of the other protocol are errors.
fn check_keys(raw: &RawListener, tcp: bool, report: &mut Report) {
    let mut http_only: Vec<(&str, Span)> = Vec::new();
    let mut tcp_only: Vec<(&str, Span)> = Vec::new();
    macro_rules! written {
        ($into:ident, $section:expr, [$($field:ident),*]) => {
            $( $into.extend($section.$field.as_ref().map(|key| (stringify!($field), key.key))); )*
        };
    }
    written!(
        http_only,
        raw,
        [trusted_proxies, forwarded, upgrades, http2]
    );
    if let Some(timeouts) = &raw.timeouts {
        written!(
            http_only,
            timeouts.value,
            [header, body_idle, write_idle, keep_alive]
        );
        written!(tcp_only, timeouts.value, [idle, half_closed]);
    }
    if let Some(limits) = &raw.limits {
        written!(
            http_only,
            limits.value,
            [header_bytes, headers, uri_bytes, body_bytes]
        );
    }
    let (wrong, protocol) = if tcp {
        (http_only, "http")
    } else {
        (tcp_only, "tcp")
    };
    for (key, span) in wrong {
        let message = format!("`{key}` is only for a listener with `protocol: {protocol}`");
        report.error(Kind::Conflict, span, message);
    }
}

fn compile_tcp(
    raw: RawListener,
    key: Span,
    known: &mut Known<'_, '_>,
    report: &mut Report,
) -> Option<TcpListener> {
    let (pool, split) = (raw.pool.as_ref(), raw.split.as_ref());
    if !leads_somewhere(&raw) {
        report.error_help(
            Kind::Missing,
            key,
            "the listener leads nowhere",
            "give it a `pool` or a `split`",
        );
    }
    let routes = compile_hello_routes(&raw, known, report)?;
    let target = match routes.is_empty() {
        true => compile_target(pool, split, known.pools, known.names, report)?,
        false => Target::Answer,
    };
    let span = pool.map_or(key, |pool| pool.span);
    for target in routes.iter().map(|route| &route.target).chain([&target]) {
        check_http_only(target, known.pools, span, report);
    }
    let timeouts = section_or_absent!(raw.timeouts, RawListenerTimeouts);
    Some(TcpListener {
        target,
        routes,
        priority: priority(raw.priority.as_ref()),
        idle: wait_or_off(timeouts.idle, Some(defaults::TCP_IDLE)),
        half_closed: wait_or_off(timeouts.half_closed, Some(defaults::TCP_HALF_CLOSED)),
    })
}

/// Routes by what TLS clients ask for, if there are any.
fn compile_hello_routes(
    raw: &RawListener,
    known: &mut Known<'_, '_>,
    report: &mut Report,
) -> Option<Vec<TcpRoute>> {
    let Some(routes) = &raw.routes else {
        return Some(Vec::new());
    };
    let short = raw.pool.as_ref().map(|pool| pool.key);
    if let Some(short) = short.or(raw.split.as_ref().map(|split| split.key)) {
        let message = "`routes` and the shorthand for a single route exclude each other";
        report.error(Kind::Conflict, short.max(routes.key), message);
    }
    let list = match &routes.value {
        RawRoutes::List(list) => list,
        RawRoutes::Name(name) => known.lists.find(name, routes.span, report)?,
    };
    let (pools, names) = (known.pools, &mut *known.names);
    Some(compile_tcp_routes(list, routes.key, pools, names, report))
}

fn priority(raw: Option<&At<RawPriority>>) -> u8 {
    raw.map_or(defaults::PRIORITY, |priority| priority.value.0)
}

/// A connection has a source address and nothing else that could be hashed, and no response that could be late.
fn check_http_only(target: &Target, pools: &[Pool], span: Span, report: &mut Report) {
    let led_to = target.destinations().into_iter();
    for pool in led_to.filter_map(|to| pools.get(to.pool)) {
        if pool.balance.key != HashKey::Source {
            let message = format!(
                "the pool `{}` hashes what only HTTP has; a TCP listener can hash the source",
                pool.name
            );
            report.error(Kind::Conflict, span, message);
        }
        if pool.adaptive_concurrency.is_some() {
            let message = format!(
                "`adaptive_concurrency` of the pool `{}` goes by how soon HTTP responses begin; a TCP listener has none",
                pool.name
            );
            report.error(Kind::Conflict, span, message);
        }
    }
}

/// Whether a target is written, though perhaps not readable.
fn leads_somewhere(raw: &RawListener) -> bool {
    ["pool", "split", "routes"]
        .iter()
        .any(|key| raw.written.contains(key))
}

fn compile_http(
    name: &str,
    raw: RawListener,
    key: Span,
    tls: &[Option<Arc<ListenerTls>>],
    known: &mut Known<'_, '_>,
    report: &mut Report,
) -> Option<HttpListener> {
    let Known {
        lists,
        pools,
        names,
        ..
    } = known;
    let short = raw
        .pool
        .as_ref()
        .map(|pool| pool.key)
        .or(raw.split.as_ref().map(|split| split.key));
    if let (Some(short), Some(routes)) = (short, &raw.routes) {
        report.error(
            Kind::Conflict,
            short.max(routes.key),
            "`routes` and the shorthand for a single route exclude each other",
        );
    }
    let routes = match &raw.routes {
        Some(At {
            value: RawRoutes::List(list),
            ..
        }) => Some(list),
        Some(At {
            value: RawRoutes::Name(name),
            span,
            ..
        }) => Some(lists.find(name, *span, report)?),
        None => None,
    };
    let (table, routes) = match routes {
        Some(list) => {
            if list.empty {
                report.error(
                    Kind::Empty,
                    key,
                    "the listener's list of routes is empty: every request would be a 404",
                );
            }
            let compiled = compile_routes(list, pools, names, report);
            // A certificate that could not be read leaves a listener that seems to lack it.
            if !report.has_errors() {
                check_tls(list, name, tls, raw.trusted_proxies.is_some(), report);
            }
            compiled
        }
        None if short.is_some() => catch_all(compile_target(
            raw.pool.as_ref(),
            raw.split.as_ref(),
            pools,
            names,
            report,
        )?),
        None if leads_somewhere(&raw) => return None,
        None => {
            let help = "give it `routes`, or a `pool` as shorthand for a single route";
            report.error_help(Kind::Missing, key, "the listener leads nowhere", help);
            return None;
        }
    };
    Some(HttpListener {
        table,
        routes,
        priority: priority(raw.priority.as_ref()),
        timeouts: compile_timeouts(section_or_absent!(raw.timeouts, RawListenerTimeouts)),
        limits: compile_limits(section_or_absent!(raw.limits, RawListenerLimits)),
        forwarded: compile_forwarded(section_or_absent!(raw.forwarded, RawForwarded)),
        upgrades: raw
            .upgrades
            .map(|upgrades| compile_upgrades(&upgrades.value, report))
            .unwrap_or_default(),
        http2: compile_http2(raw.http2, report),
    })
}

fn compile_timeouts(raw: RawListenerTimeouts) -> ClientTimeouts {
    ClientTimeouts {
        header: wait_or_off(raw.header, Some(defaults::CLIENT_HEADER)),
        body_idle: wait_or_off(raw.body_idle, Some(defaults::CLIENT_BODY_IDLE)),
        write_idle: wait_or_off(raw.write_idle, Some(defaults::CLIENT_WRITE_IDLE)),
        keep_alive: raw
            .keep_alive
            .map_or(Some(defaults::CLIENT_KEEP_ALIVE), |time| {
                time.value.on().map(|time| time.0)
            }),
    }
}

fn compile_limits(raw: RawListenerLimits) -> ClientLimits {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    ClientLimits {
        header_bytes: size(
            raw.header_bytes
                .map_or(defaults::HEADER_BYTES, |bytes| bytes.value.0),
        ),
        headers: size(
            raw.headers
                .map_or(defaults::HEADERS, |headers| headers.value.get()),
        ),
        uri_bytes: size(
            raw.uri_bytes
                .map_or(defaults::URI_BYTES, |bytes| bytes.value.0),
        ),
        body_bytes: raw.body_bytes.and_then(|bytes| match bytes.value {
            Off::Off => None,
            Off::On(bytes) => Some(bytes.0),
        }),
    }
}

fn compile_forwarded(raw: RawForwarded) -> rules::forward::Options {
    use rules::forward::RequestId;
    rules::forward::Options {
        x_forwarded: value_or(raw.x_forwarded, true),
        forwarded: value_or(raw.forwarded, false),
        via: value_or(raw.via, false),
        request_id: match raw.request_id.map(|word| word.value.0) {
            Some("replace") => RequestId::Replace,
            Some("off") => RequestId::Off,
            _ => RequestId::Keep,
        },
    }
}

/// Tokens in lower case; `h2c` never passes.
fn compile_upgrades(raw: &Many<Text>, report: &mut Report) -> Vec<String> {
    let mut upgrades = Vec::new();
    for token in &raw.0.items {
        let lower = token.value.0.to_ascii_lowercase();
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&b);
        if lower.is_empty() || !lower.bytes().all(is_token) {
            report.error(
                Kind::Value,
                token.span,
                format!("`{lower}` is not an upgrade token such as `websocket`"),
            );
        } else if lower == "h2c" {
            report.error(
                Kind::Value,
                token.span,
                "`h2c` would carry requests past every route and rule",
            );
        } else if !upgrades.contains(&lower) {
            upgrades.push(lower);
        }
    }
    upgrades
}

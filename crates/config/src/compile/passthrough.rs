//! Routes of a TCP listener: by what a TLS client asks for, without ending its TLS.

use std::collections::BTreeMap;

use rules::HostPattern;

use super::destination::compile_target;
use super::route::patterns;
use super::{PoolNames, check_unique};
use crate::diagnostic::{Kind, Report, Span};
use crate::raw::{RawMatch, RawRoute};
use crate::read::At;
use crate::snapshot::{Pool, TcpRoute};
use crate::values::{List, Text};

/// Keys of a route that a TCP listener has no use for.
const HTTP_KEYS: [&str; 6] = [
    "client_auth",
    "filters",
    "timeouts",
    "retries",
    "hedge",
    "priority",
];
/// Keys of a match that say something of a TLS client.
const TCP_MATCHES: [&str; 2] = ["sni", "alpn"];
/// Bytes of a name in ALPN (RFC 7301 §3.1).
const ALPN_BYTES_MAX: usize = 255;

/// The routes in the order of the file.
pub(super) fn compile_tcp_routes(
    raw: &List<RawRoute>,
    key: Span,
    pools: &[Pool],
    names: &mut PoolNames,
    report: &mut Report,
) -> Vec<TcpRoute> {
    if raw.empty {
        let message = "the listener's list of routes is empty: every connection would be closed";
        report.error(Kind::Empty, key, message);
    }
    let mut seen = BTreeMap::new();
    let mut routes = Vec::new();
    let mut takes_all: Option<Span> = None;
    for (at, route) in raw.items.iter().enumerate() {
        if let Some(first) = takes_all {
            let place = report.files.place(first);
            let message = format!("this route can never match: the one at {place} takes all");
            report.warn(Kind::Unreachable, route.key, message);
        }
        let name = match &route.value.name {
            Some(name) => {
                check_unique(&mut seen, &name.value.0, name.span, "route", report);
                name.value.0.clone()
            }
            None => (at + 1).to_string(),
        };
        routes.extend(compile_tcp_route(name, route, pools, names, report));
        if route.value.matching.is_none() {
            takes_all.get_or_insert(route.key);
        }
    }
    routes
}

fn compile_tcp_route(
    name: String,
    At {
        value: raw, key, ..
    }: &At<RawRoute>,
    pools: &[Pool],
    names: &mut PoolNames,
    report: &mut Report,
) -> Option<TcpRoute> {
    for http in HTTP_KEYS.iter().filter(|http| raw.written.contains(*http)) {
        let message = format!("`{http}` of a route is only for a listener with `protocol: http`");
        report.error(Kind::Conflict, *key, message);
    }
    let (sni, alpn) = match &raw.matching {
        Some(matching) => compile_tcp_match(matching, report),
        None => Default::default(),
    };
    let leads = ["pool", "split"].iter().any(|to| raw.written.contains(to));
    if !leads {
        let help = "give it a `pool` or a `split`";
        report.error_help(Kind::Missing, *key, "the route leads nowhere", help);
    }
    let target = compile_target(raw.pool.as_ref(), raw.split.as_ref(), pools, names, report)?;
    Some(TcpRoute {
        name: name.into(),
        sni,
        alpn,
        target,
    })
}

fn compile_tcp_match(raw: &At<RawMatch>, report: &mut Report) -> (Vec<HostPattern>, Vec<String>) {
    for key in &raw.value.written {
        if !TCP_MATCHES.contains(key) {
            let message = format!("`{key}` is only for a listener with `protocol: http`");
            let help = "of a connection that is passed on as it is, `sni` and `alpn` are known";
            report.error_help(Kind::Conflict, raw.key, message, help);
        }
    }
    let sni = patterns(raw.value.sni.as_ref(), report, |Text(text)| {
        HostPattern::compile(text)
    });
    let mut alpn = Vec::new();
    for name in raw.value.alpn.iter().flat_map(|names| &names.value.0.items) {
        let Text(text) = &name.value;
        if text.is_empty() || text.len() > ALPN_BYTES_MAX {
            report.error(Kind::Value, name.span, "a protocol's name has 1-255 bytes");
        }
        alpn.push(text.clone());
    }
    (sni, alpn)
}

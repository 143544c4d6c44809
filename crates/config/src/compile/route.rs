//! Routes: matches, filters and targets.

use std::collections::BTreeMap;
use std::sync::Arc;

use rules::{
    Cidr, Filter, FilterError, HostPattern, Match, On, PathPattern, Pattern, PatternError,
    RouteTable,
};

use super::destination::compile_target;
use super::retries::compile_route_retries;
use super::secured::compile_cert_match;
use super::{PoolNames, check_unique, wait_or_off};
use crate::diagnostic::{Kind, Report, Span};
use crate::raw::{
    MatchValue, RawFilter, RawHsts, RawHttpsRedirect, RawMatch, RawRedirect, RawRespond, RawRoute,
};
use crate::read::At;
use crate::snapshot::{Pool, Route, Target};
use crate::values::{List, Many, Named, Text};

/// The top's `routes`: lists by name, in each a route without `match` last.
#[derive(Default)]
pub(crate) struct NamedLists {
    lists: BTreeMap<String, NamedList>,
    failed: Vec<String>,
}

struct NamedList {
    routes: List<RawRoute>,
    key: Span,
    used: bool,
}

pub(crate) fn named_lists(raw: Option<At<Named<List<RawRoute>>>>) -> NamedLists {
    let Some(raw) = raw else {
        return NamedLists::default();
    };
    let sorted = |(name, list): (String, At<List<RawRoute>>)| {
        let mut routes = list.value;
        routes
            .items
            .sort_by_key(|route| route.value.matching.is_none());
        (
            name,
            NamedList {
                routes,
                key: list.key,
                used: false,
            },
        )
    };
    NamedLists {
        lists: raw.value.items.into_iter().map(sorted).collect(),
        failed: raw.value.failed,
    }
}

impl NamedLists {
    /// The list that is meant, which is used from now on.
    pub(crate) fn find(
        &mut self,
        name: &str,
        span: Span,
        report: &mut Report,
    ) -> Option<&List<RawRoute>> {
        if !self.lists.contains_key(name) && !self.failed.iter().any(|failed| failed == name) {
            let message = format!("there is no list of routes `{name}`");
            report.not_among(
                Kind::UnknownName,
                span,
                message,
                name,
                self.lists.keys().map(String::as_str),
            );
        }
        let list = self.lists.get_mut(name)?;
        list.used = true;
        Some(&list.routes)
    }

    /// Warns of lists that no listener names; what is wrong in them is wrong all the same.
    pub(crate) fn check_unused(&self, pools: &[Pool], names: &mut PoolNames, report: &mut Report) {
        for (name, list) in &self.lists {
            if !list.used {
                report.warn(
                    Kind::Unused,
                    list.key,
                    format!("no listener has the routes `{name}`"),
                );
                compile_routes(&list.routes, pools, names, report);
            }
        }
    }
}

/// The table and the routes of one listener, in matching order.
pub(crate) fn compile_routes(
    raw: &List<RawRoute>,
    pools: &[Pool],
    names: &mut PoolNames,
    report: &mut Report,
) -> (RouteTable, Vec<Route>) {
    let mut matches = Vec::new();
    let mut routes = Vec::new();
    let mut seen = BTreeMap::new();
    for (at, route) in raw.items.iter().enumerate() {
        let name = match &route.value.name {
            Some(name) => {
                check_unique(&mut seen, &name.value.0, name.span, "route", report);
                name.value.0.clone()
            }
            None => (at + 1).to_string(),
        };
        matches.push(
            route
                .value
                .matching
                .as_ref()
                .map_or_else(Match::default, |m| compile_match(&m.value, report)),
        );
        routes.push(compile_route(name.into(), route, pools, names, report));
    }
    let table = RouteTable::build(matches);
    // A pattern that failed leaves a match that takes too much: no word about what follows.
    if !report.has_errors() {
        warn_unreachable(&table, raw, report);
    }
    (table, routes)
}

fn warn_unreachable(table: &RouteTable, raw: &List<RawRoute>, report: &mut Report) {
    for unreachable in table.unreachable() {
        let (Some(route), Some(by)) = (
            raw.items.get(unreachable.route),
            raw.items.get(unreachable.taken_by),
        ) else {
            continue;
        };
        let place = report.files.place(by.key);
        let message =
            format!("this route can never match: the one at {place} takes all that it would");
        report.warn(Kind::Unreachable, route.key, message);
    }
}

/// A route that takes everything and leads to one place: the shorthand of a listener.
pub(crate) fn catch_all(target: Target) -> (RouteTable, Vec<Route>) {
    let route = Route {
        name: "1".into(),
        requires_client_cert: false,
        filters: Vec::new(),
        target,
        request_timeout: None,
        retries: Vec::new(),
        priority: None,
    };
    (RouteTable::build(vec![Match::default()]), vec![route])
}

fn compile_route(
    name: Arc<str>,
    At {
        value: raw, key, ..
    }: &At<RawRoute>,
    pools: &[Pool],
    names: &mut PoolNames,
    report: &mut Report,
) -> Route {
    let filters = raw
        .filters
        .as_ref()
        .map_or(&[][..], |filters| &filters.value.items);
    let answer = answering(filters, report);
    let target = compile_target(raw.pool.as_ref(), raw.split.as_ref(), pools, names, report);
    let target = match (target, answer) {
        (Some(target), None) => target,
        (Some(_), Some(span)) => {
            report.error(
                Kind::Conflict,
                span,
                "a route whose filter answers leads to no pool: leave one of them out",
            );
            Target::Answer
        }
        (None, Some(_)) => Target::Answer,
        // Whether all who come are sent on is found out where the listener is known.
        (None, None) if is_sent_on(filters) => Target::Answer,
        (None, None) => {
            if !leads_somewhere(raw, filters) {
                report.error_help(
                    Kind::Missing,
                    *key,
                    "the route leads nowhere",
                    "give it a `pool`, a `split`, or a filter that answers (`respond`, `redirect`, `https_redirect`)",
                );
            }
            Target::Answer
        }
    };
    let request = raw
        .timeouts
        .as_ref()
        .and_then(|timeouts| timeouts.value.request.clone());
    let (retries, hedge) = (raw.retries.as_ref(), raw.hedge.as_ref());
    let retries = compile_route_retries(retries, hedge, &target, pools, report);
    let client_auth = raw.client_auth.as_ref();
    Route {
        name,
        requires_client_cert: client_auth.is_some_and(|auth| auth.value.0 == "required"),
        filters: filters
            .iter()
            .flat_map(|filter| compile_filter(&filter.value, report))
            .collect(),
        target,
        request_timeout: request.map(|request| wait_or_off(Some(request), None)),
        retries,
        priority: raw.priority.as_ref().map(|priority| priority.value.0),
    }
}

/// Whether a target is written, though perhaps not readable; unreadable filters might answer.
fn leads_somewhere(raw: &RawRoute, filters: &[At<RawFilter>]) -> bool {
    let unread = raw.written.contains(&"filters") && filters.is_empty();
    unread || raw.written.contains(&"pool") || raw.written.contains(&"split")
}

/// Where the filter that answers is, if there is one; it must be the last.
fn answering(filters: &[At<RawFilter>], report: &mut Report) -> Option<Span> {
    let is_answer = |filter: &At<RawFilter>| {
        matches!(filter.value, RawFilter::Redirect(_) | RawFilter::Respond(_))
    };
    let at = filters.iter().position(is_answer)?;
    if let Some(after) = filters.get(at + 1) {
        report.error(
            Kind::Conflict,
            after.key,
            "no filter runs after one that answers",
        );
    }
    filters.get(at).map(|filter| filter.key)
}

/// Whether clients that came by plain HTTP are sent on to HTTPS.
fn is_sent_on(filters: &[At<RawFilter>]) -> bool {
    let is_redirect = |filter: &At<RawFilter>| matches!(filter.value, RawFilter::HttpsRedirect(_));
    filters.iter().any(is_redirect)
}

fn compile_filter(raw: &RawFilter, report: &mut Report) -> Vec<Filter> {
    let mut made = Vec::new();
    let mut take = |result: Result<Filter, FilterError>, span| match result {
        Ok(filter) => made.push(filter),
        Err(error) => report.error(Kind::Value, span, error.to_string()),
    };
    match raw {
        RawFilter::GrpcWeb => made.push(Filter::GrpcWeb),
        RawFilter::StripPrefix(prefix) => take(Filter::strip_prefix(&prefix.value.0), prefix.span),
        RawFilter::SetHeader(headers) | RawFilter::SetResponseHeader(headers) => {
            let on = if matches!(raw, RawFilter::SetHeader(_)) {
                On::Request
            } else {
                On::Response
            };
            for (name, value) in &headers.value.items {
                take(Filter::set_header(name, &value.value.0, on), value.key);
            }
        }
        RawFilter::RemoveHeader(headers) | RawFilter::RemoveResponseHeader(headers) => {
            let on = if matches!(raw, RawFilter::RemoveHeader(_)) {
                On::Request
            } else {
                On::Response
            };
            for name in &headers.value.0.items {
                take(Filter::remove_header(&name.value.0, on), name.span);
            }
        }
        RawFilter::Redirect(At {
            value: RawRedirect(redirect),
            span,
            ..
        }) => {
            let status = redirect.status.as_ref();
            let Some(to) = &redirect.to else { return made };
            let span = status
                .filter(|status| !matches!(status.value.get(), 301..=303 | 307 | 308))
                .map_or(*span, |s| s.span);
            take(
                Filter::redirect(
                    status.map_or(Filter::REDIRECT_STATUS, |s| s.value.u16()),
                    &to.value.0,
                ),
                span,
            );
        }
        RawFilter::HttpsRedirect(At {
            value: RawHttpsRedirect(redirect),
            span,
            ..
        }) => {
            let (status, port) = (redirect.status.as_ref(), redirect.port.as_ref());
            let filter = Filter::https_redirect(
                status.map_or(Filter::HTTPS_REDIRECT_STATUS, |s| s.value.u16()),
                port.map_or(Filter::HTTPS_PORT, |port| port.value.u16()),
            );
            take(filter, status.map_or(*span, |status| status.span));
        }
        RawFilter::Hsts(At {
            value: RawHsts(hsts),
            span,
            ..
        }) => {
            let Some(max_age) = &hsts.max_age else {
                return made;
            };
            let subdomains = hsts.include_subdomains.as_ref();
            let preload = hsts.preload.as_ref();
            let filter = Filter::hsts(
                max_age.value.0,
                subdomains.is_some_and(|flag| flag.value),
                preload.is_some_and(|flag| flag.value),
            );
            take(filter, preload.map_or(*span, |preload| preload.span));
        }
        RawFilter::Respond(At {
            value: RawRespond(respond),
            span,
            ..
        }) => {
            let headers = respond
                .headers
                .as_ref()
                .map_or(&[][..], |headers| &headers.value.items);
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (name.clone(), value.value.0.clone()))
                .collect();
            let status = respond
                .status
                .as_ref()
                .map_or(Filter::RESPOND_STATUS, |status| status.value.u16());
            let body = respond.body.as_ref().map_or("", |body| &body.value.0);
            take(Filter::respond(status, body, &headers), *span);
        }
    }
    made
}

fn compile_match(raw: &RawMatch, report: &mut Report) -> Match {
    if let Some(alpn) = &raw.alpn {
        let message = "`alpn` is only for a listener with `protocol: tcp`";
        report.error(Kind::Conflict, alpn.key, message);
    }
    let host = patterns(raw.host.as_ref(), report, |Text(text)| {
        HostPattern::compile(text)
    });
    let path = patterns(raw.path.as_ref(), report, |Text(text)| {
        PathPattern::compile(text)
    });
    let method = patterns(raw.method.as_ref(), report, |Text(text)| {
        Pattern::compile_method(text)
    });
    let source = raw
        .source
        .as_ref()
        .map(|source| compile_cidrs(&source.value, report))
        .unwrap_or_default();
    let sni = patterns(raw.sni.as_ref(), report, |Text(text)| {
        HostPattern::compile(text)
    });
    let client_cert = raw.client_cert.as_ref();
    let client_cert = client_cert.map(|wanted| compile_cert_match(wanted, report));
    Match {
        sni,
        client_cert,
        host,
        path,
        method,
        header: named_patterns(raw.header.as_ref(), report),
        cookie: named_patterns(raw.cookie.as_ref(), report),
        query: named_patterns(raw.query.as_ref(), report),
        source,
        not: raw
            .not
            .as_ref()
            .map(|not| Box::new(compile_match(&not.value, report))),
    }
}

/// Ranges of addresses.
pub(crate) fn compile_cidrs(raw: &Many<Text>, report: &mut Report) -> Vec<Cidr> {
    let mut cidrs = Vec::new();
    for text in &raw.0.items {
        match text.value.0.parse::<Cidr>() {
            Ok(cidr) => cidrs.push(cidr),
            Err(error) => report.error(
                Kind::Address,
                text.span,
                format!("`{}`: {error}", text.value.0),
            ),
        }
    }
    cidrs
}

pub(super) fn patterns<V, T>(
    raw: Option<&At<Many<V>>>,
    report: &mut Report,
    compile: impl Fn(&V) -> Result<T, PatternError>,
) -> Vec<T> {
    let Some(raw) = raw else { return Vec::new() };
    check_some(&raw.value, raw.key, report);
    let mut made = Vec::new();
    for value in &raw.value.0.items {
        match compile(&value.value) {
            Ok(pattern) => made.push(pattern),
            Err(error) => report.error(Kind::Value, value.span, error.to_string()),
        }
    }
    made
}

/// An empty list of values would match everything, or nothing: nobody can tell.
fn check_some<T>(values: &Many<T>, span: Span, report: &mut Report) {
    if values.0.empty {
        report.error(Kind::Empty, span, "no value to match is given");
    }
}

fn named_patterns(
    raw: Option<&At<Named<Many<MatchValue>>>>,
    report: &mut Report,
) -> Vec<(String, Vec<Pattern>)> {
    let items = raw.map_or(&[][..], |raw| &raw.value.items);
    let compile = |value: &MatchValue| match value {
        MatchValue::Pattern(text) => Pattern::compile_text(text),
        MatchValue::Present(present) => Ok(Pattern::present(*present)),
    };
    items
        .iter()
        .map(|(name, values)| (name.clone(), patterns(Some(values), report, compile)))
        .collect()
}

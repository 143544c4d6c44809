//! What binds a client to a server: defaults, and what cannot go together.

use std::sync::Arc;
use std::time::Duration;

use balance::OnDrain;

use super::PoolNames;
use super::pool::hash_key_of;
use crate::diagnostic::{Kind, Report, Span};
use crate::raw::{
    OnDrainWord, RawAffinity, RawAppCookieAffinity, RawCookieAffinity, RawHashAffinity,
    RawHeaderAffinity, RawSourceAffinity, StrengthWord,
};
use crate::read::At;
use crate::snapshot::{
    Address, Affinity, AffinityKind, HashKey, InsertedCookie, Learning, LearntBy, Listener, Pool,
    Protocol, Secret, Server, Strength, Target,
};
use crate::units::Wait;
use crate::values::{Off, Text, Whole};
use crate::{Source, defaults};

/// How many clients a table knows.
type Entries = Whole<1, 10_000_000>;

/// Separates what a cookie's value says from what is said besides: the share of a user in a split, the time.
const SEPARATOR: char = '~';

/// `None` is `off`, which is the default.
pub(super) fn compile_affinity(
    raw: Option<At<Off<RawAffinity>>>,
    servers: &[Server],
    report: &mut Report,
) -> Option<Affinity> {
    let At { value, span, .. } = raw?;
    let of = |kind,
              strength: Option<At<StrengthWord>>,
              on_drain: Option<At<OnDrainWord>>,
              wait: Option<At<Off<Wait>>>| {
        Affinity {
            kind,
            strength: match strength.map(|word| word.value.0) {
                Some("required") => Strength::Required,
                _ => Strength::Preferred,
            },
            on_drain: match on_drain.map(|word| word.value.0) {
                Some("move") => OnDrain::Move,
                _ => OnDrain::Keep,
            },
            queue_wait: match wait.map(|wait| wait.value) {
                None => Some(Duration::MAX),
                Some(wait) => wait.on().map(|wait| wait.0),
            },
            source_alarm: None,
        }
    };
    Some(match value.on()? {
        RawAffinity::Cookie(mut raw) => {
            let (strength, on_drain, wait) = (
                raw.strength.take(),
                raw.on_drain.take(),
                raw.queue_wait.take(),
            );
            let cookie = compile_cookie(*raw, span, servers, report);
            of(
                AffinityKind::Cookie(Box::new(cookie)),
                strength,
                on_drain,
                wait,
            )
        }
        RawAffinity::AppCookie(RawAppCookieAffinity {
            name,
            path_parameter,
            entries,
            expire,
            strength,
            on_drain,
            queue_wait,
            ..
        }) => {
            let by = app_cookie(name?, path_parameter, report);
            let learning = learning(by, entries, expire, report);
            let kind = AffinityKind::Learnt(learning);
            of(kind, strength, on_drain, queue_wait)
        }
        RawAffinity::Header(mut raw) => {
            let (strength, on_drain, wait) = (
                raw.strength.take(),
                raw.on_drain.take(),
                raw.queue_wait.take(),
            );
            of(compile_header(raw, report)?, strength, on_drain, wait)
        }
        RawAffinity::Source(mut raw) => {
            let (strength, on_drain, wait) = (
                raw.strength.take(),
                raw.on_drain.take(),
                raw.queue_wait.take(),
            );
            let alarm = raw.source_alarm.take();
            let alarm = alarm.map_or(Some(defaults::SOURCE_ALARM), |alarm| {
                alarm.value.on().map(|percent| percent.0)
            });
            Affinity {
                source_alarm: alarm,
                ..of(compile_source(raw, report), strength, on_drain, wait)
            }
        }
        RawAffinity::Hash(RawHashAffinity {
            key,
            strength,
            on_drain,
            queue_wait,
            ..
        }) => {
            let key = hash_key_of(key.map(|key| key.value));
            of(AffinityKind::Hash(key), strength, on_drain, queue_wait)
        }
    })
}

fn compile_header(raw: RawHeaderAffinity, report: &mut Report) -> Option<AffinityKind> {
    let (mut entries, mut expire) = (raw.entries, raw.expire);
    let At {
        value: Text(name),
        span,
        ..
    } = raw.name?;
    if !is_token(&name) {
        let message = format!("`{name}` is not the name of a header");
        report.error(Kind::Value, span, message);
    }
    let name = name.to_ascii_lowercase();
    let kind = match raw.mode.map(|mode| mode.value.0) {
        Some("learn") => {
            let by = LearntBy::Header(name.into());
            AffinityKind::Learnt(learning(by, entries.take(), expire.take(), report))
        }
        Some("hash") => AffinityKind::Hash(HashKey::Header(name)),
        _ => AffinityKind::Header(name.into()),
    };
    refuse_table(entries.as_ref(), expire.as_ref(), report);
    Some(kind)
}

fn compile_source(raw: RawSourceAffinity, report: &mut Report) -> AffinityKind {
    let (mut entries, mut expire) = (raw.entries, raw.expire);
    let prefix = raw.ipv6_prefix;
    let prefix = prefix.and_then(|prefix| u8::try_from(prefix.value.u32()).ok());
    let ipv6_prefix = prefix.unwrap_or(defaults::AFFINITY_IPV6_PREFIX);
    let kind = match raw.mode.map(|mode| mode.value.0) {
        Some("learn") => {
            let by = LearntBy::Source { ipv6_prefix };
            AffinityKind::Learnt(learning(by, entries.take(), expire.take(), report))
        }
        _ => AffinityKind::Source { ipv6_prefix },
    };
    refuse_table(entries.as_ref(), expire.as_ref(), report);
    kind
}

fn app_cookie(
    name: At<Text>,
    path_parameter: Option<At<Off<Text>>>,
    report: &mut Report,
) -> LearntBy {
    let At {
        value: Text(name),
        span,
        ..
    } = name;
    if !is_token(&name) {
        let message = format!("`{name}` is not the name of a cookie");
        report.error(Kind::Value, span, message);
    }
    let path_parameter = match path_parameter {
        // What servlets call it where a client takes no cookies.
        None => (name == "JSESSIONID").then(|| "jsessionid".to_owned()),
        Some(At { value, span, .. }) => {
            let parameter = value.on().map(|Text(parameter)| parameter);
            if let Some(parameter) = parameter.as_ref().filter(|it| !is_token(it)) {
                let message = format!("`{parameter}` is not the name of a path's parameter");
                report.error(Kind::Value, span, message);
            }
            parameter
        }
    };
    LearntBy::AppCookie {
        name: name.into(),
        path_parameter: path_parameter.map(Arc::from),
    }
}

fn learning(
    by: LearntBy,
    entries: Option<At<Entries>>,
    expire: Option<At<Wait>>,
    report: &mut Report,
) -> Learning {
    const MIN: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(365 * 24 * 3600);
    if let Some(written) = &expire
        && !(MIN..=MAX).contains(&written.value.0)
    {
        let message = "a time from `1s` to `365d` is expected";
        report.error(Kind::Value, written.span, message);
    }
    Learning {
        by,
        entries: entries.map_or(defaults::LEARNT_ENTRIES, |entries| entries.value.u32()),
        expire: expire.map_or(defaults::LEARNT_EXPIRE, |expire| expire.value.0),
    }
}

/// What is of a table, where there is none.
fn refuse_table(entries: Option<&At<Entries>>, expire: Option<&At<Wait>>, report: &mut Report) {
    let keys = [
        ("entries", entries.map(|it| it.key)),
        ("expire", expire.map(|it| it.key)),
    ];
    for (name, key) in keys {
        if let Some(key) = key {
            let message = format!("`{name}` is only for `mode: learn`");
            report.error(Kind::Conflict, key, message);
        }
    }
}

fn compile_cookie(
    raw: RawCookieAffinity,
    span: Span,
    servers: &[Server],
    report: &mut Report,
) -> InsertedCookie {
    let (name, path, domain) = compile_scope(raw.name, raw.path, raw.domain, report);
    let opaque = raw
        .value
        .as_ref()
        .is_none_or(|value| value.value.0 == "opaque");
    let unfit = servers
        .iter()
        .find(|it| !opaque && !is_cookie_value(&it.name));
    if let (Some(server), Some(value)) = (unfit, &raw.value) {
        let message = format!(
            "the name `{}` of a server cannot stand in a cookie",
            server.name
        );
        let help = "names of ASCII letters, digits and `-._:/` can; or leave `value` out";
        report.error_help(Kind::Value, value.span, message, help);
    }
    let mut named = servers.iter().filter(|_| !opaque);
    let by_dns = named.find(|it| matches!(it.address, Address::Name(..)));
    if let (Some(server), Some(value)) = (by_dns, &raw.value) {
        let message = format!(
            "the server `{0}` is found by DNS: with `value: name` the cookie is `{0}@ADDRESS` where it has several addresses, so clients see where it is; `value: opaque` hides it",
            server.name
        );
        report.note(Kind::Secret, value.span, message);
    }
    let same_site = match raw.same_site.as_ref().map(|word| word.value.0) {
        Some("strict") => "Strict",
        Some("none") => "None",
        _ => "Lax",
    };
    let mut secure = raw.secure.as_ref().map(|secure| secure.value);
    if let Some(written) = raw.same_site.filter(|_| same_site == "None") {
        if secure == Some(false) {
            let message = "browsers refuse a cookie with `same_site: none` that is not `secure`";
            report.error(Kind::Conflict, written.span, message);
        }
        secure = Some(true);
    }
    check_prefix(&name, secure, &path, domain.is_some(), span, report);
    let max_age = raw.max_age.and_then(|age| age.value.on()).map(|age| age.0);
    let renewal = compile_renewal(max_age, raw.renewal, report);
    InsertedCookie {
        name: name.into(),
        opaque,
        path: path.into(),
        domain,
        secure,
        http_only: raw.http_only.is_none_or(|on| on.value),
        same_site,
        max_age,
        renewal,
        indirect: raw.indirect.is_none_or(|on| on.value),
        no_cache: raw.no_cache.is_none_or(|on| on.value),
    }
}

/// Name, path and domain: for what the browser sends it.
fn compile_scope(
    name: Option<At<Text>>,
    path: Option<At<Text>>,
    domain: Option<At<Text>>,
    report: &mut Report,
) -> (String, String, Option<Arc<str>>) {
    let mut bad = |span, message: String| report.error(Kind::Value, span, message);
    let name = name.map_or_else(
        || defaults::AFFINITY_COOKIE.to_owned(),
        |At {
             value: Text(name),
             span,
             ..
         }| {
            if !is_token(&name) {
                bad(span, format!("`{name}` is not the name of a cookie"));
            }
            name
        },
    );
    let path = path.map_or_else(
        || "/".to_owned(),
        |At {
             value: Text(path),
             span,
             ..
         }| {
            if !path.starts_with('/') || !path.bytes().all(is_attribute_byte) {
                bad(
                    span,
                    format!("`{path}` is not a path of a cookie, such as `/` or `/shop`"),
                );
            }
            path
        },
    );
    let domain = domain.map(
        |At {
             value: Text(domain),
             span,
             ..
         }| {
            if !is_domain(&domain) {
                bad(
                    span,
                    format!("`{domain}` is not a domain, such as `example.com`"),
                );
            }
            Arc::from(domain)
        },
    );
    (name, path, domain)
}

/// When a cookie that ends is given anew.
fn compile_renewal(
    max_age: Option<Duration>,
    raw: Option<At<Off<Wait>>>,
    report: &mut Report,
) -> Option<Duration> {
    match (max_age, raw) {
        (None, Some(written)) => {
            let message = "`renewal` is only for a cookie with `max_age`";
            report.error(Kind::Conflict, written.key, message);
            None
        }
        (None, None) => None,
        (Some(max_age), None) => Some(max_age / 2),
        (Some(max_age), Some(written)) => {
            let renewal = written.value.on().map(|wait| wait.0);
            if renewal.is_some_and(|renewal| renewal >= max_age) {
                let message = "`renewal` comes after `max_age`: the cookie would have ended";
                report.error(Kind::Conflict, written.span, message);
            }
            renewal
        }
    }
}

/// Names that browsers take only with certain attributes (RFC 6265bis §4.1.3).
fn check_prefix(
    name: &str,
    secure: Option<bool>,
    path: &str,
    has_domain: bool,
    span: Span,
    report: &mut Report,
) {
    let begins = |prefix: &str| {
        let start = name.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let host = begins("__Host-");
    if (host || begins("__Secure-")) && secure != Some(true) {
        let message = format!("browsers take the cookie `{name}` only with `secure: true`");
        report.error(Kind::Conflict, span, message);
    }
    if host && (path != "/" || has_domain) {
        let message =
            format!("browsers take the cookie `{name}` only with `path: /` and without `domain`");
        report.error(Kind::Conflict, span, message);
    }
}

/// The secret that signs what clients carry.
pub(super) fn compile_secret(
    file: Option<At<Text>>,
    source: &dyn Source,
    report: &mut Report,
) -> Option<Secret> {
    let At {
        value: Text(path),
        span,
        ..
    } = file?;
    let bytes = match source.read_bytes(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            report.error(Kind::File, span, format!("cannot read `{path}`: {error}"));
            return None;
        }
    };
    let bytes = bytes.trim_ascii_end();
    if bytes.len() < defaults::SECRET_BYTES_MIN {
        let min = defaults::SECRET_BYTES_MIN;
        let message = format!("the secret in `{path}` has less than {min} bytes");
        let help = "`openssl rand -base64 32` makes a good one";
        report.error_help(Kind::Value, span, message, help);
        return None;
    }
    if source.is_open_to_others(&path) {
        let message = format!("the secret in `{path}` can be read by every user of this machine");
        report.warn(Kind::Secret, span, message);
    }
    Some(Secret(bytes.into()))
}

/// What pools say that does not fit how listeners lead to them.
pub(super) fn check_affinities(
    listeners: &[Listener],
    pools: &[Pool],
    names: &PoolNames,
    has_secret: bool,
    report: &mut Report,
) {
    for (at, pool) in pools.iter().enumerate() {
        let opaque = cookie_of(pool).is_some_and(|cookie| cookie.opaque);
        if opaque && !has_secret {
            let message = format!(
                "the cookie of the pool `{}` hides its servers' names by a key that is derived from the pool's name, which could be guessed; `secret_file` at the top gives it a real one",
                pool.name
            );
            report.note(Kind::Secret, names.span(at), message);
        }
    }
    for listener in listeners {
        if let Protocol::Tcp(tcp) = &listener.protocol {
            let routes = tcp.routes.iter().map(|route| &route.target);
            for target in std::iter::once(&tcp.target).chain(routes) {
                check_tcp(&listener.name, target, pools, names, report);
            }
        }
    }
}

fn check_tcp(
    listener: &str,
    target: &Target,
    pools: &[Pool],
    names: &PoolNames,
    report: &mut Report,
) {
    for to in target.destinations() {
        let Some(pool) = pools.get(to.pool) else {
            continue;
        };
        if let Some(affinity) = pool.affinity.as_ref().filter(|it| !it.kind.is_for_tcp()) {
            let message = format!(
                "the pool `{}` binds clients by {}, which connections of the TCP listener `{listener}` do not have; `affinity: source` is for both",
                pool.name,
                affinity.kind.name(),
            );
            report.error(Kind::Conflict, names.span(to.pool), message);
        }
    }
}

pub(super) fn cookie_of(pool: &Pool) -> Option<&InsertedCookie> {
    match &pool.affinity.as_ref()?.kind {
        AffinityKind::Cookie(cookie) => Some(cookie),
        _ => None,
    }
}

/// RFC 9110 §5.6.2.
fn is_token(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

/// RFC 6265 §4.1.1: `av-octet`, without blanks.
fn is_attribute_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b';'
}

/// RFC 6265 §4.1.1: `cookie-octet`, less our own separator.
fn is_cookie_value(text: &str) -> bool {
    let is_octet = |char: char| char.is_ascii_graphic() && !"\",;\\".contains(char);
    text.chars().all(|char| is_octet(char) && char != SEPARATOR)
}

fn is_domain(text: &str) -> bool {
    let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    let text = text.strip_prefix('.').unwrap_or(text);
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(is_byte)
}

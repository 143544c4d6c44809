//! What binds a client to a server, as written: a bare name, or one key with its short value or its options.

use super::{RawKey, words};
use crate::defaults;
use crate::diagnostic::{Kind, Report};
use crate::read::{At, Read, Shape, Table, choice, one_key, or, required, section, wrong_type};
use crate::tree::{Entry, Node, Value};
use crate::units::{Percent, Wait};
use crate::values::{Off, Text, Whole};

/// Every kind's name.
pub(crate) const KINDS: &[&str] = &["cookie", "app_cookie", "header", "source", "hash"];

words! {
    /// What happens when the bound server cannot serve.
    StrengthWord "a strength" ["preferred", "required"]
}

words! {
    /// What becomes of bound clients while their server drains.
    OnDrainWord "what happens on a drain" ["keep", "move"]
}

words! {
    /// How the value of a cookie says which server is meant.
    CookieValueWord "a way to name servers" ["opaque", "name"]
}

words! {
    /// With which requests of other sites a browser sends a cookie.
    SameSiteWord "a word for SameSite" ["lax", "strict", "none"]
}

words! {
    /// What a header's value is to the binding.
    HeaderModeWord "a mode" ["name", "hash", "learn"]
}

words! {
    /// What a client's address is to the binding.
    SourceModeWord "a mode" ["hash", "learn"]
}

section! {
    /// A cookie of ours that says which server a client is bound to.
    RawCookieAffinity "affinity: cookie" {
        /// Its name.
        "name" name: Text = or(defaults::AFFINITY_COOKIE),
        /// What it says: `opaque`, a keyed hash of the server's name, or `name`, the name itself.
        "value" value: CookieValueWord = or("opaque"),
        /// Which paths the browser sends it for.
        "path" path: Text = or("/"),
        /// Which domain the browser sends it to, with all below it.
        "domain" domain: Text = or("the host alone that was asked"),
        /// Whether the browser sends it over TLS alone.
        "secure" secure: bool = or("true where the client came over TLS"),
        /// Whether scripts cannot read it.
        "http_only" http_only: bool = or(true),
        /// With which requests of other sites it is sent.
        "same_site" same_site: SameSiteWord = or("lax"),
        /// How long the browser keeps it; `off`: until it is closed.
        "max_age" max_age: Off<Wait> = or("off"),
        /// With `max_age`: a cookie older than this is given anew, so that it ends only when unused; `off`: it is not.
        "renewal" renewal: Off<Wait> = or("half of `max_age`"),
        /// Whether it is between client and balancer alone: servers do not see it.
        "indirect" indirect: bool = or(true),
        /// Whether an answer that sets it says `Cache-Control: private`, so that no cache hands it to others.
        "no_cache" no_cache: bool = or(true),
        /// When the server cannot serve: `preferred` picks another and binds to that, `required` answers 503.
        "strength" strength: StrengthWord = or("preferred"),
        /// While the server drains: `keep` its clients until the drain ends, or `move` them.
        "on_drain" on_drain: OnDrainWord = or("keep"),
        /// How long a request waits for its server when that is full; `off`: not at all.
        "queue_wait" queue_wait: Off<Wait> = or("the pool's `queue_wait`"),
    } later []
}

section! {
    /// A cookie of the application's own: who is bound to which server is learnt from its answers.
    RawAppCookieAffinity "affinity: app_cookie" {
        /// Its name.
        "name" name: Text = required(),
        /// The parameter of a path (`/shop;jsessionid=…`) that stands for it where a client takes no cookies.
        "path_parameter" path_parameter: Off<Text> = or("`jsessionid` for the cookie `JSESSIONID`, else off"),
        /// Clients that are known at once; the one unused longest gives way to a new one.
        "entries" entries: Whole<1, 10_000_000> = or(defaults::LEARNT_ENTRIES),
        /// A client that did not come for this long is forgotten, 1s to 365d.
        "expire" expire: Wait = or("30m"),
        /// When the server cannot serve: `preferred` picks another and binds to that, `required` answers 503.
        "strength" strength: StrengthWord = or("preferred"),
        /// While the server drains: `keep` its clients until the drain ends, or `move` them.
        "on_drain" on_drain: OnDrainWord = or("keep"),
        /// How long a request waits for its server when that is full; `off`: not at all.
        "queue_wait" queue_wait: Off<Wait> = or("the pool's `queue_wait`"),
    } later []
}

section! {
    /// A header that says which server a client is bound to.
    RawHeaderAffinity "affinity: header" {
        /// Its name.
        "name" name: Text = required(),
        /// What its value is: the `name` of a server, a text to `hash`, or one whose server is to `learn`: from answers
        /// that have the header, else from requests.
        "mode" mode: HeaderModeWord = or("name"),
        /// With `mode: learn`: clients that are known at once; the one unused longest gives way to a new one.
        "entries" entries: Whole<1, 10_000_000> = or(defaults::LEARNT_ENTRIES),
        /// With `mode: learn`: a client that did not come for this long is forgotten, 1s to 365d.
        "expire" expire: Wait = or("30m"),
        /// When the server cannot serve: `preferred` picks another, `required` answers 503.
        "strength" strength: StrengthWord = or("preferred"),
        /// While the server drains: `keep` its clients until the drain ends, or `move` them.
        "on_drain" on_drain: OnDrainWord = or("keep"),
        /// How long a request waits for its server when that is full; `off`: not at all.
        "queue_wait" queue_wait: Off<Wait> = or("the pool's `queue_wait`"),
    } later []
}

section! {
    /// The client's address says which server it is bound to.
    RawSourceAffinity "affinity: source" {
        /// What the address is: a text to `hash`, or one whose server is to `learn`.
        "mode" mode: SourceModeWord = or("hash"),
        /// With `mode: learn`: clients that are known at once; the one unused longest gives way to a new one.
        "entries" entries: Whole<1, 10_000_000> = or(defaults::LEARNT_ENTRIES),
        /// With `mode: learn`: a client that did not come for this long is forgotten, 1s to 365d.
        "expire" expire: Wait = or("30m"),
        /// A warning is logged when one address sends this part of the pool's requests or more; `off`: never.
        "source_alarm" source_alarm: Off<Percent> = or(format!("{}%", defaults::SOURCE_ALARM)),
        /// Bits of an IPv6 address that count: what is alike in these is one client.
        "ipv6_prefix" ipv6_prefix: Whole<1, 128> = or(defaults::AFFINITY_IPV6_PREFIX),
        /// When the server cannot serve: `preferred` picks another, `required` answers 503.
        "strength" strength: StrengthWord = or("preferred"),
        /// While the server drains: `keep` its clients until the drain ends, or `move` them.
        "on_drain" on_drain: OnDrainWord = or("keep"),
        /// How long a request waits for its server when that is full; `off`: not at all.
        "queue_wait" queue_wait: Off<Wait> = or("the pool's `queue_wait`"),
    } later []
}

section! {
    /// A key is hashed to a server: neither table nor cookie.
    RawHashAffinity "affinity: hash" {
        /// What is hashed.
        "key" key: RawKey = or("source"),
        /// When the server cannot serve: `preferred` picks another, `required` answers 503.
        "strength" strength: StrengthWord = or("preferred"),
        /// While the server drains: `keep` its clients until the drain ends, or `move` them.
        "on_drain" on_drain: OnDrainWord = or("keep"),
        /// How long a request waits for its server when that is full; `off`: not at all.
        "queue_wait" queue_wait: Off<Wait> = or("the pool's `queue_wait`"),
    } later []
}

/// What binds a client to a server.
#[derive(Debug)]
pub(crate) enum RawAffinity {
    Cookie(Box<RawCookieAffinity>),
    AppCookie(RawAppCookieAffinity),
    Header(RawHeaderAffinity),
    Source(RawSourceAffinity),
    Hash(RawHashAffinity),
}

impl Read for RawAffinity {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(&node.value, Value::Scalar(_)) {
            return match crate::read::word(node, "a kind of affinity", KINDS, report)? {
                "cookie" => Some(Self::Cookie(Box::new(RawCookieAffinity::absent()))),
                "source" => Some(Self::Source(RawSourceAffinity::absent())),
                name => {
                    let (what, help) = match name {
                        "app_cookie" => ("cookie", "write `{ app_cookie: NAME }`"),
                        "header" => ("header", "write `{ header: NAME }`"),
                        _ => (
                            "key",
                            "write `{ hash: source }` or `{ hash: { header: NAME } }`",
                        ),
                    };
                    let message = format!("which {what} is it?");
                    report.error_help(Kind::Value, node.span, message, help);
                    None
                }
            };
        }
        if has_options_beside(node, report) {
            return None;
        }
        let (name, entry) = one_key(node, "a kind of affinity", KINDS, report)?;
        let value = &entry.value;
        let is_map = matches!(value.value, Value::Map(_)) || value.is_null();
        match name {
            "cookie" if is_map => Box::read(value, report).map(Self::Cookie),
            "cookie" => {
                let mut section = RawCookieAffinity::absent();
                section.name = Some(At::here(Text::read(value, report)?, value));
                Some(Self::Cookie(Box::new(section)))
            }
            "app_cookie" if is_map => {
                RawAppCookieAffinity::read(value, report).map(Self::AppCookie)
            }
            "app_cookie" => {
                let mut section = RawAppCookieAffinity::absent();
                section.name = Some(At::here(Text::read(value, report)?, value));
                Some(Self::AppCookie(section))
            }
            "header" if is_map => RawHeaderAffinity::read(value, report).map(Self::Header),
            "header" => {
                let mut section = RawHeaderAffinity::absent();
                section.name = Some(At::here(Text::read(value, report)?, value));
                Some(Self::Header(section))
            }
            "source" if is_map => RawSourceAffinity::read(value, report).map(Self::Source),
            "source" => {
                let mut section = RawSourceAffinity::absent();
                section.mode = Some(At::here(SourceModeWord::read(value, report)?, value));
                Some(Self::Source(section))
            }
            _ => read_hash(value, report).map(Self::Hash),
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![
            Shape::Words(&["cookie", "source"]),
            Shape::OneKey(kinds),
        ])
    }
}

/// Whether options stand beside the kind instead of within it, which is told of each.
fn has_options_beside(node: &Node, report: &mut Report) -> bool {
    let Value::Map(entries) = &node.value else {
        return false;
    };
    let is_kind = |entry: &&Entry| KINDS.contains(&entry.key.as_str());
    let mut kinds = entries.iter().filter(is_kind);
    let (Some(kind), None) = (kinds.next(), kinds.next()) else {
        return false;
    };
    let kind = kind.key.as_str();
    let known: Vec<_> = options_of(kind).keys.iter().map(|key| key.name).collect();
    for entry in entries.iter().filter(|entry| !is_kind(entry)) {
        let key = entry.key.as_str();
        if known.contains(&key) {
            let message = format!("`{key}` is an option of `{kind}`, and stands beside it");
            let first = known.first().copied().unwrap_or_default();
            let help = format!("write `{kind}: {{ {first}: …, {key}: … }}`");
            report.error_help(Kind::Type, entry.key_span, message, help);
        } else {
            let message = format!("unknown key `{key}` beside `{kind}`");
            let known = known.iter().copied();
            report.not_among(Kind::UnknownKey, entry.key_span, message, key, known);
        }
    }
    entries.len() > 1
}

fn options_of(kind: &str) -> Table {
    match kind {
        "cookie" => RawCookieAffinity::table(),
        "app_cookie" => RawAppCookieAffinity::table(),
        "header" => RawHeaderAffinity::table(),
        "source" => RawSourceAffinity::table(),
        _ => RawHashAffinity::table(),
    }
}

/// `hash: source`, `hash: { header: X }`, or the long form.
fn read_hash(node: &Node, report: &mut Report) -> Option<RawHashAffinity> {
    const KEYS: &[&str] = &["header", "cookie", "query"];
    let short = match &node.value {
        Value::Map(entries) => {
            matches!(entries.as_slice(), [entry] if KEYS.contains(&entry.key.as_str()))
        }
        Value::Scalar(_) => !node.is_null(),
        _ => {
            wrong_type(
                node,
                "what is hashed, or a map for `affinity: hash`",
                report,
            );
            return None;
        }
    };
    if !short {
        return RawHashAffinity::read(node, report);
    }
    let mut section = RawHashAffinity::absent();
    section.key = Some(At::here(RawKey::read(node, report)?, node));
    Some(section)
}

fn kinds() -> Table {
    Table {
        name: "affinity",
        about: "What binds a client to a server: `cookie`, `source`, or a map with exactly one of these keys.",
        keys: vec![
            choice(
                "cookie",
                "A cookie of ours: its name, or the long form.",
                Shape::Any(vec![Text::shape(), RawCookieAffinity::shape()]),
            ),
            choice(
                "app_cookie",
                "The application's own cookie: its name, or the long form.",
                Shape::Any(vec![Text::shape(), RawAppCookieAffinity::shape()]),
            ),
            choice(
                "header",
                "A header of the client's: its name, or the long form.",
                Shape::Any(vec![Text::shape(), RawHeaderAffinity::shape()]),
            ),
            choice(
                "source",
                "The client's address: its mode, or the long form.",
                Shape::Any(vec![SourceModeWord::shape(), RawSourceAffinity::shape()]),
            ),
            choice(
                "hash",
                "A key is hashed: what it is, or the long form.",
                Shape::Any(vec![RawKey::shape(), RawHashAffinity::shape()]),
            ),
        ],
    }
}

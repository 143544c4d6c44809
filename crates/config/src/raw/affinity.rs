//! What binds a client to a server, as written: a bare name, or one key with its short value or its options.

use super::{RawKey, words};
use crate::defaults;
use crate::diagnostic::{Kind, Report};
use crate::read::{
    At, Read, Shape, Table, choice, one_key, or, required, section, unsupported, wrong_type,
};
use crate::scalar::Scalar;
use crate::tree::{Node, Value};
use crate::units::Wait;
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

/// Defines the modes of a kind, of which `learn` is not there yet.
macro_rules! modes {
    ($(#[doc = $about:literal])+ $name:ident [ $($word:literal),+ ]) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $name(pub(crate) &'static str);

        impl Read for $name {
            fn read(node: &Node, report: &mut Report) -> Option<Self> {
                if matches!(&node.value, Value::Scalar(Scalar { text, .. }) if text == "learn") {
                    unsupported(node.span, "mode: learn", report);
                    return None;
                }
                crate::read::word(node, "a mode", &[$($word),+], report).map(Self)
            }

            fn shape() -> Shape {
                Shape::Words(&[$($word),+])
            }
        }
    };
}

modes! {
    /// What a header's value is to the binding.
    HeaderModeWord ["name", "hash"]
}

modes! {
    /// What a client's address is to the binding.
    SourceModeWord ["hash"]
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
    /// A header that says which server a client is bound to.
    RawHeaderAffinity "affinity: header" {
        /// Its name.
        "name" name: Text = required(),
        /// What its value is: the `name` of a server, or a text to `hash`.
        "mode" mode: HeaderModeWord = or("name"),
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
        /// What the address is: `hash`ed.
        "mode" mode: SourceModeWord = or("hash"),
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
                "app_cookie" => {
                    unsupported(node.span, "app_cookie", report);
                    None
                }
                name => {
                    let what = if name == "header" { "header" } else { "key" };
                    let help = match name {
                        "header" => "write `{ header: NAME }`",
                        _ => "write `{ hash: source }` or `{ hash: { header: NAME } }`",
                    };
                    let message = format!("which {what} is it?");
                    report.error_help(Kind::Value, node.span, message, help);
                    None
                }
            };
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
            "hash" => read_hash(value, report).map(Self::Hash),
            _ => {
                unsupported(entry.key_span, name, report);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![
            Shape::Words(&["cookie", "source"]),
            Shape::OneKey(kinds),
        ])
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

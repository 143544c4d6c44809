//! Routes as written: matches, filters and where they lead.

use super::{RawDestination, RawHedge, RawRouteRetries, RawSplit};
use crate::defaults;
use crate::diagnostic::Report;
use crate::read::{
    At, Read, Shape, Table, choice, entries, one_key, or, required, section, word, wrong_type,
};
use crate::scalar::{Scalar, ScalarKind};
use crate::tree::{Node, Value};
use crate::units::Wait;
use crate::values::{List, Many, Named, Off, Text, Whole};

/// A weight: a share among its neighbours.
pub(crate) type Weight = Whole<0, 1000>;

section! {
    /// A match plus what happens to what matches.
    RawRoute "route" {
        /// Used in metrics and logs.
        "name" name: Text = or("its position, from 1"),
        /// All keys must hold; without it everything matches.
        "match" matching: RawMatch = or("everything"),
        /// Steps applied in order.
        "filters" filters: List<RawFilter> = or("none"),
        /// Times that override the pool's.
        "timeouts" timeouts: RawRouteTimeouts = or("the pool's"),
        /// Tries that override the pool's; `off` turns its hedging off too.
        "retries" retries: Off<RawRouteRetries> = or("the pool's"),
        /// Hedging that overrides the pool's.
        "hedge" hedge: Off<RawHedge> = or("the pool's"),
        /// Who is served first while the pool's servers are full: `high` (8), `normal` (5), `low` (2) or 0-9.
        "priority" priority: RawPriority = or("the listener's"),
        /// The pool that requests go to, or the servers of it with certain labels.
        "pool" pool: RawDestination = or("none"),
        /// Pools that share by weight, 0-1000 each; or a list of arms, for parts of pools.
        "split" split: RawSplit = or("none"),
    } later []
}

/// A priority in a pool's queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawPriority(pub(crate) u8);

const PRIORITIES: &[&str] = &["high", "normal", "low"];

impl Read for RawPriority {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Scalar(Scalar {
                kind: ScalarKind::Int(priority),
                ..
            }) if (0..=9).contains(priority) => u8::try_from(*priority).ok().map(Self),
            Value::Scalar(Scalar {
                kind: ScalarKind::Text,
                ..
            }) => Some(Self(match word(node, "a priority", PRIORITIES, report)? {
                "high" => 8,
                "low" => 2,
                _ => defaults::PRIORITY,
            })),
            _ => {
                wrong_type(node, "`high`, `normal`, `low` or 0 to 9", report);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![
            Shape::Words(PRIORITIES),
            Shape::Integer { min: 0, max: 9 },
        ])
    }
}

section! {
    /// Times that override the pool's.
    RawRouteTimeouts "route timeouts" {
        /// The whole request.
        "request" request: Off<Wait> = or("the pool's"),
    } later []
}

section! {
    /// All given must hold; a list means any of its values. Text is exact, with `*` a glob, with `~` in front a regex (unanchored); `true` and `false` mean present and absent.
    RawMatch "match" {
        /// The host, without case, port and trailing dot; `*.example.com` is any depth below.
        "host" host: Many<Text> = or("any"),
        /// The path: exact, `/prefix/*` or `~regex`.
        "path" path: Many<Text> = or("any"),
        /// The method.
        "method" method: Many<Text> = or("any"),
        /// Headers by name; a repeated header matches if any of it does.
        "header" header: Named<Many<MatchValue>> = or("any"),
        /// Cookies by name.
        "cookie" cookie: Named<Many<MatchValue>> = or("any"),
        /// Query parameters by name.
        "query" query: Named<Many<MatchValue>> = or("any"),
        /// The client's address, as CIDR.
        "source" source: Many<Text> = or("any"),
        /// A match that must not hold.
        "not" not: Box<RawMatch> = or("none"),
        /// The name that a TLS client asks for, as `host`; only on a TCP listener, whose connections are passed on as they are.
        "sni" sni: Many<Text> = or("any"),
        /// What a TLS client would speak, any of it, such as `h2`; only on a TCP listener.
        "alpn" alpn: Many<Text> = or("any"),
    } later ["body"]
}

/// A value to match: a pattern, or presence.
#[derive(Debug, Clone)]
pub(crate) enum MatchValue {
    Pattern(String),
    Present(bool),
}

impl Read for MatchValue {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Scalar(Scalar {
                kind: ScalarKind::Bool(present),
                ..
            }) => Some(Self::Present(*present)),
            Value::Scalar(Scalar {
                kind: ScalarKind::Null,
                ..
            })
            | Value::List(_)
            | Value::Map(_) => {
                wrong_type(
                    node,
                    "text, or `true` or `false` for present or absent",
                    report,
                );
                None
            }
            Value::Scalar(Scalar { text, .. }) => Some(Self::Pattern(text.clone())),
            Value::Poison => None,
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Text::shape(), Shape::Bool])
    }
}

/// One step of a route.
#[derive(Debug)]
pub(crate) enum RawFilter {
    GrpcWeb,
    StripPrefix(At<Text>),
    SetHeader(At<Named<Text>>),
    RemoveHeader(At<Many<Text>>),
    SetResponseHeader(At<Named<Text>>),
    RemoveResponseHeader(At<Many<Text>>),
    Redirect(At<RawRedirect>),
    Respond(At<RawRespond>),
}

/// Filters without options, which may be written by their bare names.
const BARE_FILTERS: &[&str] = &["grpc_web"];

const FILTERS: &[&str] = &[
    "grpc_web",
    "strip_prefix",
    "set_header",
    "remove_header",
    "set_response_header",
    "remove_response_header",
    "redirect",
    "respond",
];

impl Read for RawFilter {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if let Value::Scalar(Scalar {
            kind: ScalarKind::Text,
            ..
        }) = &node.value
        {
            let what = "a filter without options";
            return word(node, what, BARE_FILTERS, report).map(|_| Self::GrpcWeb);
        }
        let (name, entry) = one_key(node, "a filter", FILTERS, report)?;
        Some(match name {
            "grpc_web" => {
                if !entries(&entry.value, "nothing", report)?.is_empty() {
                    wrong_type(&entry.value, "nothing", report);
                    return None;
                }
                Self::GrpcWeb
            }
            "strip_prefix" => Self::StripPrefix(At::entry(entry, report)?),
            "set_header" => Self::SetHeader(At::entry(entry, report)?),
            "remove_header" => Self::RemoveHeader(At::entry(entry, report)?),
            "set_response_header" => Self::SetResponseHeader(At::entry(entry, report)?),
            "remove_response_header" => Self::RemoveResponseHeader(At::entry(entry, report)?),
            "redirect" => Self::Redirect(At::entry(entry, report)?),
            _ => Self::Respond(At::entry(entry, report)?),
        })
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(BARE_FILTERS), Shape::OneKey(filters)])
    }
}

fn filters() -> Table {
    let text = Text::shape;
    let (headers, names) = (Named::<Text>::shape, Many::<Text>::shape);
    Table {
        name: "filter",
        about: "One step of a route: a map with exactly one of these keys.",
        keys: vec![
            choice(
                "grpc_web",
                "Calls of gRPC-Web (`application/grpc-web`, `application/grpc-web-text`) go on as gRPC, and are answered in their own way; other requests stay as they are.",
                Shape::Empty,
            ),
            choice(
                "strip_prefix",
                "Takes this off the path: with `/api`, `/api/x` becomes `/x`.",
                text(),
            ),
            choice(
                "set_header",
                "Gives headers of the request these values.",
                headers(),
            ),
            choice("remove_header", "Takes headers off the request.", names()),
            choice(
                "set_response_header",
                "Gives headers of the response these values.",
                headers(),
            ),
            choice(
                "remove_response_header",
                "Takes headers off the response.",
                names(),
            ),
            choice(
                "redirect",
                "Answers with another place, which may hold `{host}`, `{path}` and `{query}`.",
                RawRedirect::shape(),
            ),
            choice(
                "respond",
                "Answers from here, with a status or more.",
                RawRespond::shape(),
            ),
        ],
    }
}

section! {
    /// Sends the client elsewhere, long form.
    RawRedirectMap "redirect" {
        /// Where to: a URL or a path.
        "to" to: Text = required(),
        /// 301, 302, 303, 307 or 308.
        "status" status: Whole<301, 308> = or(302),
    } later []
}

section! {
    /// An answer made here, long form.
    RawRespondMap "respond" {
        /// Its status.
        "status" status: Whole<200, 599> = or(200),
        /// Its body.
        "body" body: Text = or("empty"),
        /// Its headers.
        "headers" headers: Named<Text> = or("none"),
    } later []
}

/// `redirect: URL`, or the long form.
#[derive(Debug)]
pub(crate) struct RawRedirect(pub(crate) RawRedirectMap);

impl Read for RawRedirect {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            return RawRedirectMap::read(node, report).map(Self);
        }
        let to = crate::read::text(node, "text or a map", report)?.to_owned();
        let mut section = RawRedirectMap::absent();
        section.to = Some(At::here(Text(to), node));
        Some(Self(section))
    }

    fn shape() -> Shape {
        Shape::Any(vec![Text::shape(), RawRedirectMap::shape()])
    }
}

/// `respond: STATUS`, or the long form.
#[derive(Debug)]
pub(crate) struct RawRespond(pub(crate) RawRespondMap);

impl Read for RawRespond {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            return RawRespondMap::read(node, report).map(Self);
        }
        let status = Whole::read(node, report)?;
        let mut section = RawRespondMap::absent();
        section.status = Some(At::here(status, node));
        Some(Self(section))
    }

    fn shape() -> Shape {
        Shape::Any(vec![Whole::<200, 599>::shape(), RawRespondMap::shape()])
    }
}

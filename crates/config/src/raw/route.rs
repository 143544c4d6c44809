//! Routes as written: matches, filters and where they lead.

use super::{ClientAuthWord, RawDestination, RawHedge, RawRouteRetries, RawSplit};
use crate::defaults;
use crate::diagnostic::Report;
use crate::read::{
    At, Read, Shape, Table, choice, entries, one_key, or, required, section, word, wrong_type,
};
use crate::scalar::{Scalar, ScalarKind};
use crate::tree::{Node, Value};
use crate::units::{Time, Wait};
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
        /// `required`: a client that has shown no certificate is refused with 403 `client_certificate`. For listeners with `client_auth: optional`.
        "client_auth" client_auth: ClientAuthWord = or("optional"),
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
        /// The name that a TLS client asks for, as `host`; without one none matches.
        "sni" sni: Many<Text> = or("any"),
        /// The certificate that a client has shown: `true` or `false` for any or none, or what its parts are like.
        "client_cert" client_cert: RawCertMatch = or("any or none"),
        /// What a TLS client would speak, any of it, such as `h2`; only on a TCP listener.
        "alpn" alpn: Many<Text> = or("any"),
    } later ["body"]
}

section! {
    /// Parts of a client's certificate; all given must hold.
    RawCertParts "client certificate" {
        /// Its distinguished name as of RFC 4514: `CN=alice,O=Example`.
        "subject" subject: Many<Text> = or("any"),
        /// The distinguished name of who issued it.
        "issuer" issuer: Many<Text> = or("any"),
        /// Its serial number, as hexadecimal digits.
        "serial" serial: Many<Text> = or("any"),
        /// Its other names, each by itself, with their kind: `DNS:a.example`, `URI:spiffe://…`, `IP:10.0.0.1`, `email:a@b.example`.
        "san" san: Many<Text> = or("any"),
        /// The SHA-256 of the whole, as 64 hexadecimal digits; colons and case do not matter.
        "fingerprint" fingerprint: Many<Text> = or("any"),
    } later []
}

/// What is asked of a client's certificate: whether there is one, or what it is like.
#[derive(Debug)]
pub(crate) enum RawCertMatch {
    Present(bool),
    Like(Box<RawCertParts>),
}

impl Read for RawCertMatch {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Scalar(Scalar {
                kind: ScalarKind::Bool(present),
                ..
            }) => Some(Self::Present(*present)),
            Value::Map(_) => Box::read(node, report).map(Self::Like),
            _ => {
                let expected = "`true`, `false`, or a map of its parts";
                wrong_type(node, expected, report);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Bool, RawCertParts::shape()])
    }
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
    HttpsRedirect(At<RawHttpsRedirect>),
    Hsts(At<RawHsts>),
    Respond(At<RawRespond>),
}

/// Filters without options, which may be written by their bare names.
const BARE_FILTERS: &[&str] = &["grpc_web", "https_redirect"];

const FILTERS: &[&str] = &[
    "grpc_web",
    "strip_prefix",
    "set_header",
    "remove_header",
    "set_response_header",
    "remove_response_header",
    "redirect",
    "https_redirect",
    "hsts",
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
            return Some(match word(node, what, BARE_FILTERS, report)? {
                "https_redirect" => {
                    let plain = RawHttpsRedirect(RawHttpsRedirectMap::absent());
                    Self::HttpsRedirect(At::here(plain, node))
                }
                _ => Self::GrpcWeb,
            });
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
            "https_redirect" => Self::HttpsRedirect(At::entry(entry, report)?),
            "hsts" => Self::Hsts(At::entry(entry, report)?),
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
                "Gives headers of the request these values, which may hold `{host}`, `{path}`, `{query}`, `{source}`, `{sni}`, `{client_cert.subject}`, `.issuer`, `.serial`, `.san`, `.fingerprint` and `.der`. What a request does not have is empty in it (`{host}` in one of HTTP/1.0 without `Host`); what comes out empty as a whole takes the header away.",
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
                "Answers with another place, which may hold what `set_header` may. Where `{host}` says where that is, a request of HTTP/1.0 that names no host gets 400 `bad_request`; elsewhere it is empty.",
                RawRedirect::shape(),
            ),
            choice(
                "https_redirect",
                "Sends who came by plain HTTP to the same place by HTTPS; who came by HTTPS, here or at a trusted proxy, goes on. A request that names no host gets 400 `bad_request`. In short: its port.",
                RawHttpsRedirect::shape(),
            ),
            choice(
                "hsts",
                "Tells browsers that came by HTTPS to come by nothing else (`Strict-Transport-Security`), in answers made here too. In short: for how long.",
                RawHsts::shape(),
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
    /// From HTTP to HTTPS, long form.
    RawHttpsRedirectMap "https redirect" {
        /// Where HTTPS is spoken.
        "port" port: Port = or(443),
        /// 301, 302, 303, 307 or 308.
        "status" status: Whole<301, 308> = or(308),
    } later []
}

type Port = Whole<1, 65_535>;

section! {
    /// HTTPS and nothing else, long form.
    RawHstsMap "hsts" {
        /// For how long; `0` takes back what was said before.
        "max_age" max_age: Time = required(),
        /// For all names below this host too.
        "include_subdomains" include_subdomains: bool = or(false),
        /// The host may stand in the lists that browsers come with.
        "preload" preload: bool = or(false),
    } later []
}

/// `https_redirect: PORT`, or the long form.
#[derive(Debug)]
pub(crate) struct RawHttpsRedirect(pub(crate) RawHttpsRedirectMap);

impl Read for RawHttpsRedirect {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) || node.is_null() {
            return RawHttpsRedirectMap::read(node, report).map(Self);
        }
        let port = Port::read(node, report)?;
        let mut section = RawHttpsRedirectMap::absent();
        section.port = Some(At::here(port, node));
        Some(Self(section))
    }

    fn shape() -> Shape {
        Shape::Any(vec![Port::shape(), RawHttpsRedirectMap::shape()])
    }
}

/// `hsts: TIME`, or the long form.
#[derive(Debug)]
pub(crate) struct RawHsts(pub(crate) RawHstsMap);

impl Read for RawHsts {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            return RawHstsMap::read(node, report).map(Self);
        }
        let max_age = Time::read(node, report)?;
        let mut section = RawHstsMap::absent();
        section.max_age = Some(At::here(max_age, node));
        Some(Self(section))
    }

    fn shape() -> Shape {
        Shape::Any(vec![Time::shape(), RawHstsMap::shape()])
    }
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

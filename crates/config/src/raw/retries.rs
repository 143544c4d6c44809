//! Retries and hedging as written, of pools and of routes.

use balance::Percentile;
use wire::grpc::Code;

use super::{RawStatus, words};
use crate::defaults;
use crate::diagnostic::{Kind, Report};
use crate::read::{At, Read, Shape, or, required, section};
use crate::scalar::{Scalar, ScalarKind};
use crate::tree::{Node, Value};
use crate::units::{Percent, Wait, show_duration};
use crate::values::{Many, Off, Whole};

/// Further tries of one request.
type Attempts = Whole<0, 100>;

section! {
    /// When and how often another server is tried, long form.
    RawRetriesMap "retries" {
        /// Further tries after the first, on other servers.
        "attempts" attempts: Attempts = or(defaults::RETRY_ATTEMPTS),
        /// Share of live requests that may be retries; 10 a second are always allowed.
        "budget" budget: Percent = or(format!("{}%", defaults::RETRY_BUDGET)),
        /// A try without a response head in this time after the request was sent is given up for another server; it goes on where no other one may be tried.
        "per_try_timeout" per_try_timeout: Off<Wait> = or("off"),
        /// Statuses, 400-599, after which another server is tried: numbers or ranges; and codes of gRPC, such as `unavailable`, after which a call is, whatever `methods` says, if its server answered with nothing else. What no other server may be asked for passes to the client as it is.
        "on" on: Many<RawRetryOn> = or("none"),
        /// Waits before a try of a request that was sent already: at random up to `base`, doubled for each further try, at most `max`.
        "backoff" backoff: Off<RawBackoff> = or("off"),
        /// `POST` or `PATCH`, though a server may have acted on a request that got no answer: only where doing it twice does no harm.
        "methods" methods: Many<RetryMethod> = or("none beyond GET, HEAD, OPTIONS, TRACE, PUT and DELETE"),
    } later []
}

section! {
    /// Retries that override the pool's key by key, long form.
    RawRouteRetriesMap "route retries" {
        /// Further tries after the first, on other servers.
        "attempts" attempts: Attempts = or("the pool's"),
        /// A try without a response head in this time after the request was sent is given up for another server.
        "per_try_timeout" per_try_timeout: Off<Wait> = or("the pool's"),
        /// Statuses, 400-599, and codes of gRPC after which another server is tried; `[]` for none.
        "on" on: Many<RawRetryOn> = or("the pool's"),
        /// Waits before a try of a request that was sent already.
        "backoff" backoff: Off<RawBackoff> = or("the pool's"),
        /// `POST` or `PATCH`: only where doing it twice does no harm; `[]` for none.
        "methods" methods: Many<RetryMethod> = or("the pool's"),
    } later []
}

section! {
    /// How long a further try waits.
    RawBackoff "backoff" {
        /// Bound of the wait before the first of them.
        "base" base: Wait = or(show_duration(defaults::BACKOFF_BASE)),
        /// Bound of every wait.
        "max" max: Wait = or(show_duration(defaults::BACKOFF_MAX)),
    } later []
}

section! {
    /// A second try beside a slow first one, long form: the first response head below 500 wins, the other try is given up; one from 500 on waits for the others. For idempotent requests whose body, if any, is kept whole for another try, and that are bound to no server; within `retries.budget`.
    RawHedgeMap "hedge" {
        /// How long the first server may take until its response head: a time, or a percentile of what was measured, `p50` to `p99.99`. That of a route's own `hedge` is measured on the route, else on the pool; nothing is hedged until 100 answers were seen, unless `at_most` is set.
        "after" after: HedgeAfter = required(),
        /// With a percentile: the shortest wait.
        "at_least" at_least: Wait = or(show_duration(defaults::HEDGE_AT_LEAST)),
        /// With a percentile: the longest wait, and the one until enough was measured.
        "at_most" at_most: Off<Wait> = or("off"),
        /// Further tries at once, each as much later.
        "max" max: Whole<1, 5> = or(defaults::HEDGE_MAX),
    } later []
}

words! {
    /// A method that is not repeated unless it is named.
    RetryMethod "a method to repeat" ["POST", "PATCH"]
}

/// What is answered by a server that another one may do better.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RawRetryOn {
    Status(RawStatus),
    Code(Code),
}

impl Read for RawRetryOn {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if let Value::Scalar(Scalar {
            kind: ScalarKind::Text,
            text,
        }) = &node.value
            && text.starts_with(|first: char| first.is_ascii_alphabetic())
        {
            let known = CODES.contains(&text.as_str());
            if !known {
                let message =
                    format!("`{text}` is no status of HTTP, and no code of gRPC to retry");
                let codes = CODES.iter().copied();
                report.not_among(Kind::Value, node.span, message, text, codes);
            }
            return Code::of_name(text).filter(|_| known).map(Self::Code);
        }
        RawStatus::read(node, report).map(Self::Status)
    }

    fn shape() -> Shape {
        Shape::Any(vec![RawStatus::shape(), Shape::Words(CODES)])
    }
}

/// Codes of gRPC as they are written, `ok` aside.
const CODES: &[&str] = &[
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// `retries: 3`, or the long form.
#[derive(Debug)]
pub(crate) struct RawRetries(pub(crate) RawRetriesMap);

impl Read for RawRetries {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if is_section(node) {
            return RawRetriesMap::read(node, report).map(Self);
        }
        let attempts = Attempts::read(node, report)?;
        let mut section = RawRetriesMap::absent();
        section.attempts = Some(At::here(attempts, node));
        Some(Self(section))
    }

    fn shape() -> Shape {
        Shape::Any(vec![Attempts::shape(), RawRetriesMap::shape()])
    }
}

/// `retries: 3` of a route, or the long form.
#[derive(Debug)]
pub(crate) struct RawRouteRetries(pub(crate) RawRouteRetriesMap);

impl Read for RawRouteRetries {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if is_section(node) {
            return RawRouteRetriesMap::read(node, report).map(Self);
        }
        let attempts = Attempts::read(node, report)?;
        let mut section = RawRouteRetriesMap::absent();
        section.attempts = Some(At::here(attempts, node));
        Some(Self(section))
    }

    fn shape() -> Shape {
        Shape::Any(vec![Attempts::shape(), RawRouteRetriesMap::shape()])
    }
}

/// `hedge: 100ms`, or the long form.
#[derive(Debug)]
pub(crate) struct RawHedge(pub(crate) RawHedgeMap);

impl Read for RawHedge {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if is_section(node) {
            return RawHedgeMap::read(node, report).map(Self);
        }
        let after = HedgeAfter::read(node, report)?;
        let mut section = RawHedgeMap::absent();
        section.after = Some(At::here(after, node));
        Some(Self(section))
    }

    fn shape() -> Shape {
        Shape::Any(vec![HedgeAfter::shape(), RawHedgeMap::shape()])
    }
}

/// A time, or a percentile of what was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HedgeAfter {
    Time(Wait),
    Percentile(Percentile),
}

impl Read for HedgeAfter {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if let Value::Scalar(Scalar {
            kind: ScalarKind::Text,
            text,
        }) = &node.value
            && let Some(number) = text.strip_prefix('p')
        {
            let percentile = percentile(number);
            if percentile.is_none() {
                let message = format!("`{text}` is not a percentile from `p50` to `p99.99`");
                report.error(Kind::Value, node.span, message);
            }
            return percentile.map(Self::Percentile);
        }
        Wait::read(node, report).map(Self::Time)
    }

    fn shape() -> Shape {
        Shape::Any(vec![
            Wait::shape(),
            Shape::Text {
                what: "percentile",
                pattern: Some("^p[5-9][0-9]([.][0-9]{1,2})?$"),
            },
        ])
    }
}

/// `95` or `99.9`, to two digits behind the point.
fn percentile(number: &str) -> Option<Percentile> {
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| {
        let is_number = matches!(text.len(), 1 | 2) && text.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| text.parse::<u16>().ok())?
    };
    let hundredths = digits(part)? * if part.len() == 1 { 10 } else { 1 };
    let parts = digits(whole)? * 100 + hundredths;
    (5_000..10_000)
        .contains(&parts)
        .then(|| Percentile::new(parts))
}

fn is_section(node: &Node) -> bool {
    matches!(
        node.value,
        Value::Map(_)
            | Value::Scalar(Scalar {
                kind: ScalarKind::Null,
                ..
            })
    )
}

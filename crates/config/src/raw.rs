//! The config as written: one section for each map of the YAML, before any default is filled in.
//!
//! Each section is one list of keys that gives its struct, its reader, its part of the schema and
//! of the reference. What values mean together is for `compile`.

mod acme;
mod adaptive;
mod affinity;
mod balance;
mod destination;
mod http;
mod http2;
mod listener;
mod outlier;
mod place;
mod pool;
mod retries;
mod route;
mod said;
mod tls;

pub(crate) use acme::{RawAcme, RawExternalAccount};
pub(crate) use adaptive::{RawAdaptive, RawAdaptiveMap};
pub(crate) use affinity::{
    OnDrainWord, RawAffinity, RawAppCookieAffinity, RawCookieAffinity, RawHashAffinity,
    RawHeaderAffinity, RawSourceAffinity, StrengthWord,
};
pub(crate) use balance::{LoadFactor, RawBalance, RawKey};
pub(crate) use destination::{RawArm, RawDestination, RawSplit};
pub(crate) use http::{HttpVersion, RawHttp, RawHttpMap};
pub(crate) use http2::RawHttp2;
pub(crate) use listener::{
    ProtocolWord, RawBind, RawForwarded, RawListener, RawListenerLimits, RawListenerTimeouts,
    RawRoutes,
};
pub(crate) use outlier::{Deviations, RawLatency, RawOutlier, RawSuccessRate};
pub(crate) use place::{RawSlowStart, RawZones};
pub(crate) use pool::{
    RawDrain, RawHealth, RawHealthCheck, RawPool, RawPoolLimits, RawPoolTimeouts, RawServer,
    RawStatus,
};
pub(crate) use retries::{
    HedgeAfter, RawBackoff, RawHedge, RawHedgeMap, RawRetries, RawRetryOn, RawRouteRetries,
    RetryMethod,
};
pub(crate) use route::{
    MatchValue, RawCertMatch, RawFilter, RawHsts, RawHttpsRedirect, RawMatch, RawPriority,
    RawRedirect, RawRespond, RawRoute, Weight,
};
pub(crate) use said::{RawAgent, RawMark};
pub(crate) use tls::{ClientAuthWord, RawCertificate, RawPoolTls, RawTls};

use crate::defaults;
use crate::diagnostic::Report;
use crate::read::{At, Read, Shape, entries, or, required, section, text};
use crate::tree::{Node, Value};
use crate::units::{Size, Time, show_duration};
use crate::values::{List, Many, Named, Off, Text, Whole};

section! {
    /// The whole config.
    RawConfig "config" {
        /// Worker threads.
        "workers" workers: Whole<1, 1024> = or("the cores that the process may use"),
        /// The admin listener: health, metrics and the API.
        "admin" admin: Off<RawAdmin> = or(format!("bind: {}", defaults::ADMIN)),
        /// The zone that this instance is in: pools may prefer servers of it.
        "zone" zone: Text = or("none"),
        /// How the process ends.
        "shutdown" shutdown: RawShutdown = or("its own defaults"),
        /// Bounds of the process.
        "limits" limits: RawLimits = or("its own defaults"),
        /// The access log.
        "access_log" access_log: Off<RawAccessLog> = or("off"),
        /// File whose bytes sign what clients carry: the opaque values of affinity cookies; at least 16 bytes.
        "secret_file" secret_file: Text = or("none"),
        /// File that keeps what operators have said of servers (state, weight) over a restart; its folder must be
        /// writable.
        "state_file" state_file: Off<Text> = or("off"),
        /// Files that are read too, in name order, from this file's folder; `*` is a glob.
        "include" include: Many<Text> = or("none"),
        /// Lists of routes by name, for several listeners; a route without `match` sorts last.
        "routes" routes: Named<List<RawRoute>> = or("none"),
        /// Where traffic is accepted, by name.
        "listeners" listeners: Named<RawListener> = required(),
        /// Where traffic goes, by name.
        "pools" pools: Named<RawPool> = or("none"),
    } later ["sites", "dns", "vip", "discovery", "mesh"]
}

section! {
    /// The admin listener.
    RawAdmin "admin" {
        /// `IP:port`; away from loopback a `token_file` is needed.
        "bind" bind: Text = or(format!("{}; if that port is taken, the next free one", defaults::ADMIN)),
        /// File that holds the token which clients send; it is asked for away from loopback, where `bind` is no loopback address.
        "token_file" token_file: Text = or("none"),
    } later []
}

section! {
    /// How the process ends after SIGTERM.
    RawShutdown "shutdown" {
        /// Between `/health` saying "draining" and the sockets closing.
        "delay" delay: Time = or(show_duration(defaults::SHUTDOWN_DELAY)),
        /// An idle keep-alive connection stays open this long for one more request.
        "idle_wait" idle_wait: Time = or(show_duration(defaults::SHUTDOWN_IDLE_WAIT)),
        /// After this, what is left is cut: who waits for an answer gets 503 `draining`, an answer that is half sent
        /// is reset.
        "timeout" timeout: Time = or(show_duration(defaults::SHUTDOWN_TIMEOUT)),
    } later []
}

section! {
    /// Bounds of the process.
    RawLimits "limits" {
        /// Bytes that the buffers of all requests and connections hold. At 80% accepting pauses, at 90% new requests are answered 503 `overloaded`.
        "buffer_bytes" buffer_bytes: Off<Size<1_048_576, { u64::MAX }>> = or("half of the memory that the process may use"),
    } later []
}

section! {
    /// The access log, long form.
    RawAccessLogMap "access_log" {
        /// `stdout`, `stderr` or a file's path.
        "to" to: Text = or("stdout"),
        /// `json` (one object a line) or `common` (the NCSA format).
        "format" format: LogFormatWord = or("json"),
    } later []
}

/// The access log: where to, or the long form.
#[derive(Debug)]
pub(crate) struct RawAccessLog(pub(crate) RawAccessLogMap);

impl Read for RawAccessLog {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            return RawAccessLogMap::read(node, report).map(Self);
        }
        let to = text(node, "text or a map", report)?;
        let mut section = RawAccessLogMap::absent();
        section.to = Some(At::here(Text(to.to_owned()), node));
        Some(Self(section))
    }

    fn shape() -> Shape {
        Shape::Any(vec![Text::shape(), RawAccessLogMap::shape()])
    }
}

/// Defines a closed list of words.
macro_rules! words {
    ($(#[doc = $about:literal])+ $name:ident $what:literal [ $($word:literal),+ ]) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $name(pub(crate) &'static str);

        impl $crate::read::Read for $name {
            fn read(node: &$crate::tree::Node, report: &mut $crate::diagnostic::Report) -> Option<Self> {
                $crate::read::word(node, $what, &[$($word),+], report).map(Self)
            }

            fn shape() -> $crate::read::Shape {
                $crate::read::Shape::Words(&[$($word),+])
            }
        }
    };
}
pub(crate) use words;

words! {
    /// How a log line looks.
    LogFormatWord "a log format" ["json", "common"]
}

/// Nothing, or an empty map: options that were left out.
pub(crate) fn no_options(node: &Node, report: &mut Report) -> Option<()> {
    for entry in entries(node, "no options", report)? {
        let message = format!("unknown key `{}`: there are no options here", entry.key);
        report.error(crate::diagnostic::Kind::UnknownKey, entry.key_span, message);
    }
    Some(())
}

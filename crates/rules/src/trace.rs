//! Why a route was not taken: collected for `explain`, nothing at all in traffic.

use std::fmt;

/// Learns which routes were rejected before the winner, in order.
pub trait Trace {
    /// Whether anybody listens. If not, the index may skip routes without looking at them.
    const COLLECTS: bool;

    /// Route `route` was not taken because of `key`; `why` is a sentence for people.
    fn rejected(&mut self, route: usize, key: Key, why: fmt::Arguments<'_>);
}

/// For traffic: compiles to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTrace;

impl Trace for NoTrace {
    const COLLECTS: bool = false;

    fn rejected(&mut self, _route: usize, _key: Key, _why: fmt::Arguments<'_>) {}
}

/// Keeps every rejection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collect(pub Vec<Rejection>);

impl Trace for Collect {
    const COLLECTS: bool = true;

    fn rejected(&mut self, route: usize, key: Key, why: fmt::Arguments<'_>) {
        self.0.push(Rejection {
            route,
            key,
            why: why.to_string(),
        });
    }
}

/// One route that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Its index in the table.
    pub route: usize,
    /// The first key that did not hold.
    pub key: Key,
    /// For people: "path /x does not match /api/*".
    pub why: String,
}

/// The keys of a match, in the order in which they are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `host`
    Host,
    /// `path`
    Path,
    /// `method`
    Method,
    /// `source`
    Source,
    /// `sni`
    Sni,
    /// `client_cert`
    ClientCert,
    /// `header`
    Header,
    /// `cookie`
    Cookie,
    /// `query`
    Query,
    /// `not`
    Not,
}

impl Key {
    /// As the config spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Key::Host => "host",
            Key::Path => "path",
            Key::Method => "method",
            Key::Source => "source",
            Key::Sni => "sni",
            Key::ClientCert => "client_cert",
            Key::Header => "header",
            Key::Cookie => "cookie",
            Key::Query => "query",
            Key::Not => "not",
        }
    }
}

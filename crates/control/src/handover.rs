//! Live state as a document: what one process tells the next in an upgrade, and what of it is kept in the state file.
//!
//! Every part has a default and unknown parts are skipped, so that a version before and a version after this one read
//! it too. How it travels, and in which text form, is the binary's matter.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is known of servers and names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Live {
    /// By pool, then by server.
    pub servers: Vec<LiveServer>,
    /// What DNS has answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<LiveName>,
    /// What pools have learnt of their clients. Never in the state file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub learnt: Vec<LiveLearnt>,
}

/// What one pool has learnt of its clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveLearnt {
    /// The pool.
    pub pool: String,
    /// What tells clients apart, in words: what was learnt by something else means nothing.
    pub by: String,
    /// What keys were hashed with, in 32 hexadecimal digits.
    pub secret: Hidden,
    /// Names of servers, which entries name by their place here.
    pub servers: Vec<String>,
    /// Those unused longest first.
    pub entries: Vec<LiveEntry>,
}

/// One binding: the hash of a client's key, its server's place, and the milliseconds that it was unused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveEntry(pub u64, pub u32, pub u64);

/// A secret: its `Debug` shows nothing.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden")
    }
}

/// One server at one address, or at all the addresses of its name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveServer {
    /// Its pool.
    pub pool: String,
    /// Its name in the config.
    pub server: String,
    /// Where it is; `None`: what is said holds for every address of its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The operator's word: `ready`, `drain` or `disabled`; `None`: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The drain that is under way, or over; `None`: there is none that ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<LiveDrain>,
    /// The operator's weight (0-1000); `None`: the config's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// The config's weight when the operator set another: a new one in the config ends the operator's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_weight: Option<u32>,
    /// The verdict of its probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<LiveHealth>,
    /// Moving average of its latency, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ns: Option<u64>,
    /// Peak-sensitive average of its latency, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_latency_ns: Option<u64>,
    /// What its traffic showed; `None`: whoever wrote this did not know such things.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<LiveTraffic>,
    /// What it says of itself; `None` as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub says: Option<LiveSays>,
    /// How far its slow start is; `None` as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmth: Option<LiveWarmth>,
    /// What its latency allows; `None`: nothing was found, or as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_limit: Option<LiveLimit>,
}

/// A drain that ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveDrain {
    /// It is over: clients that were bound to the server move.
    #[serde(skip_serializing_if = "is_default")]
    pub is_over: bool,
    /// Milliseconds since it began.
    #[serde(skip_serializing_if = "is_default")]
    pub age_ms: u64,
    /// Milliseconds until what still runs is cut; `None`: it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
}

impl LiveDrain {
    /// The same so much later.
    #[must_use]
    pub fn after(self, passed: Duration) -> Self {
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        Self {
            is_over: self.is_over,
            age_ms: self.age_ms.saturating_add(passed),
            left_ms: self.left_ms.map(|left| left.saturating_sub(passed)),
        }
    }
}

/// How many requests a server may have at once, as its latency answers to them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveLimit {
    /// So many.
    pub requests: f64,
    /// Its latency without load, in nanoseconds.
    pub base_ns: u64,
}

/// What a server's traffic showed. Without any of it, it serves with all of its weight.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveTraffic {
    /// It is out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejected: Option<LiveEjection>,
    /// Its ejection is over, and no request has succeeded since.
    #[serde(skip_serializing_if = "is_default")]
    pub half_open: bool,
    /// Ejections that the length of the next one counts.
    #[serde(skip_serializing_if = "is_default")]
    pub ejections: u32,
    /// Milliseconds in service, by which that number falls.
    #[serde(skip_serializing_if = "is_default")]
    pub served_ms: u64,
    /// Which part of its weight it gets, above 0 to 1; `None`: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Why that is not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lessened: Option<LiveLessened>,
    /// Requests of late; older ones count less and less.
    #[serde(skip_serializing_if = "is_default")]
    pub requests: f64,
    /// And how many of these failed.
    #[serde(skip_serializing_if = "is_default")]
    pub failed: f64,
    /// Gateway errors in a row.
    #[serde(skip_serializing_if = "is_default")]
    pub gateway_errors: u16,
    /// Statuses from 500 on in a row, gateway errors included.
    #[serde(skip_serializing_if = "is_default")]
    pub server_errors: u16,
}

/// Why a server is out, and for how long yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveEjection {
    /// A label of `evenkeel_ejections_total`; any other word: another reason.
    pub cause: String,
    /// Whether it answered, if badly.
    pub answers: bool,
    /// Milliseconds until it is back.
    pub left_ms: u64,
    /// Failures in a row.
    #[serde(skip_serializing_if = "is_default")]
    pub count: u32,
    /// The last of them: `refused`, `connect_timeout`, `closed`, `reset`, `timeout`, `malformed` or a status.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last: String,
    /// Its failures, percent.
    #[serde(skip_serializing_if = "is_default")]
    pub failed: u32,
    /// Those of the rest.
    #[serde(skip_serializing_if = "is_default")]
    pub rest: u32,
}

/// Why a server has less than its weight.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveLessened {
    /// `failing` or `slow`; any other word: it recovers.
    pub why: String,
    /// Its failures, in tenths of a percent; its average, in microseconds.
    pub own: u64,
    /// The same of the rest.
    pub rest: u64,
}

/// What a server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveSays {
    /// By its answers to probes: `ready`, `drain` or `disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// By its agent, as that would write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The state that it wanted when its operator enabled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub put_aside: Option<String>,
}

/// How long a server has served beside others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveWarmth {
    /// Whether it was there before its pool ever served, and has not been found down since.
    pub fresh: bool,
    /// Milliseconds that it has been fit to serve; `None`: it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit_ms: Option<u64>,
    /// Whether it warms up.
    pub warming: bool,
}

/// What its probes found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveHealth {
    /// `healthy` or `unhealthy`; any other word: nothing is known.
    pub verdict: String,
    /// Whether it answered last time, rightly or wrongly.
    pub answers: bool,
    /// Why the last probe failed, in words; `None`: it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Milliseconds since the last probe ended.
    pub age_ms: u64,
}

/// What DNS has answered for one name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveName {
    /// The name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Milliseconds until it is to be asked again.
    pub due_ms: u64,
}

/// What is said of servers while the process before this one still drains: it is to obey, too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Word {
    /// What [`Obeyed`] names it by.
    pub number: u64,
    /// Their pool.
    pub pool: String,
    /// Each by its name in the config and its address; none: it only asks whether all words before it have been obeyed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<(String, String)>,
    /// Their new state: `ready`, `drain` or `disabled`; `None`: it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Their new weight (0-1000); `None`: it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// They drain, whatever `state` says; where that is over, clients that were bound to them move from the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<LiveDrain>,
    /// That drain is the one which was handed over: it does not begin anew, and what it comes to counts from its beginning.
    #[serde(skip_serializing_if = "is_default")]
    pub goes_on: bool,
    /// What they hold may take as long as the config says of whoever is told, whatever `drain` says.
    #[serde(skip_serializing_if = "is_default")]
    pub own_timeout: bool,
}

/// What came of a [`Word`], once it is done; of a drain what its receipt says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Obeyed {
    /// The word's.
    pub number: u64,
    /// Picks after the drain began, affinity aside.
    #[serde(skip_serializing_if = "is_default")]
    pub new_picks: u64,
    /// Picks by affinity while it drained.
    #[serde(skip_serializing_if = "is_default")]
    pub affinity_picks: u64,
    /// Requests that ended by themselves.
    #[serde(skip_serializing_if = "is_default")]
    pub finished: u64,
    /// Requests that were cut.
    #[serde(skip_serializing_if = "is_default")]
    pub cut: u64,
    /// Requests in use when another word ended the drain; `None`: it ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
    /// The process before that one ended without saying what it had of the drain.
    #[serde(skip_serializing_if = "is_default")]
    pub partial: bool,
}

impl LiveServer {
    /// Whether an operator has said anything of it.
    #[must_use]
    pub fn has_words(&self) -> bool {
        self.state.is_some() || self.weight.is_some()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

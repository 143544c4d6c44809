//! Live state as a document: what one process tells the next in an upgrade, and what of it is kept in the state file.
//!
//! Every part has a default and unknown parts are skipped, so that a version before and a version after this one read
//! it too. How it travels, and in which text form, is the binary's matter.

use std::net::IpAddr;

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

impl LiveServer {
    /// Whether an operator has said anything of it.
    #[must_use]
    pub fn has_words(&self) -> bool {
        self.state.is_some() || self.weight.is_some()
    }
}

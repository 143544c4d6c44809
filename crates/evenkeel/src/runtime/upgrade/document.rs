//! What the two processes of an upgrade say to one another.
//!
//! The two may be of different versions: unknown parts are skipped, missing ones have their default. `protocol` and
//! `readable_by` are for a change that this cannot bridge.

use std::net::SocketAddr;
use std::sync::Arc;

use admin::Totals;
use config::Bind;
use control::handover::{Live, Obeyed, Word};
use serde::{Deserialize, Serialize};

/// The protocol that is spoken here.
const PROTOCOL: u32 = 1;

/// The first word of the old process. The sockets follow, in the order of this list, the admin listener's last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Hello {
    /// The protocol of the one that speaks.
    protocol: u32,
    /// The oldest protocol whose reader understands it.
    readable_by: u32,
    /// Version of the binary.
    pub(crate) version: String,
    /// Its process id.
    pub(crate) pid: u32,
    /// Listening sockets by address.
    pub(crate) sockets: Vec<Sockets>,
    /// The admin listener, unless it is off.
    pub(crate) admin: Option<AdminSocket>,
    /// What is known at this moment; [`State`] brings it up to date.
    pub(crate) live: Live,
    /// Whether it obeys words of the new process while it drains.
    pub(crate) obeys: bool,
}

/// The sockets of one address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sockets {
    /// As the config says it, so with port 0 where the kernel is to choose.
    address: Option<SocketAddr>,
    /// Whether IPv4 arrives on the same socket.
    dual_stack: bool,
    /// Whose it is, with port 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<Arc<str>>,
    /// Of a Unix socket.
    path: Option<String>,
    /// Whether the path is removed with the listener.
    pub(crate) unlink: bool,
    /// How many sockets.
    pub(crate) count: usize,
}

/// The admin listener's socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AdminSocket {
    /// As the config says it; the socket may have another port where that one was taken.
    pub(crate) bind: SocketAddr,
}

/// What is known when the new process takes over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// Health, operators' words, averages.
    pub(crate) live: Live,
    /// Totals by series.
    pub(crate) totals: Totals,
    /// What tickets of TLS sessions are made with.
    pub(crate) tickets: Tickets,
    /// For how long the newest of them has been in use.
    pub(crate) ticket_age_secs: u64,
}

/// Secrets: their `Debug` shows none.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Tickets(pub(crate) Vec<String>);

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// What the old process still counts, or what came of a word of the new one. The first one says that it no longer
/// accepts, probes or writes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Update {
    /// Totals by series, all of them; empty: they are as they were said.
    pub(crate) totals: Totals,
    /// What its servers hold, by series; comes with totals.
    #[serde(skip_serializing_if = "Totals::is_empty")]
    pub(crate) active: Totals,
    /// What it has done of what it was told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) obeyed: Vec<Obeyed>,
    /// Whether it has drained.
    pub(crate) ended: bool,
}

/// What the new process says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    /// `prepared`, `ready` or `failed`.
    pub(crate) stage: String,
    /// Why it failed.
    pub(crate) errors: Vec<String>,
    /// Version of the binary.
    pub(crate) version: String,
    /// Which of the hello's sockets it goes on with.
    pub(crate) adopted: Vec<usize>,
    /// What it has to say of servers by the time that it is ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) words: Vec<Word>,
}

impl Hello {
    pub(crate) fn new(sockets: Vec<Sockets>, admin: Option<AdminSocket>, live: Live) -> Self {
        Self {
            protocol: PROTOCOL,
            readable_by: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            sockets,
            admin,
            live,
            obeys: true,
        }
    }

    /// Whether it can be understood here.
    pub(crate) fn judge(&self) -> Result<(), String> {
        if self.readable_by <= PROTOCOL {
            return Ok(());
        }
        Err(format!(
            "the running process (version {}) hands over by protocol {}, of which this version ({}) knows nothing: \
             restart instead",
            self.version,
            self.protocol,
            env!("CARGO_PKG_VERSION")
        ))
    }
}

impl Sockets {
    pub(crate) fn new(bind: &Bind, unlink: bool, count: usize) -> Self {
        let mut sockets = Self {
            unlink,
            count,
            ..Self::default()
        };
        match bind {
            Bind::Tcp {
                address,
                dual_stack,
                listener,
            } => {
                sockets.address = Some(*address);
                sockets.dual_stack = *dual_stack;
                sockets.listener.clone_from(listener);
            }
            Bind::Unix(path) => sockets.path = Some(path.clone()),
        }
        sockets
    }

    /// `None`: an address of a kind that is not known here.
    pub(crate) fn bind(&self) -> Option<Bind> {
        match (&self.path, self.address) {
            (Some(path), _) => Some(Bind::Unix(path.clone())),
            (None, Some(address)) => Some(Bind::Tcp {
                address,
                dual_stack: self.dual_stack,
                listener: self.listener.clone(),
            }),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first version, as it stood; every later one must read it.
    const FIRST: &str = r#"{"protocol": 1, "readable_by": 1, "version": "0.1.0", "pid": 7,
        "sockets": [{"address": "[::]:80", "dual_stack": true, "count": 4},
                    {"path": "/run/web.sock", "unlink": true, "count": 1}],
        "admin": {"bind": "127.0.0.1:9900"},
        "live": {"servers": [{"pool": "site", "server": "a"}]}}"#;

    #[test]
    fn the_hello_of_the_first_version_is_understood() {
        let hello: Hello = serde_json::from_str(FIRST).expect("it works");
        hello.judge().expect("it works");
        assert!(!hello.obeys, "it knew no words");
        let binds: Vec<_> = hello.sockets.iter().map(Sockets::bind).collect();
        assert_eq!(
            binds,
            [
                Some(Bind::Tcp {
                    address: "[::]:80".parse().expect("it works"),
                    dual_stack: true,
                    listener: None,
                }),
                Some(Bind::Unix("/run/web.sock".to_owned())),
            ]
        );
        let again: Hello = serde_json::from_str(&serde_json::to_string(&hello).expect("it works"))
            .expect("it works");
        assert_eq!(again, hello);
    }

    #[test]
    fn a_later_version_is_understood_for_as_long_as_it_says_so() {
        let later = FIRST
            .replacen("\"protocol\": 1", "\"protocol\": 9, \"seals\": [1]", 1)
            .replace(
                "\"count\": 1}",
                "\"count\": 1}, {\"vsock\": 5, \"count\": 1}",
            );
        let hello: Hello = serde_json::from_str(&later).expect("it works");
        hello.judge().expect("it works");
        assert_eq!(hello.sockets.last().map(Sockets::bind), Some(None));
        let broken = later.replace("\"readable_by\": 1", "\"readable_by\": 9");
        let hello: Hello = serde_json::from_str(&broken).expect("it works");
        assert!(
            hello
                .judge()
                .expect_err("it is refused")
                .contains("protocol 9")
        );
    }

    #[test]
    fn what_is_missing_has_its_default() {
        assert_eq!(
            serde_json::from_str::<State>("{}").expect("it works"),
            State::default()
        );
        assert_eq!(
            serde_json::from_str::<Update>("{}").expect("it works"),
            Update::default()
        );
        assert_eq!(
            serde_json::from_str::<Answer>("{}").expect("it works"),
            Answer::default()
        );
    }
}

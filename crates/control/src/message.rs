//! What the rooms say to the publisher, and what it answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use balance::State;
use balance::health::Outcome;
use balance::outlier::{Failure, Streak};
use wire::agent_check::AgentLine;

use crate::fairness::Teller;
use crate::handover::Obeyed;
use crate::live::ListenerState;
use crate::metrics::PauseCause;
use crate::publisher::Changes;
use crate::sources::Counted;

/// The way to the thread that owns the publisher.
pub type Sender = Box<dyn Fn(Message) + Send + Sync>;

/// What is sent to the publisher's thread.
pub enum Message {
    /// Something happened.
    Event(Event),
    /// Somebody wants something, and an answer.
    Command(Command, Reply),
    /// The thread of a worker has ended, though nobody asked it to: the workers are to be looked after.
    WorkerEnded,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Event(event) => event.fmt(f),
            Self::Command(command, _) => command.fmt(f),
            Self::WorkerEnded => f.write_str("WorkerEnded"),
        }
    }
}

/// Something happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Real traffic was refused by this member.
    Refused {
        /// Which member.
        member: u32,
    },
    /// A request has succeeded at a server that was half open.
    Passed {
        /// Which member.
        member: u32,
    },
    /// It speaks another version of HTTP than before, or wants another number of requests on one connection.
    Speaks {
        /// Which member.
        member: u32,
    },
    /// So many failures in a row as eject a server have come from real traffic.
    Failing {
        /// Which member.
        member: u32,
        /// Of which kind.
        streak: Streak,
        /// The last of them.
        last: Failure,
    },
    /// A probe has ended.
    Probed {
        /// Which member.
        member: u32,
        /// The number that the probe was given, so that one from before a change is ignored.
        probe: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// The answer to a probe said what traffic its server wants. Comes before the probe's end.
    Says {
        /// Which member.
        member: u32,
        /// The number that the probe was given.
        probe: u64,
        /// What it wants: `Ready` takes back what it said before.
        state: State,
    },
    /// An agent check has ended.
    AgentSaid {
        /// Which member.
        member: u32,
        /// The number that the check was given.
        number: u64,
        /// The line, or why there is none.
        answer: Result<AgentLine, Arc<str>>,
    },
    /// A probe could not be sent, by a fault of this machine: nothing is known of the server.
    NotProbed {
        /// Which member.
        member: u32,
        /// The number that the probe was given.
        probe: u64,
    },
    /// A listener's accept loops began or ended to pause.
    Paused {
        /// Which listener.
        listener: Arc<ListenerState>,
        /// Why.
        cause: PauseCause,
    },
    /// What one worker counted of the addresses that a pool's clients come from, in its last window.
    Sources {
        /// Pool name.
        pool: Arc<str>,
        /// Who has counted.
        teller: Teller,
        /// What.
        counted: Box<Counted>,
    },
    /// A name look-up has ended.
    Resolved {
        /// The name.
        name: Arc<str>,
        /// Its addresses and for how long they hold, or what went wrong.
        answer: Result<(Vec<IpAddr>, Duration), String>,
    },
    /// The process before this one has done what it was told.
    Obeyed(Obeyed),
    /// The process before this one drains and says nothing: who waits for it waits in vain.
    PredecessorSilent,
    /// The process before this one has ended.
    PredecessorEnded {
        /// Whether it said so, and before that what its drains came to.
        in_order: bool,
    },
}

/// What an operator wants.
#[derive(Debug, Clone)]
pub enum Command {
    /// Read the config again and take it up.
    Reload,
    /// Start another process of the binary on disk, and hand over to it.
    Upgrade {
        /// Another binary; `None`: the one that this process was started from.
        binary: Option<String>,
        /// How long the new process has to be ready.
        timeout: Duration,
    },
    /// Change a server's state or weight.
    Set {
        /// Pool name.
        pool: String,
        /// Server name.
        server: String,
        /// The new state, if it is to change.
        state: Option<State>,
        /// The new weight (0-1000), if it is to change.
        weight: Option<u32>,
        /// Even if the others may not bear it.
        force: bool,
    },
    /// Drain a server, wait for what it holds, and give a receipt.
    Drain {
        /// Pool name.
        pool: String,
        /// Server name.
        server: String,
        /// What still runs then is cut; `None`: as the pool says.
        timeout: Option<Duration>,
        /// Even if the others may not bear it.
        force: bool,
    },
    /// Wait for a drain that began in the process before this one, and give its receipt.
    DrainWait {
        /// Pool name.
        pool: String,
        /// Server name.
        server: String,
    },
    /// Forget what was learnt of clients: they are new from then on.
    Forget {
        /// Pool name.
        pool: String,
        /// Which bindings.
        what: Forget,
    },
    /// Take a server out as a crash would, and report what that costs.
    Drill {
        /// Pool name.
        pool: String,
        /// Server name.
        server: String,
        /// How long it is out: 1 s to 1 h.
        length: Duration,
        /// Even if nobody else can serve, or the others may not bear it.
        force: bool,
    },
}

/// Which bindings of clients are to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forget {
    /// All of the pool.
    All,
    /// Those to the server of this name.
    Server(String),
    /// That of the client with this key, as lists show it.
    Key(u64),
    /// That of the client with this cookie, header value or address.
    Value(String),
}

/// Called once with the answer.
pub type Reply = Box<dyn FnOnce(Answer) + Send>;

/// What the publisher answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// It is done.
    Done,
    /// A config was taken up.
    Reloaded(Changes),
    /// A config was not taken up, or no process took over: each error as it would be printed.
    Refused(Vec<String>),
    /// Another process serves now.
    Upgraded {
        /// Its process id.
        pid: u32,
        /// Its version.
        version: String,
    },
    /// A drain has ended.
    Drained(Receipt),
    /// Another process goes on with a drain, since an upgrade: that one will have the receipt.
    GoesOnElsewhere,
    /// A drill has ended.
    Drilled(DrillReport),
    /// So many bindings were forgotten.
    Forgotten(u64),
    /// It would do harm, which is told, and is done only by force.
    NeedsForce(String),
    /// No such pool or server, or a value out of range.
    NotFound(String),
}

/// What came of the last reload.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ReloadReport {
    /// When it ended, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// How long reading and taking up took.
    pub took_ms: u64,
    /// What asked for it: "SIGHUP", "the admin API", "a file changed".
    pub asked_by: &'static str,
    /// The config in force since: grows by one with each that is taken up.
    pub generation: u64,
    /// What changed; absent when nothing was taken up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Changes>,
    /// Why nothing was taken up; absent when it was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// What a drain did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Receipt {
    /// Picks after the drain began, affinity aside. Always 0.
    pub new_picks: u64,
    /// Picks by affinity while it drained.
    pub affinity_picks: u64,
    /// Requests that ended by themselves.
    pub finished: u64,
    /// Requests that were ended by us, and why.
    pub cut: Vec<Cut>,
    /// Another word ended the drain, or its process has ended, with so many requests still in use; absent when it ended by
    /// itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
    /// What the process before an upgrade had of it is not counted: that one ended without a word, or this one ended before
    /// it. Absent when all is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// The process has ended before the drain. Absent when it has not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ending: bool,
    /// How long it took.
    pub took_ms: u64,
}

impl Receipt {
    /// Adds what another process's part of the same drain came to.
    pub(crate) fn add(&mut self, other: &Self) {
        self.new_picks = self.new_picks.saturating_add(other.new_picks);
        self.affinity_picks = self.affinity_picks.saturating_add(other.affinity_picks);
        self.finished = self.finished.saturating_add(other.finished);
        self.add_cut(other.cut.iter().map(|cut| cut.count).sum());
        let left = self.left.into_iter().chain(other.left);
        self.left = left.reduce(u64::saturating_add);
        self.partial |= other.partial;
    }

    /// Adds what was cut at the deadline.
    pub(crate) fn add_cut(&mut self, count: u64) {
        match self.cut.first_mut() {
            Some(cut) => cut.count = cut.count.saturating_add(count),
            None if count == 0 => {}
            None => self.cut.push(Cut {
                reason: "deadline",
                count,
            }),
        }
    }
}

/// Requests that were ended by us.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Cut {
    /// Why: "deadline".
    pub reason: &'static str,
    /// How many.
    pub count: u64,
}

/// What a drill showed.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DrillReport {
    /// Pool name.
    pub pool: Arc<str>,
    /// Server name, as it was given.
    pub server: String,
    /// Why it is over.
    pub ended_by: DrillEnd,
    /// How long the server was out.
    pub out_ms: u64,
    /// Requests and TCP connections of the pool that were under way meanwhile, those begun before included.
    pub requests: u64,
    /// Those among them that failed: answered here with 5xx, or broken off.
    pub failed: u64,
    /// Further tries on another server.
    pub retried: u64,
    /// Tries with the server that was out.
    pub in_vain: u64,
    /// When something failed or was tried again last, after the crash; `None`: it went on until the end.
    pub settled_ms: Option<u64>,
    /// When the server was no longer picked, after the crash; `None`: it was until the end, or no request tried it.
    pub unpicked_ms: Option<u64>,
    /// What it carried before the crash.
    pub before_per_second: f64,
    /// The other servers of the pool.
    pub survivors: Vec<Survivor>,
}

/// What another server carried.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Survivor {
    /// Its name.
    pub server: Arc<str>,
    /// Picks in a second in the time before the crash.
    pub before_per_second: f64,
    /// Picks in a second in the second half of the time after it.
    pub after_per_second: f64,
    /// Most requests in use at once, as far as was seen.
    pub active_max: u32,
}

/// Why a drill is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DrillEnd {
    /// Its time is over.
    Time,
    /// An operator enabled the server.
    Operator,
    /// The config has let go of the server.
    Removed,
    /// Another process has taken over: it knows of no drill.
    Upgrade,
}

impl std::fmt::Display for DrillReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "out for {} ms; {} requests: {} failed, {} tries on another server; ",
            self.out_ms, self.requests, self.failed, self.retried
        )?;
        match self.settled_ms {
            Some(0) => f.write_str("nothing met it"),
            Some(ms) => write!(f, "settled after {ms} ms"),
            None => f.write_str("not settled when it ended"),
        }
    }
}

//! What binds a client to a server of a pool: who it is bound to, whether it stays there, and what is said of it.
//!
//! A request brings a [`Bond`]: nothing, a server, or a key that a server owns. [`judge`] says what becomes of it as its
//! server stands; [`LocalPool::pick_bound`](crate::pick::LocalPool::pick_bound) asks it and claims a slot. How a
//! cookie is written is [`cookie`]'s, who of a pool may keep bound clients is in its view ([`Bound`]). Nothing here
//! waits or remembers.

mod bond;
mod bound;
pub mod cookie;
mod read;
pub(crate) mod seal;
mod split;

use balance::{OnDrain, Refused};
use config::{Affinity, Strength};

pub use bond::{Bond, Tie};
pub use bound::{Bound, BoundServer, Homes};
pub use read::{Asks, Placed, arm, bond};
pub use split::{Share, request_key, source_key};

use crate::reason::Reason;

/// How a server stands towards the clients that are bound to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It serves, or could if it were wanted: also one that is not wanted now (a backup, another zone or priority), that
    /// warms up, is degraded, was not probed yet, or serves in panic.
    Serves,
    /// Its weight is 0: it takes nobody new.
    Closed,
    /// It drains.
    Drains,
    /// Its drain has ended.
    Drained,
    /// Its operator, or it itself, has it out.
    Disabled,
    /// It is unhealthy, or ejected.
    Unfit,
}

/// What becomes of a client whose server stands like that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// Another server takes it, and it is bound to that from now on.
    Move,
    /// It is answered that its server cannot serve.
    Refuse,
}

/// Decides. `docs/affinity.md` has this as a table, by which the tests go.
#[must_use]
pub fn judge(fit: Fit, strength: Strength, on_drain: OnDrain) -> Verdict {
    match (fit, on_drain, strength) {
        (Fit::Serves, _, _) | (Fit::Closed | Fit::Drains, OnDrain::Keep, _) => Verdict::Keep,
        // Its operator wants it empty.
        (Fit::Closed | Fit::Drains, OnDrain::Move, _) | (Fit::Drained, _, _) => Verdict::Move,
        (Fit::Disabled | Fit::Unfit, _, strength) => without(strength),
    }
}

/// What becomes of a client whose server is out, or full for too long.
#[must_use]
pub fn without(strength: Strength) -> Verdict {
    match strength {
        Strength::Preferred => Verdict::Move,
        Strength::Required => Verdict::Refuse,
    }
}

/// What becomes of a client that its server may keep, and does not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// It is full, or the pool: it can be waited for.
    Full(Reason),
    /// As if it could not serve.
    Away(Verdict),
}

/// What becomes of it, by how the server's own word refused it.
pub(crate) fn turned(refused: Refused, affinity: &Affinity) -> Turned {
    match refused {
        Refused::PoolFull => Turned::Full(Reason::PoolLimit),
        Refused::Draining if affinity.on_drain == OnDrain::Move => Turned::Away(Verdict::Move),
        Refused::Draining | Refused::Disabled => Turned::Away(without(affinity.strength)),
        _ => Turned::Full(Reason::ServerLimit),
    }
}

/// What came of a request's bond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// It was served by the server that it was bound to.
    Kept,
    /// It brought nothing: it is bound from now on.
    New,
    /// What it brought names no server of the pool: it is bound anew.
    Foreign,
    /// Its server could not serve: it is bound to another.
    Moved,
    /// A try at its server failed, and another one served it: it stays bound as it was.
    Strayed,
    /// Its server could not serve, and no other may.
    Refused,
}

impl End {
    /// Each, in the order of its number.
    pub const ALL: [Self; 6] = [
        Self::Kept,
        Self::New,
        Self::Foreign,
        Self::Moved,
        Self::Strayed,
        Self::Refused,
    ];

    /// The word for it in logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::New => "new",
            Self::Foreign => "foreign",
            Self::Moved => "moved",
            Self::Strayed => "strayed",
            Self::Refused => "refused",
        }
    }

    /// Whether the client is bound to the server that serves it from now on, and was not before.
    #[must_use]
    pub fn binds(self) -> bool {
        matches!(self, Self::New | Self::Foreign | Self::Moved)
    }
}

//! What binds one request.

use std::cell::Cell;

use balance::learnt::Key;

use super::{End, Share};

/// To what a request is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tie {
    /// To nothing: any server will do.
    #[default]
    Free,
    /// To the member with this id.
    Server(u32),
    /// To the owner of this key.
    Key(u64),
    /// To a server that there is not.
    Lost,
}

/// What binds one request, and what came of it so far.
#[derive(Debug, Default)]
pub struct Bond {
    /// To what it is bound.
    pub tie: Tie,
    /// Whether it brought something that names no server.
    pub foreign: bool,
    /// Whether what it brought is to be given anew, though it is right.
    pub renew: bool,
    /// Its place among the users of a split, if that is remembered.
    pub share: Option<Share>,
    /// What the request is known by in its pool's table of what was learnt.
    pub key: Option<Key>,
    /// The member that it is bound to, once that is known.
    owner: Cell<Option<u32>>,
    /// Whether it leaves its server: that cannot serve.
    leaves: Cell<bool>,
    /// Whether it is to wait for its server, which is full.
    waits: Cell<bool>,
    /// Whether it has waited for its server, in vain.
    waited: Cell<bool>,
    refused: Cell<bool>,
}

impl Bond {
    /// Bound like this, by something that is as it should be.
    #[must_use]
    pub fn to(tie: Tie) -> Self {
        Self {
            tie,
            ..Self::default()
        }
    }

    /// What came of it, now that this member serves; `None` if none does.
    #[must_use]
    pub fn end(&self, member: Option<u32>) -> End {
        match (self.tie, self.owner.get(), member) {
            (Tie::Free, _, _) if self.foreign => End::Foreign,
            (Tie::Free, _, _) => End::New,
            (Tie::Lost, _, Some(_)) => End::Foreign,
            (_, Some(owner), Some(member)) if owner == member => End::Kept,
            _ if self.refused.get() => End::Refused,
            (_, _, None) => End::Strayed,
            _ if self.leaves.get() => End::Moved,
            _ => End::Strayed,
        }
    }

    /// The member that it is bound to; `None` if it is bound to none, or that is not known yet.
    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        self.owner.get()
    }

    /// Notes that a server refused a connection. If it is the one that this is bound to, that is gone: whoever serves
    /// instead is what it is bound to.
    pub fn note_refused(&self, member: u32) {
        if self.owner.get() == Some(member) {
            self.leaves.set(true);
        }
    }

    /// Whether it is to wait for its server, which is full: the last pick said so.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.waits.get()
    }

    /// Notes that the wait for its server was in vain: the next pick leaves it, or refuses.
    pub fn give_up(&self) {
        self.waited.set(true);
    }

    pub(crate) fn has_given_up(&self) -> bool {
        self.waited.get()
    }

    pub(crate) fn set_owner(&self, member: u32) {
        self.owner.set(Some(member));
    }

    pub(crate) fn set_waits(&self, waits: bool) {
        self.waits.set(waits);
    }

    pub(crate) fn leave(&self) {
        self.leaves.set(true);
    }

    pub(crate) fn refuse(&self) {
        self.refused.set(true);
    }
}

//! The servers of a pool as clients are bound to them: all of them, whether they may be picked or not.

use std::sync::Arc;

use balance::{OnDrain, Owners};
use config::Strength;

use super::{Fit, Verdict, judge};
use crate::live::Member;

/// Part of a pool's view where something binds its clients. Immutable.
#[derive(Debug)]
pub struct Bound {
    /// In the config's order.
    servers: Vec<BoundServer>,
    /// Ids of members with their places among the servers, sorted.
    by_id: Vec<(u32, u32)>,
    /// Hashes of what clients carry, with the places, sorted.
    by_text: Vec<(u64, u32)>,
    /// Whose a key is, by places.
    owners: Option<Arc<Owners>>,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct BoundServer {
    /// The server.
    pub member: Arc<Member>,
    /// How it stood when the view was built.
    pub fit: Fit,
    /// Whether it may be picked for those who are not bound.
    pub used: bool,
    /// What a client carries that is bound to it; empty where clients carry nothing.
    pub text: Arc<[u8]>,
}

impl BoundServer {
    /// What becomes of a client that is bound to it.
    #[must_use]
    pub fn judge(&self, strength: Strength, on_drain: OnDrain) -> Verdict {
        let fit = match self.fit {
            Fit::Drains if self.member.is_drained() => Fit::Drained,
            fit => fit,
        };
        judge(fit, strength, on_drain)
    }
}

impl Bound {
    pub(crate) fn new(servers: Vec<BoundServer>, owners: Option<Arc<Owners>>) -> Self {
        let places = || servers.iter().zip(0..);
        let mut by_id: Vec<_> = places()
            .map(|(server, at)| (server.member.id, at))
            .collect();
        by_id.sort_unstable();
        let carried = places().filter(|(server, _)| !server.text.is_empty());
        let mut by_text: Vec<_> = carried
            .map(|(server, at)| (balance::hash_key(&server.text), at))
            .collect();
        by_text.sort_unstable();
        Self {
            servers,
            by_id,
            by_text,
            owners,
        }
    }

    /// All of them, in the config's order.
    #[must_use]
    pub fn servers(&self) -> &[BoundServer] {
        &self.servers
    }

    /// The server with this member.
    #[must_use]
    pub fn of_member(&self, id: u32) -> Option<&BoundServer> {
        let found = self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.at(self.by_id.get(found)?.1)
    }

    /// The server that a client means which carries this.
    #[must_use]
    pub fn of_text(&self, text: &[u8]) -> Option<&BoundServer> {
        let hash = balance::hash_key(text);
        let from = self.by_text.partition_point(|(known, _)| *known < hash);
        let alike = self.by_text.get(from..)?.iter();
        let mut alike = alike.take_while(|(known, _)| *known == hash);
        alike.find_map(|(_, at)| self.at(*at).filter(|server| &*server.text == text))
    }

    /// Whose a key is: its owner, who would own it without that one, and so on; one may come again and again.
    pub fn owners(&self, key: u64) -> impl Iterator<Item = &BoundServer> {
        let owners = self.owners.iter().flat_map(move |owners| owners.of(key));
        owners.filter_map(|at| self.servers.get(at))
    }

    fn at(&self, at: u32) -> Option<&BoundServer> {
        self.servers.get(usize::try_from(at).ok()?)
    }
}

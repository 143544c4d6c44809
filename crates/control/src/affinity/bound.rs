//! The servers of a pool as clients are bound to them: all of them, whether they may be picked or not.

use std::sync::Arc;

use balance::{OnDrain, Owners, Share};
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
    /// Whose keys are whose, where clients are bound by hashes.
    homes: Option<Homes>,
}

/// Whose each key is, by places of servers.
#[derive(Debug)]
pub struct Homes {
    /// While all servers are well.
    pub owners: Arc<Owners>,
    /// Who has a key whose owner does not; `None`: they stand in alike.
    pub stand_ins: Option<Arc<Owners>>,
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
    /// What says the same of it.
    pub alias: Option<Arc<[u8]>>,
    /// The hash of its name, and how much of its keys it has, while it warms up and has not all of them.
    pub coming: Option<(u64, Share)>,
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

    fn texts(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        std::iter::once(&self.text).chain(&self.alias)
    }

    /// Whether it has this key of its keys.
    fn has(&self, key: u64) -> bool {
        self.coming
            .is_none_or(|(name, share)| balance::has_come(key, name, share))
    }
}

impl Bound {
    pub(crate) fn new(servers: Vec<BoundServer>, homes: Option<Homes>) -> Self {
        let places = || servers.iter().zip(0..);
        let mut by_id: Vec<_> = places()
            .map(|(server, at)| (server.member.id, at))
            .collect();
        by_id.sort_unstable();
        let carried = places().flat_map(|(server, at)| server.texts().map(move |text| (text, at)));
        let mut by_text: Vec<_> = carried
            .filter(|(text, _)| !text.is_empty())
            .map(|(text, at)| (balance::hash_key(text), at))
            .collect();
        by_text.sort_unstable();
        Self {
            servers,
            by_id,
            by_text,
            homes,
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
        alike.find_map(|(_, at)| {
            let server = self.at(*at)?;
            server
                .texts()
                .any(|known| **known == *text)
                .then_some(server)
        })
    }

    /// Whose a key is: its owner, who would own it without that one, and so on; one may come again and again.
    pub fn owners(&self, key: u64) -> impl Iterator<Item = &BoundServer> {
        let at = |at: usize| self.servers.get(at);
        self.homes
            .iter()
            .flat_map(move |Homes { owners, stand_ins }| {
                let owner = owners.of(key).next().and_then(at);
                let stand_ins = stand_ins.as_ref().unwrap_or(owners);
                // From another place on the ring: who stands in hangs in no way on whose points are near the owner's.
                let others = std::iter::once_with(move || balance::hash_key(&key.to_le_bytes()));
                let others = others.flat_map(|key| stand_ins.of(key)).filter_map(at);
                owner
                    .filter(|owner| owner.has(key))
                    .into_iter()
                    .chain(others)
            })
    }

    fn at(&self, at: u32) -> Option<&BoundServer> {
        self.servers.get(usize::try_from(at).ok()?)
    }
}

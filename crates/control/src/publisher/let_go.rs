//! Servers over an upgrade that the new process's config has no use for: the old one lets go of them as a reload would.
//!
//! It knows no other servers than its own. Those without which it could not serve what still comes to it stay until what
//! they hold is to be cut.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use balance::State;
use config::Server;

use super::Publisher;
use super::handover::millis;
use super::pools::PoolEntry;
use crate::handover::{LiveDrain, Word};

/// A server by its name in the config and its address.
type KnownAs = (String, String);

/// Servers that serve on because nobody else would.
pub(super) struct Parting {
    pool: Arc<str>,
    members: Vec<u32>,
    /// When they are let go of all the same.
    pub(super) at: Duration,
}

impl Publisher {
    /// What the process before this one is to be told of the servers that it has and this one's config does not.
    pub(super) fn words_of_gone(&mut self, now: Duration) -> Vec<Word> {
        let mut gone: BTreeMap<String, Vec<KnownAs>> = BTreeMap::new();
        let mut drains: BTreeMap<(String, String), (LiveDrain, Vec<KnownAs>)> = BTreeMap::new();
        let ago = now.saturating_sub(self.given.at);
        let named = self.pools.values().flat_map(|entry| {
            let pool = &*entry.config.name;
            let servers = entry.config.servers.iter();
            servers.map(move |server| ((pool, &*server.name), server))
        });
        let named: BTreeMap<(&str, &str), &Server> = named.collect();
        for (key, given) in self.given.all() {
            let (pool, server, Some(address)) = key else {
                continue;
            };
            let stays = named.get(&(&**pool, &**server));
            if stays.is_some_and(|server| self.may_be_at(server, address)) {
                continue;
            }
            let known_as = (server.clone(), address.clone());
            match given.drain.filter(|drain| !drain.is_over) {
                // An operator has said how long that may take.
                Some(drain) => {
                    let same = drains.entry((pool.clone(), server.clone()));
                    let none = || (drain.after(ago), Vec::new());
                    same.or_insert_with(none).1.push(known_as);
                }
                None => gone.entry(pool.clone()).or_default().push(known_as),
            }
        }
        let mut words = Vec::new();
        for ((pool, server), (drain, servers)) in drains {
            words.push(self.wait_for_gone((pool, server), drain, servers, now));
        }
        for (pool, servers) in gone {
            let timeout = self.pools.get(&*pool).map(|it| it.config.drain_timeout);
            words.push(self.predecessor.numbered(Word {
                pool,
                servers,
                drain: Some(LiveDrain {
                    is_over: true,
                    left_ms: timeout.flatten().map(millis),
                    ..LiveDrain::default()
                }),
                own_timeout: timeout.is_none(),
                ..Word::default()
            }));
        }
        words
    }

    fn may_be_at(&self, server: &Server, address: &str) -> bool {
        let members = self.expand(server);
        let mut endpoints = members.iter().map(|(_, endpoint)| endpoint.to_string());
        // A name that has no address yet may have any.
        members.is_empty() || endpoints.any(|endpoint| endpoint == address)
    }

    /// The process after this one has let go of these.
    pub(super) fn let_go_for_successor(
        &mut self,
        (pool, members): (&Arc<str>, &[u32]),
        timeout: Option<Duration>,
        now: Duration,
    ) {
        self.keep_from_parting(members);
        let at = timeout.map(|timeout| now.saturating_add(timeout));
        let entry = self.pools.get(pool);
        if entry.is_some_and(|entry| entry.serves_without(members)) {
            let drain = self.begin_drain((pool, members), at, true, now);
            self.go_on_with(drain, pool, now);
        } else if let Some(at) = at {
            self.parting.push(Parting {
                pool: pool.clone(),
                members: members.to_vec(),
                at,
            });
        }
    }

    /// Lets go of those whose time has come, and cuts what they hold.
    pub(super) fn look_at_parting(&mut self, now: Duration) {
        let due: Vec<_> = self.parting.extract_if(.., |it| it.at <= now).collect();
        for Parting { pool, members, .. } in due {
            let drain = self.begin_drain((&pool, &members), Some(now), true, now);
            self.go_on_with(drain, &pool, now);
        }
    }

    /// Another word is said of these.
    pub(super) fn keep_from_parting(&mut self, members: &[u32]) {
        for parting in &mut self.parting {
            parting.members.retain(|id| !members.contains(id));
        }
        self.parting.retain(|parting| !parting.members.is_empty());
    }
}

impl PoolEntry {
    /// Whether whoever may be sent to one of these finds another one.
    fn serves_without(&self, members: &[u32]) -> bool {
        let parts = self.subsets.iter().map(|subset| subset.state.group);
        std::iter::once(0).chain(parts).all(|group| {
            let mut slots = self.slots.iter().map(|slot| &slot.member);
            let mut rest = slots.clone().filter(|it| !members.contains(&it.id));
            let concerns = slots.any(|it| members.contains(&it.id) && it.serves(group));
            !concerns || rest.any(|it| it.serves(group) && it.cell.state() == State::Ready)
        })
    }
}

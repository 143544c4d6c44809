//! Live state out of one publisher and into the next: health, operators' words, averages, what traffic and the servers
//! themselves say (`carried`), answers of DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use balance::State;
use balance::health::{Cause, Verdict};
use config::{Address, Pool, Snapshot};

use super::pools::{PoolEntry, Slot, words_of_names};
use super::{Publisher, RESOLVE_MIN, WEIGHT_MAX, verdict_word};
use crate::handover::{Live, LiveHealth, LiveLearnt, LiveName, LiveServer};
use crate::live::Endpoint;

/// How long after it was given what was seen is believed of a server that only then appears, as when its name resolves.
const SEEN_HOLDS: Duration = Duration::from_secs(60);

/// A server as it is looked for: pool, name in the config, address.
pub(super) type Key = (String, String, Option<String>);

/// What was given of servers that there are none of yet.
#[derive(Default)]
pub(super) struct Given {
    servers: BTreeMap<Key, LiveServer>,
    /// What pools have learnt of their clients.
    pub(super) learnt: Vec<LiveLearnt>,
    /// When it was given.
    pub(super) at: Duration,
}

impl Given {
    /// Keeps what a config still names: an operator's word ends when the config lets go of its server.
    pub(super) fn retain(&mut self, snapshot: &Snapshot) {
        let named: BTreeSet<(&str, &str)> = snapshot
            .pools
            .iter()
            .flat_map(|pool| pool.servers.iter().map(|it| (&*pool.name, &*it.name)))
            .collect();
        self.servers
            .retain(|(pool, server, _), _| named.contains(&(pool.as_str(), server.as_str())));
        self.retain_learnt(snapshot);
    }

    /// What nobody was given yet.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Key, &LiveServer)> {
        self.servers.iter()
    }

    /// Whether servers of this pool have served in the process before this one.
    pub(super) fn has_served(&self, pool: &str) -> bool {
        let mut servers = self.servers.values().filter(|server| server.pool == pool);
        servers.any(|server| server.warmth.as_ref().is_some_and(|warmth| !warmth.fresh))
    }

    /// What was given of one server, more than of its name; it is given once.
    pub(super) fn take(
        &mut self,
        pool: &str,
        configured: &str,
        endpoint: &Endpoint,
    ) -> Option<LiveServer> {
        let mut key = (
            pool.to_owned(),
            configured.to_owned(),
            Some(endpoint.to_string()),
        );
        let own = self.servers.remove(&key);
        key.2 = None;
        // The name's words stay: more of its addresses may come.
        own.or_else(|| self.servers.get(&key).cloned())
    }
}

impl Publisher {
    /// What the next process is to know.
    #[must_use]
    pub fn live(&self, now: Duration) -> Live {
        let mut live = self.words(now);
        let mut servers: BTreeMap<Key, LiveServer> = live
            .servers
            .drain(..)
            .map(|server| (key(&server), server))
            .collect();
        for entry in self.pools.values() {
            for slot in &entry.slots {
                let words = slot_words(entry, slot);
                let server = servers.entry(key(&words)).or_insert(words);
                slot_measures(slot, now, server);
            }
        }
        let names = self.names.iter().filter(|(_, it)| !it.addresses.is_empty());
        live.names = names
            .map(|(name, entry)| LiveName {
                name: name.to_string(),
                addresses: entry.addresses.clone(),
                due_ms: millis(entry.due.saturating_sub(now)),
            })
            .collect();
        live.servers = servers.into_values().collect();
        live.learnt = self.tell_learnt(now);
        live
    }

    /// Operators' words alone, with how far the drains are: what a state file keeps.
    #[must_use]
    pub fn words(&self, now: Duration) -> Live {
        let mut servers = Vec::new();
        for entry in self.pools.values() {
            let of_names = words_of_names(&entry.slots);
            for server in &entry.config.servers {
                let Address::Name(..) = &server.address else {
                    continue;
                };
                let pool = entry.state.name.to_string();
                let name = server.name.to_string();
                let words = match of_names.get(&server.name) {
                    Some(words) => LiveServer {
                        state: words.state.map(|state| state.to_string()),
                        weight: words.weight,
                        file_weight: words.weight.map(|_| words.file_weight),
                        drain: words.state.and_then(|_| {
                            let mut slots = entry.slots.iter();
                            let slot = slots.find(|slot| slot.configured == server.name);
                            slot.and_then(|slot| self.tell_drain(slot, now))
                        }),
                        pool,
                        server: name,
                        ..LiveServer::default()
                    },
                    // It has no address yet.
                    None => match self.given.servers.get(&(pool, name, None)) {
                        Some(given) => LiveServer {
                            drain: given
                                .drain
                                .map(|it| it.after(now.saturating_sub(self.given.at))),
                            ..given.clone()
                        },
                        None => continue,
                    },
                };
                servers.push(words);
            }
            servers.extend(entry.slots.iter().map(|slot| LiveServer {
                drain: self.tell_drain(slot, now),
                ..slot_words(entry, slot)
            }));
        }
        servers.retain(LiveServer::has_words);
        servers.sort_by_cached_key(key);
        Live {
            servers,
            ..Live::default()
        }
    }

    /// Grows whenever [`Publisher::words`] may have changed.
    #[must_use]
    pub fn words_version(&self) -> u64 {
        self.words_version
    }

    /// Takes in what another process knew: for the servers that there are, and for those that the next config or the
    /// next look-up brings.
    pub fn take_over(&mut self, live: Live, now: Duration) {
        for name in live.names {
            let known: Arc<str> = name.name.into();
            if !self.names.contains_key(&known) && !name.addresses.is_empty() {
                let ttl = Duration::from_millis(name.due_ms).max(RESOLVE_MIN);
                self.learn_ahead(known, Ok((name.addresses, ttl)), now);
            }
        }
        self.given.at = now;
        self.given.learnt = live.learnt;
        let servers = live.servers.into_iter();
        self.given.servers = servers.map(|server| (key(&server), server)).collect();
        let mut pools = std::mem::take(&mut self.pools);
        for (name, entry) in &mut pools {
            entry.served |= self.given.has_served(name);
            entry.resume_learning(&mut self.given.learnt, now, Duration::ZERO);
            for slot in &mut entry.slots {
                self.take_given(&entry.config, slot, now);
            }
            self.dirty.insert(name.clone(), now);
        }
        self.pools = pools;
        self.plan_sweep();
        self.words_version += 1;
        self.build_due_views(now);
    }

    /// Gives a server what another process knew of it.
    pub(super) fn take_given(&mut self, pool: &Pool, slot: &mut Slot, now: Duration) {
        let endpoint = &slot.member.endpoint;
        let Some(given) = self.given.take(&pool.name, &slot.configured, endpoint) else {
            return;
        };
        if let Some(state) = given.state.as_deref().and_then(parse_state) {
            slot.take_operator(state);
        }
        let ago = now.saturating_sub(self.given.at);
        self.resume_drain((pool, slot), given.drain, now, ago);
        if given.file_weight == Some(slot.file_weight) {
            slot.weight_word = given.weight.filter(|weight| *weight <= WEIGHT_MAX);
        }
        let nanos = |nanos: Option<u64>| nanos.map(Duration::from_nanos);
        slot.member.cell.restore_latency(
            now,
            nanos(given.latency_ns),
            nanos(given.peak_latency_ns),
        );
        if ago > SEEN_HOLDS {
            return;
        }
        slot.resume(&given, pool, now, ago);
        let (Some(health), Some(given)) = (&mut slot.health, given.health) else {
            return;
        };
        let verdict = match given.verdict.as_str() {
            "healthy" => Verdict::Healthy,
            "unhealthy" => Verdict::Unhealthy,
            _ => return,
        };
        let since = now.saturating_sub(Duration::from_millis(given.age_ms));
        let cause = given.cause.map(|cause| Cause::Failed(cause.into()));
        health.resume(verdict, given.answers, cause, since);
        if slot.asked.is_none() {
            self.unschedule(slot);
            self.schedule(slot);
        }
    }
}

impl LiveServer {
    /// Whether an operator can have said this.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn check_words(&self) -> Result<(), String> {
        let why = match (&self.state, self.weight) {
            (Some(state), _) if parse_state(state).is_none() => {
                format!("`{state}` is no state: ready, drain or disabled")
            }
            (_, Some(weight)) if weight > WEIGHT_MAX => format!("a weight of {weight}"),
            (_, Some(_)) if self.file_weight.is_none() => "a weight without file_weight".to_owned(),
            (None, None) => "nothing is said".to_owned(),
            _ => return Ok(()),
        };
        Err(format!(
            "server `{}` of pool `{}`: {why}",
            self.server, self.pool
        ))
    }
}

fn key(server: &LiveServer) -> Key {
    (
        server.pool.clone(),
        server.server.clone(),
        server.address.clone(),
    )
}

fn slot_words(entry: &PoolEntry, slot: &Slot) -> LiveServer {
    LiveServer {
        pool: entry.state.name.to_string(),
        server: slot.configured.to_string(),
        address: Some(slot.member.endpoint.to_string()),
        state: slot.word.map(|state| state.to_string()),
        weight: slot.weight_word,
        file_weight: slot.weight_word.map(|_| slot.file_weight),
        ..LiveServer::default()
    }
}

fn slot_measures(slot: &Slot, now: Duration, server: &mut LiveServer) {
    server.health = Some(match &slot.health {
        // Unprobed, it is taken for healthy; so it stays if the next config has it probed, as after a reload.
        None => LiveHealth {
            verdict: verdict_word(Verdict::Healthy).to_owned(),
            answers: true,
            ..LiveHealth::default()
        },
        Some(health) => LiveHealth {
            verdict: verdict_word(health.verdict()).to_owned(),
            answers: health.answers(),
            cause: health.cause().map(ToString::to_string),
            age_ms: millis(now.saturating_sub(health.since())),
        },
    });
    let (mean, peak) = slot.member.cell.latencies_at(now);
    let nanos = |latency: Duration| u64::try_from(latency.as_nanos()).ok();
    server.latency_ns = mean.and_then(nanos);
    server.peak_latency_ns = peak.and_then(nanos);
    slot.tell(server, now);
}

pub(super) fn parse_state(word: &str) -> Option<State> {
    [State::Ready, State::Drain, State::Disabled]
        .into_iter()
        .find(|state| state.to_string() == word)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

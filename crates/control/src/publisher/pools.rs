//! Pools and their members: kept by name over configs, created and retired as a config or a name look-up says.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use balance::budget::RetryBudget;
use balance::health::{Health, Thresholds, Verdict};
use balance::outlier::Outlier;
use balance::{Condition, Share, State};
use config::{Address, AgentCheck, HealthCheck, InitialHealth, Labels, Pool, Server, Snapshot};

use super::affinity::{Names, Rings};
use super::capacity::Looks;
use super::drain::Leaving;
use super::learnt::Taught;
use super::limits::Adapting;
use super::own_word::OwnWord;
use super::subsets::Subset;
use super::view::{Seat, Warmth};
use super::{
    ADDRESSES_MAX, Action, Changes, NameEntry, Notice, Publisher, RESOLVE_AFTER_FAILURE,
    RESOLVE_MIN,
};
use crate::fairness::Watch;
use crate::gate::Gate;
use crate::live::{Endpoint, Member, PoolState, PoolView};
use crate::metrics::PerWorker;

/// Retries allowed in a second whatever the share of live requests is.
const RETRIES_PER_SECOND_MIN: u32 = 10;

pub(super) struct PoolEntry {
    pub(super) state: Arc<PoolState>,
    pub(super) config: Pool,
    pub(super) check: Option<Arc<HealthCheck>>,
    pub(super) agent: Option<Arc<AgentCheck>>,
    pub(super) slots: Vec<Slot>,
    /// What routes choose of it, in the config's order.
    pub(super) subsets: Vec<Subset>,
    /// When its view was built last.
    pub(super) built: Duration,
    pub(super) panic: bool,
    /// Whether a server of it has ever been fit to serve.
    pub(super) served: bool,
    /// When its servers' traffic was last looked at.
    pub(super) swept: Duration,
    /// Views that a worker may still hold: freed here, so that no worker stalls over a large one.
    pub(super) retired: Vec<Arc<PoolView>>,
    /// What it carried of late.
    pub(super) looks: Looks,
    /// Rings by what they are made of, kept while that stays.
    pub(super) rings: Rings,
    /// What it has learnt of its clients, where it does.
    pub(super) taught: Option<Box<Taught>>,
    /// Who of it was picked of late, where something binds clients.
    pub(super) watch: Watch,
}

/// Where a member is: a pool, and a position among its slots.
pub(super) struct Place {
    pub(super) pool: Arc<str>,
    pub(super) at: usize,
}

impl Place {
    /// The slot, with the pool that it is in.
    pub(super) fn find<'a>(
        places: &BTreeMap<u32, Self>,
        pools: &'a mut BTreeMap<Arc<str>, PoolEntry>,
        member: u32,
    ) -> Option<(&'a mut Slot, InPool<'a>)> {
        let Self { pool, at } = places.get(&member)?;
        let entry = pools.get_mut(pool)?;
        let slot = entry.slots.get_mut(*at)?;
        let in_pool = InPool {
            name: &entry.state.name,
            check: entry.check.as_ref(),
            agent: entry.agent.as_ref(),
            state: &entry.state,
            config: &entry.config,
        };
        Some((slot, in_pool))
    }
}

/// How the servers of a pool are asked, and whether their probes are what they were.
#[derive(Clone, Copy)]
struct Checks<'a> {
    check: Option<&'a HealthCheck>,
    same_check: bool,
    agent: Option<&'a AgentCheck>,
}

/// What the slots of a pool share.
pub(super) struct InPool<'a> {
    pub(super) name: &'a Arc<str>,
    pub(super) check: Option<&'a Arc<HealthCheck>>,
    pub(super) agent: Option<&'a Arc<AgentCheck>>,
    pub(super) state: &'a Arc<PoolState>,
    pub(super) config: &'a Pool,
}

/// A member with what only the publisher knows of it.
pub(super) struct Slot {
    pub(super) member: Arc<Member>,
    pub(super) health: Option<Health>,
    /// What its traffic says of it.
    pub(super) outlier: Outlier,
    /// When it is in the schedule.
    pub(super) due: Option<Duration>,
    /// The number of the probe that is out.
    pub(super) asked: Option<u64>,
    /// The name that the config gives it; several members share one when it is a DNS name.
    pub(super) configured: Arc<str>,
    /// Its name, with its address if that was found by a DNS name. Alike on every node, so it does not hang on how many
    /// addresses the name has, or had before.
    pub(super) identity: Arc<str>,
    /// The hash of that: its place in rings.
    pub(super) hash_name: u64,
    pub(super) file_weight: u32,
    /// `max_connections`, if it is set.
    pub(super) file_room: Option<u32>,
    /// Set while its limit follows its latency.
    pub(super) adapting: Option<Adapting>,
    /// Where the config puts it.
    pub(super) seat: Seat,
    pub(super) warmth: Warmth,
    /// The operator's words, until the file's own value changes.
    pub(super) weight_word: Option<u32>,
    pub(super) word: Option<State>,
    /// What the server says of itself.
    pub(super) own: OwnWord,
    /// Until when a drill has it out.
    pub(super) drilled: Option<Duration>,
    /// What a client carries that is bound to it; empty where clients carry nothing.
    pub(super) text: Arc<[u8]>,
    /// What it may carry as well: while a DNS name has one address, the name alone says which server is meant.
    pub(super) alias: Option<Arc<[u8]>>,
}

impl Slot {
    pub(super) fn answers_to(&self, name: &str) -> bool {
        *self.member.name == *name || *self.configured == *name
    }

    /// What a client may carry, beside its name, that means it: with its address where it is known by the name alone, as
    /// another node may know it, and the other way round while the name has no other address.
    fn other_name<'a>(&'a self, server: &'a Server, alone: bool) -> Option<&'a str> {
        let names = [Some(&*self.identity), alone.then_some(&*server.name)];
        let mut others = names.into_iter().flatten();
        others.find(|name| **name != *self.member.name)
    }

    pub(super) fn weight(&self) -> u32 {
        self.weight_word
            .unwrap_or_else(|| self.own.weight(self.file_weight))
    }

    /// Whether real traffic has it out for a while.
    pub(super) fn is_ejected(&self) -> bool {
        self.outlier.ejection().is_some()
    }

    /// What the config marks it with.
    pub(super) fn labels(&self) -> &Labels {
        &self.seat.labels
    }

    /// Which part of its weight it has for now: the product of every factor that there is.
    pub(super) fn share(&self) -> Share {
        let own = match self.weight_word {
            Some(_) => Share::FULL,
            None => self.own.share(),
        };
        self.outlier.share() * own
    }

    /// As `usable` and `may_eject` see it.
    pub(super) fn standing(&self) -> balance::Standing {
        let ejection = self.outlier.ejection();
        balance::Standing {
            verdict: self.verdict(),
            answers: self.health.as_ref().is_none_or(Health::answers)
                && ejection.is_none_or(|ejection| ejection.cause.answers()),
            state: self.member.cell.state(),
            weight: self.weight(),
            ejected: ejection.is_some(),
            share: self.share(),
        }
    }

    /// Whether it may serve, and nothing speaks against it.
    pub(super) fn is_fit(&self) -> bool {
        let standing = self.standing();
        standing.is_open() && standing.is_fit()
    }

    /// The word for it in tables and logs.
    pub(super) fn condition(&self) -> Condition {
        self.standing().condition(!self.outlier.share().is_full())
    }

    pub(super) fn verdict(&self) -> Verdict {
        if self.own.down().is_some() {
            return Verdict::Unhealthy;
        }
        self.health
            .as_ref()
            .map_or(Verdict::Healthy, Health::verdict)
    }

    /// Has another address of the same name's words: the operator spoke of the name.
    fn take_words(&mut self, words: &Words) {
        if let Some(state) = words.state {
            self.take_operator(state);
        }
        if words.file_weight == self.file_weight {
            self.weight_word = words.weight;
        }
    }

    pub(super) fn cause(&self) -> Arc<str> {
        if self.drilled.is_some() {
            return "a drill has it out as a crash would".into();
        }
        if let Some(why) = self.own.down() {
            return format!("its agent says {why}").into();
        }
        let by_probes = self.verdict() == Verdict::Unhealthy;
        if let Some(ejection) = self.outlier.ejection().filter(|_| !by_probes) {
            return ejection.cause.to_string().into();
        }
        if let Some(lessened) = self.outlier.lessened().filter(|_| !by_probes) {
            return format!("{lessened}; {} of its weight", self.outlier.share()).into();
        }
        match &self.health {
            None => "not probed".into(),
            Some(health) => match (health.cause(), health.verdict()) {
                (Some(cause), _) => cause.to_string().into(),
                (None, Verdict::Unknown) => "no probe has ended yet".into(),
                (None, _) => "passes its probes".into(),
            },
        }
    }
}

impl PoolEntry {
    /// What a pool goes on from, whatever its config says next.
    fn take_tables(&mut self) -> (Looks, Rings, Option<Box<Taught>>, Watch) {
        (
            std::mem::take(&mut self.looks),
            std::mem::take(&mut self.rings),
            self.taught.take(),
            std::mem::take(&mut self.watch),
        )
    }
}

impl Publisher {
    /// Keeps the names that the config uses, and has new ones asked at once.
    pub(super) fn take_names(&mut self, snapshot: &Snapshot, now: Duration) {
        let mut names = BTreeMap::new();
        for server in snapshot.pools.iter().flat_map(|pool| &pool.servers) {
            if let Address::Name(name, _) = &server.address {
                let known = self.names.remove(name).or_else(|| self.ahead.remove(name));
                names.entry(name.clone()).or_insert_with(|| {
                    known.unwrap_or(NameEntry {
                        addresses: Vec::new(),
                        due: now,
                        asked: false,
                    })
                });
            }
        }
        self.names = names;
        self.ahead.clear();
        self.ask_due_names(now);
    }

    pub(super) fn ask_due_names(&mut self, now: Duration) {
        for (name, entry) in &mut self.names {
            if !entry.asked && entry.due <= now {
                entry.asked = true;
                self.actions.push_back(Action::Resolve(name.clone()));
            }
        }
    }

    pub(super) fn take_pools(&mut self, snapshot: &Snapshot, now: Duration, changes: &mut Changes) {
        let mut before = std::mem::take(&mut self.pools);
        for pool in &snapshot.pools {
            let old = before.remove(&pool.name);
            let entry = self.take_pool(pool, old, now, changes);
            self.pools.insert(pool.name.clone(), entry);
            self.dirty.insert(pool.name.clone(), now);
        }
        for (_, gone) in before {
            for slot in &gone.slots {
                changes.servers_removed += 1;
                changes.draining += self.retire(slot, gone.config.drain_timeout);
            }
        }
        self.build_due_views(now);
        // Those of pools that are gone: no view without them will come.
        for leaving in std::mem::take(&mut self.leaving).into_values() {
            self.drain_removed(leaving, true, now);
        }
    }

    fn take_pool(
        &mut self,
        pool: &Pool,
        mut old: Option<PoolEntry>,
        now: Duration,
        changes: &mut Changes,
    ) -> PoolEntry {
        let kept_tables = old.as_mut().map(PoolEntry::take_tables);
        let (looks, rings, taught, watch) = kept_tables.unwrap_or_default();
        let names = Names::new(pool, self.secret.as_ref());
        let check = pool.health_check.clone().map(Arc::new);
        let agent = pool.agent_check.clone().map(Arc::new);
        let swept = old.as_ref().map_or(now, |old| old.swept);
        let state = self.state_of(pool, old.as_ref());
        state.gate.set_max(pool.connections_max);
        let (slots, subsets, new_check, built, panic, served, retired) = match old {
            Some(old) => {
                let new_check = old.config.health_check != pool.health_check;
                old.state.budget.set_percent(pool.retries.budget_percent);
                (
                    old.slots,
                    old.subsets,
                    new_check,
                    old.built,
                    old.panic,
                    old.served,
                    old.retired,
                )
            }
            None => Default::default(),
        };
        let served = served || self.given.has_served(&pool.name);
        let subsets = self.take_subsets(pool, &state, subsets, &slots);
        let words = words_of_names(&slots);
        let mut known = by_name(slots);
        let checks = Checks {
            check: check.as_deref(),
            same_check: !new_check,
            agent: agent.as_deref(),
        };
        let mut kept = Vec::new();
        for server in &pool.servers {
            let host = host_of(&server.address);
            let members = self.expand(server);
            let alone = host.is_some() && members.len() == 1;
            for (name, endpoint) in members {
                let mut slot = match known.remove(&(server.name.clone(), endpoint.clone())) {
                    Some(slot) => self.keep(slot, server, checks, now),
                    None => {
                        changes.servers_added += 1;
                        let mut slot =
                            self.create(pool, server, (name, endpoint), &state.gate, now);
                        self.begin_agent(&mut slot, agent.as_deref(), now);
                        slot.warmth = Warmth::new(!served);
                        if let Some(words) = words.get(&server.name).filter(|_| host.is_some()) {
                            slot.take_words(words);
                        }
                        self.take_given(pool, &mut slot, now);
                        self.forward_addition(&slot);
                        slot
                    }
                };
                slot.text = names.of(&slot.member.name);
                slot.alias = slot.other_name(server, alone).map(|it| names.of(it));
                slot.take_outlier(pool.outlier_detection.as_ref(), now);
                slot.file_room = server.connections_max;
                slot.take_adaptive(pool.adaptive_concurrency.as_ref(), now);
                slot.apply_limit(pool);
                slot.member.set_host(host.clone());
                let (pool, at) = (pool.name.clone(), kept.len());
                self.places.insert(slot.member.id, Place { pool, at });
                kept.push(slot);
            }
        }
        for slot in known.values() {
            changes.servers_removed += 1;
            slot.member.set_part(0);
            slot.member.set_groups(Vec::new());
            changes.draining += self.retire(slot, pool.drain_timeout);
        }
        let mut entry = PoolEntry {
            state,
            config: pool.clone(),
            check,
            agent,
            slots: kept,
            subsets,
            built,
            swept,
            panic,
            served,
            retired,
            looks,
            rings,
            taught,
            watch,
        };
        self.take_learning(&mut entry, now);
        entry
    }

    /// A pool's own state, kept from the config before.
    fn state_of(&self, pool: &Pool, old: Option<&PoolEntry>) -> Arc<PoolState> {
        if let Some(old) = old {
            return old.state.clone();
        }
        let stats = Arc::new(PerWorker::new(self.workers));
        let name = pool.name.clone();
        let budget = Arc::new(budget(pool));
        Arc::new(PoolState::new(name, budget, Arc::default(), stats))
    }

    /// The members that one configured server stands for.
    pub(super) fn expand(&self, server: &Server) -> Vec<(Arc<str>, Endpoint)> {
        match &server.address {
            Address::Ip(address) => vec![(server.name.clone(), Endpoint::Ip(*address))],
            Address::Unix(path) => vec![(server.name.clone(), Endpoint::Unix(path.clone()))],
            Address::Name(name, port) => {
                let addresses = self
                    .names
                    .get(name)
                    .map(|entry| &*entry.addresses)
                    .unwrap_or_default();
                let one = addresses.len() == 1;
                addresses
                    .iter()
                    .take(ADDRESSES_MAX)
                    .map(|ip| {
                        let address = SocketAddr::new(*ip, *port);
                        let name = if one {
                            server.name.clone()
                        } else {
                            format!("{}@{address}", server.name).into()
                        };
                        (name, Endpoint::Ip(address))
                    })
                    .collect()
            }
        }
    }

    fn keep(
        &mut self,
        mut slot: Slot,
        server: &Server,
        Checks {
            check,
            same_check,
            agent,
        }: Checks<'_>,
        now: Duration,
    ) -> Slot {
        self.keep_agent(&mut slot, agent, now);
        slot.seat = Seat::new(server);
        if slot.file_weight != server.weight {
            slot.file_weight = server.weight;
            slot.weight_word = None;
        }
        if !same_check {
            slot.own.keep_check(check);
            slot.settle();
            // What a server was stays until the new probes say otherwise.
            let initial = slot.verdict();
            self.unschedule(&mut slot);
            slot.health = check.map(|check| Health::new(thresholds(check), initial, now));
            self.schedule(&mut slot);
        }
        slot
    }

    fn create(
        &mut self,
        pool: &Pool,
        server: &Server,
        (name, endpoint): (Arc<str>, Endpoint),
        gate: &Arc<Gate>,
        now: Duration,
    ) -> Slot {
        let id = self.next_member;
        self.next_member += 1;
        let identity = match &server.address {
            Address::Name(..) => format!("{}@{endpoint}", server.name).into(),
            Address::Ip(_) | Address::Unix(_) => name.clone(),
        };
        let member = Arc::new(Member::new(
            id,
            pool.name.clone(),
            name,
            endpoint,
            gate.clone(),
            self.workers,
        ));
        let health = pool.health_check.as_ref().map(|check| {
            let initial = match check.initial {
                InitialHealth::Unknown => Verdict::Unknown,
                InitialHealth::Healthy => Verdict::Healthy,
                InitialHealth::Unhealthy => Verdict::Unhealthy,
            };
            Health::new(thresholds(check), initial, now)
        });
        let mut slot = Slot {
            member,
            health,
            outlier: Outlier::new(now),
            due: None,
            asked: None,
            configured: server.name.clone(),
            hash_name: balance::hash_key(identity.as_bytes()),
            identity,
            file_weight: server.weight,
            file_room: server.connections_max,
            adapting: None,
            seat: Seat::new(server),
            warmth: Warmth::new(true),
            weight_word: None,
            word: None,
            own: OwnWord::default(),
            drilled: None,
            text: Arc::default(),
            alias: None,
        };
        self.schedule(&mut slot);
        slot
    }

    /// Lets go of a server: it is to drain, and says what it still holds.
    fn retire(&mut self, slot: &Slot, timeout: Option<Duration>) -> u64 {
        slot.member.set_retired(true);
        self.places.remove(&slot.member.id);
        if let Some(due) = slot.due {
            self.schedule.remove(&(due, slot.member.id));
        }
        if let Some(due) = slot.own.due {
            self.agents.remove(&(due, slot.member.id));
        }
        self.forward_removal(slot, timeout);
        let member = slot.member.clone();
        let in_use = member.cell.in_use();
        let leaving = self.leaving.entry(member.pool.clone()).or_default();
        leaving.push(Leaving { member, timeout });
        in_use.into()
    }

    pub(super) fn handle_resolved(
        &mut self,
        name: Arc<str>,
        answer: Result<(Vec<IpAddr>, Duration), String>,
        now: Duration,
    ) {
        if !self.names.contains_key(&name) {
            self.learn_ahead(name, answer, now);
            return;
        }
        let Some(entry) = self.names.get_mut(&name) else {
            return;
        };
        entry.asked = false;
        match answer {
            Err(error) => {
                entry.due = now.saturating_add(RESOLVE_AFTER_FAILURE);
                self.actions
                    .push_back(Action::Log(Notice::NotResolved { name, error }));
            }
            Ok((mut addresses, ttl)) => {
                entry.due = now.saturating_add(ttl.max(RESOLVE_MIN));
                addresses.sort_unstable();
                addresses.dedup();
                if addresses.is_empty() || entry.addresses == addresses {
                    return;
                }
                entry.addresses.clone_from(&addresses);
                self.actions.push_back(Action::Log(Notice::Resolved {
                    name: name.clone(),
                    addresses,
                }));
                self.take_name_change(&name, now);
            }
        }
    }

    /// Keeps the addresses of a name that no config has yet: the next one finds its servers there at once.
    pub(super) fn learn_ahead(
        &mut self,
        name: Arc<str>,
        answer: Result<(Vec<IpAddr>, Duration), String>,
        now: Duration,
    ) {
        if let Ok((mut addresses, ttl)) = answer {
            addresses.sort_unstable();
            addresses.dedup();
            let due = now.saturating_add(ttl.max(RESOLVE_MIN));
            self.ahead.insert(
                name,
                NameEntry {
                    addresses,
                    due,
                    asked: false,
                },
            );
        }
    }

    /// Rebuilds the pools that use a name whose addresses changed.
    fn take_name_change(&mut self, name: &Arc<str>, now: Duration) {
        let uses = |pool: &Pool| {
            pool.servers
                .iter()
                .any(|server| matches!(&server.address, Address::Name(used, _) if used == name))
        };
        let affected: Vec<Arc<str>> = self
            .pools
            .values()
            .filter(|entry| uses(&entry.config))
            .map(|entry| entry.state.name.clone())
            .collect();
        for pool in affected {
            if let Some(old) = self.pools.remove(&pool) {
                let config = old.config.clone();
                let entry = self.take_pool(&config, Some(old), now, &mut Changes::default());
                self.pools.insert(pool.clone(), entry);
                self.words_version += 1;
                self.mark_dirty(&pool, now);
            }
        }
    }

    pub(super) fn build_due_views(&mut self, now: Duration) {
        let due: Vec<Arc<str>> = self
            .dirty
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(pool, _)| pool.clone())
            .collect();
        for pool in due {
            self.dirty.remove(&pool);
            if let Some(entry) = self.pools.get_mut(&pool) {
                entry.built = now;
                for (pool, on) in entry.build(now) {
                    self.actions
                        .push_back(Action::Log(Notice::Panic { pool, on }));
                }
                if let Some(step) = entry.next_step(now) {
                    self.dirty.insert(pool.clone(), step);
                }
            }
            // Only now: whoever finds one of them draining finds the view without it.
            if let Some(leaving) = self.leaving.remove(&pool) {
                self.drain_removed(leaving, false, now);
            }
        }
    }
}

/// The DNS name by which a server is found.
fn host_of(address: &Address) -> Option<Arc<str>> {
    match address {
        Address::Name(host, _) => Some(host.clone()),
        Address::Ip(_) | Address::Unix(_) => None,
    }
}

/// Slots by what makes one the same over configs: the configured name, and where it is.
fn by_name(slots: Vec<Slot>) -> BTreeMap<(Arc<str>, Endpoint), Slot> {
    let key = |slot: &Slot| (slot.configured.clone(), slot.member.endpoint.clone());
    slots.into_iter().map(|slot| (key(&slot), slot)).collect()
}

/// An operator's words on a configured server.
pub(super) struct Words {
    pub(super) state: Option<State>,
    pub(super) weight: Option<u32>,
    pub(super) file_weight: u32,
}

/// The words that hold for every address of a configured server, by its name. One that was said of a single address
/// of several holds for that one alone.
pub(super) fn words_of_names(slots: &[Slot]) -> BTreeMap<Arc<str>, Words> {
    let mut all: BTreeMap<Arc<str>, Words> = BTreeMap::new();
    for slot in slots {
        all.entry(slot.configured.clone())
            .and_modify(|words| {
                words.state = words.state.filter(|state| slot.word == Some(*state));
                words.weight = words
                    .weight
                    .filter(|weight| slot.weight_word == Some(*weight));
            })
            .or_insert(Words {
                state: slot.word,
                weight: slot.weight_word,
                file_weight: slot.file_weight,
            });
    }
    all
}

fn budget(pool: &Pool) -> RetryBudget {
    RetryBudget::new(pool.retries.budget_percent, RETRIES_PER_SECOND_MIN)
}

fn thresholds(check: &HealthCheck) -> Thresholds {
    let mut thresholds = Thresholds::default();
    thresholds.healthy = check.healthy_threshold;
    thresholds.unhealthy = check.unhealthy_threshold;
    thresholds.interval = check.interval;
    thresholds.timeout = check.timeout;
    thresholds
}

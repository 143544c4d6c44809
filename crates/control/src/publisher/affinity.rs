//! Who of a pool keeps clients that are bound, and what these carry.

use std::sync::Arc;
use std::time::Duration;

use balance::health::Verdict;
use balance::{Algorithm, Candidate, Owners, Role, Share, State};
use config::{AffinityKind, Pool, Secret};

use super::pools::{PoolEntry, Slot};
use crate::affinity::seal::Seal;
use crate::affinity::{Bound, BoundServer, Fit, Verdict as Judged};
use crate::live::{Member, PoolView};

/// What clients of a pool carry for each of its servers.
pub(super) enum Names<'a> {
    /// Nothing.
    None,
    /// The names themselves.
    Plain,
    /// Hashes of them.
    Sealed(Box<Seal>, &'a str),
}

impl<'a> Names<'a> {
    pub(super) fn new(pool: &'a Pool, secret: Option<&Secret>) -> Self {
        match pool.affinity.as_ref().map(|affinity| &affinity.kind) {
            Some(AffinityKind::Cookie(cookie)) if cookie.opaque => {
                Self::Sealed(Box::new(Seal::new(secret)), &pool.name)
            }
            Some(AffinityKind::Cookie(_) | AffinityKind::Header(_)) => Self::Plain,
            Some(AffinityKind::Source { .. } | AffinityKind::Hash(_) | AffinityKind::Learnt(_))
            | None => Self::None,
        }
    }

    pub(super) fn of(&self, server: &str) -> Arc<[u8]> {
        match self {
            Self::None => Arc::default(),
            Self::Plain => server.as_bytes().into(),
            Self::Sealed(seal, pool) => seal.seal(pool, server)[..].into(),
        }
    }
}

/// What one ring is made of: names and units of weight, in the order of the servers.
type Recipe = Vec<(u64, u32, Share)>;

/// Rings of a pool and of its subsets.
#[derive(Default)]
pub(super) struct Rings {
    /// With whether the views that are being built use it.
    known: Vec<(Recipe, Arc<Owners>, bool)>,
    /// Whether there was any to build of late.
    dear: bool,
}

impl Rings {
    fn of(&mut self, recipe: Recipe, candidates: &[Candidate]) -> Arc<Owners> {
        if let Some((_, owners, used)) = self.known.iter_mut().find(|(of, ..)| *of == recipe) {
            *used = true;
            return owners.clone();
        }
        let owners = Arc::new(Owners::build(candidates));
        self.known.push((recipe, owners.clone(), true));
        self.dear = true;
        owners
    }

    /// Forgets those that the views just built do not use.
    pub(super) fn drop_unused(&mut self) {
        self.known.retain(|(.., used)| *used);
        self.known.iter_mut().for_each(|(.., used)| *used = false);
    }

    /// About how long rings of so many servers take to build.
    pub(super) fn build_time(&self, count: usize) -> Duration {
        let ring = Algorithm::ConsistentHash { bounded_load: None };
        if self.dear {
            balance::View::build_time(&ring, count)
        } else {
            Duration::ZERO
        }
    }
}

impl PoolEntry {
    /// Who of these keeps clients that are bound; `None` where nothing binds them.
    pub(super) fn bound(
        &self,
        slots: &[&Slot],
        roles: &[Role],
        rings: &mut Rings,
        now: Duration,
    ) -> Option<Bound> {
        let affinity = self.config.affinity.as_ref()?;
        let servers = slots.iter().zip(roles).map(|(slot, role)| BoundServer {
            member: slot.member.clone(),
            fit: fit(slot, role),
            used: matches!(role, Role::Used(_)),
            text: slot.text.clone(),
        });
        let hashes = matches!(
            affinity.kind,
            AffinityKind::Source { .. } | AffinityKind::Hash(_)
        );
        let owners = hashes.then(|| self.owners(slots, rings, now));
        Some(Bound::new(servers.collect(), owners))
    }

    /// Whose each key is. Neither health nor how well a server does moves keys: only weight, and a slow start.
    fn owners(&self, slots: &[&Slot], rings: &mut Rings, now: Duration) -> Arc<Owners> {
        let slow_start = self.config.slow_start.as_ref();
        let candidate = |slot: &&Slot| Candidate {
            server: slot.member.cell.clone(),
            id: slot.member.id,
            hash_name: slot.hash_name,
            weight: slot.weight(),
            share: slot.warmth.share(slow_start, now),
        };
        let candidates: Vec<_> = slots.iter().map(candidate).collect();
        let recipe = candidates.iter();
        let recipe = recipe
            .map(|it| (it.hash_name, it.weight, it.share))
            .collect();
        rings.of(recipe, &candidates)
    }

    /// Adds to those who may serve those who serve bound clients alone: requests may wait for them.
    pub(super) fn add_keepers(&self, whole: &PoolView, servers: &mut Vec<Arc<Member>>) {
        let (Some(bound), Some(affinity)) = (&whole.bound, &self.config.affinity) else {
            return;
        };
        let keeps = |server: &&BoundServer| {
            !server.used && server.judge(affinity.strength, affinity.on_drain) == Judged::Keep
        };
        let keepers = bound.servers().iter().filter(keeps);
        servers.extend(keepers.map(|server| server.member.clone()));
    }
}

/// How a server stands towards those who are bound to it.
fn fit(slot: &Slot, role: &Role) -> Fit {
    let state = slot.member.cell.state();
    if state == State::Disabled {
        return Fit::Disabled;
    }
    if matches!(role, Role::Used(_)) {
        return Fit::Serves;
    }
    if slot.verdict() == Verdict::Unhealthy || slot.is_ejected() {
        return Fit::Unfit;
    }
    match state {
        State::Drain => Fit::Drains,
        _ if slot.weight() == 0 => Fit::Closed,
        _ => Fit::Serves,
    }
}

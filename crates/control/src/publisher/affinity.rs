//! Who of a pool keeps clients that are bound, and what these carry.

use std::sync::Arc;
use std::time::Duration;

use balance::health::Verdict;
use balance::{Algorithm, Candidate, Owners, Role, Share, Standing, State};
use config::{AffinityKind, Pool, Secret};

use super::pools::{PoolEntry, Slot};
use crate::affinity::seal::Seal;
use crate::affinity::{Bound, BoundServer, Fit, Homes, Verdict as Judged};
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

/// Servers whose traffic is more than their own keys by the same factor, nearly: they stand in alike.
const ALIKE: f64 = 1e-6;

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
    /// The ring on which each of these servers has so large a part, 0 to 1.
    fn of(&mut self, slots: &[&Slot], parts: &[f64]) -> Arc<Owners> {
        let by_weight = |(slot, part): (&&Slot, &f64)| part / f64::from(slot.weight().max(1));
        let most = slots.iter().zip(parts).map(by_weight).fold(0.0, f64::max);
        let candidates = slots.iter().zip(parts).map(|(slot, part)| Candidate {
            server: slot.member.cell.clone(),
            id: slot.member.id,
            hash_name: slot.hash_name,
            weight: if *part > 0.0 { slot.weight() } else { 0 },
            share: Share::exact(by_weight((slot, part)) / most),
        });
        let candidates: Vec<_> = candidates.collect();
        let recipe = candidates.iter();
        let recipe = recipe.map(|it| (it.hash_name, it.weight, it.share));
        let recipe: Recipe = recipe.collect();
        if let Some((_, owners, used)) = self.known.iter_mut().find(|(of, ..)| *of == recipe) {
            *used = true;
            return owners.clone();
        }
        let owners = Arc::new(Owners::build(&candidates));
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
            alias: slot.alias.clone(),
            coming: None,
        });
        let mut servers: Vec<BoundServer> = servers.collect();
        let hashes = matches!(
            affinity.kind,
            AffinityKind::Source { .. } | AffinityKind::Hash(_)
        );
        let homes = hashes.then(|| self.homes(slots, &mut servers, rings, now));
        Some(Bound::new(servers, homes))
    }

    /// Whose each key is: every server that would get traffic if all were well has its part of the keys, whether it can
    /// serve or not. Neither health nor how well a server does moves other keys; those whose server is out, or warms up
    /// and has not got them yet, go to servers in proportion to what these get beyond their own.
    fn homes(
        &self,
        slots: &[&Slot],
        servers: &mut [BoundServer],
        rings: &mut Rings,
        now: Duration,
    ) -> Homes {
        let well = |slot: &Slot| Standing {
            verdict: Verdict::Healthy,
            answers: true,
            state: State::Ready,
            weight: slot.weight(),
            ejected: false,
            share: Share::FULL,
        };
        let warmth = |slot: &Slot| slot.warmth.share(self.config.slow_start.as_ref(), now);
        let warm = |slot: &Slot| Standing {
            share: warmth(slot),
            ..slot.standing()
        };
        let homes = self.parts(slots, well);
        let parts = self.parts(slots, warm);
        let used = || slots.iter().zip(&parts).filter(|(_, part)| **part > 0.0);
        let warmest = used().map(|(slot, _)| warmth(slot)).max();
        let warmest = warmest.unwrap_or_default().factor();
        let mut gains = Vec::with_capacity(slots.len());
        let mut factors = Vec::new();
        for (((slot, server), home), part) in
            slots.iter().zip(&mut *servers).zip(&homes).zip(&parts)
        {
            let held = Share::exact(warmth(slot).factor() / warmest);
            let mut own = *home;
            if *part > 0.0 {
                if !held.is_full() {
                    server.coming = Some((slot.hash_name, held));
                    own *= held.factor();
                }
                factors.push(part / own);
            }
            gains.push((part - own).max(0.0));
        }
        let first = factors.first().copied().unwrap_or_default();
        let alike = factors.iter().all(|factor| (factor - first).abs() < ALIKE);
        let warming = servers.iter().any(|server| server.coming.is_some());
        Homes {
            owners: rings.of(slots, &homes),
            stand_ins: (warming || !alike).then(|| rings.of(slots, &gains)),
        }
    }

    /// Each server's part of the traffic, 0 to 1, if they stood like this.
    fn parts(&self, slots: &[&Slot], standing: impl Fn(&Slot) -> Standing) -> Vec<f64> {
        let seats = slots.iter().map(|slot| slot.seat_as(standing(slot)));
        let seats: Vec<_> = seats.collect();
        let roles = balance::place(&seats, &self.division()).roles;
        let part = |role| match role {
            Role::Used(used) => used.traffic,
            _ => 0.0,
        };
        roles.into_iter().map(part).collect()
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

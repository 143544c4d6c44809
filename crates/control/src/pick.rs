//! One worker's half of a pool, and how it finds a server for a request: the same for traffic and for the simulator.
//!
//! Which of several servers is better is `balance`'s to say, who waits is [`gate`](crate::gate)'s; here both are asked
//! until one server has let the request in.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use balance::Refused;
use config::{Affinity, Strength};

use crate::affinity::{Bond, BoundServer, Tie, Turned, Verdict, turned, without};
use crate::gate::Lease;
use crate::live::{Member, PoolState, PoolView};
use crate::metrics::{Overflow, RetryCause};
use crate::reason::Reason;
use crate::sources::{Counted, Sources};

/// Places of a ring that are walked before any server will do.
pub(crate) const WALK_MAX: usize = 4096;

/// What becomes of a bound request at its server.
enum Held {
    Lease(Lease),
    /// The server is full, or the pool: the request is to wait for it.
    Waits(Reason),
    /// Another server may take it.
    Elsewhere,
    Refused,
}

/// One worker's half of a pool, or of a subset of one.
#[derive(Debug)]
pub struct LocalPool {
    /// What all workers share.
    pub state: Arc<PoolState>,
    /// The view that this worker has taken up.
    pub view: Arc<PoolView>,
    /// Random state and scratch.
    pub local: balance::Local,
    /// Where its clients come from, where they are bound by that.
    sources: Option<Box<Sources>>,
    version: u64,
}

impl LocalPool {
    /// With the view of now. `seed`: of its random state, another for each worker.
    #[must_use]
    pub fn new(state: &Arc<PoolState>, seed: u64) -> Self {
        // The version is read first: a view that comes in between is then taken up at the next pick.
        let version = state.version();
        Self {
            state: state.clone(),
            view: state.view(),
            local: balance::Local::new(seed),
            sources: None,
            version,
        }
    }

    /// Takes up a newer view; whether there was one.
    pub fn refresh(&mut self) -> bool {
        let version = self.state.version();
        let newer = version != self.version;
        if newer {
            self.view = self.state.view();
            self.version = version;
        }
        newer
    }

    /// Counts where a request comes from; gives what the publisher is to hear, once in a while.
    pub fn count_source(&mut self, source: IpAddr, now: Duration) -> Option<Box<Counted>> {
        let begin = || Box::new(Sources::new(now));
        self.sources.get_or_insert_with(begin).count(source, now)
    }

    /// Picks a server and claims a slot of it. Servers in `tried` are left out.
    ///
    /// # Errors
    /// [`Reason::ServerLimit`] when all others are full, or requests wait for them already: whoever may wait does so by
    /// [`Gate::enter`](crate::gate::Gate::enter). [`Reason::PoolLimit`] when the pool is, likewise. [`Reason::NoUsableServer`] when there is no other.
    pub fn pick(
        &mut self,
        key: Option<u64>,
        tried: &mut Vec<u32>,
        now: Duration,
    ) -> Result<Lease, Reason> {
        self.refresh();
        let before = tried.len();
        let picked = self.pick_of(key, tried, now);
        // Those that were full may have room at the next try.
        tried.truncate(before);
        picked
    }

    /// The same for a request that is bound: it goes where it is bound to, as long as that server may keep it.
    ///
    /// # Errors
    /// As [`LocalPool::pick`]; when [`Bond::waits`] says so, the request is to wait for [`LocalPool::owner`] alone.
    /// [`Reason::AffinityServerUnavailable`] when its server cannot serve, and no other may.
    pub fn pick_bound(
        &mut self,
        affinity: &Affinity,
        bond: &Bond,
        key: Option<u64>,
        tried: &mut Vec<u32>,
        now: Duration,
    ) -> Result<Lease, Reason> {
        self.refresh();
        bond.set_waits(false);
        let held = match (&self.view.bound, bond.tie) {
            (None, _) | (_, Tie::Free) => Held::Elsewhere,
            (_, Tie::Lost) => without_server(affinity),
            (Some(bound), Tie::Server(id)) => {
                bond.set_owner(id);
                match bound.of_member(id) {
                    Some(server) => hold(affinity, bond, server, tried),
                    // The config has let go of it.
                    None => {
                        bond.leave();
                        Held::Elsewhere
                    }
                }
            }
            (Some(bound), Tie::Key(hash)) => match bound.owners(hash).next() {
                Some(server) => {
                    bond.set_owner(server.member.id);
                    match hold(affinity, bond, server, tried) {
                        Held::Elsewhere => bound
                            .owners(hash)
                            .take(WALK_MAX)
                            .find_map(|next| stand_in(next, bond, tried))
                            .map_or(Held::Elsewhere, Held::Lease),
                        held => held,
                    }
                }
                None => Held::Elsewhere,
            },
        };
        match held {
            Held::Lease(lease) => Ok(lease),
            Held::Waits(full) => {
                bond.set_waits(true);
                Err(full)
            }
            Held::Elsewhere => self.pick(key, tried, now),
            Held::Refused => {
                bond.refuse();
                Err(Reason::AffinityServerUnavailable)
            }
        }
    }

    /// The server that a request is bound to, if the pool has it.
    #[must_use]
    pub fn owner(&self, bond: &Bond) -> Option<Arc<Member>> {
        let bound = self.view.bound.as_ref()?;
        Some(bound.of_member(bond.owner()?)?.member.clone())
    }

    fn pick_of(
        &mut self,
        key: Option<u64>,
        tried: &mut Vec<u32>,
        now: Duration,
    ) -> Result<Lease, Reason> {
        let before = tried.len();
        let mut full = false;
        loop {
            let view = &self.view;
            let Some(index) =
                view.view
                    .pick(&self.state.rotation, &mut self.local, key, tried, now)
            else {
                // Those refused may have been let go of since the view was taken up, by a reload that brought others.
                if tried.len() > before && self.refresh() {
                    tried.truncate(before);
                    full = false;
                    continue;
                }
                if !full && let Some(lease) = self.pick_leaving(tried.get(..before)) {
                    return Ok(lease);
                }
                return Err(if full {
                    Reason::ServerLimit
                } else {
                    Reason::NoUsableServer
                });
            };
            let Some(member) = view.members.get(index) else {
                return Err(Reason::Internal);
            };
            match Lease::take(member) {
                Ok(lease) => return Ok(lease),
                // Without subsets all of them are full when somebody waits; with some, others may have room.
                Err(Refused::Watched) if !view.divided => return Err(Reason::ServerLimit),
                Err(Refused::PoolFull) => return Err(Reason::PoolLimit),
                Err(refused) => {
                    full |= matches!(refused, Refused::Full | Refused::Watched);
                    tried.push(member.id);
                }
            }
        }
    }

    /// The least busy server of a pool that a reload has taken away: its servers drain, and until this worker has heard of
    /// it they serve what is still sent there.
    #[cold]
    fn pick_leaving(&self, tried: Option<&[u32]>) -> Option<Lease> {
        let members = &self.view.members;
        if !members.first()?.is_retired() || !members.iter().all(|member| member.is_retired()) {
            return None;
        }
        let tried = tried.unwrap_or_default();
        let left = members.iter().filter(|member| !tried.contains(&member.id));
        let least = left.min_by_key(|member| member.cell.in_use())?;
        Lease::take_leaving(least).ok()
    }

    /// Counts what a bound of the pool refused.
    pub fn count_overflow(&self, worker: usize, overflow: Overflow) {
        self.state.stats.of(worker).count_overflow(overflow);
    }

    /// Counts a further try.
    pub fn count_retry(&self, worker: usize, cause: RetryCause) {
        if let Some(counter) = self.state.stats.of(worker).retries.get(cause as usize) {
            counter.increment();
        }
    }
}

/// Whether a bound request stays at its server.
fn hold(affinity: &Affinity, bond: &Bond, server: &BoundServer, tried: &[u32]) -> Held {
    let leave = |verdict| match verdict {
        Verdict::Refuse => Held::Refused,
        Verdict::Keep | Verdict::Move => {
            bond.leave();
            Held::Elsewhere
        }
    };
    if tried.contains(&server.member.id) {
        // It has failed this request; that alone says little of the next one.
        return match affinity.strength {
            Strength::Preferred => Held::Elsewhere,
            Strength::Required => Held::Refused,
        };
    }
    let verdict = server.judge(affinity.strength, affinity.on_drain);
    if verdict != Verdict::Keep {
        return leave(verdict);
    }
    if bond.has_given_up() {
        return leave(without(affinity.strength));
    }
    match Lease::take_bound(&server.member, affinity.on_drain) {
        Ok(lease) => Held::Lease(lease),
        Err(refused) => match turned(refused, affinity) {
            Turned::Full(reason) => Held::Waits(reason),
            Turned::Away(verdict) => leave(verdict),
        },
    }
}

/// For a request whose server is not in the pool, and cannot be waited for.
fn without_server(affinity: &Affinity) -> Held {
    match affinity.strength {
        Strength::Preferred => Held::Elsewhere,
        Strength::Required => Held::Refused,
    }
}

/// A slot of a server that may take over a key from its owner.
fn stand_in(server: &BoundServer, bond: &Bond, tried: &[u32]) -> Option<Lease> {
    let id = server.member.id;
    if !server.used || bond.owner() == Some(id) || tried.contains(&id) {
        return None;
    }
    Lease::take(&server.member).ok()
}

//! One worker's half of a pool, and how it finds a server for a request: the same for traffic and for the simulator.
//!
//! Which of several servers is better is `balance`'s to say, who waits is [`gate`](crate::gate)'s; here both are asked
//! until one server has let the request in.

use std::sync::Arc;
use std::time::Duration;

use balance::Refused;

use crate::gate::Lease;
use crate::live::{PoolState, PoolView};
use crate::metrics::{Overflow, RetryCause};
use crate::reason::Reason;

/// One worker's half of a pool, or of a subset of one.
#[derive(Debug)]
pub struct LocalPool {
    /// What all workers share.
    pub state: Arc<PoolState>,
    /// The view that this worker has taken up.
    pub view: Arc<PoolView>,
    /// Random state and scratch.
    pub local: balance::Local,
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

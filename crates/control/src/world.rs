//! The world as workers see it: one config, bound to the live state it names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use config::{Destination, Snapshot};

use crate::acme::{Board, Challenges};
use crate::crew::Crew;
use crate::live::{ListenerState, PoolState, RouteState};
use crate::memory::Memory;
use crate::message::{Message, ReloadReport, Sender};
use crate::metrics::{PerWorker, WorkerCells};

/// One config with the live state of what it names, by the config's indices. Immutable.
#[derive(Debug)]
pub struct World {
    /// Grows by one with each config taken up; the first is 1.
    pub generation: u64,
    /// The config.
    pub snapshot: Arc<Snapshot>,
    /// By pool index.
    pub pools: Vec<Arc<PoolState>>,
    /// By pool index, then by subset index.
    pub subsets: Vec<Vec<Arc<PoolState>>>,
    /// By listener index.
    pub listeners: Vec<Arc<ListenerState>>,
    /// By listener index, then by route index; empty for TCP listeners.
    pub routes: Vec<Vec<Arc<RouteState>>>,
}

impl World {
    /// Where a route leads.
    #[must_use]
    pub fn destination(&self, to: Destination) -> Option<&Arc<PoolState>> {
        match to.subset {
            None => self.pools.get(to.pool),
            Some(subset) => self
                .subsets
                .get(to.pool)?
                .get(usize::try_from(subset).ok()?),
        }
    }

    /// The pool of this name, with its index.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<(usize, &Arc<PoolState>)> {
        self.pools
            .iter()
            .enumerate()
            .find(|(_, pool)| &*pool.name == name)
    }
}

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not yet serving.
    Starting = 0,
    /// Serving.
    Running = 1,
    /// Ending: answers what it has, and tells clients to go elsewhere.
    Draining = 2,
}

/// What every room holds: the world now, the process's totals, and the way to the publisher.
pub struct Hub {
    world: ArcSwap<World>,
    phase: AtomicU8,
    sender: Sender,
    reloaded: ArcSwapOption<ReloadReport>,
    /// Totals of each worker.
    pub workers: PerWorker<WorkerCells>,
    /// What each worker carries now. Blocks of their own: they are read by all when a connection comes.
    pub crew: Crew,
    /// What authorities are answered that give certificates.
    pub challenges: Challenges,
    /// How those certificates stand.
    pub certificates: Board,
    /// What buffers hold.
    pub memory: Memory,
    /// How many workers there are.
    pub worker_count: usize,
    /// Wall time at start, since the Unix epoch.
    pub started: Duration,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("phase", &self.phase())
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// A hub around the first world.
    #[must_use]
    pub fn new(world: Arc<World>, workers: usize, started: Duration, sender: Sender) -> Self {
        Self {
            world: ArcSwap::new(world),
            phase: AtomicU8::new(Phase::Starting as u8),
            sender,
            reloaded: ArcSwapOption::empty(),
            workers: PerWorker::new(workers),
            crew: Crew::new(workers),
            challenges: Challenges::default(),
            certificates: Board::default(),
            memory: Memory::default(),
            worker_count: workers,
            started,
        }
    }

    /// The world now. For those beside traffic: workers are sent theirs.
    #[must_use]
    pub fn world(&self) -> Arc<World> {
        self.world.load_full()
    }

    /// Makes a world the present one.
    pub fn set_world(&self, world: Arc<World>) {
        self.world.store(world);
    }

    /// What came of the last reload; `None` before the first.
    #[must_use]
    pub fn reloaded(&self) -> Option<Arc<ReloadReport>> {
        self.reloaded.load_full()
    }

    /// Keeps what came of a reload.
    pub fn set_reloaded(&self, report: ReloadReport) {
        self.reloaded.store(Some(Arc::new(report)));
    }

    /// Where the process is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Running,
            _ => Phase::Draining,
        }
    }

    /// Moves on to another part of its life.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Sends to the thread that owns the publisher. Never blocks.
    pub fn send(&self, message: Message) {
        (self.sender)(message);
    }
}

//! What each worker has for itself: its half of the pool and its idle connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use control::live::PoolState;
use control::pick::LocalPool;
use control::world::World;

/// An idle connection is kept this long, by default.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// One used longer ago than this is not given to a request that may not be sent twice.
const FRESH: Duration = Duration::from_secs(1);

/// One worker.
pub(crate) struct Worker {
    pub(crate) number: usize,
    /// The whole pool, then its parts.
    pub(crate) pools: Vec<LocalPool>,
    idle: BTreeMap<u32, Vec<Idle>>,
}

/// An idle connection.
struct Idle {
    since: Duration,
    /// Of its server, when it was made.
    lives: u32,
}

impl Worker {
    pub(crate) fn new(number: usize, world: &World, seed: u64) -> Self {
        Self {
            number,
            pools: pools(world, seed),
            idle: BTreeMap::new(),
        }
    }

    /// Takes up another world; connections stay.
    pub(crate) fn take_world(&mut self, world: &World, seed: u64) {
        self.pools = pools(world, seed);
    }

    /// An idle connection to a member: the life of the server that it was made in. `seen_dead`: the life whose end
    /// has been seen here; connections of it or of one before are thrown away.
    pub(crate) fn take_idle(
        &mut self,
        member: u32,
        fresh: bool,
        seen_dead: Option<u32>,
        now: Duration,
    ) -> Option<u32> {
        let kept = self.idle.get_mut(&member)?;
        while let Some(idle) = kept.pop() {
            let hung_up = seen_dead.is_some_and(|dead| idle.lives <= dead);
            if hung_up || idle.since + KEEP_ALIVE <= now {
                continue;
            }
            if fresh && now.saturating_sub(idle.since) > FRESH {
                kept.push(idle);
                return None;
            }
            return Some(idle.lives);
        }
        None
    }

    pub(crate) fn give_idle(&mut self, member: u32, lives: u32, now: Duration) {
        let kept = self.idle.entry(member).or_default();
        kept.push(Idle { since: now, lives });
    }
}

/// The pool of a world, and its parts.
pub(crate) fn states(world: &World) -> impl Iterator<Item = &Arc<PoolState>> {
    let parts = world.subsets.first().into_iter().flatten();
    world.pools.first().into_iter().chain(parts)
}

fn pools(world: &World, seed: u64) -> Vec<LocalPool> {
    let states = states(world).zip(0..);
    let pools = states.map(|(state, part)| LocalPool::new(state, seed.wrapping_add(part)));
    pools.collect()
}

//! How far a pool has turned, for all workers together.

use std::sync::atomic::{AtomicU64, Ordering};

/// The turns of one pool, shared by every worker and kept when its [`View`](crate::View) is
/// rebuilt, so that shares hold for the process. A turn is one relaxed addition.
///
/// Further tries of a request take turns of their own. If they took those of first tries, a server
/// that fails would meet more than its share of them: each of two, where one fails, would send
/// every request to that one first. If they took none, its neighbour would get all that it drops.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Rotation {
    first: AtomicU64,
    further: AtomicU64,
}

/// Where a pick gets its turns from.
#[derive(Debug)]
pub(crate) enum Turns<'a> {
    /// From the pool's rotation, which moves on.
    Taken(&'a Rotation),
    /// The same, for a request that has been to a server already.
    Further(&'a Rotation),
    /// From a copy of it, which the next pick does not see.
    Peeked(u64),
}

impl Rotation {
    /// A pool that has not turned yet.
    pub const fn new() -> Self {
        Self {
            first: AtomicU64::new(0),
            further: AtomicU64::new(0),
        }
    }

    /// Turns taken so far by first tries.
    pub fn turns(&self) -> u64 {
        self.first.load(Ordering::Relaxed)
    }

    /// Turns taken so far by further tries.
    pub(crate) fn further_turns(&self) -> u64 {
        self.further.load(Ordering::Relaxed)
    }
}

impl Turns<'_> {
    pub(crate) fn next(&mut self) -> u64 {
        match self {
            Self::Taken(rotation) => rotation.first.fetch_add(1, Ordering::Relaxed),
            Self::Further(rotation) => rotation.further.fetch_add(1, Ordering::Relaxed),
            Self::Peeked(turn) => {
                *turn = turn.wrapping_add(1);
                turn.wrapping_sub(1)
            }
        }
    }
}

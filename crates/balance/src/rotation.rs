//! How far a pool has turned, for all workers together.

use std::sync::atomic::{AtomicU64, Ordering};

/// The turns of one pool, shared by every worker and kept when its [`View`](crate::View) is
/// rebuilt, so that shares hold for the process. A turn is one relaxed addition.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Rotation(AtomicU64);

/// Where a pick gets its turns from.
#[derive(Debug)]
pub(crate) enum Turns<'a> {
    /// From the pool's rotation, which moves on.
    Taken(&'a Rotation),
    /// From a copy of it, which the next pick does not see.
    Peeked(u64),
}

impl Rotation {
    /// A pool that has not turned yet.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Turns taken so far, retries included.
    pub fn turns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Turns<'_> {
    pub(crate) fn next(&mut self) -> u64 {
        match self {
            Self::Taken(rotation) => rotation.0.fetch_add(1, Ordering::Relaxed),
            Self::Peeked(turn) => {
                *turn = turn.wrapping_add(1);
                turn.wrapping_sub(1)
            }
        }
    }
}

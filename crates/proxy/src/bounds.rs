//! Bounds of a whole pool on what is under way at once: requests, and those of them that are tried again.
//!
//! Requests of a pool without them pay one branch each. Slots of servers are `control::gate`'s.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use control::gate::Gate;
use control::metrics::Overflow;

use control::pick::LocalPool;

use crate::worker::Worker;

/// One of those that a bound counts; no longer once dropped.
pub(crate) struct Counted {
    gate: Arc<Gate>,
    count: fn(&Gate) -> &AtomicU32,
}

impl Counted {
    /// One more request, those that wait included; `None` when there are `max`.
    pub(crate) fn request(worker: &Worker, pool: &LocalPool, max: u32) -> Option<Self> {
        Self::take(worker, pool, max, |gate| &gate.requests, Overflow::Requests)
    }

    /// One more request that is tried again; `None` when there are `max`.
    pub(crate) fn retry(worker: &Worker, pool: &LocalPool, max: u32) -> Option<Self> {
        Self::take(worker, pool, max, |gate| &gate.retrying, Overflow::Retries)
    }

    fn take(
        worker: &Worker,
        pool: &LocalPool,
        max: u32,
        count: fn(&Gate) -> &AtomicU32,
        overflow: Overflow,
    ) -> Option<Self> {
        let more = |now: u32| (now < max).then(|| now + 1);
        if count(&pool.state.gate)
            .fetch_update(Relaxed, Relaxed, more)
            .is_err()
        {
            pool.count_overflow(worker.number, overflow);
            return None;
        }
        let gate = pool.state.gate.clone();
        Some(Self { gate, count })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.count)(&self.gate).fetch_sub(1, Relaxed);
    }
}

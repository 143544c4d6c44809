//! The families of queues, bounds and bonds: who waits while a pool's servers are full, what the pool refuses, and what
//! came of clients that are bound to a server.

use control::affinity::End;
use control::metrics::{Counter, Overflow, PerWorker, PoolCells, WaitEnd};
use control::world::World;

use super::{BUCKETS, PoolRow, Text};

/// How many [`read`] gives.
pub(super) const NUMBERS: usize =
    WaitEnd::ALL.len() + BUCKETS + 1 + Overflow::ALL.len() + End::ALL.len();

pub(super) fn queues(text: &mut Text, rows: &[PoolRow], world: &World) {
    text.family("evenkeel_queue_length");
    for pool in &world.pools {
        text.sample(
            &[("pool", &pool.name)],
            pool.gate.waiting() + pool.gate.aside(),
        );
    }
    text.family("evenkeel_queue_waits_total");
    for PoolRow {
        pool,
        queue: totals,
        ..
    } in rows
    {
        for (end, total) in WaitEnd::ALL.iter().zip(totals) {
            text.sample(&[("pool", pool), ("end", end.name())], total);
        }
    }
    text.family("evenkeel_queue_seconds");
    for PoolRow {
        pool,
        queue: totals,
        ..
    } in rows
    {
        let rest = totals.get(WaitEnd::ALL.len()..).unwrap_or_default();
        let (buckets, sum_us) = rest.split_at(BUCKETS.min(rest.len()));
        let sum_us = sum_us.first().copied().unwrap_or(0);
        text.histogram(&[("pool", pool)], buckets, sum_us);
    }
    text.family("evenkeel_overflows_total");
    for PoolRow {
        pool,
        queue: totals,
        ..
    } in rows
    {
        let overflows = totals.iter().skip(WaitEnd::ALL.len() + BUCKETS + 1);
        for (overflow, total) in Overflow::ALL.iter().zip(overflows) {
            text.sample(&[("pool", pool), ("limit", overflow.name())], total);
        }
    }
    text.family("evenkeel_affinity_requests_total");
    for (row, config) in rows.iter().zip(&world.snapshot.pools) {
        let PoolRow {
            pool,
            queue: totals,
            ..
        } = row;
        let before = WaitEnd::ALL.len() + BUCKETS + 1 + Overflow::ALL.len();
        let ends = totals.iter().skip(before);
        for (end, total) in End::ALL.iter().zip(ends) {
            // Totals of a pool that binds no longer are still shown.
            if config.affinity.is_some() || *total > 0 {
                text.sample(&[("pool", pool), ("binding", end.name())], total);
            }
        }
    }
}

/// Waits by how they ended, then the histogram, then overflows, then what came of bonds.
pub(super) fn read(cells: &PerWorker<PoolCells>) -> Vec<u64> {
    let waits = (0..WaitEnd::ALL.len())
        .map(|end| cells.sum(|cells| cells.waits.get(end).map_or(0, Counter::get)));
    let buckets = (0..BUCKETS).map(|index| cells.sum(|cells| cells.queue_seconds.bucket(index)));
    let sum_us = cells.sum(|cells| cells.queue_seconds.sum_us());
    let overflows = (0..Overflow::ALL.len())
        .map(|of| cells.sum(|cells| cells.overflows.get(of).map_or(0, Counter::get)));
    let ends = (0..End::ALL.len())
        .map(|end| cells.sum(|cells| cells.affinity.get(end).map_or(0, Counter::get)));
    waits
        .chain(buckets)
        .chain([sum_us])
        .chain(overflows)
        .chain(ends)
        .collect()
}

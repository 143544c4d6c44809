//! How many requests a server may hold at once: the least of all that bounds it, in one number that a pick reads anyway.

use std::sync::Arc;
use std::time::Duration;

use balance::Reading;
use balance::adaptive::{Adaptive, Found, Settings, Window};
use config::Pool;

use super::Publisher;
use super::pools::{Place, PoolEntry, Slot};
use crate::handover::LiveLimit;
use crate::live::{LimitedBy, Member};

/// How often the traffic of servers whose limit follows latency is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What spreads the measurements of servers over time: the golden ratio, so that numbers in a row lie far apart.
const SPREAD: f64 = 0.618_033_988_749_895;

/// A limit that follows latency, and what was seen of the server's traffic.
pub(super) struct Adapting {
    adaptive: Adaptive,
    /// At the beginning of the window: the average, requests and failures.
    reading: Reading,
    totals: (u64, u64),
    /// The sum over the looks of this window at how many requests were in use, and the looks that saw any.
    in_use: u64,
    looks: u32,
}

impl Adapting {
    fn new(member: &Member, settings: &Settings, now: Duration) -> Self {
        let spread = (f64::from(member.id) * SPREAD).fract();
        Self {
            adaptive: Adaptive::new(settings, spread, now),
            reading: member.cell.latency_reading(),
            totals: member.totals(),
            in_use: 0,
            looks: 0,
        }
    }

    /// What was found, for another process.
    pub(super) fn tell(&self) -> Option<LiveLimit> {
        let found = self.adaptive.found()?;
        Some(LiveLimit {
            requests: found.limit,
            base_ns: u64::try_from(found.base.as_nanos()).unwrap_or(u64::MAX),
        })
    }

    /// Looks at a server's traffic; whether its limit has changed.
    fn look(&mut self, member: &Member, settings: &Settings, now: Duration) -> bool {
        let in_use = member.cell.in_use();
        self.in_use += u64::from(in_use);
        self.looks += u32::from(in_use > 0);
        let totals = member.totals();
        let requests = totals.0.saturating_sub(self.totals.0);
        if !self.adaptive.is_due(requests, now) {
            return false;
        }
        let reading = member.cell.latency_reading();
        let before = self.adaptive.limit();
        if let Some(latency) = reading.mean_since(self.reading) {
            let length = now.saturating_sub(self.adaptive.seen()).as_secs_f64();
            // Looks may fall between requests; what ended in the window was there (Little's law).
            let looked = self.in_use as f64 / f64::from(self.looks.max(1));
            let ended = requests as f64 * latency.as_secs_f64() / length.max(0.001);
            let window = Window {
                latency,
                requests,
                failed: totals.1.saturating_sub(self.totals.1),
                in_use: looked.max(ended),
            };
            self.adaptive.handle_window(&window, settings, now);
        }
        (self.reading, self.totals) = (reading, totals);
        (self.in_use, self.looks) = (0, 0);
        self.adaptive.limit() != before
    }
}

impl Slot {
    /// Takes up how the limit follows latency, from a config.
    pub(super) fn take_adaptive(&mut self, settings: Option<&Settings>, now: Duration) {
        match (settings, &mut self.adapting) {
            (None, adapting) => *adapting = None,
            (Some(settings), Some(adapting)) => adapting.adaptive.handle_settings(settings),
            (Some(settings), adapting) => {
                *adapting = Some(Adapting::new(&self.member, settings, now));
            }
        }
    }

    /// Goes on from the limit that another process has found.
    pub(super) fn resume_adaptive(
        &mut self,
        given: &LiveLimit,
        settings: &Settings,
        now: Duration,
    ) {
        self.take_adaptive(Some(settings), now);
        if let Some(adapting) = &mut self.adapting {
            let found = Found {
                limit: given.requests,
                base: Duration::from_nanos(given.base_ns),
            };
            adapting.adaptive.resume(found, settings);
        }
    }

    /// Brings the bound of requests in use up to all that bounds them.
    pub(super) fn apply_limit(&self, pool: &Pool) {
        let streams = pool.http2.map_or(u32::MAX, |http2| http2.streams);
        self.member
            .set_sockets_max(pool.connections_per_server, streams);
        // Each request in use needs its place on a socket, so that a server with all of those in use is full.
        let places = pool.connections_per_server;
        let places = places.saturating_mul(requests_of_socket(&self.member, pool));
        let bounds = [
            Some((places, LimitedBy::Sockets)),
            self.file_room.map(|max| (max, LimitedBy::MaxConnections)),
            self.own
                .connections_max()
                .map(|max| (max, LimitedBy::Agent)),
            self.half_open(pool).map(|max| (max, LimitedBy::HalfOpen)),
            self.adapting
                .as_ref()
                .map(|adapting| (adapting.adaptive.limit(), LimitedBy::Latency)),
        ];
        let least = bounds.into_iter().flatten().min_by_key(|(max, _)| *max);
        self.member.set_limit(least, pool.connections_max.is_some());
    }

    /// Requests at once while it has to show that it has recovered.
    pub(super) fn half_open(&self, pool: &Pool) -> Option<u32> {
        let settings = pool.outlier_detection.as_ref()?;
        self.outlier.is_half_open().then_some(settings.half_open)
    }
}

/// Requests that one socket carries at once, as the server is spoken to now.
fn requests_of_socket(member: &Member, pool: &Pool) -> u32 {
    let Some(http2) = &pool.http2 else {
        return 1;
    };
    if http2.auto && member.chose_http2() != Some(true) {
        return 1;
    }
    // One that wants none for a while will want some again.
    http2.streams.min(member.streams()).max(1)
}

impl Publisher {
    /// Says when servers whose limit follows latency are to be looked at, if there are any.
    pub(super) fn plan_look(&mut self, now: Duration) {
        let mut pools = self.pools.values();
        let any = pools.any(|entry| entry.config.adaptive_concurrency.is_some());
        self.look_at = any.then(|| now.saturating_add(LOOK_EVERY));
    }

    /// Looks at them, when that is due.
    pub(super) fn look_at_limits(&mut self, now: Duration) {
        if self.look_at.is_none_or(|at| at > now) {
            return;
        }
        for entry in self.pools.values_mut() {
            entry.look_at_limits(now);
        }
        self.plan_look(now);
    }

    /// A request has succeeded at a server that was half open.
    pub(super) fn handle_passed(&mut self, id: u32, now: Duration) {
        let Some((slot, _)) = Place::find(&self.places, &mut self.pools, id) else {
            return;
        };
        if slot.outlier.handle_success() {
            self.open(id, now);
        }
    }

    /// What a socket of a server carries has changed.
    pub(super) fn handle_speaks(&mut self, id: u32, now: Duration) {
        if let Some((slot, _)) = Place::find(&self.places, &mut self.pools, id) {
            slot.member.forget_spoken_told();
        }
        self.open(id, now);
    }

    /// A server may hold more than before.
    pub(super) fn open(&mut self, id: u32, now: Duration) {
        let Some(Place { pool, at }) = self.places.get(&id) else {
            return;
        };
        let Some(entry) = self.pools.get(pool) else {
            return;
        };
        if let Some(slot) = entry.slots.get(*at) {
            slot.apply_limit(&entry.config);
        }
        entry.offer_room();
        // What is shown of it.
        let pool = Arc::clone(pool);
        self.mark_dirty(&pool, now);
    }
}

impl PoolEntry {
    fn look_at_limits(&mut self, now: Duration) {
        let Some(settings) = &self.config.adaptive_concurrency else {
            return;
        };
        let mut changed = false;
        for slot in &mut self.slots {
            let Some(adapting) = &mut slot.adapting else {
                continue;
            };
            if adapting.look(&slot.member, settings, now) {
                slot.apply_limit(&self.config);
                changed = true;
            }
        }
        if changed {
            self.offer_room();
        }
    }

    /// Offers what is free to those who wait.
    pub(super) fn offer_room(&self) {
        if self.state.gate.waiting() > 0 {
            let members = self.slots.iter().map(|slot| slot.member.clone());
            let members: Vec<_> = members.collect();
            self.state.gate.handle_room(&members);
        }
    }
}

//! How far affinity bends the balance of pools, looked at once a second, and who of their clients carries much.

use std::sync::Arc;
use std::time::Duration;

use super::pools::PoolEntry;
use super::{Action, Notice, Publisher};
use crate::fairness::{Picked, Teller};
use crate::sources::Counted;

impl PoolEntry {
    /// Takes a look at who was picked.
    pub(super) fn watch(&mut self, now: Duration) {
        if self.config.affinity.is_none() {
            self.state.set_fairness(None);
            return;
        }
        let view = self.state.view();
        let servers = view.standings.iter().map(|standing| {
            let member = &standing.member;
            Picked {
                id: member.id,
                name: member.name.clone(),
                picks: member.cell.picks(),
                by_affinity: member.stats.sum(|cells| cells.affinity_picks.get()),
                due: standing.traffic,
            }
        });
        let servers: Vec<Picked> = servers.collect();
        self.state.set_fairness(self.watch.look(&servers, now));
    }
}

impl Publisher {
    /// Takes in what a worker counted of a pool's clients.
    pub(super) fn handle_sources(
        &mut self,
        pool: &Arc<str>,
        teller: Teller,
        counted: Counted,
        now: Duration,
    ) {
        let Some(entry) = self.pools.get_mut(pool) else {
            return;
        };
        let affinity = entry.config.affinity.as_ref();
        let Some(alarm) = affinity.and_then(|affinity| affinity.source_alarm) else {
            return;
        };
        let tellers = self.workers * (1 + entry.subsets.len());
        let found = entry
            .watch
            .handle_sources(teller, counted, tellers, alarm, now);
        if let Some((source, share)) = found {
            self.actions.push_back(Action::Log(Notice::HeavySource {
                pool: pool.clone(),
                source,
                percent: share * 100.0,
            }));
        }
    }
}

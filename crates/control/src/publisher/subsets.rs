//! Parts of a pool that routes choose by label: each has a view of its own over the pool's members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::{Labels, Pool};

use super::Publisher;
use super::pools::{PoolEntry, Slot};
use crate::live::{Member, PoolState, PoolView};

/// One part of a pool.
pub(super) struct Subset {
    pub(super) labels: Arc<Labels>,
    pub(super) state: Arc<PoolState>,
    /// Whether it falls back on servers that it would rather not use.
    pub(super) panic: bool,
    /// Set when the config has let go of it: the members that it had then, for requests that were routed before.
    last: Option<Vec<u32>>,
}

impl Subset {
    /// Its servers among those of the pool. One that the config has let go of is never without any while the pool has
    /// some: who was routed to it is to be served.
    pub(super) fn of<'a>(&self, slots: &'a [Slot]) -> Vec<&'a Slot> {
        let has = |slot: &&Slot| match &self.last {
            None => self.labels.are_among(slot.labels()),
            Some(last) => last.contains(&slot.member.id),
        };
        let own: Vec<_> = slots.iter().filter(has).collect();
        if own.is_empty() && self.last.is_some() {
            return slots.iter().collect();
        }
        own
    }
}

impl Publisher {
    /// The parts that a config chooses, in its order; then those that it has let go of, for as long as somebody holds
    /// them. `slots` are those of the config before.
    pub(super) fn take_subsets(
        &mut self,
        pool: &Pool,
        state: &PoolState,
        mut before: Vec<Subset>,
        slots: &[Slot],
    ) -> Vec<Subset> {
        let mut subsets = Vec::with_capacity(pool.subsets.len());
        for labels in &pool.subsets {
            let known = before.iter().position(|subset| *subset.labels == *labels);
            subsets.push(match known {
                Some(at) => Subset {
                    last: None,
                    ..before.swap_remove(at)
                },
                None => {
                    let labels = Arc::new(labels.clone());
                    let group = self.next_group;
                    self.next_group += 1;
                    Subset {
                        state: Arc::new(state.subset(labels.clone(), group)),
                        labels,
                        panic: false,
                        last: None,
                    }
                }
            });
        }
        for mut subset in before {
            if subset.last.is_none() {
                let ids = subset.of(slots).into_iter().map(|slot| slot.member.id);
                subset.last = Some(ids.collect());
            }
            subsets.push(subset);
        }
        subsets
    }
}

impl PoolEntry {
    /// By the config's indices.
    pub(super) fn subset_states(&self) -> Vec<Arc<PoolState>> {
        let chosen = self.subsets.iter().filter(|subset| subset.last.is_none());
        chosen.map(|subset| subset.state.clone()).collect()
    }

    /// Gives up those that nobody holds any more; their views are freed with the pool's.
    pub(super) fn drop_subsets(&mut self) {
        let retired = &mut self.retired;
        self.subsets.retain(|subset| {
            let held = subset.last.is_none() || Arc::strong_count(&subset.state) > 1;
            if !held {
                retired.push(subset.state.view());
            }
            held
        });
    }

    /// Says which of its parts' views have each server; gives `servers`, those of the pool's own view, with those that
    /// only a part has.
    pub(super) fn publish_groups(
        &self,
        parts: &[PoolView],
        mut servers: Vec<Arc<Member>>,
    ) -> Vec<Arc<Member>> {
        if parts.is_empty() {
            return servers;
        }
        let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (subset, view) in self.subsets.iter().zip(parts) {
            for member in &view.members {
                groups
                    .entry(member.id)
                    .or_default()
                    .push(subset.state.group);
            }
        }
        let in_whole: BTreeSet<u32> = servers.iter().map(|member| member.id).collect();
        for slot in &self.slots {
            let groups = groups.remove(&slot.member.id).unwrap_or_default();
            if !groups.is_empty() && !in_whole.contains(&slot.member.id) {
                servers.push(slot.member.clone());
            }
            slot.member.set_groups(groups);
        }
        servers
    }
}

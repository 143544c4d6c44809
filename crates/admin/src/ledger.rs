//! Keeps totals from falling: what a scrape has shown is remembered for as long as its labels may come back.
//!
//! A reload may replace a server or a pool by one of the same name, whose cells begin at zero; and a route may come when
//! a thousand others have a label of their own already.

use std::collections::BTreeMap;
use std::sync::Arc;

use control::live::{Member, RouteState};
use control::metrics::{PerWorker, PoolCells};
use control::world::World;

/// Routes with a label of their own; the rest share [`OTHER`].
const ROUTES_MAX: usize = 1000;
/// The label of the rest. A route of that name is counted with them.
pub(crate) const OTHER: &str = "other";
/// Entries whose labels are gone that are kept.
const GONE_MAX: usize = 10_000;

type Names = (Arc<str>, Arc<str>);

/// What scrapes have shown. One scrape at a time uses it.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) servers: Totals<Names, Member>,
    pub(crate) pools: Totals<Arc<str>, PerWorker<PoolCells>>,
    /// The same cells, for the families of queues.
    pub(crate) queues: Totals<Arc<str>, PerWorker<PoolCells>>,
    routes: BTreeMap<Names, RouteEntry>,
}

struct RouteEntry {
    state: Arc<RouteState>,
    named: bool,
}

impl Ledger {
    /// Takes in the routes that there are now, and gives the states behind each pair of labels.
    pub(crate) fn routes(&mut self, world: &World) -> BTreeMap<Names, Vec<Arc<RouteState>>> {
        let present = || world.routes.iter().flatten();
        let key = |route: &RouteState| -> Names { (route.listener.clone(), route.name.clone()) };
        let keys: std::collections::BTreeSet<Names> = present().map(|route| key(route)).collect();
        // A label that is gone makes room; one of the rest stays counted, since their sum must not fall.
        self.routes
            .retain(|names, entry| !entry.named || keys.contains(names));
        let mut named = self.routes.values().filter(|entry| entry.named).count();
        for route in present() {
            self.routes.entry(key(route)).or_insert_with(|| {
                let has_label = named < ROUTES_MAX && &*route.name != OTHER;
                named += usize::from(has_label);
                RouteEntry {
                    state: route.clone(),
                    named: has_label,
                }
            });
        }
        let mut labels: BTreeMap<Names, Vec<Arc<RouteState>>> = BTreeMap::new();
        for ((listener, name), entry) in &self.routes {
            let label = if entry.named {
                name.clone()
            } else {
                OTHER.into()
            };
            let states = labels.entry((listener.clone(), label)).or_default();
            states.push(entry.state.clone());
        }
        labels
    }
}

/// Totals of cells that may be replaced by others of the same name.
pub(crate) struct Totals<K, T>(BTreeMap<K, Total<T>>);

struct Total<T> {
    cells: Arc<T>,
    /// What the cells before these had come to.
    before: Vec<u64>,
    seen: bool,
}

impl<K, T> Default for Totals<K, T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, T> Totals<K, T> {
    /// The numbers of `cells`, plus those of all cells that had this name before. `read` gives as many each time.
    pub(crate) fn read(
        &mut self,
        key: K,
        cells: &Arc<T>,
        read: impl Fn(&T) -> Vec<u64>,
    ) -> Vec<u64> {
        let total = self.0.entry(key).or_insert_with(|| Total {
            cells: cells.clone(),
            before: Vec::new(),
            seen: true,
        });
        if !Arc::ptr_eq(&total.cells, cells) {
            total.before = sum(read(&total.cells), &total.before);
            total.cells = cells.clone();
        }
        total.seen = true;
        sum(read(cells), &total.before)
    }

    /// To be called after each scrape: forgets names that are gone, once they are very many.
    pub(crate) fn prune(&mut self) {
        let gone = self.0.values().filter(|total| !total.seen).count();
        if gone > GONE_MAX {
            self.0.retain(|_, total| total.seen);
        }
        for total in self.0.values_mut() {
            total.seen = false;
        }
    }
}

fn sum(mut numbers: Vec<u64>, more: &[u64]) -> Vec<u64> {
    for (number, more) in numbers.iter_mut().zip(more) {
        *number = number.wrapping_add(*more);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_goes_on_from_where_its_predecessor_was() {
        let mut totals: Totals<&str, Vec<u64>> = Totals::default();
        let read = |cells: &Vec<u64>| cells.clone();
        let (first, second) = (Arc::new(vec![5, 1]), Arc::new(vec![2, 0]));
        assert_eq!(totals.read("a", &first, read), [5, 1]);
        assert_eq!(totals.read("b", &second, read), [2, 0]);
        totals.prune();
        assert_eq!(totals.read("a", &second, read), [7, 1]);
        assert_eq!(totals.read("a", &second, read), [7, 1]);
    }
}

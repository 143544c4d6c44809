//! Keeps totals from falling: what a scrape has shown is remembered for as long as its labels may come back.
//!
//! A reload may replace a server or a pool by one of the same name, whose cells begin at zero; and a route may come when
//! a thousand others have a label of their own already. What is gone is kept as bare numbers: its cells are freed.

use std::collections::BTreeMap;
use std::sync::Arc;

use control::live::{Member, RouteState};
use control::metrics::{PerWorker, PoolCells, RouteCells};
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
    routes: BTreeMap<Names, RouteEntry>,
    /// What routes without a label of their own came to that are gone, by listener.
    gone: BTreeMap<Arc<str>, Arc<PerWorker<RouteCells>>>,
}

struct RouteEntry {
    state: Arc<RouteState>,
    named: bool,
}

impl Ledger {
    /// Takes in the routes that there are now, and gives the cells behind each pair of labels.
    pub(crate) fn routes(&mut self, world: &World) -> BTreeMap<Names, Vec<RouteTotals>> {
        let present = || world.routes.iter().flatten();
        let key = |route: &RouteState| -> Names { (route.listener.clone(), route.name.clone()) };
        let keys: std::collections::BTreeSet<Names> = present().map(|route| key(route)).collect();
        // A label that is gone makes room; what one of the rest came to stays counted, since their sum must not fall.
        self.routes.retain(|names, entry| {
            let stays = keys.contains(names) || (!entry.named && !is_let_go(&entry.state));
            if !stays && !entry.named {
                let sum = self.gone.entry(names.0.clone());
                let sum = sum.or_insert_with(|| Arc::new(PerWorker::new(1)));
                for cells in entry.state.stats.iter() {
                    sum.of(0).add(cells);
                }
            }
            stays
        });
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
        let mut labels: BTreeMap<Names, Vec<RouteTotals>> = BTreeMap::new();
        for ((listener, name), entry) in &self.routes {
            let label = if entry.named {
                name.clone()
            } else {
                OTHER.into()
            };
            let totals = labels.entry((listener.clone(), label)).or_default();
            totals.push(RouteTotals::Route(entry.state.clone()));
        }
        for (listener, sum) in &self.gone {
            let totals = labels.entry((listener.clone(), OTHER.into())).or_default();
            totals.push(RouteTotals::Gone(sum.clone()));
        }
        labels
    }
}

/// Nobody counts in it any more: only who asks still holds it.
fn is_let_go<T>(cells: &Arc<T>) -> bool {
    Arc::strong_count(cells) == 1
}

/// Cells that count for a label.
pub(crate) enum RouteTotals {
    Route(Arc<RouteState>),
    /// The sum of some that are gone.
    Gone(Arc<PerWorker<RouteCells>>),
}

impl RouteTotals {
    pub(crate) fn cells(&self) -> &PerWorker<RouteCells> {
        match self {
            Self::Route(route) => &route.stats,
            Self::Gone(sum) => sum,
        }
    }
}

/// Totals of cells that may be replaced by others of the same name.
pub(crate) struct Totals<K, T>(BTreeMap<K, Total<T>>);

struct Total<T> {
    /// Those of now; `None` once nobody counts in them any more.
    cells: Option<Arc<T>>,
    /// What the cells before these had come to.
    before: Box<[u64]>,
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
            cells: None,
            before: Box::default(),
            seen: true,
        });
        let is_same = |known: &Arc<T>| Arc::ptr_eq(known, cells);
        if !total.cells.as_ref().is_some_and(is_same) {
            total.fold(&read);
            total.cells = Some(cells.clone());
        }
        total.seen = true;
        sum(read(cells), &total.before)
    }

    /// To be called after each scrape: keeps the bare numbers of what is gone, and forgets them once they are very many.
    pub(crate) fn prune(&mut self, read: impl Fn(&T) -> Vec<u64>) {
        let mut gone = 0;
        self.0.retain(|_, total| {
            if total.seen {
                return true;
            }
            gone += 1;
            if total.cells.as_ref().is_none_or(is_let_go) {
                total.fold(&read);
                // What never counted anything begins anew as well as it goes on.
                return total.before.iter().any(|number| *number > 0);
            }
            true
        });
        if gone > GONE_MAX {
            self.0.retain(|_, total| total.seen);
        }
        for total in self.0.values_mut() {
            total.seen = false;
        }
    }
}

impl<T> Total<T> {
    /// Lets go of the cells, whose numbers stay.
    fn fold(&mut self, read: impl Fn(&T) -> Vec<u64>) {
        if let Some(cells) = self.cells.take() {
            self.before = sum(read(&cells), &self.before).into();
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

    type Cells = Vec<u64>;

    fn read(cells: &Cells) -> Vec<u64> {
        cells.clone()
    }

    #[test]
    fn a_successor_goes_on_from_where_its_predecessor_was() {
        let mut totals: Totals<&str, Cells> = Totals::default();
        let (first, second) = (Arc::new(vec![5, 1]), Arc::new(vec![2, 0]));
        assert_eq!(totals.read("a", &first, read), [5, 1]);
        assert_eq!(totals.read("b", &second, read), [2, 0]);
        totals.prune(read);
        assert_eq!(totals.read("a", &second, read), [7, 1]);
        assert_eq!(totals.read("a", &second, read), [7, 1]);
    }

    #[test]
    fn cells_that_are_gone_are_freed_and_their_numbers_stay() {
        let mut totals: Totals<&str, Cells> = Totals::default();
        let (used, unused) = (Arc::new(vec![5, 1]), Arc::new(vec![0, 0]));
        let freed = [Arc::downgrade(&used), Arc::downgrade(&unused)];
        totals.read("used", &used, read);
        totals.read("unused", &unused, read);
        totals.prune(read);
        // It is gone, and its last requests still count in it.
        drop(unused);
        totals.prune(read);
        assert_eq!(freed[0].strong_count(), 2);
        drop(used);
        totals.prune(read);
        assert!(freed.iter().all(|cells| cells.strong_count() == 0));
        assert_eq!(totals.0.len(), 1);
        totals.prune(read);
        let next = Arc::new(vec![1, 1]);
        assert_eq!(totals.read("used", &next, read), [6, 2]);
        assert_eq!(totals.read("unused", &next, read), [1, 1]);
    }

    #[test]
    fn very_many_that_are_gone_are_forgotten() {
        let mut totals: Totals<usize, Cells> = Totals::default();
        let here = Arc::new(vec![1]);
        for name in 0..=GONE_MAX {
            totals.read(name, &Arc::new(vec![1]), read);
        }
        totals.prune(read);
        totals.read(usize::MAX, &here, read);
        totals.prune(read);
        assert_eq!(totals.0.len(), 1);
    }
}

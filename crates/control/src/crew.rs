//! The workers as they see one another: how many connections each has open, and who is away.
//!
//! The kernel deals connections out by a hash, which leaves some workers idle for hours when connections are few and
//! long. So a worker compares its load with others' when it has accepted one; what it then does about it is the
//! proxy's.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::metrics::{Counter, PerWorker};

/// Set in `coming` while a worker is away: its load then passes every other.
const AWAY: u32 = 1 << 31;
/// A connection goes to another worker only when that one has at least this many fewer, and one more for each
/// [`GAP_SHARE`] that it has.
const GAP: u32 = 2;
/// Handing over costs about two microseconds: not worth it for less than 3 % of the load.
const GAP_SHARE: u32 = 32;

/// What one worker carries.
#[derive(Debug, Default)]
pub struct WorkerLoad {
    /// Written by the worker alone.
    open: AtomicU32,
    /// Handed to it and not yet taken up; and [`AWAY`].
    coming: AtomicU32,
    /// Times that its thread did not answer. Written by the control thread alone, as is the next.
    pub stalls: Counter,
    /// Times that its thread ended and was replaced.
    pub deaths: Counter,
}

impl WorkerLoad {
    /// Counts a connection. Only its own worker may call this.
    pub fn opened(&self) {
        let open = self.open.load(Relaxed).wrapping_add(1);
        self.open.store(open, Relaxed);
    }

    /// Counts the end of a connection. Only its own worker may call this.
    pub fn closed(&self) {
        let open = self.open.load(Relaxed).saturating_sub(1);
        self.open.store(open, Relaxed);
    }

    /// Counts a connection that is on its way to this worker.
    pub fn announce(&self) {
        self.coming.fetch_add(1, Relaxed);
    }

    /// One that was announced has been taken up, here or by another.
    pub fn arrived(&self) {
        self.coming.fetch_sub(1, Relaxed);
    }

    /// Whether nothing is to be handed to this worker: its thread has ended, or does not answer.
    pub fn set_away(&self, away: bool) {
        if away {
            self.coming.fetch_or(AWAY, Relaxed);
        } else {
            self.coming.fetch_and(!AWAY, Relaxed);
        }
    }

    /// Whether its thread has ended, or does not answer.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.coming.load(Relaxed) & AWAY != 0
    }

    /// Connections that are open here or on their way.
    #[must_use]
    pub fn connections(&self) -> u32 {
        (self.coming.load(Relaxed) & !AWAY).saturating_add(self.open.load(Relaxed))
    }

    /// The same, as others weigh it.
    fn weighed(&self) -> u32 {
        self.coming
            .load(Relaxed)
            .saturating_add(self.open.load(Relaxed))
    }
}

/// What all workers carry.
pub type Crew = PerWorker<WorkerLoad>;

/// Which worker should have a connection that `own` has accepted; `None`: `own` itself. `turn` is any number that
/// moves on by one each time: three others are looked at, and in turn all. So up to four workers that get nothing but
/// long connections, one after another, differ by 2 at most. Workers that accept at the same moment do not see
/// what the others do just then: then it may be one more.
#[must_use]
pub fn better_worker(crew: &Crew, own: usize, turn: usize) -> Option<usize> {
    choose(crew.len(), own, turn, |worker| crew.of(worker).weighed())
}

fn choose(count: usize, own: usize, turn: usize, load: impl Fn(usize) -> u32) -> Option<usize> {
    let others = count.checked_sub(1).filter(|others| *others > 0)?;
    let mine = load(own);
    let look = |step: usize| load((own + 1 + (turn.wrapping_add(step)) % others) % count);
    let least = look(0).min(look(1)).min(look(2));
    if !is_worth(mine, least) {
        return None;
    }
    // Seldom: so the best is looked for among all.
    (0..count)
        .filter(|worker| *worker != own)
        .min_by_key(|worker| load(*worker))
}

fn is_worth(mine: u32, other: u32) -> bool {
    mine >= other.saturating_add(GAP + other / GAP_SHARE)
}

/// Which worker should look after what another left: the least loaded one that is not away; `None` when all are.
#[must_use]
pub fn stand_in(crew: &Crew, absent: usize) -> Option<usize> {
    (0..crew.len())
        .filter(|worker| *worker != absent && !crew.of(*worker).is_away())
        .min_by_key(|worker| crew.of(*worker).weighed())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Long-lived connections, each accepted by the worker that `arrivals` says.
    fn deal(count: usize, arrivals: impl IntoIterator<Item = usize>) -> Vec<u32> {
        let crew = Crew::new(count);
        let mut turns = vec![0; count];
        for arrival in arrivals {
            let own = arrival % count;
            let to = better_worker(&crew, own, turns[own]).unwrap_or(own);
            turns[own] += 1;
            crew.of(to).opened();
        }
        crew.iter().map(WorkerLoad::connections).collect()
    }

    fn difference(loads: &[u32]) -> u32 {
        loads.iter().max().unwrap() - loads.iter().min().unwrap()
    }

    #[test]
    fn what_one_worker_accepts_alone_is_spread_over_all() {
        for count in [2, 3, 4, 8, 64] {
            let loads = deal(count, std::iter::repeat_n(0, 16 * count));
            let bound = if count <= 4 { 2 } else { 3 };
            assert!(difference(&loads) <= bound, "{loads:?}");
        }
    }

    #[test]
    fn one_worker_keeps_all_and_who_is_away_gets_none() {
        assert_eq!(deal(1, [0; 10]), [10]);
        let crew = Crew::new(3);
        for _ in 0..20 {
            crew.of(0).opened();
        }
        crew.of(1).announce();
        crew.of(1).set_away(true);
        assert!(crew.of(1).is_away());
        assert_eq!(crew.of(1).connections(), 1);
        for turn in 0..6 {
            assert_eq!(better_worker(&crew, 0, turn), Some(2));
        }
        assert_eq!(stand_in(&crew, 2), Some(0));
        crew.of(1).arrived();
        crew.of(1).set_away(false);
        assert_eq!(crew.of(1).connections(), 0);
        assert_eq!(stand_in(&crew, 2), Some(1));
        for worker in 0..3 {
            crew.of(worker).set_away(true);
        }
        assert_eq!(stand_in(&crew, 2), None);
    }

    #[test]
    fn the_gap_grows_with_the_load() {
        for (mine, other, worth) in [
            (1, 0, false),
            (2, 0, true),
            (33, 31, true),
            (34, 32, false),
            (35, 32, true),
            (1030, 1000, false),
            (1033, 1000, true),
            (u32::MAX, u32::MAX, true),
        ] {
            assert_eq!(is_worth(mine, other), worth, "{mine} {other}");
        }
    }

    #[test]
    fn short_connections_that_the_kernel_deals_well_mostly_stay() {
        let crew = Crew::new(2);
        let (mut handed, mut open) = (0, std::collections::VecDeque::new());
        for turn in 0..10_000 {
            if open.len() == 64 {
                crew.of(open.pop_front().unwrap()).closed();
            }
            let own = turn % 2;
            let to = better_worker(&crew, own, turn).inspect(|_| handed += 1);
            crew.of(to.unwrap_or(own)).opened();
            open.push_back(to.unwrap_or(own));
        }
        assert_eq!(handed, 0);
    }

    proptest! {
        #[test]
        fn however_the_kernel_deals_sixteen_for_each_of_four_differ_by_two(
            arrivals in proptest::collection::vec(0_usize..4, 64),
        ) {
            let loads = deal(4, arrivals);
            prop_assert!(difference(&loads) <= 2, "{loads:?}");
        }

        #[test]
        fn with_many_workers_what_is_handed_goes_to_the_least_loaded(
            arrivals in proptest::collection::vec(0_usize..16, 0..600),
        ) {
            let crew = Crew::new(16);
            for (turn, own) in arrivals.into_iter().enumerate() {
                let to = better_worker(&crew, own, turn);
                if let Some(to) = to {
                    let least = crew.iter().map(WorkerLoad::connections).min();
                    prop_assert_eq!(Some(crew.of(to).connections()), least);
                    prop_assert!(crew.of(own).connections() >= crew.of(to).connections() + GAP);
                }
                crew.of(to.unwrap_or(own)).opened();
            }
        }
    }
}

//! The workers as they see one another: how many connections each has open, and who is away.
//!
//! The kernel deals connections out by a hash, which leaves some workers idle for hours when connections are few and
//! long. So a worker compares its load with others' when it has accepted one; what it then does about it is the
//! proxy's.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::metrics::{Counter, PerWorker};

/// Set while a worker is away: its load then passes every other.
const AWAY: u32 = 1 << 31;
/// A connection goes to another worker only when that one has at least this many fewer, and one more for each
/// [`GAP_SHARE`] that it has.
const GAP: u32 = 2;
/// Handing over costs about two microseconds: not worth it for less than 3 % of the load.
const GAP_SHARE: u32 = 32;
/// How often a choice is made again because others chose at the same moment.
const CHOICES_MAX: usize = 8;

/// What one worker carries.
#[derive(Debug, Default)]
pub struct WorkerLoad {
    /// Connections that are open here or on their way; and [`AWAY`].
    load: AtomicU32,
    /// Times that its thread did not answer. Written by the control thread alone, as is the next.
    pub stalls: Counter,
    /// Times that its thread ended and was replaced.
    pub deaths: Counter,
}

impl WorkerLoad {
    /// Counts a connection that this worker has, or is about to be given; what it carried before, as others weigh it.
    pub fn claim(&self) -> u32 {
        self.load.fetch_add(1, Relaxed)
    }

    /// Takes a [`claim`](Self::claim) back: the connection has ended, or is another's.
    pub fn release(&self) {
        self.load.fetch_sub(1, Relaxed);
    }

    /// Whether nothing is to be handed to this worker: its thread has ended, or does not answer.
    pub fn set_away(&self, away: bool) {
        if away {
            self.load.fetch_or(AWAY, Relaxed);
        } else {
            self.load.fetch_and(!AWAY, Relaxed);
        }
    }

    /// Whether its thread has ended, or does not answer.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.load.load(Relaxed) & AWAY != 0
    }

    /// Connections that are open here or on their way.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.load.load(Relaxed) & !AWAY
    }

    /// The same, as others weigh it.
    fn weighed(&self) -> u32 {
        self.load.load(Relaxed)
    }
}

/// What all workers carry.
pub type Crew = PerWorker<WorkerLoad>;

/// Which worker is to have a connection that `own` has accepted; it is [claimed](WorkerLoad::claim) there. `turn` is any
/// number that moves on by one each time: three others are looked at, and in turn all. So up to four workers that get
/// nothing but long connections differ by 2 at most: those that choose at the same moment see it by what their claims
/// return, and who would make it more chooses again.
#[must_use]
pub fn place(crew: &Crew, own: usize, turn: usize) -> usize {
    let weighed = |worker: usize| crew.of(worker).weighed();
    for again in 0..CHOICES_MAX {
        let (to, seen) = choose(crew.len(), own, turn.wrapping_add(again), weighed);
        let load = crew.of(to);
        let before = load.claim();
        if before <= seen {
            return to;
        }
        let others = (0..crew.len()).filter(|worker| *worker != to);
        let least = others.map(weighed).min().unwrap_or(before);
        if !is_worth(before, least) {
            return to;
        }
        load.release();
    }
    crew.of(own).claim();
    own
}

/// The worker to have it, and what it carries.
fn choose(count: usize, own: usize, turn: usize, load: impl Fn(usize) -> u32) -> (usize, u32) {
    let mine = load(own);
    let stays = (own, mine);
    let Some(others) = count.checked_sub(1).filter(|others| *others > 0) else {
        return stays;
    };
    let look = |step: usize| load((own + 1 + (turn.wrapping_add(step)) % others) % count);
    let least = look(0).min(look(1)).min(look(2));
    if !is_worth(mine, least) {
        return stays;
    }
    // Seldom: so the best is looked for among all.
    (0..count)
        .filter(|worker| *worker != own)
        .map(|worker| (worker, load(worker)))
        .min_by_key(|(_, load)| *load)
        .unwrap_or(stays)
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
            let _ = place(&crew, own, turns[own]);
            turns[own] += 1;
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
            crew.of(0).claim();
        }
        crew.of(1).claim();
        crew.of(1).set_away(true);
        assert!(crew.of(1).is_away());
        assert_eq!(crew.of(1).connections(), 1);
        for turn in 0..6 {
            assert_eq!(place(&crew, 0, turn), 2);
        }
        assert_eq!(stand_in(&crew, 0), Some(2));
        assert_eq!(stand_in(&crew, 2), Some(0));
        crew.of(1).release();
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
                crew.of(open.pop_front().unwrap()).release();
            }
            let own = turn % 2;
            let to = place(&crew, own, turn);
            handed += u32::from(to != own);
            open.push_back(to);
        }
        assert_eq!(handed, 0);
    }

    #[test]
    fn workers_that_accept_at_the_same_moment_differ_by_two() {
        for round in 0..500 {
            let crew = Crew::new(4);
            let together = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for own in 0..4 {
                    let (crew, together) = (&crew, &together);
                    // The kernel deals unevenly: 28, 20, 12 and 4.
                    let share = 28 - 8 * ((own + round) % 4);
                    scope.spawn(move || {
                        together.wait();
                        for turn in 0..share {
                            let _ = place(crew, own, turn);
                        }
                    });
                }
            });
            let loads: Vec<u32> = crew.iter().map(WorkerLoad::connections).collect();
            assert_eq!(loads.iter().sum::<u32>(), 64);
            assert!(difference(&loads) <= 2, "{loads:?}");
        }
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
                let least = crew.iter().map(WorkerLoad::connections).min();
                let to = place(&crew, own, turn);
                if to != own {
                    let before = crew.of(to).connections() - 1;
                    prop_assert_eq!(Some(before), least);
                    prop_assert!(crew.of(own).connections() >= before + GAP);
                }
            }
        }
    }
}

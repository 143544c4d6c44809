//! Least connections above 64 servers, where each worker goes by its own view of the counts.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[test]
fn what_one_worker_fills_is_level() {
    for n in [65, 100, 1000] {
        let mut pool = Pool::new(Algorithm::LeastConnections, &vec![1; n]);
        for _ in 0..5 * n {
            let index = pool.pick(0).unwrap();
            pool.hold(index, 1);
        }
        assert!(
            (0..n).all(|index| pool.server(index).in_use() == 5),
            "{n} servers"
        );
    }
}

#[test]
fn an_idle_server_is_found_within_n_eighths_picks() {
    let mut pool = Pool::new(Algorithm::LeastConnections, &[1; 400]);
    pool.pick(0);
    for index in 0..400 {
        pool.hold(index, 10);
    }
    for _ in 0..10 {
        pool.server(399).release();
    }
    let found = (0..50).position(|_| pool.pick(0) == Some(399));
    assert!(found.is_some(), "400 servers, 8 read again at each pick");
}

#[test]
fn one_worker_serves_many_large_pools() {
    let mut local = Local::new(1);
    let pools: Vec<_> = (0..40)
        .map(|pool| Pool::new(Algorithm::LeastConnections, &vec![1; 70 + pool]))
        .collect();
    for _ in 0..3 {
        for pool in &pools {
            let index = pool
                .view
                .pick(&pool.rotation, &mut local, None, &[], pool.now)
                .unwrap();
            pool.hold(index, 1);
        }
    }
    for pool in &pools {
        assert!((0..pool.view.len()).all(|index| pool.server(index).in_use() <= 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// The stated bound: whom a worker picks has no more requests in use per weight than any other
    /// server had at some time within the last n/8 of its picks, whatever other workers do.
    #[test]
    fn counts_compared_are_at_most_n_eighths_picks_old(
        weights in prop::collection::vec(1_u32..=5, 65..300),
        others in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1200),
    ) {
        let n = weights.len();
        let mut pool = Pool::new(Algorithm::LeastConnections, &weights);
        let load = |pool: &Pool, index: usize| {
            f64::from(pool.server(index).in_use()) / f64::from(weights[index])
        };
        let loads = |pool: &Pool| (0..n).map(|index| load(pool, index)).collect::<Vec<_>>();
        // Two entries for each pick: before it, and once its request is held.
        let mut past = VecDeque::new();
        for step in others.chunks(4) {
            past.push_back(loads(&pool));
            if past.len() > 2 * n.div_ceil(8) + 1 {
                past.pop_front();
                past.pop_front();
            }
            let picked = pool.pick(0).unwrap();
            let mine = load(&pool, picked);
            for index in 0..n {
                let most = past.iter().map(|loads| loads[index]).fold(0.0, f64::max);
                prop_assert!(mine <= most, "{picked} at {mine}, {index} never above {most}");
            }
            pool.hold(picked, 1);
            past.push_back(loads(&pool));
            for (index, more) in step {
                let index = index.index(n);
                if *more { pool.hold(index, 1) } else { pool.server(index).release(); }
            }
        }
    }
}

//! Many stories, drawn from seeds. `EVENKEEL_SEED=7` plays one, with a line for everything that happens;
//! `EVENKEEL_SEEDS=100000` plays as many.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::{iter, thread};

/// How many in every run of the tests: ten seconds in a debug build on two cores.
const SEEDS: u64 = 2000;

#[expect(
    clippy::disallowed_methods,
    reason = "a test may be told which seed to play"
)]
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a seed is a number"))
}

#[test]
fn whatever_befalls_a_pool_the_rules_hold() {
    if let Some(seed) = number("EVENKEEL_SEED") {
        let scenario = evenkeel_sim::Scenario::from_seed(seed);
        let report = evenkeel_sim::trace(&scenario);
        println!("seed {seed}: {scenario}{report}");
        assert!(report.violations.is_empty(), "see above");
        return;
    }
    let failed = failures(number("EVENKEEL_SEEDS").unwrap_or(SEEDS));
    let first: Vec<_> = failed.values().take(5).map(String::as_str).collect();
    assert!(
        failed.is_empty(),
        "{} seeds failed; the first:\n{}",
        failed.len(),
        first.join("\n")
    );
}

/// What went wrong, by its seed. Stories have nothing in common: each thread plays the next one.
fn failures(seeds: u64) -> BTreeMap<u64, String> {
    let next = AtomicU64::new(0);
    let play = || {
        let seeds =
            iter::repeat_with(|| next.fetch_add(1, Relaxed)).take_while(|seed| *seed < seeds);
        let played = seeds.map(|seed| {
            (
                seed,
                evenkeel_sim::run(&evenkeel_sim::Scenario::from_seed(seed)),
            )
        });
        let failed = played.filter(|(_, report)| !report.violations.is_empty());
        failed
            .map(|(seed, report)| (seed, report.to_string()))
            .collect::<Vec<_>>()
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let players: Vec<_> = (0..threads).map(|_| scope.spawn(play)).collect();
        let failed = players
            .into_iter()
            .map(|player| player.join().expect("a story panicked"));
        failed.flatten().collect()
    })
}

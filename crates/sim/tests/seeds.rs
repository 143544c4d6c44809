//! Many stories, drawn from seeds. `EVENKEEL_SEED=7` plays one, with a line for everything that happens;
//! `EVENKEEL_SEEDS=100000` plays as many.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use std::{iter, thread};

use evenkeel_sim::Scenario;

/// What every run of the tests plays: the stories of so many seeds, about twenty seconds of one core in a debug build.
const SEEDS: u64 = 12_000;
/// And the long ones among so many, which are 2,000.
const SEEDS_LONG: u64 = 32_000;

/// An eighth of the time goes into memory: as the product, so its simulator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(
    clippy::disallowed_methods,
    reason = "a test may be told which seed to play"
)]
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a seed is a number"))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test may say how long it took")]
fn whatever_befalls_a_pool_the_rules_hold() {
    if let Some(seed) = number("EVENKEEL_SEED") {
        let scenario = Scenario::from_seed(seed);
        let report = evenkeel_sim::trace(&scenario);
        println!("seed {seed}: {scenario}{report}");
        assert!(report.violations.is_empty(), "see above");
        return;
    }
    let seeds: Vec<u64> = match number("EVENKEEL_SEEDS") {
        Some(seeds) => (0..seeds).collect(),
        None => (0..SEEDS_LONG)
            .filter(|seed| *seed < SEEDS || Scenario::is_long(*seed))
            .collect(),
    };
    let began = Instant::now();
    let failed = failures(&seeds);
    let took = began.elapsed().as_secs_f64();
    println!(
        "{} stories in {took:.1} s on {} threads: {:.0} a second",
        seeds.len(),
        threads(),
        seeds.len() as f64 / took
    );
    let first: Vec<_> = failed.values().take(5).map(String::as_str).collect();
    assert!(
        failed.is_empty(),
        "{} seeds failed; the first:\n{}",
        failed.len(),
        first.join("\n")
    );
}

/// A hedged request whose kept answer was taken back by its deadline never ended (the first five); a backup that came and
/// went with the ejections of the servers before it was judged to waver (the sixth); a hedged request whose first try was
/// given up went to the server that had it already (three); a bound request was hedged here, though nobody does that; a
/// ten thousandth went to another zone for a rounding.
#[test]
fn stories_that_failed_once_hold() {
    let failed = failures(&[
        19_450, 32_916, 36_437, 39_963, 46_174, 74_879, 52, 76, 90, 21_388, 23_172,
    ]);
    assert!(failed.is_empty(), "{failed:#?}");
}

/// What went wrong, by its seed. Stories have nothing in common: each thread plays the next one.
fn failures(seeds: &[u64]) -> BTreeMap<u64, String> {
    let next = AtomicUsize::new(0);
    let play = || {
        let seeds = iter::from_fn(|| seeds.get(next.fetch_add(1, Relaxed)).copied());
        let played = seeds.map(|seed| (seed, evenkeel_sim::run(&Scenario::from_seed(seed))));
        let failed = played.filter(|(_, report)| !report.violations.is_empty());
        failed
            .map(|(seed, report)| (seed, report.to_string()))
            .collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let players: Vec<_> = (0..threads()).map(|_| scope.spawn(play)).collect();
        let failed = players
            .into_iter()
            .map(|player| player.join().expect("a story panicked"));
        failed.flatten().collect()
    })
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

//! Many stories, drawn from seeds. `EVENKEEL_SEED=7` plays one, with a line for everything that happens;
//! `EVENKEEL_SEEDS=100000` plays as many.

/// How many in every run of the tests: ten seconds in a debug build.
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
    let mut failed = Vec::new();
    for seed in 0..number("EVENKEEL_SEEDS").unwrap_or(SEEDS) {
        let report = evenkeel_sim::run(&evenkeel_sim::Scenario::from_seed(seed));
        if !report.violations.is_empty() {
            failed.push(report.to_string());
        }
    }
    let first: Vec<_> = failed.iter().take(5).map(String::as_str).collect();
    assert!(
        failed.is_empty(),
        "{} seeds failed; the first:\n{}",
        failed.len(),
        first.join("\n")
    );
}

//! `cargo xtask ci`: every check in order, all of them even when one fails, and at the end the
//! seconds that each took. Installing programs is the duty of `./test`.

use crate::{bench, fuzz, shell, tidy};
use anyhow::{Result, ensure};
use std::env;
use std::process::Command;
use std::time::{Duration, Instant};

struct Step {
    name: &'static str,
    took: Duration,
    well: bool,
}

pub(crate) fn run() -> Result<()> {
    let mut steps = Vec::new();
    step(&mut steps, "fmt", || {
        cargo(&["fmt", "--all", "--", "--check"], &[])
    });
    step(&mut steps, "clippy", || {
        cargo(
            &[
                "clippy",
                "--locked",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
            &[],
        )
    });
    step(&mut steps, "tidy", || report(tidy::rules()));
    step(&mut steps, "doc", || {
        cargo(
            &["doc", "--locked", "--no-deps", "--workspace"],
            &[("RUSTDOCFLAGS", "-D warnings")],
        )
    });
    step(&mut steps, "test", || {
        cargo(&["test", "--locked", "--workspace", "--no-fail-fast"], &[])
    });
    step(&mut steps, "model", || report(model()));
    step(&mut steps, "fuzz", || report(fuzz::check()));
    // After the tests, which have built the binary that is asked.
    step(&mut steps, "reference", || report(tidy::reference()));
    step(&mut steps, "count", || report(count()));

    println!("\n{:<12}{:>9}", "step", "seconds");
    for Step { name, took, well } in &steps {
        let verdict = if *well { "" } else { "  FAILED" };
        println!("{name:<12}{:>9.1}{verdict}", took.as_secs_f64());
    }
    let total: Duration = steps.iter().map(|step| step.took).sum();
    println!("{:<12}{:>9.1}", "total", total.as_secs_f64());

    let failed: Vec<_> = steps
        .iter()
        .filter(|step| !step.well)
        .map(|step| step.name)
        .collect();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// Every order of the steps of threads that share a queue.
pub(crate) fn model() -> Result<()> {
    let manifest = ["--manifest-path", "model/Cargo.toml"];
    let target = ["--target-dir", "target/model"];
    let well = cargo(
        &[&["test", "--locked"], &manifest[..], &target].concat(),
        &[],
    );
    ensure!(well, "a model failed");
    Ok(())
}

/// Instructions of our own work, beside their baseline.
fn count() -> Result<()> {
    let missing = env::var("EVENKEEL_TEST_MISSING").unwrap_or_default();
    if missing.split_whitespace().any(|name| name == "valgrind") {
        println!("!!!! SKIPPED: counting instructions needs valgrind");
        return Ok(());
    }
    bench::run(&["count"], &[])
}

fn step(steps: &mut Vec<Step>, name: &'static str, check: impl FnOnce() -> bool) {
    println!("\n==== {name}");
    let started = Instant::now();
    let well = check();
    let took = started.elapsed();
    steps.push(Step { name, took, well });
}

fn cargo(args: &[&str], env: &[(&str, &str)]) -> bool {
    let mut command: Command = shell::cargo();
    command.args(args).envs(env.iter().copied());
    command.status().is_ok_and(|status| status.success())
}

fn report(outcome: Result<()>) -> bool {
    if let Err(error) = &outcome {
        println!("{error:#}");
    }
    outcome.is_ok()
}

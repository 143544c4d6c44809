//! The harness of the benchmark: starts the proxies side by side, lays the same load on each, and reports what a
//! request costs. `cargo xtask bench` builds what it needs and runs it. It measures; what it finds is for people to
//! judge.

#![forbid(unsafe_code)]

mod counts;
mod door;
mod grpc;
mod load;
mod machine;
mod measure;
mod options;
mod peers;
mod process;
mod report;
mod results;
mod run;
mod scale;
mod scenario;
mod svg;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use options::{Options, USAGE};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let started = Instant::now();
    let outcome = match args.as_slice() {
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        ["--list"] => {
            for scenario in scenario::all() {
                println!("{:<14}{}", scenario.name, scenario.about);
            }
            return ExitCode::SUCCESS;
        }
        ["--scale"] => scale::run(true, root()).and_then(|()| rewrite_page()),
        ["--scale", "--no-record"] => scale::run(false, root()),
        ["count", options @ ..] => counts::run(options, root()),
        options => bench(options),
    };
    println!("{:.0} s in all", started.elapsed().as_secs_f64());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    let results = run::run(&options)?;
    report::show(&results);
    if options.record {
        let known = run::recorded(&root().join("bench/results/latest.json"));
        let scenarios = scenario::all();
        let names: Vec<_> = scenarios.iter().map(|scenario| scenario.name).collect();
        let all = match known {
            Some(known) => known.merge(results, &names),
            None => results,
        };
        report::record(&all, root())?;
    }
    Ok(())
}

/// Puts new figures on scale beside those of the last run.
fn rewrite_page() -> Result<()> {
    match run::recorded(&root().join("bench/results/latest.json")) {
        Some(known) => report::write_page(&known, root()),
        None => Ok(()),
    }
}

/// The folder of the workspace.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

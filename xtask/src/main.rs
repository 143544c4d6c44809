//! Chores of the project: what a person would otherwise repeat by hand. Each has a module; this
//! file only knows their names. What they check belongs to the rooms, how it is checked is here.

#![forbid(unsafe_code)]

mod bench;
mod ci;
mod fuzz;
mod reliability;
mod shell;
mod stress;
mod tidy;

use anyhow::{Result, bail};
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask CHORE

  tidy               room rules: dependency arrows, unsafe, lint exceptions, sizes, licences, docs
  ci                 what ./test runs: fmt, clippy, tidy, doc, test, model, fuzz targets, with the seconds of each
  model              every order of the steps of threads that share a queue, by loom
  fuzz [NAME]… [--seconds 60]
                     runs fuzz targets, all or these, by libFuzzer; needs a C++ compiler
  stress NAME [-p CRATE] [--runs 20] [--limit SECONDS]
                     runs one test again and again beside a CPU hog on every core
  bench [--quick] [--scenario NAME,…] [--peer NAME,…] [--scale]
                     CPU per request beside other proxies; more by `bench --help`
  count [NAME]… [--bless]
                     instructions by callgrind of our own work, beside the baseline
  reliability [--quick] [--only NAME]… [--binary PATH] [--out FILE] [--list]
                     faults on purpose under load, and what they cost; writes docs/reliability.md
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match chore(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn chore(args: &[&str]) -> Result<()> {
    match args {
        ["tidy"] => tidy::run(),
        ["ci"] => ci::run(),
        ["model"] => ci::model(),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["bench", rest @ ..] => bench::run(&[], rest),
        ["count", rest @ ..] => bench::run(&["count"], rest),
        ["reliability", rest @ ..] => reliability::run(rest),
        ["stress", rest @ ..] => stress::run(rest),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        other => bail!("no such chore: {}\n\n{USAGE}", other.join(" ")),
    }
}

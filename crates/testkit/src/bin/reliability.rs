//! The command behind `cargo xtask reliability`: runs the scenarios, prints each one's counts, and
//! writes the page. Exit code 1 when a promise was broken or a scenario could not be carried
//! through.

use anyhow::{Context, Result, bail, ensure};
use evenkeel_testkit::program;
use evenkeel_testkit::reliability::{Outcome, Scenario, Stage, document, line};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const USAGE: &str = "\
cargo xtask reliability [--quick] [--only NAME]… [--binary PATH] [--out FILE] [--list]

  --quick     the short form of each, 2 minutes at most in all (else 10)
  --only      this scenario; may be given again
  --binary    the evenkeel to try; else the release binary, built first
  --out       where the page goes; else docs/reliability.md for the whole run, and nowhere for
              --quick and --only
  --list      the scenarios
";

/// Set for the run of this program inside a network namespace of its own.
const INSIDE: &str = "EVENKEEL_RELIABILITY_INSIDE";

#[derive(Default)]
struct Options {
    quick: bool,
    list: bool,
    only: Vec<&'static Scenario>,
    binary: Option<PathBuf>,
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every promise was held.
fn run() -> Result<bool> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let options = Options::parse(&args)?;
    if options.list {
        for Scenario { name, fault, .. } in Scenario::all() {
            println!("{name:<16} {fault}");
        }
        return Ok(true);
    }
    if std::env::var_os(INSIDE).is_none() && can_have_own_network() {
        return run_in_own_network(&args);
    }
    let stage = Stage {
        binary: options.binary.clone().context("--binary is needed")?,
        quick: options.quick,
        in_own_network: std::env::var_os(INSIDE).is_some(),
    };
    let (rows, well) = run_all(&options, &stage);
    if let Some(out) = options.out() {
        std::fs::write(&out, document(&rows, &machine()))?;
        println!("\nwritten: {}", out.display());
    }
    Ok(well)
}

fn run_all(options: &Options, stage: &Stage) -> (Vec<(&'static Scenario, Outcome)>, bool) {
    let limit = Duration::from_secs(if options.quick { 120 } else { 600 });
    let (started, mut rows, mut faults) = (Instant::now(), Vec::new(), Vec::new());
    for scenario in options.scenarios() {
        let name = scenario.name;
        if started.elapsed() > limit {
            faults.push(format!("{name}: not run, {limit:?} are over"));
            continue;
        }
        if let Some(missing) = missing(scenario, stage) {
            faults.push(format!("{name}: NOT RUN: {missing}"));
            println!("{name:<16} NOT RUN: {missing}");
            continue;
        }
        let began = Instant::now();
        match scenario.run(stage) {
            Ok(outcome) => {
                println!(
                    "{} [{:.1} s]",
                    line(scenario, &outcome),
                    began.elapsed().as_secs_f64()
                );
                if !outcome.broken.is_empty() {
                    faults.push(format!("{name}: a promise was broken"));
                }
                rows.push((scenario, outcome));
            }
            Err(error) => {
                println!("{name:<16} FAILED: {error:#}");
                faults.push(format!("{name}: failed"));
            }
        }
    }
    println!(
        "\n{} scenarios in {:.0} s",
        rows.len(),
        started.elapsed().as_secs_f64()
    );
    for fault in &faults {
        println!("!!!! {fault}");
    }
    (rows, faults.is_empty())
}

/// What a scenario needs and this machine does not have.
fn missing(scenario: &Scenario, stage: &Stage) -> Option<String> {
    if let Some(name) = scenario
        .programs
        .iter()
        .find(|name| program(name).is_none())
    {
        return Some(format!(
            "{name} is missing (./test installs what Debian has)"
        ));
    }
    let refused = scenario.own_network && !stage.in_own_network;
    refused.then(|| "`unshare --map-root-user --net` is refused here".to_owned())
}

fn unshare() -> Option<Command> {
    let mut command = Command::new(program("unshare")?);
    command.args(["--map-root-user", "--net", "--"]);
    Some(command)
}

fn can_have_own_network() -> bool {
    let Some(mut command) = unshare() else {
        return false;
    };
    let tried = command.args(["ip", "link", "set", "lo", "up"]).output();
    tried.is_ok_and(|tried| tried.status.success())
}

/// Runs this program again where nothing but it has a network.
fn run_in_own_network(args: &[String]) -> Result<bool> {
    let mut command = unshare().context("unshare is not installed")?;
    command.args(["sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]);
    command.arg(std::env::current_exe()?).args(args);
    Ok(command.env(INSIDE, "1").status()?.success())
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = kernel
        .trim()
        .split('-')
        .next()
        .unwrap_or_default()
        .to_owned();
    format!("Last run: {cores} cores, Linux {release}.")
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg {
                "--quick" => options.quick = true,
                "--list" => options.list = true,
                "--binary" => options.binary = Some(PathBuf::from(value()?).canonicalize()?),
                "--out" => options.out = Some(value()?.into()),
                "--only" => {
                    let name = value()?;
                    let found = Scenario::named(name);
                    let found =
                        found.with_context(|| format!("no scenario {name:?}: see --list"))?;
                    options.only.push(found);
                }
                _ => bail!("what is {arg:?}?\n\n{USAGE}"),
            }
        }
        let all = options.out.is_none() || options.only.is_empty();
        ensure!(all, "--out is for all scenarios, --only for some");
        Ok(options)
    }

    fn scenarios(&self) -> Vec<&'static Scenario> {
        match self.only.as_slice() {
            [] => Scenario::all().collect(),
            only => only.to_vec(),
        }
    }

    fn out(&self) -> Option<PathBuf> {
        let whole = !self.quick && self.only.is_empty();
        self.out
            .clone()
            .or_else(|| whole.then(|| "docs/reliability.md".into()))
    }
}

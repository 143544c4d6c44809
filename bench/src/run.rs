//! A whole run: each scenario, its subjects in turn, round by round, so that what disturbs the machine for a while
//! disturbs all of them; then once more at a fixed rate.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::load::Loads;
use crate::machine::{self, Machine};
use crate::measure::{Bench, Origin, Sample};
use crate::options::Options;
use crate::peers::{Found, Peer, Setup};
use crate::process::Cores;
use crate::results::{Outcome, Results, Subject};
use crate::scenario::{ALGORITHMS, Load, Scenario, Shape, Subjects};

/// Servers of a scenario that says nothing else.
const SERVERS: usize = 3;
const MANY_SERVERS: usize = 1_000;
/// The fixed rate, as a share of what the slowest subject reached.
const FIXED_SHARE: f64 = 0.4;
/// For each connection of a client a proxy needs two files, HAProxy some more for its pipes.
const FILES_PER_CONNECTION: u64 = 3;
/// Above this share of all cores the machine is not ours alone.
const BUSY_SHARE: f64 = 0.05;
/// A run ends after this much more than it should have taken.
const OVERTIME: f64 = 1.5;
const OVERTIME_AT_LEAST: Duration = Duration::from_secs(60);

/// Who is measured, with what has come of it so far.
struct Entry {
    found: Found,
    setup: Setup,
    subject: Subject,
    /// Its rounds at the fixed rate, until they join those at full speed.
    fixed: Vec<Sample>,
}

/// All that lives through a run.
struct Run<'a> {
    options: &'a Options,
    commit: String,
    bench: Bench,
    found: Vec<Result<Found, (Peer, String)>>,
    few: Origin,
    deadline: Instant,
}

/// Measures everything that the options ask for.
pub(crate) fn run(options: &Options) -> Result<Results> {
    let cores = Cores::choose()?;
    if cores.proxy == cores.load {
        println!("one core only: the load disturbs what it measures");
    }
    // Before the servers start, which inherit it.
    let machine = Machine::describe();
    warn_if_busy(&machine);
    let files = options.scenarios.iter().map(files_needed).max();
    machine::raise_open_files(files.unwrap_or(0));
    let folder = std::env::temp_dir().join(format!("evenkeel-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let _swept = Sweep(folder.clone());
    let loads = Loads::find(cores.load, &folder)?;
    let bench = Bench {
        cores,
        loads,
        folder,
        warm: options.warm,
        measure: options.measure,
    };
    let found = find(options);
    let few = bench.origin(SERVERS, false)?;
    let expected = options.expected();
    println!(
        "{} scenarios, {} peers, {} rounds of {:?}: about {} s",
        options.scenarios.len(),
        found.len(),
        options.rounds,
        options.measure,
        expected.as_secs()
    );
    let limit = expected.mul_f64(OVERTIME).max(expected + OVERTIME_AT_LEAST);
    let mut run = Run {
        commit: machine.commit.clone(),
        options,
        bench,
        found,
        few,
        deadline: Instant::now() + limit,
    };
    let mut results = Results {
        machine,
        scenarios: Vec::new(),
    };
    for scenario in &options.scenarios {
        results.scenarios.push(run.scenario(scenario)?);
    }
    Ok(results)
}

/// The peers that any scenario needs.
fn find(options: &Options) -> Vec<Result<Found, (Peer, String)>> {
    let has_peers = |scenario: &Scenario| scenario.subjects == Subjects::Peers;
    let needed = match options.scenarios.iter().any(has_peers) {
        true => options.peers.as_slice(),
        false => &[Peer::Evenkeel],
    };
    let find = |peer: &Peer| {
        let found = peer.find();
        found.map_err(|error| {
            println!("{}: missing: {error:#}", peer.name());
            (*peer, format!("missing: {error:#}"))
        })
    };
    needed.iter().map(find).collect()
}

/// Says so if others use the machine: then the figures are worth little.
fn warn_if_busy(machine: &Machine) {
    if machine.busy > BUSY_SHARE {
        let percent = machine.busy * 100.0;
        println!("!!!! others use {percent:.0} % of this machine: the figures are worth little");
    }
}

fn files_needed(scenario: &Scenario) -> u64 {
    scenario.connections() as u64 * FILES_PER_CONNECTION + 3_000
}

impl Run<'_> {
    fn scenario(&mut self, scenario: &Scenario) -> Result<Outcome> {
        println!("{}: {}", scenario.name, scenario.about);
        let many = match scenario.subjects {
            Subjects::Algorithms => Some(self.bench.origin(MANY_SERVERS, true)?),
            _ => None,
        };
        let (mut entries, absent) = self.entries(scenario, many.as_ref())?;
        if machine::open_files() < files_needed(scenario) {
            let why = format!("left out: {} open files are needed", files_needed(scenario));
            println!("  {why}");
            entries
                .iter_mut()
                .for_each(|entry| entry.subject.notes.push(why.clone()));
        } else {
            self.full_speed(scenario, &mut entries);
            if let Load::Requests(shape) = &scenario.load {
                self.system_calls(shape, &mut entries);
                if scenario.legs() > 1 && !self.options.quick {
                    self.fixed_rate(shape, &mut entries);
                }
            }
        }
        let measured = entries.into_iter().map(|entry| entry.subject);
        Ok(Outcome {
            name: scenario.name.into(),
            about: scenario.about.into(),
            target: scenario.target,
            seconds: self.options.measure.as_secs_f64(),
            rounds: self.options.rounds,
            commit: self.commit.clone(),
            subjects: measured.chain(absent).collect(),
        })
    }

    /// Who takes part, and who is absent and why.
    fn entries(
        &self,
        scenario: &Scenario,
        many: Option<&Origin>,
    ) -> Result<(Vec<Entry>, Vec<Subject>)> {
        if let Some(many) = many {
            let evenkeel = Peer::Evenkeel.find()?;
            let pair = |algorithm: &'static str| {
                [&self.few, many].map(|origin| {
                    let label = |count| format!("{algorithm}/{count}");
                    let setup = self.bench.setup(scenario, &origin.servers, algorithm);
                    entry(
                        &evenkeel,
                        setup,
                        label(origin.servers.len()),
                        label(SERVERS),
                    )
                })
            };
            return Ok((
                ALGORITHMS.iter().copied().flat_map(pair).collect(),
                Vec::new(),
            ));
        }
        let (mut entries, mut absent) = (Vec::new(), Vec::new());
        for found in &self.found {
            let found = match found {
                Ok(found) => found,
                Err((peer, why)) => {
                    absent.push(subject(
                        peer.name().into(),
                        String::new(),
                        vec![why.clone()],
                    ));
                    continue;
                }
            };
            if scenario.subjects == Subjects::Alone && found.peer != Peer::Evenkeel {
                continue;
            }
            let mut setup = self.bench.setup(scenario, &self.few.servers, "round_robin");
            let label = found.peer.name().to_owned();
            setup.folder = setup.folder.join(&label);
            match found.lay_out(&setup) {
                Ok(_) => entries.push(entry(found, setup, label, Peer::Haproxy.name().into())),
                Err(why) => {
                    absent.push(subject(label, found.version.clone(), vec![why.to_string()]))
                }
            }
        }
        Ok((entries, absent))
    }

    fn full_speed(&self, scenario: &Scenario, entries: &mut [Entry]) {
        self.rounds(entries, |entry| {
            let sample = self.bench.round(&entry.found, &entry.setup, &scenario.load);
            let sample = sample.unwrap_or_else(|error| entry.failed(&error));
            entry.subject.samples.push(sample);
        });
    }

    /// What was measured at full speed and at the fixed rate in the same round becomes one sample.
    fn fixed_rate(&self, shape: &Shape, entries: &mut [Entry]) {
        let rates = entries
            .iter()
            .filter_map(|entry| entry.subject.spread("rate"));
        let Some(slowest) = rates.map(|rate| rate.median).min_by(f64::total_cmp) else {
            return;
        };
        let rate = (slowest * FIXED_SHARE).max(1.0);
        println!("  at {rate:.0} requests/s");
        self.rounds(entries, |entry| {
            let sample = self
                .bench
                .fixed_round(&entry.found, &entry.setup, shape, rate);
            let sample = sample.unwrap_or_else(|error| entry.failed(&error));
            entry.fixed.push(sample);
        });
        for entry in entries {
            for (whole, fixed) in entry.subject.samples.iter_mut().zip(entry.fixed.drain(..)) {
                whole.extend(fixed);
            }
        }
    }

    fn system_calls(&self, shape: &Shape, entries: &mut [Entry]) {
        for entry in entries {
            match self.bench.system_calls(&entry.found, &entry.setup, shape) {
                Ok(count) => {
                    if let Some(sample) = entry.subject.samples.first_mut() {
                        sample.insert("syscalls".into(), count);
                    }
                }
                Err(error) => entry.note(format!("system calls not counted: {error:#}")),
            }
        }
    }

    /// All rounds, each beginning with another subject.
    fn rounds(&self, entries: &mut [Entry], mut measure: impl FnMut(&mut Entry)) {
        for round in 0..self.options.rounds {
            let count = entries.len();
            for at in 0..count {
                let entry = &mut entries[(at + round) % count];
                if Instant::now() > self.deadline {
                    entry.note("cut short: the run took too long".into());
                } else {
                    measure(entry);
                }
            }
        }
    }
}

impl Entry {
    /// An empty sample keeps the rounds of all subjects in step.
    fn failed(&mut self, error: &anyhow::Error) -> Sample {
        self.note(format!("failed: {error:#}"));
        Sample::new()
    }

    fn note(&mut self, note: String) {
        if !self.subject.notes.contains(&note) {
            println!("  {}: {note}", self.subject.label);
            self.subject.notes.push(note);
        }
    }
}

fn entry(found: &Found, setup: Setup, label: String, base: String) -> Entry {
    let mut subject = subject(label, found.version.clone(), Vec::new());
    subject.base = base;
    Entry {
        found: found.clone(),
        setup,
        subject,
        fixed: Vec::new(),
    }
}

fn subject(label: String, version: String, notes: Vec<String>) -> Subject {
    Subject {
        label,
        version,
        base: String::new(),
        samples: Vec::new(),
        notes,
    }
}

/// Takes the folder away on every way out.
struct Sweep(std::path::PathBuf);

impl Drop for Sweep {
    fn drop(&mut self) {
        // What is left is in the system's folder for such.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Reads what was recorded before, if it can be read.
pub(crate) fn recorded(path: &std::path::Path) -> Option<Results> {
    let text = std::fs::read_to_string(path).ok()?;
    let read = serde_json::from_str(&text).context("it is anew");
    read.ok()
}

//! A whole run: each scenario, its subjects in turn, round by round, so that what disturbs the machine for a while
//! disturbs all of them; then once more at a fixed rate.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::door::Keys;
use crate::grpc;
use crate::load::Loads;
use crate::machine::{self, Machine};
use crate::measure::{Bench, Origin, Sample};
use crate::options::Options;
use crate::peers::{Found, Peer, Setup};
use crate::process::{self, Cores};
use crate::results::{Outcome, Results, Subject};
use crate::scenario::{ALGORITHMS, Load, NO_COOKIE, Scenario, Shape, Subjects};

/// Servers of a scenario that says nothing else.
const SERVERS: usize = 3;
const MANY_SERVERS: usize = 1_000;
/// Half load: the fixed rate, as a share of what HAProxy reaches at full speed.
const FIXED_SHARE: f64 = 0.5;
/// Who reaches less than this many times the fixed rate is not asked for it: its queue would only grow.
const FIXED_ROOM: f64 = 1.1;
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
}

/// All that lives through a run.
struct Run<'a> {
    options: &'a Options,
    commit: String,
    cores: usize,
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
    let files = options.scenarios.iter().map(Scenario::files_needed).max();
    machine::raise_open_files(files.unwrap_or(0));
    let folder = std::env::temp_dir().join(format!("evenkeel-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let _swept = Sweep(folder.clone());
    let loads = Loads::find(cores.load, &folder)?;
    let bench = Bench {
        cores,
        loads,
        keys: Keys::make(&folder)?,
        folder,
        warm: options.warm,
        measure: options.measure,
    };
    let found = find(options);
    let few = bench.origin(SERVERS, false)?;
    let expected = options.expected();
    let seconds = expected.as_secs();
    println!(
        "{} scenarios: about {} min {} s",
        options.scenarios.len(),
        seconds / 60,
        seconds % 60
    );
    let limit = expected.mul_f64(OVERTIME).max(expected + OVERTIME_AT_LEAST);
    let mut run = Run {
        commit: machine.commit.clone(),
        cores: machine.cores,
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
    let any_has = |peer: &&Peer| {
        let mut scenarios = options.scenarios.iter();
        scenarios.any(|scenario| options.peers(scenario).contains(peer))
    };
    let find = |peer: &Peer| {
        let found = peer.find();
        found.map_err(|error| {
            println!("{}: missing: {error:#}", peer.name());
            (*peer, format!("missing: {error:#}"))
        })
    };
    Peer::ALL.iter().filter(any_has).map(find).collect()
}

/// Says so if others use the machine: then the figures are worth little.
fn warn_if_busy(machine: &Machine) {
    if machine.busy > BUSY_SHARE {
        let percent = machine.busy * 100.0;
        println!("!!!! others use {percent:.0} % of this machine: the figures are worth little");
    }
}

impl Run<'_> {
    fn scenario(&mut self, scenario: &Scenario) -> Result<Outcome> {
        let (started, stolen_before) = (Instant::now(), process::stolen_us());
        let (scenario, note) = &scenario.clone().within(machine::open_files());
        println!(
            "{}: {}; {} rounds, about {} s{}",
            scenario.name,
            scenario.about,
            self.options.rounds(scenario),
            self.options.expected_of(scenario).as_secs(),
            note.as_ref()
                .map_or(String::new(), |note| format!("; {note}"))
        );
        let many = match scenario.subjects {
            Subjects::Algorithms => Some(self.bench.origin(MANY_SERVERS, true)?),
            _ => None,
        };
        let of_grpc = match scenario.grpc {
            true => Some(grpc::servers(
                &self.bench.folder,
                self.bench.cores.load,
                SERVERS,
            )?),
            false => None,
        };
        let own_servers = of_grpc.as_ref().map(|servers| &servers.addresses[..]);
        let (mut entries, absent) = self.entries(scenario, many.as_ref(), own_servers)?;
        let rate = match &scenario.load {
            Load::Requests(shape) if scenario.legs() > 1 && !self.options.quick => {
                self.half_load(shape, &entries)
            }
            _ => None,
        };
        self.rounds(scenario, rate, &mut entries);
        if let Load::Requests(shape) = &scenario.load {
            self.system_calls(shape, &mut entries);
        }
        let measured = entries.into_iter().map(|entry| entry.subject);
        let stolen_us = process::stolen_us() - stolen_before;
        let all_us = started.elapsed().as_micros() as f64 * self.cores as f64;
        Ok(Outcome {
            name: scenario.name.into(),
            about: scenario.about.into(),
            note: note.clone().unwrap_or_default(),
            seconds: self.options.measure.as_secs_f64(),
            rounds: self.options.rounds(scenario),
            stolen: Some(stolen_us / all_us.max(1.0)),
            commit: self.commit.clone(),
            subjects: measured.chain(absent).collect(),
        })
    }

    /// Who takes part, and who is absent and why.
    fn entries(
        &self,
        scenario: &Scenario,
        many: Option<&Origin>,
        own_servers: Option<&[SocketAddr]>,
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
        let asked = self.options.peers(scenario);
        for found in &self.found {
            let found = match found {
                Ok(found) if asked.contains(&found.peer) => found,
                Err((peer, _)) if !asked.contains(peer) => continue,
                Ok(_) => continue,
                Err((peer, why)) => {
                    absent.push(subject(
                        peer.name().into(),
                        String::new(),
                        vec![why.clone()],
                    ));
                    continue;
                }
            };
            let servers = own_servers.unwrap_or(&self.few.servers);
            let mut setup = self.bench.setup(scenario, servers, "round_robin");
            let label = found.peer.name().to_owned();
            setup.folder = setup.folder.join(&label);
            let base = Peer::Haproxy.name().to_owned();
            match found.lay_out(&setup) {
                Ok(_) if setup.cookie && found.peer == Peer::Evenkeel => {
                    let bare = Setup {
                        cookie: false,
                        folder: setup.folder.join("no-cookie"),
                        ..setup.clone()
                    };
                    entries.push(entry(found, setup, label, base.clone()));
                    entries.push(entry(found, bare, NO_COOKIE.into(), base));
                }
                Ok(_) => entries.push(entry(found, setup, label, base)),
                Err(why) => {
                    absent.push(subject(label, found.version.clone(), vec![why.to_string()]))
                }
            }
        }
        Ok((entries, absent))
    }

    /// The fixed rate: half of what HAProxy, or else the first of them, reaches in a round that does not count.
    fn half_load(&self, shape: &Shape, entries: &[Entry]) -> Option<f64> {
        let haproxy = |entry: &&Entry| entry.found.peer == Peer::Haproxy;
        let base = entries.iter().find(haproxy).or(entries.first())?;
        let sample = self.bench.round(&base.found, &base.setup, shape, None);
        let rate = sample.ok()?.get("rate")? * FIXED_SHARE;
        println!("  half load: {rate:.0} requests/s");
        (rate >= 1.0).then_some(rate)
    }

    fn round(&self, scenario: &Scenario, rate: Option<f64>, entry: &mut Entry) {
        let (found, setup) = (&entry.found, &entry.setup);
        let sample = match &scenario.load {
            Load::Requests(shape) => {
                let reached = entry.subject.spread("rate").map(|rate| rate.median);
                let rate =
                    rate.filter(|rate| reached.is_none_or(|reached| reached > rate * FIXED_ROOM));
                self.bench.round(found, setup, shape, rate)
            }
            load => self.bench.beside(found, setup, load),
        };
        let sample = sample.unwrap_or_else(|error| entry.failed(&error));
        if let Some(rate) = rate
            && sample.contains_key("cpu_us")
            && !sample.contains_key("fixed_rate")
        {
            entry.note(format!("does not reach {rate:.0} requests/s"));
        }
        entry.subject.samples.push(sample);
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
    fn rounds(&self, scenario: &Scenario, rate: Option<f64>, entries: &mut [Entry]) {
        for round in 0..self.options.rounds(scenario) {
            let count = entries.len();
            for at in 0..count {
                let entry = &mut entries[(at + round) % count];
                if Instant::now() > self.deadline {
                    entry.note("cut short: the run took too long".into());
                } else {
                    self.round(scenario, rate, entry);
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
pub(crate) struct Sweep(pub(crate) std::path::PathBuf);

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

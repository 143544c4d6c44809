//! What it was measured on: figures of two machines are not compared.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::process::machine_us;

/// How long the machine is watched before a run.
const BUSY_OVER: Duration = Duration::from_millis(500);

/// The machine, as docs/performance.md describes it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory: String,
    pub(crate) kernel: String,
    pub(crate) system: String,
    pub(crate) open_files: u64,
    /// Of Evenkeel's source.
    pub(crate) commit: String,
    pub(crate) date: String,
    /// The share of all its cores that others used just before the run.
    pub(crate) busy: f64,
}

impl Machine {
    pub(crate) fn describe() -> Self {
        let said = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).output();
            let text =
                output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
            text.unwrap_or_default()
        };
        let cores = value("/proc/cpuinfo", "processor").count();
        let kib = value("/proc/meminfo", "MemTotal")
            .next()
            .unwrap_or_default();
        let kib = kib
            .split(' ')
            .next()
            .and_then(|kib| kib.parse::<f64>().ok());
        Self {
            processor: value("/proc/cpuinfo", "model name")
                .next()
                .unwrap_or_default(),
            cores,
            memory: format!("{:.0} GiB", kib.unwrap_or(0.0) / f64::from(1 << 20)),
            kernel: said("uname", &["-r"]),
            system: value("/etc/os-release", "PRETTY_NAME")
                .next()
                .unwrap_or_default(),
            open_files: open_files(),
            commit: said("git", &["describe", "--always", "--dirty"]),
            date: said("date", &["-u", "+%Y-%m-%d"]),
            busy: busy(cores),
        }
    }

    /// What makes figures comparable.
    pub(crate) fn hardware(&self) -> (&str, usize, &str) {
        (&self.processor, self.cores, &self.kernel)
    }
}

fn busy(cores: usize) -> f64 {
    let (started, before) = (Instant::now(), machine_us());
    std::thread::sleep(BUSY_OVER);
    let used = machine_us() - before;
    used / (started.elapsed().as_micros() as f64 * cores.max(1) as f64)
}

/// The values of a key in a file of `key : value` or `key="value"` lines.
fn value(path: &str, key: &str) -> impl Iterator<Item = String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let values = text.lines().filter_map(|line| {
        let (name, value) = line.split_once([':', '='])?;
        (name.trim() == key).then(|| value.trim().trim_matches('"').to_owned())
    });
    values.collect::<Vec<_>>().into_iter()
}

/// How many files a process may open.
pub(crate) fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Asks for room for `wanted` files, for us and what we start; whether we have it.
pub(crate) fn raise_open_files(wanted: u64) -> bool {
    if open_files() >= wanted {
        return true;
    }
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let new = Rlimit {
        current: Some(wanted),
        maximum: Some(hard.max(wanted)),
    };
    if setrlimit(Resource::Nofile, new).is_ok() {
        return true;
    }
    let most = Rlimit {
        current: Some(hard),
        maximum: Some(hard),
    };
    // As many as there are to be had.
    let _ = setrlimit(Resource::Nofile, most);
    false
}

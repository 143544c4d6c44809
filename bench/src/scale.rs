//! How cost grows: servers, routes and idle connections by tens, one worker against two. Evenkeel alone, one round
//! each: what matters is how a figure grows from row to row. `cargo xtask bench --scale`.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::door::Keys;
use crate::load::Loads;
use crate::machine::{self, Machine};
use crate::measure::{Bench, SETTLE, Sample, Up};
use crate::options::WARM_AGAIN;
use crate::peers::{Found, Peer, Setup, evenkeel};
use crate::process::Cores;
use crate::scenario::{self, Scenario, Shape};

const RESULTS: &str = "bench/results/scale.json";
const SERVERS: &[usize] = &[10, 100, 1_000, 10_000];
const ROUTES: &[usize] = &[10, 100, 1_000, 10_000, 100_000];
const IDLE: &[usize] = &[1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 100_000];
const WORKERS: &[usize] = &[1, 2];
/// Reloads of each size, each of which changes the pool's settings.
const RELOADS: u64 = 5;
/// Traffic beside each of them, and without one.
const STRETCH: Duration = Duration::from_secs(1);
const BETWEEN_RELOADS: Duration = Duration::from_millis(300);
/// Requests per second while the config is read: far below saturation.
const RATE: f64 = 1_000.0;
/// How long a reload or a page of metrics may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Columns: the figure's name, its head, and decimals.
const COLUMNS: &[(&str, &str, usize)] = &[
    ("start_ms", "until it serves, ms", 0),
    ("cpu_us", "CPU µs/request", 2),
    ("rate", "requests/s", 0),
    ("memory_mib", "memory MiB", 1),
    ("idle_bytes", "bytes/connection", 0),
    ("reload_ms", "reload ms", 1),
    ("reload_max_ms", "slowest", 1),
    ("still_ms", "wait without, ms", 1),
    ("still_max_ms", "worst", 1),
    ("stall_ms", "wait with a reload, ms", 1),
    ("stall_max_ms", "worst", 1),
    ("errors", "failures", 0),
    ("metrics_ms", "metrics ms", 1),
    ("metrics_kib", "KiB", 0),
    ("list_ms", "list of servers, ms", 1),
];

#[derive(Debug, Serialize, Deserialize)]
struct Scale {
    machine: Machine,
    groups: Vec<Group>,
}

/// One thing that grows.
#[derive(Debug, Serialize, Deserialize)]
struct Group {
    what: String,
    rows: Vec<(usize, Sample)>,
    /// What was left out, and why.
    note: String,
}

struct Run {
    bench: Bench,
    found: Found,
    /// The one socket behind every address of 127.0.0.0/8.
    port: u16,
    shape: Shape,
    scenario: Scenario,
}

/// Measures everything, shows it, and records it if asked.
pub(crate) fn run(record: bool, root: &Path) -> Result<()> {
    let cores = Cores::choose()?;
    let machine = Machine::describe();
    machine::raise_open_files(u64::from(u32::MAX));
    let folder = std::env::temp_dir().join(format!("evenkeel-scale-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let _swept = crate::run::Sweep(folder.clone());
    let second = Duration::from_secs(1);
    let bench = Bench {
        cores,
        loads: Loads::find(cores.load, &folder)?,
        keys: Keys::make(&folder)?,
        folder,
        warm: second,
        measure: second * 2,
    };
    let found = Peer::Evenkeel.find()?;
    let origin = bench.origin_everywhere()?;
    let port = origin.servers.first().context("no origin")?.port();
    let (scenario, shape) = scenario::plain();
    let run = Run {
        bench,
        found,
        port,
        shape,
        scenario,
    };
    let groups = run.groups();
    let scale = Scale { machine, groups };
    let text = tables(&scale)?;
    println!("{text}");
    if record {
        let json = serde_json::to_string_pretty(&scale)? + "\n";
        std::fs::write(root.join(RESULTS), json)?;
        println!("wrote {RESULTS}");
    }
    Ok(())
}

impl Run {
    fn groups(&self) -> Vec<Group> {
        let files = machine::open_files();
        let fits = |count: usize| count as u64 * 22 / 10 + 2_000 <= files;
        let all = |_: usize| true;
        vec![
            self.group("servers", SERVERS, all, |count| self.servers(count)),
            self.group("routes", ROUTES, all, |count| self.routes(count)),
            self.group("idle connections", IDLE, fits, |count| self.idle(count)),
            self.group("workers", WORKERS, all, |count| self.workers(count)),
        ]
    }

    fn group(
        &self,
        what: &str,
        counts: &[usize],
        fits: impl Fn(usize) -> bool,
        measure: impl Fn(usize) -> Result<Sample>,
    ) -> Group {
        let mut group = Group {
            what: what.to_owned(),
            rows: Vec::new(),
            note: String::new(),
        };
        let mut left_out = Vec::new();
        for count in counts {
            if !fits(*count) {
                left_out.push(count.to_string());
                continue;
            }
            println!("{count} {what}");
            match measure(*count) {
                Ok(sample) => group.rows.push((*count, sample)),
                Err(error) => {
                    println!("  failed: {error:#}");
                    group.note += &format!("{count} {what}: not measured: {error:#}. ");
                }
            }
        }
        if !left_out.is_empty() {
            group.note += &format!(
                "Not measured: {}, for want of open files: the limit of this machine is {}. ",
                left_out.join(", "),
                machine::open_files()
            );
        }
        group
    }

    fn setup(&self, servers: usize) -> Setup {
        let address = |at: usize| {
            let [.., high, low] = (at as u32 + 1).to_be_bytes();
            SocketAddr::from((Ipv4Addr::new(127, 1, high, low), self.port))
        };
        let servers: Vec<_> = (0..servers).map(address).collect();
        let mut setup = self.bench.setup(&self.scenario, &servers, "power_of_two");
        setup.folder.push("evenkeel");
        setup
    }

    fn servers(&self, count: usize) -> Result<Sample> {
        let (up, mut sample) = self.start(&self.setup(count))?;
        sample.extend(self.bench.full_speed(&up, &self.shape)?);
        sample.extend(self.reloads(&up)?);
        Ok(sample)
    }

    fn routes(&self, count: usize) -> Result<Sample> {
        let mut setup = self.setup(3);
        setup.routes = count;
        let late = count - count.min(43);
        let path = format!("/team{}/service{late}/1k", late % 50);
        let (up, mut sample) = self.start(&setup)?;
        // The path lives as long as the process, which measures a handful of them.
        let path: &'static str = Box::leak(path.into_boxed_str());
        let shape = Shape { path, ..self.shape };
        sample.extend(self.bench.full_speed(&up, &shape)?);
        sample.extend(self.reloads(&up)?);
        Ok(sample)
    }

    fn idle(&self, count: usize) -> Result<Sample> {
        let mut setup = self.setup(3);
        setup.connections = count;
        let (up, mut sample) = self.start(&setup)?;
        self.bench
            .loads
            .full(&up.door, &self.shape, self.bench.warm)?;
        std::thread::sleep(SETTLE);
        let before = up.running.memory_kib();
        let held = self.bench.loads.idle(&up.door, count)?;
        std::thread::sleep(SETTLE);
        let memory = up.running.memory_kib();
        sample.insert("memory_mib".into(), memory / 1024.0);
        let each = (memory - before) * 1024.0 / count as f64;
        sample.insert("idle_bytes".into(), each);
        sample.extend(self.reloads(&up)?);
        let held = self.bench.loads.end(held, self.bench.measure)?;
        *sample.entry("errors".into()).or_default() += held.get("closed");
        Ok(sample)
    }

    /// On both cores in either case, beside the load and the servers.
    fn workers(&self, count: usize) -> Result<Sample> {
        let mut setup = self.setup(3);
        setup.workers = count;
        setup.both_cores = true;
        let (up, mut sample) = self.start(&setup)?;
        sample.extend(self.bench.full_speed(&up, &self.shape)?);
        Ok(sample)
    }

    fn start(&self, setup: &Setup) -> Result<(Up, Sample)> {
        let began = Instant::now();
        let up = self.bench.start(&self.found, setup)?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        Ok((up, Sample::from([("start_ms".into(), took)])))
    }

    /// How long reloads take, and how long a request has to wait while they run.
    fn reloads(&self, up: &Up) -> Result<Sample> {
        let (loads, shape) = (&self.bench.loads, &self.shape);
        let warm = loads.fixed(&up.door, shape, RATE, WARM_AGAIN)?;
        loads.end(warm, WARM_AGAIN)?;
        let (mut took, mut still, mut stalls) = (Vec::new(), Vec::new(), Vec::new());
        let mut errors = 0.0;
        let time = STRETCH;
        for edition in 1..=RELOADS {
            let quiet = loads.fixed(&up.door, shape, RATE, time)?;
            let quiet = loads.end(quiet, time)?;
            errors += quiet.get("errors");
            still.push(quiet.get("max_us") / 1e3);
            evenkeel::rewrite(&up.setup, edition)?;
            let load = loads.fixed(&up.door, shape, RATE, time)?;
            std::thread::sleep(BETWEEN_RELOADS);
            let began = Instant::now();
            let answer = ask(up.setup.admin_port, "POST", "/api/v1/reload")?;
            took.push(began.elapsed().as_secs_f64() * 1e3);
            ensure!(answer.starts_with("HTTP/1.1 200"), "not reloaded: {answer}");
            let served = loads.end(load, time)?;
            errors += served.get("errors");
            stalls.push(served.get("max_us") / 1e3);
        }
        let timed = |path: &str| -> Result<(f64, f64)> {
            let began = Instant::now();
            let length = ask(up.setup.admin_port, "GET", path)?.len();
            Ok((began.elapsed().as_secs_f64() * 1e3, length as f64 / 1024.0))
        };
        let (metrics_ms, metrics_kib) = timed("/metrics")?;
        let (list_ms, _) = timed("/api/v1/pools/main/servers")?;
        let (reload, reload_max) = middle_and_most(took);
        let (still, still_max) = middle_and_most(still);
        let (stall, stall_max) = middle_and_most(stalls);
        Ok(Sample::from([
            ("reload_ms".into(), reload),
            ("reload_max_ms".into(), reload_max),
            ("still_ms".into(), still),
            ("still_max_ms".into(), still_max),
            ("stall_ms".into(), stall),
            ("stall_max_ms".into(), stall_max),
            ("errors".into(), errors),
            ("metrics_ms".into(), metrics_ms),
            ("metrics_kib".into(), metrics_kib),
            ("list_ms".into(), list_ms),
        ]))
    }
}

fn middle_and_most(mut figures: Vec<f64>) -> (f64, f64) {
    figures.sort_by(f64::total_cmp);
    let middle = figures.get(figures.len() / 2).copied();
    (
        middle.unwrap_or_default(),
        figures.last().copied().unwrap_or_default(),
    )
}

/// Asks the admin API of the proxy on this port.
fn ask(port: u16, method: &str, path: &str) -> Result<String> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: 0\r\n\r\n"
    )?;
    let mut answer = String::new();
    socket
        .read_to_string(&mut answer)
        .context("the admin API")?;
    Ok(answer)
}

/// What docs/performance.md says of it; nothing where it was never measured.
pub(crate) fn section(root: &Path) -> Result<String> {
    let Ok(text) = std::fs::read_to_string(root.join(RESULTS)) else {
        return Ok("\n## Scale\n\nNot measured: `cargo xtask bench --scale`.\n".into());
    };
    let scale: Scale = serde_json::from_str(&text).context(RESULTS)?;
    let mut page = format!(
        "\n## Scale\n\n`cargo xtask bench --scale`, one round each, Evenkeel at {}. The wait is the longest of any request \
         at {RATE:.0} a second in a second of traffic: the median and the worst of {RELOADS} such seconds without, and \
         of {RELOADS} with a reload in each. The proxy has one core for its worker and for reading the config. The target is a reload of 10,000 servers \
         well under a second, and no stall over 10 ms.\n",
        scale.machine.commit
    );
    page += &tables(&scale)?;
    Ok(page)
}

fn tables(scale: &Scale) -> Result<String> {
    let mut text = String::new();
    for group in &scale.groups {
        let has = |name: &str| {
            group
                .rows
                .iter()
                .any(|(_, sample)| sample.contains_key(name))
        };
        let columns: Vec<_> = COLUMNS.iter().filter(|(name, ..)| has(name)).collect();
        let heads: String = columns
            .iter()
            .map(|(_, head, _)| format!(" {head} |"))
            .collect();
        writeln!(
            text,
            "\n| {} |{heads}\n| --- |{}",
            group.what,
            " --- |".repeat(columns.len())
        )?;
        for (count, sample) in &group.rows {
            let cell = |(name, _, digits): &&(&str, &str, usize)| {
                let value = sample.get(*name);
                value.map_or(" - |".to_owned(), |value| format!(" {value:.digits$} |"))
            };
            let cells: String = columns.iter().map(cell).collect();
            writeln!(text, "| {count} |{cells}")?;
        }
        if !group.note.is_empty() {
            writeln!(text, "\n{}", group.note.trim_end())?;
        }
    }
    Ok(text)
}

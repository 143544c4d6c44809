//! One subject, one round: starts it, waits until it answers, lays the load on, and reads the counters before and
//! after. What the figures mean together is the duty of `results`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::door::{Door, Keys, cookie_of};
use crate::load::{Loads, Served};
use crate::options::WARM_AGAIN;
use crate::peers::evenkeel;
use crate::peers::{Found, Setup, sibling};
use crate::process::{Cores, Running, machine_us, which};
use crate::scenario::{Load, SMALL, Scenario, Shape};

/// How long a peer may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// After the last connection fell silent, for memory to be given back; what a proxy does within a second of an answer,
/// it does for the next request.
pub(crate) const SETTLE: Duration = Duration::from_secs(5);

/// Figures of one round by their names in [`crate::results::METRICS`].
pub(crate) type Sample = BTreeMap<String, f64>;

/// The servers behind every peer.
pub(crate) struct Origin {
    _running: Running,
    pub(crate) servers: Vec<SocketAddr>,
}

/// What a round needs.
pub(crate) struct Bench {
    pub(crate) cores: Cores,
    pub(crate) loads: Loads,
    pub(crate) keys: Keys,
    pub(crate) folder: PathBuf,
    pub(crate) warm: Duration,
    pub(crate) measure: Duration,
}

/// A peer that answers.
pub(crate) struct Up {
    pub(crate) running: Running,
    pub(crate) door: Door,
    pub(crate) setup: Setup,
}

impl Bench {
    /// Servers on ports of 127.0.0.1, or each on an address of its own.
    pub(crate) fn origin(&self, count: usize, spread: bool) -> Result<Origin> {
        self.origin_with(count, spread.then_some("--spread"))
    }

    /// One port that answers at every address of 127.0.0.0/8.
    pub(crate) fn origin_everywhere(&self) -> Result<Origin> {
        self.origin_with(1, Some("--everywhere"))
    }

    fn origin_with(&self, count: usize, option: Option<&str>) -> Result<Origin> {
        let mut command = Command::new(sibling("origin")?);
        command.arg(count.to_string()).args(option);
        let log = self.folder.join("origin.log");
        let mut running = Running::start_piped(&command, self.cores.load, &log)?;
        let mut servers = Vec::new();
        loop {
            match running.line()?.as_str() {
                "ready" => break,
                address => servers.push(address.parse()?),
            }
        }
        let _running = running;
        Ok(Origin { _running, servers })
    }

    /// What a subject is to do; ports are chosen when it starts.
    pub(crate) fn setup(
        &self,
        scenario: &Scenario,
        servers: &[SocketAddr],
        algorithm: &'static str,
    ) -> Setup {
        Setup {
            port: 0,
            admin_port: 0,
            servers: servers.to_vec(),
            mode: scenario.mode,
            bulk: scenario.bulk,
            close: matches!(&scenario.load, Load::Requests(shape) if shape.close),
            routes: scenario.routes,
            secure: scenario.secure,
            grpc: scenario.grpc,
            keys: self.keys.clone(),
            cookie: scenario.cookie,
            workers: 1,
            both_cores: false,
            algorithm,
            connections: scenario.connections(),
            folder: self.folder.clone(),
        }
    }

    /// Requests at full speed, and then at a fixed rate if there is one: CPU of the first, latency of the second.
    pub(crate) fn round(
        &self,
        found: &Found,
        setup: &Setup,
        shape: &Shape,
        rate: Option<f64>,
    ) -> Result<Sample> {
        let mut up = self.start(found, setup)?;
        let mut sample = self.full_speed(&up, shape)?;
        up.running.ensure_runs()?;
        let reached = sample.get("rate").copied().unwrap_or(0.0);
        if let Some(rate) = rate.filter(|rate| reached > *rate) {
            let warm = self.loads.fixed(&up.door, shape, rate, WARM_AGAIN)?;
            self.loads.end(warm, WARM_AGAIN)?;
            let fixed = self.around(&up, "fixed_", || {
                let load = self.loads.fixed(&up.door, shape, rate, self.measure)?;
                self.loads.end(load, self.measure)
            });
            sample.extend(fixed?);
            up.running.ensure_runs()?;
            sample.insert("fixed_rate".into(), rate);
        }
        Ok(sample)
    }

    /// What is not one kind of request at full speed.
    pub(crate) fn beside(&self, found: &Found, setup: &Setup, load: &Load) -> Result<Sample> {
        let mut up = self.start(found, setup)?;
        let sample = match load {
            Load::Requests(shape) => self.full_speed(&up, shape),
            Load::Idle { connections } => self.idle(&up, *connections),
            Load::Mixed {
                small_rate,
                large_rate,
            } => self.mixed(&up, *small_rate, *large_rate),
            Load::Reload { rate, every_ms } => {
                self.reload(&up, *rate, Duration::from_millis(*every_ms))
            }
        };
        up.running.ensure_runs()?;
        sample
    }

    /// System calls per request, counted by the kernel's own tracepoint, in a round of its own since that costs time.
    pub(crate) fn system_calls(&self, found: &Found, setup: &Setup, shape: &Shape) -> Result<f64> {
        let perf = which("perf").context("perf is missing: apt-get install linux-perf")?;
        let up = self.start(found, setup)?;
        let pids: Vec<String> = up.running.pids().iter().map(u32::to_string).collect();
        let mut stat = Command::new(perf);
        stat.args([
            "stat",
            "-x,",
            "-e",
            "raw_syscalls:sys_enter",
            "-p",
            &pids.join(","),
        ]);
        let mut counter = Running::start(&stat, self.cores.load, &self.folder.join("perf.log"))?;
        std::thread::sleep(Duration::from_millis(200));
        counter.ensure_runs()?;
        let served = self.loads.full(&up.door, shape, self.warm)?;
        counter.signal(Signal::INT);
        let said = counter.log_at_end(Duration::from_secs(3))?;
        let line = said.lines().find(|line| line.contains("sys_enter"));
        let count = line.and_then(|line| line.split(',').next()?.parse::<f64>().ok());
        let count = count.with_context(|| format!("perf counted nothing: {said}"))?;
        Ok(count / served.get("requests").max(1.0))
    }

    pub(crate) fn start(&self, found: &Found, setup: &Setup) -> Result<Up> {
        let name = found.peer.name();
        let mut setup = setup.clone();
        setup.folder = self.folder.join(name);
        // Held both at once, so that they differ.
        let doors = (
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        );
        setup.port = doors.0.local_addr()?.port();
        setup.admin_port = doors.1.local_addr()?.port();
        drop(doors);
        let mut command = found.lay_out(&setup)?;
        if setup.both_cores {
            command = self.cores.both(&command);
        }
        let log = self.folder.join(format!("{name}.log"));
        let mut running = Running::start(&command, self.cores.proxy, &log)?;
        let mut door = Door {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, setup.port)),
            secure: setup.secure,
            grpc: setup.grpc,
            certificate: self.keys.certificate.clone(),
            cookie: None,
        };
        let started = Instant::now();
        let head = loop {
            if let Some(head) = self.loads.ask(&door) {
                break head;
            }
            running.ensure_runs()?;
            if started.elapsed() > READY_WITHIN {
                bail!(
                    "no answer within {READY_WITHIN:?}: {}",
                    running.last_words()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        if setup.cookie {
            let cookie = cookie_of(&head).context("no cookie was set")?;
            door.cookie = Some(cookie);
        }
        Ok(Up {
            running,
            door,
            setup,
        })
    }

    pub(crate) fn full_speed(&self, up: &Up, shape: &Shape) -> Result<Sample> {
        self.loads.full(&up.door, shape, self.warm)?;
        let mut sample = self.around(up, "", || self.loads.full(&up.door, shape, self.measure))?;
        sample.insert("memory_mib".into(), up.running.memory_kib() / 1024.0);
        Ok(sample)
    }

    /// The counters around a load, per request.
    fn around(
        &self,
        up: &Up,
        prefix: &str,
        load: impl FnOnce() -> Result<Served>,
    ) -> Result<Sample> {
        let (cpu, machine) = (up.running.cpu(), machine_us());
        let served = load()?;
        let (cpu, machine) = (up.running.cpu().since(cpu), machine_us() - machine);
        let requests = served.get("requests");
        ensure!(
            requests > 0.0,
            "not one answer; {} errors",
            served.get("errors")
        );
        let each = cpu.total_us / requests;
        let mut sample = Sample::new();
        let mut put = |name: &str, value: f64| sample.insert(format!("{prefix}{name}"), value);
        put("cpu_us", each);
        put("user_us", each * cpu.user_share());
        put("system_us", each * (1.0 - cpu.user_share()));
        put("machine_us", machine / requests);
        put("errors", served.get("errors"));
        if served.get("us") > 0.0 {
            put("rate", requests / served.get("us") * 1e6);
        }
        latencies(&served, &mut sample);
        Ok(sample)
    }

    fn idle(&self, up: &Up, connections: usize) -> Result<Sample> {
        self.loads.full(&up.door, &SMALL, self.warm)?;
        std::thread::sleep(SETTLE);
        let before = up.running.memory_kib();
        let load = self.loads.idle(&up.door, connections)?;
        std::thread::sleep(SETTLE);
        let memory = up.running.memory_kib();
        let cpu = up.running.cpu();
        std::thread::sleep(self.measure);
        let cpu = up.running.cpu().since(cpu);
        let held = self.loads.end(load, self.measure)?;
        let kib = (memory - before) / connections as f64;
        Ok(Sample::from([
            ("idle_bytes".into(), kib * 1024.0),
            (
                "idle_cpu_us".into(),
                cpu.total_us / self.measure.as_secs_f64(),
            ),
            ("memory_mib".into(), memory / 1024.0),
            ("errors".into(), held.get("closed")),
        ]))
    }

    fn mixed(&self, up: &Up, small_rate: f64, large_rate: f64) -> Result<Sample> {
        let small = Shape {
            connections: 16,
            ..SMALL
        };
        let large = Shape {
            path: "/1m",
            connections: 4,
            ..small
        };
        let time = self.warm + self.measure;
        let large = self.loads.fixed(&up.door, &large, large_rate, time)?;
        std::thread::sleep(self.warm / 2);
        let small = self
            .loads
            .fixed(&up.door, &small, small_rate, self.measure)?;
        let small = self.loads.end(small, self.measure)?;
        let large = self.loads.end(large, time)?;
        let errors = small.get("errors") + large.get("errors");
        let mut sample = Sample::from([("errors".into(), errors)]);
        latencies(&small, &mut sample);
        Ok(sample)
    }

    fn reload(&self, up: &Up, rate: f64, every: Duration) -> Result<Sample> {
        let shape = Shape {
            connections: 32,
            ..SMALL
        };
        let time = self.warm + self.measure;
        let load = self.loads.fixed(&up.door, &shape, rate, time)?;
        let started = Instant::now();
        let mut reloads = 0;
        while started.elapsed() + every < time {
            std::thread::sleep(every);
            reloads += 1;
            evenkeel::rewrite(&up.setup, reloads)?;
            up.running.signal(Signal::HUP);
        }
        let served = self.loads.end(load, time)?;
        let mut sample = Sample::from([
            ("reloads".into(), reloads as f64),
            ("errors".into(), served.get("errors")),
            ("max_us".into(), served.get("max_us")),
        ]);
        latencies(&served, &mut sample);
        Ok(sample)
    }
}

/// Of a load at a fixed rate; at full speed latency says little.
fn latencies(served: &Served, sample: &mut Sample) {
    for name in ["p50_us", "p99_us", "p999_us"] {
        if served.get(name) > 0.0 {
            sample.insert(name.into(), served.get(name));
        }
    }
}

//! Other programs: started on a core, looked at through /proc, and ended by their own ids on every way out.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How long a program may take to end after SIGTERM.
const END_WITHIN: Duration = Duration::from_millis(800);
/// A clock tick of /proc, in microseconds: USER_HZ is 100 on every Linux that we know.
const TICK_US: f64 = 10_000.0;

/// Which core does what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) proxy: usize,
    /// The load and the servers.
    pub(crate) load: usize,
}

impl Cores {
    /// The first and the last core that we may use; this process moves to the latter.
    pub(crate) fn choose() -> Result<Self> {
        let may = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| may.is_set(*core));
        let proxy = cores.next().context("no core at all")?;
        let load = cores.next_back().unwrap_or(proxy);
        pin(load)?;
        Ok(Self { proxy, load })
    }
}

impl Cores {
    /// Runs a program on both cores, wherever it is started.
    pub(crate) fn both(&self, command: &Command) -> Command {
        let mut free = Command::new("taskset");
        free.args(["-c", &format!("{},{}", self.proxy, self.load)]);
        free.arg(command.get_program()).args(command.get_args());
        free
    }
}

fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("core {core}"))
}

/// A program of ours, ended when dropped.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
    stdout: Option<BufReader<ChildStdout>>,
}

/// CPU time of a program so far, all its threads and children.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// As the scheduler counts it.
    pub(crate) total_us: f64,
    /// As the clock tick samples it: only good for the ratio of the two.
    user_us: f64,
    system_us: f64,
}

impl Cpu {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            total_us: self.total_us - before.total_us,
            user_us: self.user_us - before.user_us,
            system_us: self.system_us - before.system_us,
        }
    }

    /// The share spent in user mode; a half where too little was sampled.
    pub(crate) fn user_share(self) -> f64 {
        let both = self.user_us + self.system_us;
        if both > 0.0 { self.user_us / both } else { 0.5 }
    }
}

impl Running {
    /// Starts a program on a core, with its output in a log. It ends with us even if we are killed.
    pub(crate) fn start(command: &Command, core: usize, log: &Path) -> Result<Self> {
        Self::spawn(command, core, log, false)
    }

    /// The same, with its standard input and output in our hands.
    pub(crate) fn start_piped(command: &Command, core: usize, log: &Path) -> Result<Self> {
        Self::spawn(command, core, log, true)
    }

    fn spawn(command: &Command, core: usize, log: &Path, piped: bool) -> Result<Self> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        let mut bound = bound_to_us(command);
        bound.stderr(file.try_clone()?);
        if piped {
            bound.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            bound.stdin(Stdio::null()).stdout(file);
        }
        let ours = sched_getaffinity(None)?;
        pin(core)?;
        let child = bound.spawn();
        sched_setaffinity(None, &ours)?;
        let mut child = child.with_context(|| format!("{command:?} cannot be started"))?;
        let stdout = child.stdout.take().map(BufReader::new);
        let log = log.to_owned();
        Ok(Self { child, log, stdout })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The program and its children.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut all = vec![self.pid()];
        let mut at = 0;
        while let Some(pid) = all.get(at).copied() {
            at += 1;
            let children = tasks(pid).flat_map(|task| {
                let text = fs::read_to_string(task.join("children")).unwrap_or_default();
                let pids = text.split_whitespace().filter_map(|pid| pid.parse().ok());
                pids.collect::<Vec<u32>>()
            });
            all.extend(children.collect::<BTreeSet<_>>());
        }
        all
    }

    pub(crate) fn cpu(&self) -> Cpu {
        let mut sum = Cpu::default();
        for pid in self.pids() {
            for task in tasks(pid) {
                let schedstat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
                let ns = schedstat.split(' ').next().and_then(|ns| ns.parse().ok());
                sum.total_us += ns.unwrap_or(0.0) / 1e3;
                let (user, system) = task_ticks(&task).unwrap_or_default();
                sum.user_us += user * TICK_US;
                sum.system_us += system * TICK_US;
            }
        }
        sum
    }

    /// Memory that is its own, shared pages by their share, in KiB.
    pub(crate) fn memory_kib(&self) -> f64 {
        let of = |pid: u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok())
        };
        self.pids().into_iter().filter_map(of).sum()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        let _ = kill(self.pid(), signal);
    }

    /// Fails with its last words if it has ended.
    pub(crate) fn ensure_runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("ended by itself, {status}: {}", self.last_words());
        }
        Ok(())
    }

    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let from = text.lines().count().saturating_sub(3);
        text.lines().skip(from).collect::<Vec<_>>().join(" / ")
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> Result<String> {
        let stdout = self.stdout.as_mut().context("its output is not ours")?;
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        ensure!(!line.is_empty(), "it ended: {}", self.last_words());
        Ok(line.trim_end().to_owned())
    }

    /// Waits until it ends by itself and returns what it printed.
    pub(crate) fn finish(mut self, within: Duration) -> Result<String> {
        drop(self.child.stdin.take());
        let ended = self.wait(within)?;
        ensure!(ended, "did not end within {within:?}");
        let mut text = String::new();
        if let Some(stdout) = &mut self.stdout {
            stdout.read_to_string(&mut text)?;
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}: {} {text}", self.last_words());
        Ok(text)
    }

    /// Waits until it ends, however it does, and returns its log.
    pub(crate) fn log_at_end(mut self, within: Duration) -> Result<String> {
        ensure!(self.wait(within)?, "did not end within {within:?}");
        Ok(fs::read_to_string(&self.log)?)
    }

    fn wait(&mut self, within: Duration) -> Result<bool> {
        let started = Instant::now();
        while self.child.try_wait()?.is_none() {
            if started.elapsed() > within {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(true)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let family = self.pids();
        self.signal(Signal::TERM);
        if self.wait(END_WITHIN).unwrap_or(false) {
            return;
        }
        for pid in family {
            // Its children may have ended with it.
            let _ = kill(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn kill(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Ok(kill_process(pid.context("not a process id")?, signal)?)
}

/// By setpriv, which replaces itself by the program, so that the id stays the same.
fn bound_to_us(command: &Command) -> Command {
    let mut bound = match which("setpriv") {
        Some(setpriv) => {
            let mut bound = Command::new(setpriv);
            bound.args(["--pdeathsig", "TERM", "--"]);
            bound.arg(command.get_program());
            bound
        }
        None => Command::new(command.get_program()),
    };
    bound.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        bound.current_dir(folder);
    }
    bound
}

/// Finds a program on the path, and where Debian has those that only root needs.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut places = folders.into_iter().map(|folder| folder.join(program));
    places.find(|place| place.is_file())
}

/// CPU time of the whole machine so far, in microseconds: everything but idle and waiting.
pub(crate) fn machine_us() -> f64 {
    // user nice system [idle iowait] irq softirq
    ticks_us(&[0, 1, 2, 5, 6])
}

/// Time that this machine wanted its CPUs so far and its host gave to others, in microseconds of one CPU; 0 where it is
/// no guest.
pub(crate) fn stolen_us() -> f64 {
    ticks_us(&[7])
}

/// Sum of these columns of the first line of /proc/stat, see proc_stat(5).
fn ticks_us(columns: &[usize]) -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .flat_map(str::parse)
        .collect();
    let of = columns.iter().filter_map(|at| ticks.get(*at));
    of.sum::<f64>() * TICK_US
}

fn tasks(pid: u32) -> impl Iterator<Item = PathBuf> {
    let folder = fs::read_dir(format!("/proc/{pid}/task"));
    let entries = folder.into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// User and system ticks: fields 14 and 15 of proc(5)'s stat, counted after the name, which may hold spaces.
fn task_ticks(task: &Path) -> Option<(f64, f64)> {
    let text = fs::read_to_string(task.join("stat")).ok()?;
    let (_, after) = text.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11);
    let user = fields.next()?.parse().ok()?;
    Some((user, fields.next()?.parse().ok()?))
}

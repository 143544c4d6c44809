//! What every scenario stands on: the running balancer, the load in front of it, and the tally.

use crate::process::{Finished, run};
use crate::{Evenkeel, Load, LoadPlan, Nginx, Raw, Response, wait_until};
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longer than anything here takes, even on a busy machine.
pub(super) const SOON: Duration = Duration::from_secs(15);
const COMMAND_WITHIN: Duration = Duration::from_secs(30);
/// `first_byte` of the pools whose servers hang.
pub(super) const FIRST_BYTE: Duration = Duration::from_secs(1);
/// Connections of a load that says nothing else.
pub(super) const CLIENTS: usize = 16;

/// Where and how long scenarios run.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The binary under test.
    pub binary: PathBuf,
    /// The short form, seconds for each.
    pub quick: bool,
    /// This process is in a network namespace of its own, whose `lo` is up.
    pub in_own_network: bool,
}

impl Stage {
    /// How often, or how many: for the short form and for the whole one.
    pub(super) fn pick<T>(&self, quick: T, whole: T) -> T {
        if self.quick { quick } else { whole }
    }

    /// Answers to wait for between two steps.
    pub(super) fn between(&self) -> u64 {
        self.pick(200, 10_000)
    }

    /// Starts the balancer on this config.
    pub(super) fn start(&self, config: &str) -> Result<Site> {
        Ok(self.adopt(Evenkeel::start(&self.binary, config)?))
    }

    /// One that was started otherwise.
    pub(super) fn adopt(&self, evenkeel: Evenkeel) -> Site {
        let binary = self.binary.clone();
        Site { evenkeel, binary }
    }

    /// Starts it in front of servers, and waits until all of them have passed their probes.
    pub(super) fn start_site(&self, servers: &[SocketAddr], pool: &str) -> Result<Site> {
        let site = self.start(&config(servers, "", pool))?;
        site.wait_healthy(servers.len())?;
        Ok(site)
    }
}

/// One HTTP listener, `web`, in front of one pool, `site`, with probes each 200 ms unless `pool`
/// has its own. `listener` and `pool` are further keys, each with a comma behind it.
pub(super) fn config(servers: &[SocketAddr], listener: &str, pool: &str) -> String {
    let servers: Vec<_> = servers.iter().map(|it| format!("'{it}'")).collect();
    let check = if pool.contains("health_check") {
        ""
    } else {
        "health_check: { path: /health, interval: 200ms, timeout: 300ms, unhealthy_threshold: 2 },"
    };
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
shutdown: {{ idle_wait: 1s, timeout: 10s }}
listeners:
  web: {{ bind: '127.0.0.1:0', {listener} pool: site }}
pools:
  site: {{ {pool} {check} servers: [{}] }}
",
        servers.join(", ")
    )
}

/// Real servers of these names.
pub(super) fn nginxes<const N: usize>(names: [&str; N]) -> Result<Vec<Nginx>> {
    names.iter().map(|name| Nginx::start(name, "")).collect()
}

pub(super) fn addresses(servers: &[Nginx]) -> Vec<SocketAddr> {
    servers.iter().map(Nginx::address).collect()
}

/// The running balancer, asked as an operator does.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) evenkeel: Evenkeel,
    binary: PathBuf,
}

impl Site {
    pub(super) fn web(&self) -> Result<SocketAddr> {
        self.evenkeel.address("web")
    }

    /// Runs a command that must succeed.
    pub(super) fn ask(&self, args: &[&str]) -> Result<Finished> {
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .args(["--admin", &self.evenkeel.admin_url()?]);
        command.current_dir(self.evenkeel.dir().path());
        for name in ["EVENKEEL_ADMIN", "EVENKEEL_TOKEN", "EVENKEEL_LOG"] {
            command.env_remove(name);
        }
        let finished = run(command, COMMAND_WITHIN)?;
        ensure!(
            finished.code == Some(0),
            "evenkeel {args:?} ended with {:?}: {}{}",
            finished.code,
            finished.text(),
            finished.stderr
        );
        Ok(finished)
    }

    fn admin_get(&self, path: &str) -> Result<String> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = Raw::connect(self.evenkeel.admin()?)?.exchange(request)?;
        ensure!(answer.status == 200, "{answer}");
        Ok(answer.text())
    }

    /// Waits until so many servers have passed their probes: those that nobody has judged yet may
    /// be picked too while there is no better one.
    pub(super) fn wait_healthy(&self, servers: usize) -> Result<()> {
        let healthy = |text: String| text.matches("\"health\":\"healthy\"").count();
        wait_until("all servers are healthy", SOON, || {
            let text = self.admin_get("/api/v1/pools/site/servers");
            text.is_ok_and(|text| healthy(text) == servers)
        })
        .with_context(|| self.evenkeel.log())
    }

    /// The sum of the series that begin so.
    pub(super) fn metric(&self, start: &str) -> Result<f64> {
        let text = self.admin_get("/metrics")?;
        let lines = text.lines().filter(|line| line.starts_with(start));
        let values: Vec<f64> = lines
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        ensure!(!values.is_empty(), "no {start} in:\n{text}");
        Ok(values.iter().sum())
    }

    /// Whether a server of the pool may be picked in its own right.
    pub(super) fn wait_usable(&self, server: SocketAddr, usable: bool) -> Result<()> {
        let series = format!("evenkeel_server_usable{{pool=\"site\",server=\"{server}\"}}");
        self.wait_metric(&series, |value| (value > 0.0) == usable)
            .with_context(|| format!("{server} usable: {usable}"))
    }

    pub(super) fn wait_metric(&self, start: &str, is: impl Fn(f64) -> bool) -> Result<()> {
        wait_until(start, SOON, || self.metric(start).is_ok_and(&is))
            .with_context(|| format!("{:?}; {}", self.metric(start), self.evenkeel.log()))
    }

    /// Resident memory of the process that serves, in MiB.
    pub(super) fn resident_mib(&self) -> Result<f64> {
        Ok(self.metric("process_resident_memory_bytes")? / f64::from(1 << 20))
    }
}

/// A load that runs while things go wrong, and what was promised of it.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) load: Load,
    started: Instant,
    told: Arc<AtomicU64>,
    cut_admitted: bool,
    broken: Vec<String>,
}

impl Trial {
    /// [`CLIENTS`] clients; every answer must be 2xx.
    pub(super) fn start(site: &Site) -> Result<Self> {
        Ok(Self::with(Load::to(site.web()?).clients(CLIENTS), &[]))
    }

    /// A load of its own. An answer made by the balancer for one of `reasons` counts as told, not
    /// as lost.
    pub(super) fn with(plan: LoadPlan, reasons: &'static [&'static str]) -> Self {
        Self::checked(plan, reasons, |_| Ok(()))
    }

    /// The same, where what is 2xx must also be as `check` says.
    pub(super) fn checked(
        plan: LoadPlan,
        reasons: &'static [&'static str],
        check: impl Fn(&Response) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let told = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&told);
        let plan = plan.check(move |answer| {
            let reason = answer.header("x-evenkeel-reason").unwrap_or_default();
            if reasons.contains(&reason) {
                counted.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            ensure!((200..300).contains(&answer.status), "{answer}");
            check(answer)
        });
        Self {
            load: plan.start(),
            started: Instant::now(),
            told,
            cut_admitted: false,
            broken: Vec::new(),
        }
    }

    /// An answer that had begun and was cut by its server counts as cut, not as lost.
    pub(super) fn admit_cut(mut self) -> Self {
        self.cut_admitted = true;
        self
    }

    /// Waits for traffic, so that the last step is seen before the next is taken.
    pub(super) fn traffic(&self, stage: &Stage) -> Result<()> {
        self.load.wait_ok(stage.between(), SOON)
    }

    /// Notes a promise that was not held.
    pub(super) fn promise(&mut self, held: bool, text: impl FnOnce() -> String) {
        if !held {
            self.broken.push(text());
        }
    }

    /// Ends the load and counts. `steps` says what was done, such as "6 kills".
    pub(super) fn end(self, site: &Site, steps: impl Into<String>) -> Result<Outcome> {
        let retried = site.metric("evenkeel_retries_total")?;
        Ok(self.end_with(retried as u64, steps))
    }

    /// The same for a balancer that cannot be asked any more.
    pub(super) fn end_with(self, retried: u64, steps: impl Into<String>) -> Outcome {
        let lasted = self.started.elapsed();
        let report = self.load.stop();
        let told = self.told.load(Ordering::Relaxed);
        let cut = if self.cut_admitted { report.cut } else { 0 };
        let mut outcome = Outcome {
            steps: steps.into(),
            requests: report.ok + report.failed,
            lasted,
            connects: report.connects,
            lost: report.failed - cut,
            told,
            cut,
            retried,
            longest: report.percentile(1.0),
            p99: report.percentile(0.99),
            broken: self.broken,
        };
        outcome.promise(outcome.lost == 0, || format!("requests lost: {report}"));
        outcome.promise(report.ok > told, || "nothing was served".to_owned());
        outcome
    }
}

/// What a scenario found.
#[derive(Debug)]
pub struct Outcome {
    /// What was done, such as "6 kills and restarts".
    pub steps: String,
    /// Requests that were asked, well answered or not.
    pub requests: u64,
    /// How long the load lasted.
    pub lasted: Duration,
    /// Connections that the clients opened; as many as there are clients when none was closed.
    pub connects: u64,
    /// Requests lost against the promise: 0, or it is broken.
    pub lost: u64,
    /// Answered by the balancer with a status and a reason that the promise admits.
    pub told: u64,
    /// Cut after the answer had begun, where the promise admits it.
    pub cut: u64,
    /// Further tries on other servers.
    pub retried: u64,
    /// The longest time to a whole answer.
    pub longest: Duration,
    /// The time that 99 of 100 answers stayed within.
    pub p99: Duration,
    /// Promises that were not held; empty when all is well.
    pub broken: Vec<String>,
}

impl Outcome {
    /// Notes a promise that was not held.
    pub(super) fn promise(&mut self, held: bool, text: impl FnOnce() -> String) {
        if !held {
            self.broken.push(text());
        }
    }

    /// Adds another run of the same.
    pub(super) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.lasted += other.lasted;
        self.connects += other.connects;
        self.lost += other.lost;
        self.told += other.told;
        self.cut += other.cut;
        self.retried += other.retried;
        self.longest = self.longest.max(other.longest);
        self.p99 = self.p99.max(other.p99);
        self.broken.extend(other.broken);
    }

    /// No client's connection was closed.
    pub(super) fn kept(mut self, clients: usize) -> Self {
        let connects = self.connects;
        self.promise(connects == clients as u64, || {
            format!("{clients} clients needed {connects} connections: some were closed")
        });
        self
    }

    /// No answer took longer.
    pub(super) fn within(mut self, longest: Duration) -> Self {
        let took = self.longest;
        self.promise(took <= longest, || {
            format!("an answer took {took:?}, more than {longest:?}")
        });
        self
    }
}

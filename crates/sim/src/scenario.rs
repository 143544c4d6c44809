//! A story: servers, a pool's settings, load, and what happens when.

use std::fmt::{self, Write};
use std::time::Duration;

use balance::State;

/// A story. Times are from its start.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What everything follows from that is drawn while it runs.
    pub seed: u64,
    /// Every server that ever appears.
    pub servers: Vec<ServerPlan>,
    /// How many of them, from the first, the config has at the start.
    pub configured: usize,
    /// As a config says it: "round_robin".
    pub balance: &'static str,
    /// Workers, each with local state of its own; from 1.
    pub workers: usize,
    /// Requests a second, open loop.
    pub rate: f64,
    /// How long requests come.
    pub length: Duration,
    /// The part of requests that may be sent twice, 0 to 1.
    pub idempotent: f64,
    /// Further tries of a request.
    pub attempts: u32,
    /// Percent of the requests that may be retries.
    pub budget: u32,
    /// Active probes; `None` is off.
    pub check: Option<Check>,
    /// For one connection attempt.
    pub connect_timeout: Duration,
    /// From the request to the response.
    pub first_byte_timeout: Duration,
    /// How long a drain waits, that of a removed server too.
    pub drain_timeout: Duration,
    /// What happens, in order of time.
    pub steps: Vec<(Duration, Step)>,
}

/// A server.
#[derive(Debug, Clone)]
pub struct ServerPlan {
    /// In the file; 0 to 1000.
    pub weight: u32,
    /// The mean time of an answer.
    pub latency: Duration,
}

/// How servers are probed.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// An HTTP request; else a TCP connect.
    pub http: bool,
    /// Between two probes of a server that is up.
    pub interval: Duration,
    /// Of a probe.
    pub timeout: Duration,
    /// Successes in a row until a server is up; from 1.
    pub healthy: u32,
    /// Failures in a row until it is down; from 1.
    pub unhealthy: u32,
}

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Condition {
    /// Whether it is there at all.
    pub life: Life,
    /// Its answers take this many times as long; from 1.
    pub slow: f64,
    /// The part of requests that it answers with 503; 0 to 1.
    pub errors: f64,
    /// The part of requests whose connection it ends before a byte of the answer.
    pub resets: f64,
    /// The part of connections whose first packet is lost, so that they take a second more.
    pub losses: f64,
    /// Whether an HTTP probe is answered with 503, whatever requests get.
    pub fails_probes: bool,
}

/// Whether a server is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is.
    Up,
    /// Its process is not: connections are refused, those there were are reset.
    Down,
    /// Its process stands still: connections are made, and nothing comes.
    Frozen,
    /// Its machine cannot be reached: nothing comes at all.
    Unreachable,
}

/// Something that happens.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A server changes.
    Becomes(usize, Condition),
    /// An operator gives a server a state.
    State(usize, State),
    /// An operator gives a server a weight.
    Weight(usize, u32),
    /// An operator drains a server and waits for the receipt.
    Drain(usize, Duration),
    /// A config with these servers, by number and weight.
    Reload(Vec<(usize, u32)>),
}

impl Condition {
    /// A server without a fault.
    pub const WELL: Self = Self {
        life: Life::Up,
        slow: 1.0,
        errors: 0.0,
        resets: 0.0,
        losses: 0.0,
        fails_probes: false,
    };

    /// A server that is not there.
    pub const DOWN: Self = Self {
        life: Life::Down,
        ..Self::WELL
    };

    /// Whether what it does hangs on chance.
    #[must_use]
    pub fn is_noisy(&self) -> bool {
        self.slow != 1.0 || self.errors != 0.0 || self.resets != 0.0 || self.losses != 0.0
    }
}

impl Scenario {
    /// A quiet story: `servers` alike, round robin, 50 requests a second for 20 s. Change what the story is about.
    #[must_use]
    pub fn quiet(servers: usize) -> Self {
        let plan = ServerPlan {
            weight: 1,
            latency: Duration::from_millis(5),
        };
        Self {
            seed: 1,
            servers: vec![plan; servers],
            configured: servers,
            balance: "round_robin",
            workers: 2,
            rate: 50.0,
            length: Duration::from_secs(20),
            idempotent: 1.0,
            attempts: 2,
            budget: 20,
            check: Some(Check {
                http: true,
                interval: Duration::from_secs(2),
                timeout: Duration::from_secs(1),
                healthy: 2,
                unhealthy: 3,
            }),
            connect_timeout: Duration::from_secs(1),
            first_byte_timeout: Duration::from_secs(3),
            drain_timeout: Duration::from_secs(5),
            steps: Vec::new(),
        }
    }

    /// As [`Scenario::quiet`], with something that happens.
    #[must_use]
    pub fn at(mut self, millis: u64, step: Step) -> Self {
        self.steps.push((Duration::from_millis(millis), step));
        self.steps.sort_by_key(|(at, _)| *at);
        self
    }

    /// The name of a server.
    #[must_use]
    pub fn name(server: usize) -> String {
        format!("s{server}")
    }

    /// The server of this name.
    #[must_use]
    pub fn server_of(name: &str) -> Option<usize> {
        name.strip_prefix('s')?.parse().ok()
    }

    /// The servers of the config at the start, by number and weight.
    #[must_use]
    pub fn first_servers(&self) -> Vec<(usize, u32)> {
        let servers = self.servers.iter().take(self.configured).enumerate();
        servers.map(|(at, plan)| (at, plan.weight)).collect()
    }

    /// A config with these servers.
    #[must_use]
    pub fn config(&self, servers: &[(usize, u32)]) -> String {
        let mut text = String::with_capacity(1024);
        text.push_str(
            "listeners: { web: { bind: '127.0.0.1:8080', pool: site } }\npools:\n  site:\n",
        );
        let _ = writeln!(text, "    balance: {}", self.balance);
        // The judge knows of traffic's verdicts only that a refused connection takes a server out until a probe succeeds.
        text.push_str(match self.check {
            Some(_) => {
                "    outlier_detection: { consecutive_gateway_errors: off, success_rate: off, latency: off, degrade: false }\n"
            }
            None => "    outlier_detection: off\n",
        });
        let _ = writeln!(
            text,
            "    retries: {{ attempts: {}, budget: '{}%' }}",
            self.attempts, self.budget
        );
        let _ = writeln!(
            text,
            "    timeouts: {{ connect: {}ms, first_byte: {}ms }}",
            self.connect_timeout.as_millis(),
            self.first_byte_timeout.as_millis()
        );
        let _ = writeln!(
            text,
            "    drain: {{ timeout: {}ms }}",
            self.drain_timeout.as_millis()
        );
        let _ = match &self.check {
            None => writeln!(text, "    health_check: off"),
            Some(check) => writeln!(
                text,
                "    health_check: {{ {}interval: {}ms, timeout: {}ms, healthy_threshold: {}, unhealthy_threshold: {} }}",
                if check.http { "path: /health, " } else { "" },
                check.interval.as_millis(),
                check.timeout.as_millis(),
                check.healthy,
                check.unhealthy
            ),
        };
        text.push_str("    servers:\n");
        for (server, weight) in servers {
            let name = Self::name(*server);
            let _ = writeln!(
                text,
                "      - {{ name: {name}, address: '10.0.0.{}:80', weight: {weight} }}",
                server + 1
            );
        }
        text
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:.0} requests/s for {:.1} s, {:.0} % idempotent, {} workers\n{}",
            self.rate,
            self.length.as_secs_f64(),
            self.idempotent * 100.0,
            self.workers,
            self.config(&self.first_servers())
        )?;
        for (at, step) in &self.steps {
            writeln!(f, "{:9.3} s: {step:?}", at.as_secs_f64())?;
        }
        Ok(())
    }
}

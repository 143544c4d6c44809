//! A story: servers, a pool's settings, load, and what happens when.

use std::fmt::{self, Write};
use std::time::Duration;

use balance::{SlowStart, State};

/// As the config has it by default.
pub(crate) const OVERPROVISION: f64 = 1.4;

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
    /// The pool has this long to come to know its servers before requests come.
    pub warm_up: Duration,
    /// How long it takes until the last request comes.
    pub length: Duration,
    /// The part of requests that may be sent twice, 0 to 1.
    pub idempotent: f64,
    /// Further tries of a request.
    pub attempts: u32,
    /// Percent of the requests that may be retries.
    pub budget: u32,
    /// Active probes; `None` is off.
    pub check: Option<Check>,
    /// How traffic judges servers; `None` is off.
    pub outlier: Option<OutlierPlan>,
    /// Percent: see the config's `panic_threshold`.
    pub panic_threshold: u32,
    /// Whether the zone 0 is this balancer's own, and preferred.
    pub own_zone: bool,
    /// How many times its fair part a server can bear; from 1.
    pub overprovision: f64,
    /// How servers that come later get their weight; `None` is off.
    pub slow_start: Option<SlowStart>,
    /// How servers' limits follow their latency; `None` is off.
    pub adaptive: Option<AdaptivePlan>,
    /// Where requests wait while all servers are full; `None` is off.
    pub queue: Option<QueuePlan>,
    /// Whether requests have priorities, 0 to 9; else all have 5.
    pub priorities: bool,
    /// How long one try has until its answer begins, if another may follow.
    pub per_try: Option<Duration>,
    /// Whether 503 is tried elsewhere.
    pub retries_status: bool,
    /// Bounds of the wait before a further try: the first, and the highest.
    pub backoff: Option<(Duration, Duration)>,
    /// A further try beside one that takes as long, and how many.
    pub hedge: Option<(Duration, u32)>,
    /// What binds clients to servers; `None` is off.
    pub affinity: Option<AffinityPlan>,
    /// Parts of the pool that routes choose by label; a request wants one of them, or the whole pool. Each of them needs a
    /// server in every config. No affinity beside it.
    pub parts: usize,
    /// How often servers' agents are asked; `None` is off.
    pub agents: Option<Duration>,
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
    /// Its group: 0 is used first.
    pub priority: u32,
    /// Used only while no other is fit.
    pub backup: bool,
    /// Where it is, by number.
    pub zone: Option<u32>,
    /// The part that it is of, by number, from 1.
    pub part: Option<usize>,
    /// Requests in use at once.
    pub connections_max: Option<u32>,
}

/// How traffic judges servers.
#[derive(Debug, Clone, Copy)]
pub struct OutlierPlan {
    /// Gateway errors in a row that eject.
    pub gateway_errors: Option<u32>,
    /// Whether a server is ejected for failing more often than the rest.
    pub success_rate: bool,
    /// Whether slow servers get less.
    pub latency: bool,
    /// Whether failing ones get less.
    pub degrade: bool,
    /// What rates are taken over.
    pub interval: Duration,
    /// The first ejection.
    pub ejection: Duration,
    /// The longest.
    pub ejection_max: Duration,
    /// Percent of the servers that may be ejected.
    pub ejected_max: u32,
}

/// What binds clients to servers.
#[derive(Debug, Clone, Copy)]
pub struct AffinityPlan {
    /// A table learns where clients belong; else they carry a cookie.
    pub learnt: bool,
    /// `strength: required`.
    pub required: bool,
    /// `on_drain: move`.
    pub moves: bool,
    /// How long a request waits for its server alone; `None`: not at all.
    pub wait: Option<Duration>,
    /// How many clients come again and again, each with a request at a time; from 1.
    pub clients: usize,
}

/// How the requests that a server may hold follow its latency.
#[derive(Debug, Clone, Copy)]
pub struct AdaptivePlan {
    /// Always let in; from 1.
    pub min: u32,
    /// Never passed; at least `min`.
    pub max: u32,
    /// How often the latency without load is measured.
    pub measure_every: Duration,
}

/// Where requests wait.
#[derive(Debug, Clone, Copy)]
pub struct QueuePlan {
    /// How many at once.
    pub max: u32,
    /// How long each, over all its tries.
    pub wait: Duration,
}

impl OutlierPlan {
    /// Only a refused connection says something.
    pub const REFUSED_ONLY: Self = Self {
        gateway_errors: None,
        success_rate: false,
        latency: false,
        degrade: false,
        interval: Duration::from_secs(10),
        ejection: Duration::from_secs(30),
        ejection_max: Duration::from_secs(300),
        ejected_max: 50,
    };

    /// All of it, over times that fit into a story.
    pub const QUICK: Self = Self {
        gateway_errors: Some(5),
        success_rate: true,
        latency: true,
        degrade: true,
        interval: Duration::from_secs(1),
        ejection: Duration::from_secs(1),
        ejection_max: Duration::from_secs(5),
        ejected_max: 50,
    };
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
    /// Whether an HTTP probe is answered with 200, whatever requests get.
    pub spares_probes: bool,
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
    /// A server's agent says something else from now on: "drain", "maint", "ready", "down", "up", "50%".
    Says(usize, &'static str),
}

impl AffinityPlan {
    fn text(&self) -> String {
        let kind = match self.learnt {
            true => "source: { mode: learn, source_alarm: off, entries: 10000, ",
            false => "cookie: { ",
        };
        let strength = if self.required {
            "required"
        } else {
            "preferred"
        };
        let on_drain = if self.moves { "move" } else { "keep" };
        let wait = match self.wait {
            None => "off".to_owned(),
            Some(wait) => format!("{}ms", wait.as_millis()),
        };
        format!("{{ {kind}strength: {strength}, on_drain: {on_drain}, queue_wait: {wait} }} }}")
    }
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
        spares_probes: false,
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
            priority: 0,
            backup: false,
            zone: None,
            part: None,
            connections_max: None,
        };
        Self {
            seed: 1,
            servers: vec![plan; servers],
            configured: servers,
            balance: "round_robin",
            workers: 2,
            rate: 50.0,
            warm_up: Duration::from_secs(1),
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
            outlier: Some(OutlierPlan::REFUSED_ONLY),
            panic_threshold: 0,
            own_zone: false,
            overprovision: OVERPROVISION,
            slow_start: None,
            adaptive: None,
            queue: None,
            priorities: false,
            per_try: None,
            retries_status: false,
            backoff: None,
            hedge: None,
            affinity: None,
            parts: 0,
            agents: None,
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

    /// How many requests come, about.
    pub(crate) fn requests_about(&self) -> usize {
        (self.rate * self.length.as_secs_f64() * 1.2) as usize + 8
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
        let mut text = String::with_capacity(2048);
        if self.own_zone {
            text.push_str("zone: z0\n");
        }
        text.push_str("listeners: { web: { bind: '127.0.0.1:8080', routes: [");
        for part in 1..=self.parts {
            let _ = write!(
                text,
                " {{ match: {{ path: /p{part} }}, pool: {{ name: site, labels: {{ part: p{part} }} }} }},"
            );
        }
        text.push_str(" { pool: site } ] } }\npools:\n  site:\n");
        let mut line = |key: &str, value: &str| {
            let _ = writeln!(text, "    {key}: {value}");
        };
        line("balance", self.balance);
        line("outlier_detection", &self.outlier_text());
        // Reading takes a good part of a short story: what is so by default is left out.
        if self.panic_threshold > 0 {
            line("panic_threshold", &format!("{}%", self.panic_threshold));
        }
        if self.overprovision != OVERPROVISION {
            line("overprovision", &self.overprovision.to_string());
        }
        if self.own_zone {
            line("zones", "prefer_own");
        }
        if let Some(slow) = &self.slow_start {
            let (millis, floor) = (slow.duration.as_millis(), slow.floor * 100.0);
            let aggression = slow.aggression;
            line(
                "slow_start",
                &format!(
                    "{{ duration: {millis}ms, aggression: {aggression}, floor: {floor:.0}% }}"
                ),
            );
        }
        if let Some(plan) = &self.affinity {
            line("affinity", &plan.text());
        }
        if let Some(AdaptivePlan {
            min,
            max,
            measure_every,
        }) = self.adaptive
        {
            let every = measure_every.as_millis();
            line(
                "adaptive_concurrency",
                &format!("{{ min: {min}, max: {max}, measure_every: {every}ms }}"),
            );
        }
        line("limits", &self.limits_text());
        line("retries", &self.retries_text());
        if let Some((after, max)) = self.hedge {
            line(
                "hedge",
                &format!("{{ after: {}ms, max: {max} }}", after.as_millis()),
            );
        }
        line(
            "timeouts",
            &format!(
                "{{ connect: {}ms, first_byte: {}ms }}",
                self.connect_timeout.as_millis(),
                self.first_byte_timeout.as_millis()
            ),
        );
        let drain = self.drain_timeout.as_millis();
        line("drain", &format!("{{ timeout: {drain}ms }}"));
        if let Some(interval) = self.agents {
            line(
                "agent_check",
                &format!("{{ port: 9999, interval: {}ms }}", interval.as_millis()),
            );
        }
        line("health_check", &self.check_text());
        text.push_str("    servers:\n");
        for (server, weight) in servers {
            self.write_server(&mut text, *server, *weight);
        }
        text
    }

    fn outlier_text(&self) -> String {
        let Some(plan) = &self.outlier else {
            return "off".to_owned();
        };
        let off_or = |is_on: bool| if is_on { "{ min_requests: 20 }" } else { "off" };
        format!(
            "{{ consecutive_gateway_errors: {}, success_rate: {}, latency: {}, degrade: {}, interval: {}ms, \
             ejection_time: {}ms, max_ejection_time: {}ms, max_ejected: {}% }}",
            plan.gateway_errors
                .map_or_else(|| "off".to_owned(), |count| count.to_string()),
            off_or(plan.success_rate),
            off_or(plan.latency),
            plan.degrade,
            plan.interval.as_millis(),
            plan.ejection.as_millis(),
            plan.ejection_max.as_millis(),
            plan.ejected_max,
        )
    }

    fn limits_text(&self) -> String {
        match &self.queue {
            None => "{ queue: off }".to_owned(),
            Some(QueuePlan { max, wait }) => {
                format!("{{ queue: {max}, queue_wait: {}ms }}", wait.as_millis())
            }
        }
    }

    fn retries_text(&self) -> String {
        let mut text = format!("{{ attempts: {}, budget: '{}%'", self.attempts, self.budget);
        if let Some(per_try) = self.per_try {
            let _ = write!(text, ", per_try_timeout: {}ms", per_try.as_millis());
        }
        if self.retries_status {
            text.push_str(", on: 503");
        }
        if let Some((base, max)) = self.backoff {
            let (base, max) = (base.as_millis(), max.as_millis());
            let _ = write!(text, ", backoff: {{ base: {base}ms, max: {max}ms }}");
        }
        text.push_str(" }");
        text
    }

    fn check_text(&self) -> String {
        let Some(check) = &self.check else {
            return "off".to_owned();
        };
        format!(
            "{{ {}interval: {}ms, timeout: {}ms, healthy_threshold: {}, unhealthy_threshold: {} }}",
            if check.http { "path: /health, " } else { "" },
            check.interval.as_millis(),
            check.timeout.as_millis(),
            check.healthy,
            check.unhealthy
        )
    }

    fn write_server(&self, text: &mut String, server: usize, weight: u32) {
        let name = Self::name(server);
        let _ = write!(
            text,
            "      - {{ name: {name}, address: '10.0.0.{}:80'",
            server + 1
        );
        if weight != 1 {
            let _ = write!(text, ", weight: {weight}");
        }
        if let Some(plan) = self.servers.get(server) {
            if plan.priority > 0 {
                let _ = write!(text, ", priority: {}", plan.priority);
            }
            if plan.backup {
                text.push_str(", backup: true");
            }
            if let Some(zone) = plan.zone {
                let _ = write!(text, ", zone: z{zone}");
            }
            if let Some(part) = plan.part {
                let _ = write!(text, ", labels: {{ part: p{part} }}");
            }
            if let Some(max) = plan.connections_max {
                let _ = write!(text, ", max_connections: {max}");
            }
        }
        text.push_str(" }\n");
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

//! Scenarios drawn from a seed: which pool, which load, and which faults.
//!
//! Most stories are [short](SHORT): few servers, few requests, everything close together. They find most of what is
//! wrong, soon, and in a few lines. Every sixteenth is [long](LONG), for what takes its time: ejections that grow and
//! decay, rates over a window, slow starts, shares.

use std::time::Duration;

use balance::{SlowStart, State};

use crate::random::Random;
use crate::scenario::{
    AdaptivePlan, AffinityPlan, Check, Condition, Life, OutlierPlan, QueuePlan, Scenario,
    ServerPlan, Step,
};

/// A story in so many is long.
const LONG_EVERY: u64 = 16;

/// How a story is told.
struct Form {
    /// In the config at the start, at most.
    configured_max: u32,
    /// Others that a reload may bring, at most.
    spare_max: u32,
    /// Milliseconds.
    length: (u32, u32),
    /// Of them, those before the first request.
    warm_up: u32,
    requests: (u32, u32),
    /// Faults come after this many milliseconds, when all servers are known.
    first_fault: u32,
    troubles: (u32, u32),
    /// What times of settings and faults are multiplied by.
    pace: f64,
}

const LONG: Form = Form {
    configured_max: 6,
    spare_max: 2,
    length: (12_000, 30_000),
    warm_up: 1000,
    requests: (300, 1000),
    first_fault: 3000,
    troubles: (0, 4),
    pace: 1.0,
};

const SHORT: Form = Form {
    configured_max: 3,
    spare_max: 1,
    length: (500, 2200),
    warm_up: 200,
    requests: (20, 60),
    first_fault: 250,
    troubles: (1, 4),
    pace: 0.12,
};

impl Form {
    /// Of the story of a seed.
    fn of(seed: u64) -> &'static Self {
        if Scenario::is_long(seed) {
            &LONG
        } else {
            &SHORT
        }
    }

    /// A time from `low` to `high` milliseconds, at its pace; in whole milliseconds, as a config has them.
    fn time(&self, random: &mut Random, low: u32, high: u32) -> Duration {
        let millis = f64::from(random.between(low, high)) * self.pace;
        Duration::from_millis(millis.max(1.0) as u64)
    }
}

/// What may befall a pool.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Crash,
    CrashForGood,
    Flap,
    Slow,
    Lossy,
    Grey,
    Freeze,
    Unreachable,
    SickProbes,
    Drain,
    Disable,
    Weight,
    Reload,
    Rolling,
    Storm,
    ZoneLost,
    Deaf,
    OwnWord,
}

const TROUBLES: &[(u32, Trouble)] = &[
    (4, Trouble::Crash),
    (1, Trouble::CrashForGood),
    (2, Trouble::Flap),
    (2, Trouble::Slow),
    (2, Trouble::Lossy),
    (2, Trouble::Grey),
    (2, Trouble::Freeze),
    (2, Trouble::Unreachable),
    (1, Trouble::SickProbes),
    (3, Trouble::Drain),
    (2, Trouble::Disable),
    (2, Trouble::Weight),
    (3, Trouble::Reload),
    (1, Trouble::Rolling),
    (1, Trouble::Storm),
    (1, Trouble::ZoneLost),
    (2, Trouble::Deaf),
    (2, Trouble::OwnWord),
];

/// What an agent may say.
const WORDS: &[(u32, &str)] = &[
    (2, "drain"),
    (1, "maint"),
    (1, "down"),
    (2, "50%"),
    (1, "0%"),
];

const BALANCES: &[(u32, &str)] = &[
    (8, "round_robin"),
    (6, "power_of_two"),
    (4, "least_connections"),
    (3, "random"),
    (2, "consistent_hash"),
    (1, "ip_hash"),
    (2, "peak_ewma"),
    (2, "least_response_time"),
];

impl Scenario {
    /// Whether the story of this seed is a long one.
    #[must_use]
    pub fn is_long(seed: u64) -> bool {
        seed.is_multiple_of(LONG_EVERY)
    }

    /// The story of a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let form = Form::of(seed);
        let random = &mut Random::new(seed);
        let configured = random.between(1, form.configured_max) as usize;
        let spare = random.between(0, form.spare_max) as usize;
        let even = random.chance(0.6);
        let servers = (0..configured + spare)
            .map(|_| ServerPlan {
                weight: if even { 1 } else { random.between(0, 4) },
                latency: random.time(Duration::from_millis(1), Duration::from_millis(20)),
                priority: 0,
                backup: false,
                zone: None,
                part: None,
                connections_max: None,
            })
            .collect();
        let length = random.between(form.length.0, form.length.1);
        let requests = random.between(form.requests.0, form.requests.1);
        let busy = f64::from(length - form.warm_up) / 1000.0;
        let length = Duration::from_millis(length.into());
        let mut scenario = Self {
            seed,
            servers,
            configured,
            outlier: outlier(form, random),
            balance: random.one_of(BALANCES, "maglev"),
            workers: random.between(1, 4) as usize,
            rate: f64::from(requests) / busy,
            warm_up: Duration::from_millis(form.warm_up.into()),
            length,
            idempotent: random.one_of(&[(2, 1.0), (1, 0.8), (1, 0.3)], 1.0),
            attempts: random.between(0, 3),
            budget: random.one_of(&[(3, 20), (1, 0), (1, 100)], 20),
            check: check(form, random),
            connect_timeout: form.time(random, 200, 2000),
            first_byte_timeout: form.time(random, 1000, 4000),
            drain_timeout: form.time(random, 500, 8000),
            ..Self::quiet(0)
        };
        scenario.draw_settings(form, random);
        for _ in 0..random.between(form.troubles.0, form.troubles.1) {
            let trouble = random.one_of(TROUBLES, Trouble::Crash);
            scenario.draw(trouble, form, random);
        }
        scenario.steps.sort_by_key(|(at, _)| *at);
        scenario
    }

    /// Of what a pool may have, each story has a few things.
    fn draw_settings(&mut self, form: &Form, random: &mut Random) {
        if random.chance(0.2) {
            self.panic_threshold = random.between(1, 100);
        }
        if random.chance(0.25) {
            for plan in &mut self.servers {
                plan.priority = random.one_of(&[(3, 0), (2, 1)], 2);
            }
        }
        if random.chance(0.2) {
            for plan in &mut self.servers {
                plan.backup = random.chance(0.3);
            }
        }
        if random.chance(0.25) {
            self.own_zone = true;
            for plan in &mut self.servers {
                plan.zone = random.one_of(&[(3, Some(0)), (3, Some(1)), (1, Some(2))], None);
            }
        }
        self.overprovision = random.one_of(&[(2, 1.4), (1, 1.0)], 2.0);
        if random.chance(0.3) {
            self.slow_start = Some(SlowStart {
                duration: form.time(random, 200, 8000),
                aggression: random.one_of(&[(2, 1.0), (1, 2.0)], 0.5),
                floor: random.one_of(&[(2, 0.1), (1, 0.01)], 0.5),
            });
        }
        if random.chance(0.35) {
            self.draw_limits(form, random);
        }
        if random.chance(0.15) {
            let min = random.between(1, 4);
            self.adaptive = Some(AdaptivePlan {
                min,
                max: min + random.one_of(&[(1, 0), (2, 5)], 100),
                measure_every: form.time(random, 2000, 20_000),
            });
        }
        if random.chance(0.25) {
            self.per_try = Some(form.time(random, 30, 1500));
        }
        self.retries_status = random.chance(0.25);
        if random.chance(0.2) {
            let base = form.time(random, 1, 50);
            self.backoff = Some((base, base * random.between(1, 6)));
        }
        if random.chance(0.2) {
            self.hedge = Some((form.time(random, 5, 300), random.between(1, 3)));
        }
        if random.chance(0.3) {
            self.affinity = Some(AffinityPlan {
                learnt: random.chance(0.5),
                required: random.chance(0.3),
                moves: random.chance(0.3),
                wait: random.chance(0.7).then(|| form.time(random, 20, 3000)),
                clients: random.between(1, 40) as usize,
            });
        }
        if random.chance(0.15) {
            self.agents = Some(form.time(random, 200, 2000));
        }
        self.draw_parts();
    }

    /// Routes choose servers by label; the first servers are of one part each, so that none is empty at the start. What is
    /// drawn of a seed beside this is what it was before there were parts.
    fn draw_parts(&mut self) {
        let random = &mut Random::new(!self.seed);
        if self.affinity.is_some() || !random.chance(0.25) {
            return;
        }
        self.parts = random.between(1, self.configured.min(3) as u32) as usize;
        for (server, plan) in self.servers.iter_mut().enumerate() {
            let any = random.below(self.parts + 1);
            let part = if server < self.parts { server + 1 } else { any };
            plan.part = (part > 0).then_some(part);
        }
    }

    /// Few slots for the load that there is, so that requests wait.
    fn draw_limits(&mut self, form: &Form, random: &mut Random) {
        let each = random.between(1, 4);
        let busy = 0.3 + 1.2 * random.unit();
        let slots = f64::from(each) * self.configured as f64;
        for plan in &mut self.servers {
            let part = 0.5 + random.unit();
            plan.latency = Duration::from_secs_f64(busy * part * slots / self.rate);
            plan.connections_max = random.chance(0.9).then_some(each);
        }
        self.priorities = random.chance(0.5);
        if random.chance(0.8) {
            self.queue = Some(QueuePlan {
                max: random.one_of(&[(1, 1), (2, 8)], 1000),
                wait: form.time(random, 50, 5000),
            });
        }
    }

    fn draw(&mut self, trouble: Trouble, form: &Form, random: &mut Random) {
        let server = random.below(self.servers.len());
        let at = random.time(Duration::from_millis(form.first_fault.into()), self.length);
        let lasts = random.time(Duration::from_millis(50), self.length / 2);
        let well = Condition::WELL;
        let condition = match trouble {
            Trouble::Crash => Condition::DOWN,
            Trouble::Slow => Condition {
                slow: f64::from(random.between(2, 400)),
                ..well
            },
            Trouble::Lossy => Condition {
                resets: random.unit(),
                losses: random.one_of(&[(1, 0.0), (1, 0.1)], 0.5),
                ..well
            },
            Trouble::Grey => Condition {
                errors: random.one_of(&[(1, 0.001), (2, 0.15), (1, 0.5)], 1.0),
                ..well
            },
            Trouble::Freeze => Condition {
                life: Life::Frozen,
                ..well
            },
            Trouble::Unreachable => Condition {
                life: Life::Unreachable,
                ..well
            },
            other => return self.draw_more(other, server, (at, lasts), form, random),
        };
        self.fault(server, condition, at, lasts);
    }

    /// Those that are more than one server with one fault.
    fn draw_more(
        &mut self,
        trouble: Trouble,
        server: usize,
        (at, lasts): (Duration, Duration),
        form: &Form,
        random: &mut Random,
    ) {
        let all = 0..self.servers.len();
        match trouble {
            Trouble::CrashForGood => {
                self.steps
                    .push((at, Step::Becomes(server, Condition::DOWN)));
            }
            Trouble::Flap => {
                let up = form.time(random, 20, 3000);
                let down = form.time(random, 20, 3000);
                for cycle in 0..random.between(2, 8) {
                    self.fault(server, Condition::DOWN, at + (up + down) * cycle, down);
                }
            }
            Trouble::SickProbes => {
                let sick = Condition {
                    fails_probes: true,
                    ..Condition::WELL
                };
                all.for_each(|server| self.fault(server, sick, at, lasts));
            }
            Trouble::Storm => {
                let lossy = Condition {
                    resets: random.unit(),
                    ..Condition::WELL
                };
                all.for_each(|server| self.fault(server, lossy, at, lasts));
            }
            Trouble::ZoneLost => {
                let zone = self.servers.get(server).and_then(|plan| plan.zone);
                let gone = random.one_of(&[(1, Life::Down), (1, Life::Unreachable)], Life::Frozen);
                let lost = Condition {
                    life: gone,
                    ..Condition::WELL
                };
                let there = |it: &usize| self.servers.get(*it).is_some_and(|it| it.zone == zone);
                let servers: Vec<usize> = all.filter(there).collect();
                for server in servers {
                    self.fault(server, lost, at, lasts);
                }
            }
            // It answers its probes, and no request.
            Trouble::Deaf => {
                let deaf = Condition {
                    errors: random.one_of(&[(1, 0.3), (1, 0.6)], 1.0),
                    spares_probes: true,
                    ..Condition::WELL
                };
                self.fault(server, deaf, at, lasts);
            }
            Trouble::OwnWord => {
                let word = random.one_of(WORDS, "maint");
                self.steps.push((at, Step::Says(server, word)));
                let back = if word == "down" { "up" } else { "ready 100%" };
                self.steps.push((at + lasts, Step::Says(server, back)));
            }
            Trouble::Drain => {
                let timeout = form.time(random, 10, 5000);
                self.steps.push((at, Step::Drain(server, timeout)));
                self.steps
                    .push((at + lasts, Step::State(server, State::Ready)));
            }
            Trouble::Disable => {
                self.steps.push((at, Step::State(server, State::Disabled)));
                self.steps
                    .push((at + lasts, Step::State(server, State::Ready)));
            }
            Trouble::Weight => {
                let weight = random.between(0, 5);
                self.steps.push((at, Step::Weight(server, weight)));
            }
            Trouble::Reload => {
                let servers = self.some_servers(random);
                self.steps.push((at, Step::Reload(servers)));
            }
            Trouble::Rolling => self.rolling_deploy(at, form, random),
            _ => {}
        }
    }

    /// Each server in turn is drained, goes down, comes up and is enabled again.
    fn rolling_deploy(&mut self, from: Duration, form: &Form, random: &mut Random) {
        let restart = form.time(random, 20, 800);
        let pause = form.time(random, 100, 2000);
        let mut at = from;
        for server in 0..self.configured {
            self.steps.push((at, Step::Drain(server, restart)));
            self.fault(server, Condition::DOWN, at + restart, restart);
            at += restart * 2 + pause;
            self.steps.push((at, Step::State(server, State::Ready)));
        }
    }

    /// Another config: at least one server, and one of each part, some of them with other weights.
    fn some_servers(&self, random: &mut Random) -> Vec<(usize, u32)> {
        let mut kept = vec![random.below(self.servers.len())];
        for part in 1..=self.parts {
            let all = self.servers.iter().enumerate();
            let of: Vec<usize> = all
                .filter(|(_, plan)| plan.part == Some(part))
                .map(|(server, _)| server)
                .collect();
            let one = random.below(of.len());
            kept.extend(of.get(one));
        }
        let mut servers = Vec::new();
        for (server, plan) in self.servers.iter().enumerate() {
            if !kept.contains(&server) && random.chance(0.3) {
                continue;
            }
            let weight = if random.chance(0.2) {
                random.between(0, 5)
            } else {
                plan.weight
            };
            servers.push((server, weight));
        }
        servers
    }

    fn fault(&mut self, server: usize, condition: Condition, at: Duration, lasts: Duration) {
        self.steps.push((at, Step::Becomes(server, condition)));
        let well = Step::Becomes(server, Condition::WELL);
        self.steps.push((at + lasts, well));
    }
}

fn outlier(form: &Form, random: &mut Random) -> Option<OutlierPlan> {
    if random.chance(0.1) {
        return None;
    }
    if random.chance(0.15) {
        return Some(OutlierPlan::REFUSED_ONLY);
    }
    let ejection = form.time(random, 300, 6000);
    Some(OutlierPlan {
        gateway_errors: random.one_of(&[(4, Some(5)), (2, Some(2))], None),
        success_rate: random.chance(0.6),
        latency: random.chance(0.5),
        degrade: random.chance(0.7),
        interval: form.time(random, 500, 5000),
        ejection,
        ejection_max: ejection * random.between(1, 6),
        ejected_max: random.one_of(&[(3, 50), (1, 10), (1, 0)], 100),
    })
}

fn check(form: &Form, random: &mut Random) -> Option<Check> {
    if random.chance(0.1) {
        return None;
    }
    let interval = form.time(random, 300, 5000);
    Some(Check {
        http: random.chance(0.7),
        interval,
        timeout: interval
            .mul_f64(random.unit())
            .max(Duration::from_secs_f64(0.1 * form.pace)),
        healthy: random.between(1, 3),
        unhealthy: random.between(1, 4),
    })
}

//! Scenarios drawn from a seed: which pool, which load, and which faults.

use std::time::Duration;

use balance::{SlowStart, State};

use crate::random::Random;
use crate::scenario::{
    AffinityPlan, Check, Condition, Life, OutlierPlan, QueuePlan, Scenario, ServerPlan, Step,
};

/// Faults come after this long, when all servers are known.
const FIRST_FAULT: Duration = Duration::from_secs(3);
/// Servers at most, spare ones included.
const SERVERS_MAX: u32 = 8;

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
    /// The story of a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let configured = random.between(1, SERVERS_MAX - 2) as usize;
        let spare = random.between(0, 2) as usize;
        let even = random.chance(0.6);
        let servers = (0..configured + spare)
            .map(|_| ServerPlan {
                weight: if even { 1 } else { random.between(0, 4) },
                latency: random.time(Duration::from_millis(1), Duration::from_millis(20)),
                priority: 0,
                backup: false,
                zone: None,
                connections_max: None,
            })
            .collect();
        let length = random.time(Duration::from_secs(12), Duration::from_secs(30));
        let requests = random.between(300, 1000);
        let mut scenario = Self {
            seed,
            servers,
            configured,
            outlier: outlier(random),
            balance: random.one_of(BALANCES, "maglev"),
            workers: random.between(1, 4) as usize,
            rate: f64::from(requests) / length.as_secs_f64(),
            length,
            idempotent: random.one_of(&[(2, 1.0), (1, 0.8), (1, 0.3)], 1.0),
            attempts: random.between(0, 3),
            budget: random.one_of(&[(3, 20), (1, 0), (1, 100)], 20),
            check: check(random),
            connect_timeout: Duration::from_millis(random.between(200, 2000).into()),
            first_byte_timeout: Duration::from_millis(random.between(1000, 4000).into()),
            drain_timeout: Duration::from_millis(random.between(500, 8000).into()),
            ..Self::quiet(0)
        };
        scenario.draw_settings(random);
        for _ in 0..random.between(0, 4) {
            let trouble = random.one_of(TROUBLES, Trouble::Crash);
            scenario.draw(trouble, random);
        }
        scenario.steps.sort_by_key(|(at, _)| *at);
        scenario
    }

    /// Of what a pool may have, each story has a few things.
    fn draw_settings(&mut self, random: &mut Random) {
        let millis = |random: &mut Random, low, high| {
            Duration::from_millis(random.between(low, high).into())
        };
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
                duration: millis(random, 200, 8000),
                aggression: random.one_of(&[(2, 1.0), (1, 2.0)], 0.5),
                floor: random.one_of(&[(2, 0.1), (1, 0.01)], 0.5),
            });
        }
        if random.chance(0.35) {
            self.draw_limits(random);
        }
        if random.chance(0.25) {
            self.per_try = Some(millis(random, 30, 1500));
        }
        self.retries_status = random.chance(0.25);
        if random.chance(0.2) {
            let base = millis(random, 1, 50);
            self.backoff = Some((base, base * random.between(1, 6)));
        }
        if random.chance(0.2) {
            self.hedge = Some((millis(random, 5, 300), random.between(1, 3)));
        }
        if random.chance(0.3) {
            self.affinity = Some(AffinityPlan {
                learnt: random.chance(0.5),
                required: random.chance(0.3),
                moves: random.chance(0.3),
                wait: random.chance(0.7).then(|| millis(random, 20, 3000)),
                clients: random.between(1, 40) as usize,
            });
        }
        if random.chance(0.15) {
            self.agents = Some(millis(random, 200, 2000));
        }
    }

    /// Few slots for the load that there is, so that requests wait.
    fn draw_limits(&mut self, random: &mut Random) {
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
                wait: random.time(Duration::from_millis(50), Duration::from_secs(5)),
            });
        }
    }

    fn draw(&mut self, trouble: Trouble, random: &mut Random) {
        let server = random.below(self.servers.len());
        let at = random.time(FIRST_FAULT, self.length);
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
            other => return self.draw_more(other, server, at, lasts, random),
        };
        self.fault(server, condition, at, lasts);
    }

    /// Those that are more than one server with one fault.
    fn draw_more(
        &mut self,
        trouble: Trouble,
        server: usize,
        at: Duration,
        lasts: Duration,
        random: &mut Random,
    ) {
        let all = 0..self.servers.len();
        match trouble {
            Trouble::CrashForGood => {
                self.steps
                    .push((at, Step::Becomes(server, Condition::DOWN)));
            }
            Trouble::Flap => {
                let up = random.time(Duration::from_millis(20), Duration::from_secs(3));
                let down = random.time(Duration::from_millis(20), Duration::from_secs(3));
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
                let timeout = random.time(Duration::from_millis(10), Duration::from_secs(5));
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
            Trouble::Rolling => self.rolling_deploy(at, random),
            _ => {}
        }
    }

    /// Each server in turn is drained, goes down, comes up and is enabled again.
    fn rolling_deploy(&mut self, from: Duration, random: &mut Random) {
        let restart = random.time(Duration::from_millis(20), Duration::from_millis(800));
        let pause = random.time(Duration::from_millis(100), Duration::from_secs(2));
        let mut at = from;
        for server in 0..self.configured {
            self.steps.push((at, Step::Drain(server, restart)));
            self.fault(server, Condition::DOWN, at + restart, restart);
            at += restart * 2 + pause;
            self.steps.push((at, Step::State(server, State::Ready)));
        }
    }

    /// Another config: at least one server, some of them with other weights.
    fn some_servers(&self, random: &mut Random) -> Vec<(usize, u32)> {
        let kept = random.below(self.servers.len());
        let mut servers = Vec::new();
        for (server, plan) in self.servers.iter().enumerate() {
            if server != kept && random.chance(0.3) {
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

fn outlier(random: &mut Random) -> Option<OutlierPlan> {
    if random.chance(0.1) {
        return None;
    }
    if random.chance(0.15) {
        return Some(OutlierPlan::REFUSED_ONLY);
    }
    let ejection = random.time(Duration::from_millis(300), Duration::from_secs(6));
    let whole = |time: Duration| Duration::from_millis(time.as_millis() as u64);
    Some(OutlierPlan {
        gateway_errors: random.one_of(&[(4, Some(5)), (2, Some(2))], None),
        success_rate: random.chance(0.6),
        latency: random.chance(0.5),
        degrade: random.chance(0.7),
        interval: whole(random.time(Duration::from_millis(500), Duration::from_secs(5))),
        ejection: whole(ejection),
        ejection_max: whole(ejection * random.between(1, 6)),
        ejected_max: random.one_of(&[(3, 50), (1, 10), (1, 0)], 100),
    })
}

fn check(random: &mut Random) -> Option<Check> {
    if random.chance(0.1) {
        return None;
    }
    let interval = random.time(Duration::from_millis(300), Duration::from_secs(5));
    Some(Check {
        http: random.chance(0.7),
        interval,
        timeout: interval
            .mul_f64(random.unit())
            .max(Duration::from_millis(100)),
        healthy: random.between(1, 3),
        unhealthy: random.between(1, 4),
    })
}

//! Simulated servers and the network before them.

use std::time::Duration;

use balance::health::{Cause, Outcome};
use config::HealthCheck;

use crate::random::Random;
use crate::scenario::{Condition, Life};

/// There and back.
pub(crate) const ROUND_TRIP: Duration = Duration::from_micros(200);
/// The first packet of a connection that was lost is sent again after this (RFC 6298 §2).
const LOST: Duration = Duration::from_secs(1);

/// A server.
#[derive(Debug)]
pub(crate) struct Host {
    latency: Duration,
    pub(crate) condition: Condition,
    /// How often its connections have all ended.
    pub(crate) lives: u32,
    /// When they did last.
    pub(crate) died: Duration,
    /// What its agent says.
    pub(crate) says: &'static str,
}

/// How an attempt to connect ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connecting {
    Made,
    Refused,
    TimedOut,
}

/// What a server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answering {
    Status(u16),
    Ended { reset: bool },
}

impl Host {
    pub(crate) fn new(latency: Duration) -> Self {
        Self {
            latency,
            condition: Condition::WELL,
            lives: 0,
            died: Duration::ZERO,
            says: "ready",
        }
    }

    /// Takes on another condition; true when its connections end by that.
    pub(crate) fn turn(&mut self, condition: Condition, now: Duration) -> bool {
        let dies = condition.life == Life::Down && self.condition.life != Life::Down;
        self.condition = condition;
        if dies {
            self.lives += 1;
            self.died = now;
        }
        dies
    }

    /// The life whose end workers know of: a hang-up is on its way for half a round trip.
    pub(crate) fn seen_dead(&self, now: Duration) -> Option<u32> {
        let latest = self.lives.checked_sub(1)?;
        if now >= self.died + ROUND_TRIP / 2 {
            Some(latest)
        } else {
            latest.checked_sub(1)
        }
    }

    /// A connection attempt: how long it takes, and how it ends.
    pub(crate) fn connect(&self, timeout: Duration, random: &mut Random) -> (Duration, Connecting) {
        match self.condition.life {
            Life::Down => (ROUND_TRIP, Connecting::Refused),
            Life::Unreachable => (timeout, Connecting::TimedOut),
            Life::Up | Life::Frozen if random.chance(self.condition.losses) => {
                let took = LOST + ROUND_TRIP;
                if took < timeout {
                    (took, Connecting::Made)
                } else {
                    (timeout, Connecting::TimedOut)
                }
            }
            Life::Up | Life::Frozen => (ROUND_TRIP, Connecting::Made),
        }
    }

    /// What it does with a request, while it runs, and after how long.
    pub(crate) fn answer(&self, random: &mut Random) -> (Duration, Answering) {
        let took = self.takes(random);
        if random.chance(self.condition.resets) {
            let reset = random.chance(0.5);
            return (took.mul_f64(random.unit()), Answering::Ended { reset });
        }
        let bad = random.chance(self.condition.errors);
        (took, Answering::Status(if bad { 503 } else { 200 }))
    }

    /// How long a probe takes, and what comes of it.
    pub(crate) fn probe(&self, check: &HealthCheck, random: &mut Random) -> (Duration, Outcome) {
        let timeout = check.timeout;
        let timed_out = Outcome::Failure(Cause::TimedOut { after: timeout });
        let (connected, connecting) = self.connect(timeout, random);
        match connecting {
            Connecting::Refused => return (connected, Outcome::Failure(Cause::Refused)),
            Connecting::TimedOut => return (connected, timed_out),
            Connecting::Made => {}
        }
        if check.probe == config::Probe::Tcp {
            return (connected, Outcome::Success);
        }
        let (took, answering) = self.answer(random);
        let took = connected + took;
        if self.condition.life == Life::Frozen || took >= timeout {
            return (timeout, timed_out);
        }
        let outcome = match answering {
            Answering::Ended { .. } => Outcome::Failure(Cause::Closed),
            Answering::Status(_) if self.condition.spares_probes => Outcome::Success,
            Answering::Status(status) if status != 200 || self.condition.fails_probes => {
                Outcome::Failure(Cause::Status {
                    status: 503,
                    expected: "200-299".into(),
                })
            }
            Answering::Status(_) => Outcome::Success,
        };
        (took, outcome)
    }

    /// What its agent answers, if it does, and after how long.
    pub(crate) fn agent(&self) -> (Duration, Option<&'static str>) {
        let answers = matches!(self.condition.life, Life::Up);
        (ROUND_TRIP * 2, answers.then_some(self.says))
    }

    fn takes(&self, random: &mut Random) -> Duration {
        let own = self.latency.mul_f64(self.condition.slow);
        // Half of it always, the rest by chance, but never beyond all bounds.
        ROUND_TRIP + own / 2 + random.exponential(own / 2).min(own * 4)
    }
}

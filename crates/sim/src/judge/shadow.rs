//! The model: what is known of each server, from what the publisher was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use balance::State;
use balance::health::{Outcome, Verdict};
use control::live::{Member, PoolView};
use control::message::Event;

use super::{Rule, Tried};
use crate::scenario::{Check, Condition, Scenario};

/// How often a server may come and go for each thing that happens.
const FLIPS_EACH: u64 = 3;

/// How long a server that refused a connection is out, where there are no probes.
const REFUSED_OUT: Duration = Duration::from_secs(3);

/// Every member that there ever was.
pub(super) struct Shadow {
    check: Option<Check>,
    drain_timeout: Duration,
    longest_drain: Duration,
    members: BTreeMap<u32, Known>,
    /// Weights of the file, and operators' words until it changes.
    configured: BTreeMap<usize, u32>,
    usable: BTreeSet<u32>,
    /// Times that a server entered or left service, as published.
    flips: BTreeMap<u32, u64>,
    happened: u64,
    noisy: bool,
    verdicts: u64,
}

/// What is known of one member.
struct Known {
    server: usize,
    state: State,
    weight: u32,
    gone: bool,
    verdict: Verdict,
    answers: bool,
    successes: u32,
    failures: u32,
    needed: u32,
    /// When any of it changed last.
    changed: Duration,
    /// What runs on it may be cut from then on.
    cut_from: Option<Duration>,
}

impl Known {
    /// How fit to serve: smaller is better; `None`: not at all.
    fn rank(&self) -> Option<u8> {
        if self.gone || self.state != State::Ready || self.weight == 0 {
            return None;
        }
        Some(match self.verdict {
            Verdict::Healthy => 0,
            Verdict::Unknown => 1,
            Verdict::Unhealthy if self.answers => 2,
            Verdict::Unhealthy => 3,
        })
    }
}

impl Shadow {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            check: scenario.check,
            drain_timeout: scenario.drain_timeout,
            longest_drain: Duration::ZERO,
            members: BTreeMap::new(),
            configured: scenario.first_servers().into_iter().collect(),
            usable: BTreeSet::new(),
            flips: BTreeMap::new(),
            happened: 0,
            noisy: false,
            verdicts: 0,
        }
    }

    /// A member that is seen for the first time.
    pub(super) fn add(&mut self, now: Duration, member: &Arc<Member>) {
        let Some(server) = Scenario::server_of(&member.name) else {
            return;
        };
        let weight = self.configured.get(&server).copied().unwrap_or(0);
        let verdict = match self.check {
            Some(_) => Verdict::Unknown,
            None => Verdict::Healthy,
        };
        self.members.entry(member.id).or_insert(Known {
            server,
            state: State::Ready,
            weight,
            gone: false,
            verdict,
            answers: verdict == Verdict::Healthy,
            successes: 0,
            failures: 0,
            needed: 1,
            changed: now,
            cut_from: None,
        });
    }

    /// A config with these servers: the others are gone, and a weight that the file changes ends an operator's.
    pub(super) fn reload(&mut self, now: Duration, servers: &[(usize, u32)]) {
        self.happened += 1;
        let before = std::mem::take(&mut self.configured);
        self.configured = servers.iter().copied().collect();
        for known in self.members.values_mut().filter(|it| !it.gone) {
            match self.configured.get(&known.server) {
                None => {
                    known.gone = true;
                    known.cut_from = Some(now + self.drain_timeout);
                    known.changed = now;
                }
                Some(weight) if before.get(&known.server) != Some(weight) => {
                    known.weight = *weight;
                    known.changed = now;
                }
                Some(_) => {}
            }
        }
    }

    pub(super) fn set_state(&mut self, now: Duration, server: usize, state: State) {
        self.happened += 1;
        if let Some(known) = self.of(server) {
            known.state = state;
            known.changed = now;
            known.cut_from = None;
        }
    }

    pub(super) fn set_weight(&mut self, now: Duration, server: usize, weight: u32) {
        self.happened += 1;
        if let Some(known) = self.of(server) {
            known.weight = weight;
            known.changed = now;
        }
    }

    pub(super) fn drain(&mut self, server: usize, until: Duration) {
        if let Some(known) = self.of(server) {
            known.cut_from = Some(until);
            let took = until.saturating_sub(known.changed);
            self.longest_drain = self.longest_drain.max(took);
        }
    }

    pub(super) fn longest_drain(&self) -> Duration {
        self.longest_drain
    }

    pub(super) fn may_cut(&self, member: u32, now: Duration) -> bool {
        let from = self.members.get(&member).and_then(|it| it.cut_from);
        from.is_some_and(|from| from <= now)
    }

    pub(super) fn turn(&mut self, _server: usize, condition: &Condition) {
        self.happened += 1;
        self.noisy |= condition.is_noisy();
    }

    fn of(&mut self, server: usize) -> Option<&mut Known> {
        let mut members = self.members.values_mut();
        members.find(|it| it.server == server && !it.gone)
    }

    /// The verdict's rules once more. True if something changed.
    pub(super) fn hear(&mut self, now: Duration, event: &Event) -> bool {
        let Some(check) = self.check else {
            // It is out for a while, and back by itself: what is published meanwhile is not judged.
            if let Event::Refused { member } = event
                && let Some(known) = self.members.get_mut(member)
            {
                self.happened += 1;
                known.changed = now + REFUSED_OUT;
            }
            return false;
        };
        let member = match event {
            Event::Refused { member } | Event::Probed { member, .. } => *member,
            _ => return false,
        };
        let Some(known) = self.members.get_mut(&member).filter(|it| !it.gone) else {
            return false;
        };
        let before = (known.verdict, known.answers);
        match event {
            Event::Probed {
                outcome: Outcome::Success,
                ..
            } => {
                known.failures = 0;
                known.successes += 1;
                known.answers = true;
                if known.successes >= known.needed {
                    known.verdict = Verdict::Healthy;
                }
            }
            Event::Probed {
                outcome: Outcome::Failure(cause),
                ..
            } => {
                known.successes = 0;
                known.failures += 1;
                known.answers = cause.answers();
                if known.failures >= check.unhealthy {
                    known.verdict = Verdict::Unhealthy;
                    known.needed = check.healthy;
                }
            }
            _ => {
                known.successes = 0;
                known.answers = false;
                if known.verdict != Verdict::Unhealthy {
                    known.verdict = Verdict::Unhealthy;
                    known.needed = 1;
                }
            }
        }
        self.verdicts += u64::from(before.0 != known.verdict);
        let changed = before != (known.verdict, known.answers);
        if changed {
            known.changed = now;
        }
        changed
    }

    pub(super) fn verdicts(&self) -> u64 {
        self.verdicts
    }

    /// Whether the publisher had time to publish all that is known.
    pub(super) fn is_stable(&self, now: Duration, grace: Duration) -> bool {
        self.members.values().all(|it| it.changed + grace <= now)
    }

    fn best(&self) -> Option<u8> {
        self.members.values().filter_map(Known::rank).min()
    }

    pub(super) fn judge_pick(
        &self,
        member: u32,
        now: Duration,
        grace: Duration,
    ) -> Result<(), (Rule, String)> {
        let Some(known) = self.members.get(&member) else {
            return Err((Rule::Open, format!("member {member} is unknown")));
        };
        let Some(rank) = known.rank() else {
            let what = format!(
                "s{}: {}, weight {}, {}",
                known.server,
                known.state,
                known.weight,
                if known.gone { "removed" } else { "configured" }
            );
            return Err((Rule::Open, what));
        };
        if Some(rank) > self.best() && self.is_stable(now, grace) {
            let what = format!("s{}: {}", known.server, known.verdict);
            return Err((Rule::Fit, what));
        }
        Ok(())
    }

    /// Servers that would serve and that these tries have not been to.
    pub(super) fn left(&self, past: &[Tried], now: Duration, grace: Duration) -> Vec<usize> {
        let best = self.best();
        if best.is_none() || !self.is_stable(now, grace) {
            return Vec::new();
        }
        let tried = |id: u32| past.iter().any(|it| it.member == id && !it.reused);
        let members = self.members.iter();
        members
            .filter(|(id, it)| it.rank() == best && !tried(**id))
            .map(|(_, it)| it.server)
            .collect()
    }

    /// Compares what is published with what is known.
    pub(super) fn judge_view(&self, view: &PoolView) -> Result<(), String> {
        for standing in &view.standings {
            let Some(known) = self.members.get(&standing.member.id) else {
                return Err(format!("{} is unknown", standing.member.name));
            };
            if (standing.verdict, standing.weight) != (known.verdict, known.weight) {
                return Err(format!(
                    "{} is published as {} of weight {}, and is {} of weight {}",
                    standing.member.name,
                    standing.verdict,
                    standing.weight,
                    known.verdict,
                    known.weight
                ));
            }
        }
        let best = self.best();
        let due: BTreeSet<u32> = self
            .members
            .iter()
            .filter(|(_, it)| best.is_some() && it.rank() == best)
            .map(|(id, _)| *id)
            .collect();
        let published = published(view);
        if due == published {
            return Ok(());
        }
        let names = |ids: &BTreeSet<u32>| {
            let names: Vec<String> = ids.iter().map(|id| self.name(*id)).collect();
            names.join(" ")
        };
        Err(format!(
            "[{}] may serve, [{}] should",
            names(&published),
            names(&due)
        ))
    }

    pub(super) fn count_flips(&mut self, view: &PoolView) {
        let usable = published(view);
        for id in usable.symmetric_difference(&self.usable) {
            *self.flips.entry(*id).or_default() += 1;
        }
        self.usable = usable;
    }

    /// Servers come and go with what happens, and not by themselves. Where chance has a part in it, the verdicts'
    /// thresholds are the measure, which are compared anyway.
    pub(super) fn judge_flips(&self) -> Result<(), String> {
        if self.noisy {
            return Ok(());
        }
        let allowed = 2 + FLIPS_EACH * (self.happened + self.members.len() as u64);
        for (id, flips) in &self.flips {
            if *flips > allowed {
                let name = self.name(*id);
                return Err(format!(
                    "{name} came and went {flips} times in {} events",
                    self.happened
                ));
            }
        }
        Ok(())
    }

    /// After this long without a fault nothing changes any more.
    pub(super) fn settle_time(&self) -> Duration {
        let Some(check) = self.check else {
            return Duration::from_secs(1) + REFUSED_OUT;
        };
        let once = check.interval.mul_f64(1.1) + check.timeout;
        Duration::from_secs(1) + once * (check.healthy + 1)
    }

    pub(super) fn server_of(&self, member: u32) -> Option<usize> {
        self.members.get(&member).map(|it| it.server)
    }

    pub(super) fn name(&self, member: u32) -> String {
        self.server_of(member)
            .map_or_else(|| format!("member {member}"), Scenario::name)
    }
}

fn published(view: &PoolView) -> BTreeSet<u32> {
    view.view.candidates().iter().map(|it| it.id).collect()
}

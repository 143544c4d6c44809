//! The model: what is known of each server, from what the publisher was told.

mod keeps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use balance::State;
use balance::health::{Outcome, Verdict};
use control::live::{LimitedBy, Member, PoolView, Standing};
use control::message::Event;

use super::known::Known;
use super::members::Members;
use super::place::{self, Rules};
use super::{Rule, Tried};
use crate::scenario::{Check, Condition, Life, OutlierPlan, Scenario, ServerPlan};

/// How often a server may come and go for each thing that happens.
const FLIPS_EACH: u64 = 3;
/// A failure is told to the publisher within this time.
const TOLD_WITHIN: Duration = Duration::from_millis(50);
/// Clients that are bound to a server that drains are let in until a quarter of its time is left, or this.
const CLOSED_MAX: Duration = Duration::from_secs(5);
/// How far off a published part of the traffic may be.
const TRAFFIC_SLACK: f64 = 0.002;

/// Of the pool, or of a part of it.
#[derive(Default)]
struct Part {
    /// What each server is due, while nothing has changed.
    due: Option<BTreeMap<u32, f64>>,
    usable: BTreeSet<u32>,
    /// Times that a server entered or left service, as published.
    flips: BTreeMap<u32, u64>,
}

/// Every member that there ever was.
pub(super) struct Shadow {
    check: Option<Check>,
    outlier: Option<OutlierPlan>,
    slow_start: Option<balance::SlowStart>,
    rules: Rules,
    plans: Vec<ServerPlan>,
    drain_timeout: Duration,
    longest_drain: Duration,
    members: Members,
    /// Weights of the file, and operators' words until it changes.
    configured: BTreeMap<usize, u32>,
    /// The whole pool, then its parts.
    parts: Vec<Part>,
    happened: u64,
    noisy: bool,
    /// Whether probes fail by chance, since servers need a good part of their time.
    wavers: bool,
    /// Whether latency alone may lessen a share.
    slow: bool,
    verdicts: u64,
    /// Whether a server of the pool has ever been fit.
    served: bool,
    /// Steps by which what was ejected is taken back into service are this far apart.
    tick: Duration,
}

impl Shadow {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let slowest = scenario.servers.iter().map(|plan| plan.latency).max();
        let interval = scenario.outlier.map_or(Duration::ZERO, |it| it.interval);
        Self {
            check: scenario.check,
            outlier: scenario.outlier,
            slow_start: scenario.slow_start,
            rules: Rules {
                panic_threshold: scenario.panic_threshold,
                overprovision: scenario.overprovision,
                own_zone: scenario.own_zone,
            },
            plans: scenario.servers.clone(),
            drain_timeout: scenario.drain_timeout,
            longest_drain: Duration::ZERO,
            members: Members::default(),
            configured: scenario.first_servers().into_iter().collect(),
            parts: (0..=scenario.parts).map(|_| Part::default()).collect(),
            happened: 0,
            noisy: false,
            wavers: scenario
                .check
                .zip(slowest)
                .is_some_and(|(check, slowest)| slowest > check.timeout / 10),
            slow: slowest.is_some_and(|it| it > Duration::from_millis(40)),
            verdicts: 0,
            served: false,
            tick: (interval / 10).clamp(Duration::from_millis(50), Duration::from_secs(1)),
        }
    }

    /// A member that is seen for the first time.
    pub(super) fn add(&mut self, now: Duration, member: &Arc<Member>) {
        let Some(server) = Scenario::server_of(&member.name) else {
            return;
        };
        let Some(plan) = self.plans.get(server).cloned() else {
            return;
        };
        let weight = self.configured.get(&server).copied().unwrap_or(0);
        let verdict = match self.check {
            Some(_) => Verdict::Unknown,
            None => Verdict::Healthy,
        };
        let fresh = !self.served;
        self.forget_due();
        self.members.add(member.id, || {
            let mut known = Known::new(server, member, plan, weight, verdict, now);
            known.fresh = fresh;
            known
        });
    }

    /// A config with these servers: the others are gone, and a weight that the file changes ends an operator's.
    pub(super) fn reload(&mut self, now: Duration, servers: &[(usize, u32)]) {
        self.happened += 1;
        self.forget_due();
        let before = std::mem::take(&mut self.configured);
        self.configured = servers.iter().copied().collect();
        for known in self.members.values_mut().filter(|it| !it.gone) {
            match self.configured.get(&known.server) {
                None => {
                    known.gone = true;
                    let until = now + self.drain_timeout;
                    known.cut_from = Some(known.cut_from.map_or(until, |drain| drain.min(until)));
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
        self.forget_due();
        if let Some(known) = self.of(server) {
            known.take_operator(state);
            if state == State::Ready {
                known.forgive(now);
            }
            known.changed = now;
            (known.cut_from, known.closes_from) = (None, None);
        }
    }

    pub(super) fn set_weight(&mut self, now: Duration, server: usize, weight: u32) {
        self.happened += 1;
        self.forget_due();
        if let Some(known) = self.of(server) {
            known.weight = weight;
            known.changed = now;
        }
    }

    pub(super) fn drain(&mut self, now: Duration, server: usize, until: Duration) {
        if let Some(known) = self.of(server) {
            known.cut_from = Some(until);
            let closed = (until.saturating_sub(now) / 4).min(CLOSED_MAX);
            known.closes_from = Some(until.saturating_sub(closed));
            let took = until.saturating_sub(known.changed);
            self.longest_drain = self.longest_drain.max(took);
        }
    }

    pub(super) fn longest_drain(&self) -> Duration {
        self.longest_drain
    }

    pub(super) fn may_cut(&self, member: u32, now: Duration) -> bool {
        let from = self.members.get(member).and_then(|it| it.cut_from);
        from.is_some_and(|from| from <= now)
    }

    pub(super) fn turn(&mut self, condition: &Condition) {
        self.happened += 1;
        self.noisy |= condition.is_noisy();
        let stalls = matches!(condition.life, Life::Frozen | Life::Unreachable);
        self.slow |= condition.slow > 1.0 || condition.losses > 0.0 || stalls;
    }

    fn of(&mut self, server: usize) -> Option<&mut Known> {
        let mut members = self.members.values_mut();
        members.find(|it| it.server == server && !it.gone)
    }

    /// What the publisher hears, once more. True if something changed.
    pub(super) fn hear(&mut self, now: Duration, event: &Event) -> Result<bool, (Rule, String)> {
        let (Event::Refused { member }
        | Event::Failing { member, .. }
        | Event::AgentSaid { member, .. }
        | Event::Probed { member, .. }) = event
        else {
            return Ok(false);
        };
        let Some(known) = self.members.get_mut(*member).filter(|it| !it.gone) else {
            return Ok(false);
        };
        let changed = match event {
            Event::AgentSaid {
                answer: Ok(line), ..
            } => {
                let changed = known.take_line(line);
                if changed {
                    self.happened += 1;
                    known.changed = now;
                }
                changed
            }
            Event::Failing { last, .. } => self.hear_failing(now, *member, last.answers())?,
            Event::Refused { .. } => self.hear_refused(now, *member),
            Event::Probed { outcome, .. } => self.hear_probe(now, *member, outcome),
            _ => false,
        };
        if changed {
            self.forget_due();
        }
        Ok(changed)
    }

    fn hear_probe(&mut self, now: Duration, member: u32, outcome: &Outcome) -> bool {
        let (Some(check), Some(known)) = (self.check, self.members.get_mut(member)) else {
            return false;
        };
        let before = (known.verdict, known.answers);
        match outcome {
            Outcome::Success => {
                known.failures = 0;
                known.successes += 1;
                known.answers = true;
                if known.successes >= known.needed && known.verdict != Verdict::Healthy {
                    if known.verdict == Verdict::Unhealthy {
                        known.hear_silence_end(now);
                    }
                    known.verdict = Verdict::Healthy;
                    known.recover();
                }
            }
            Outcome::Failure(cause) => {
                known.successes = 0;
                known.failures += 1;
                known.answers = cause.answers();
                if known.failures >= check.unhealthy {
                    known.verdict = Verdict::Unhealthy;
                    known.needed = check.healthy;
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

    fn hear_refused(&mut self, now: Duration, member: u32) -> bool {
        if self.check.is_none() {
            return self.eject(member, true, false, now);
        }
        let Some(known) = self.members.get_mut(member) else {
            return false;
        };
        known.successes = 0;
        known.answers = false;
        known.streak = 0;
        known.spared = 0;
        if known.verdict != Verdict::Unhealthy {
            known.verdict = Verdict::Unhealthy;
            known.needed = 1;
            self.verdicts += 1;
        }
        if known.ejected.is_some_and(|it| !it.answers()) {
            known.forgive(now);
        }
        known.changed = now;
        true
    }

    fn hear_failing(
        &mut self,
        now: Duration,
        member: u32,
        answers: bool,
    ) -> Result<bool, (Rule, String)> {
        let Some(needed) = self.outlier.and_then(|plan| plan.gateway_errors) else {
            return Ok(false);
        };
        let Some(known) = self.members.get(member) else {
            return Ok(false);
        };
        let late = known.failed_at + TOLD_WITHIN < now;
        let (streak, on_trial) = known.failed_as;
        if late || streak < needed && !on_trial && known.log_is_good(now) {
            let what = format!(
                "s{} is said to fail, after {streak} failures in a row",
                known.server
            );
            return Err((Rule::Unjust, what));
        }
        Ok(self.eject(member, false, answers, now))
    }

    /// Takes a server out, if that leaves enough.
    fn eject(&mut self, member: u32, refused: bool, answers: bool, now: Duration) -> bool {
        let plan = self.outlier.unwrap_or(OutlierPlan::REFUSED_ONLY);
        if !self.may_eject(member, refused) {
            return false;
        }
        if let Some(known) = self.members.get_mut(member) {
            known.eject(&plan, refused, answers, now);
            self.forget_due();
        }
        true
    }

    /// Whether a server may be ejected: another serves, and no more are out than may be.
    fn may_eject(&self, member: u32, refused: bool) -> bool {
        let Some(known) = self.members.get(member) else {
            return false;
        };
        let percent = self.outlier.map_or(0, |plan| plan.ejected_max as usize);
        let open = self.members.values().filter(|it| it.is_open());
        let (open, out) = open.fold((0, 0), |(open, out), it| {
            (open + 1, out + usize::from(it.ejected.is_some()))
        });
        let allowed = match (refused, percent) {
            (true, _) => open,
            (false, 0) => 0,
            (false, percent) => (open * percent / 100).max(1),
        };
        let fit = known.held() == Verdict::Healthy && known.ejected.is_none();
        let another = self.members.iter().any(|(id, it)| {
            let serves = it.held() == Verdict::Healthy || !fit && it.held() == Verdict::Unknown;
            id != member && it.is_open() && it.ejected.is_none() && serves
        });
        let out_already = known.ejected.is_some() || known.held() == Verdict::Unhealthy;
        !out_already && another && out < allowed
    }

    /// One that is out though its time is over.
    pub(super) fn overdue(&self, now: Duration, grace: Duration) -> Option<String> {
        let late = self.members.values().find(|it| {
            let until = it.ejected.map(|it| it.until + self.tick + grace);
            !it.gone && until.is_some_and(|until| until < now)
        })?;
        Some(format!("s{} is out though its time is over", late.server))
    }

    /// A try has ended, and says this of its server.
    pub(super) fn count(&mut self, member: u32, failed: bool, now: Duration) {
        let may_eject = failed && self.may_eject(member, false);
        if let Some(known) = self.members.get_mut(member) {
            known.count(failed, now);
            known.spared = if may_eject { known.spared + 1 } else { 0 };
        }
    }

    /// One that has failed so often in a row, while it could be ejected, that it should be out by now.
    pub(super) fn spared(&self, now: Duration) -> Option<String> {
        let needed = self.outlier.and_then(|plan| plan.gateway_errors)?;
        let mut members = self.members.values();
        let known = members.find(|it| {
            let told = it.failed_at + TOLD_WITHIN < now;
            it.spared >= 3 * needed && told && it.is_fit()
        })?;
        Some(format!(
            "s{} failed {} times in a row, and serves",
            known.server, known.spared
        ))
    }

    /// The publisher says that it has ejected a server.
    pub(super) fn see_ejection(
        &mut self,
        now: Duration,
        name: &str,
        cause: &str,
    ) -> Result<(), (Rule, String)> {
        let server = Scenario::server_of(name);
        let found = self
            .members
            .iter()
            .find(|(_, it)| Some(it.server) == server && !it.gone);
        let Some((id, known)) = found else {
            return Ok(());
        };
        if !cause.contains("of requests failed") {
            return match known.ejected {
                Some(ejected) if ejected.began == now => Ok(()),
                _ => Err((Rule::Ejected, format!("{name} is ejected: {cause}"))),
            };
        }
        let interval = self.outlier.map_or(Duration::ZERO, |plan| plan.interval);
        let (own, failed) = known.recent(interval, now);
        let rest: Vec<f64> = self
            .members
            .iter()
            .filter(|(other, it)| *other != id && it.is_fit())
            .map(|(_, it)| it.recent(interval, now))
            .filter(|(requests, _)| *requests >= 5.0)
            .map(|(requests, failed)| failed / requests)
            .collect();
        let rest = rest.iter().sum::<f64>() / (rest.len().max(1) as f64);
        let rate = failed / own.max(1.0);
        if rate < rest + 0.3 {
            let what = format!("{name} is ejected at {rate:.2} failures, {rest:.2} at the rest");
            return Err((Rule::Unjust, what));
        }
        if self.eject(id, false, true, now) {
            Ok(())
        } else {
            Err((Rule::Ejected, format!("{name} is ejected: {cause}")))
        }
    }

    /// The publisher says that an ejection is over, which it may only say when that is so.
    pub(super) fn see_return(&mut self, now: Duration, name: &str) {
        let server = Scenario::server_of(name);
        let judged = self.outlier.is_some();
        let Some(known) = server.and_then(|server| self.of(server)) else {
            return;
        };
        if known.ejected.is_some_and(|it| it.until <= now) {
            known.come_back(now);
            if !judged {
                // Nothing is held against it.
                known.forgive(now);
            }
            self.forget_due();
        }
    }

    pub(super) fn verdicts(&self) -> u64 {
        self.verdicts
    }

    pub(super) fn known(&self, member: u32) -> Option<&Known> {
        self.members.get(member)
    }

    pub(super) fn known_mut(&mut self, member: u32) -> Option<&mut Known> {
        self.members.get_mut(member)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Known)> {
        self.members.iter()
    }

    /// Whether the publisher had time to publish all that is known.
    pub(super) fn is_stable(&self, now: Duration, grace: Duration) -> bool {
        self.members.values().all(|it| {
            // The end of an ejection is seen at the next look.
            let ends = it
                .ejected
                .is_some_and(|it| it.until <= now && now <= it.until + self.tick + grace);
            it.changed + grace <= now && !ends
        })
    }

    fn forget_due(&mut self) {
        for part in &mut self.parts {
            part.due = None;
        }
    }

    /// What each server is due of those who want this part; 0: of those who want any.
    fn due(&mut self, part: usize) -> &BTreeMap<u32, f64> {
        let Self {
            parts,
            members,
            rules,
            ..
        } = self;
        if part >= parts.len() {
            parts.resize_with(part + 1, Part::default);
        }
        parts[part].due.get_or_insert_with(|| {
            let there = members.iter().filter(|(_, it)| !it.gone);
            let chosen = there.filter(|(_, it)| part == 0 || it.plan.part == Some(part));
            let seats: Vec<_> = chosen.map(|(id, it)| it.seat(id)).collect();
            place::due(&seats, *rules)
        })
    }

    pub(super) fn judge_pick(
        &mut self,
        part: usize,
        member: u32,
        now: Duration,
        grace: Duration,
    ) -> Result<(), (Rule, String)> {
        let Some(known) = self.members.get(member) else {
            return Err((Rule::Open, format!("member {member} is unknown")));
        };
        let rule = if !known.is_open() {
            Rule::Open
        } else if self.is_stable(now, grace) && !self.due(part).contains_key(&member) {
            Rule::Fit
        } else {
            return Ok(());
        };
        Err((
            rule,
            self.members
                .get(member)
                .map_or_else(String::new, Known::shown),
        ))
    }

    /// Servers that would serve and that these tries have not been to; none while it is not clear who would.
    pub(super) fn left(
        &mut self,
        part: usize,
        past: &[Tried],
        now: Duration,
        grace: Duration,
    ) -> Vec<u32> {
        if !self.is_stable(now, grace) {
            return Vec::new();
        }
        let tried = |id: u32| past.iter().any(|it| it.member == id && !it.may_be_stale());
        let due = self.due(part).keys().copied();
        due.filter(|id| !tried(*id)).collect()
    }

    /// Whether a server has no slot left.
    pub(super) fn is_full(&self, member: u32) -> bool {
        self.members.get(member).is_some_and(|known| {
            // Half open: its own bound, until the publisher has heard of a success; or what its latency allows.
            let by = known.member.limited_by();
            let narrow = matches!(by, Some(LimitedBy::HalfOpen | LimitedBy::Latency));
            let narrow = known.member.connections_max().filter(|_| narrow);
            let max = narrow.or(known.plan.connections_max);
            max.is_some_and(|max| known.in_use >= max)
        })
    }

    /// Compares what is published with what is known.
    pub(super) fn judge_view(
        &mut self,
        part: usize,
        view: &PoolView,
    ) -> Result<(), (Rule, String)> {
        let wrong = |what| Err((Rule::Current, what));
        for standing in &view.standings {
            let Some(known) = self.members.get(standing.member.id) else {
                return wrong(format!("{} is unknown", standing.member.name));
            };
            let published = (
                standing.verdict,
                standing.weight,
                standing.back_at.is_some(),
            );
            let expected = (known.held(), known.weight, known.ejected.is_some());
            if published != expected {
                return wrong(format!(
                    "{} is published as {published:?}, and is {expected:?}",
                    standing.member.name
                ));
            }
        }
        let traffic: BTreeMap<u32, f64> = view
            .standings
            .iter()
            .map(|it| (it.member.id, it.traffic))
            .filter(|(_, traffic)| *traffic > 0.0)
            .collect();
        let due = self.due(part).clone();
        let off = |id: &u32| {
            let of = |parts: &BTreeMap<u32, f64>| parts.get(id).copied().unwrap_or(0.0);
            (of(&due) - of(&traffic)).abs() > TRAFFIC_SLACK
        };
        if published(view) == due.keys().copied().collect()
            && !due.keys().chain(traffic.keys()).any(off)
        {
            return Ok(());
        }
        let shown = |parts: &BTreeMap<u32, f64>| {
            let parts = parts.iter();
            let each: Vec<String> = parts
                .map(|(id, part)| format!("{} {:.2} %", self.name(*id), part * 100.0))
                .collect();
            each.join(", ")
        };
        wrong(format!(
            "[{}] are to serve, [{}] are due",
            shown(&traffic),
            shown(&due)
        ))
    }

    /// Takes in what a new view says that is the publisher's to say: ends of ejections, shares, slow starts; and judges
    /// each by itself.
    pub(super) fn see_view(
        &mut self,
        now: Duration,
        part: usize,
        view: &PoolView,
    ) -> Result<(), (Rule, String)> {
        self.forget_due();
        if let Some(part) = self.parts.get_mut(part) {
            let usable = published(view);
            for id in usable.symmetric_difference(&part.usable) {
                *part.flips.entry(*id).or_default() += 1;
            }
            part.usable = usable;
        }
        let mut found = Ok(());
        for standing in &view.standings {
            let seen = self
                .see_ejected(now, standing)
                .and_then(|()| self.see_warmth(now, standing))
                .and_then(|()| self.see_share(now, standing));
            found = found.and(seen);
        }
        self.served |= self.members.values().any(Known::is_fit);
        found
    }

    fn see_ejected(&mut self, now: Duration, standing: &Standing) -> Result<(), (Rule, String)> {
        let Some(known) = self.members.get_mut(standing.member.id) else {
            return Ok(());
        };
        match (known.ejected, standing.back_at) {
            (Some(ejected), None) if ejected.until <= now => {
                known.come_back(now);
                if self.outlier.is_none() {
                    // Nothing is held against it.
                    known.forgive(now);
                }
                Ok(())
            }
            (Some(_), Some(until)) if !known.see_until(until) => {
                let what = format!(
                    "s{} is out until {until:?}, and should be until {:?}",
                    known.server, known.ejected
                );
                Err((Rule::Ejected, what))
            }
            (None, Some(_)) => {
                let what = format!("s{} is ejected for nothing", known.server);
                Err((Rule::Ejected, what))
            }
            _ => Ok(()),
        }
    }

    /// A server that begins to serve beside others has a part of its weight that grows.
    fn see_warmth(&mut self, now: Duration, standing: &Standing) -> Result<(), (Rule, String)> {
        let slow = self.slow_start;
        let Some(known) = self.members.get_mut(standing.member.id) else {
            return Ok(());
        };
        match (known.is_fit(), known.fit_since) {
            (true, None) => {
                known.fit_since = Some(now);
                known.warming = !known.fresh;
                known.fresh = false;
            }
            (false, Some(_)) => known.fit_since = None,
            _ => {}
        }
        known.fresh &= known.is_open() && known.held() != Verdict::Unhealthy;
        let age = known.fit_since.map(|since| now.saturating_sub(since));
        let factor = match (slow, age) {
            (Some(slow), Some(age)) if known.warming && age < slow.duration => {
                let progress = age.as_secs_f64() / slow.duration.as_secs_f64();
                progress.powf(1.0 / slow.aggression).max(slow.floor)
            }
            _ => {
                known.warming = false;
                1.0
            }
        };
        // In whole percents, so that turns have a short period.
        known.part = standing.share.factor() * (factor * 100.0).round() / 100.0;
        if standing.traffic == 0.0 || !known.is_fit() {
            return Ok(());
        }
        let shown = warmth_of(&standing.note);
        if (shown - factor).abs() > 0.011 {
            let what = format!(
                "s{} has {shown} of its weight after {age:?} of its slow start, and should have {factor:.3}",
                known.server
            );
            return Err((Rule::Shares, what));
        }
        Ok(())
    }

    /// Who never failed and was never slow has all of its weight.
    fn see_share(&mut self, now: Duration, standing: &Standing) -> Result<(), (Rule, String)> {
        let Some(known) = self.members.get(standing.member.id) else {
            return Ok(());
        };
        let lessened = standing.share.factor() < known.own_part() - 0.07;
        let interval = self.outlier.map_or(Duration::ZERO, |plan| plan.interval);
        let forgotten = known.troubled + interval * 8 + self.tick * 20 + Duration::from_secs(1);
        let serves = known.ejected.is_none();
        if lessened && serves && !self.slow && forgotten < now {
            let what = format!(
                "s{} has {} of its weight, and nothing is amiss with it",
                known.server, standing.share
            );
            return Err((Rule::Unjust, what));
        }
        Ok(())
    }

    /// Servers come and go with what happens, and not by themselves. Where chance has a part in it, the verdicts'
    /// thresholds are the measure, which are compared anyway; and ejections, of which each is longer than the one
    /// before, less one for as long as the first in service: so that there are no more than fill the time.
    pub(super) fn judge_flips(&self, passed: Duration) -> Result<(), String> {
        let plan = self.outlier.unwrap_or(OutlierPlan::REFUSED_ONLY);
        let firsts = passed.as_secs_f64() / plan.ejection.as_secs_f64().max(0.001);
        let levels = plan.ejection_max.as_secs_f64() / plan.ejection.as_secs_f64().max(0.001);
        let each = if self.check.is_some() { 2.0 } else { 1.1 };
        let bound = (firsts + levels.max(1.0)) / each + 2.0 + self.happened as f64;
        let bound_refusals = bound + firsts * 10.0 / each;
        for (id, known) in self.members.iter() {
            let others = known.ejections - known.refusals;
            for (count, bound) in [(others, bound), (known.refusals, bound_refusals)] {
                if f64::from(count) > bound {
                    let name = self.name(id);
                    return Err(format!(
                        "{name} was ejected {count} times in {passed:?}, {bound:.0} at most"
                    ));
                }
            }
        }
        if self.noisy || self.wavers {
            return Ok(());
        }
        // A backup comes and goes with the ejections of those that it stands in for.
        let ejections = self.members.iter().map(|(_, it)| u64::from(it.ejections));
        let happened = self.happened + self.members.len() as u64;
        let allowed = 2 + FLIPS_EACH * happened + 2 * ejections.sum::<u64>();
        for (id, flips) in self.parts.iter().flat_map(|it| &it.flips) {
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

    /// After this long without a fault nothing changes any more; `None`: there is no telling.
    pub(super) fn settle_time(&self) -> Option<Duration> {
        let outlier = self.outlier.unwrap_or(OutlierPlan::REFUSED_ONLY);
        let judged = outlier.gateway_errors.is_some() || outlier.success_rate || outlier.degrade;
        if self.slow && outlier.latency || self.wavers {
            return None;
        }
        let mut settled = Duration::from_secs(1);
        if let Some(check) = self.check {
            let once = check.interval.mul_f64(1.1) + check.timeout;
            settled += once * (check.healthy + 1);
        }
        if judged || self.check.is_none() {
            settled += outlier.ejection_max + outlier.interval * 8 + self.tick * 20;
        }
        Some(settled + self.slow_start.map_or(Duration::ZERO, |it| it.duration * 2))
    }

    pub(super) fn server_of(&self, member: u32) -> Option<usize> {
        self.members.get(member).map(|it| it.server)
    }

    pub(super) fn name(&self, member: u32) -> String {
        self.server_of(member)
            .map_or_else(|| format!("member {member}"), Scenario::name)
    }
}

fn published(view: &PoolView) -> BTreeSet<u32> {
    view.view.candidates().iter().map(|it| it.id).collect()
}

/// "slow start at 35 %" in the words beside a server.
fn warmth_of(note: &str) -> f64 {
    let percent = note.split("slow start at ").nth(1);
    let percent = percent.and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    percent.map_or(1.0, |percent| percent / 100.0)
}

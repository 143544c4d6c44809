//! The view of a pool: who may serve, which part of the traffic each server gets, and why.

use std::sync::Arc;
use std::time::Duration;

use balance::health::Verdict;
use balance::{ALL, Candidate, Division, Role, Share, SlowStart, State};
use config::{Labels, Server};

use super::affinity::Rings;
use super::handover::millis;
use super::pools::{PoolEntry, Slot};
use super::{VIEW_EVERY, VIEW_PAUSE};
use crate::handover::LiveWarmth;
use crate::live::{PoolView, Standing};

/// What each server adds to the time of building a view, its algorithm's tables aside, in a release build.
const BUILD_TIME_EACH: Duration = Duration::from_nanos(400);

/// Where the config puts a server in its pool.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    priority: u32,
    backup: bool,
    pub(super) zone: Option<Arc<str>>,
    pub(super) labels: Arc<Labels>,
}

/// How long a server has served beside others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Warmth {
    /// Whether it was there before its pool ever served, and has not been found down since: it begins with all of its
    /// weight, as after a restart of this process.
    fresh: bool,
    /// Since when it has been fit to serve.
    since: Option<Duration>,
    /// How long it had been so before that, in a process before this one.
    before: Duration,
    /// Whether it warms up since then.
    warming: bool,
}

impl Seat {
    pub(super) fn new(server: &Server) -> Self {
        Self {
            priority: server.priority,
            backup: server.backup,
            zone: server.zone.clone(),
            labels: server.labels.clone(),
        }
    }
}

impl Warmth {
    /// A server that has not served yet.
    pub(super) fn new(fresh: bool) -> Self {
        Self {
            fresh,
            since: None,
            before: Duration::ZERO,
            warming: false,
        }
    }

    /// What another process is to know.
    pub(super) fn tell(&self, now: Duration) -> LiveWarmth {
        LiveWarmth {
            fresh: self.fresh,
            fit_ms: self.since.map(|_| millis(self.age(now))),
            warming: self.warming,
        }
    }

    /// Goes on from what another process saw.
    pub(super) fn resume(&mut self, told: &LiveWarmth, now: Duration) {
        *self = Self {
            fresh: told.fresh,
            since: told.fit_ms.map(|_| now),
            before: Duration::from_millis(told.fit_ms.unwrap_or(0)),
            warming: told.warming && told.fit_ms.is_some(),
        };
    }

    /// Takes in how a server stands now.
    fn update(&mut self, fit: bool, down: bool, slow_start: Option<&SlowStart>, now: Duration) {
        match (fit, self.since) {
            (true, None) => {
                self.since = Some(now);
                self.before = Duration::ZERO;
                self.warming = !self.fresh;
                self.fresh = false;
            }
            (false, Some(_)) => self.since = None,
            _ => {}
        }
        self.fresh &= !down;
        let whole = slow_start.is_none_or(|slow| self.age(now) >= slow.duration);
        self.warming &= self.since.is_some() && !whole;
    }

    fn age(&self, now: Duration) -> Duration {
        let here = |since| now.saturating_sub(since).saturating_add(self.before);
        self.since.map_or(Duration::ZERO, here)
    }

    /// Which part of its weight it has; in whole percents, so that round robin has a short period.
    pub(super) fn share(&self, slow_start: Option<&SlowStart>, now: Duration) -> Share {
        match slow_start {
            Some(slow) if self.warming => {
                Share::exact((slow.factor(self.age(now)) * 100.0).round() / 100.0)
            }
            _ => Share::FULL,
        }
    }
}

impl PoolEntry {
    /// Builds and swaps the views of the pool and of its parts; says which of them begins or ends to use servers that
    /// it would rather not.
    pub(super) fn build(&mut self, now: Duration) -> Vec<(Arc<str>, bool)> {
        let slow_start = self.config.slow_start;
        for slot in &mut self.slots {
            let verdict = slot.verdict();
            let open = slot.member.cell.state() == State::Ready && slot.weight() > 0;
            let fit = open && verdict == Verdict::Healthy && !slot.is_ejected();
            let down = verdict == Verdict::Unhealthy || !open;
            slot.warmth.update(fit, down, slow_start.as_ref(), now);
            self.served |= fit;
            slot.apply_limit(&self.config);
        }
        self.drop_subsets();
        let mut rings = std::mem::take(&mut self.rings);
        let all: Vec<&Slot> = self.slots.iter().collect();
        let mut whole = self.view_of(&all, &mut rings, now);
        let parts = self.subsets.iter();
        let mut parts: Vec<PoolView> = parts
            .map(|subset| self.view_of(&subset.of(&self.slots), &mut rings, now))
            .collect();
        rings.drop_unused();
        self.rings = rings;
        if let Some(taught) = &mut self.taught {
            let learnt = taught.take_slots(&self.slots);
            for part in &mut parts {
                part.learnt = Some(learnt.clone());
            }
            whole.learnt = Some(learnt);
        }
        // Members stand in the order of the slots.
        let mut used = whole.view.candidates().iter().peekable();
        for slot in &self.slots {
            let candidate = used.next_if(|candidate| candidate.id == slot.member.id);
            slot.member.set_part(candidate.map_or(0, Candidate::units));
        }
        let mut servers = self.publish_groups(&parts, whole.members.clone());
        self.add_keepers(&whole, &mut servers);
        let mut changed = Vec::new();
        self.retired.retain(|view| Arc::strong_count(view) > 1);
        let states = std::iter::once((&self.state, &mut self.panic));
        let subsets = self.subsets.iter_mut();
        let states = states.chain(subsets.map(|it| (&it.state, &mut it.panic)));
        for ((state, panic), view) in states.zip(std::iter::once(whole).chain(parts)) {
            if *panic != view.panic {
                *panic = view.panic;
                changed.push((state.shown(), view.panic));
            }
            self.retired.push(state.set_view(view));
        }
        self.state.gate.handle_change(&servers);
        changed
    }

    /// Who of these servers may serve.
    fn view_of(&self, slots: &[&Slot], rings: &mut Rings, now: Duration) -> PoolView {
        let slow_start = self.config.slow_start.as_ref();
        let standing = |slot: &Slot| balance::Standing {
            share: slot.share() * slot.warmth.share(slow_start, now),
            ..slot.standing()
        };
        let seats = slots.iter().map(|slot| slot.seat_as(standing(slot)));
        let seats: Vec<balance::Seat<'_>> = seats.collect();
        let placement = balance::place(&seats, &self.division());
        let first = slots.iter().map(|slot| slot.seat.priority).min();
        let mut candidates = Vec::new();
        let mut members = Vec::new();
        let mut standings = Vec::with_capacity(slots.len());
        for (slot, role) in slots.iter().zip(&placement.roles) {
            let traffic = match role {
                Role::Used(used) => {
                    candidates.push(Candidate {
                        server: slot.member.cell.clone(),
                        id: slot.member.id,
                        hash_name: slot.hash_name,
                        weight: slot.weight(),
                        share: used.share,
                    });
                    members.push(slot.member.clone());
                    used.traffic
                }
                _ => 0.0,
            };
            standings.push(Standing {
                member: slot.member.clone(),
                labels: slot.seat.labels.clone(),
                weight: slot.weight(),
                verdict: slot.verdict(),
                usable: !matches!(role, Role::Unfit),
                traffic,
                note: self.note(slot, role, first, now).into(),
                condition: slot.condition(),
                share: slot.share(),
                back_at: slot.outlier.ejection().map(|ejection| ejection.until),
                drilled_until: slot.drilled,
                operator: slot.word,
                says: slot.own.text(),
                cause: slot.cause(),
            });
        }
        PoolView {
            view: balance::View::build(&self.config.balance.algorithm, candidates),
            members,
            standings,
            panic: placement.panic,
            divided: !self.subsets.is_empty() || self.config.affinity.is_some(),
            bound: self.bound(slots, &placement.roles, rings, now),
            learnt: None,
        }
    }

    /// How far two builds of the view are apart at least: in proportion to how long one takes.
    pub(super) fn pause(&self) -> Duration {
        let algorithm = &self.config.balance.algorithm;
        let time = |count: usize| {
            let own = BUILD_TIME_EACH.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
            own.saturating_add(balance::View::build_time(algorithm, count))
                .saturating_add(self.rings.build_time(count))
        };
        let parts = self.subsets.iter();
        let parts: Duration = parts.map(|it| time(it.state.view().standings.len())).sum();
        let time = time(self.slots.len()).saturating_add(parts);
        time.saturating_mul(VIEW_PAUSE).max(VIEW_EVERY)
    }

    /// When the view is to be built again because servers warm up.
    pub(super) fn next_step(&self, now: Duration) -> Option<Duration> {
        let slow = self.config.slow_start?;
        let warming = self.slots.iter().any(|slot| slot.warmth.warming);
        warming.then(|| now.saturating_add(slow.step().max(self.pause())))
    }

    pub(super) fn division(&self) -> Division<'_> {
        let prefer = self.config.prefer_zone.as_ref();
        Division {
            overprovision: self.config.overprovision,
            own_zone: prefer.map(|prefer| &*prefer.zone),
            traffic: prefer
                .and_then(|prefer| prefer.traffic)
                .map(|percent| f64::from(percent) / 100.0),
            panic_threshold: self.config.panic_threshold,
        }
    }

    /// Why a server gets more or less than its weight says.
    fn note(&self, slot: &Slot, role: &Role, first: Option<u32>, now: Duration) -> String {
        let Seat {
            priority,
            backup,
            zone,
            ..
        } = &slot.seat;
        let in_zone = || match zone {
            Some(zone) => format!("zone {zone}"),
            None => "no zone".to_owned(),
        };
        let used = match role {
            Role::Unfit => return String::new(),
            Role::Backup => return "backup, not needed".to_owned(),
            Role::Priority => return format!("priority {priority}: not needed"),
            Role::Zone => return format!("{}: own zone suffices", in_zone()),
            Role::Used(used) => used,
            _ => return String::new(),
        };
        let mut parts = Vec::new();
        if *backup {
            parts.push("backup, in use".to_owned());
        }
        if Some(*priority) != first {
            parts.push(format!(
                "priority {priority}: {} overflow",
                percent(used.group)
            ));
        } else if used.group < ALL {
            parts.push(format!("priority {priority}: {}", percent(used.group)));
        }
        if used.side < ALL {
            let own = self.config.prefer_zone.as_ref().map(|prefer| &prefer.zone);
            let is_own = zone.is_some() && zone.as_ref() == own;
            let what = if is_own { "own zone" } else { "spill-over" };
            parts.push(format!("{}: {} {what}", in_zone(), percent(used.side)));
        }
        if slot.warmth.warming {
            let share = slot.warmth.share(self.config.slow_start.as_ref(), now);
            parts.push(format!("slow start at {share}"));
        }
        if let Some(max) = slot.half_open(&self.config) {
            let plural = if max == 1 { "" } else { "s" };
            parts.push(format!(
                "half open: {max} request{plural} at once until one succeeds"
            ));
        }
        parts.join("; ")
    }
}

impl Slot {
    /// Where it is in its pool, standing like this.
    pub(super) fn seat_as(&self, standing: balance::Standing) -> balance::Seat<'_> {
        balance::Seat {
            standing,
            priority: self.seat.priority,
            backup: self.seat.backup,
            zone: self.seat.zone.as_deref(),
            fresh: self.warmth.fresh,
        }
    }
}

/// Parts of [`ALL`] as users read them.
fn percent(parts: u32) -> String {
    format!("{} %", f64::from(parts) / 100.0)
}

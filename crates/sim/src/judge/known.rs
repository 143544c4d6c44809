//! What is known of one server, and the plain rules by which that changes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use balance::State;
use balance::health::Verdict;
use control::live::Member;
use wire::agent_check::{AgentAdmin, AgentLine, AgentService};

use super::place::{Seat, Standing};
use crate::scenario::{OutlierPlan, ServerPlan};

/// Ends of tries that are kept for a look back.
const LOG_MAX: usize = 2000;
/// What came so long ago may still bear on what the publisher hears.
const RECENT: Duration = Duration::from_secs(5);
/// The publisher may have seen the end of an ejection so much before the view shows it.
const SEEN_LATE: Duration = Duration::from_millis(80);

/// What is known of one member.
pub(super) struct Known {
    pub(super) server: usize,
    pub(super) member: Arc<Member>,
    pub(super) plan: ServerPlan,
    pub(super) weight: u32,
    pub(super) gone: bool,
    operator: Option<State>,
    /// What it said of itself when its operator enabled it.
    aside: Option<State>,
    admin: Option<AgentAdmin>,
    pub(super) percent: Option<u32>,
    down: bool,
    /// By its probes.
    pub(super) verdict: Verdict,
    pub(super) answers: bool,
    pub(super) successes: u32,
    pub(super) failures: u32,
    pub(super) needed: u32,
    pub(super) ejected: Option<Ejected>,
    level: u32,
    in_service: Duration,
    pub(super) ejections: u32,
    /// Those of them for a refused connection, where there are no probes: a tenth as long.
    pub(super) refusals: u32,
    /// Failures in a row.
    pub(super) streak: u32,
    /// Those of them for which it could have been ejected.
    pub(super) spared: u32,
    pub(super) failed_at: Duration,
    /// How many these were when the last one came, and whether it was on trial then.
    pub(super) failed_as: (u32, bool),
    /// Its first failure ejects it: it was ejected, and has not succeeded since.
    pub(super) on_trial: bool,
    /// When something was last amiss with it.
    pub(super) troubled: Duration,
    /// Whether each try of late failed.
    log: VecDeque<(Duration, bool)>,
    /// Requests that hold it.
    pub(super) in_use: u32,
    /// Those that it has answered, whatever it said.
    pub(super) answered: u64,
    /// As published last: what its traffic and its own word leave of its weight, and its slow start.
    pub(super) part: f64,
    /// It was there before its pool ever served, and was not found down since.
    pub(super) fresh: bool,
    pub(super) fit_since: Option<Duration>,
    pub(super) warming: bool,
    /// When any of it changed last.
    pub(super) changed: Duration,
    /// What runs on it may be cut from then on.
    pub(super) cut_from: Option<Duration>,
    /// Clients that are bound to it are let in no longer from then on.
    pub(super) closes_from: Option<Duration>,
    /// When a client came last that is bound to it.
    pub(super) bound_pick: Duration,
}

/// An ejection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ejected {
    pub(super) began: Duration,
    pub(super) until: Duration,
    /// If the last one ended a little earlier than it was seen to.
    other: (u32, Duration),
    answers: bool,
}

impl Ejected {
    /// Whether it answered when it was ejected, if badly.
    pub(super) fn answers(&self) -> bool {
        self.answers
    }
}

impl Known {
    pub(super) fn new(
        server: usize,
        member: &Arc<Member>,
        plan: ServerPlan,
        weight: u32,
        verdict: Verdict,
        now: Duration,
    ) -> Self {
        Self {
            server,
            member: member.clone(),
            plan,
            weight,
            gone: false,
            operator: None,
            aside: None,
            admin: None,
            percent: None,
            down: false,
            verdict,
            answers: verdict == Verdict::Healthy,
            successes: 0,
            failures: 0,
            needed: 1,
            ejected: None,
            level: 0,
            in_service: now,
            ejections: 0,
            refusals: 0,
            streak: 0,
            spared: 0,
            failed_at: Duration::ZERO,
            failed_as: (0, false),
            on_trial: false,
            troubled: Duration::ZERO,
            log: VecDeque::new(),
            in_use: 0,
            answered: 0,
            part: 1.0,
            fresh: false,
            fit_since: None,
            warming: false,
            changed: now,
            cut_from: None,
            closes_from: None,
            bound_pick: Duration::ZERO,
        }
    }

    /// What it wants itself.
    fn own(&self) -> State {
        match (self.admin, self.percent) {
            (Some(AgentAdmin::Maint), _) => State::Disabled,
            (Some(AgentAdmin::Drain), _) | (_, Some(0)) => State::Drain,
            _ => State::Ready,
        }
    }

    /// The state in force: the operator's word goes before its own.
    pub(super) fn state(&self) -> State {
        match self.operator {
            Some(word) if word != State::Ready => word,
            _ if self.aside == Some(self.own()) => State::Ready,
            _ => self.own(),
        }
    }

    pub(super) fn take_operator(&mut self, state: State) {
        self.operator = Some(state);
        let own = self.own();
        self.aside = (state == State::Ready && own != State::Ready).then_some(own);
    }

    /// Its agent's line.
    pub(super) fn take_line(&mut self, line: &AgentLine) -> bool {
        let before = (self.admin, self.percent, self.down);
        self.admin = line.admin.or(self.admin);
        self.percent = line.percent.or(self.percent);
        if let Some(service) = &line.service {
            self.down = *service != AgentService::Up;
        }
        if self.aside.is_some_and(|aside| aside != self.own()) {
            self.aside = None;
        }
        before != (self.admin, self.percent, self.down)
    }

    /// What part of its weight it asks for.
    pub(super) fn own_part(&self) -> f64 {
        self.percent
            .map_or(1.0, |percent| f64::from(percent.clamp(7, 100)) / 100.0)
    }

    /// As probes and its agent have it.
    pub(super) fn held(&self) -> Verdict {
        if self.down {
            Verdict::Unhealthy
        } else {
            self.verdict
        }
    }

    pub(super) fn shown(&self) -> String {
        format!(
            "s{}: {}, {}, weight {}, {}{}",
            self.server,
            self.state(),
            self.held(),
            self.weight,
            if self.gone { "removed" } else { "configured" },
            if self.ejected.is_some() {
                ", ejected"
            } else {
                ""
            },
        )
    }

    pub(super) fn is_open(&self) -> bool {
        !self.gone && self.state() == State::Ready && self.weight > 0
    }

    pub(super) fn is_fit(&self) -> bool {
        self.is_open() && self.held() == Verdict::Healthy && self.ejected.is_none()
    }

    pub(super) fn seat(&self, id: u32) -> Seat {
        Seat {
            id,
            weight: f64::from(self.weight),
            open: self.is_open(),
            part: self.part,
            standing: match (self.held(), self.ejected) {
                (Verdict::Unhealthy, _) | (_, Some(_)) => Standing::Bad,
                (Verdict::Healthy, None) => Standing::Fit,
                (Verdict::Unknown, None) => Standing::Unknown,
            },
            answers: self.answers && self.ejected.is_none_or(|it| it.answers),
            fresh: self.fresh,
            priority: self.plan.priority,
            backup: self.plan.backup,
            zone: self.plan.zone,
        }
    }

    /// It is out for a while, longer each time.
    pub(super) fn eject(
        &mut self,
        plan: &OutlierPlan,
        refused: bool,
        answers: bool,
        now: Duration,
    ) {
        let highest = plan
            .ejection_max
            .max(plan.ejection)
            .as_nanos()
            .div_ceil(plan.ejection.as_nanos().max(1)) as u32;
        let length = |served: Duration| {
            let forgiven = (served.as_nanos() / plan.ejection.as_nanos().max(1)) as u32;
            let level = (self.level.saturating_sub(forgiven) + 1).min(highest);
            let longest = plan.ejection_max.max(plan.ejection);
            let length = (plan.ejection * level).min(longest);
            (level, if refused { length / 10 } else { length })
        };
        let served = now.saturating_sub(self.in_service);
        let (level, first) = length(served);
        let (other, second) = length(served + SEEN_LATE);
        self.level = level;
        self.ejections += 1;
        self.refusals += u32::from(refused);
        self.streak = 0;
        self.spared = 0;
        self.ejected = Some(Ejected {
            began: now,
            until: now + first,
            other: (other, now + second),
            answers,
        });
        self.changed = now;
    }

    /// What is published of an ejection: until when.
    pub(super) fn see_until(&mut self, until: Duration) -> bool {
        let Some(ejected) = &mut self.ejected else {
            return false;
        };
        if until == ejected.until {
            return true;
        }
        let (level, other) = ejected.other;
        if until == other {
            self.level = level;
            ejected.until = other;
            return true;
        }
        false
    }

    /// Its probes had failed, and pass again: if it was ejected for silence, that is over.
    pub(super) fn hear_silence_end(&mut self, now: Duration) {
        if let Some(ejected) = self.ejected.as_mut().filter(|it| !it.answers) {
            ejected.until = ejected.until.min(now);
            ejected.other.1 = ejected.other.1.min(now);
        }
    }

    /// An ejection is over.
    pub(super) fn come_back(&mut self, now: Duration) {
        self.ejected = None;
        self.in_service = now;
        self.on_trial = true;
        self.troubled = now;
        self.log.clear();
        self.changed = now;
    }

    /// What its traffic said is forgotten.
    pub(super) fn forgive(&mut self, now: Duration) {
        self.ejected = None;
        self.level = 0;
        self.in_service = now;
        self.streak = 0;
        self.spared = 0;
        self.on_trial = false;
        self.log.clear();
        self.changed = now;
    }

    /// Its probes find it well again.
    pub(super) fn recover(&mut self) {
        self.streak = 0;
        self.spared = 0;
        self.on_trial = false;
        self.log.clear();
    }

    /// A try has ended.
    pub(super) fn count(&mut self, failed: bool, now: Duration) {
        self.log.push_back((now, failed));
        if self.log.len() > LOG_MAX {
            self.log.pop_front();
        }
        if failed {
            self.streak += 1;
            self.failed_at = now;
            self.failed_as = (self.streak, self.on_trial);
            self.troubled = now;
        } else {
            self.streak = 0;
            self.on_trial = false;
        }
    }

    /// Whether at most one of the last tries failed: a success of the same moment may have come between.
    pub(super) fn log_is_good(&self, now: Duration) -> bool {
        let recent = self
            .log
            .iter()
            .rev()
            .take_while(|(at, _)| *at + RECENT >= now);
        recent.filter(|(_, failed)| *failed).count() <= 1
    }

    /// Tries and failures of late, older ones less and less.
    pub(super) fn recent(&self, interval: Duration, now: Duration) -> (f64, f64) {
        let mut sums = (0.0, 0.0);
        for (at, failed) in &self.log {
            let age = now.saturating_sub(*at).as_secs_f64() / interval.as_secs_f64();
            let weight = (-age).exp();
            sums.0 += weight;
            sums.1 += if *failed { weight } else { 0.0 };
        }
        sums
    }
}

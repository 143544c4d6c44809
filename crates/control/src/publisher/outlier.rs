//! What real traffic says of servers: streaks that workers tell of, and counts that are looked at now and then.
//!
//! Workers only count. Whether a server is ejected, gets less, or comes back is `balance::outlier`'s to say; here its
//! words are asked for, logged and published.

use std::sync::Arc;
use std::time::Duration;

use balance::health::{Transition, Verdict};
use balance::outlier::{Cause, Ejection, Failure, Settings, Streak, Subject, judge};
use balance::{Condition, State, may_eject};

use super::pools::{Place, PoolEntry, Slot};
use super::{Action, Notice, Publisher};

impl Slot {
    /// Puts the server back into service as if its traffic had said nothing.
    pub(super) fn forgive(&mut self, now: Duration) {
        self.member.forget_streaks();
        self.member.set_half_open(false);
        self.outlier.forgive(now);
    }

    /// Takes up other settings: an ejection goes on; with `off`, only one that came of a refused connection.
    pub(super) fn take_outlier(&mut self, settings: Option<&Settings>, now: Duration) {
        let (gateway, server) = settings.map_or((None, None), |settings| {
            (settings.gateway_errors, settings.server_errors)
        });
        self.member.set_streaks_max(gateway, server);
        let refused = |ejection: &Ejection| ejection.cause == Cause::Refused;
        if settings.is_none() && !self.outlier.ejection().is_some_and(refused) {
            self.forgive(now);
        }
    }

    /// Its counts as its pool's judge wants them.
    fn take_totals(&mut self, settings: &Settings, now: Duration) {
        let (requests, failed) = self.member.totals();
        self.outlier.handle_totals(requests, failed, now, settings);
    }
}

impl Publisher {
    /// A connection was refused: the server is out until a probe succeeds, or for a while if there are no probes; with
    /// `outlier_detection: off` too, since this is no matter of counts.
    pub(super) fn handle_refused(&mut self, id: u32, now: Duration) {
        let Some((pool, probed)) = self.asks(id) else {
            return;
        };
        if !probed {
            self.eject(id, Cause::Refused, now);
            if let Some((slot, _)) = Place::find(&self.places, &mut self.pools, id) {
                slot.member.forget_refused();
            }
            return;
        }
        let mut out = false;
        self.with_slot(id, now, |slot| -> Option<Transition> {
            slot.member.forget_refused();
            let transition = slot.health.as_mut()?.handle_refused(now);
            out = transition.is_some();
            // What did not answer was on its way down: it is back as soon as its probes find it.
            let ejection = slot.outlier.ejection();
            if ejection.is_some_and(|ejection| !ejection.cause.answers()) {
                slot.outlier.forgive(now);
            }
            slot.member.forget_streaks();
            transition
        });
        if out && let Some(entry) = self.pools.get(&pool) {
            entry.count_ejection(&Cause::Refused);
        }
    }

    /// So many failures in a row as the pool's settings say have come.
    pub(super) fn handle_failing(&mut self, id: u32, streak: Streak, last: Failure, now: Duration) {
        let Some((slot, _)) = Place::find(&self.places, &mut self.pools, id) else {
            return;
        };
        slot.member.forget_told();
        let Some(settings) = self.settings_of(id) else {
            return;
        };
        let count = match streak {
            Streak::GatewayErrors => settings.gateway_errors,
            Streak::ServerErrors => settings.server_errors,
        };
        if let Some(count) = count {
            let cause = Cause::Streak {
                streak,
                count,
                last,
            };
            self.eject(id, cause, now);
        }
    }

    /// Says when the traffic of any pool is to be looked at.
    pub(super) fn plan_sweep(&mut self) {
        self.sweep_at = self.pools.values().filter_map(PoolEntry::sweep_at).min();
    }

    /// Ends ejections whose time is over, and has each due pool's servers judged by their counts.
    pub(super) fn sweep_due_pools(&mut self, now: Duration) {
        if self.sweep_at.is_none_or(|at| at > now) {
            return;
        }
        let mut ejections = Vec::new();
        let mut changed = Vec::new();
        for entry in self.pools.values_mut() {
            if entry.sweep_at().is_some_and(|at| at <= now) {
                entry.swept = now;
                if entry.sweep(now, &mut ejections, &mut self.actions) {
                    changed.push(entry.state.name.clone());
                }
            }
        }
        for pool in changed {
            self.mark_dirty(&pool, now);
        }
        for (id, cause) in ejections {
            self.eject(id, cause, now);
        }
        self.plan_sweep();
    }

    /// Takes a server out for a while, if that leaves enough.
    fn eject(&mut self, id: u32, cause: Cause, now: Duration) {
        let Some(Place { pool, at }) = self.places.get(&id) else {
            return;
        };
        let Some(entry) = self.pools.get_mut(pool) else {
            return;
        };
        let by_default = Settings::default();
        let settings = match &entry.config.outlier_detection {
            Some(settings) => settings,
            None if cause == Cause::Refused => &by_default,
            None => return,
        };
        // Who refuses connections is no use to anyone, however many do.
        let share = match cause {
            Cause::Refused => 100,
            _ => settings.ejected_max,
        };
        let standings: Vec<_> = entry.slots.iter().map(Slot::standing).collect();
        if !may_eject(&standings, *at, share) {
            return;
        }
        let Some(slot) = entry.slots.get_mut(*at) else {
            return;
        };
        let from = slot.condition();
        // Out by its probes or a refused connection already; it is they that bring it back.
        if slot.verdict() == Verdict::Unhealthy {
            return;
        }
        if !slot.outlier.handle_ejection(cause, settings, now) {
            return;
        }
        slot.member.forget_streaks();
        let length = slot.outlier.ejection().map_or(Duration::ZERO, |ejection| {
            ejection.until.saturating_sub(now)
        });
        let why = format!("{cause}; back in {}", shown(length));
        let pool = entry.state.name.clone();
        self.actions
            .push_back(Action::Log(notice(&pool, slot, from, why.into())));
        entry.count_ejection(&cause);
        self.mark_dirty(&pool, now);
        self.build_due_views(now);
        self.plan_sweep();
    }

    /// The pool of a member, and whether its servers are probed.
    fn asks(&self, id: u32) -> Option<(Arc<str>, bool)> {
        let entry = self.pools.get(&self.places.get(&id)?.pool)?;
        Some((entry.state.name.clone(), entry.check.is_some()))
    }

    fn settings_of(&self, id: u32) -> Option<&Settings> {
        let entry = self.pools.get(&self.places.get(&id)?.pool)?;
        entry.config.outlier_detection.as_ref()
    }
}

impl PoolEntry {
    /// When its servers' traffic is to be looked at next; where it is not judged, when the next one comes back that
    /// refused a connection.
    fn sweep_at(&self) -> Option<Duration> {
        if let Some(settings) = self.config.outlier_detection.as_ref() {
            return Some(self.swept.saturating_add(settings.tick()));
        }
        let ejections = self.slots.iter().filter_map(|slot| slot.outlier.ejection());
        ejections.map(|ejection| ejection.until).min()
    }

    fn count_ejection(&self, cause: &Cause) {
        // The publisher is the one writer of these, in whichever block.
        let cells = self.state.stats.of(0);
        if let Some(counter) = cells.ejections.get(cause.label_index()) {
            counter.increment();
        }
    }

    /// Linear in its servers. True if the view is out of date.
    fn sweep(
        &mut self,
        now: Duration,
        ejections: &mut Vec<(u32, Cause)>,
        actions: &mut std::collections::VecDeque<Action>,
    ) -> bool {
        let Some(settings) = self.config.outlier_detection.as_ref() else {
            return self.end_ejections(now, actions);
        };
        let mut changed = false;
        let mut before = Vec::with_capacity(self.slots.len());
        for slot in &mut self.slots {
            before.push(slot.condition());
            let was_half_open = slot.outlier.is_half_open();
            slot.take_totals(settings, now);
            if was_half_open && !slot.outlier.is_half_open() {
                slot.member.set_half_open(false);
                changed = true;
            }
            if slot.outlier.handle_timeout(now) {
                slot.member.set_on_trial();
                slot.member.set_half_open(true);
                changed = true;
            }
        }
        let mut subjects: Vec<Subject<'_>> = self
            .slots
            .iter_mut()
            .map(|slot| {
                let serves = slot.standing().is_open() && slot.verdict() == Verdict::Healthy;
                Subject {
                    serves,
                    latency: slot.member.cell.latency(),
                    outlier: &mut slot.outlier,
                }
            })
            .collect();
        let (moved, found) = judge(&mut subjects, settings);
        ejections.extend(
            found
                .into_iter()
                .filter_map(|(at, cause)| Some((self.slots.get(at)?.member.id, cause))),
        );
        for (slot, before) in self.slots.iter().zip(before) {
            let to = slot.condition();
            if to != before && slot.member.cell.state() == State::Ready {
                let why = match (before, to) {
                    (_, Condition::Healthy) => "recovered".into(),
                    (Condition::Ejected, _) => "the ejection is over; its traffic grows".into(),
                    _ => slot.cause(),
                };
                actions.push_back(Action::Log(notice(&self.state.name, slot, before, why)));
            }
        }
        changed || moved
    }
}

impl PoolEntry {
    /// Where traffic is not judged: who refused a connection is tried again, with all of its weight.
    fn end_ejections(
        &mut self,
        now: Duration,
        actions: &mut std::collections::VecDeque<Action>,
    ) -> bool {
        let mut changed = false;
        for slot in &mut self.slots {
            let before = slot.condition();
            let over = |ejection: &Ejection| ejection.until <= now;
            if slot.outlier.ejection().is_some_and(over) {
                slot.forgive(now);
                changed = true;
                let why = "tried again".into();
                actions.push_back(Action::Log(notice(&self.state.name, slot, before, why)));
            }
        }
        changed
    }
}

fn notice(pool: &Arc<str>, slot: &Slot, from: Condition, cause: Arc<str>) -> Notice {
    Notice::Health {
        pool: pool.clone(),
        server: slot.member.name.clone(),
        from: from.word(),
        to: slot.condition().word(),
        cause,
    }
}

fn shown(length: Duration) -> String {
    if length.subsec_nanos() == 0 {
        format!("{} s", length.as_secs())
    } else {
        format!("{} ms", length.as_millis())
    }
}

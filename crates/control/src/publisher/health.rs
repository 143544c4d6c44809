//! When probes are due, and what their ends change.

use std::sync::Arc;
use std::time::Duration;

use balance::health::{Cause, Outcome, Transition};

use super::pools::{Place, Slot};
use super::{Action, Notice, PROBE_AGAIN, Probe, Publisher};

impl Publisher {
    /// Puts a member's next probe into the schedule.
    pub(super) fn schedule(&mut self, slot: &mut Slot) {
        let random = self.next_random();
        if let Some(health) = &slot.health {
            let due = health.poll_next_probe(random);
            slot.due = Some(due);
            self.schedule.insert((due, slot.member.id));
        }
    }

    pub(super) fn unschedule(&mut self, slot: &mut Slot) {
        slot.asked = None;
        if let Some(due) = slot.due.take() {
            self.schedule.remove(&(due, slot.member.id));
        }
    }

    pub(super) fn send_due_probes(&mut self, now: Duration) {
        let mut refused = Vec::new();
        while let Some((at, id)) = self.schedule.first().copied() {
            if at > now {
                break;
            }
            self.schedule.remove(&(at, id));
            let number = self.next_probe;
            self.next_probe += 1;
            let Some((slot, pool)) = Place::find(&self.places, &mut self.pools, id) else {
                continue;
            };
            let Some(check) = pool.check.cloned() else {
                continue;
            };
            slot.due = None;
            slot.asked = Some(number);
            if slot.member.is_crashed() {
                refused.push((id, number));
                continue;
            }
            let endpoint = slot.member.endpoint.clone();
            let host = slot.member.host().map(|host| (*host).clone());
            self.actions.push_back(Action::Probe(Probe {
                member: id,
                number,
                endpoint,
                host,
                check,
            }));
        }
        self.refuse_probes(refused, now);
    }

    pub(super) fn handle_probed(&mut self, id: u32, probe: u64, outcome: Outcome, now: Duration) {
        self.with_slot(id, now, |slot| {
            if slot.asked != Some(probe) {
                return None;
            }
            slot.asked = None;
            let outcome = match outcome {
                // Sent before the drill: a crash leaves it without an answer.
                Outcome::Success if slot.member.is_crashed() => Outcome::Failure(Cause::Closed),
                outcome => outcome,
            };
            slot.health.as_mut()?.handle_outcome(outcome, now)
        });
    }

    /// Leaves a server's verdict as it is, and asks again later.
    pub(super) fn handle_not_probed(&mut self, id: u32, probe: u64, now: Duration) {
        let Some((slot, _)) = Place::find(&self.places, &mut self.pools, id) else {
            return;
        };
        if slot.asked != Some(probe) {
            return;
        }
        slot.asked = None;
        let due = now.saturating_add(PROBE_AGAIN);
        slot.due = Some(due);
        self.schedule.insert((due, id));
    }

    /// Lets `change` work on one member's health, then logs a transition, has the view built again, and sees to the
    /// next probe.
    pub(super) fn with_slot(
        &mut self,
        id: u32,
        now: Duration,
        change: impl FnOnce(&mut Slot) -> Option<Transition>,
    ) {
        let random = self.next_random();
        let Some((slot, pool)) = Place::find(&self.places, &mut self.pools, id) else {
            return;
        };
        let pool = pool.name.clone();
        let answers = slot
            .health
            .as_ref()
            .is_some_and(balance::health::Health::answers);
        let cause = slot
            .health
            .as_ref()
            .and_then(|health| health.cause().cloned());
        let ejected = slot.is_ejected();
        let transition = change(slot);
        let Some(health) = &slot.health else {
            return;
        };
        let changed = transition.is_some()
            || ejected != slot.is_ejected()
            || answers != health.answers()
            || cause != health.cause().cloned();
        if slot.asked.is_none() {
            let due = health.poll_next_probe(random).max(now);
            if let Some(old) = slot.due.replace(due) {
                self.schedule.remove(&(old, id));
            }
            self.schedule.insert((due, id));
        }
        if let Some(transition) = transition {
            if transition.to == balance::health::Verdict::Healthy {
                slot.outlier.handle_recovery();
                slot.member.forget_streaks();
                if transition.from == balance::health::Verdict::Unhealthy {
                    slot.outlier.handle_probes_pass(now);
                }
            }
            self.actions
                .push_back(Action::Log(notice(&pool, slot, &transition)));
        }
        if changed {
            self.mark_dirty(&pool, now);
        }
    }
}

fn notice(pool: &Arc<str>, slot: &Slot, transition: &Transition) -> Notice {
    Notice::Health {
        pool: pool.clone(),
        server: slot.member.name.clone(),
        from: word(transition.from),
        to: word(transition.to),
        cause: transition.cause.as_ref().map_or_else(
            || "passes its probes".into(),
            |cause| cause.to_string().into(),
        ),
    }
}

/// The word for a verdict in logs, tables and the API.
#[must_use]
pub fn word(verdict: balance::health::Verdict) -> &'static str {
    use balance::health::Verdict;
    match verdict {
        Verdict::Unknown => "unknown",
        Verdict::Healthy => "healthy",
        Verdict::Unhealthy => "unhealthy",
    }
}

//! Limits that follow latency: within their bounds. That no pick goes past them is judged with all other limits.

use std::time::Duration;

use super::{Judge, Rule};
use crate::decisions::Decisions;
use crate::scenario::AdaptivePlan;

/// What was seen of them.
#[derive(Debug)]
pub(super) struct Limits {
    plan: AdaptivePlan,
    lowest: u32,
    /// The least of all servers, at the last look.
    last: u32,
}

impl Limits {
    pub(super) fn new(plan: AdaptivePlan) -> Self {
        Self {
            plan,
            lowest: u32::MAX,
            last: u32::MAX,
        }
    }

    /// The lowest, and the last.
    pub(super) fn seen(&self) -> Option<(u32, u32)> {
        (self.lowest < u32::MAX).then_some((self.lowest, self.last))
    }

    fn look(&mut self, name: &str, limit: u32) -> Result<(), String> {
        let AdaptivePlan { min, max, .. } = self.plan;
        self.lowest = self.lowest.min(limit);
        self.last = self.last.min(limit);
        if (min..=max).contains(&limit) {
            return Ok(());
        }
        Err(format!(
            "{name} may hold {limit}, {min} to {max} are allowed"
        ))
    }
}

impl Judge {
    /// The publisher has done something: limits may have changed.
    pub(crate) fn handle_limits(&mut self, now: Duration, decisions: &mut dyn Decisions) {
        let Some(limits) = &mut self.limits else {
            return;
        };
        limits.last = u32::MAX;
        let mut found = Ok(());
        for (_, known) in self.shadow.all().filter(|(_, it)| !it.gone) {
            if let Some(limit) = decisions.limit(&known.member) {
                found = found.and(limits.look(&known.member.name, limit));
            }
        }
        if let Err(what) = found {
            self.object(now, Rule::Adaptive, what);
        }
    }
}

//! Shares in quiet times: from one view or fault to the next.

use std::collections::BTreeMap;
use std::time::Duration;

use balance::Candidate;
use control::live::PoolView;

use super::Rule;

/// A server that should have had this many picks and had none starves.
const PICKS_MISSED_MAX: f64 = 40.0;
/// Shares are judged from this many picks on.
const PICKS_MIN: u64 = 50;
/// Where chance decides: no more than so many standard deviations off. Of a million, one in 500 million.
const DEVIATIONS: f64 = 6.0;

/// Picks since the last view or fault.
pub(super) struct Window {
    balance: &'static str,
    /// Whether servers may be full.
    limited: bool,
    /// Whether servers have load from elsewhere.
    shared: bool,
    total: u64,
    picks: BTreeMap<u32, u64>,
    /// No server has a fault.
    well: bool,
    /// No try has failed in it.
    quiet: bool,
    /// When a try failed, or something happened, last.
    troubled: Duration,
}

/// What came of a window.
#[derive(Default)]
pub(super) struct Found {
    pub(super) judged: bool,
    pub(super) objections: Vec<(Rule, String)>,
}

impl Window {
    pub(super) fn new(balance: &'static str, limited: bool, shared: bool) -> Self {
        Self {
            balance,
            limited,
            shared,
            total: 0,
            picks: BTreeMap::new(),
            well: true,
            quiet: true,
            troubled: crate::engine::START,
        }
    }

    pub(super) fn set_well(&mut self, well: bool) {
        self.well = well;
    }

    pub(super) fn trouble(&mut self, now: Duration) {
        self.quiet = false;
        self.troubled = now;
    }

    /// A server got a request that was not the algorithm's to place.
    pub(super) fn pass_by(&mut self, now: Duration) {
        // Where load has no say, turns are as they were.
        if !matches!(self.balance, "round_robin" | "random") {
            self.trouble(now);
        }
    }

    pub(super) fn count(&mut self, member: u32) {
        self.total += 1;
        *self.picks.entry(member).or_default() += 1;
    }

    /// Whether nothing has been amiss for as long as it takes all to come to rest.
    pub(super) fn is_settled(&self, now: Duration, settle: Duration) -> bool {
        self.well && now.saturating_sub(self.troubled) > settle
    }

    /// Judges what was counted, and begins anew.
    pub(super) fn close(&mut self, view: &PoolView) -> Found {
        let total = std::mem::take(&mut self.total);
        let picks = std::mem::take(&mut self.picks);
        let calm = self.well && std::mem::replace(&mut self.quiet, true);
        let mut found = Found::default();
        if total < PICKS_MIN {
            return found;
        }
        let candidates = view.view.candidates();
        let units = |it: &Candidate| f64::from(it.weight) * it.share.factor();
        let sum: f64 = candidates.iter().map(units).sum();
        let alike = candidates
            .iter()
            .all(|it| units(it) == units(&candidates[0]));
        let whole = candidates.iter().all(|it| it.share.is_full());
        found.judged = calm;
        for candidate in candidates {
            let had = picks.get(&candidate.id).copied().unwrap_or(0);
            let due = total as f64 * units(candidate) / sum;
            let name = |id: u32| {
                let mut members = view.members.iter();
                members
                    .find(|it| it.id == id)
                    .map_or_else(String::new, |it| it.name.to_string())
            };
            if had == 0 && due >= PICKS_MISSED_MAX && self.never_starves(calm) {
                let what = format!("{} had none of {total} picks", name(candidate.id));
                found.objections.push((Rule::Starved, what));
                continue;
            }
            let off = (had as f64 - due).abs();
            if let Some(bound) = self.bound(due, alike, whole).filter(|_| calm)
                && off > bound
            {
                let what = format!(
                    "{} had {had} of {total} picks, {due:.1} ± {bound:.1} are its share",
                    name(candidate.id)
                );
                found.objections.push((Rule::Shares, what));
            }
        }
        found
    }

    /// Whether every server has its turn, even of those that answer slowly (`calm`: while all are well).
    fn never_starves(&self, calm: bool) -> bool {
        match self.balance {
            // A server without a free slot is passed over.
            "round_robin" | "random" => calm || !self.limited,
            "ip_hash" | "consistent_hash" | "maglev" => calm,
            "least_connections" | "power_of_two" => calm && !self.shared,
            // Who answers faster may get all.
            _ => false,
        }
    }

    /// How far off its share a server may be, in picks.
    fn bound(&self, due: f64, alike: bool, whole: bool) -> Option<f64> {
        let chance = DEVIATIONS * due.sqrt() + 3.0;
        match self.balance {
            // Less than one pick ahead or behind, at both ends.
            "round_robin" if whole => Some(2.0),
            // Parts of weights make long periods, whose turns are spread, but not written out.
            "round_robin" => Some(6.0),
            "random" => Some(chance),
            "power_of_two" if alike && !self.shared => Some(chance + due * 0.05),
            // Keys are at random here; a server's part of the ring is off by less than 22 % nearly always.
            "ip_hash" | "consistent_hash" | "maglev" => Some(chance + due * 0.3),
            _ => None,
        }
    }
}

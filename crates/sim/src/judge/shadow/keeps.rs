//! Which servers keep the clients that are bound to them, once more and plainly.

use std::time::Duration;

use balance::State;
use balance::health::Verdict;

use super::{Known, Shadow};

/// A drain is over when no client that is bound to the server has come for so long.
const DRAIN_QUIET: Duration = Duration::from_secs(5);
impl Shadow {
    /// A client came to the server that it is bound to.
    pub(in crate::judge) fn note_bound_pick(&mut self, member: u32, now: Duration) {
        if let Some(known) = self.members.get_mut(member) {
            known.bound_pick = now;
        }
    }

    fn there(&self, server: usize) -> Option<(u32, &Known)> {
        let mut members = self.members.iter();
        members.find(|(_, it)| it.server == server && !it.gone)
    }

    /// Whether a server keeps the clients that are bound to it; `None`: there is no telling now.
    pub(in crate::judge) fn keeps(
        &mut self,
        server: usize,
        moves: bool,
        now: Duration,
        grace: Duration,
    ) -> Option<bool> {
        if !self.is_stable(now, grace) {
            return None;
        }
        let Some((id, known)) = self.there(server) else {
            return Some(false);
        };
        let (state, weight, drain) = (known.state(), known.weight, known.closes_from);
        let bad = known.held() == Verdict::Unhealthy || known.ejected.is_some();
        let came = known.bound_pick.max(known.changed);
        if state == State::Disabled {
            return Some(false);
        }
        if self.due(0).contains_key(&id) {
            return Some(true);
        }
        match (state, drain) {
            _ if bad => Some(false),
            (State::Drain, _) if moves => Some(false),
            (State::Drain, None) => Some(true),
            (State::Drain, Some(until)) if until + grace < now => Some(false),
            // It is over as soon as none of them has come for a while.
            (State::Drain, Some(until)) => {
                let kept = came + DRAIN_QUIET > now + grace && until > now + grace;
                kept.then_some(true)
            }
            _ if weight == 0 => Some(!moves),
            _ => Some(true),
        }
    }

    /// Whether clients whose binding is required may leave a server: it is gone, or to be emptied. Yes, if it was of late.
    pub(in crate::judge) fn lets_go(
        &self,
        server: usize,
        moves: bool,
        now: Duration,
        grace: Duration,
    ) -> bool {
        self.there(server).is_none_or(|(_, known)| {
            known.changed + grace > now
                || known.state() == State::Drain && (moves || known.cut_from.is_some())
                || known.weight == 0 && moves
        })
    }
}

//! Drains that wait, and their receipts.

use std::sync::Arc;
use std::time::Duration;

use balance::State;

use super::{Action, Notice, Publisher};
use crate::live::Member;
use crate::message::{Answer, Cut, Receipt, Reply};

/// How often a drain that waits is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long what was cut has to end.
const CUT_WAIT: Duration = Duration::from_secs(1);

pub(super) struct PendingDrain {
    member: Arc<Member>,
    reply: Option<Reply>,
    began: Duration,
    /// When what still runs is cut.
    deadline: Option<Duration>,
    /// Requests in use at the moment of the drain.
    held: u32,
    picks: u64,
    affinity_picks: u64,
    cut: u64,
    cut_until: Option<Duration>,
    pub(super) look_at: Duration,
}

impl Publisher {
    /// Drains a server; the receipt goes out as an action when it holds nothing any more, or at the deadline.
    pub fn handle_drain(
        &mut self,
        pool: &str,
        server: &str,
        timeout: Option<Duration>,
        reply: Reply,
        now: Duration,
    ) {
        let Some(entry) = self.pools.get_mut(pool) else {
            self.actions.push_back(Action::Reply(
                reply,
                Answer::NotFound(format!("no pool `{pool}`")),
            ));
            return;
        };
        let name = entry.state.name.clone();
        let timeout = timeout.or(entry.config.drain_timeout);
        let Some(slot) = entry.slots.iter_mut().find(|slot| slot.answers_to(server)) else {
            let why = format!("no server `{server}` in pool `{pool}`");
            self.actions
                .push_back(Action::Reply(reply, Answer::NotFound(why)));
            return;
        };
        let member = slot.member.clone();
        slot.word = Some(State::Drain);
        member.set_cut(false);
        let held = member.cell.set_state(State::Drain);
        let affinity_picks = member.cell.affinity_picks();
        let picks = member.cell.picks() - affinity_picks;
        let server = member.name.clone();
        self.actions.push_back(Action::Log(Notice::Operator {
            pool: name.clone(),
            server,
            what: "drain".to_owned(),
        }));
        self.drains.push(PendingDrain {
            member,
            reply: Some(reply),
            began: now,
            deadline: timeout.map(|timeout| now.saturating_add(timeout)),
            held,
            picks,
            affinity_picks,
            cut: 0,
            cut_until: None,
            look_at: now,
        });
        self.mark_dirty(&name, now);
        self.build_due_views(now);
        self.look_at_drains(now);
    }

    pub(super) fn look_at_drains(&mut self, now: Duration) {
        let actions = &mut self.actions;
        self.drains.retain_mut(|drain| {
            if drain.look_at > now {
                return true;
            }
            let in_use = drain.member.cell.in_use();
            if in_use == 0 || drain.cut_until.is_some_and(|until| until <= now) {
                actions.extend(drain.end(now));
                return false;
            }
            if drain.cut_until.is_none() && drain.deadline.is_some_and(|deadline| deadline <= now) {
                drain.cut = u64::from(in_use);
                drain.cut_until = Some(now.saturating_add(CUT_WAIT));
                drain.member.set_cut(true);
                actions.push_back(Action::Cut(drain.member.id));
            }
            drain.look_at = now.saturating_add(LOOK_EVERY);
            true
        });
    }

    /// Ends the drains of a server that was given another word.
    pub(super) fn end_drains(&mut self, pool: &str, server: &str, now: Duration) {
        let actions = &mut self.actions;
        self.drains.retain_mut(|drain| {
            let same = *drain.member.pool == *pool && *drain.member.name == *server;
            if same {
                actions.extend(drain.end(now));
            }
            !same
        });
    }
}

impl PendingDrain {
    fn end(&mut self, now: Duration) -> Option<Action> {
        let affinity_picks = self.member.cell.affinity_picks();
        let picks = self.member.cell.picks() - affinity_picks;
        let by_affinity = affinity_picks - self.affinity_picks;
        let ended = u64::from(self.held) + by_affinity;
        let receipt = Receipt {
            new_picks: picks - self.picks,
            affinity_picks: by_affinity,
            finished: ended
                .saturating_sub(self.cut)
                .saturating_sub(u64::from(self.member.cell.in_use())),
            cut: if self.cut > 0 {
                vec![Cut {
                    reason: "deadline",
                    count: self.cut,
                }]
            } else {
                Vec::new()
            },
            took_ms: u64::try_from(now.saturating_sub(self.began).as_millis()).unwrap_or(u64::MAX),
        };
        self.reply
            .take()
            .map(|reply| Action::Reply(reply, Answer::Drained(receipt)))
    }
}

//! Whether, when and where a request is tried again.

use std::time::Duration;

use config::Backoff;
use control::live::Member;
use control::reason::Reason;

use super::exchange::Cx;
use super::upload::Upload;
use crate::net;
use crate::upstream::{self, Lease};

/// Whether a request that was sent, and got no byte of an answer, may be sent to another server.
pub(super) fn may_retry(cx: &Cx<'_>, upload: &Upload, reason: Reason) -> Result<(), Reason> {
    if !may_repeat(cx, upload) || cx.attempts_left.get() == 0 {
        return Err(reason);
    }
    if !cx.pool.borrow().state.budget.try_retry(net::now()) {
        return Err(Reason::RetryBudget);
    }
    cx.attempts_left.set(cx.attempts_left.get() - 1);
    Ok(())
}

/// Whether what a server took of the request may be, and can be, sent to another one.
pub(super) fn may_repeat(cx: &Cx<'_>, upload: &Upload) -> bool {
    cx.repeats && upload.can_replay && !is_past(cx.until)
}

/// Another server for a request whose try at `member` may be given up for it: one that was not tried, within attempts
/// and budget.
pub(super) fn elsewhere(
    cx: &Cx<'_>,
    upload: &Upload,
    tried: &mut Vec<u32>,
    member: &Member,
) -> Option<Lease> {
    if cx.attempts_left.get() == 0 {
        return None;
    }
    let lease = beside(cx, upload, tried, member)?;
    cx.attempts_left.set(cx.attempts_left.get() - 1);
    Some(lease)
}

/// The same for a try beside the one at `member`, which goes on: it counts against the budget alone.
pub(super) fn beside(
    cx: &Cx<'_>,
    upload: &Upload,
    tried: &mut Vec<u32>,
    member: &Member,
) -> Option<Lease> {
    if !may_repeat(cx, upload) {
        return None;
    }
    let now = net::now();
    let mut pool = cx.pool.borrow_mut();
    if !pool.state.budget.try_retry(now) {
        return None;
    }
    note_tried(tried, member);
    let picked = upstream::pick(&mut pool, cx.plan.key, tried, now);
    if picked.is_err() {
        pool.state.budget.take_back(now);
    }
    picked.ok()
}

pub(super) fn note_tried(tried: &mut Vec<u32>, member: &Member) {
    if !tried.contains(&member.id) {
        tried.push(member.id);
    }
}

/// Waits before a further try: at random up to a bound that doubles, so that what failed together does not come back
/// together.
pub(super) async fn pause(cx: &Cx<'_>, backoff: Backoff) {
    let made = cx
        .plan
        .retries
        .attempts
        .saturating_sub(cx.attempts_left.get());
    let bound = u64::try_from(backoff.bound(made).as_micros()).unwrap_or(u64::MAX);
    let drawn = cx.conn.worker.random() % bound.saturating_add(1).max(1);
    let wait = Duration::from_micros(drawn);
    if cx
        .until
        .is_some_and(|until| until <= net::now().saturating_add(wait))
    {
        return;
    }
    net::sleep(wait).await;
}

pub(super) fn is_past(until: Option<Duration>) -> bool {
    until.is_some_and(|until| until <= net::now())
}

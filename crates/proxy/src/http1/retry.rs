//! Whether, when and where a request is tried again.

use std::future::poll_fn;
use std::pin::pin;

use config::Backoff;
use control::reason::Reason;
use control::tries::{beside as beside_by, note_tried};

use super::exchange::Cx;
use super::upload::Upload;
use crate::bounds::Counted;
use crate::net::{self, Deadline};
use crate::upstream::Lease;
use crate::watch::unless_gone;

/// Whether a request that was sent, and got no byte of an answer, may be sent to another server.
pub(super) fn may_retry(cx: &Cx<'_>, upload: &Upload, reason: Reason) -> Result<(), Reason> {
    let repeatable = may_repeat(cx, upload, false);
    if repeatable && cx.allowance.left() > 0 && !claim_place(cx) {
        return Err(Reason::RetryBudget);
    }
    let pool = cx.pool.borrow();
    cx.allowance
        .retry(repeatable, reason, &pool.state.budget, net::now())
}

/// Whether what a server took of the request may be, and can be, sent to another one.
fn may_repeat(cx: &Cx<'_>, upload: &Upload, answered: bool) -> bool {
    (cx.repeats || answered) && upload.can_replay && !cx.time.is_over()
}

/// Another server for a request whose try at one of `running` may be given up for it: one that was not tried, within
/// attempts and budget. `answered`: for an answer after which it may be, which was looked at already.
pub(super) fn elsewhere(
    cx: &Cx<'_>,
    upload: &Upload,
    tried: &mut Vec<u32>,
    running: impl IntoIterator<Item = u32>,
    answered: bool,
) -> Option<Lease> {
    let repeatable = may_repeat(cx, upload, answered);
    if repeatable && cx.allowance.left() > 0 && !claim_place(cx) {
        return None;
    }
    let state = cx.pool.borrow().state.clone();
    cx.allowance
        .elsewhere(repeatable, &state.budget, net::now(), || {
            note_all(tried, running);
            cx.pick(tried).ok()
        })
}

/// The same for a try beside those at `running`, which go on: it counts against the budget alone.
pub(super) fn beside(
    cx: &Cx<'_>,
    upload: &Upload,
    tried: &mut Vec<u32>,
    running: impl IntoIterator<Item = u32>,
) -> Option<Lease> {
    let repeatable = may_repeat(cx, upload, false);
    if repeatable && !claim_place(cx) {
        return None;
    }
    let state = cx.pool.borrow().state.clone();
    beside_by(repeatable, &state.budget, net::now(), || {
        note_all(tried, running);
        cx.pick(tried).ok()
    })
}

/// No server gets a request that it has.
fn note_all(tried: &mut Vec<u32>, running: impl IntoIterator<Item = u32>) {
    for member in running {
        note_tried(tried, member);
    }
}

/// Whether the request may be one of those of its pool that are tried again. It stays one until a server has answered it.
fn claim_place(cx: &Cx<'_>) -> bool {
    let Some(max) = cx.config.retries_max else {
        return true;
    };
    let mut place = cx.retrying.borrow_mut();
    if place.is_none() {
        *place = Counted::retry(&cx.conn.worker, &cx.pool.borrow(), max);
    }
    place.is_some()
}

/// Waits before a further try: at random up to a bound that doubles, so that what failed together does not come back
/// together. `None`: the client has left meanwhile.
pub(super) async fn pause(cx: &Cx<'_>, backoff: Backoff) -> Option<()> {
    let wait = cx.allowance.backoff(backoff, cx.conn.worker.random());
    if cx
        .time
        .until
        .is_some_and(|until| until <= net::now().saturating_add(wait))
    {
        return Some(());
    }
    let deadline = Deadline::new();
    deadline.set(Some(wait));
    let over = pin!(poll_fn(|cx| deadline.poll(cx).map(|_: net::Elapsed| ())));
    unless_gone(&cx.conn.stream, &deadline, over).await
}

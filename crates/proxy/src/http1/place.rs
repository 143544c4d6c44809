//! A place on a connection that requests share, for a request whose server has none left: another server's at once, or
//! the wait for any.
//!
//! A pool whose servers are all full lets nobody come this far: requests wait in its queue. What comes here has met a
//! server that wants fewer requests on a connection than was known, or whose old connections, on which it takes nothing
//! any more, still stand.

use std::time::Duration;

use control::outcome::NoConnection;
use control::reason::Reason;
use control::tries::note_tried;

use super::exchange::{Cx, obtain};
use super::log::Log;
use crate::net::{self, Deadline, First};
use crate::queue;
use crate::upstream::{Lease, ServerStream};

/// Between two looks at the other servers of who waits for one.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// What came of it, with the server that it is about.
type Found = (Lease, Result<ServerStream, NoConnection>);

/// Looks at the pool's other servers that have not been `tried`, unless the client is bound, and waits for any of them for
/// as long as the pool's queue lets requests wait. `lease` is of a server without a place.
///
/// # Errors
/// Why there was none in time.
pub(super) async fn find(
    cx: &Cx<'_>,
    mut lease: Lease,
    only_new: bool,
    tried: &[u32],
    log: &mut Log,
) -> Result<Found, Reason> {
    let deadline = &cx.conn.deadline;
    if let Some(found) = look(cx, tried, &lease, deadline).await {
        deadline.tag(found.0.member.id);
        log.pick(&found.0.member);
        return Ok(found);
    }
    let Some(queue) = cx.config.queue else {
        return Ok((lease, Err(NoConnection::Limit)));
    };
    deadline.tag(lease.member.id);
    let left = queue.wait.saturating_sub(log.waited);
    let until = net::now().saturating_add(left);
    let until = cx.time.until.map_or(until, |end| end.min(until));
    let state = cx.pool.borrow().state.clone();
    // Its turn at the one server is kept while it looks at the others.
    let place = async {
        let here = obtain(cx, &lease, only_new, Some(until), deadline);
        match net::race(here, elsewhere(cx, tried, &lease)).await {
            First::Left(Err(NoConnection::NoPlace)) => Err(NoConnection::NoPlace),
            First::Left(obtained) => Ok((None, obtained)),
            First::Right((other, obtained)) => Ok((Some(other), obtained)),
        }
    };
    let waited = queue::wait_for_place(&state, &cx.waiter(&[]), &mut log.waited, place).await;
    let (other, obtained) = match waited {
        Ok(Ok(found)) => found,
        Ok(Err(no_connection)) => (None, Err(no_connection)),
        Err(reason) => return Err(cx.time.judge(reason)),
    };
    if let Some(other) = other {
        lease = other;
        deadline.tag(lease.member.id);
        log.pick(&lease.member);
    }
    Ok((lease, obtained))
}

/// A place at another server, at once.
async fn look(cx: &Cx<'_>, tried: &[u32], lease: &Lease, deadline: &Deadline) -> Option<Found> {
    if cx.plan.bond.is_some() {
        return None;
    }
    let mut passed = tried.to_vec();
    note_tried(&mut passed, lease.member.id);
    while let Ok(other) = cx.pick(&mut passed) {
        deadline.tag(other.member.id);
        match obtain(cx, &other, false, None, deadline).await {
            Err(NoConnection::NoPlace) => note_tried(&mut passed, other.member.id),
            obtained => return Some((other, obtained)),
        }
    }
    None
}

/// The same as soon as there is one.
async fn elsewhere(cx: &Cx<'_>, tried: &[u32], lease: &Lease) -> Found {
    let deadline = Deadline::new();
    loop {
        net::sleep(LOOK_EVERY).await;
        if let Some(found) = look(cx, tried, lease, &deadline).await {
            return found;
        }
    }
}

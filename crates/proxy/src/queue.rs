//! The wait of a request, or of a TCP connection, while every server of its pool is full.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use balance::queue::Ended;
use config::Queue;
use control::gate::{Lease, Ticket};
use control::metrics::WaitEnd;
use control::pick::LocalPool;
use control::reason::Reason;

use crate::net::{self, Deadline, First};
use crate::stream::Stream;
use crate::worker::Worker;

/// Who waits.
pub(crate) struct Waiter<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) client: &'a Stream,
    pub(crate) deadline: &'a Deadline,
    /// When the whole request must have ended, on [`net::now`]'s clock.
    pub(crate) until: Option<Duration>,
    /// 0-9, higher first.
    pub(crate) priority: u8,
    /// Servers that it may not have.
    pub(crate) tried: &'a [u32],
    /// Whether a client that has said all it had to say, and this is not read yet, still waits for an answer.
    pub(crate) may_half_close: bool,
}

/// Waits for a slot of any server of the pool, at most as long as `queue` says; `waited` is how long it has waited
/// before, and grows. A client that hangs up meanwhile is let go: what waits takes what others could have.
pub(crate) async fn wait(
    pool: &RefCell<LocalPool>,
    queue: Queue,
    waiter: Waiter<'_>,
    waited: &mut Duration,
) -> Result<Lease, Reason> {
    let state = pool.borrow().state.clone();
    let began = net::clock();
    let left = queue.wait.saturating_sub(*waited);
    let until = net::now().saturating_add(left);
    // Tags are for those who hold a server.
    waiter.deadline.tag(0);
    waiter
        .deadline
        .set_at(Some(waiter.until.map_or(until, |other| other.min(until))));
    let view = || Members(state.view());
    let entered = state
        .gate
        .enter(waiter.priority, waiter.tried, state.group, queue.max, view);
    let (end, result) = match entered {
        None => (WaitEnd::Full, Err(Reason::QueueFull)),
        Some(ticket) => wait_with(&ticket, &waiter).await,
    };
    let took = net::clock().saturating_sub(began);
    *waited = waited.saturating_add(took);
    let cells = state.stats.of(waiter.worker.number);
    cells.queue_seconds.record(took);
    if let Some(counter) = cells.waits.get(end as usize) {
        counter.increment();
    }
    result
}

async fn wait_with(ticket: &Ticket, waiter: &Waiter<'_>) -> (WaitEnd, Result<Lease, Reason>) {
    let gone = poll_fn(|cx| {
        if waiter.client.poll_hung_up(cx).is_pending() {
            return Poll::Pending;
        }
        if waiter.may_half_close && waiter.client.has_unread() {
            return waiter.client.poll_failed(cx).map(|_| ());
        }
        Poll::Ready(())
    });
    match waiter.deadline.guard(net::race(ended(ticket), gone)).await {
        Ok(First::Left(Ended::Granted(lease))) => (WaitEnd::Served, Ok(lease)),
        Ok(First::Left(Ended::Displaced)) => (WaitEnd::Full, Err(Reason::QueueFull)),
        Ok(First::Left(Ended::Unservable)) => (WaitEnd::NoServer, Err(Reason::NoUsableServer)),
        Ok(First::Right(())) => (WaitEnd::Left, Err(Reason::ClientClosed)),
        Err(net::Elapsed) => (WaitEnd::Timeout, Err(Reason::QueueTimeout)),
    }
}

async fn ended(ticket: &Ticket) -> Ended<Lease> {
    poll_fn(|cx| ticket.poll(cx)).await
}

/// A view, for its members.
struct Members(std::sync::Arc<control::live::PoolView>);

impl std::ops::Deref for Members {
    type Target = [std::sync::Arc<control::live::Member>];

    fn deref(&self) -> &Self::Target {
        &self.0.members
    }
}

//! The wait of a request, or of a TCP connection, while every server of its pool is full.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use balance::OnDrain;
use balance::queue::Ended;
use config::Queue;
use control::affinity::Bond;
use control::gate::{Lease, Ticket};
use control::live::PoolState;
use control::metrics::WaitEnd;
use control::outcome::NoConnection;
use control::pick::LocalPool;
use control::reason::Reason;

use crate::net::{self, Deadline, First};
use crate::stream::Stream;
use crate::worker::Worker;

/// Marks the deadlines of who waits here.
pub(crate) const QUEUE_TAG: u32 = u32::MAX - 3;

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
    let view = || Members(state.view());
    let enter = || {
        let (priority, tried) = (waiter.priority, waiter.tried);
        let gate = &state.gate;
        gate.enter(priority, tried, state.group, queue.max, view)
    };
    wait_in(&state, queue.wait, &waiter, waited, enter).await
}

/// Waits for the server that a request is bound to. `queue`: the pool's, and how long to wait at most. `None`: it is to be
/// picked for again, since the wait was in vain, or that server has changed.
pub(crate) async fn wait_bound(
    pool: &RefCell<LocalPool>,
    queue: (Option<Queue>, Option<Duration>),
    bond: &Bond,
    on_drain: OnDrain,
    waiter: Waiter<'_>,
    waited: &mut Duration,
) -> Option<Result<Lease, Reason>> {
    let owner = pool.borrow().owner(bond);
    let ((Some(queue), Some(at_most)), Some(owner)) = (queue, owner) else {
        bond.give_up();
        return None;
    };
    let state = pool.borrow().state.clone();
    let enter = || {
        let gate = &state.gate;
        gate.enter_bound(waiter.priority, &owner, on_drain, queue.max)
    };
    let wait = queue.wait.min(at_most);
    match wait_in(&state, wait, &waiter, waited, enter).await {
        Err(Reason::NoUsableServer) => None,
        Err(Reason::QueueFull | Reason::QueueTimeout) => {
            bond.give_up();
            None
        }
        ended => Some(ended),
    }
}

/// Waits with the place that `enter` takes, all in all as long as `wait`.
async fn wait_in(
    state: &PoolState,
    wait: Duration,
    waiter: &Waiter<'_>,
    waited: &mut Duration,
    enter: impl FnOnce() -> Option<Ticket>,
) -> Result<Lease, Reason> {
    let began = net::clock();
    let left = wait.saturating_sub(*waited);
    let until = net::now().saturating_add(left);
    waiter.deadline.tag(QUEUE_TAG);
    waiter
        .deadline
        .set_at(Some(waiter.until.map_or(until, |other| other.min(until))));
    let (end, result) = match enter() {
        None => (WaitEnd::Full, Err(Reason::QueueFull)),
        Some(ticket) => wait_with(&ticket, waiter).await,
    };
    note(state, waiter, began, end, waited);
    result
}

/// Waits for what brings a place at a server whose slot the request has. A client that hangs up meanwhile is let go.
///
/// # Errors
/// When the time is over, or the client has left.
pub(crate) async fn wait_for_place<T>(
    state: &PoolState,
    waiter: &Waiter<'_>,
    waited: &mut Duration,
    place: impl Future<Output = Result<T, NoConnection>>,
) -> Result<Result<T, NoConnection>, Reason> {
    let began = net::clock();
    let _aside = state.gate.wait_aside();
    let gone = poll_fn(|cx| waiter.client.poll_hung_up(cx));
    let (end, result) = match net::race(place, gone).await {
        _ if waiter.worker.cuts_all.get() => (WaitEnd::Timeout, Err(Reason::Draining)),
        First::Left(Err(NoConnection::NoPlace)) => (WaitEnd::Timeout, Err(Reason::QueueTimeout)),
        First::Left(obtained) => (WaitEnd::Served, Ok(obtained)),
        First::Right(()) => (WaitEnd::Left, Err(Reason::ClientClosed)),
    };
    note(state, waiter, began, end, waited);
    result
}

fn note(
    state: &PoolState,
    waiter: &Waiter<'_>,
    began: Duration,
    end: WaitEnd,
    waited: &mut Duration,
) {
    let took = net::clock().saturating_sub(began);
    *waited = waited.saturating_add(took);
    let cells = state.stats.of(waiter.worker.number);
    cells.queue_seconds.record(took);
    if let Some(counter) = cells.waits.get(end as usize) {
        counter.increment();
    }
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
        // A slot that another one has left who was cut is of no use now.
        _ if waiter.worker.cuts_all.get() => (WaitEnd::Timeout, Err(Reason::Draining)),
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

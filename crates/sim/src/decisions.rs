//! The decisions of a run that a test may replace, to see that the judge objects.

use std::sync::Arc;
use std::time::Duration;

use balance::{Local, Refused, RetryBudget};
use control::live::{Member, PoolState, PoolView};
use control::message::Event;
use control::reason::Reason;

/// What a pick is made from.
#[derive(Debug)]
pub struct Pick<'a> {
    /// The pool.
    pub pool: &'a PoolState,
    /// Its view, as the worker has it.
    pub view: &'a PoolView,
    /// What a hashing algorithm hashes.
    pub key: Option<u64>,
    /// Members that this request has been to.
    pub tried: &'a [u32],
    /// The time.
    pub now: Duration,
}

/// A request that was sent, and got no byte of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Unanswered {
    /// Whether its method allows to send it twice.
    pub idempotent: bool,
    /// Further tries that it has.
    pub attempts_left: u32,
    /// Why it got none.
    pub reason: Reason,
}

/// The decisions of a run. What is not replaced is the product's.
pub trait Decisions {
    /// Chooses a server; `None`: there is none.
    fn pick(&mut self, pick: &Pick<'_>, local: &mut Local) -> Option<Arc<Member>> {
        product_pick(pick, local)
    }

    /// Takes a slot of a server.
    ///
    /// # Errors
    /// When it lets none in.
    fn acquire(&mut self, member: &Member) -> Result<(), Refused> {
        member.cell.acquire(member.connections_max())
    }

    /// Whether a request may be sent to another server.
    ///
    /// # Errors
    /// What it is answered with instead.
    fn may_retry(
        &mut self,
        unanswered: Unanswered,
        budget: &RetryBudget,
        now: Duration,
    ) -> Result<(), Reason> {
        product_may_retry(unanswered, budget, now)
    }

    /// What the publisher gets to hear.
    fn hear(&mut self, event: Event) -> Option<Event> {
        Some(event)
    }
}

/// The product's own decisions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Product;

impl Decisions for Product {}

/// The product's pick.
pub fn product_pick(pick: &Pick<'_>, local: &mut Local) -> Option<Arc<Member>> {
    let index = pick
        .view
        .view
        .pick(&pick.pool.rotation, local, pick.key, pick.tried, pick.now)?;
    pick.view.members.get(index).cloned()
}

/// Rule 1, as the proxy's exchange has it.
///
/// # Errors
/// What the request is answered with instead.
pub fn product_may_retry(
    unanswered: Unanswered,
    budget: &RetryBudget,
    now: Duration,
) -> Result<(), Reason> {
    if !unanswered.idempotent || unanswered.attempts_left == 0 {
        return Err(unanswered.reason);
    }
    if !budget.try_retry(now) {
        return Err(Reason::RetryBudget);
    }
    Ok(())
}

//! The decisions of a run that a test may replace, to see that the judge objects.

use std::sync::Arc;
use std::time::Duration;

use balance::RetryBudget;
use config::Affinity;
use control::affinity::{Bond, End};
use control::gate::Lease;
use control::live::{LimitedBy, Member, PoolView};
use control::message::Event;
use control::pick::LocalPool;
use control::reason::Reason;
use control::tries::{self, Allowance};

/// A claim on a server.
#[derive(Debug)]
pub enum Claim {
    /// As the product makes it.
    Lease(Lease),
    /// Of a server that was not asked: a test's.
    Forced(Arc<Member>),
}

impl Claim {
    /// The server.
    #[must_use]
    pub fn member(&self) -> &Arc<Member> {
        match self {
            Self::Lease(lease) => &lease.member,
            Self::Forced(member) => member,
        }
    }
}

/// What binds a request.
#[derive(Debug, Clone, Copy)]
pub struct Binds<'a> {
    /// The pool's.
    pub affinity: &'a Affinity,
    /// The request's own.
    pub bond: &'a Bond,
}

/// A request that was sent, and got no byte of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Unanswered<'a> {
    /// Whether its method allows to send it twice.
    pub idempotent: bool,
    /// Further tries.
    pub allowance: &'a Allowance,
    /// Why it got none.
    pub reason: Reason,
    /// The pool's.
    pub budget: &'a RetryBudget,
    /// The time.
    pub now: Duration,
}

/// The decisions of a run. What is not replaced is the product's.
pub trait Decisions {
    /// Chooses a server other than those in `tried`, and takes a slot of it.
    ///
    /// # Errors
    /// When there is none.
    fn pick(
        &mut self,
        pool: &mut LocalPool,
        key: Option<u64>,
        tried: &mut Vec<u32>,
        now: Duration,
    ) -> Result<Claim, Reason> {
        pool.pick(key, tried, now).map(Claim::Lease)
    }

    /// The same for a request that something may bind to a server.
    ///
    /// # Errors
    /// When there is none, or its own cannot serve.
    fn pick_any(
        &mut self,
        pool: &mut LocalPool,
        binds: Option<Binds<'_>>,
        key: Option<u64>,
        tried: &mut Vec<u32>,
        now: Duration,
    ) -> Result<Claim, Reason> {
        let Some(Binds { affinity, bond }) = binds else {
            return self.pick(pool, key, tried, now);
        };
        let lease = pool.pick_bound(affinity, bond, key, tried, now);
        lease.map(Claim::Lease)
    }

    /// What comes of a request's bond, as its answer is written.
    fn settle(&mut self, _end: &mut End) {}

    /// Whether a request may be sent to another server.
    ///
    /// # Errors
    /// What it is answered with instead.
    fn may_retry(&mut self, it: Unanswered<'_>) -> Result<(), Reason> {
        it.allowance
            .retry(it.idempotent, it.reason, it.budget, it.now)
    }

    /// No further try is made after all.
    fn withdraw(&mut self, allowance: &Allowance, budget: &RetryBudget) {
        allowance.withdraw(budget);
    }

    /// Another server for a try beside one that goes on.
    fn beside(
        &mut self,
        idempotent: bool,
        budget: &RetryBudget,
        now: Duration,
        pick: &mut dyn FnMut() -> Option<Claim>,
    ) -> Option<Claim> {
        tries::beside(idempotent, budget, now, pick)
    }

    /// Whether a server is charged with being slower than another one. `silent`: it has answered nobody meanwhile.
    fn charges_outrun(&mut self, silent: bool) -> bool {
        silent
    }

    /// Gives a slot back.
    fn give_back(&mut self, claim: Claim) {
        drop(claim);
    }

    /// The priority with which a request of this one waits.
    fn waits_as(&mut self, priority: u8) -> u8 {
        priority
    }

    /// How long a request may wait.
    fn waits_for(&mut self, wait: Duration) -> Duration {
        wait
    }

    /// How many requests a server may hold, as its latency has it; `None` while something else bounds it more closely.
    fn limit(&mut self, member: &Member) -> Option<u32> {
        let by_latency = member.limited_by() == Some(LimitedBy::Latency);
        member.connections_max().filter(|_| by_latency)
    }

    /// What the publisher gets to hear.
    fn hear(&mut self, event: Event) -> Option<Event> {
        Some(event)
    }

    /// What the judge is shown of what is published.
    fn show(&mut self, view: Arc<PoolView>) -> Arc<PoolView> {
        view
    }
}

/// The product's own decisions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Product;

impl Decisions for Product {}

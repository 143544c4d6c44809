//! Whose fault it is that a request has no answer: a server pays for that with its traffic, so it must not be charged with
//! what its clients do.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use control::live::Member;
use control::reason::Reason;

use super::grpc;
use crate::net;
use crate::outcome;
use crate::worker::Worker;

/// A client is to blame from this share of a request's time on: one part of so many.
const SHARE: u32 = 10;

/// The time of one request, and what of it its client took.
pub(super) struct Time {
    /// `timeouts.request`.
    limit: Option<Duration>,
    /// When the whole request must have ended, on [`net::now`]'s clock.
    pub(super) until: Option<Duration>,
    /// When the client of a call of gRPC no longer waits, on the same clock; never before `until`.
    call_until: Option<Duration>,
    /// Waits for the client, to send or to read, that are over.
    waited: Cell<Duration>,
    /// Since when more of the request is waited for.
    awaited_since: Cell<Option<Duration>>,
}

impl Time {
    /// The time of a request that begins now.
    pub(super) fn new(limit: Option<Duration>, call_until: Option<Duration>) -> Self {
        let until = limit.map(|limit| net::now().saturating_add(limit));
        Self {
            limit,
            until: until.into_iter().chain(call_until).min(),
            call_until,
            waited: Cell::new(Duration::ZERO),
            awaited_since: Cell::new(None),
        }
    }

    /// Whether it is over.
    pub(super) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= net::now())
    }

    /// More of the request is waited for, until [`Time::handle_more`].
    pub(super) fn await_more(&self) {
        self.awaited_since.set(Some(net::now()));
    }

    pub(super) fn handle_more(&self) {
        if let Some(since) = self.awaited_since.take() {
            self.handle_wait(since);
        }
    }

    /// The client was waited for since then.
    pub(super) fn handle_wait(&self, since: Duration) {
        let wait = net::now().saturating_sub(since);
        self.waited.set(self.waited.get().saturating_add(wait));
    }

    /// What `reason` becomes where the time that the client had, or gave, is over.
    pub(super) fn judge(&self, reason: Reason) -> Reason {
        let judged = grpc::judged(reason, self.call_until);
        let is_charged = matches!(
            judged,
            Reason::ConnectTimeout | Reason::FirstByteTimeout | Reason::ResponseTimeout
        );
        if is_charged && self.is_over() && self.is_clients_fault() {
            Reason::RequestTimeout
        } else {
            judged
        }
    }

    fn is_clients_fault(&self) -> bool {
        let present = self.awaited_since.get();
        let present = present.map_or(Duration::ZERO, |since| net::now().saturating_sub(since));
        let took = self.waited.get().saturating_add(present);
        self.limit
            .is_some_and(|limit| took.saturating_mul(SHARE) >= limit)
    }
}

/// Servers that had the request and closed without a word. One that does so alone is charged; where another one does the
/// same it is the request that none bears, and nobody is.
#[derive(Default)]
pub(super) struct Doubt {
    suspect: RefCell<Suspect>,
    excused: Cell<bool>,
}

#[derive(Default)]
enum Suspect {
    #[default]
    Nobody,
    Server(Arc<Member>, Reason),
    Request,
}

impl Doubt {
    /// What the last try came to is charged already: the connection that it shared with other requests has ended.
    pub(super) fn excuse(&self) {
        self.excused.set(true);
    }

    /// Whether that is so, for once.
    pub(super) fn take_excuse(&self) -> bool {
        self.excused.take()
    }

    /// This server has closed on it.
    #[cold]
    pub(super) fn add(&self, worker: &Worker, member: &Arc<Member>, reason: Reason) {
        let mut suspect = self.suspect.borrow_mut();
        *suspect = match std::mem::take(&mut *suspect) {
            Suspect::Nobody => Suspect::Server(member.clone(), reason),
            Suspect::Server(first, before) if first.id == member.id => {
                outcome::ended(worker, &first, before, false);
                Suspect::Server(first, reason)
            }
            Suspect::Server(first, _) => {
                outcome::unjudged(worker, &first);
                outcome::unjudged(worker, member);
                Suspect::Request
            }
            Suspect::Request => {
                outcome::unjudged(worker, member);
                Suspect::Request
            }
        };
    }

    /// Another server has answered, or no further one is asked.
    pub(super) fn settle(&self, worker: &Worker) {
        if let Suspect::Server(member, reason) = self.suspect.take() {
            outcome::ended(worker, &member, reason, false);
        }
    }
}

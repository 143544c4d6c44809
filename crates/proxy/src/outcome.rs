//! How each try with a server ended, told to the publisher: what it means is `control::outcome`'s.

use control::live::Member;
use control::message::{Event, Message};
use control::outcome::{self, NoConnection};
use control::reason::Reason;

use crate::worker::Worker;

/// The server answered with `status`.
pub(crate) fn answered(worker: &Worker, member: &Member, status: u16) {
    outcome::answered(member, worker.number, status, |event| tell(worker, event));
}

/// The server has shown that it serves, though what it serves is not over: it need not wait for that to be open again.
pub(crate) fn serves(worker: &Worker, member: &Member) {
    outcome::serves(member, |event| tell(worker, event));
}

/// There was no connection.
pub(crate) fn not_connected(worker: &Worker, member: &Member, why: NoConnection) {
    outcome::not_connected(member, worker.number, why, |event| tell(worker, event));
}

/// The try ended for this reason without a whole answer. `reused`: on a connection that had been idle.
pub(crate) fn ended(worker: &Worker, member: &Member, reason: Reason, reused: bool) {
    outcome::ended(member, worker.number, reason, reused, |event| {
        tell(worker, event);
    });
}

/// The server was silent, and another one has answered for it.
pub(crate) fn outrun(worker: &Worker, member: &Member) {
    outcome::outrun(member, worker.number, |event| tell(worker, event));
}

/// The try came to nothing, which says nothing of the server.
pub(crate) fn unjudged(worker: &Worker, member: &Member) {
    outcome::unjudged(member, worker.number);
}

/// A TCP connection has ended; `bytes`: what the server was sent, and what it has sent.
pub(crate) fn tunnelled(
    worker: &Worker,
    member: &Member,
    reason: Option<Reason>,
    bytes: (u64, u64),
) {
    outcome::tunnelled(member, worker.number, reason, bytes, |event| {
        tell(worker, event);
    });
}

#[cold]
fn tell(worker: &Worker, event: Event) {
    worker.hub.send(Message::Event(event));
}

//! How each try with a server ended: counted, and told to the publisher when so many in a row have failed.
//!
//! A success costs one relaxed load beside the count that it always had. What a failure means for the server is
//! decided by the publisher.

use balance::outlier::Failure;
use control::live::Member;
use control::message::{Event, Message};
use control::reason::Reason;

use crate::upstream::NoConnection;
use crate::worker::Worker;

/// The server answered with `status`.
pub(crate) fn answered(worker: &Worker, member: &Member, status: u16) {
    member.stats.of(worker.number).classes.record(status);
    if status < 500 {
        member.note_success();
    } else {
        note_status(worker, member, status);
    }
}

/// There was no connection.
pub(crate) fn not_connected(worker: &Worker, member: &Member, why: NoConnection) {
    member.stats.of(worker.number).classes.record(0);
    match why {
        NoConnection::Refused => note(worker, member, Failure::Refused),
        NoConnection::TimedOut => note(worker, member, Failure::ConnectTimeout),
        NoConnection::Certificate | NoConnection::Handshake => {
            note(worker, member, Failure::Handshake);
        }
        // Our own bound: it says nothing of the server.
        NoConnection::Limit => {}
    }
}

/// The try ended for this reason without a whole answer. `reused`: on a connection that had been idle, which may have
/// been closed for that alone.
pub(crate) fn ended(worker: &Worker, member: &Member, reason: Reason, reused: bool) {
    member.stats.of(worker.number).classes.record(0);
    let failure = match reason {
        Reason::ServerClosed if !reused => Failure::Closed,
        Reason::ServerReset if !reused => Failure::Reset,
        Reason::FirstByteTimeout | Reason::ResponseTimeout => Failure::Timeout,
        Reason::BadResponse => Failure::Malformed,
        // A client that left, a drain, a request that was at fault.
        _ => return,
    };
    note(worker, member, failure);
}

/// A TCP connection has ended; `answered`: the server had sent something.
pub(crate) fn tunnelled(worker: &Worker, member: &Member, reason: Option<Reason>, answered: bool) {
    let class = if reason.is_none() { 200 } else { 0 };
    member.stats.of(worker.number).classes.record(class);
    if answered {
        member.note_success();
    } else if reason == Some(Reason::ServerReset) {
        note(worker, member, Failure::Reset);
    }
}

#[cold]
fn note_status(worker: &Worker, member: &Member, status: u16) {
    if matches!(status, 502..=504) {
        note(worker, member, Failure::Status(status));
    } else {
        tell(worker, member, false, Failure::Status(status));
    }
}

#[cold]
fn note(worker: &Worker, member: &Member, failure: Failure) {
    member.stats.of(worker.number).failed.increment();
    tell(worker, member, true, failure);
}

fn tell(worker: &Worker, member: &Member, gateway: bool, last: Failure) {
    if let Some(streak) = member.note_failure(gateway) {
        worker.hub.send(Message::Event(Event::Failing {
            member: member.id,
            streak,
            last,
        }));
    }
}

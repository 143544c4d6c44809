//! How each try with a server ended: counted, and told to the publisher when so many in a row have failed.
//!
//! A success costs one relaxed load beside the count that it always had. What a failure means for the server is
//! decided by the publisher. `tell` is called with what it is to hear; `worker` is whose counters grow.

use balance::outlier::Failure;

use crate::live::Member;
use crate::message::Event;
use crate::metrics::RetryCause;
use crate::reason::Reason;

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoConnection {
    /// It was refused, or there is no way there.
    Refused,
    /// It was not made in time.
    TimedOut,
    /// The server's certificate is not to be trusted.
    Certificate,
    /// The TLS handshake failed otherwise.
    Handshake,
    /// As many sockets as `limits.connections_per_server`, `limits.max_connections` or this machine allow are open.
    Limit,
    /// All connections over HTTP/2 that there may be have as many requests as they may.
    NoPlace,
}

impl NoConnection {
    /// What the client is told if nothing else follows, and what a further try is counted under.
    #[must_use]
    pub fn reason(self) -> (Reason, Option<RetryCause>) {
        match self {
            Self::Refused => (Reason::ConnectRefused, Some(RetryCause::ConnectRefused)),
            Self::TimedOut => (Reason::ConnectTimeout, Some(RetryCause::ConnectTimeout)),
            Self::Certificate => (
                Reason::ServerCertificate,
                Some(RetryCause::ServerCertificate),
            ),
            Self::Handshake => (Reason::ServerHandshake, Some(RetryCause::ServerHandshake)),
            Self::Limit | Self::NoPlace => (Reason::ServerLimit, None),
        }
    }
}

/// The server answered with `status`.
pub fn answered(member: &Member, worker: usize, status: u16, tell: impl FnOnce(Event)) {
    member.stats.of(worker).classes.record(status);
    if status < 500 {
        if member.note_success() {
            tell_passed(member, tell);
        }
    } else {
        note_status(member, worker, status, tell);
    }
}

/// The server has shown that it serves, though what it serves is not over: it need not wait for that to be open again.
pub fn serves(member: &Member, tell: impl FnOnce(Event)) {
    if member.note_passed() {
        tell_passed(member, tell);
    }
}

#[cold]
fn tell_passed(member: &Member, tell: impl FnOnce(Event)) {
    let member = member.id;
    tell(Event::Passed { member });
}

/// There was no connection.
pub fn not_connected(member: &Member, worker: usize, why: NoConnection, tell: impl FnOnce(Event)) {
    member.stats.of(worker).classes.record(0);
    match why {
        NoConnection::Refused => note(member, worker, Failure::Refused, tell),
        NoConnection::TimedOut => note(member, worker, Failure::ConnectTimeout, tell),
        NoConnection::Certificate | NoConnection::Handshake => {
            note(member, worker, Failure::Handshake, tell);
        }
        // Our own bound: it says nothing of the server.
        NoConnection::Limit | NoConnection::NoPlace => {}
    }
}

/// The try ended for this reason without a whole answer. `reused`: on a connection that had been idle, which may have
/// been closed for that alone.
pub fn ended(
    member: &Member,
    worker: usize,
    reason: Reason,
    reused: bool,
    tell: impl FnOnce(Event),
) {
    member.stats.of(worker).classes.record(0);
    let failure = match reason {
        Reason::ServerClosed if !reused => Failure::Closed,
        Reason::ServerReset if !reused => Failure::Reset,
        Reason::FirstByteTimeout | Reason::ResponseTimeout => Failure::Timeout,
        Reason::BadResponse => Failure::Malformed,
        // A client that left, a drain, a request that was at fault.
        _ => return,
    };
    note(member, worker, failure, tell);
}

/// The server was silent for as long as it was waited for alone, and another one has answered. That is no request more of
/// it.
pub fn outrun(member: &Member, worker: usize, tell: impl FnOnce(Event)) {
    note(member, worker, Failure::Timeout, tell);
}

/// The try came to nothing, which says nothing of the server.
pub fn unjudged(member: &Member, worker: usize) {
    member.stats.of(worker).classes.record(0);
}

/// A TCP connection has ended; `sent` and `received`: bytes that the server got, and that it gave. A server that closes on
/// what a client has sent may have every reason to.
pub fn tunnelled(
    member: &Member,
    worker: usize,
    reason: Option<Reason>,
    (sent, received): (u64, u64),
    tell: impl FnOnce(Event),
) {
    let class = if reason.is_none() { 200 } else { 0 };
    let cells = member.stats.of(worker);
    cells.classes.record(class);
    cells.tunnels.increment();
    if reason == Some(Reason::ServerReset) {
        cells.broken.increment();
    }
    if received > 0 {
        if member.note_success() {
            tell_passed(member, tell);
        }
    } else if reason == Some(Reason::ServerReset) && sent == 0 {
        note(member, worker, Failure::Reset, tell);
    }
}

#[cold]
fn note_status(member: &Member, worker: usize, status: u16, tell: impl FnOnce(Event)) {
    if matches!(status, 502..=504) {
        note(member, worker, Failure::Status(status), tell);
    } else {
        count(member, false, Failure::Status(status), tell);
    }
}

#[cold]
fn note(member: &Member, worker: usize, failure: Failure, tell: impl FnOnce(Event)) {
    member.stats.of(worker).failed.increment();
    count(member, true, failure, tell);
}

fn count(member: &Member, gateway: bool, last: Failure, tell: impl FnOnce(Event)) {
    if let Some(streak) = member.note_failure(gateway) {
        tell(Event::Failing {
            member: member.id,
            streak,
            last,
        });
    }
}

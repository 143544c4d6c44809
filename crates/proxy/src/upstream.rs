//! Connections to servers: picking, connecting, and the one gate through which they are used again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use control::gate::Lease;
use control::live::{Endpoint, Member};
pub(crate) use control::outcome::NoConnection;
use control::pick::LocalPool;
use control::sockets::SocketLease;

use crate::net::{self, ConnectError};
use crate::room::Room;
use crate::stream::Stream;
use crate::tls::{self, Broken, ClientTls};
use crate::worker::Worker;

/// Idle connections kept for one server by one worker.
const IDLE_MAX: usize = 512;
/// How long room for one more connection is waited for, where connecting has no bound.
const ROOM_WAIT: Duration = Duration::from_secs(2);
/// Between two looks, at first and at last.
const ROOM_PAUSE: Duration = Duration::from_millis(1);
const ROOM_PAUSE_MAX: Duration = Duration::from_millis(50);
/// A connection used longer ago than this is not given to a request that may not be retried.
const FRESH: Duration = Duration::from_secs(1);

/// An open connection to a server, or a stream of one.
pub(crate) struct ServerStream {
    // Closed before it is not counted any more, by the order of the fields.
    pub(crate) stream: Stream,
    socket: Socket,
    /// Whether it has carried a request before, and was idle since: it may have gone stale.
    pub(crate) reused: bool,
    /// The number of the TLS that it was made under; 0: plain.
    transport: u32,
}

impl ServerStream {
    /// A stream of a connection whose socket is counted by itself.
    pub(crate) fn carried(stream: Stream, member: &Arc<Member>, reused: bool) -> Self {
        Self {
            stream,
            socket: Socket::Elsewhere(member.clone()),
            reused,
            transport: 0,
        }
    }

    /// Whether a drill has its server out, so that it ends as by a reset.
    pub(crate) fn is_crashed(&self) -> bool {
        self.socket.member().is_crashed()
    }

    /// What counts its socket, to be dropped last, and the stream.
    pub(crate) fn into_parts(self) -> (Socket, Stream) {
        (self.socket, self.stream)
    }
}

/// Where the socket of a stream is counted.
pub(crate) enum Socket {
    /// Here, for as long as this lives.
    Here(SocketLease),
    /// By the connection that the stream is one of.
    Elsewhere(Arc<Member>),
}

impl Socket {
    fn member(&self) -> &Arc<Member> {
        match self {
            Self::Here(lease) => lease.member(),
            Self::Elsewhere(member) => member,
        }
    }
}

/// Opens a connection; given up at `until`, on [`net::now`]'s clock. `shares`: whoever asks does as well with one of its
/// kind that is shared, so that none of these is closed for it.
pub(crate) async fn connect(
    worker: &Worker,
    member: &Arc<Member>,
    until: Option<Duration>,
    deadline: &net::Deadline,
    tls: Option<&Arc<ClientTls>>,
    shares: bool,
) -> Result<ServerStream, NoConnection> {
    if member.is_crashed() {
        worker.report_refused(member);
        return Err(NoConnection::Refused);
    }
    let lease = match SocketLease::take(member, member.sockets_max()) {
        Ok(lease) => lease,
        // Cold: boxed, so that other requests do not carry its state.
        Err(full) => {
            let transport = tls.map_or(0, |tls| tls.number);
            let room = Room {
                member,
                full,
                kept: shares.then_some(transport),
            };
            let room = take_room(worker, room, until, deadline);
            Box::pin(room).await.ok_or(NoConnection::Limit)?
        }
    };
    deadline.set_at(until);
    let connected = deadline
        .guard(async {
            match &member.endpoint {
                Endpoint::Ip(address) => net::connect_tcp(*address, None).await,
                Endpoint::Unix(path) => net::connect_unix(Path::new(&**path)).await,
            }
        })
        .await;
    // A drill that has begun meanwhile refuses what is not yet there.
    let connected = match connected {
        Err(net::Elapsed) | Ok(Ok(_)) if member.is_crashed() => Ok(Err(ConnectError::Refused)),
        connected => connected,
    };
    let socket = match connected {
        Err(net::Elapsed) => return Err(NoConnection::TimedOut),
        Ok(Err(ConnectError::Refused)) => {
            worker.report_refused(member);
            return Err(NoConnection::Refused);
        }
        Ok(Err(ConnectError::Unreachable)) => return Err(NoConnection::Refused),
        Ok(Err(ConnectError::Exhausted)) => return Err(NoConnection::Limit),
        Ok(Ok(socket)) => socket,
    };
    let stream = match tls {
        None => Stream::from(socket),
        // Cold against its size: boxed.
        Some(tls) => match Box::pin(deadline.guard(tls::connect(tls, member, socket))).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(broken)) => {
                worker.unshaken.note(member, &broken.words());
                return Err(match broken {
                    Broken::Certificate(_) => NoConnection::Certificate,
                    _ => NoConnection::Handshake,
                });
            }
            Err(net::Elapsed) if member.is_crashed() => {
                worker.report_refused(member);
                return Err(NoConnection::Refused);
            }
            Err(net::Elapsed) => return Err(NoConnection::TimedOut),
        },
    };
    worker.unshaken.forget(member);
    worker.cells().opened.increment();
    Ok(ServerStream {
        stream,
        socket: Socket::Here(lease),
        reused: false,
        transport: tls.map_or(0, |tls| tls.number),
    })
}

/// As [`SocketLease::take`], once an idle socket was closed for it.
async fn take_room(
    worker: &Worker,
    mut room: Room<'_>,
    until: Option<Duration>,
    deadline: &net::Deadline,
) -> Option<SocketLease> {
    let mut pause = ROOM_PAUSE;
    let until = until.unwrap_or_else(|| net::now().saturating_add(ROOM_WAIT));
    loop {
        room.make(worker, until, deadline).await;
        // Another one may have been quicker.
        match SocketLease::take(room.member, room.member.sockets_max()) {
            Ok(lease) => return Some(lease),
            Err(still) => room.full = still,
        }
        // A connection whose server has done, while its client still reads, is neither in use nor idle yet. Who shares one
        // waits for a place on any.
        if room.kept.is_some()
            || !room.has_idle(worker)
            || net::now().saturating_add(pause) >= until
        {
            return None;
        }
        net::sleep(pause).await;
        pause = (pause * 2).min(ROOM_PAUSE_MAX);
    }
}

struct IdleStream {
    stream: ServerStream,
    since: Duration,
    until: Duration,
}

/// The idle connections of one worker, by member.
#[derive(Default)]
pub(crate) struct Idle(RefCell<BTreeMap<u32, Vec<IdleStream>>>);

impl Idle {
    /// The connection used last, if it still looks alive and was made under this TLS. With `fresh` only one used within
    /// the last second.
    pub(crate) fn take(
        &self,
        member: &Member,
        tls: Option<&Arc<ClientTls>>,
        fresh: bool,
        now: Duration,
    ) -> Option<ServerStream> {
        let transport = tls.map_or(0, |tls| tls.number);
        let mut all = self.0.borrow_mut();
        let kept = all.get_mut(&member.id)?;
        while let Some(idle) = kept.pop() {
            let stale = idle.until <= now
                || idle.stream.transport != transport
                || idle.stream.stream.has_news()
                // What may be sent once only asks the kernel itself: it may have more to tell than it has told.
                || fresh && !idle.stream.stream.is_quiet();
            if stale {
                continue;
            }
            if fresh && now.saturating_sub(idle.since) > FRESH {
                // Older ones lie below it; they stay for requests that may be retried.
                kept.push(idle);
                return None;
            }
            return Some(idle.stream);
        }
        None
    }

    /// Keeps a connection for `keep_alive`. The caller has held the gate: request sent whole, response read whole,
    /// nothing left in a buffer, and neither side said close.
    pub(crate) fn give(&self, mut stream: ServerStream, keep_alive: Duration, now: Duration) {
        if stream.stream.has_news() || !stream.socket.member().keeps_idle() || keep_alive.is_zero()
        {
            return;
        }
        // A server that answered at once was never waited for; its hang-up must be seen all the same.
        if stream.stream.watch().is_err() {
            return;
        }
        stream.reused = true;
        let mut all = self.0.borrow_mut();
        let kept = all.entry(stream.socket.member().id).or_default();
        if kept.len() < IDLE_MAX {
            kept.push(IdleStream {
                stream,
                since: now,
                until: now.saturating_add(keep_alive),
            });
        }
    }

    /// Closes those to one server.
    pub(crate) fn close(&self, member: u32) {
        let gone = self.0.borrow_mut().remove(&member);
        drop(gone);
    }

    /// Closes what is idle for too long, hung up, or leads to a server that takes no new traffic.
    pub(crate) fn sweep(&self, now: Duration) {
        self.0.borrow_mut().retain(|_, kept| {
            kept.retain(|idle| {
                idle.until > now
                    && !idle.stream.stream.has_news()
                    && idle.stream.socket.member().keeps_idle()
            });
            !kept.is_empty()
        });
    }

    /// Closes the connection that has been idle for longest of those to a server that `matches`; whether there was one.
    pub(crate) fn close_one(&self, matches: impl Fn(&Member) -> bool) -> bool {
        let mut all = self.0.borrow_mut();
        let oldest = all
            .values_mut()
            .filter(|kept| {
                kept.first()
                    .is_some_and(|idle| matches(idle.stream.socket.member()))
            })
            .min_by_key(|kept| kept.first().map(|idle| idle.since));
        let closed = oldest.map(|kept| kept.remove(0));
        drop(all);
        closed.is_some()
    }

    /// Closes everything.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.0.borrow_mut());
        drop(all);
    }
}

fn is_full(member: &Member) -> bool {
    let max = member.connections_max();
    max.is_some_and(|max| member.cell.in_use() >= max)
}

/// Why each server of a pool could not be used, in words: for the log, never for the client. `tried`: members that
/// were tried.
pub(crate) fn explain_unusable(
    worker: &Worker,
    pool: &RefCell<LocalPool>,
    tried: &[u32],
) -> String {
    let pool = pool.borrow();
    let mut text = String::new();
    if let Some(labels) = &pool.state.labels {
        text = format!("of the servers with {labels}: ");
        if pool.view.standings.is_empty() {
            text.push_str("there is none now");
        }
    }
    let from = text.len();
    for standing in pool.view.standings.iter().take(16) {
        if text.len() > from {
            text.push_str("; ");
        }
        text.push_str(&standing.member.name);
        text.push_str(": ");
        let state = standing.member.cell.state();
        if state != balance::State::Ready {
            text.push_str(&state.to_string());
        } else if standing.weight == 0 {
            text.push_str("weight 0");
        } else if standing.usable && tried.contains(&standing.member.id) {
            let words = worker.unshaken.of(standing.member.id);
            text.push_str(words.as_deref().unwrap_or("tried in vain"));
        } else if standing.usable && is_full(&standing.member) {
            text.push_str("at its limit");
        } else if standing.usable && !standing.note.is_empty() {
            text.push_str(&standing.note);
        } else {
            text.push_str(&standing.cause);
        }
    }
    text
}

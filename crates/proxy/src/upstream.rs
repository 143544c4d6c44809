//! Connections to servers: picking, connecting, and the one gate through which they are used again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

pub(crate) use control::gate::Lease;
use control::live::{Endpoint, Member};
pub(crate) use control::outcome::NoConnection;
use control::pick::LocalPool;

use crate::net::{self, ConnectError};
use crate::stream::Stream;
use crate::tls::{self, Broken, ClientTls};
use crate::worker::Worker;

/// Idle connections kept for one server by one worker.
const IDLE_MAX: usize = 512;
/// A connection used longer ago than this is not given to a request that may not be retried.
const FRESH: Duration = Duration::from_secs(1);

/// An open connection to a server, counted against the server's sockets for as long as it lives.
pub(crate) struct ServerStream {
    pub(crate) stream: Stream,
    member: Arc<Member>,
    /// Whether it has carried a request before.
    pub(crate) reused: bool,
    /// The number of the TLS that it was made under; 0: plain.
    transport: u32,
}

impl ServerStream {
    /// Whether a drill has its server out, so that it ends as by a reset.
    pub(crate) fn is_crashed(&self) -> bool {
        self.member.is_crashed()
    }
}

impl Drop for ServerStream {
    fn drop(&mut self) {
        self.member.sockets.fetch_sub(1, Relaxed);
    }
}

/// Opens a connection; given up at `until`, on [`net::now`]'s clock.
pub(crate) async fn connect(
    worker: &Worker,
    member: &Arc<Member>,
    until: Option<Duration>,
    sockets_max: u32,
    deadline: &net::Deadline,
    tls: Option<&Arc<ClientTls>>,
) -> Result<ServerStream, NoConnection> {
    if member.is_crashed() {
        worker.report_refused(member);
        return Err(NoConnection::Refused);
    }
    if member.sockets.fetch_add(1, Relaxed) >= sockets_max {
        member.sockets.fetch_sub(1, Relaxed);
        return Err(NoConnection::Limit);
    }
    let counted = Counted(member);
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
            Ok(Err(Broken::Certificate)) => return Err(NoConnection::Certificate),
            Ok(Err(_)) => return Err(NoConnection::Handshake),
            Err(net::Elapsed) if member.is_crashed() => {
                worker.report_refused(member);
                return Err(NoConnection::Refused);
            }
            Err(net::Elapsed) => return Err(NoConnection::TimedOut),
        },
    };
    std::mem::forget(counted);
    worker.cells().opened.increment();
    Ok(ServerStream {
        stream,
        member: member.clone(),
        reused: false,
        transport: tls.map_or(0, |tls| tls.number),
    })
}

/// Takes the socket count back unless the connection came to be.
struct Counted<'a>(&'a Member);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.sockets.fetch_sub(1, Relaxed);
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
                || idle.stream.stream.has_news();
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
        if stream.stream.has_news() || !stream.member.keeps_idle() || keep_alive.is_zero() {
            return;
        }
        // A server that answered at once was never waited for; its hang-up must be seen all the same.
        if stream.stream.watch().is_err() {
            return;
        }
        stream.reused = true;
        let mut all = self.0.borrow_mut();
        let kept = all.entry(stream.member.id).or_default();
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
                    && idle.stream.member.keeps_idle()
            });
            !kept.is_empty()
        });
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
pub(crate) fn explain_unusable(pool: &RefCell<LocalPool>, tried: &[u32]) -> String {
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
            text.push_str("tried in vain");
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

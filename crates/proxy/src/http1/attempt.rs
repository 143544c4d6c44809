//! One try with one server: the request on its way there, and the response back.

use std::cell::Cell;
use std::time::Duration;

use control::reason::Reason;

use super::encode::After;
use super::exchange::{Cx, Unserved};
use super::log::Log;
use super::respond::{self, Responded, Responding, ResponseBuffers, ResponseFault, Seen};
use super::upload::{self, Upload, UploadBuffers, UploadFault};
use super::{Block, Next};
use crate::fault;
use crate::net::{self, First};
use crate::outcome;
use crate::relay::{self, WriteFault};
use crate::upstream::{Lease, ServerStream};

/// How one try ended without an answer for the client.
pub(super) enum Fault {
    /// No byte was taken by the server: it is as if it had not been tried.
    NotSent,
    /// The connection ended before a byte of the response.
    Ended { reset: bool },
    /// It is over: answered here, or the client is gone.
    Final(Unserved),
    /// The answer has begun and cannot be finished.
    Cut(Reason),
}

impl Fault {
    /// Why the try came to nothing.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::NotSent | Self::Ended { reset: false } => Reason::ServerClosed,
            Self::Ended { reset: true } => Reason::ServerReset,
            Self::Final(unserved) => unserved.reason,
            Self::Cut(reason) => *reason,
        }
    }

    /// Whether the connection ended before a byte of the response.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self, Self::NotSent | Self::Ended { .. })
    }
}

/// How one try ended well.
pub(super) enum Done {
    Next(Next),
    Tunnel(ServerStream, Lease),
}

/// One try with one server.
pub(super) async fn attempt(
    cx: &Cx<'_>,
    block: &mut Block,
    upload: &mut Upload,
    server: ServerStream,
    lease: Lease,
    log: &mut Log,
) -> Result<Done, Fault> {
    let conn = cx.conn;
    conn.worker.ensure_server_buffer(block);
    let sent_whole = send(cx, block, upload, &server).await?;
    fault::at(&conn.worker, &block.request_out);
    let sent_at = net::clock();
    let upload_done = Cell::new(upload.is_done() || !sent_whole);
    let seen = Seen::default();
    let responding = Responding {
        conn,
        server: &server.stream,
        deadline: &conn.deadline,
        method: block.request.method,
        version: block.request.version,
        keep: block.request.keep_alive,
        closes: !block.request.keep_alive && upload_done.get() && block.client_in.is_empty(),
        upload_done: &upload_done,
        upgrade: cx.plan.upgrade,
        edits: &block.edits,
        server_idle: cx.config.timeouts.idle,
        write_idle: cx.http.timeouts.write_idle,
        until: cx.until,
        seen: &seen,
    };
    let buffers = ResponseBuffers {
        server_in: &mut block.server_in,
        head: &mut block.response,
        out: &mut block.response_out,
        tail: &mut block.response_tail,
    };
    let responded = if upload_done.get() {
        respond::set_deadline(&responding, cx.config.timeouts.first_byte);
        respond::respond(&responding, buffers).await
    } else {
        let uploads = UploadBuffers {
            client_in: &mut block.client_in,
            replay: &mut block.replay,
            tail: &mut block.request_tail,
            free: &conn.worker.buffers,
        };
        // Cold against requests without a body, or with a small one: boxed, so that they do not carry its state.
        Box::pin(both_ways(cx, &responding, buffers, upload, uploads)).await?
    };
    log.add_bytes(upload.bytes, seen.bytes.get());
    if let Some(head_at) = seen.head_at.get() {
        lease
            .member
            .cell
            .record_latency(net::now(), head_at.saturating_sub(sent_at));
    }
    if seen.sent.get() {
        log.status = seen.status.get();
    }
    let Responded { after, reusable } = match responded {
        Ok(responded) => responded,
        Err(fault) => return Err(response_fault(fault, &seen, &lease)),
    };
    outcome::answered(&conn.worker, &lease.member, log.status);
    // Let go of before anything else is read: what is left is the next request, or a tunnel's first bytes.
    upload.release(&mut block.client_in);
    if after == After::Upgrade {
        return Ok(Done::Tunnel(server, lease));
    }
    let upload_whole = upload.is_done() && sent_whole && !upload.was_cut();
    if reusable && upload_whole && !cx.plan.closes {
        let kept = block
            .response
            .keep_alive_timeout
            .map_or(cx.config.timeouts.keep_alive, |seconds| {
                Duration::from_secs(u64::from(seconds.saturating_sub(1)))
            });
        conn.worker.idle.give(server, kept, net::now());
    }
    Ok(Done::Next(match after {
        After::Keep if upload.is_done() => Next::Keep,
        // The client asked for the end, and has said all it had to say.
        After::Close
            if upload.is_done() && !block.request.keep_alive && block.client_in.is_empty() =>
        {
            Next::Close
        }
        _ => Next::Linger,
    }))
}

/// Sends the head and what there is of the body. False: the server takes no more, though it took some; it may have
/// said why.
async fn send(
    cx: &Cx<'_>,
    block: &Block,
    upload: &Upload,
    server: &ServerStream,
) -> Result<bool, Fault> {
    let body = if block.replay.is_empty() {
        upload.first(&block.client_in)
    } else {
        &block.replay
    };
    let parts: [&[u8]; 3] = [&block.request_out, body, &block.request_tail];
    let mut taken = 0;
    let idle = cx.config.timeouts.idle;
    match relay::write_all(
        &server.stream,
        parts,
        &cx.conn.deadline,
        idle,
        &mut taken,
        net::Push::Now,
    )
    .await
    {
        Ok(()) => Ok(true),
        Err(WriteFault::Gone) if taken == 0 => Err(Fault::NotSent),
        Err(WriteFault::Gone) => Ok(false),
        Err(WriteFault::TimedOut) => Err(Fault::Final(Unserved::new(Reason::ResponseTimeout))),
    }
}

/// Relays the rest of the request body and the response at the same time.
async fn both_ways(
    cx: &Cx<'_>,
    responding: &Responding<'_>,
    buffers: ResponseBuffers<'_>,
    upload: &mut Upload,
    uploads: UploadBuffers<'_>,
) -> Result<Result<Responded, ResponseFault>, Fault> {
    responding.deadline.set_at(cx.until);
    let mut response = std::pin::pin!(respond::respond(responding, buffers));
    let body_idle = cx.http.timeouts.body_idle;
    let write_idle = cx.config.timeouts.idle;
    let rest = upload::relay_rest(
        &responding.conn.stream,
        responding.server,
        upload,
        uploads,
        body_idle,
        write_idle,
    );
    let uploaded = match net::race(rest, response.as_mut()).await {
        First::Right(responded) => return Ok(responded),
        First::Left(uploaded) => uploaded,
    };
    match uploaded {
        Ok(()) => responding.upload_done.set(true),
        // What the server has to say about it is still to be heard.
        Err(UploadFault::Server) => {}
        Err(UploadFault::Client(reason)) => {
            return Err(if responding.seen.sent.get() {
                Fault::Cut(reason)
            } else {
                Fault::Final(Unserved::new(reason))
            });
        }
        Err(UploadFault::ServerStuck) => {
            return Err(if responding.seen.sent.get() {
                Fault::Cut(Reason::ResponseTimeout)
            } else {
                Fault::Final(Unserved::new(Reason::ResponseTimeout))
            });
        }
    }
    if !responding.seen.begun.get() {
        respond::set_deadline(responding, cx.config.timeouts.first_byte);
    }
    Ok(response.await)
}

fn response_fault(fault: ResponseFault, seen: &Seen, lease: &Lease) -> Fault {
    let reason = match fault {
        ResponseFault::Ended { reset } if !seen.sent.get() => return Fault::Ended { reset },
        ResponseFault::Ended { reset: true } => Reason::ServerReset,
        ResponseFault::Ended { reset: false } => Reason::ServerClosed,
        ResponseFault::TimedOut if lease.member.is_cut() => Reason::Draining,
        ResponseFault::TimedOut if seen.begun.get() => Reason::ResponseTimeout,
        ResponseFault::TimedOut => Reason::FirstByteTimeout,
        ResponseFault::Broken(reason) => reason,
        ResponseFault::Bad(detail) if !seen.sent.get() => {
            return Fault::Final(Unserved {
                reason: Reason::BadResponse,
                detail,
            });
        }
        ResponseFault::Bad(_) => Reason::BadResponse,
        ResponseFault::ClientGone => Reason::ClientClosed,
    };
    if seen.sent.get() {
        Fault::Cut(reason)
    } else {
        Fault::Final(Unserved::new(reason))
    }
}

//! One exchange: pick a server, forward the request, relay the response, and try another server where nothing was
//! lost by the first.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use config::{HttpListener, Pool};
use control::metrics::RetryCause;
use control::reason::Reason;

use super::answer::{self, Content};
use super::encode::After;
use super::log::Log;
use super::plan::{self, Plan, Refused};
use super::respond::{self, Responded, Responding, ResponseBuffers, ResponseFault, Seen};
use super::upload::{self, Upload, UploadBuffers, UploadFault};
use super::{Block, Conn, Next, Tunnel};
use crate::net::{self, First};
use crate::relay::{self, WriteFault};
use crate::upstream::{self, Lease, NoConnection, ServerStream};
use crate::worker::{LocalPool, LocalWorld};

/// What stays the same over the tries of one request.
struct Cx<'a> {
    conn: &'a Conn,
    http: &'a HttpListener,
    config: &'a Pool,
    pool: &'a RefCell<LocalPool>,
    plan: &'a Plan<'a>,
    /// When the whole request must have ended, on [`net::now`]'s clock.
    until: Option<Duration>,
    idempotent: bool,
}

/// A request that is answered here.
struct Unserved {
    reason: Reason,
    detail: String,
}

impl Unserved {
    fn new(reason: Reason) -> Self {
        Self {
            reason,
            detail: String::new(),
        }
    }
}

/// How one try ended without an answer for the client.
enum Fault {
    /// No byte was taken by the server: it is as if it had not been tried.
    NotSent,
    /// The connection ended before a byte of the response.
    Ended { reset: bool },
    /// It is over: answered here, or the client is gone.
    Final(Unserved),
    /// The answer has begun and cannot be finished.
    Cut(Reason),
}

/// Serves the request in `block`, whose head is whole.
pub(super) async fn run(
    conn: &Conn,
    world: &LocalWorld,
    listener: usize,
    http: &HttpListener,
    block: &mut Block,
    mut log: Log,
) -> Next {
    let planned = plan::plan(conn, world, listener, http, block, &mut log);
    if matches!(planned, Err(Refused::Reason(..))) {
        plan::take_texts(&block.request, block.client_in.filled(), &mut log);
    }
    block.client_in.consume(block.request.len);
    let body = block.request.body;
    let idempotent = block.request.method.is_idempotent();
    let mut upload = match Upload::begin(
        body,
        idempotent,
        http,
        &mut block.client_in,
        &mut block.request_tail,
    ) {
        Ok(upload) => upload,
        Err(reason) => {
            let content = Content::Reason(reason);
            return answer::send(conn, http, block, content, String::new(), false, &mut log).await;
        }
    };
    let plan = match planned {
        Ok(plan) => plan,
        Err(refused) => {
            // Who sent this may mean something else by what follows; CONNECT's client may send the tunnel's bytes.
            let doubtful = matches!(
                refused,
                Refused::Reason(Reason::BadRequest | Reason::MethodRefused, _)
            );
            let keep = upload.is_done() && !doubtful;
            upload.release(&mut block.client_in);
            let (content, detail) = match refused {
                Refused::Reason(reason, detail) => (Content::Reason(reason), detail),
                Refused::Filter(answer) => (Content::Filter(answer), String::new()),
            };
            return answer::send(conn, http, block, content, detail, keep, &mut log).await;
        }
    };
    let (Some(config), Some(pool)) = (
        world.world.snapshot.pools.get(plan.pool),
        world.pool(plan.pool),
    ) else {
        let content = Content::Reason(Reason::Internal);
        return answer::send(conn, http, block, content, String::new(), false, &mut log).await;
    };
    log.pool = Some(pool.borrow().state.clone());
    let until =
        plan::request_timeout(plan.route, config).map(|limit| net::now().saturating_add(limit));
    let cx = Cx {
        conn,
        http,
        config,
        pool,
        plan: &plan,
        until,
        idempotent,
    };
    let forwarded = forward(&cx, block, &mut upload, log).await;
    conn.deadline.tag(0);
    match forwarded {
        Ok(next) => next,
        Err((unserved, mut log)) => {
            let Unserved { reason, detail } = unserved;
            if reason == Reason::ClientClosed {
                log.finish_unanswered(reason);
                return Next::Close;
            }
            let keep = upload.is_done();
            upload.release(&mut block.client_in);
            let detail = if detail.is_empty() && reason.status() >= 502 {
                upstream::explain_unusable(pool, &block.tried)
            } else {
                detail
            };
            answer::send(
                conn,
                http,
                block,
                Content::Reason(reason),
                detail,
                keep,
                &mut log,
            )
            .await
        }
    }
}

/// Tries servers until one answers or no further try is due.
async fn forward(
    cx: &Cx<'_>,
    block: &mut Block,
    upload: &mut Upload,
    mut log: Log,
) -> Result<Next, (Unserved, Log)> {
    cx.pool.borrow().state.budget.handle_request(net::now());
    let mut attempts_left = cx
        .plan
        .route
        .retry_attempts
        .unwrap_or(cx.config.retries.attempts);
    let mut last: Option<Reason> = None;
    let mut only_new = false;
    loop {
        let picked = upstream::pick(
            &mut cx.pool.borrow_mut(),
            cx.plan.key,
            &mut block.tried,
            net::now(),
        );
        let lease = match picked {
            Ok(lease) => lease,
            Err(reason) => return Err((Unserved::new(last.unwrap_or(reason)), log)),
        };
        log.pick(&lease.member);
        cx.conn.deadline.tag(lease.member.id);
        let member = lease.member.clone();
        let server = match obtain(cx, &lease, only_new).await {
            Ok(server) => server,
            Err(no_connection) => {
                let (reason, cause) = no_connection_reason(no_connection);
                last = Some(reason);
                block.tried.push(member.id);
                member.stats.of(cx.conn.worker.number).classes.record(0);
                if reason == Reason::ConnectTimeout {
                    if attempts_left == 0 || is_past(cx.until) {
                        return Err((Unserved::new(reason), log));
                    }
                    attempts_left -= 1;
                }
                if let Some(cause) = cause {
                    cx.pool.borrow().count_retry(cx.conn.worker.number, cause);
                }
                continue;
            }
        };
        let reused = server.reused;
        let fault = match attempt(cx, block, upload, server, lease, &mut log).await {
            Ok(Done::Next(next)) => return Ok(next),
            Ok(Done::Tunnel(server, lease)) => {
                let idle = cx.config.timeouts.tunnel;
                return Ok(Next::Tunnel(Box::new(Tunnel {
                    server,
                    lease,
                    idle,
                    log,
                })));
            }
            Err(fault) => fault,
        };
        upload.rewind(&mut block.client_in, &mut block.replay);
        member.stats.of(cx.conn.worker.number).classes.record(0);
        if !reused {
            block.tried.push(member.id);
        }
        // A connection that went stale while it was idle says nothing about its server: a new one is made.
        only_new = reused;
        let (reason, cause) = match fault {
            Fault::NotSent => (Reason::ServerClosed, RetryCause::ServerClosed),
            Fault::Ended { reset: false } => (Reason::ServerClosed, RetryCause::ServerClosed),
            Fault::Ended { reset: true } => (Reason::ServerReset, RetryCause::ServerReset),
            Fault::Final(unserved) => return Err((unserved, log)),
            Fault::Cut(reason) => {
                log.note(reason);
                return Ok(Next::Reset);
            }
        };
        last = Some(reason);
        if matches!(fault, Fault::Ended { .. })
            && let Err(reason) = may_retry(cx, upload, &mut attempts_left, reason)
        {
            return Err((Unserved::new(reason), log));
        }
        cx.pool.borrow().count_retry(cx.conn.worker.number, cause);
    }
}

/// Whether a request that was sent, and got no byte of an answer, may be sent to another server.
fn may_retry(
    cx: &Cx<'_>,
    upload: &Upload,
    attempts_left: &mut u32,
    reason: Reason,
) -> Result<(), Reason> {
    if !cx.idempotent || !upload.can_replay || *attempts_left == 0 || is_past(cx.until) {
        return Err(reason);
    }
    if !cx.pool.borrow().state.budget.try_retry(net::now()) {
        return Err(Reason::RetryBudget);
    }
    *attempts_left -= 1;
    Ok(())
}

fn is_past(until: Option<Duration>) -> bool {
    until.is_some_and(|until| until <= net::now())
}

fn no_connection_reason(no_connection: NoConnection) -> (Reason, Option<RetryCause>) {
    match no_connection {
        NoConnection::Refused => (Reason::ConnectRefused, Some(RetryCause::ConnectRefused)),
        NoConnection::TimedOut => (Reason::ConnectTimeout, Some(RetryCause::ConnectTimeout)),
        NoConnection::Limit => (Reason::ServerLimit, None),
    }
}

/// An idle connection, or a new one. What may not be retried takes one that was used within the last second.
async fn obtain(cx: &Cx<'_>, lease: &Lease, only_new: bool) -> Result<ServerStream, NoConnection> {
    let worker = &cx.conn.worker;
    if !only_new && let Some(server) = worker.idle.take(&lease.member, !cx.idempotent, net::now()) {
        worker.cells().reused.increment();
        return Ok(server);
    }
    let until = respond::earliest(cx.config.timeouts.connect, cx.until);
    upstream::connect(
        worker,
        &lease.member,
        until,
        cx.config.connections_per_server,
        &cx.conn.deadline,
    )
    .await
}

enum Done {
    Next(Next),
    Tunnel(ServerStream, Lease),
}

/// One try with one server.
async fn attempt(
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
    lease
        .member
        .stats
        .of(conn.worker.number)
        .classes
        .record(log.status);
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
    match relay::write_all(&server.stream, parts, &cx.conn.deadline, idle, &mut taken).await {
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

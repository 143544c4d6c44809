//! One exchange: pick a server, forward the request, relay the response, and try another server where nothing was
//! lost by the first.

use std::cell::RefCell;
use std::time::Duration;

use config::{HttpListener, Pool};
use control::metrics::RetryCause;
use control::reason::Reason;

use super::answer::{self, Content};
use super::attempt::{Done, Fault, attempt};
use super::log::Log;
use super::plan::{self, Plan, Refused};
use super::respond;
use super::upload::Upload;
use super::{Block, Conn, Next, Tunnel};
use crate::net;
use crate::outcome;
use crate::upstream::{self, Lease, NoConnection, ServerStream};
use crate::worker::{LocalPool, LocalWorld};

/// What stays the same over the tries of one request.
pub(super) struct Cx<'a> {
    pub(super) conn: &'a Conn,
    pub(super) http: &'a HttpListener,
    pub(super) config: &'a Pool,
    pub(super) pool: &'a RefCell<LocalPool>,
    pub(super) plan: &'a Plan<'a>,
    /// When the whole request must have ended, on [`net::now`]'s clock.
    pub(super) until: Option<Duration>,
    pub(super) idempotent: bool,
}

/// A request that is answered here.
pub(super) struct Unserved {
    pub(super) reason: Reason,
    pub(super) detail: String,
}

impl Unserved {
    pub(super) fn new(reason: Reason) -> Self {
        Self {
            reason,
            detail: String::new(),
        }
    }
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
                outcome::not_connected(&cx.conn.worker, &member, no_connection);
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
        outcome::ended(
            &cx.conn.worker,
            &member,
            fault.reason(),
            reused && fault.is_unanswered(),
        );
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

//! One exchange: pick a server, forward the request, relay the response, and try another server where nothing was
//! lost by the first.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use config::{HttpListener, Pool};
use control::affinity::Bond;
use control::live::Member;
use control::metrics::{Overflow, RetryCause};
use control::outcome::NoConnection;
use control::pick::LocalPool;
use control::reason::Reason;
use control::tries::{Allowance, Nothing, Tries};

use super::answer::{self, Content};
use super::attempt::{Again, Done, Fault, attempt};
use super::blame::{Doubt, Time};
use super::log::Log;
use super::plan::{self, Plan, Refused};

use super::upload::Upload;
use super::{Block, Conn, Next, affinity, encode, hedge, place, retry};
use crate::bounds::Counted;
use crate::http2::{self, Obtained};
use crate::net::{self, Deadline};
use crate::outcome;
use crate::queue;
use crate::relay;
use crate::tls::ClientTls;
use crate::upstream::{self, Lease, ServerStream};
use crate::watch::unless_gone;
use crate::worker::LocalWorld;

/// Connections opened for one request whose server chooses another version each time.
const CHOICES_MAX: u32 = 3;

/// What stays the same over the tries of one request.
pub(super) struct Cx<'a> {
    pub(super) conn: &'a Conn,
    pub(super) http: &'a HttpListener,
    pub(super) config: &'a Pool,
    pub(super) pool: &'a RefCell<LocalPool>,
    /// What the pool's servers meet; `None`: plain bytes.
    pub(super) tls: Option<&'a Arc<ClientTls>>,
    pub(super) plan: &'a Plan<'a>,
    pub(super) time: &'a Time,
    /// Whether the request may be sent again once a server took a byte of it.
    pub(super) repeats: bool,
    /// Whether it is a call of gRPC, which may be sent again after some of the codes that a server answers.
    pub(super) repeats_call: bool,
    /// Whether it is a call of gRPC.
    pub(super) is_call: bool,
    /// Further tries of a request that was sent.
    pub(super) allowance: Allowance,
    /// Its place among those of the pool that are tried again, where these are bounded.
    pub(super) retrying: RefCell<Option<Counted>>,
    /// A try of it was not waited for alone.
    pub(super) hedged: Cell<bool>,
    pub(super) doubt: Doubt,
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
    log: &mut Log,
) -> Done {
    let planned = plan::plan(conn, world, listener, http, block, log);
    if matches!(planned, Err(Refused::Reason(..))) {
        plan::take_texts(conn, &block.request, block.client_in.filled(), log);
    }
    block.client_in.consume(block.request.len);
    let plan = match planned {
        Ok(plan) => plan,
        Err(refused) => return refuse(conn, http, block, refused, log).await.into(),
    };
    let body = block.request.body;
    let repeats = plan.repeats(block.request.method);
    let is_call = block.call.is_one();
    let repeats_call = is_call && plan.retries.repeats_calls();
    // Over HTTP/2 a server may say that it has not taken what was sent, whatever the method.
    let keeps = repeats || repeats_call || plan.config.http2.is_some();
    let mut upload = match Upload::begin(
        body,
        keeps,
        encode::is_decoded(body, &block.edits),
        http,
        &mut block.client_in,
        &mut block.request_tail,
    ) {
        Ok(upload) => upload,
        Err(reason) => {
            let content = Content::Reason(reason);
            let answer = answer::send(conn, http, block, content, String::new(), false, log);
            return answer.await.into();
        }
    };
    let Some(pool) = world.pool(plan.to) else {
        let content = Content::Reason(Reason::Internal);
        return answer::send(conn, http, block, content, String::new(), false, log)
            .await
            .into();
    };
    log.pool = Some(pool.borrow().state.clone());
    if let Some(max) = plan.config.requests_max {
        log.counted = Counted::request(&conn.worker, &pool.borrow(), max);
        if log.counted.is_none() {
            let unserved = Unserved::new(Reason::PoolLimit);
            let answer = answer_unserved(conn, http, pool, block, &mut upload, unserved, log);
            return answer.await.into();
        }
    }
    let limit = plan::request_timeout(plan.route, plan.config);
    let time = Time::new(limit, block.call.until());
    let cx = Cx {
        conn,
        http,
        config: plan.config,
        pool,
        tls: world.tls.of_pool(plan.to.pool),
        plan: &plan,
        time: &time,
        repeats,
        repeats_call,
        is_call,
        allowance: Allowance::new(plan.retries.attempts),
        retrying: RefCell::new(None),
        hedged: Cell::new(false),
        doubt: Doubt::default(),
    };
    let forwarded = forward(&cx, block, &mut upload, log).await;
    cx.doubt.settle(&conn.worker);
    match forwarded {
        Ok(done) => done,
        Err(unserved) => {
            cx.allowance.withdraw(&pool.borrow().state.budget);
            let answer = answer_unserved(conn, http, pool, block, &mut upload, unserved, log);
            answer.await.into()
        }
    }
}

/// Answers a request that no server is to get.
async fn refuse(
    conn: &Conn,
    http: &HttpListener,
    block: &mut Block,
    refused: Refused<'_>,
    log: &mut Log,
) -> Next {
    let (body, tail) = (block.request.body, &mut block.request_tail);
    let upload = Upload::begin(body, false, false, http, &mut block.client_in, tail);
    let mut upload = match upload {
        Ok(upload) => upload,
        Err(reason) => {
            let content = Content::Reason(reason);
            return answer::send(conn, http, block, content, String::new(), false, log).await;
        }
    };
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
        Refused::Challenge(answer) => (Content::Challenge(answer), String::new()),
    };
    answer::send(conn, http, block, content, detail, keep, log).await
}

/// Answers a request that no server has served.
async fn answer_unserved(
    conn: &Conn,
    http: &HttpListener,
    pool: &RefCell<LocalPool>,
    block: &mut Block,
    upload: &mut Upload,
    unserved: Unserved,
    log: &mut Log,
) -> Next {
    conn.deadline.tag(0);
    let Unserved { reason, detail } = unserved;
    if reason == Reason::ClientClosed {
        log.finish_unanswered(reason);
        return Next::Close;
    }
    let keep = upload.is_done();
    upload.release(&mut block.client_in);
    let detail = if detail.is_empty() && reason.status() >= 502 {
        upstream::explain_unusable(&conn.worker, pool, &block.tried)
    } else {
        detail
    };
    let content = Content::Reason(reason);
    answer::send(conn, http, block, content, detail, keep, log).await
}

/// Tries servers until one answers or no further try is due.
async fn forward(
    cx: &Cx<'_>,
    block: &mut Block,
    upload: &mut Upload,
    log: &mut Log,
) -> Result<Done, Unserved> {
    cx.pool.borrow().state.budget.handle_request(net::now());
    let mut state = Tries::default();
    // Why the last try came to nothing, until another one is made.
    let mut again = None;
    loop {
        if let Some(owner) = cx.plan.bond.as_ref().and_then(Bond::owner) {
            state.ask_again(&mut block.tried, owner);
        }
        let picked = state.lease(&mut block.tried, |tried| cx.pick(tried));
        let picked = match picked {
            // Cold: boxed, so that other requests do not carry its state.
            Err(full @ (Reason::ServerLimit | Reason::PoolLimit)) => {
                Box::pin(queue_up(cx, full, &mut block.tried, log)).await
            }
            picked => picked,
        };
        let lease = match picked {
            Ok(lease) => lease,
            Err(reason) => return Err(no_server(cx, &state, reason, again, log)),
        };
        if let Some(cause) = again.take() {
            count_again(cx, cause, log);
        }
        log.pick(&lease.member);
        cx.conn.deadline.tag(lease.member.id);
        let deadline = &cx.conn.deadline;
        let only_new = state.only_new();
        let client = &cx.conn.stream;
        let obtained = unless_gone(
            client,
            deadline,
            pin!(obtain(cx, &lease, only_new, None, deadline)),
        )
        .await;
        let (lease, obtained) = match obtained {
            Some(Err(NoConnection::NoPlace)) => {
                // Cold: boxed, so that other requests do not carry its state.
                let found = place::find(cx, lease, only_new, &block.tried, log);
                let (lease, found) = Box::pin(found).await.map_err(Unserved::new)?;
                (lease, Some(found))
            }
            obtained => (lease, obtained),
        };
        let server = match obtained {
            Some(Ok(server)) => server,
            Some(Err(no_connection)) => {
                let failed = not_connected(cx, &mut state, block, &lease.member, no_connection);
                match failed {
                    Ok(cause) => again = cause,
                    Err(reason) => return Err(Unserved::new(reason)),
                }
                continue;
            }
            None => return Err(client_gone(cx, log)),
        };
        let hedged = match &cx.plan.retries.hedge {
            Some(hedge) if hedge::is_due(cx, upload) => {
                hedge::after(cx, log).map(|after| (hedge, after))
            }
            _ => None,
        };
        let tried = match hedged {
            Some(hedge) => {
                let first = hedge::First::Connected(server, lease);
                Box::pin(hedge::attempt(cx, hedge, block, upload, first, log)).await
            }
            None => attempt(cx, block, upload, server, lease, log).await,
        };
        match tried {
            Ok(done) => return Ok(done),
            Err(Fault::Final(mut unserved)) => {
                unserved.reason = cx.time.judge(unserved.reason);
                count_end(cx, unserved.reason, log);
                return Err(unserved);
            }
            Err(Fault::Cut(reason)) => return Ok(cut(cx, block, reason, log).await.into()),
            Err(Fault::Retry(failed)) => {
                upload.rewind(&mut block.client_in, &mut block.replay);
                let cause = try_again(cx, &mut state, block, upload, failed, log);
                again = Some(cause.map_err(Unserved::new)?);
                if let Some(backoff) = cx.plan.retries.backoff
                    && state.was_sent()
                    && Box::pin(retry::pause(cx, backoff)).await.is_none()
                {
                    return Err(no_server(cx, &state, Reason::ClientClosed, again, log));
                }
            }
        }
    }
}

/// No server is left for a further try, or the wait for one has ended.
#[cold]
fn no_server(
    cx: &Cx<'_>,
    state: &Tries<Lease>,
    reason: Reason,
    again: Option<RetryCause>,
    log: &mut Log,
) -> Unserved {
    let over = state.over(reason);
    if over == reason
        && let Some((cause, member)) = again.zip(log.member.clone())
    {
        // It is not what the client is told.
        log.fail(&member, cause);
    }
    let reason = cx.time.judge(over);
    affinity::note_unserved(cx, reason, log);
    Unserved::new(reason)
}

/// Counts a further try, that of a request whose last one came to nothing.
#[cold]
fn count_again(cx: &Cx<'_>, cause: RetryCause, log: &mut Log) {
    cx.allowance.handle_made();
    cx.pool.borrow().count_retry(cx.conn.worker.number, cause);
    if let Some(member) = log.member.clone() {
        log.fail(&member, cause);
    }
}

/// The client has left while a connection to its server was made.
#[cold]
fn client_gone(cx: &Cx<'_>, log: &Log) -> Unserved {
    count_end(cx, Reason::ClientClosed, log);
    Unserved::new(Reason::ClientClosed)
}

/// Counts that the last server gave no whole answer, for this reason.
fn count_end(cx: &Cx<'_>, reason: Reason, log: &Log) {
    match &log.member {
        Some(member) if cx.doubt.take_excuse() => outcome::unjudged(&cx.conn.worker, member),
        _ => log.count_end(reason),
    }
}

/// The answer has begun and cannot be finished.
async fn cut(cx: &Cx<'_>, block: &mut Block, reason: Reason, log: &mut Log) -> Next {
    let reason = cx.time.judge(reason);
    count_end(cx, reason, log);
    log.note(reason);
    if !cx.is_call {
        return Next::Reset;
    }
    let Block {
        call, response_out, ..
    } = block;
    // Cold: boxed, so that other requests do not carry its state.
    Box::pin(call.end_amid(cx.conn, cx.http, reason, response_out, log)).await
}

/// Nothing was sent: the request goes elsewhere. Says what a further try is counted under, if it is.
fn not_connected(
    cx: &Cx<'_>,
    state: &mut Tries<Lease>,
    block: &mut Block,
    member: &Member,
    no_connection: NoConnection,
) -> Result<Option<RetryCause>, Reason> {
    if cx.conn.worker.cuts_all.get() {
        return Err(Reason::Draining);
    }
    let (reason, cause) = no_connection.reason();
    let judged = cx.time.judge(reason);
    if judged != reason {
        // There was no more time for it: that says nothing of the server.
        outcome::ended(&cx.conn.worker, member, judged, false);
        return Err(judged);
    }
    if let (Some(bond), NoConnection::Refused) = (&cx.plan.bond, no_connection) {
        bond.note_refused(member.id);
    }
    outcome::not_connected(&cx.conn.worker, member, no_connection);
    let past = cx.time.is_over();
    state.handle_no_connection(reason, member.id, &mut block.tried, &cx.allowance, past)?;
    Ok(cause)
}

/// A try ended with nothing for the client: whether another one follows, and what it is counted under.
fn try_again(
    cx: &Cx<'_>,
    state: &mut Tries<Lease>,
    block: &mut Block,
    upload: &Upload,
    again: Again,
    log: &Log,
) -> Result<RetryCause, Reason> {
    if cx.conn.worker.cuts_all.get() {
        return Err(Reason::Draining);
    }
    let reason = again.reason();
    let Some(member) = log.member.clone() else {
        return Err(reason);
    };
    if cx.doubt.take_excuse() {
        outcome::unjudged(&cx.conn.worker, &member);
    } else if again.is_doubtful() {
        cx.doubt.add(&cx.conn.worker, &member, reason);
    } else {
        again.count(&cx.conn.worker, &member);
    }
    let cause = again.cause;
    if !again.sent && !upload.can_replay {
        return Err(reason);
    }
    let nothing = Nothing {
        reason,
        sent: again.sent,
        reused: again.reused,
        next: again.next,
    };
    state.handle_nothing(nothing, member.id, &mut block.tried, |reason| {
        retry::may_retry(cx, upload, reason)
    })?;
    Ok(cause)
}

impl Cx<'_> {
    /// Picks a server and claims a slot of it; servers in `tried` are left out.
    pub(super) fn pick(&self, tried: &mut Vec<u32>) -> Result<Lease, Reason> {
        let pool = &mut *self.pool.borrow_mut();
        let key = self.plan.key;
        match (&self.plan.bond, &self.config.affinity) {
            (Some(bond), Some(affinity)) => pool.pick_bound(affinity, bond, key, tried, net::now()),
            _ => pool.pick(key, tried, net::now()),
        }
    }

    pub(super) fn waiter<'w>(&'w self, tried: &'w [u32]) -> queue::Waiter<'w> {
        queue::Waiter {
            worker: &self.conn.worker,
            client: &self.conn.stream,
            deadline: &self.conn.deadline,
            until: self.time.until,
            priority: self.plan.route.priority.unwrap_or(self.http.priority),
            tried,
            may_half_close: false,
        }
    }
}

/// Every server is `full`, or the pool, or the one that the client is bound to: waits for one, unless the pool has no
/// queue.
async fn queue_up(
    cx: &Cx<'_>,
    full: Reason,
    tried: &mut Vec<u32>,
    log: &mut Log,
) -> Result<Lease, Reason> {
    if full == Reason::PoolLimit {
        let pool = cx.pool.borrow();
        pool.count_overflow(cx.conn.worker.number, Overflow::Connections);
    }
    if let (Some(bond), Some(affinity)) = (&cx.plan.bond, &cx.config.affinity) {
        while bond.waits() {
            let waiter = cx.waiter(tried);
            let queue = (cx.config.queue, affinity.queue_wait);
            let (on_drain, waited) = (affinity.on_drain, &mut log.waited);
            let wait = queue::wait_bound(cx.pool, queue, bond, on_drain, waiter, waited);
            let picked = match wait.await {
                Some(ended) => ended,
                None => cx.pick(tried),
            };
            match picked {
                Err(Reason::ServerLimit | Reason::PoolLimit) => {}
                picked => return picked,
            }
        }
    }
    let Some(queue) = cx.config.queue else {
        return Err(full);
    };
    queue::wait(cx.pool, queue, cx.waiter(tried), &mut log.waited).await
}

/// An idle connection, or a new one. What may not be retried takes one that was used within the last second. `until`: a
/// place on a connection that is shared is waited for until then, in turn; `None`: it is not.
pub(super) async fn obtain(
    cx: &Cx<'_>,
    lease: &Lease,
    only_new: bool,
    until: Option<Duration>,
    deadline: &Deadline,
) -> Result<ServerStream, NoConnection> {
    if let Some(http2) = &cx.config.http2 {
        // Cold against its size: boxed.
        return Box::pin(obtain_http2(cx, *http2, lease, only_new, until, deadline)).await;
    }
    if let Some(server) = take_idle(cx, cx.tls, lease, only_new) {
        return Ok(server);
    }
    connect(cx, cx.tls, lease, deadline).await
}

/// The same where the server speaks HTTP/2, or may choose it.
async fn obtain_http2(
    cx: &Cx<'_>,
    http2: config::Http2,
    lease: &Lease,
    only_new: bool,
    until: Option<Duration>,
    deadline: &Deadline,
) -> Result<ServerStream, NoConnection> {
    let (worker, member) = (&cx.conn.worker, &lease.member);
    let wanted = http2::Wanted {
        member,
        http2,
        tls: cx.tls,
        until: relay::earliest(cx.config.timeouts.connect, cx.time.until),
        keep_alive: cx.config.timeouts.keep_alive,
        only_new,
    };
    // Every server of HTTP/1.1 can be asked for an upgrade, and few of HTTP/2.
    let only_http1 = http2.auto && cx.plan.upgrade;
    let tls = match cx.tls {
        Some(tls) if only_http1 => Some(tls.only_http1()),
        tls => tls,
    };
    for _ in 0..CHOICES_MAX {
        if !only_http1 && (!http2.auto || member.chose_http2() != Some(false)) {
            let connect = cx.config.timeouts.connect;
            let obtained = match until {
                None => http2::obtain(worker, wanted, deadline).await?,
                Some(until) => {
                    http2::obtain_in_turn(worker, wanted, connect, until, deadline).await?
                }
            };
            match obtained {
                Obtained::Http2(server) => return Ok(server),
                Obtained::Http1(Some(server)) => return Ok(server),
                // Another request has had it.
                Obtained::Http1(None) => {}
            }
        }
        if let Some(server) = take_idle(cx, tls, lease, only_new) {
            return Ok(server);
        }
        let server = connect(cx, tls, lease, deadline).await?;
        if only_http1 {
            return Ok(server);
        }
        let chose_http2 = server.stream.speaks_http2();
        worker.note_chosen(member, chose_http2);
        if !chose_http2 {
            return Ok(server);
        }
        http2::adopt(worker, &wanted, server);
    }
    Err(NoConnection::Handshake)
}

fn take_idle(
    cx: &Cx<'_>,
    tls: Option<&Arc<ClientTls>>,
    lease: &Lease,
    only_new: bool,
) -> Option<ServerStream> {
    if only_new {
        return None;
    }
    let worker = &cx.conn.worker;
    let idle = &worker.idle;
    let server = idle.take(&lease.member, tls, !cx.repeats, net::now())?;
    worker.cells().reused.increment();
    Some(server)
}

async fn connect(
    cx: &Cx<'_>,
    tls: Option<&Arc<ClientTls>>,
    lease: &Lease,
    deadline: &Deadline,
) -> Result<ServerStream, NoConnection> {
    let until = relay::earliest(cx.config.timeouts.connect, cx.time.until);
    let worker = &cx.conn.worker;
    upstream::connect(worker, &lease.member, until, deadline, tls, false).await
}

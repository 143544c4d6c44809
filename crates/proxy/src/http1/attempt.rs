//! One try with one server: the request on its way there, and the response back.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use control::live::Member;
use control::memory::Level;
use control::metrics::RetryCause;
use control::reason::Reason;
use wire::http1::Keep;

use super::encode::After;
use super::exchange::{Cx, Unserved};
use super::log::Log;
use super::respond::{self, Responded, Responding, ResponseBuffers, ResponseFault, Seen};
use super::upload::{self, Upload, UploadBuffers, UploadFault};
use super::{Block, Next, affinity, grpc, hedge, retry};
use crate::fault;
use crate::http2;
use crate::net::{self, Deadline, First};
use crate::outcome;
use crate::relay::{self, Framing, WriteFault};
use crate::stream::Stream;
use crate::upstream::{Lease, NoConnection, ServerStream};
use crate::watch::Watch;
use crate::worker::Worker;

/// How long the rest of a request is waited for whose answer is sent.
const REST_WAIT: Duration = Duration::from_secs(2);

/// How one try ended without an answer for the client.
pub(super) enum Fault {
    /// Another one may follow.
    Retry(Again),
    /// It is over: answered here, or the client is gone.
    Final(Unserved),
    /// The answer has begun and cannot be finished.
    Cut(Reason),
}

/// What a try that gave the client nothing leaves to the next one.
pub(super) struct Again {
    pub(super) cause: RetryCause,
    /// A byte of the request was taken; otherwise it is as if the server had not been tried.
    pub(super) sent: bool,
    /// Its connection had carried another request.
    pub(super) reused: bool,
    /// Of the server's answer, if there was one.
    pub(super) status: u16,
    /// Set where there was no connection.
    pub(super) no_connection: Option<NoConnection>,
    /// The server to try next, where it is claimed already, attempts and budget with it.
    pub(super) next: Option<Lease>,
}

impl Again {
    pub(super) fn ended(reset: bool, sent: bool, reused: bool) -> Self {
        Self {
            cause: if reset {
                RetryCause::ServerReset
            } else {
                RetryCause::ServerClosed
            },
            sent,
            reused,
            status: 0,
            no_connection: None,
            next: None,
        }
    }

    /// The server has not taken the request over HTTP/2, and said so: that is no fault of it. It may be asked once more
    /// on a new connection, unless this one was new and took nobody else.
    #[cold]
    pub(super) fn not_taken(server: &Stream) -> Self {
        let exchange = server.exchange();
        if let Some(exchange) = exchange {
            exchange.tire();
        }
        Self {
            cause: RetryCause::NotTaken,
            sent: false,
            reused: exchange.is_some_and(|exchange| exchange.may_be_taken_elsewhere()),
            status: 0,
            no_connection: None,
            next: None,
        }
    }

    /// There was no connection after all.
    pub(super) fn not_connected(why: NoConnection) -> Self {
        let (_, cause) = why.reason();
        Self {
            cause: cause.unwrap_or(RetryCause::ConnectRefused),
            sent: false,
            reused: false,
            status: 0,
            no_connection: Some(why),
            next: None,
        }
    }

    /// The connection ended before a byte of an answer.
    pub(super) fn unanswered(
        reset: bool,
        server: &ServerStream,
        worker: &Worker,
        member: &Member,
    ) -> Self {
        if !server.reused
            && let Some(why) = server.stream.refusal()
        {
            worker.unshaken.note(member, &why);
            return Self::not_connected(NoConnection::Handshake);
        }
        Self::ended(reset, true, server.reused)
    }

    pub(super) fn elsewhere(cause: RetryCause, status: u16, next: Lease) -> Self {
        Self {
            cause,
            sent: true,
            reused: false,
            status,
            no_connection: None,
            next: Some(next),
        }
    }

    /// Why the client gets an answer from here, if no other try follows.
    pub(super) fn reason(&self) -> Reason {
        match self.cause {
            RetryCause::ServerReset => Reason::ServerReset,
            RetryCause::NotTaken => Reason::RequestRefused,
            RetryCause::PerTryTimeout => Reason::FirstByteTimeout,
            RetryCause::ConnectRefused => Reason::ConnectRefused,
            RetryCause::ConnectTimeout => Reason::ConnectTimeout,
            RetryCause::ServerCertificate => Reason::ServerCertificate,
            RetryCause::ServerHandshake => Reason::ServerHandshake,
            _ => Reason::ServerClosed,
        }
    }

    /// Whether it may be the request's own fault: its server had it, and has closed without a word.
    pub(super) fn is_doubtful(&self) -> bool {
        let closed = matches!(
            self.cause,
            RetryCause::ServerReset | RetryCause::ServerClosed
        );
        closed && self.sent && !self.reused && self.no_connection.is_none()
    }

    /// Counts the try at its server.
    pub(super) fn count(&self, worker: &Worker, member: &Member) {
        match (self.no_connection, self.status) {
            (Some(why), _) => outcome::not_connected(worker, member, why),
            (None, 0) => outcome::ended(worker, member, self.reason(), self.reused),
            (None, status) => outcome::answered(worker, member, status),
        }
    }
}

/// How one try ended well.
pub(super) enum Done {
    Next(Next),
    /// Both are byte tunnels from now on, which may be silent for so long.
    Tunnel(ServerStream, Lease, Option<Duration>),
}

impl From<Next> for Done {
    fn from(next: Next) -> Self {
        Self::Next(next)
    }
}

/// A request that a server has got.
pub(super) struct Sent {
    pub(super) server: ServerStream,
    pub(super) lease: Lease,
    /// When, on [`net::now`]'s clock.
    pub(super) at: Duration,
    /// False: the server took no more of it than a part; it may have said why.
    pub(super) whole: bool,
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
    cx.conn.worker.ensure_server_buffer(block);
    if block.server_in.level == Level::Full {
        return Err(Fault::Final(Unserved::new(Reason::Overloaded)));
    }
    let whole = send(cx, block, upload, &server, &cx.conn.deadline).await?;
    fault::at(&cx.conn.worker, &block.request_out);
    let sent = Sent {
        server,
        lease,
        at: net::now(),
        whole,
    };
    receive(cx, block, upload, sent, log).await
}

/// The response to a request that was sent, while the rest of its body goes up.
pub(super) async fn receive(
    cx: &Cx<'_>,
    block: &mut Block,
    upload: &mut Upload,
    sent: Sent,
    log: &mut Log,
) -> Result<Done, Fault> {
    let conn = cx.conn;
    let retries = cx.plan.retries;
    affinity::settle(cx, &mut block.binding, &sent.lease.member, log);
    let upload_done = Cell::new(upload.is_done() || !sent.whole);
    let seen = Seen::default();
    let responding = Responding {
        conn,
        server: &sent.server.stream,
        lease: &sent.lease,
        deadline: &conn.deadline,
        method: block.request.method,
        version: block.request.version,
        keep: block.request.keep_alive,
        closes: !block.request.keep_alive && upload_done.get() && block.client_in.is_empty(),
        upload_done: &upload_done,
        expects: block.request.expect_continue && upload.bytes == 0,
        upgrade: cx.plan.upgrade,
        edits: &block.edits,
        binding: &block.binding,
        learns: affinity::learns(cx),
        server_idle: cx.config.timeouts.idle,
        write_idle: cx.http.timeouts.write_idle,
        time: cx.time,
        doubt: &cx.doubt,
        head_until: Cell::new(cx.time.until),
        retries,
        elsewhere: Cell::new(retries.gives_up() && (cx.repeats || cx.repeats_call)),
        repeats: cx.repeats,
        retrying: &cx.retrying,
        call: &block.call,
        seen: &seen,
    };
    let buffers = ResponseBuffers {
        server_in: &mut block.server_in,
        head: &mut block.response,
        out: &mut block.response_out,
        tail: &mut block.response_tail,
    };
    let mut responded = if upload_done.get() {
        await_head(cx, &responding);
        respond::respond(&responding, buffers).await
    } else {
        let uploads = UploadBuffers {
            client_in: &mut block.client_in,
            replay: &mut block.replay,
            tail: &mut block.request_tail,
            free: &conn.worker.buffers,
        };
        // Cold against requests without a body, or with a small one: boxed, so that they do not carry its state.
        let hedged = cx.plan.retries.hedge.as_ref().zip(hedge::after(cx, log));
        let both = both_ways(cx, &responding, buffers, upload, uploads, hedged.is_some());
        let both = Box::pin(both).await?;
        match (both, hedged) {
            (Some(responded), _) => responded,
            (None, Some(hedge)) => {
                let first = hedge::First::Sent(sent);
                return Box::pin(hedge::attempt(cx, hedge, block, upload, first, log)).await;
            }
            (None, None) => return Err(Fault::Final(Unserved::new(Reason::Internal))),
        }
    };
    if let Err(fault) = &responded
        && responding.elsewhere.get()
        && let Some(cause) = gives_up(&responding, fault)
    {
        let answered = cause == RetryCause::Status;
        let next = retry::elsewhere(
            cx,
            upload,
            &mut block.tried,
            [sent.lease.member.id],
            answered,
        );
        if let Some(next) = next {
            return Err(give_up(cx, block, sent, &seen, cause, next));
        }
        // Nobody else may be asked: what this server says is what the client gets.
        responding.elsewhere.set(false);
        responding.head_until.set(cx.time.until);
        await_head(cx, &responding);
        let buffers = ResponseBuffers {
            server_in: &mut block.server_in,
            head: &mut block.response,
            out: &mut block.response_out,
            tail: &mut block.response_tail,
        };
        responded = Box::pin(respond::respond(&responding, buffers)).await;
    }
    finish(cx, block, upload, sent, &seen, responded, log)
}

/// Counts how a try ended, and says what becomes of both connections.
fn finish(
    cx: &Cx<'_>,
    block: &mut Block,
    upload: &mut Upload,
    sent: Sent,
    seen: &Seen,
    responded: Result<Responded, ResponseFault>,
    log: &mut Log,
) -> Result<Done, Fault> {
    let Sent {
        server,
        lease,
        at: sent_at,
        whole: sent_whole,
    } = sent;
    log.add_bytes(upload.bytes, seen.bytes.get());
    if let Some(head_at) = seen.head_at.get() {
        let took = head_at.saturating_sub(sent_at);
        record_latency(&lease.member, took, seen.status.get());
        if cx.plan.retries.hedge.is_some() {
            hedge::measure(cx, took, log);
        }
    }
    if seen.sent.get() {
        log.status = seen.status.get();
    }
    let Responded { after, reusable } = match responded {
        Ok(responded) => responded,
        Err(fault) => {
            let is_cut = cx.conn.worker.cuts(&lease.member);
            if let Some(exchange) = server.stream.exchange()
                && fault.is_loss()
                && !exchange.is_first_lost()
            {
                cx.doubt.excuse();
            }
            let is_reset = match fault {
                ResponseFault::Broken(Reason::ServerReset) => true,
                // A write has met the reset, and the kernel tells of it once.
                ResponseFault::Broken(Reason::ServerClosed) => upload.was_cut() || !sent_whole,
                _ => false,
            };
            if is_reset && upload.bytes > 0 && !server.stream.is_carried() {
                // A server that closes on what it has not read of a body resets: it need not be ill for that.
                cx.doubt.excuse();
            }
            return Err(response_fault(
                cx,
                fault,
                seen,
                is_cut,
                &server,
                &lease.member,
            ));
        }
    };
    if cx.is_call {
        let end = seen.end.get();
        log.grpc = end.or_else(|| grpc::end_in_tail(&block.response_tail));
    }
    let status = grpc::status(log.status, log.grpc);
    outcome::answered(&cx.conn.worker, &lease.member, status);
    // Let go of before anything else is read: what is left is the next request, or a tunnel's first bytes.
    upload.release(&mut block.client_in);
    if after == After::Upgrade {
        return Ok(Done::Tunnel(server, lease, cx.config.timeouts.tunnel));
    }
    let upload_whole = upload.is_done() && sent_whole && !upload.was_cut();
    if reusable && upload_whole && !cx.plan.closes && !cx.plan.private {
        keep(cx, block, server);
    }
    Ok(Done::Next(match after {
        After::Keep if upload.is_done() => Next::Keep,
        // The client asked for the end, and has said all it had to say, as far as was read.
        After::Close
            if upload.is_done() && !block.request.keep_alive && block.client_in.is_empty() =>
        {
            Next::Close
        }
        _ => Next::Linger,
    }))
}

/// Records how long a response head took; `status` is 0 where none came.
fn record_latency(member: &Member, took: Duration, status: u16) {
    let (cell, now) = (&member.cell, net::now());
    if status >= 500 {
        cell.record_failed_latency(now, took);
    } else {
        cell.record_latency(now, took);
    }
}

/// Keeps a connection that the gate has let through.
fn keep(cx: &Cx<'_>, block: &Block, server: ServerStream) {
    let kept = block
        .response
        .keep_alive_timeout
        .map_or(cx.config.timeouts.keep_alive, |seconds| {
            Duration::from_secs(u64::from(seconds.saturating_sub(1)))
        });
    cx.conn.worker.idle.give(server, kept, net::now());
}

/// Sets the deadline of the wait for the head, now that the request is sent.
fn await_head(cx: &Cx<'_>, responding: &Responding<'_>) {
    let first_byte = cx.config.timeouts.first_byte;
    if responding.elsewhere.get()
        && cx.repeats
        && let Some(per_try) = cx.plan.retries.per_try_timeout
        && first_byte.is_none_or(|first_byte| per_try < first_byte)
    {
        let head_until = relay::earliest(Some(per_try), cx.time.until);
        responding.head_until.set(head_until);
    }
    respond::set_head_deadline(responding, first_byte);
}

/// Why another server may be asked instead, if that is so.
fn gives_up(responding: &Responding<'_>, fault: &ResponseFault) -> Option<RetryCause> {
    let late = |until: Option<Duration>| until.is_some_and(|until| until <= net::now());
    match fault {
        ResponseFault::Retried => Some(RetryCause::Status),
        ResponseFault::TimedOut
            if responding.seen.head_at.get().is_none()
                && !responding.is_cut()
                && late(responding.head_until.get())
                && !responding.time.is_over() =>
        {
            Some(RetryCause::PerTryTimeout)
        }
        _ => None,
    }
}

/// Leaves a server for `next`. Its connection is kept if its answer is there whole, else closed.
fn give_up(
    cx: &Cx<'_>,
    block: &mut Block,
    sent: Sent,
    seen: &Seen,
    cause: RetryCause,
    next: Lease,
) -> Fault {
    let took = seen.head_at.get().unwrap_or_else(net::now);
    let took = took.saturating_sub(sent.at);
    record_latency(&sent.lease.member, took, seen.status.get());
    let mut status = 0;
    if cause == RetryCause::Status {
        status = grpc::status(seen.status.get(), seen.end.get());
        take_retry_after(block);
        if sent.whole && !cx.plan.closes && discard(block) {
            keep(cx, block, sent.server);
        }
    }
    Fault::Retry(Again::elsewhere(cause, status, next))
}

/// Keeps what the server said of when to come back: if no further try gets an answer, the client is told.
fn take_retry_after(block: &mut Block) {
    let bytes = block.server_in.filled();
    let mut fields = block.response.fields.iter();
    let field = fields.find(|field| field.name.of(bytes).eq_ignore_ascii_case(b"retry-after"));
    block.retry_after.clear();
    if let Some(field) = field {
        block.retry_after.extend_from_slice(field.value.of(bytes));
    }
}

/// Throws away an answer that is there whole; false when it is not, or its connection cannot go on.
fn discard(block: &mut Block) -> bool {
    let head = &block.response;
    let mut framing = Framing::new(head.body, Keep::DataOnly);
    block.server_in.consume(head.len);
    block.response_tail.clear();
    let piece = framing.take(block.server_in.filled_mut(), &mut block.response_tail);
    let Ok(piece) = piece else {
        return false;
    };
    block.server_in.consume(piece.consumed);
    head.keep_alive && framing.is_done() && block.server_in.is_empty()
}

/// Sends the head and what there is of the body. False: the server takes no more, though it took some; it may have
/// said why.
async fn send(
    cx: &Cx<'_>,
    block: &Block,
    upload: &Upload,
    server: &ServerStream,
    deadline: &Deadline,
) -> Result<bool, Fault> {
    let mut parts = parts(block, upload);
    let waits = !relay::is_small(&server.stream, relay::size_of(&parts));
    let watch = Watch::default();
    let mut sent = pin!(send_parts(cx, &mut parts, server, deadline));
    poll_fn(|context| {
        if let Poll::Ready(sent) = sent.as_mut().poll(context) {
            return Poll::Ready(sent);
        }
        let client = &cx.conn.stream;
        if waits && watch.poll_failed(client, deadline, context).is_ready() {
            return Poll::Ready(Err(Fault::Final(Unserved::new(Reason::ClientClosed))));
        }
        Poll::Pending
    })
    .await
}

/// What is sent first.
pub(super) fn parts<'b>(block: &'b Block, upload: &Upload) -> [&'b [u8]; 3] {
    let body = if block.replay.is_empty() {
        upload.first(&block.client_in)
    } else {
        &*block.replay
    };
    [&block.request_out, body, &block.request_tail]
}

/// Sends what [`parts`] gave.
pub(super) async fn send_parts(
    cx: &Cx<'_>,
    parts: &mut [&[u8]; 3],
    server: &ServerStream,
    deadline: &Deadline,
) -> Result<bool, Fault> {
    let mut taken = 0;
    let idle = cx.config.timeouts.idle;
    match relay::write_all(
        &server.stream,
        parts,
        deadline,
        idle.into(),
        &mut taken,
        net::Push::Now,
    )
    .await
    {
        Ok(()) => Ok(true),
        Err(WriteFault::TimedOut) if !server.is_crashed() => {
            Err(Fault::Final(Unserved::new(Reason::ResponseTimeout)))
        }
        Err(_) if taken == 0 && server.stream.is_carried() => {
            Err(Fault::Retry(Again::not_taken(&server.stream)))
        }
        Err(_) if taken == 0 => Err(Fault::Retry(Again::ended(false, false, server.reused))),
        Err(_) => Ok(false),
    }
}

/// Relays the rest of the request body and the response at the same time. With `hedged` it ends with `None` once the
/// body is sent, could be sent again, and nothing of a response has come.
async fn both_ways(
    cx: &Cx<'_>,
    responding: &Responding<'_>,
    buffers: ResponseBuffers<'_>,
    upload: &mut Upload,
    uploads: UploadBuffers<'_>,
    hedged: bool,
) -> Result<Option<Result<Responded, ResponseFault>>, Fault> {
    responding.deadline.set_at(cx.time.until);
    let mut response = std::pin::pin!(respond::respond(responding, buffers));
    let body_idle = cx.http.timeouts.body_idle;
    let write_idle = cx.config.timeouts.idle;
    let uploaded = {
        let mut rest = std::pin::pin!(upload::relay_rest(
            &responding.conn.stream,
            responding.server,
            upload,
            uploads,
            (body_idle, write_idle),
            cx.time,
            responding.seen,
        ));
        match net::race(rest.as_mut(), response.as_mut()).await {
            First::Right(Ok(responded))
                if responded.after == After::Keep && !cx.conn.stream.is_carried() =>
            {
                // The next request can follow if this one ends soon, which is seen by what was read of it.
                responding.deadline.set(Some(REST_WAIT));
                let _ = responding.deadline.guard(rest).await;
                return Ok(Some(Ok(responded)));
            }
            First::Right(responded) => return Ok(Some(responded)),
            First::Left(uploaded) => uploaded,
        }
    };
    match uploaded {
        Ok(()) if hedged && !responding.seen.begun.get() && hedge::is_due(cx, upload) => {
            return Ok(None);
        }
        Ok(()) => responding.upload_done.set(true),
        Err(UploadFault::Client(reason)) => {
            return Err(if responding.seen.sent.get() {
                Fault::Cut(reason)
            } else {
                Fault::Final(Unserved::new(reason))
            });
        }
        Err(UploadFault::ServerStuck) if !responding.server_is_crashed() => {
            return Err(if responding.seen.sent.get() {
                Fault::Cut(Reason::ResponseTimeout)
            } else {
                Fault::Final(Unserved::new(Reason::ResponseTimeout))
            });
        }
        // What the server has to say about it is still to be heard.
        Err(UploadFault::Server | UploadFault::ServerStuck) => {}
    }
    if !responding.seen.begun.get() {
        await_head(cx, responding);
    }
    Ok(Some(response.await))
}

fn response_fault(
    cx: &Cx<'_>,
    fault: ResponseFault,
    seen: &Seen,
    is_cut: bool,
    server: &ServerStream,
    member: &Member,
) -> Fault {
    let fault = match fault {
        ResponseFault::TimedOut if server.is_crashed() => ResponseFault::Ended { reset: true },
        fault => fault,
    };
    let reason = match fault {
        ResponseFault::Ended { reset } if !seen.sent.get() => {
            return Fault::Retry(Again::unanswered(reset, server, &cx.conn.worker, member));
        }
        ResponseFault::Http2(fault) => {
            return http2_fault(fault, seen.begun.get(), seen.sent.get(), server);
        }
        ResponseFault::NotSwitched => {
            return Fault::Final(Unserved {
                reason: Reason::NotImplemented,
                detail: "the server answers an upgrade with 2xx".to_owned(),
            });
        }
        ResponseFault::Ended { reset: true } => Reason::ServerReset,
        ResponseFault::Ended { reset: false } => Reason::ServerClosed,
        ResponseFault::TimedOut if is_cut => Reason::Draining,
        ResponseFault::TimedOut if seen.begun.get() => Reason::ResponseTimeout,
        ResponseFault::TimedOut => Reason::FirstByteTimeout,
        // Passed on where it cannot be retried.
        ResponseFault::Retried => Reason::Internal,
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

/// A request over HTTP/2 came to nothing, with a word of why.
#[cold]
pub(super) fn http2_fault(
    fault: http2::Fault,
    begun: bool,
    answered: bool,
    server: &ServerStream,
) -> Fault {
    let detail = fault.to_string();
    let reason = match fault {
        http2::Fault::NotTaken if !begun => {
            return Fault::Retry(Again::not_taken(&server.stream));
        }
        // That of one stream says nothing of its connection, however old that is.
        http2::Fault::Reset if !begun => return Fault::Retry(Again::ended(true, true, false)),
        http2::Fault::NotTaken | http2::Fault::Reset | http2::Fault::Lost => Reason::ServerReset,
        http2::Fault::Closed => Reason::ServerClosed,
        http2::Fault::Bad(_) => Reason::BadResponse,
        http2::Fault::Unsayable(_) => Reason::BadRequest,
        http2::Fault::NoUpgrade => Reason::NotImplemented,
    };
    if answered {
        Fault::Cut(reason)
    } else {
        Fault::Final(Unserved { reason, detail })
    }
}

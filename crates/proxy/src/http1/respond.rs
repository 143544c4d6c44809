//! The response on its way back: its head, what goes before it, and its body as it comes.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use config::Retries;
use control::affinity::Bond;
use control::pick::LocalPool;
use control::reason::Reason;
use wire::grpc::Code;
use wire::http1::{
    Body, Decoded, HeadLimits, Keep, Method, ResponseHead, Version, decode_response,
};

use super::blame::{Doubt, Time};
use super::encode::{self, After};
use super::grpc::{self, Answer, Call};
use super::{Conn, web};
use crate::bounds::Counted;
use crate::buffer::{BUFFER_BYTES, Buffer};
use crate::http2;
use crate::net::{self, Conduit, Deadline, Push};
use crate::outcome;
use crate::relay::{self, Framing, Patience, WriteFault, YIELD_BYTES, earliest};
use crate::stream::Stream;
use crate::upstream::Lease;
use crate::watch::Watch;

/// Interim responses (1xx) before a final one.
const INTERIM_MAX: u32 = 16;
/// Bytes of a body that are copied behind the head: up to here that costs less than a write of two pieces.
const GATHERED_MAX: usize = 2 * 1024;

/// What a response needs to know of its request.
pub(super) struct Responding<'a> {
    pub(super) conn: &'a Conn,
    pub(super) server: &'a Stream,
    pub(super) lease: &'a Lease,
    pub(super) deadline: &'a Deadline,
    pub(super) method: Method,
    pub(super) version: Version,
    /// Whether the client would keep its connection; we may be leaving by the time that the head comes.
    pub(super) keep: bool,
    /// Whether the connection is closed as soon as the response is written: the client asked for it, and has said all.
    pub(super) closes: bool,
    /// Whether the request body has been read whole; it may still become so.
    pub(super) upload_done: &'a Cell<bool>,
    /// Whether the client sends the request body only when it is told to.
    pub(super) expects: bool,
    /// Whether an upgrade was asked for.
    pub(super) upgrade: bool,
    pub(super) edits: &'a rules::Edits,
    /// Lines by which the client is bound to a server; empty as a rule.
    pub(super) binding: &'a [u8],
    /// Where the pool learns from answers what its clients are bound by.
    pub(super) learns: Option<Learns<'a>>,
    pub(super) server_idle: Option<Duration>,
    pub(super) write_idle: Option<Duration>,
    pub(super) time: &'a Time,
    pub(super) doubt: &'a Doubt,
    /// When the head must have come.
    pub(super) head_until: Cell<Option<Duration>>,
    /// Answers with these statuses are not passed on, but reported; none while the body is on its way.
    pub(super) retries: &'a Retries,
    /// Whether another server may be asked instead of this one.
    pub(super) elsewhere: Cell<bool>,
    /// Whether the request may be sent again whatever the answer is.
    pub(super) repeats: bool,
    /// Its place among those of the pool that are tried again, where these are bounded.
    pub(super) retrying: &'a RefCell<Option<Counted>>,
    /// What it is to gRPC.
    pub(super) call: &'a Call,
    pub(super) seen: &'a Seen,
}

impl Responding<'_> {
    pub(super) fn parts(&self) -> encode::ResponseParts<'_> {
        encode::ResponseParts {
            version: self.version,
            edits: self.edits,
            binding: self.binding,
        }
    }

    /// Whether what runs on the server is to end.
    pub(super) fn is_cut(&self) -> bool {
        self.conn.worker.cuts(&self.lease.member)
    }

    /// Whether a drill has the server out.
    pub(super) fn server_is_crashed(&self) -> bool {
        self.lease.member.is_crashed()
    }
}

/// How far a response has come, for whoever watches.
#[derive(Default)]
pub(super) struct Seen {
    /// A byte of it was read from the server.
    pub(super) begun: Cell<bool>,
    /// A byte of the final one was sent to the client, or may be at this moment: nothing else can be answered any more.
    pub(super) sent: Cell<bool>,
    /// When its final head came, on [`net::now`]'s clock.
    pub(super) head_at: Cell<Option<Duration>>,
    pub(super) bytes: Cell<u64>,
    /// Body bytes sent to the server while the response was awaited, as the upload counts them.
    pub(super) sent_up: Cell<u64>,
    /// What `sent_up` was when silence of the server was last judged.
    judged_at: Cell<u64>,
    pub(super) status: Cell<u16>,
    /// How a call of gRPC ended, if its head says so.
    pub(super) end: Cell<Option<Code>>,
}

/// The buffers of a response.
pub(super) struct ResponseBuffers<'b> {
    pub(super) server_in: &'b mut Buffer,
    pub(super) head: &'b mut ResponseHead,
    pub(super) out: &'b mut Vec<u8>,
    pub(super) tail: &'b mut Vec<u8>,
}

/// A response that was passed on whole.
pub(super) struct Responded {
    pub(super) after: After,
    /// Whether the server's connection can carry another request, as far as the response tells.
    pub(super) reusable: bool,
}

/// Why a response was not passed on whole.
#[derive(Debug)]
pub(super) enum ResponseFault {
    /// The connection ended before a byte of it.
    Ended { reset: bool },
    /// It did not begin, or stopped.
    TimedOut,
    /// Its head is read, and its status is one that another server may do better than.
    Retried,
    /// It broke off.
    Broken(Reason),
    /// It is not HTTP that can be passed on.
    Bad(String),
    /// Its head did not come over HTTP/2, for a reason of that.
    Http2(http2::Fault),
    /// It is 2xx, and stays with HTTP/1.1: to a client that asked by extended CONNECT this would say that its tunnel stands
    /// (RFC 8441 §4).
    NotSwitched,
    /// The client is gone.
    ClientGone,
}

impl ResponseFault {
    /// Whether a connection that carries many requests has ended.
    pub(super) fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::Ended { .. } | Self::Broken(Reason::ServerClosed)
        )
    }
}

/// Reads a response and passes it on.
pub(super) async fn respond(
    on: &Responding<'_>,
    buffers: ResponseBuffers<'_>,
) -> Result<Responded, ResponseFault> {
    let ResponseBuffers {
        server_in,
        head,
        out,
        tail,
    } = buffers;
    let mut interim = 0;
    loop {
        read_head(on, server_in, head).await?;
        on.seen.status.set(head.status);
        match head.status {
            101 if on.upgrade && head.upgrade.is_some() && on.upload_done.get() => {
                learn(on, head, server_in.filled());
                encode::response(
                    out,
                    head,
                    server_in.filled(),
                    false,
                    After::Upgrade,
                    &on.parts(),
                );
                write(on, &mut [out, &[], &[]], Push::Now).await?;
                server_in.consume(head.len);
                return Ok(Responded {
                    after: After::Upgrade,
                    reusable: false,
                });
            }
            101 => return Err(ResponseFault::Bad("101 that nobody asked for".to_owned())),
            100..200 => {
                interim += 1;
                if interim > INTERIM_MAX {
                    return Err(ResponseFault::Bad("too many interim responses".to_owned()));
                }
                if on.version == Version::Http11 {
                    encode::response(
                        out,
                        head,
                        server_in.filled(),
                        false,
                        After::Interim,
                        &on.parts(),
                    );
                    write_interim(on, out).await?;
                }
                server_in.consume(head.len);
            }
            _ => break,
        }
    }
    on.seen.head_at.set(Some(net::now()));
    on.doubt.settle(&on.conn.worker);
    if on.call.is_one() {
        on.seen.end.set(grpc::end_in_head(head, server_in.filled()));
    }
    if on.elsewhere.get() && on.upload_done.get() && is_retried(on, head.status) {
        return Err(ResponseFault::Retried);
    }
    if on.upgrade && on.conn.stream.is_carried() && matches!(head.status, 200..300) {
        return Err(ResponseFault::NotSwitched);
    }
    learn(on, head, server_in.filled());
    if on.call.is_one() && grpc::is_answer(head, server_in.filled()) {
        if let Some(dialect) = on.edits.web() {
            // Boxed, so that other answers do not carry its state.
            return Box::pin(web::relay(on, dialect, server_in, head, out)).await;
        }
        on.call.note_answer(Answer::Trailers);
    }
    relay_final(on, server_in, head, out, tail).await
}

/// Whether another server may do better than one that answers so.
fn is_retried(on: &Responding<'_>, status: u16) -> bool {
    let by_code = |code: Code| status == 200 && on.retries.is_code_retried(code);
    on.repeats && on.retries.is_retried(status) || on.seen.end.get().is_some_and(by_code)
}

async fn relay_final(
    on: &Responding<'_>,
    server_in: &mut Buffer,
    head: &ResponseHead,
    out: &mut Vec<u8>,
    tail: &mut Vec<u8>,
) -> Result<Responded, ResponseFault> {
    let chunked = head.body == Body::Chunked && on.version == Version::Http11;
    let delimited = match head.body {
        Body::None | Body::Length(_) => true,
        Body::Chunked => chunked,
        Body::UntilClose => false,
    };
    let after = after(on, head, delimited);
    encode::response(out, head, server_in.filled(), chunked, after, &on.parts());
    server_in.consume(head.len);

    let mut framing = Framing::new(
        head.body,
        if chunked {
            Keep::Framing
        } else {
            Keep::DataOnly
        },
    );
    let mut is_first = true;
    let mut since_yield = 0;
    loop {
        tail.clear();
        let piece = framing
            .take(server_in.filled_mut(), tail)
            .map_err(|error| broken(on, &error))?;
        let kept = server_in.filled().get(..piece.kept).unwrap_or_default();
        let push = if framing.is_done() {
            let_go(on)
        } else {
            Push::Now
        };
        let mut parts: [&[u8]; 3] = if !is_first {
            [kept, tail, &[]]
        } else if kept.len() <= GATHERED_MAX && on.conn.stream.plain().is_some() {
            out.extend_from_slice(kept);
            [out, tail, &[]]
        } else {
            [out, kept, tail]
        };
        is_first = false;
        since_yield += write(on, &mut parts, push).await?;
        on.seen.bytes.set(on.seen.bytes.get() + piece.data as u64);
        server_in.consume(piece.consumed);
        if framing.is_done() {
            let reusable = head.keep_alive && server_in.is_empty();
            return Ok(Responded { after, reusable });
        }
        outcome::serves(&on.conn.worker, &on.lease.member);
        if since_yield >= YIELD_BYTES {
            since_yield = 0;
            yield_now(on).await?;
        }
        if server_in.room().is_empty() && !server_in.grow(2 * crate::buffer::BUFFER_BYTES) {
            return Err(ResponseFault::Broken(Reason::BadResponse));
        }
        if server_in.is_in_bulk()
            && framing.is_bulk()
            && let Some(sockets) = on.server.plain().zip(on.conn.stream.plain())
            && let Some(conduit) = on.conn.worker.buffers.conduit()
        {
            // Boxed, so that small answers do not carry its state.
            if Box::pin(splice(on, sockets, &conduit, &mut framing)).await? == SpliceEnd::Done {
                // Who has sent more than it said, or has hung up, must not be asked again.
                let reusable = head.keep_alive && framing.is_done() && sockets.0.is_quiet();
                return Ok(Responded { after, reusable });
            }
            server_in.end_bulk();
        }
        on.conn.worker.buffers.widen(server_in);
        set_deadline(on, on.server_idle);
        match read(on, server_in).await? {
            Ok(0) if matches!(framing, Framing::UntilClose) => {
                return Ok(Responded {
                    after,
                    reusable: false,
                });
            }
            Ok(0) => return Err(ResponseFault::Broken(Reason::ServerClosed)),
            Ok(_) => {}
            Err(error) => return Err(ResponseFault::Broken(reason_of(&error))),
        }
    }
}

/// What is learnt from an answer.
pub(super) struct Learns<'a> {
    pub(super) pool: &'a RefCell<LocalPool>,
    pub(super) bond: &'a Bond,
}

fn learn(on: &Responding<'_>, head: &ResponseHead, bytes: &[u8]) {
    let Some(Learns { pool, bond }) = &on.learns else {
        return;
    };
    let fields = head.fields.iter();
    let fields = fields.map(|field| (field.name.of(bytes), field.value.of(bytes)));
    if let Some(learnt) = &pool.borrow().view.learnt {
        learnt.learn_from(bond, fields, &on.lease.member, net::now());
    }
}

/// Why a body broke off.
#[cold]
fn reason_of(error: &io::Error) -> Reason {
    match http2::Fault::in_error(error) {
        Some(http2::Fault::Bad(_)) => Reason::BadResponse,
        _ => Reason::ServerReset,
    }
}

/// How the client's connection goes on; `delimited`: the end of the body is not that of the connection.
pub(super) fn after(on: &Responding<'_>, head: &ResponseHead, delimited: bool) -> After {
    let is_whole = on.upload_done.get() || on.conn.stream.is_carried();
    if on.keep && delimited && (is_whole || is_read_on(on, head)) && !on.conn.is_leaving() {
        After::Keep
    } else {
        After::Close
    }
}

/// Whether a server that answers early still takes the rest of the request, which the client is about to send: who has
/// refused it, or was not waited for, may do neither.
fn is_read_on(on: &Responding<'_>, head: &ResponseHead) -> bool {
    let is_held_back = on.expects && on.seen.sent_up.get() == 0;
    head.keep_alive && matches!(head.status, 200..300) && !is_held_back
}

pub(super) fn broken(on: &Responding<'_>, error: &impl std::fmt::Display) -> ResponseFault {
    if on.seen.sent.get() {
        ResponseFault::Broken(Reason::BadResponse)
    } else {
        ResponseFault::Bad(error.to_string())
    }
}

async fn read_head(
    on: &Responding<'_>,
    server_in: &mut Buffer,
    head: &mut ResponseHead,
) -> Result<(), ResponseFault> {
    let limits = HeadLimits::RESPONSE;
    loop {
        if !server_in.is_empty() {
            match decode_response(server_in.filled(), on.method, &limits, head) {
                Ok(Decoded::Complete(())) => return Ok(()),
                Ok(Decoded::Incomplete) => set_head_deadline(on, on.server_idle),
                Err(error) => return Err(ResponseFault::Bad(error.to_string())),
            }
        }
        if server_in.room().is_empty() && !server_in.grow(limits.head_bytes + 1) {
            return Err(ResponseFault::Bad(
                "the response head is too large".to_owned(),
            ));
        }
        match read(on, server_in).await? {
            Ok(count) if count > 0 => on.seen.begun.set(true),
            ended => {
                if let Err(error) = &ended
                    && let Some(fault) = http2::Fault::in_error(error)
                {
                    return Err(of_http2(fault, on.seen.begun.get()));
                }
                let reset = ended.is_err();
                return Err(if on.seen.begun.get() {
                    ResponseFault::Broken(if reset {
                        Reason::ServerReset
                    } else {
                        Reason::ServerClosed
                    })
                } else {
                    ResponseFault::Ended { reset }
                });
            }
        }
    }
}

/// A lost connection is one in any version of HTTP.
#[cold]
fn of_http2(fault: &http2::Fault, begun: bool) -> ResponseFault {
    match fault {
        http2::Fault::Reset | http2::Fault::Lost if begun => {
            ResponseFault::Broken(Reason::ServerReset)
        }
        http2::Fault::Lost => ResponseFault::Ended { reset: true },
        fault => ResponseFault::Http2(fault.clone()),
    }
}

pub(super) async fn read(
    on: &Responding<'_>,
    server_in: &mut Buffer,
) -> Result<io::Result<usize>, ResponseFault> {
    let read = from_server(on, |cx| on.server.poll_read(cx, server_in.room())).await?;
    if let Ok(count) = &read {
        server_in.added(*count);
    }
    Ok(read)
}

/// Asks `poll` for bytes of the server, and meanwhile sees whether the client is lost.
async fn from_server(
    on: &Responding<'_>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<usize>>,
) -> Result<io::Result<usize>, ResponseFault> {
    let watch = Watch::default();
    let read = poll_fn(|cx| {
        if let Poll::Ready(read) = poll(cx) {
            return Poll::Ready(Ok(read));
        }
        let gone = watch.poll_failed(&on.conn.stream, on.deadline, cx);
        gone.map(|()| Err(ResponseFault::ClientGone))
    });
    let mut read = pin!(read);
    loop {
        match on.deadline.guard(read.as_mut()).await {
            Ok(read) => return read,
            Err(net::Elapsed) if is_sending(on) => {
                on.deadline.set_at(earliest(on.server_idle, bound(on)));
            }
            Err(net::Elapsed) => return Err(ResponseFault::TimedOut),
        }
    }
}

/// How far a conduit has carried a body.
#[derive(PartialEq, Eq)]
enum SpliceEnd {
    /// To its end.
    Done,
    /// The rest goes through a buffer: it is short, or comes in small pieces.
    Rest,
}

/// Passes a body on without looking at it.
async fn splice(
    on: &Responding<'_>,
    (server, client): (&net::Stream, &net::Stream),
    conduit: &Conduit,
    framing: &mut Framing,
) -> Result<SpliceEnd, ResponseFault> {
    let mut since_yield = 0;
    while let Some(unseen) = framing.unseen() {
        let max = usize::try_from(unseen).unwrap_or(usize::MAX);
        set_deadline(on, on.server_idle);
        let count = match from_server(on, |cx| server.poll_fill(cx, conduit, max)).await? {
            Ok(0) if matches!(framing, Framing::UntilClose) => return Ok(SpliceEnd::Done),
            Ok(0) => return Err(ResponseFault::Broken(Reason::ServerClosed)),
            Ok(count) => count,
            Err(_) => return Err(ResponseFault::Broken(Reason::ServerReset)),
        };
        framing.pass(count);
        let push = if framing.is_done() {
            let_go(on)
        } else {
            Push::Now
        };
        on.seen.bytes.set(on.seen.bytes.get() + count as u64);
        let (mut taken, began) = (0, net::now());
        let patience = patience(on);
        let drained = relay::drain(client, conduit, on.deadline, patience, &mut taken, push).await;
        on.time.handle_wait(began);
        drained.map_err(|fault| to_client(on, fault))?;
        if framing.is_done() {
            return Ok(SpliceEnd::Done);
        }
        if count < BUFFER_BYTES {
            break;
        }
        since_yield += taken;
        if since_yield >= YIELD_BYTES {
            since_yield = 0;
            yield_now(on).await?;
        }
    }
    Ok(SpliceEnd::Rest)
}

/// Lets others run. A stream that never waits for either side learns here that its time is over, or that its server is
/// to be left.
pub(super) async fn yield_now(on: &Responding<'_>) -> Result<(), ResponseFault> {
    net::yield_now().await;
    if on.time.is_over() || on.is_cut() || on.server_is_crashed() {
        return Err(ResponseFault::TimedOut);
    }
    Ok(())
}

/// The server has done its part, however long the client takes to read the rest. Says how the last bytes are sent.
pub(super) fn let_go(on: &Responding<'_>) -> Push {
    on.lease.release();
    drop(on.retrying.take());
    on.deadline.tag(0);
    if on.closes {
        Push::WithClose
    } else {
        Push::Now
    }
}

/// Writes a part of the final response; says how many bytes that were.
pub(super) async fn write(
    on: &Responding<'_>,
    parts: &mut [&[u8]; 3],
    push: Push,
) -> Result<u64, ResponseFault> {
    // Set before: while this waits for the client the upload may fail, and a part of it may have gone out.
    let had_sent = on.seen.sent.replace(true);
    let (client, mut taken, began) = (&on.conn.stream, 0, net::now());
    let patience = patience(on);
    let written = relay::write_all(client, parts, on.deadline, patience, &mut taken, push);
    let written = written.await;
    on.time.handle_wait(began);
    if taken == 0 {
        on.seen.sent.set(had_sent);
    }
    match written {
        Ok(()) => Ok(taken),
        Err(fault) => Err(to_client(on, fault)),
    }
}

/// How long the client may take: no longer than the whole request, while its server is held.
fn patience(on: &Responding<'_>) -> Patience {
    Patience {
        idle: on.write_idle,
        until: on.time.until.filter(|_| on.lease.is_held()),
    }
}

/// Writes an interim response: the final one may still be ours.
async fn write_interim(on: &Responding<'_>, head: &[u8]) -> Result<(), ResponseFault> {
    let (client, mut taken, mut parts) = (&on.conn.stream, 0, [head, &[], &[]]);
    let (patience, push) = (patience(on), Push::Now);
    let written = relay::write_all(client, &mut parts, on.deadline, patience, &mut taken, push);
    written.await.map_err(|fault| to_client(on, fault))
}

/// What it means that the client took no more.
fn to_client(on: &Responding<'_>, fault: WriteFault) -> ResponseFault {
    match fault {
        // Cut by a drill, or at a drain's deadline: the client waits for what will not come.
        WriteFault::TimedOut if on.server_is_crashed() || on.is_cut() => ResponseFault::TimedOut,
        // Whose fault that is, is judged later.
        WriteFault::TimedOut if on.lease.is_held() && on.time.is_over() => ResponseFault::TimedOut,
        _ => ResponseFault::ClientGone,
    }
}

/// Whether silence of the server is that of one who still takes the request body.
fn is_sending(on: &Responding<'_>) -> bool {
    let sent_up = on.seen.sent_up.get();
    let is_over = bound(on).is_some_and(|until| until <= net::now());
    sent_up != on.seen.judged_at.replace(sent_up)
        && !is_over
        && !on.is_cut()
        && !on.server_is_crashed()
}

/// What no silence may pass.
fn bound(on: &Responding<'_>) -> Option<Duration> {
    if on.seen.head_at.get().is_some() {
        on.time.until
    } else {
        on.head_until.get()
    }
}

/// Sets the deadline of a wait for the head.
pub(super) fn set_head_deadline(on: &Responding<'_>, after: Option<Duration>) {
    on.deadline.set_at(earliest(after, on.head_until.get()));
}

/// Sets the deadline of the next wait, within that of the whole request.
pub(super) fn set_deadline(on: &Responding<'_>, after: Option<Duration>) {
    on.deadline.set_at(earliest(after, on.time.until));
}

//! HTTP/1: one connection of a client, request after request.
//!
//! A request walks in a straight line: the head is read here, `plan` judges, routes and filters it, `exchange` picks
//! a server, forwards and relays, `log` records. What is answered here instead comes from `answer`.

mod affinity;
mod answer;
mod attempt;
mod blame;
mod encode;
mod exchange;
mod grpc;
mod hedge;
mod log;
mod place;
mod plan;
mod respond;
mod retry;
mod upload;
mod web;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use config::{HttpListener, Protocol};
use control::decide;
use control::memory::Level;
use control::reason::Reason;
use wire::http1::{Body, Decoded, RequestError, RequestHead, ResponseHead, decode_request};

use crate::buffer::Buffer;
use crate::http2;
use crate::listener::{Listening, Open};
use crate::memory::{self, Counted};
use crate::net::{self, Deadline};
use crate::relay::{self, TunnelEnd, TunnelTimes};
use crate::stream::Stream;
use crate::tls::About;
use crate::upstream::{Lease, ServerStream};
use crate::worker::{LocalWorld, Worker};
use attempt::Done;
use log::Log;

/// Marks the deadlines of connections that wait for their next request.
pub(crate) const IDLE_TAG: u32 = u32::MAX;
/// Requests of one connection that are served in a row before others run.
const PIPELINE_BATCH: u32 = 16;
/// A connection whose next request comes within this keeps what a request needs, its buffers aside.
const ROW_WAIT: Duration = Duration::from_secs(1);
/// How long a client may be silent in a tunnel whose server has ended. Over HTTP/2 a browser may leave its half open for as
/// long as its page is (Chromium), and a server that has closed its WebSocket waits for it (RFC 6455 §7.1.1).
const AFTER_SERVER: Duration = Duration::from_secs(5);

/// What one exchange needs: recycled within a worker, held only while a request runs.
#[derive(Default)]
pub(crate) struct Block {
    pub(crate) client_in: Buffer,
    pub(crate) server_in: Buffer,
    request: RequestHead,
    response: ResponseHead,
    /// The head as the server gets it.
    request_out: Vec<u8>,
    /// The head as the client gets it.
    response_out: Vec<u8>,
    /// Fields of it by which the client is bound to a server; empty as a rule.
    binding: Vec<u8>,
    /// End of a chunked request body: last chunk and trailers.
    request_tail: Vec<u8>,
    response_tail: Vec<u8>,
    /// Request body bytes that were sent, kept for another try.
    replay: Counted,
    edits: rules::Edits,
    path: Vec<u8>,
    host: Vec<u8>,
    /// What the request is called; empty where nothing names it.
    request_id: Vec<u8>,
    tried: Vec<u32>,
    /// `Retry-After` of an answer that was not passed on.
    retry_after: Vec<u8>,
    /// Whether the client asked for JSON: what is answered here is then JSON too.
    wants_json: bool,
    /// What it is to gRPC: what is answered here is then of gRPC too.
    call: grpc::Call,
}

impl Block {
    /// Has `write` write a request's head, and puts that where one is read from a socket. `room` says by what it gave
    /// whether there is a buffer for more to come: a head alone needs no more than its own size.
    pub(crate) fn take_head<T>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> T,
        room: impl FnOnce(&T) -> Option<Buffer>,
    ) -> T {
        self.request_out.clear();
        let out = write(&mut self.request_out);
        self.client_in = match room(&out) {
            Some(mut buffer) => {
                buffer.fill(&self.request_out);
                buffer
            }
            None => Buffer::holding(&self.request_out),
        };
        out
    }

    /// Forgets one exchange; what it grew beyond the usual is freed.
    pub(crate) fn clear(&mut self) {
        const KEPT: usize = 16 * 1024;
        for scratch in [
            &mut self.request_out,
            &mut self.response_out,
            &mut self.binding,
            &mut self.request_tail,
            &mut self.response_tail,
            &mut self.path,
            &mut self.host,
            &mut self.request_id,
            &mut self.retry_after,
        ] {
            scratch.clear();
            if scratch.capacity() > KEPT {
                scratch.shrink_to(KEPT);
            }
        }
        self.replay.clear();
        if self.replay.capacity() > KEPT {
            self.replay.shrink_to(KEPT);
        }
        self.edits.clear();
        self.tried.clear();
        self.wants_json = false;
        self.call.clear();
    }
}

/// A client's connection.
struct Conn {
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    stream: Stream,
    peer: Option<SocketAddr>,
    /// What its handshake told; `None`: plain bytes.
    tls: Option<Rc<About>>,
    deadline: Deadline,
    /// Its place among the listener's connections; dropped after its socket. `None`: it is a stream of one that has it.
    open: Option<Open>,
}

/// What becomes of the connection after an exchange.
enum Next {
    /// The next request may come.
    Keep,
    /// It ends; nothing of the client is left unread.
    Close,
    /// It ends, though the client may still be sending.
    Linger,
    /// It ends with a reset, so that a cut answer is not taken for a whole one.
    Reset,
    /// It is a byte tunnel from now on.
    Tunnel(Box<Tunnel>),
    /// What came is no request, but the beginning of HTTP/2.
    Http2,
}

/// How a row of requests ended.
enum Row {
    /// With the connection.
    Ended,
    /// The connection has become idle.
    Idle,
    /// The connection speaks HTTP/2; these bytes of it were read.
    Http2(Vec<u8>),
}

/// Why a request is refused before its head is one of HTTP/1.
pub(crate) struct Fault {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

/// What a tunnel keeps of its exchange; no config, so that a day-long one keeps none alive.
struct Tunnel {
    server: ServerStream,
    lease: Lease,
    idle: Option<Duration>,
    log: Log,
}

/// Serves a client's connection until it ends. `open`: given back when its socket is closed.
pub(crate) fn serve(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    stream: Stream,
    peer: Option<SocketAddr>,
    tls: Option<Rc<About>>,
    open: Open,
) -> impl Future<Output = ()> {
    // Made before the future, which would keep its arguments beside it.
    let conn = Conn {
        worker,
        listening,
        stream,
        peer,
        tls,
        deadline: Deadline::new(),
        open: Some(open),
    };
    async move {
        let mut first = true;
        while let Some(block) = conn.wait_for_request(first).await {
            // What a request needs is boxed, so that an idle connection is small.
            match Box::pin(conn.serve_row(block, first)).await {
                Row::Ended => return,
                Row::Idle => first = false,
                Row::Http2(read) => return Box::pin(conn.serve_http2(read)).await,
            }
        }
    }
}

/// Serves one stream of a client's HTTP/2 connection, whose request is in `block`, or was no request.
pub(crate) async fn serve_stream(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    stream: Stream,
    peer: Option<SocketAddr>,
    tls: Option<Rc<About>>,
    mut block: Box<Block>,
    fault: Option<Fault>,
) {
    let conn = Conn {
        worker,
        listening,
        stream,
        peer,
        tls,
        deadline: Deadline::new(),
        open: None,
    };
    let next = match fault {
        None => conn.serve_one(&mut block, false).await,
        Some(fault) => Box::pin(conn.refuse_stream(&mut block, fault)).await,
    };
    match next {
        Next::Tunnel(tunnel) => return Box::pin(conn.tunnel(tunnel, block)).await,
        Next::Reset => conn.stream.reset_on_close(),
        // What the client still sends is thrown away for a while, before its stream is reset.
        Next::Linger => {
            conn.worker.give_block(block);
            return conn.linger().await;
        }
        Next::Keep | Next::Close | Next::Http2 => conn.stream.say_end(),
    }
    conn.worker.give_block(block);
}

/// What a wait for a request came to.
enum Waited {
    Request(Box<Block>),
    /// The client has ended the connection, or it failed.
    Ended,
    /// Nothing has come in time.
    Over,
}

impl Conn {
    /// Whether this connection is to take no further request after the present one.
    fn is_leaving(&self) -> bool {
        self.worker.draining.get() || self.listening.is_gone()
    }

    /// Serves it as HTTP/2, of which `read` has come.
    async fn serve_http2(self, read: Vec<u8>) {
        let Self {
            worker,
            listening,
            stream,
            peer,
            tls,
            deadline,
            open,
        } = self;
        drop(deadline);
        http2::serve(worker, listening, stream, peer, tls, read).await;
        drop(open);
    }

    /// Serves requests that follow one another. `first`: nothing came before them.
    async fn serve_row(&self, mut block: Box<Block>, first: bool) -> Row {
        let mut served: u32 = 0;
        loop {
            let next = self.serve_one(&mut block, first && served == 0).await;
            served = served.wrapping_add(1);
            match next {
                Next::Keep if !block.client_in.is_empty() => {
                    block.clear();
                    if served.is_multiple_of(PIPELINE_BATCH) {
                        net::yield_now().await;
                    }
                    continue;
                }
                Next::Keep => self.worker.give_block(block),
                Next::Tunnel(tunnel) => {
                    // Cold and long.
                    Box::pin(self.tunnel(tunnel, block)).await;
                    return Row::Ended;
                }
                Next::Http2 => {
                    let read = block.client_in.filled().to_vec();
                    self.worker.give_block(block);
                    return Row::Http2(read);
                }
                Next::Close if !self.stream.holds_unread() => {
                    self.worker.give_block(block);
                    self.stream.say_end();
                    return Row::Ended;
                }
                Next::Close | Next::Linger => {
                    self.worker.give_block(block);
                    self.linger().await;
                    return Row::Ended;
                }
                Next::Reset => {
                    self.worker.give_block(block);
                    self.stream.reset_on_close();
                    return Row::Ended;
                }
            }
            let soon = self
                .keep_alive()
                .map_or(ROW_WAIT, |wait| wait.min(ROW_WAIT));
            match self.wait(Some(soon)).await {
                Waited::Request(next) => block = next,
                Waited::Ended => {
                    self.stream.say_end();
                    return Row::Ended;
                }
                Waited::Over => return Row::Idle,
            }
        }
    }

    /// How long the client may take until its next request.
    fn keep_alive(&self) -> Option<Duration> {
        let (world, index) = self.listening.place(&self.worker);
        http_of(&world, index).map_or(Some(Duration::ZERO), |http| http.timeouts.keep_alive)
    }

    /// Waits until the client sends; `None` when the connection is to end.
    async fn wait_for_request(&self, first: bool) -> Option<Box<Block>> {
        let wait = if first {
            if self.worker.tries_first_read() {
                let read = self.try_read();
                self.worker.note_first_read(read.is_some());
                if let Some(read) = read {
                    return read.ok();
                }
            } else if self.stream.watch().is_err() {
                return None;
            }
            let (world, index) = self.listening.place(&self.worker);
            http_of(&world, index)?.timeouts.header
        } else {
            self.keep_alive().map(|wait| wait.saturating_sub(ROW_WAIT))
        };
        match self.wait(wait).await {
            Waited::Request(block) => Some(block),
            Waited::Ended | Waited::Over => {
                self.stream.say_end();
                None
            }
        }
    }

    /// Waits without a buffer.
    async fn wait(&self, at_most: Option<Duration>) -> Waited {
        self.deadline.tag(IDLE_TAG);
        self.deadline.set(if self.worker.closes_idle.get() {
            Some(Duration::ZERO)
        } else {
            at_most
        });
        loop {
            // Written out: a guard around another future would be three times as large.
            let ready = poll_fn(|cx| match self.stream.poll_readable(cx) {
                Poll::Ready(ready) => Poll::Ready(Ok(ready)),
                Poll::Pending => self.deadline.poll(cx).map(Err),
            })
            .await;
            // A request that came at the last moment is still served.
            let over = ready.is_err();
            if matches!(ready, Ok(Err(_))) {
                return Waited::Ended;
            }
            match self.try_read() {
                Some(Ok(block)) => {
                    self.deadline.tag(0);
                    return Waited::Request(block);
                }
                Some(Err(Ended)) => return Waited::Ended,
                None if over => return Waited::Over,
                None => {}
            }
        }
    }

    /// Reads what has come into a block; `None` when nothing has, an error when the connection has ended.
    fn try_read(&self) -> Option<Result<Box<Block>, Ended>> {
        let mut block = self.worker.take_block();
        match self.stream.try_read(block.client_in.room()) {
            Ok(count) if count > 0 => {
                block.client_in.added(count);
                return Some(Ok(block));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                self.worker.give_block(block);
                return None;
            }
            _ => {}
        }
        self.worker.give_block(block);
        Some(Err(Ended))
    }

    async fn serve_one(&self, block: &mut Block, first: bool) -> Next {
        let (world, index) = self.listening.place(&self.worker);
        let Some(http) = http_of(&world, index) else {
            return Next::Close;
        };
        let mut log = Log::begin(&self.worker, &self.listening.name);
        if block.client_in.level >= Level::Shedding {
            // Cold: boxed, so that other requests do not carry its state.
            return Box::pin(self.shed(block, http, &mut log)).await;
        }
        if let Err(fault) = self.read_head(block, http).await {
            let is_plain = self.stream.plain().is_some();
            if first
                && is_plain
                && http.http2.is_some()
                && http2::starts_http2(block.client_in.filled())
            {
                log.forget();
                return Next::Http2;
            }
            return self.refuse_head(block, http, fault, &mut log).await;
        }
        match exchange::run(self, &world, index, http, block, &mut log).await {
            Done::Next(next) => next,
            Done::Tunnel(server, lease, idle) => Next::Tunnel(Box::new(Tunnel {
                server,
                lease,
                idle,
                log,
            })),
        }
    }

    /// Reads until the head is whole. Some of it is there already.
    async fn read_head(&self, block: &mut Block, http: &HttpListener) -> Result<(), HeadFault> {
        let limits = decide::head_limits(http);
        let mut waiting = false;
        loop {
            match decode_request(block.client_in.filled(), &limits, &mut block.request) {
                Ok(Decoded::Complete(())) => return Ok(()),
                Ok(Decoded::Incomplete) => {}
                Err(error) => return Err(HeadFault::Bad(error)),
            }
            if !waiting {
                waiting = true;
                self.deadline.set(http.timeouts.header);
            }
            if block.client_in.room().is_empty() && memory::level() >= Level::Shedding {
                return Err(HeadFault::Overloaded);
            }
            if block.client_in.room().is_empty()
                && !block.client_in.grow(limits.head_bytes.saturating_add(1))
            {
                return Err(HeadFault::Bad(RequestError::Head(
                    wire::http1::HeadFault::TooLarge,
                )));
            }
            match self
                .deadline
                .guard(relay::read_more(&self.stream, &mut block.client_in))
                .await
            {
                Err(net::Elapsed) => return Err(HeadFault::TimedOut),
                Ok(Ok(count)) if count > 0 => {}
                Ok(_) => return Err(HeadFault::Gone),
            }
        }
    }

    /// Refuses a request for which there is no memory; what of it has come is all that is looked at.
    async fn shed(&self, block: &mut Block, http: &HttpListener, log: &mut Log) -> Next {
        let limits = decide::head_limits(http);
        let decoded = decode_request(block.client_in.filled(), &limits, &mut block.request);
        let is_whole = matches!(decoded, Ok(Decoded::Complete(())));
        if is_whole {
            plan::take_texts(self, &block.request, block.client_in.filled(), log);
            block.call.read(&block.request, block.client_in.filled());
            block.client_in.consume(block.request.len);
        } else {
            block.request = RequestHead::default();
        }
        let keep = is_whole && matches!(block.request.body, Body::None);
        let content = answer::Content::Reason(Reason::Overloaded);
        answer::send(self, http, block, content, String::new(), keep, log).await
    }

    async fn refuse_head(
        &self,
        block: &mut Block,
        http: &HttpListener,
        fault: HeadFault,
        log: &mut Log,
    ) -> Next {
        let (reason, detail) = match fault {
            HeadFault::Gone => {
                log.finish_unanswered(Reason::ClientClosed);
                return Next::Close;
            }
            HeadFault::TimedOut => (Reason::HeaderTimeout, String::new()),
            HeadFault::Overloaded => (Reason::Overloaded, String::new()),
            HeadFault::Bad(error) => (decide::reason_of(error.kind()), error.to_string()),
        };
        block.request = RequestHead::default();
        answer::send(
            self,
            http,
            block,
            answer::Content::Reason(reason),
            detail,
            false,
            log,
        )
        .await
    }

    /// Refuses what came over HTTP/2 and is no request.
    async fn refuse_stream(&self, block: &mut Block, fault: Fault) -> Next {
        let (world, index) = self.listening.place(&self.worker);
        let Some(http) = http_of(&world, index) else {
            return Next::Close;
        };
        let mut log = Log::begin(&self.worker, &self.listening.name);
        log.texts().version = "HTTP/2";
        block.request = RequestHead::default();
        let content = answer::Content::Reason(fault.reason);
        answer::send(self, http, block, content, fault.detail, false, &mut log).await
    }

    async fn tunnel(&self, tunnel: Box<Tunnel>, mut block: Box<Block>) {
        let Tunnel {
            server,
            lease,
            idle,
            mut log,
        } = *tunnel;
        let first = (
            std::mem::take(&mut block.client_in),
            std::mem::take(&mut block.server_in),
        );
        self.worker.give_block(block);
        self.deadline.tag(lease.member.id);
        let times = TunnelTimes {
            idle,
            half_closed: idle,
            after_server: Some(AFTER_SERVER),
        };
        let (end, up, down) = relay::tunnel(
            &self.stream,
            &server.stream,
            first,
            times,
            &self.deadline,
            &self.worker.buffers,
        )
        .await;
        log.add_bytes(up, down);
        if matches!(end, TunnelEnd::Idle) {
            if lease.member.is_crashed() {
                log.note(Reason::ServerReset);
            } else if self.worker.cuts(&lease.member) {
                log.note(Reason::Draining);
            }
        }
        if !matches!(end, TunnelEnd::Finished) {
            self.stream.reset_on_close();
            server.stream.reset_on_close();
        }
    }

    async fn linger(&self) {
        relay::linger(&self.stream, &self.deadline, &self.worker.buffers).await;
    }
}

/// The client has ended the connection, or it failed.
struct Ended;

/// Why there is no head.
enum HeadFault {
    /// The client left.
    Gone,
    TimedOut,
    /// It takes more memory than the process can spare.
    Overloaded,
    Bad(RequestError),
}

fn http_of(world: &LocalWorld, index: usize) -> Option<&HttpListener> {
    match &world.world.snapshot.listeners.get(index)?.protocol {
        Protocol::Http(http) => Some(http),
        Protocol::Tcp(_) => None,
    }
}

#[cfg(test)]
mod tests;

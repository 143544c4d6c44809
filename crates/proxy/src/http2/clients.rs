//! One connection of a client that speaks HTTP/2: its task, and the tasks of its streams.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use config::{Http2ToClients, Protocol};
use control::reason::Reason;
use control::record::Record;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use rules::forward;
use wire::http1::Method;
use wire::http2::{Body, CONTROL_WINDOW, Flood, FrameWatch, PREFACE, Rate};

use super::io::{Carrier, Io};
use super::receive::Unread;
use super::served::{Parts, Served};
use super::{Passed, Piece, fields, websocket};
use crate::http1::{self, Fault};
use crate::listener::Listening;
use crate::net::{self, Deadline, Taken};
use crate::relay;
use crate::stream::Stream;
use crate::tls::About;
use crate::worker::{Active, Worker};

/// Marks the deadlines of HTTP/2 connections: all of them look up when a listener or the process drains.
pub(crate) const CONNECTION_TAG: u32 = u32::MAX - 2;
/// Frames that carry nothing, within [`CONTROL_WINDOW`].
const CONTROL_FRAMES_MAX: u32 = 10_000;
/// Streams that count for so much less than those that are given up at once. Those that h2 rejects cost little, and an honest
/// client may open too many before it knows how many it may; those that a server works on may be what a map no longer shows.
const LESSER_FACTOR: u32 = 10;
/// Bytes of a response that h2 holds for one stream while the socket is full.
const SEND_BUFFER_MAX: usize = 64 * 1024;
/// How long nothing may move at a connection's end, which the client has its part in.
const CLOSING: Duration = Duration::from_secs(2);
/// How often in that time it is looked whether the client has taken all.
const CLOSING_LOOKS: u32 = 20;

/// Whether these are the first bytes of HTTP/2 with prior knowledge (RFC 9113 §3.3). The rest of the preface is judged
/// later.
pub(crate) fn starts_http2(bytes: &[u8]) -> bool {
    const LINE: usize = b"PRI * HTTP/2.0\r\n".len();
    PREFACE
        .get(..LINE)
        .is_some_and(|line| bytes.starts_with(line))
}

/// Serves a client's connection until it ends. `first`: what was read already.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    stream: Stream,
    peer: Option<SocketAddr>,
    tls: Option<Rc<About>>,
    first: Vec<u8>,
) {
    let began = net::clock();
    let Some(limits) = Limits::of(&worker, &listening, peer) else {
        return;
    };
    let watch = FrameWatch::of_client(CONTROL_FRAMES_MAX);
    let unread = Rc::<Unread>::default();
    let carrier = Carrier::new(stream, first, watch, unread.clone());
    let resets_max = limits.http2.resets.unwrap_or(u32::MAX);
    let lesser_max = resets_max.saturating_mul(LESSER_FACTOR);
    let link = Rc::new(Link {
        carrier: Rc::downgrade(&carrier),
        worker,
        listening,
        peer,
        tls,
        unread,
        passed: Passed::default(),
        open: Cell::new(0),
        resets: RefCell::new(Rate::new(resets_max, CONTROL_WINDOW)),
        cancelled: RefCell::new(Rate::new(lesser_max, CONTROL_WINDOW)),
        resets_flood: Cell::new(false),
        waker: RefCell::new(Waker::noop().clone()),
    });
    let deadline = Deadline::new();
    deadline.tag(CONNECTION_TAG);
    let end = match shake(&limits, &carrier, &deadline).await {
        Err(end) => end,
        Ok(connection) => {
            let mut task = Task {
                link: link.clone(),
                carrier: carrier.clone(),
                pings: None,
                connection,
                deadline: &deadline,
                limits,
                waits: None,
                until: None,
                heard: 0,
                passed: 0,
                left: u64::MAX,
                asked: false,
                served: false,
                leaving: false,
                flood: None,
                accepted: 0,
                rejected: 0,
                rejections: Rate::new(lesser_max, CONTROL_WINDOW),
                finishing: None,
            };
            task.pings = task.connection.ping_pong();
            poll_fn(|cx| task.poll(cx)).await
        }
    };
    if let Some((reason, detail)) = end.reason() {
        link.report(began, reason, detail);
    }
    if !matches!(end, End::Gone) {
        deadline.tag(0);
        deadline.set(Some(CLOSING));
        let _ = deadline.guard(poll_fn(|cx| carrier.poll_flush(cx))).await;
        if matches!(end, End::Over) {
            until_taken(&link.worker, &carrier, &deadline).await;
        }
        relay::linger(carrier.stream(), &deadline, &link.worker.buffers).await;
    }
}

/// Waits while the client takes what the kernel holds for it: anything that it says once the socket is closed would have that
/// thrown away.
async fn until_taken(worker: &Rc<Worker>, carrier: &Carrier, deadline: &Deadline) {
    let mut left = carrier.left();
    if left == 0 {
        return;
    }
    let _finishing = Active::new(worker);
    let mut still = 0;
    while left > 0 && still < CLOSING_LOOKS {
        deadline.set(Some(CLOSING / CLOSING_LOOKS));
        let hung_up = deadline.guard(poll_fn(|cx| carrier.stream().poll_hung_up(cx)));
        if hung_up.await.is_ok() {
            return;
        }
        let before = std::mem::replace(&mut left, carrier.left());
        still = if left < before { 0 } else { still + 1 };
    }
}

/// How a connection ended.
enum End {
    /// Both sides have said all.
    Over,
    /// The client left, or does not answer.
    Gone,
    /// The client broke the protocol.
    Fault(String),
    Flood(Flood, String),
    /// Its preface did not come in time.
    TimedOut,
}

impl End {
    fn of(error: &h2::Error) -> Self {
        if error.is_io() {
            return Self::Gone;
        }
        if error.is_remote() || !error.is_go_away() {
            return Self::Over;
        }
        let detail = error.to_string();
        match error.reason() {
            Some(h2::Reason::ENHANCE_YOUR_CALM) if detail.contains("resets") => {
                Self::Flood(Flood::Resets, detail)
            }
            Some(h2::Reason::ENHANCE_YOUR_CALM) => Self::Flood(Flood::Control, detail),
            _ => Self::Fault(detail),
        }
    }

    fn reason(&self) -> Option<(Reason, String)> {
        match self {
            Self::Over | Self::Gone => None,
            Self::Fault(detail) => Some((Reason::Http2Error, detail.clone())),
            Self::Flood(flood, detail) if detail.is_empty() => {
                Some((Reason::Http2Flood, flood.to_string()))
            }
            Self::Flood(flood, detail) => Some((Reason::Http2Flood, format!("{flood}: {detail}"))),
            Self::TimedOut => Some((Reason::HeaderTimeout, "no HTTP/2 preface".to_owned())),
        }
    }
}

/// What the config says of a connection, as it was when that began.
struct Limits {
    http2: Http2ToClients,
    head_bytes: usize,
    /// Until the first request.
    header: Option<Duration>,
    keep_alive: Option<Duration>,
    websockets: bool,
}

impl Limits {
    fn of(worker: &Worker, listening: &Listening, peer: Option<SocketAddr>) -> Option<Self> {
        let (world, index) = listening.place(worker);
        let listener = world.world.snapshot.listeners.get(index)?;
        let Protocol::Http(http) = &listener.protocol else {
            return None;
        };
        let mut http2 = http.http2.clone()?;
        let trusted = |peer: SocketAddr| {
            forward::is_trusted(peer.ip().to_canonical(), &listener.trusted_proxies)
        };
        if peer.is_some_and(trusted) {
            // It brings what many clients give up.
            http2.resets = None;
        }
        Some(Self {
            http2,
            head_bytes: http.limits.header_bytes,
            header: http.timeouts.header,
            keep_alive: http.timeouts.keep_alive,
            websockets: !http.upgrades.is_empty(),
        })
    }
}

/// Waits for the client's preface.
async fn shake(
    limits: &Limits,
    carrier: &Rc<Carrier>,
    deadline: &Deadline,
) -> Result<Connection<Io, Piece>, End> {
    let http2 = &limits.http2;
    let mut builder = Builder::new();
    // Twice what a head may hold, so that one that is a little too large is answered, counted and logged as in HTTP/1.
    let list_max = limits.head_bytes.saturating_mul(2).max(16 * 1024);
    builder
        .max_concurrent_streams(http2.streams)
        .initial_window_size(http2.stream_window)
        .initial_connection_window_size(http2.connection_window)
        .max_header_list_size(u32::try_from(list_max).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER_MAX)
        // It counts over the whole life of a connection: `Link::count_reset` does over a time.
        .max_local_error_reset_streams(None)
        // Small pieces are gathered; it counts those of streams that were given up, too, over the whole life.
        .data_frame_budget(usize::MAX);
    if let Some(resets) = http2.resets {
        let resets = usize::try_from(resets).unwrap_or(usize::MAX);
        builder.max_pending_accept_reset_streams(resets);
    }
    if limits.websockets {
        builder.enable_connect_protocol();
    }
    let mut shaking = pin!(builder.handshake::<Io, Piece>(Io::new(carrier)));
    deadline.set(limits.header);
    let shaken = deadline.guard(poll_fn(|cx| {
        carrier.begin();
        let shaken = shaking.as_mut().poll(cx);
        match carrier.poll_flush(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(Err(End::Gone)),
            _ => shaken.map_err(|error| End::of(&error)),
        }
    }));
    match shaken.await {
        Ok(shaken) => shaken,
        Err(net::Elapsed) => Err(End::TimedOut),
    }
}

/// What a connection and its streams share.
pub(super) struct Link {
    carrier: Weak<Carrier>,
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    peer: Option<SocketAddr>,
    /// What the handshake told of the client, where the connection is one of TLS.
    tls: Option<Rc<About>>,
    /// Bodies that have come and wait in h2.
    unread: Rc<Unread>,
    /// Bodies that have gone.
    passed: Passed,
    /// Streams that are being served.
    open: Cell<u32>,
    /// Streams that were given up by the client, or made to fail.
    resets: RefCell<Rate>,
    /// Those that were given up while a server worked on them.
    cancelled: RefCell<Rate>,
    resets_flood: Cell<bool>,
    /// The connection's task.
    waker: RefCell<Waker>,
}

impl Link {
    fn is_leaving(&self) -> bool {
        self.worker.draining.get() || self.listening.is_gone()
    }

    /// Where a stream has counted what waits to be read of it.
    pub(super) fn unread(&self) -> &Rc<Unread> {
        &self.unread
    }

    /// How far the client has come with what its streams have given h2.
    pub(super) fn taken(&self) -> Taken {
        let streams = usize::try_from(self.open.get()).unwrap_or(usize::MAX);
        let ahead = streams.saturating_mul(SEND_BUFFER_MAX);
        let carrier = self.carrier.upgrade();
        carrier.map_or(Taken::NOTHING, |carrier| carrier.taken(ahead))
    }

    /// What its streams' bodies are counted in.
    pub(super) fn passed(&self) -> Passed {
        self.passed.clone()
    }

    fn wake(&self) {
        self.waker.borrow().wake_by_ref();
    }

    /// A client gave a stream up, or made it fail.
    pub(super) fn count_reset(&self) {
        self.count(&self.resets);
    }

    /// A client gave a stream up while its request was served.
    pub(super) fn count_cancelled(&self) {
        self.count(&self.cancelled);
    }

    fn count(&self, rate: &RefCell<Rate>) {
        if rate.borrow_mut().count(1, net::now()) && !self.resets_flood.replace(true) {
            self.wake();
        }
    }

    fn report(&self, began: Duration, reason: Reason, detail: String) {
        self.worker.count_error(reason);
        if !self.worker.logs() {
            return;
        }
        let took = net::clock().saturating_sub(began);
        self.worker.record(Record {
            wall: self.worker.wall().saturating_sub(took),
            took,
            listener: self.listening.name.clone(),
            route: None,
            server: None,
            source: self.peer.map(|peer| peer.ip().to_canonical()),
            method: String::new(),
            target: String::new(),
            host: String::new(),
            version: "HTTP/2",
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            reason: Some(reason),
            tries: 0,
            affinity: None,
            grpc: None,
            failed: Vec::new(),
            waited: Duration::ZERO,
            request_id: String::new(),
            user_agent: String::new(),
            detail,
        });
    }
}

/// What a connection waits for beside frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// The first request, or the next one.
    Request,
    /// Any sign of life while streams are open.
    Life,
    /// The answer to a ping.
    Pong,
    /// The client's part of the end.
    End,
}

/// The task of one connection.
struct Task<'a> {
    link: Rc<Link>,
    carrier: Rc<Carrier>,
    connection: Connection<Io, Piece>,
    pings: Option<PingPong>,
    deadline: &'a Deadline,
    limits: Limits,
    /// What the deadline is set for, and until when.
    waits: Option<Waits>,
    until: Option<Duration>,
    /// Bytes received when the deadline was set.
    heard: u64,
    /// What of answers had gone by the time that it was looked last, and the least that was then left to be taken.
    passed: u64,
    left: u64,
    /// A ping is on its way.
    asked: bool,
    /// A request has come.
    served: bool,
    /// The client was told that no further request is taken.
    leaving: bool,
    flood: Option<Flood>,
    /// Streams that became tasks, those that h2 has rejected, and how many of these there are of late.
    accepted: u64,
    rejected: u64,
    rejections: Rate,
    /// While what streams have left behind may be on its way: the process must not end before it is there.
    finishing: Option<Active>,
}

impl Task<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        {
            let mut waker = self.link.waker.borrow_mut();
            if !waker.will_wake(cx.waker()) {
                waker.clone_from(cx.waker());
            }
        }
        loop {
            self.carrier.begin();
            if let Some(end) = self.accept(cx) {
                return Poll::Ready(self.end(end));
            }
            if self.begin_end() {
                continue;
            }
            match self.poll_deadline(cx) {
                Poll::Ready(Some(end)) => return Poll::Ready(end),
                Poll::Ready(None) => {}
                Poll::Pending => break,
            }
        }
        match self.carrier.poll_flush(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(End::Gone),
            _ => Poll::Pending,
        }
    }

    /// Lets h2 work, and starts what came; says how the connection ended, if it has.
    fn accept(&mut self, cx: &mut Context<'_>) -> Option<End> {
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.served = true;
                    self.accepted += 1;
                    self.link.open.set(self.link.open.get() + 1);
                    let open = OpenStream(self.link.clone());
                    net::spawn(serve_stream(open, request, respond));
                }
                Poll::Ready(Some(Err(error))) => return Some(End::of(&error)),
                Poll::Ready(None) => return Some(End::Over),
                Poll::Pending => break,
            }
        }
        self.count_rejected();
        self.link.unread.gather();
        None
    }

    /// Counts streams that h2 has answered with a reset by itself: what it was sent is no request, or there were too many.
    fn count_rejected(&mut self) {
        let rejected = self.carrier.opened().saturating_sub(self.accepted);
        let more = u32::try_from(rejected.saturating_sub(self.rejected)).unwrap_or(u32::MAX);
        if more > 0 {
            self.rejected = rejected;
            if self.rejections.count(more, net::now()) {
                self.link.resets_flood.set(true);
            }
        }
    }

    fn end(&self, end: End) -> End {
        match self.flood {
            Some(flood) => End::Flood(flood, String::new()),
            None => end,
        }
    }

    /// Begins to end the connection, when that is due; true when h2 has something to say of it.
    fn begin_end(&mut self) -> bool {
        let resets = self.link.resets_flood.get().then_some(Flood::Resets);
        if self.flood.is_none()
            && let Some(flood) = self.carrier.flood().or(resets)
        {
            self.flood = Some(flood);
            self.connection
                .abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            return true;
        }
        if !self.leaving && self.link.is_leaving() {
            self.leave();
            return true;
        }
        false
    }

    /// Tells the client to send no further requests, and that after a round trip with the last one that counts
    /// (RFC 9113 §6.8).
    fn leave(&mut self) {
        self.leaving = true;
        self.connection.graceful_shutdown();
    }

    /// Pending when all is as it should be; else how the connection ends, or that h2 has something to say.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        if self.asked
            && let Some(pings) = &mut self.pings
            && pings.poll_pong(cx).is_ready()
        {
            self.asked = false;
            self.waits = None;
        }
        let due = match (self.link.open.get(), self.leaving || self.flood.is_some()) {
            (0, true) => Waits::End,
            (0, false) => Waits::Request,
            _ if self.asked => Waits::Pong,
            _ => Waits::Life,
        };
        if self.waits != Some(due) {
            self.wait_for(due);
        }
        if self.deadline.poll(cx).is_pending() {
            return Poll::Pending;
        }
        // All connections may have been made to look up, for other reasons.
        let is_over = self.until.is_some_and(|until| until <= net::now());
        let over = self.waits.take().filter(|_| is_over);
        let is_heard = self.carrier.received() != self.heard;
        match over {
            Some(Waits::Request) => {
                self.leave();
                Poll::Ready(None)
            }
            // What streams have left behind may still be on its way.
            Some(Waits::End) if !self.have_answers_gone() => Poll::Ready(Some(End::Over)),
            Some(Waits::End) => {
                self.set_deadline(Waits::End);
                Poll::Ready(None)
            }
            // It may lie behind what the client is slow to read.
            Some(Waits::Pong) if !is_heard && !self.have_answers_gone() => {
                Poll::Ready(Some(End::Gone))
            }
            Some(Waits::Life) if !is_heard => {
                let ping = self.pings.as_mut().map(|it| it.send_ping(Ping::opaque()));
                self.asked = matches!(ping, Some(Ok(())));
                Poll::Ready(None)
            }
            _ => Poll::Ready(None),
        }
    }

    /// Whether anything of answers has gone since this was asked last. Whatever else a client says, and is answered, keeps
    /// no connection from its end.
    fn have_answers_gone(&mut self) -> bool {
        let (passed, left) = (self.link.passed.get(), self.carrier.left());
        let have_gone = passed != self.passed || left < self.left;
        self.passed = passed;
        self.left = self.left.min(left);
        have_gone
    }

    fn wait_for(&mut self, what: Waits) {
        self.heard = self.carrier.received();
        if matches!(what, Waits::Pong | Waits::End) {
            self.left = u64::MAX;
            self.have_answers_gone();
        }
        let finishes = what == Waits::End && self.flood.is_none();
        self.finishing = finishes.then(|| Active::new(&self.link.worker));
        self.set_deadline(what);
    }

    fn set_deadline(&mut self, what: Waits) {
        self.waits = Some(what);
        let http2 = &self.limits.http2;
        let wait = match what {
            Waits::Request if !self.served => self.limits.header,
            Waits::Request => self.limits.keep_alive,
            Waits::Life => http2.ping_after,
            Waits::Pong => Some(http2.ping_timeout),
            Waits::End => Some(CLOSING),
        };
        self.until = wait.map(|wait| net::now().saturating_add(wait));
        // A drain may have made it fire, and taken its tag.
        self.deadline.tag(CONNECTION_TAG);
        self.deadline.set_at(self.until);
    }
}

/// One stream that is being served.
struct OpenStream(Rc<Link>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        let open = &self.0.open;
        open.set(open.get().saturating_sub(1));
        if open.get() == 0 {
            self.0.wake();
        }
    }
}

/// Serves one stream: its request is one of HTTP/1 from here on.
async fn serve_stream(
    open: OpenStream,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Piece>,
) {
    let link = &open.0;
    let given_up = poll_fn(|cx| Poll::Ready(respond.poll_reset(cx).is_ready())).await;
    if given_up {
        link.count_reset();
        return;
    }
    let (head, body) = request.into_parts();
    let mut block = link.worker.take_bare_block();
    let write = |out: &mut Vec<u8>| {
        let encoded = fields::request(out, &head, &body);
        let accept = (encoded == Ok(Body::Tunnel)).then(|| {
            let protocol = head.extensions.get::<h2::ext::Protocol>();
            let protocol = protocol.map_or("", |protocol| protocol.as_str());
            let random = [link.worker.random(), link.worker.random()];
            websocket::finish(out, protocol.as_bytes(), random)
        });
        (encoded, accept)
    };
    let (encoded, accept) = block.take_head(write, |(encoded, _)| {
        let is_alone = matches!(encoded, Ok(Body::None));
        (!is_alone).then(|| link.worker.buffers.take())
    });
    let stream = Served::new(Parts {
        body,
        respond,
        framing: encoded.unwrap_or(Body::None),
        method: match encoded {
            // What the server is asked.
            Ok(Body::Tunnel) => Method::Get,
            _ => Method::of(head.method.as_str().as_bytes()),
        },
        accept,
        link: link.clone(),
    });
    drop(head.headers);
    let fault = encoded.err().map(|fault| Fault {
        reason: match fault.is_framing() {
            true => Reason::BadFraming,
            false => Reason::BadRequest,
        },
        detail: fault.to_string(),
    });
    let (worker, listening) = (link.worker.clone(), link.listening.clone());
    let (stream, tls) = (Stream::from(stream), link.tls.clone());
    http1::serve_stream(worker, listening, stream, link.peer, tls, block, fault).await;
}

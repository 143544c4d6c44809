//! One connection to a server over HTTP/2, and the task that keeps it going.
//!
//! Requests are opened on it by [`super::exchange`]; which connection a request gets is [`super::Connections`]'. What other
//! workers see of it is [`Shared`].

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use config::Http2;
use control::live::Member;
use control::outcome::NoConnection;
use h2::client::{Builder, Connection as Http2Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use wire::http1::RequestHead;
use wire::http2::FrameWatch;

use super::super::io::{Carrier, Io};
use super::super::receive::Unread;
use super::super::{Passed, Piece};
use super::Wanted;
use super::shared::{Claim, Places, Shared};
use crate::net::{self, Deadline, Taken};
use crate::tls::ClientTls;
use crate::upstream::{self, ServerStream};
use crate::worker::Worker;

/// What a stream may have on its way to us that its reader has not taken. That of the connection is as much for each of
/// its streams, so that readers who take nothing hold up nobody else.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What a stream may have on its way to the server that the connection has not sent.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of a response's head and of its trailers.
const HEAD_BYTES: u32 = 64 * 1024;
/// Streams that were given up whose late frames are known to be theirs.
const FORGOTTEN_MAX: usize = 1000;
/// What the log says of servers that were reached, and speak something else.
const NO_HTTP2: &str = "TLS: the server speaks no HTTP/2";
const NO_GREETING: &str = "the server ended the connection before it spoke HTTP/2";

/// Where a connection stands.
enum State {
    /// Until the server's first words.
    Opening,
    Open,
    /// It takes no further request, and ends when those that it has are over.
    Leaving,
    /// Another worker keeps it going.
    Lent,
    Failed(NoConnection),
    /// The server has chosen HTTP/1.1; the connection, until a request takes it.
    Http1(Option<ServerStream>),
    Gone,
}

/// What its task is to do next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Nothing,
    Ping,
    /// End at once, whatever runs on it.
    Cut,
}

/// One connection to a server: a worker's own, or what it uses of another's for one request.
pub(super) struct Connection {
    pub(super) member: Arc<Member>,
    pub(super) shared: Arc<Shared>,
    /// Whether another worker keeps it going.
    is_lent: bool,
    state: RefCell<State>,
    /// As the pool that used it last has them.
    settings: Cell<Http2>,
    keep_alive: Cell<Duration>,
    /// Requests that wait until it is open.
    reserved: Cell<u32>,
    pinged_at: Cell<Duration>,
    order: Cell<Order>,
    task: RefCell<Option<Waker>>,
    /// Once it is open.
    carrier: RefCell<Weak<Carrier>>,
    /// Who waits until it is open.
    waiting: RefCell<Vec<Waker>>,
    pub(super) scratch: RefCell<RequestHead>,
    /// Bodies that have come and wait in h2.
    unread: Rc<Unread>,
    passed: Passed,
}

impl Connection {
    pub(super) fn new(wanted: &Wanted<'_>, places: Arc<Places>) -> Rc<Self> {
        let shared = Shared::new(wanted.transport(), places);
        Self::of(wanted, shared, State::Opening)
    }

    /// Another worker's, of which a place was claimed.
    pub(super) fn lent(wanted: &Wanted<'_>, shared: Arc<Shared>) -> Rc<Self> {
        Self::of(wanted, shared, State::Lent)
    }

    fn of(wanted: &Wanted<'_>, shared: Arc<Shared>, state: State) -> Rc<Self> {
        let is_lent = matches!(state, State::Lent);
        let passed = if is_lent {
            Passed::elsewhere()
        } else {
            Passed::default()
        };
        Rc::new(Self {
            member: wanted.member.clone(),
            shared,
            is_lent,
            state: RefCell::new(state),
            settings: Cell::new(wanted.http2),
            keep_alive: Cell::new(wanted.keep_alive),
            reserved: Cell::new(0),
            pinged_at: Cell::default(),
            order: Cell::new(Order::Nothing),
            task: RefCell::default(),
            carrier: RefCell::default(),
            waiting: RefCell::default(),
            scratch: RefCell::default(),
            unread: Rc::default(),
            passed,
        })
    }

    /// Whether its server is spoken to through TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.shared.transport != 0
    }

    /// Where a stream has counted what waits to be read of it.
    pub(super) fn unread(&self) -> &Rc<Unread> {
        &self.unread
    }

    /// What its requests' bodies are counted in.
    pub(super) fn passed(&self) -> Passed {
        self.passed.clone()
    }

    /// Takes up what the pool now says of its connections.
    pub(super) fn adopt(&self, wanted: &Wanted<'_>) {
        self.settings.set(wanted.http2);
        self.keep_alive.set(wanted.keep_alive);
    }

    /// Whether requests may wait for it to open.
    pub(super) fn is_opening(&self) -> bool {
        matches!(*self.state.borrow(), State::Opening)
            && self.reserved.get() < self.settings.get().streams
    }

    /// Whether it is open, though it may be full.
    pub(super) fn is_open(&self) -> bool {
        matches!(*self.state.borrow(), State::Open)
    }

    /// Has it be taken for one that refuses requests, until it answers one.
    pub(super) fn tire(&self) {
        self.shared.set_tired(true);
    }

    /// A request was answered on it.
    pub(super) fn note_answered(&self) {
        self.shared.set_tired(false);
    }

    /// A place for one more request, which counts as the first one of its connection if `fresh`; `None`: it has none
    /// now, or takes no further one.
    pub(super) fn claim(self: &Rc<Self>, fresh: bool) -> Option<Place> {
        if !self.is_open() {
            return None;
        }
        match self.shared.claim() {
            Claim::Taken => Some(Place::claimed(self.clone(), fresh)),
            Claim::Full => None,
            Claim::Ended => {
                self.leave();
                None
            }
        }
    }

    /// Ready when it is open, with why it is not when it has failed.
    pub(super) fn poll_opened(&self, cx: &mut Context<'_>) -> Poll<Result<(), NoConnection>> {
        match &*self.state.borrow() {
            State::Opening => {
                self.waiting.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            }
            State::Failed(why) => Poll::Ready(Err(*why)),
            State::Gone => Poll::Ready(Err(NoConnection::Handshake)),
            State::Open | State::Lent | State::Leaving | State::Http1(_) => Poll::Ready(Ok(())),
        }
    }

    /// Where the server has chosen HTTP/1.1: the connection, if nobody has taken it.
    pub(super) fn take_http1(&self) -> Option<Option<ServerStream>> {
        match &mut *self.state.borrow_mut() {
            State::Http1(server) => Some(server.take()),
            _ => None,
        }
    }

    fn wake_waiting(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// When the server has left, or the request is none that h2 sends: `None`, or why.
    pub(super) fn open(
        &self,
        request: http::Request<()>,
        ended: bool,
    ) -> Result<(ResponseFuture, SendStream<Piece>), Option<h2::Error>> {
        let opened = self.shared.open(request, ended);
        if matches!(opened, Err(None)) && !self.is_lent {
            self.leave();
        }
        opened
    }

    /// How far the server has come with what requests have given h2.
    pub(super) fn taken(&self) -> Taken {
        if self.is_lent {
            return self.shared.taken();
        }
        let streams = usize::try_from(self.shared.streams()).unwrap_or(usize::MAX);
        let ahead = streams.saturating_mul(SEND_BUFFER_BYTES);
        let carrier = self.carrier.borrow().upgrade();
        carrier.map_or(Taken::NOTHING, |carrier| carrier.taken(ahead))
    }

    /// Takes no further request.
    pub(super) fn leave(&self) {
        if self.is_open() {
            *self.state.borrow_mut() = State::Leaving;
            // What h2 does when nobody can ask for anything more: it says GOAWAY, and closes.
            self.shared.close();
            self.wake_waiting();
            self.poke();
        }
    }

    /// The same if it has no request; whether it had none.
    pub(super) fn leave_idle(&self) -> bool {
        let is_idle = self.idle_since().is_some() && self.shared.close_idle();
        if is_idle {
            self.leave();
        }
        is_idle
    }

    /// Ends at once.
    pub(super) fn cut(&self) {
        self.order.set(Order::Cut);
        self.poke();
    }

    /// When it had its last request, if it has none now and is open.
    pub(super) fn idle_since(&self) -> Option<Duration> {
        (self.is_open() && self.shared.streams() == 0 && self.reserved.get() == 0)
            .then(|| self.shared.used_at())
    }

    /// Called about once a second: what is idle for too long ends, and a server that is silent for too long is asked.
    pub(super) fn sweep(&self, now: Duration) {
        let over = |since: Duration, after: Duration| since.saturating_add(after) <= now;
        if !self.member.keeps_idle() {
            self.leave();
        }
        if self
            .idle_since()
            .is_some_and(|since| over(since, self.keep_alive.get()))
        {
            self.leave_idle();
        }
        let Http2 {
            ping_after,
            ping_timeout,
            ..
        } = self.settings.get();
        if self.shared.is_pinged() {
            if over(self.pinged_at.get(), ping_timeout) {
                self.cut();
            }
        } else if let Some(after) = ping_after
            && let Some(since) = self.shared.unheard_since()
            && self.shared.streams() > 0
            && over(since, after)
        {
            self.shared.note_pinged();
            self.pinged_at.set(now);
            self.order.set(Order::Ping);
            self.poke();
        }
        if self.shared.streams() > 0 {
            self.shared.note_taken(self.taken());
        }
    }

    fn poke(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    fn become_state(&self, next: State) {
        let before = self.state.replace(next);
        drop(before);
        self.wake_waiting();
    }
}

/// A request's place on a connection, until it is released or dropped.
pub(super) struct Place {
    pub(super) connection: Rc<Connection>,
    /// It is the first request of its connection, or one that asked for a new one.
    pub(super) fresh: bool,
    is_held: Cell<bool>,
}

impl Place {
    /// One that was claimed already.
    pub(super) fn claimed(connection: Rc<Connection>, fresh: bool) -> Self {
        let is_first = connection.shared.is_first();
        Self {
            connection,
            fresh: fresh || is_first,
            is_held: Cell::new(true),
        }
    }

    /// The request is over, though its answer may still be read.
    pub(super) fn release(&self) {
        if self.is_held.replace(false) {
            self.connection.shared.release();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.release();
    }
}

/// A request that waits until a connection is open.
pub(super) struct Reserved<'a>(&'a Connection);

impl<'a> Reserved<'a> {
    pub(super) fn on(connection: &'a Connection) -> Self {
        let reserved = &connection.reserved;
        reserved.set(reserved.get().saturating_add(1));
        Self(connection)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let reserved = &self.0.reserved;
        reserved.set(reserved.get().saturating_sub(1));
        self.0.shared.note_used();
    }
}

/// What a connection is made of.
pub(super) struct Opening {
    pub(super) until: Option<Duration>,
    pub(super) tls: Option<Arc<ClientTls>>,
    /// What stands already, and has chosen HTTP/2.
    pub(super) connected: Option<ServerStream>,
}

/// Why there is no line.
enum Unopened {
    Failed(NoConnection),
    Http1(ServerStream),
}

impl From<NoConnection> for Unopened {
    fn from(why: NoConnection) -> Self {
        Self::Failed(why)
    }
}

/// Takes the connection out of its worker's however its task ends.
struct Registered {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.http2.forget(&self.connection);
        let told = matches!(
            *self.connection.state.borrow(),
            State::Failed(_) | State::Http1(_)
        );
        if !told {
            self.connection.become_state(State::Gone);
        }
        let shared = &self.connection.shared;
        shared.close();
        shared.places().remove(shared);
    }
}

/// Opens a connection and keeps it going until it ends.
pub(super) async fn run(worker: Rc<Worker>, connection: Rc<Connection>, opening: Opening) {
    let registered = Registered {
        worker: worker.clone(),
        connection: connection.clone(),
    };
    let opened = open(&worker, &connection, opening).await;
    match opened {
        Err(Unopened::Failed(why)) => connection.become_state(State::Failed(why)),
        Err(Unopened::Http1(server)) => connection.become_state(State::Http1(Some(server))),
        Ok(mut line) => {
            poll_fn(|cx| line.poll(&connection, cx)).await;
            if connection.order.get() == Order::Cut {
                line.carrier.stream().reset_on_close();
            }
        }
    }
    drop(registered);
}

/// A connection that is open.
struct Line {
    http2: Http2Connection<Io, Piece>,
    carrier: Rc<Carrier>,
    pings: Option<PingPong>,
    /// Bytes that had come when it was looked last.
    received: u64,
    /// Counts the socket.
    _socket: upstream::Socket,
}

async fn open(
    worker: &Worker,
    connection: &Connection,
    opening: Opening,
) -> Result<Line, Unopened> {
    let Opening {
        until,
        tls,
        connected,
    } = opening;
    let member = &connection.member;
    let deadline = Deadline::new();
    deadline.tag(member.id);
    let tls = tls.as_ref();
    let server = match connected {
        Some(server) => server,
        None => upstream::connect(worker, member, until, &deadline, tls, true).await?,
    };
    if tls.is_some() {
        let chosen = server.stream.speaks_http2();
        if connection.settings.get().auto {
            worker.note_chosen(member, chosen);
            if !chosen {
                return Err(Unopened::Http1(server));
            }
        } else if !chosen {
            worker.unshaken.note(member, NO_HTTP2);
            return Err(NoConnection::Handshake.into());
        }
    }
    // In this order, so that what is left early is closed before it is not counted any more.
    let (socket, stream) = server.into_parts();
    let watch = FrameWatch::of_server();
    let carrier = Carrier::new(stream, Vec::new(), watch, connection.unread.clone());
    let streams = connection.settings.get().streams;
    let builder = builder(streams);
    deadline.set_at(until);
    let spoken = deadline.guard(greet(&builder, &carrier)).await;
    match spoken {
        Ok(Some((send, mut http2))) => {
            let pings = http2.ping_pong();
            let received = carrier.received();
            connection.carrier.replace(Rc::downgrade(&carrier));
            connection.shared.begin(send);
            connection.become_state(State::Open);
            Ok(Line {
                http2,
                carrier,
                pings,
                received,
                _socket: socket,
            })
        }
        Err(net::Elapsed) if !member.is_crashed() => Err(NoConnection::TimedOut.into()),
        Err(net::Elapsed) => {
            worker.report_refused(member);
            Err(NoConnection::Refused.into())
        }
        Ok(None) => {
            let refusal = carrier.stream().refusal();
            worker
                .unshaken
                .note(member, refusal.as_deref().unwrap_or(NO_GREETING));
            Err(NoConnection::Handshake.into())
        }
    }
}

fn builder(streams: u32) -> Builder {
    let window = STREAM_WINDOW.saturating_mul(streams).min(i32::MAX as u32);
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(window)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEAD_BYTES)
        // Small pieces are gathered; it counts those of streams that were given up, too, and for as long as it lives.
        .data_frame_budget(usize::MAX)
        // What a server still sends of a stream that was given up is not its fault, and such streams come for as long as
        // the connection lives.
        .max_local_error_reset_streams(None)
        .max_concurrent_reset_streams(FORGOTTEN_MAX)
        // Until the server has said how many it wants: see `greet`.
        .initial_max_send_streams(0);
    builder
}

/// Speaks first, and waits for the server's settings: from then on it is known to speak HTTP/2, how many streams it
/// takes, and whether WebSockets. Until then nothing of a request was sent. `None`: it came to nothing.
async fn greet(
    builder: &Builder,
    carrier: &Rc<Carrier>,
) -> Option<(SendRequest<Piece>, Http2Connection<Io, Piece>)> {
    let (send, mut http2) = {
        let mut handshake = pin!(builder.handshake::<_, Piece>(Io::new(carrier)));
        let made = poll_fn(|cx| {
            carrier.begin();
            let made = handshake.as_mut().poll(cx);
            match carrier.poll_flush(cx) {
                Poll::Ready(Err(_)) => Poll::Ready(None),
                _ => made.map(Result::ok),
            }
        });
        made.await?
    };
    poll_fn(|cx| {
        carrier.begin();
        let polled = Pin::new(&mut http2).poll(cx);
        let flushed = carrier.poll_flush(cx);
        if polled.is_ready() || matches!(flushed, Poll::Ready(Err(_))) {
            return Poll::Ready(None);
        }
        if send.current_max_send_streams() > 0 {
            return Poll::Ready(Some(()));
        }
        Poll::Pending
    })
    .await?;
    Some((send, http2))
}

impl Line {
    /// Ready when it has ended.
    fn poll(&mut self, connection: &Connection, cx: &mut Context<'_>) -> Poll<()> {
        if connection.task.borrow().is_none() {
            *connection.task.borrow_mut() = Some(cx.waker().clone());
        }
        match connection.order.get() {
            Order::Cut => return Poll::Ready(()),
            Order::Ping => {
                connection.order.set(Order::Nothing);
                if let Some(pings) = &mut self.pings {
                    // One may still be under way.
                    let _ = pings.send_ping(Ping::opaque());
                }
            }
            Order::Nothing => {}
        }
        self.carrier.begin();
        let ended = Pin::new(&mut self.http2).poll(cx);
        connection.unread.gather();
        let flushed = self.carrier.poll_flush(cx);
        if let Some(pings) = &mut self.pings {
            let _ = pings.poll_pong(cx);
        }
        let received = self.carrier.received();
        if received != self.received {
            self.received = received;
            connection.shared.note_heard();
            self.note_taken_some(connection);
            // The server may want more requests than before.
            connection.shared.places().call_first();
        }
        if matches!(flushed, Poll::Ready(Err(_))) {
            self.hear_out(cx);
            self.note_taken_some(connection);
            return Poll::Ready(());
        }
        ended.map(drop)
    }

    fn note_taken_some(&self, connection: &Connection) {
        if self.carrier.has_taken_some() {
            connection.shared.note_taken_some();
        }
    }

    /// Nothing can be written any more. What the server has said before may tell which requests it did not take.
    #[cold]
    fn hear_out(&mut self, cx: &mut Context<'_>) {
        self.carrier.stop_writing();
        self.carrier.begin();
        let _ = Pin::new(&mut self.http2).poll(cx);
    }
}

//! One connection to a server over HTTP/2, and the task that keeps it going.
//!
//! Requests are opened on it by [`super::exchange`]; which connection a request gets is [`super::Connections`]'.

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

/// Where a connection stands.
enum State {
    /// Until the server's first words.
    Opening,
    Open(SendRequest<Piece>),
    /// It takes no further request, and ends when those that it has are over.
    Leaving,
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

/// One connection of a worker to a server.
pub(super) struct Connection {
    pub(super) member: Arc<Member>,
    /// The number of the TLS that it was made under; 0: plain.
    pub(super) transport: u32,
    state: RefCell<State>,
    /// As the pool that used it last has them.
    settings: Cell<Http2>,
    keep_alive: Cell<Duration>,
    /// Requests on it.
    streams: Cell<u32>,
    /// Requests that wait until it is open.
    reserved: Cell<u32>,
    /// Whether it ever had a request.
    carried: Cell<bool>,
    /// Whether a request on it was refused: whoever asks for a new one gets another.
    tired: Cell<bool>,
    /// When it had a request last.
    used_at: Cell<Duration>,
    /// Since when the server was sent something and has said nothing.
    unheard_since: Cell<Option<Duration>>,
    pinged_at: Cell<Option<Duration>>,
    order: Cell<Order>,
    task: RefCell<Option<Waker>>,
    /// Once it is open.
    carrier: RefCell<Weak<Carrier>>,
    /// A request has been charged to its server for its end.
    charged: Cell<bool>,
    /// Who waits until it is open, or for a place on it.
    waiting: RefCell<Vec<Waker>>,
    pub(super) scratch: RefCell<RequestHead>,
    /// Bodies that have come and wait in h2.
    unread: Rc<Unread>,
    passed: Passed,
}

impl Connection {
    pub(super) fn new(wanted: &Wanted<'_>) -> Rc<Self> {
        Rc::new(Self {
            member: wanted.member.clone(),
            transport: wanted.transport(),
            state: RefCell::new(State::Opening),
            settings: Cell::new(wanted.http2),
            keep_alive: Cell::new(wanted.keep_alive),
            streams: Cell::new(0),
            reserved: Cell::new(0),
            carried: Cell::new(false),
            tired: Cell::new(false),
            used_at: Cell::new(net::now()),
            unheard_since: Cell::new(None),
            pinged_at: Cell::new(None),
            order: Cell::new(Order::Nothing),
            task: RefCell::default(),
            carrier: RefCell::default(),
            charged: Cell::new(false),
            waiting: RefCell::default(),
            scratch: RefCell::default(),
            unread: Rc::default(),
            passed: Passed::default(),
        })
    }

    /// Whether its server is spoken to through TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.transport != 0
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
        matches!(*self.state.borrow(), State::Open(_))
    }

    pub(super) fn is_tired(&self) -> bool {
        self.tired.get()
    }

    /// Has it be taken for one that refuses requests, until it answers one.
    pub(super) fn tire(&self) {
        self.tired.set(true);
    }

    /// A request was answered on it.
    pub(super) fn note_answered(&self) {
        self.tired.set(false);
    }

    /// Whether a request can be opened on it now.
    pub(super) fn has_room(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let State::Open(send) = &mut *state else {
            return false;
        };
        // A server that has sent GOAWAY, and a connection without further stream numbers.
        let usable = send.poll_ready(&mut Context::from_waker(Waker::noop()));
        if !matches!(usable, Poll::Ready(Ok(()))) {
            *state = State::Leaving;
            return false;
        }
        let wanted = usize::try_from(self.settings.get().streams).unwrap_or(usize::MAX);
        let max = wanted.min(send.current_max_send_streams());
        // One that does not answer gets no more until it does.
        self.pinged_at.get().is_none()
            && usize::try_from(self.streams.get()).unwrap_or(usize::MAX) < max
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
            State::Open(_) | State::Leaving | State::Http1(_) => Poll::Ready(Ok(())),
        }
    }

    /// Where the server has chosen HTTP/1.1: the connection, if nobody has taken it.
    pub(super) fn take_http1(&self) -> Option<Option<ServerStream>> {
        match &mut *self.state.borrow_mut() {
            State::Http1(server) => Some(server.take()),
            _ => None,
        }
    }

    /// Ready when it has a place, or will never have one again.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_room() || !self.is_open() {
            return Poll::Ready(());
        }
        self.waiting.borrow_mut().push(cx.waker().clone());
        Poll::Pending
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
        let mut send = match &*self.state.borrow() {
            State::Open(send) => send.clone(),
            _ => return Err(None),
        };
        match send.send_request(request, ended) {
            Ok(opened) => {
                self.note_sent();
                Ok(opened)
            }
            Err(error) => {
                let mut waker = Context::from_waker(Waker::noop());
                if matches!(send.poll_ready(&mut waker), Poll::Ready(Ok(()))) {
                    return Err(Some(error));
                }
                self.leave();
                Err(None)
            }
        }
    }

    /// Whether the server lets WebSockets be opened (RFC 8441 §3).
    pub(super) fn offers_upgrades(&self) -> bool {
        match &*self.state.borrow() {
            State::Open(send) => send.is_extended_connect_protocol_enabled(),
            _ => false,
        }
    }

    /// Notes that something was given to the server.
    pub(super) fn note_sent(&self) {
        if self.unheard_since.get().is_none() {
            self.unheard_since.set(Some(net::now()));
        }
    }

    /// How far the server has come with what requests have given h2.
    pub(super) fn taken(&self) -> Taken {
        let streams = usize::try_from(self.streams.get()).unwrap_or(usize::MAX);
        let ahead = streams.saturating_mul(SEND_BUFFER_BYTES);
        let carrier = self.carrier.borrow().upgrade();
        carrier.map_or(Taken::NOTHING, |carrier| carrier.taken(ahead))
    }

    /// Whether this is the first request to be charged with its end.
    pub(super) fn is_first_lost(&self) -> bool {
        !self.charged.replace(true)
    }

    /// Takes no further request.
    pub(super) fn leave(&self) {
        let mut state = self.state.borrow_mut();
        if matches!(*state, State::Open(_)) {
            // What h2 does when nobody can ask for anything more: it says GOAWAY, and closes.
            *state = State::Leaving;
            drop(state);
            self.wake_waiting();
            self.poke();
        }
    }

    /// Ends at once.
    pub(super) fn cut(&self) {
        self.order.set(Order::Cut);
        self.poke();
    }

    /// When it had its last request, if it has none now and is open.
    pub(super) fn idle_since(&self) -> Option<Duration> {
        (self.is_open() && self.streams.get() == 0 && self.reserved.get() == 0)
            .then(|| self.used_at.get())
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
            self.leave();
        }
        let Http2 {
            ping_after,
            ping_timeout,
            ..
        } = self.settings.get();
        if let Some(pinged_at) = self.pinged_at.get() {
            if over(pinged_at, ping_timeout) {
                self.cut();
            }
        } else if let Some(after) = ping_after
            && let Some(since) = self.unheard_since.get()
            && self.streams.get() > 0
            && over(since, after)
        {
            self.pinged_at.set(Some(now));
            self.order.set(Order::Ping);
            self.poke();
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

/// A request's place on a connection, until dropped.
pub(super) struct Place {
    pub(super) connection: Rc<Connection>,
    /// It is the first request of its connection, or one that asked for a new one.
    pub(super) fresh: bool,
}

impl Place {
    pub(super) fn take(connection: &Rc<Connection>, fresh: bool) -> Self {
        let carried = connection.carried.replace(true);
        let streams = connection.streams.get().saturating_add(1);
        connection.streams.set(streams);
        Self {
            connection: connection.clone(),
            fresh: fresh || !carried,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let connection = &self.connection;
        let streams = connection.streams.get().saturating_sub(1);
        connection.streams.set(streams);
        connection.used_at.set(net::now());
        if !connection.waiting.borrow().is_empty() {
            connection.wake_waiting();
        }
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
        self.0.used_at.set(net::now());
    }
}

/// What a connection is made of.
pub(super) struct Opening {
    pub(super) until: Option<Duration>,
    pub(super) sockets_max: u32,
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
        sockets_max,
        tls,
        connected,
    } = opening;
    let member = &connection.member;
    let deadline = Deadline::new();
    deadline.tag(member.id);
    let tls = tls.as_ref();
    let server = match connected {
        Some(server) => server,
        None => upstream::connect(worker, member, until, sockets_max, &deadline, tls).await?,
    };
    if tls.is_some() {
        let chosen = server.stream.speaks_http2();
        if connection.settings.get().auto {
            member.note_chosen(chosen);
            if !chosen {
                return Err(Unopened::Http1(server));
            }
        } else if !chosen {
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
            connection.become_state(State::Open(send));
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
        Ok(None) => Err(NoConnection::Handshake.into()),
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
            connection.unheard_since.set(None);
            connection.pinged_at.set(None);
            if !connection.waiting.borrow().is_empty() {
                connection.wake_waiting();
            }
        }
        if matches!(flushed, Poll::Ready(Err(_))) {
            self.hear_out(cx);
            return Poll::Ready(());
        }
        ended.map(drop)
    }

    /// Nothing can be written any more. What the server has said before may tell which requests it did not take.
    #[cold]
    fn hear_out(&mut self, cx: &mut Context<'_>) {
        self.carrier.stop_writing();
        self.carrier.begin();
        let _ = Pin::new(&mut self.http2).poll(cx);
    }
}

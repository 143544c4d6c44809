//! What all workers know of the connections to one server: a request that may open no further socket takes a place on
//! another worker's connection, and who finds none waits here, in turn.
//!
//! A connection is kept going by the worker that opened it. Its streams may be another's: h2 hands out the ends of them,
//! which any thread may hold, behind a lock of its own. While there are sockets to spare each worker has connections of
//! its own, and of all this only the counts are touched.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use control::live::Member;
use control::message::{Event, Message};
use control::world::Hub;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};

use super::super::Piece;
use super::Wanted;
use crate::net::{self, Taken};

/// More requests than any connection has: it takes none any more.
const CLOSED: u32 = 1 << 31;

/// The connections to each server, of all workers, by member.
#[derive(Default)]
pub(crate) struct Registry(Mutex<BTreeMap<u32, Weak<Places>>>);

impl Registry {
    pub(super) fn of(&self, hub: &Arc<Hub>, member: &Arc<Member>) -> Arc<Places> {
        let mut all = lock(&self.0);
        if let Some(known) = all.get(&member.id).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Places {
            member: member.clone(),
            hub: hub.clone(),
            lines: Mutex::default(),
            waiting: AtomicU32::new(0),
        });
        all.insert(member.id, Arc::downgrade(&places));
        places
    }

    /// Whether some connection to a server has no request; one of the transport that is `kept` only counts if it has
    /// refused one.
    pub(crate) fn has_idle(&self, member: u32, kept: Option<u32>) -> bool {
        let known = lock(&self.0).get(&member).and_then(Weak::upgrade);
        known.is_some_and(|places| {
            let lines = lock(&places.lines);
            let stays = |it: &Shared| Some(it.transport) == kept && !it.is_tired();
            lines.open.iter().any(|it| it.streams() == 0 && !stays(it))
        })
    }
}

/// The connections to one server, and who waits for a place on any.
pub(super) struct Places {
    member: Arc<Member>,
    hub: Arc<Hub>,
    lines: Mutex<Lines>,
    /// How many wait; written under the lock, read without.
    waiting: AtomicU32,
}

#[derive(Default)]
struct Lines {
    open: Vec<Arc<Shared>>,
    /// In the order in which they came.
    waiting: BTreeMap<u64, Waiter>,
    turn: u64,
}

#[derive(Default)]
struct Waiter {
    waker: Option<Waker>,
    /// There may be a place for it, and it has not looked yet.
    is_called: bool,
}

impl Places {
    /// Whether somebody waits: newcomers are to wait behind.
    pub(super) fn are_awaited(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// The server wants so many requests at once on one connection.
    fn note_wanted(&self, wanted: u32) {
        if self.member.note_streams(wanted) {
            let member = self.member.id;
            self.hub.send(Message::Event(Event::Speaks { member }));
        }
    }

    /// From now on the connection may be used by all.
    pub(super) fn add(&self, shared: &Arc<Shared>) {
        lock(&self.lines).open.push(shared.clone());
        self.call_first();
    }

    /// It has ended, and its socket is free.
    pub(super) fn remove(&self, shared: &Arc<Shared>) {
        let mut lines = lock(&self.lines);
        lines.open.retain(|known| !Arc::ptr_eq(known, shared));
        drop(lines);
        self.call_first();
    }

    /// A place on any connection of this kind, which the caller gives back. `refused`: also on one that has refused
    /// requests, if there is no other.
    pub(super) fn claim(&self, wanted: &Wanted<'_>, refused: bool) -> Option<Arc<Shared>> {
        let lines = lock(&self.lines);
        let fits = |shared: &&Arc<Shared>| shared.transport == wanted.transport();
        let (tired, fresh): (Vec<_>, Vec<_>) = lines
            .open
            .iter()
            .filter(fits)
            .partition(|shared| shared.is_tired());
        let tired = tired.into_iter().filter(|_| refused);
        let mut all = fresh.into_iter().chain(tired);
        let found = all.find(|shared| shared.claim() == Claim::Taken);
        found.cloned()
    }

    /// Takes a place in the line.
    pub(super) fn enter(self: &Arc<Self>) -> Turn {
        let mut lines = lock(&self.lines);
        lines.turn += 1;
        let number = lines.turn;
        lines.waiting.insert(number, Waiter::default());
        self.waiting.fetch_add(1, SeqCst);
        drop(lines);
        Turn {
            places: self.clone(),
            number,
        }
    }

    /// Has the first in the line look, if there is one: there may be a place, or room for a socket.
    pub(super) fn call_first(&self) {
        if !self.are_awaited() {
            return;
        }
        let waker = {
            let mut lines = lock(&self.lines);
            let first = lines.waiting.values_mut().next();
            first.and_then(|waiter| {
                waiter.is_called = true;
                waiter.waker.take()
            })
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A place in the line of those who wait for a place on a connection; given up when dropped.
pub(super) struct Turn {
    places: Arc<Places>,
    number: u64,
}

impl Turn {
    pub(super) fn is_first(&self) -> bool {
        let lines = lock(&self.places.lines);
        lines.waiting.keys().next() == Some(&self.number)
    }

    /// Ready when it is the first, and there may be a place.
    pub(super) fn poll_called(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut lines = lock(&self.places.lines);
        let Some(waiter) = lines.waiting.get_mut(&self.number) else {
            return Poll::Ready(());
        };
        if std::mem::take(&mut waiter.is_called) {
            return Poll::Ready(());
        }
        waiter.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lines = lock(&self.places.lines);
        lines.waiting.remove(&self.number);
        self.places.waiting.fetch_sub(1, SeqCst);
        drop(lines);
        // There may be one for the next, too.
        self.places.call_first();
    }
}

/// What became of asking for a place on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Taken,
    Full,
    /// It takes no request any more.
    Ended,
}

/// One connection, as every worker may use it.
pub(super) struct Shared {
    /// The number of the TLS that it was made under; 0: plain.
    pub(super) transport: u32,
    places: Arc<Places>,
    /// `None` until it is open, and once it takes no further request: h2 then says GOAWAY, and closes.
    send: Mutex<Option<SendRequest<Piece>>>,
    /// Requests on it; [`CLOSED`] and above: it takes none any more.
    streams: AtomicU32,
    /// Whether it ever had one.
    carried: AtomicBool,
    /// Whether a request on it was refused: whoever asks for a new one gets another.
    tired: AtomicBool,
    /// Whether it ended by a GOAWAY of a server that has taken some of its requests.
    taken_some: AtomicBool,
    /// When it had a request last, in nanoseconds of [`net::now`]'s clock.
    used_at: AtomicU64,
    /// Since when the server was sent something and has said nothing, on the same clock; 0: it is not waited for.
    unheard_since: AtomicU64,
    /// Whether it was asked whether it is there, and has not answered.
    pinged: AtomicBool,
    /// A request has been charged to its server for its end.
    charged: AtomicBool,
    /// How far the server had come when the owner looked last: [`Taken`].
    taken: AtomicU64,
    taken_end: AtomicU64,
}

impl Shared {
    pub(super) fn new(transport: u32, places: Arc<Places>) -> Arc<Self> {
        Arc::new(Self {
            transport,
            places,
            send: Mutex::default(),
            streams: AtomicU32::new(0),
            carried: AtomicBool::new(false),
            tired: AtomicBool::new(false),
            taken_some: AtomicBool::new(false),
            used_at: AtomicU64::new(stamp()),
            unheard_since: AtomicU64::new(0),
            pinged: AtomicBool::new(false),
            charged: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            taken_end: AtomicU64::new(0),
        })
    }

    pub(super) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// The server has greeted.
    pub(super) fn begin(self: &Arc<Self>, send: SendRequest<Piece>) {
        *lock(&self.send) = Some(send);
        self.places.add(self);
    }

    /// It takes no further request.
    pub(super) fn close(&self) {
        let send = lock(&self.send).take();
        drop(send);
    }

    /// The same if it has no request at this moment; whether it had none.
    pub(super) fn close_idle(&self) -> bool {
        let closed = self.streams.compare_exchange(0, CLOSED, SeqCst, SeqCst);
        if closed.is_ok() {
            self.close();
        }
        closed.is_ok()
    }

    /// A place for one more request, if there are fewer than its pool lets be, and than the server wants.
    pub(super) fn claim(&self) -> Claim {
        let wanted = {
            let mut send = lock(&self.send);
            let Some(send) = &mut *send else {
                return Claim::Ended;
            };
            // A server that has sent GOAWAY, and a connection without further stream numbers.
            let usable = send.poll_ready(&mut Context::from_waker(Waker::noop()));
            if !matches!(usable, Poll::Ready(Ok(()))) {
                return Claim::Ended;
            }
            u32::try_from(send.current_max_send_streams()).unwrap_or(u32::MAX)
        };
        self.places.note_wanted(wanted);
        // One that does not answer gets no more until it does.
        if self.is_pinged() {
            return Claim::Full;
        }
        let max = self.places.member.streams_max().min(wanted).min(CLOSED);
        let more = |now: u32| (now < max).then(|| now + 1);
        let claimed = self.streams.fetch_update(SeqCst, SeqCst, more);
        claimed.map_or(Claim::Full, |_| Claim::Taken)
    }

    /// Gives a place back.
    pub(super) fn release(&self) {
        self.used_at.store(stamp(), Relaxed);
        self.streams.fetch_sub(1, SeqCst);
        self.places.call_first();
    }

    /// Requests on it.
    pub(super) fn streams(&self) -> u32 {
        self.streams.load(SeqCst) & !CLOSED
    }

    /// Whether this is its first request.
    pub(super) fn is_first(&self) -> bool {
        !self.carried.swap(true, Relaxed)
    }

    /// Opens a stream. `None`: the server has left, or the connection takes no more; else why h2 does not send the
    /// request.
    pub(super) fn open(
        &self,
        request: http::Request<()>,
        ended: bool,
    ) -> Result<(ResponseFuture, SendStream<Piece>), Option<h2::Error>> {
        let send = lock(&self.send).clone();
        let mut send = send.ok_or(None)?;
        match send.send_request(request, ended) {
            Ok(opened) => {
                self.note_sent();
                Ok(opened)
            }
            Err(error) => {
                let mut waker = Context::from_waker(Waker::noop());
                let goes_on = matches!(send.poll_ready(&mut waker), Poll::Ready(Ok(())));
                Err(goes_on.then_some(error))
            }
        }
    }

    /// Whether the server lets WebSockets be opened (RFC 8441 §3).
    pub(super) fn offers_upgrades(&self) -> bool {
        let send = lock(&self.send);
        send.as_ref()
            .is_some_and(SendRequest::is_extended_connect_protocol_enabled)
    }

    pub(super) fn is_tired(&self) -> bool {
        self.tired.load(Relaxed)
    }

    pub(super) fn set_tired(&self, tired: bool) {
        if self.is_tired() != tired {
            self.tired.store(tired, Relaxed);
        }
    }

    /// Whether its server has left, and has taken some of its requests: what it left out it may take on another one.
    pub(super) fn has_taken_some(&self) -> bool {
        self.taken_some.load(Relaxed)
    }

    pub(super) fn note_taken_some(&self) {
        self.taken_some.store(true, Relaxed);
    }

    /// Whether this is the first request to be charged with its end.
    pub(super) fn is_first_lost(&self) -> bool {
        !self.charged.swap(true, Relaxed)
    }

    /// When it had a request last.
    pub(super) fn used_at(&self) -> Duration {
        Duration::from_nanos(self.used_at.load(Relaxed))
    }

    /// Notes that a request waits for it.
    pub(super) fn note_used(&self) {
        self.used_at.store(stamp(), Relaxed);
    }

    /// Notes that something was given to the server.
    pub(super) fn note_sent(&self) {
        if self.unheard_since.load(Relaxed) == 0 {
            self.unheard_since.store(stamp(), Relaxed);
        }
    }

    /// Notes that the server has said something.
    pub(super) fn note_heard(&self) {
        self.unheard_since.store(0, Relaxed);
        self.pinged.store(false, Relaxed);
    }

    /// Since when the server was sent something and has said nothing.
    pub(super) fn unheard_since(&self) -> Option<Duration> {
        let since = self.unheard_since.load(Relaxed);
        (since != 0).then(|| Duration::from_nanos(since))
    }

    /// Whether it was asked whether it is there, and has not answered.
    pub(super) fn is_pinged(&self) -> bool {
        self.pinged.load(Relaxed)
    }

    pub(super) fn note_pinged(&self) {
        self.pinged.store(true, Relaxed);
    }

    /// How far the server had come about a second ago, for who cannot ask the socket.
    pub(super) fn taken(&self) -> Taken {
        Taken {
            bytes: self.taken.load(Relaxed),
            end: self.taken_end.load(Relaxed),
        }
    }

    pub(super) fn note_taken(&self, taken: Taken) {
        self.taken.store(taken.bytes, Relaxed);
        self.taken_end.store(taken.end, Relaxed);
    }
}

/// Now, in nanoseconds; never 0.
fn stamp() -> u64 {
    u64::try_from(net::now().as_nanos())
        .unwrap_or(u64::MAX)
        .max(1)
}

/// What a panic has left behind is whole: nothing here is changed in steps.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

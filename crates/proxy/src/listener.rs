//! Accepting connections, on one worker.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, Waker};
use std::time::Duration;

use config::{Bind, Protocol};
use control::crew;
use control::live::ListenerState;
use control::memory::Level;
use control::message::{Event, Message};
use control::metrics::PauseCause;

use crate::handover::{Handed, HeldPlace};
use crate::net::{self, Acceptor, Bare};
use crate::stream::Stream;
use crate::tls::{self, ServerTls};
use crate::worker::{LocalWorld, Worker};
use crate::{http1, http2, tcp};

/// Connections accepted in a row before others run.
const ACCEPT_BATCH: usize = 16;
/// How long accepting waits when the listener is full, or the process out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// One worker's half of a listener: shared by its accept loops and its connections.
pub(crate) struct Listening {
    pub(crate) name: Arc<str>,
    pub(crate) state: Arc<ListenerState>,
    /// Its index in the world now.
    index: Cell<usize>,
    /// The last world that had it, once the config has let go of it: what is still open is served by that.
    last: RefCell<Option<Rc<LocalWorld>>>,
}

impl Listening {
    pub(crate) fn new(name: Arc<str>, state: Arc<ListenerState>, index: usize) -> Self {
        Self {
            name,
            state,
            index: Cell::new(index),
            last: RefCell::new(None),
        }
    }

    /// The world that serves this listener's connections, and the listener's index there.
    pub(crate) fn place(&self, worker: &Worker) -> (Rc<LocalWorld>, usize) {
        let world = self.last.borrow().clone().unwrap_or_else(|| worker.world());
        (world, self.index.get())
    }

    /// Whether the config has let go of it.
    pub(crate) fn is_gone(&self) -> bool {
        self.last.borrow().is_some()
    }

    pub(crate) fn set_index(&self, index: usize) {
        self.index.set(index);
    }

    pub(crate) fn let_go(&self, last: Rc<LocalWorld>) {
        *self.last.borrow_mut() = Some(last);
    }
}

/// Tells an accept loop to end.
pub(crate) struct StopAccepting {
    /// For which listener it accepts.
    pub(crate) listening: Rc<Listening>,
    stopped: Cell<bool>,
    /// Another loop accepts from the same socket: nothing is to be taken any more.
    handed_over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Tells the owner of the socket that it is still open here.
    _open: Arc<()>,
}

impl StopAccepting {
    pub(crate) fn new(listening: Rc<Listening>, open: Arc<()>) -> Self {
        Self {
            listening,
            stopped: Cell::new(false),
            handed_over: Cell::new(false),
            waker: RefCell::new(None),
            _open: open,
        }
    }

    pub(crate) fn hand_over(&self) {
        self.handed_over.set(true);
        self.stop();
    }

    pub(crate) fn stop(&self) {
        self.stopped.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// One of the places that a listener has for connections; free again when dropped.
pub(crate) struct Place {
    listening: Rc<Listening>,
    /// Somebody else frees it.
    is_passed_on: bool,
}

impl Place {
    /// Takes one before it is known who will have it, so that all workers together keep to `max`.
    pub(crate) fn take(listening: &Rc<Listening>, max: u32) -> Option<Self> {
        let connections = &listening.state.connections;
        let taken = connections.fetch_update(Relaxed, Relaxed, |open| {
            (open < max).then(|| open.saturating_add(1))
        });
        taken.ok().map(|_| Self::taken(listening.clone()))
    }

    /// One that is counted already.
    fn taken(listening: Rc<Listening>) -> Self {
        Self {
            listening,
            is_passed_on: false,
        }
    }

    /// The same place, for a connection that leaves this worker.
    fn pass_on(mut self) -> HeldPlace {
        self.is_passed_on = true;
        HeldPlace::taken(self.listening.state.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_passed_on {
            self.listening.state.connections.fetch_sub(1, Relaxed);
        }
    }
}

/// One open connection, counted for as long as it lives.
pub(crate) struct Open {
    worker: Rc<Worker>,
    place: Place,
}

impl Open {
    /// The worker is [claimed](crew::place) for it.
    pub(crate) fn new(worker: &Rc<Worker>, place: Place) -> Self {
        let stats = &place.listening.state.stats;
        stats.of(worker.number).accepted.increment();
        Self {
            worker: worker.clone(),
            place,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let stats = &self.place.listening.state.stats;
        stats.of(self.worker.number).closed.increment();
        self.worker.load().release();
    }
}

/// A pause of one accept loop, told when it is the listener's first and when it was the last.
struct Paused {
    worker: Rc<Worker>,
    state: Arc<ListenerState>,
    cause: PauseCause,
}

impl Paused {
    fn new(worker: &Rc<Worker>, listening: &Listening, cause: PauseCause) -> Self {
        let state = listening.state.clone();
        if let Some(counter) = state.stats.of(worker.number).paused.get(cause as usize) {
            counter.increment();
        }
        let loops = state.paused.get(cause as usize);
        let is_first = loops.is_some_and(|loops| loops.fetch_add(1, Relaxed) == 0);
        let paused = Self {
            worker: worker.clone(),
            state,
            cause,
        };
        if is_first {
            paused.tell();
        }
        paused
    }

    fn tell(&self) {
        self.worker.hub.send(Message::Event(Event::Paused {
            listener: self.state.clone(),
            cause: self.cause,
        }));
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let loops = self.state.paused.get(self.cause as usize);
        if loops.is_some_and(|loops| loops.fetch_sub(1, Relaxed) == 1) {
            self.tell();
        }
    }
}

/// A connection that came with a descriptor which clients may not have. It waits here, as others wait in the kernel's
/// queue, until it can have a lower one.
struct HeldBack {
    mark: HoldsBack,
    place: Place,
    socket: Bare,
    peer: Option<SocketAddr>,
}

impl HeldBack {
    fn serve(self, at: &At) {
        let Self {
            mark,
            place,
            socket,
            peer,
        } = self;
        take_in(&mark.0, at, place, socket, peer);
    }
}

/// Keeps a worker's other loops from holding back another one.
struct HoldsBack(Rc<Worker>);

impl HoldsBack {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.holds_back.set(true);
        Self(worker.clone())
    }
}

impl Drop for HoldsBack {
    fn drop(&mut self) {
        self.0.holds_back.set(false);
    }
}

/// Where connections come in.
pub(crate) struct At {
    pub(crate) listening: Rc<Listening>,
    pub(crate) bind: Bind,
}

/// Accepts until it is stopped; then takes what the kernel has queued, waits a moment, looks again, and closes.
pub(crate) async fn accept(
    worker: Rc<Worker>,
    at: At,
    acceptor: Acceptor,
    stop: Rc<StopAccepting>,
    connections_default: u32,
) {
    let listening = &at.listening;
    let mut paused: Option<Paused> = None;
    let mut held_back: Option<HeldBack> = None;
    loop {
        // After a pause it is tried whether it is over, whoever waits.
        let stops = if paused.is_none() {
            wait(&acceptor, &stop).await
        } else {
            stop.stopped.get()
        };
        if stops {
            break;
        }
        let batch = if worker.hub.memory.level() >= Level::Pausing {
            Batch::Pause(PauseCause::Memory)
        } else {
            let max = connections_max(&worker, listening, connections_default);
            accept_batch(&worker, &at, &acceptor, max, &mut held_back).await
        };
        match batch {
            Batch::Pause(cause) => {
                if paused.as_ref().is_none_or(|paused| paused.cause != cause) {
                    paused = Some(Paused::new(&worker, listening, cause));
                }
                net::sleep(PAUSE).await;
            }
            Batch::Done | Batch::More => paused = None,
        }
    }
    drop(paused);
    if !stop.handed_over.get() {
        let all = u32::MAX;
        let held_back = &mut held_back;
        while accept_batch(&worker, &at, &acceptor, all, held_back).await == Batch::More {}
        net::sleep(Duration::from_millis(20)).await;
        while accept_batch(&worker, &at, &acceptor, all, held_back).await == Batch::More {}
    }
    // It is served now or never.
    if let Some(held_back) = held_back {
        held_back.serve(&at);
    }
    acceptor.close();
}

/// Waits for a connection; true when accepting is to stop.
async fn wait(acceptor: &Acceptor, stop: &StopAccepting) -> bool {
    poll_fn(|cx| {
        if stop.stopped.get() {
            return Poll::Ready(true);
        }
        *stop.waker.borrow_mut() = Some(cx.waker().clone());
        acceptor.poll_acceptable(cx).map(|()| false)
    })
    .await
}

fn connections_max(worker: &Worker, listening: &Listening, default: u32) -> u32 {
    let (world, index) = listening.place(worker);
    world
        .world
        .snapshot
        .listeners
        .get(index)
        .and_then(|listener| listener.connections_max)
        .unwrap_or(default)
}

/// How accepting goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Batch {
    /// Nothing is queued.
    Done,
    /// More may be queued.
    More,
    /// What is queued stays there until something is given back.
    Pause(PauseCause),
}

async fn accept_batch(
    worker: &Rc<Worker>,
    at: &At,
    acceptor: &Acceptor,
    max: u32,
    held_back: &mut Option<HeldBack>,
) -> Batch {
    if let Some(mut held) = held_back.take() {
        let Some(lower) = held.socket.lowered() else {
            *held_back = Some(held);
            return Batch::Pause(PauseCause::Descriptors);
        };
        held.socket = lower;
        held.serve(at);
    }
    // That of another loop comes first: each worker takes one of the descriptors that are kept, not one for each address.
    if worker.holds_back.get() {
        return Batch::Pause(PauseCause::Descriptors);
    }
    for _ in 0..ACCEPT_BATCH {
        let Some(place) = Place::take(&at.listening, max) else {
            return Batch::Pause(PauseCause::Connections);
        };
        match acceptor.try_accept() {
            Ok((socket, peer)) if !socket.may_stay() => {
                *held_back = Some(HeldBack {
                    mark: HoldsBack::new(worker),
                    place,
                    socket,
                    peer,
                });
                return Batch::Pause(PauseCause::Descriptors);
            }
            Ok((socket, peer)) => {
                take_in(worker, at, place, socket, peer);
                if !acceptor.has_more() {
                    return Batch::Done;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Batch::Done,
            // The client left while it was queued.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Batch::Pause(pause_cause(&error)),
        }
    }
    net::yield_now().await;
    Batch::More
}

fn pause_cause(error: &io::Error) -> PauseCause {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE) => PauseCause::Descriptors,
        Some(Errno::NOMEM | Errno::NOBUFS) => PauseCause::Memory,
        _ => PauseCause::System,
    }
}

/// Serves a connection here, unless another worker has fewer.
fn take_in(
    worker: &Rc<Worker>,
    At { listening, bind }: &At,
    place: Place,
    socket: Bare,
    peer: Option<SocketAddr>,
) {
    let (world, index) = listening.place(worker);
    let tls = world
        .tls
        .of_bind(&world.world.snapshot, index, bind)
        .cloned();
    let turn = worker.accepts.get();
    worker.accepts.set(turn.wrapping_add(1));
    let crew = &worker.hub.crew;
    let to = crew::place(crew, worker.number, turn);
    if to == worker.number {
        start(worker, place, socket, peer, tls);
        return;
    }
    let handed = Handed {
        name: listening.name.clone(),
        place: place.pass_on(),
        world: world.world.clone(),
        index,
        socket,
        peer,
        tls,
    };
    match worker.mailboxes.give(to, handed) {
        Ok(()) => worker.cells().handed.increment(),
        // Its thread has just ended.
        Err(handed) => {
            crew.of(to).release();
            crew.of(worker.number).claim();
            start_handed(worker, *handed);
        }
    }
}

/// Serves a connection that another worker accepted, and claimed this one for.
pub(crate) fn start_handed(worker: &Rc<Worker>, handed: Handed) {
    let Handed {
        name,
        place,
        world,
        index,
        socket,
        peer,
        tls,
    } = handed;
    let known = worker.listening.borrow().get(&name).cloned();
    let listening = match known {
        Some(known) if Arc::ptr_eq(&known.state, place.state()) => known,
        // This worker has taken up a config that has let go of the listener: the connection is the last one's.
        _ => {
            let listening = Rc::new(Listening::new(name, place.state().clone(), index));
            listening.let_go(worker.world_of(world));
            listening
        }
    };
    place.pass_on();
    start(worker, Place::taken(listening), socket, peer, tls);
}

fn start(
    worker: &Rc<Worker>,
    place: Place,
    socket: Bare,
    peer: Option<SocketAddr>,
    tls: Option<Arc<ServerTls>>,
) {
    let listening = place.listening.clone();
    let open = Open::new(worker, place);
    let socket = net::Stream::from(socket);
    let (world, index) = listening.place(worker);
    let is_http = world
        .world
        .snapshot
        .listeners
        .get(index)
        .is_none_or(|listener| matches!(listener.protocol, Protocol::Http(_)));
    let worker = worker.clone();
    if let Some(tls) = tls {
        net::spawn(async move {
            // Boxed: a handshake is large, and soon over.
            let accepted = tls::accept(&worker, &listening, socket, peer, &tls);
            let Some((stream, about)) = Box::pin(accepted).await else {
                return;
            };
            drop(tls);
            if is_http && stream.speaks_http2() {
                let tls = Some(about);
                Box::pin(http2::serve(
                    worker,
                    listening,
                    stream,
                    peer,
                    tls,
                    Vec::new(),
                ))
                .await;
            } else if is_http {
                return http1::serve(worker, listening, stream, peer, Some(about), open).await;
            } else {
                Box::pin(tcp::serve(worker, listening, stream, peer)).await;
            }
            drop(open);
        });
    } else if is_http {
        let stream = Stream::from(socket);
        net::spawn(http1::serve(worker, listening, stream, peer, None, open));
    } else {
        net::spawn(async move {
            tcp::serve(worker, listening, Stream::from(socket), peer).await;
            drop(open);
        });
    }
}

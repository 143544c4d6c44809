//! HTTP/2 to servers: a worker has few connections to each, and its requests share them.
//!
//! `connection` is one of them and its task; `exchange` is one request on it, as HTTP/1 reads and writes it; `request`
//! says in HTTP/2 what HTTP/1 says; `fault` says how a request came to nothing; `shared` is what workers use of one
//! another's connections. Responses are `wire::http2`'s.

mod connection;
mod exchange;
mod fault;
mod request;
mod shared;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use config::Http2;
use control::live::Member;
use control::outcome::NoConnection;

pub(crate) use exchange::Exchange;
pub(crate) use fault::Fault;
pub(crate) use shared::Registry;

use crate::net::{self, Deadline};
use crate::relay;
use crate::stream::Stream;
use crate::tls::ClientTls;
use crate::upstream::ServerStream;
use crate::worker::Worker;
use connection::{Connection, Opening, Place, Reserved};
use shared::Places;

/// Connections opened for one request that had no room for it when they stood: a server that leaves at once.
const OPENED_IN_VAIN_MAX: u32 = 3;
/// Between two looks of who is first in the line for a place.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a request needs of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) member: &'a Arc<Member>,
    pub(crate) http2: Http2,
    /// `None`: plain bytes.
    pub(crate) tls: Option<&'a Arc<ClientTls>>,
    /// When it is given up, on [`net::now`]'s clock.
    pub(crate) until: Option<Duration>,
    /// How long a connection without a request is kept.
    pub(crate) keep_alive: Duration,
    /// One on which no request was refused.
    pub(crate) only_new: bool,
}

impl Wanted<'_> {
    fn transport(&self) -> u32 {
        self.tls.map_or(0, |tls| tls.number)
    }
}

/// The connections of one worker, by member.
#[derive(Default)]
pub(crate) struct Connections(RefCell<BTreeMap<u32, Vec<Rc<Connection>>>>);

/// What there is for a request.
enum Found {
    Place(Place),
    /// One that has not opened yet.
    Opening(Rc<Connection>),
    Nothing,
}

impl Connections {
    /// The first with room: others that are not needed any more become idle, and end. `in_turn`: those who wait for a
    /// place do not come before it.
    fn find(&self, wanted: &Wanted<'_>, in_turn: bool) -> Found {
        let all = self.0.borrow();
        let of_member = all.get(&wanted.member.id).map_or(&[][..], |all| &**all);
        let fits = |connection: &&Rc<Connection>| {
            connection.shared.transport == wanted.transport()
                && !(wanted.only_new && connection.shared.is_tired())
        };
        let mut opening = None;
        let mut tired = None;
        for connection in of_member.iter().filter(fits) {
            connection.adopt(wanted);
            if !in_turn && connection.shared.places().are_awaited() {
                continue;
            }
            if connection.is_opening() {
                opening = Some(connection);
            } else if connection.shared.is_tired() {
                tired = Some(connection);
            } else if let Some(place) = connection.claim(wanted.only_new) {
                return Found::Place(place);
            }
        }
        if let Some(place) = tired.and_then(|tired| tired.claim(wanted.only_new)) {
            return Found::Place(place);
        }
        opening.map_or(Found::Nothing, |opening| Found::Opening(opening.clone()))
    }

    fn add(&self, connection: &Rc<Connection>) {
        let mut all = self.0.borrow_mut();
        let of_member = all.entry(connection.member.id).or_default();
        of_member.push(connection.clone());
    }

    fn forget(&self, connection: &Rc<Connection>) {
        let mut all = self.0.borrow_mut();
        if let Some(of_member) = all.get_mut(&connection.member.id) {
            of_member.retain(|known| !Rc::ptr_eq(known, connection));
            if of_member.is_empty() {
                all.remove(&connection.member.id);
            }
        }
    }

    /// Those that `matches`, for what must not be done while they are borrowed.
    fn of(&self, matches: impl Fn(&Member) -> bool) -> Vec<Rc<Connection>> {
        let all = self.0.borrow();
        let of_members = all.values().flatten();
        of_members
            .filter(|connection| matches(&connection.member))
            .cloned()
            .collect()
    }

    /// Once a second: what is idle for too long ends, and silent servers are asked whether they are there.
    pub(crate) fn sweep(&self, now: Duration) {
        for connection in self.of(|_| true) {
            connection.sweep(now);
        }
    }

    /// Those to a member take no further request, and end with the last that they have.
    pub(crate) fn leave(&self, member: u32) {
        for connection in self.of(|of| of.id == member) {
            connection.leave();
        }
    }

    /// The same for all.
    pub(crate) fn leave_all(&self) {
        for connection in self.of(|_| true) {
            connection.leave();
        }
    }

    /// Ends those to a member, whatever runs on them.
    pub(crate) fn cut(&self, member: u32) {
        for connection in self.of(|of| of.id == member) {
            connection.cut();
        }
    }

    /// Has the one end that has been idle for longest of those to a server that `matches`; whether there was one. Those of
    /// a transport that `stays` do, unless they have refused a request.
    pub(crate) fn close_one(
        &self,
        matches: impl Fn(&Member) -> bool,
        stays: impl Fn(&Member, u32) -> bool,
    ) -> bool {
        let stays =
            |it: &Connection| !it.shared.is_tired() && stays(&it.member, it.shared.transport);
        let mut idle: Vec<_> = self
            .of(matches)
            .into_iter()
            .filter(|connection| !stays(connection))
            .filter_map(|connection| Some((connection.idle_since()?, connection)))
            .collect();
        idle.sort_by_key(|(since, _)| *since);
        // Another worker may use one of them at this moment.
        idle.iter().any(|(_, connection)| connection.leave_idle())
    }
}

/// What a request is sent on.
pub(crate) enum Obtained {
    /// A stream of a connection that it shares.
    Http2(ServerStream),
    /// The server, which may choose, has chosen HTTP/1.1: the connection on which it did, unless another request has had
    /// that.
    Http1(Option<ServerStream>),
}

/// A place for a request on a connection, as a stream of its own; at once, or as soon as a connection stands. Where no
/// further socket may be opened that may be another worker's. `deadline` is the request's.
///
/// # Errors
/// [`NoConnection::NoPlace`] when all connections that there may be are full, or others wait for a place.
pub(crate) async fn obtain(
    worker: &Rc<Worker>,
    wanted: Wanted<'_>,
    deadline: &Deadline,
) -> Result<Obtained, NoConnection> {
    look(worker, &wanted, deadline, false).await
}

/// The same, and waits for its turn until a moment of [`net::now`]'s clock where there is none at once.
///
/// # Errors
/// [`NoConnection::NoPlace`] when that has come.
pub(crate) async fn obtain_in_turn(
    worker: &Rc<Worker>,
    mut wanted: Wanted<'_>,
    connect: Option<Duration>,
    until: Duration,
    deadline: &Deadline,
) -> Result<Obtained, NoConnection> {
    let turn = places(worker, &wanted).enter();
    loop {
        let is_first = turn.is_first();
        if is_first {
            wanted.until = relay::earliest(connect, Some(until));
            match look(worker, &wanted, deadline, true).await {
                Err(NoConnection::NoPlace) => {}
                // That was no wait for the server alone.
                Err(NoConnection::TimedOut) if until <= net::now() => {
                    return Err(NoConnection::NoPlace);
                }
                obtained => return obtained,
            }
        }
        // Sockets become free that are no connection of HTTP/2, and nobody says so.
        let look_at = relay::earliest(is_first.then_some(LOOK_EVERY), Some(until));
        deadline.set_at(look_at);
        let called = deadline.guard(poll_fn(|cx| turn.poll_called(cx))).await;
        if called.is_err() {
            deadline.set_at(Some(until));
            // Over though its time is not: it is to be cut.
            if deadline.is_over() {
                return Err(NoConnection::NoPlace);
            }
        }
    }
}

async fn look(
    worker: &Rc<Worker>,
    wanted: &Wanted<'_>,
    deadline: &Deadline,
    in_turn: bool,
) -> Result<Obtained, NoConnection> {
    let member = wanted.member;
    let mut opened = 0;
    loop {
        if member.is_crashed() {
            worker.report_refused(member);
            return Err(NoConnection::Refused);
        }
        let connection = match worker.http2.find(wanted, in_turn) {
            Found::Place(place) => {
                if opened == 0 {
                    worker.cells().reused.increment();
                }
                return Ok(Obtained::Http2(stream(place, member)));
            }
            Found::Opening(connection) => connection,
            Found::Nothing => {
                if is_at_limit(wanted) {
                    let places = places(worker, wanted);
                    if !in_turn && places.are_awaited() {
                        return Err(NoConnection::NoPlace);
                    }
                    if let Some(place) = borrow(worker, wanted, !wanted.only_new) {
                        return Ok(Obtained::Http2(stream(place, member)));
                    }
                }
                if opened >= OPENED_IN_VAIN_MAX {
                    return Err(NoConnection::Handshake);
                }
                opened += 1;
                start(worker, wanted, None)
            }
        };
        let reserved = Reserved::on(&connection);
        let standing = wait(wanted, deadline, poll_fn(|cx| connection.poll_opened(cx))).await;
        drop(reserved);
        match standing? {
            Err(NoConnection::Limit) if is_at_limit(wanted) => {
                // One that refuses requests is better than none.
                let place = borrow(worker, wanted, true).ok_or(NoConnection::NoPlace)?;
                return Ok(Obtained::Http2(stream(place, member)));
            }
            // There is room by now.
            Err(NoConnection::Limit) if opened < OPENED_IN_VAIN_MAX => {}
            Err(why) => return Err(why),
            Ok(()) => {
                if let Some(server) = connection.take_http1() {
                    return Ok(Obtained::Http1(server));
                }
            }
        }
    }
}

/// Whether no further socket may be opened to a server.
fn is_at_limit(wanted: &Wanted<'_>) -> bool {
    let Member { gate, .. } = &**wanted.member;
    let is_pool_full = || gate.max().is_some_and(|max| gate.sockets() >= max);
    wanted.member.sockets() >= wanted.member.sockets_max() || is_pool_full()
}

fn places(worker: &Worker, wanted: &Wanted<'_>) -> Arc<Places> {
    let registry = &worker.mailboxes.http2;
    registry.of(&worker.hub, wanted.member)
}

/// A place on a connection of any worker. `refused`: also on one that has refused requests.
fn borrow(worker: &Worker, wanted: &Wanted<'_>, refused: bool) -> Option<Place> {
    let shared = places(worker, wanted).claim(wanted, refused)?;
    worker.cells().reused.increment();
    let connection = Connection::lent(wanted, shared);
    Some(Place::claimed(connection, wanted.only_new))
}

/// Goes on with a connection whose server has chosen HTTP/2.
pub(crate) fn adopt(worker: &Rc<Worker>, wanted: &Wanted<'_>, server: ServerStream) {
    start(worker, wanted, Some(server));
}

/// Begins to open one more connection; with `connected`, on what stands already.
fn start(
    worker: &Rc<Worker>,
    wanted: &Wanted<'_>,
    connected: Option<ServerStream>,
) -> Rc<Connection> {
    let connection = Connection::new(wanted, places(worker, wanted));
    worker.http2.add(&connection);
    let opening = Opening {
        until: wanted.until,
        tls: wanted.tls.cloned(),
        connected,
    };
    net::spawn(connection::run(worker.clone(), connection.clone(), opening));
    connection
}

async fn wait<F: Future>(
    wanted: &Wanted<'_>,
    deadline: &Deadline,
    event: F,
) -> Result<F::Output, NoConnection> {
    deadline.set_at(wanted.until);
    match deadline.guard(event).await {
        Ok(output) => Ok(output),
        Err(net::Elapsed) if wanted.member.is_crashed() => Err(NoConnection::Refused),
        Err(net::Elapsed) => Err(NoConnection::TimedOut),
    }
}

fn stream(place: Place, member: &Arc<Member>) -> ServerStream {
    let exchange = Exchange::new(place);
    let reused = !exchange.is_fresh();
    ServerStream::carried(Stream::from(exchange), member, reused)
}

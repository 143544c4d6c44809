//! HTTP/2 to servers: a worker has few connections to each, and its requests share them.
//!
//! `connection` is one of them and its task; `exchange` is one request on it, as HTTP/1 reads and writes it; `request`
//! says in HTTP/2 what HTTP/1 says; `fault` says how a request came to nothing. Responses are `wire::http2`'s.

mod connection;
mod exchange;
mod fault;
mod request;

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

use crate::net::{self, Deadline};
use crate::stream::Stream;
use crate::tls::ClientTls;
use crate::upstream::ServerStream;
use crate::worker::Worker;
use connection::{Connection, Opening, Place, Reserved};

/// Connections opened for one request that had no room for it when they stood: a server that leaves at once.
const OPENED_IN_VAIN_MAX: u32 = 3;

/// What a request needs of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) member: &'a Arc<Member>,
    pub(crate) http2: Http2,
    /// `None`: plain bytes.
    pub(crate) tls: Option<&'a Arc<ClientTls>>,
    /// When it is given up, on [`net::now`]'s clock.
    pub(crate) until: Option<Duration>,
    /// Sockets open to the server, for the process.
    pub(crate) sockets_max: u32,
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
    Room(Rc<Connection>),
    /// One that has not opened yet.
    Opening(Rc<Connection>),
    /// All are full; this one is.
    Full(Rc<Connection>),
    Nothing,
}

impl Connections {
    /// The first with room: others that are not needed any more become idle, and end.
    fn find(&self, wanted: &Wanted<'_>) -> Found {
        let all = self.0.borrow();
        let of_member = all.get(&wanted.member.id).map_or(&[][..], |all| &**all);
        let fits = |connection: &&Rc<Connection>| {
            connection.transport == wanted.transport()
                && !(wanted.only_new && connection.is_tired())
        };
        let mut full = None;
        let mut opening = None;
        let mut tired = None;
        for connection in of_member.iter().filter(fits) {
            connection.adopt(wanted);
            match connection.has_room() {
                true if !connection.is_tired() => return Found::Room(connection.clone()),
                true => tired = Some(connection),
                false if connection.is_opening() => opening = Some(connection),
                false if connection.is_open() => full = Some(connection),
                false => {}
            }
        }
        match (tired, opening, full) {
            (Some(tired), ..) => Found::Room(tired.clone()),
            (None, Some(opening), _) => Found::Opening(opening.clone()),
            (None, None, Some(full)) => Found::Full(full.clone()),
            (None, None, None) => Found::Nothing,
        }
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

    /// Has the one end that has been idle for longest of those to a server that `matches`; whether there was one.
    pub(crate) fn close_one(&self, matches: impl Fn(&Member) -> bool) -> bool {
        let oldest = self
            .of(matches)
            .into_iter()
            .filter_map(|connection| Some((connection.idle_since()?, connection)))
            .min_by_key(|(since, _)| *since);
        if let Some((_, connection)) = &oldest {
            connection.leave();
        }
        oldest.is_some()
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

/// A place for a request on a connection, as a stream of its own. `deadline` is the request's.
pub(crate) async fn obtain(
    worker: &Rc<Worker>,
    wanted: Wanted<'_>,
    deadline: &Deadline,
) -> Result<Obtained, NoConnection> {
    let member = wanted.member;
    let mut opened = 0;
    loop {
        if member.is_crashed() {
            worker.report_refused(member);
            return Err(NoConnection::Refused);
        }
        let connection = match worker.http2.find(&wanted) {
            Found::Room(connection) => {
                if opened == 0 {
                    worker.cells().reused.increment();
                }
                let place = Place::take(&connection, wanted.only_new);
                return Ok(Obtained::Http2(stream(place, member)));
            }
            Found::Full(full) if member.sockets() >= wanted.sockets_max => {
                wait(&wanted, deadline, poll_fn(|cx| full.poll_room(cx))).await?;
                continue;
            }
            Found::Opening(connection) => connection,
            Found::Full(_) | Found::Nothing => {
                if opened >= OPENED_IN_VAIN_MAX {
                    return Err(NoConnection::Handshake);
                }
                opened += 1;
                start(worker, &wanted, None)
            }
        };
        let reserved = Reserved::on(&connection);
        let standing = wait(&wanted, deadline, poll_fn(|cx| connection.poll_opened(cx))).await;
        drop(reserved);
        match standing? {
            Err(NoConnection::Limit) => match worker.http2.find(&wanted) {
                // Another one's requests will end.
                Found::Full(full) => {
                    wait(&wanted, deadline, poll_fn(|cx| full.poll_room(cx))).await?;
                }
                Found::Room(_) | Found::Opening(_) => {}
                Found::Nothing => return Err(NoConnection::Limit),
            },
            Err(why) => return Err(why),
            Ok(()) => {
                if let Some(server) = connection.take_http1() {
                    return Ok(Obtained::Http1(server));
                }
            }
        }
    }
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
    let connection = Connection::new(wanted);
    worker.http2.add(&connection);
    let opening = Opening {
        until: wanted.until,
        sockets_max: wanted.sockets_max,
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

//! Handshakes: from a connected socket to a session, or to the reason why there is none.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use config::Protocol;
use control::live::Member;
use control::reason::Reason;
use control::record::Record;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;

use super::challenge::{self, Asked};
use super::session::{Connection, Pace, Session, State};
use super::{About, ClientTls, ServerTls, about};
use crate::listener::Listening;
use crate::net::{self, Deadline, Push};
use crate::relay;
use crate::stream::Stream;
use crate::worker::Worker;

/// What is logged where a name has no certificate, or none of a kind that the client knows.
const NO_CERTIFICATE: &str =
    "there is no certificate that the client could check for the name that it asks for";
/// What a client is told that speaks HTTP where TLS is spoken.
const PLAIN_BODY: &str = "400 Bad Request: plain_http\nThis port speaks TLS: use https://\n";

/// Why there is no session.
pub(crate) enum Broken {
    /// The other side left before it said a word, as a probe by TCP connect does.
    Silent,
    /// It left in the middle, or its connection failed.
    Left,
    TimedOut,
    /// It speaks HTTP without TLS.
    PlainHttp,
    /// Its certificate is not to be believed, for this.
    Certificate(String),
    /// What it said cannot be used.
    Fault(String),
}

impl Broken {
    /// What a server came to, in words.
    pub(crate) fn words(&self) -> String {
        let what = match self {
            Self::Silent | Self::Left => "the server closed the connection",
            Self::TimedOut => "the server was silent",
            Self::PlainHttp => "the server speaks plain HTTP",
            Self::Certificate(why) | Self::Fault(why) => why,
        };
        format!("TLS: {what}")
    }
}

impl From<rustls::Error> for Broken {
    fn from(error: rustls::Error) -> Self {
        use rustls::Error;
        match error {
            error @ (Error::InvalidCertificate(_) | Error::UnsupportedNameType) => {
                Self::Certificate(error.to_string())
            }
            // Rustls says so when a resolver has found none.
            Error::General(why) if why.contains("no server certificate") => {
                Self::Fault(NO_CERTIFICATE.to_owned())
            }
            error => Self::Fault(error.to_string()),
        }
    }
}

/// Makes a connection to a server a session.
pub(crate) async fn connect(
    tls: &ClientTls,
    member: &Member,
    socket: net::Stream,
) -> Result<Stream, Broken> {
    let name = tls.name(member);
    let name = name.ok_or_else(|| Broken::Certificate("the server has no name".to_owned()))?;
    let connection = UnbufferedClientConnection::new(tls.config.clone(), name)?;
    let mut state = State::new(Connection::Client(connection));
    shake(&mut state, &socket, false).await?;
    Ok(Stream::secured(socket, Session::new(state)))
}

/// Makes a client's connection a session, and says what it told of the client. `None` when that came to nothing: then it
/// is counted, logged and closed.
pub(crate) async fn accept(
    worker: &Rc<Worker>,
    listening: &Listening,
    socket: net::Stream,
    peer: Option<SocketAddr>,
    tls: &Arc<ServerTls>,
) -> Option<(Stream, Rc<About>)> {
    let began = net::clock();
    let (limit, is_http) = {
        let (world, index) = listening.place(worker);
        let listener = world.world.snapshot.listeners.get(index)?;
        let is_http = matches!(listener.protocol, Protocol::Http(_));
        (listener.handshake, is_http)
    };
    let deadline = Deadline::new();
    deadline.set(limit);
    let broken = match UnbufferedServerConnection::new(tls.config.clone()) {
        Err(error) => error.into(),
        Ok(connection) => {
            let mut state = State::new(Connection::Server(connection));
            let shaken = deadline.guard(async {
                // Cold: an authority's questions are rare.
                let is_challenge = worker.hub.challenges.is_pending()
                    && Box::pin(hear_challenge(worker, &mut state, &socket, is_http)).await?;
                let asked = shake(&mut state, &socket, is_http).await?;
                Ok((is_challenge, asked))
            });
            match shaken.await {
                Ok(Ok((false, asked))) => {
                    let about = Rc::new(About::of(state.common(), asked, tls));
                    return Some((Stream::secured(socket, Session::new(state)), about));
                }
                Ok(Ok((true, _))) => {
                    // The handshake was the answer (RFC 8737 §3).
                    Stream::secured(socket, Session::new(state)).say_end();
                    return None;
                }
                Ok(Err(broken)) => broken,
                Err(net::Elapsed) => Broken::TimedOut,
            }
        }
    };
    let (reason, detail) = match broken {
        Broken::Silent => return None,
        Broken::Left => (Reason::HandshakeFailed, "the client left".to_owned()),
        Broken::TimedOut => (Reason::HandshakeTimeout, String::new()),
        Broken::PlainHttp => (Reason::PlainHttp, String::new()),
        Broken::Certificate(detail) | Broken::Fault(detail) => (Reason::HandshakeFailed, detail),
    };
    worker.count_error(reason);
    record(worker, listening, peer, began, reason, detail);
    let stream = Stream::from(socket);
    if reason == Reason::PlainHttp {
        refuse_plain(worker, &stream, &deadline, limit).await;
    }
    relay::linger(&stream, &deadline, &worker.buffers).await;
    None
}

/// Waits until the handshake is over; the name that a client has asked for. `hears_http`: a client that speaks HTTP
/// without TLS is told apart.
async fn shake(
    state: &mut State,
    socket: &net::Stream,
    hears_http: bool,
) -> Result<Option<Box<str>>, Broken> {
    let mut begun = !state.incoming().is_empty();
    let (mut asked, mut holds_until) = (None, None);
    loop {
        // Others have taken steps on this thread in between.
        about::note_holds_until(holds_until);
        let stepped = state.step();
        holds_until = about::holds_until();
        if let Some(name) = about::asked() {
            asked = Some(name);
        }
        match stepped {
            // Who has said all by the end of its handshake may still listen.
            Ok(Pace::Ended) if state.common().is_handshaking() => return Err(Broken::Left),
            Ok(_) => {}
            Err(error) => {
                state.say_fault(socket);
                return Err(error.into());
            }
        }
        // Tickets too: a client that waits for an acknowledgement before it sends its request would wait for a delayed one.
        if state.has_left() {
            flush(state, socket).await?;
        }
        if !state.common().is_handshaking() {
            return Ok(asked);
        }
        match fill(state, socket).await {
            Ok(0) if begun => return Err(Broken::Left),
            Ok(0) => return Err(Broken::Silent),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Other => {
                return Err(Broken::Fault(error.to_string()));
            }
            Err(_) => return Err(Broken::Left),
        }
        // A record of TLS begins with a number below 32, a request with a letter.
        let first = state.incoming().filled().first();
        if !begun && hears_http && first.is_some_and(u8::is_ascii_uppercase) {
            return Err(Broken::PlainHttp);
        }
        begun = true;
    }
}

/// Reads a client's first message, and answers it as an authority's question if it is one. The handshake goes on with
/// what has been read.
async fn hear_challenge(
    worker: &Worker,
    state: &mut State,
    socket: &net::Stream,
    hears_http: bool,
) -> Result<bool, Broken> {
    loop {
        let is_first = state.incoming().is_empty();
        match fill(state, socket).await {
            Ok(0) if is_first => return Err(Broken::Silent),
            Ok(0) | Err(_) => return Err(Broken::Left),
            Ok(_) => {}
        }
        let bytes = state.incoming().filled();
        if hears_http && bytes.first().is_some_and(u8::is_ascii_uppercase) {
            return Err(Broken::PlainHttp);
        }
        match challenge::look(bytes, &worker.hub.challenges) {
            Asked::Unknown => {}
            Asked::Else => return Ok(false),
            Asked::Challenge(config) => {
                state.restart(Connection::Server(UnbufferedServerConnection::new(config)?));
                return Ok(true);
            }
        }
    }
}

async fn fill(state: &mut State, socket: &net::Stream) -> io::Result<usize> {
    loop {
        match state.fill(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| socket.poll_readable(cx)).await?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

async fn flush(state: &mut State, socket: &net::Stream) -> Result<(), Broken> {
    loop {
        match state.flush(socket) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let writable = poll_fn(|cx| socket.poll_writable(cx)).await;
                writable.map_err(|_| Broken::Left)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Broken::Left),
        }
    }
}

async fn refuse_plain(
    worker: &Worker,
    stream: &Stream,
    deadline: &Deadline,
    idle: Option<Duration>,
) {
    let date = worker.with_date(str::to_owned);
    let length = PLAIN_BODY.len();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nDate: {date}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         x-evenkeel-reason: {}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{PLAIN_BODY}",
        Reason::PlainHttp
    );
    let mut taken = 0;
    let parts: &mut [&[u8]; 3] = &mut [answer.as_bytes(), &[], &[]];
    // Whoever does not take it has left.
    let _ = relay::write_all(stream, parts, deadline, idle.into(), &mut taken, Push::Now).await;
}

fn record(
    worker: &Worker,
    listening: &Listening,
    peer: Option<SocketAddr>,
    began: Duration,
    reason: Reason,
    detail: String,
) {
    if !worker.logs() {
        return;
    }
    let took = net::clock().saturating_sub(began);
    worker.record(Record {
        wall: worker.wall().saturating_sub(took),
        took,
        listener: listening.name.clone(),
        route: None,
        server: None,
        source: peer.map(|peer| peer.ip().to_canonical()),
        method: String::new(),
        target: String::new(),
        host: String::new(),
        version: "TLS",
        status: if reason == Reason::PlainHttp { 400 } else { 0 },
        grpc: None,
        bytes_in: 0,
        bytes_out: 0,
        reason: Some(reason),
        tries: 0,
        failed: Vec::new(),
        waited: Duration::ZERO,
        affinity: None,
        request_id: String::new(),
        user_agent: String::new(),
        detail,
    });
}

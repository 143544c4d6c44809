//! One TLS session: rustls as a codec between a socket and whoever reads and writes plaintext.
//!
//! Records are decrypted where they were read, and encrypted into the worker's one buffer, so that an idle session
//! holds neither. What the kernel did not take of a batch is kept here; the last byte of its plaintext is reported as
//! written only when all of it is gone. So whoever writes until everything is taken has flushed too.
//!
//! It waits for nothing: `handshake` and `stream` do.

use std::cell::RefCell;
use std::io::{self, IoSlice};

use rustls::CommonState;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
    WriteTraffic,
};

use super::records::{BATCH_BYTES, Incoming, Outgoing, PLAIN_BYTES_MAX};
use crate::net::{self, Push};

/// A TLS session of a connection.
pub(crate) struct Session(RefCell<State>);

/// Either end of a connection.
pub(super) enum Connection {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl Connection {
    fn common(&self) -> &CommonState {
        match self {
            Self::Server(connection) => connection,
            Self::Client(connection) => connection,
        }
    }
}

/// What of the other side's bytes is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Open,
    /// It said that it has no more to say.
    Ended,
    /// It broke off, or broke the rules.
    Failed,
}

pub(super) struct State {
    connection: Connection,
    incoming: Incoming,
    /// Plaintext that its reader had no room for, from `plain_at` on.
    plain: Vec<u8>,
    plain_at: usize,
    /// Reading stopped because the reader's room was full: `incoming` may hold whole records.
    is_behind: bool,
    reading: Reading,
    /// Ciphertext that has to go out before anything else.
    left: Vec<u8>,
    /// Bytes of plaintext within `left` that the writer was not told of.
    owed: usize,
    /// We have said that we have no more to say.
    said_end: bool,
    /// The other side has ended it by a word that belongs to the handshake: this one.
    refusal: Option<Box<str>>,
}

/// Where the state machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// It needs more of the other side's bytes.
    Reads,
    /// The reader's room is full.
    Full,
    /// The other side has no more to say.
    Ended,
}

impl Session {
    pub(super) fn new(state: State) -> Self {
        Self(RefCell::new(state))
    }

    /// Whether both ends agreed to speak HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.0.borrow().common().alpn_protocol() == Some(b"h2")
    }

    /// Why the other side has refused the handshake after it was over for this one, if it has: a server of TLS 1.3 hears
    /// who its client is with the client's last word, and what comes behind that only once it has agreed (RFC 8446 §4.4).
    pub(crate) fn refusal(&self) -> Option<String> {
        self.0
            .borrow()
            .refusal
            .as_ref()
            .map(|why| format!("TLS: {why}"))
    }

    /// Whether a read gives something, or an end, without the socket.
    pub(crate) fn is_readable(&self) -> bool {
        let state = self.0.borrow();
        state.plain_at < state.plain.len() || state.is_behind || state.reading != Reading::Open
    }

    /// Reads what is there. `WouldBlock` when nothing is, 0 at an end that was said to be one; a connection that only
    /// breaks off is an error (RFC 8446 §6.1).
    pub(crate) fn try_read(&self, socket: &net::Stream, room: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(socket, room)
    }

    /// Encrypts and writes what the kernel takes now. After `WouldBlock` the same bytes have to be given again.
    pub(crate) fn try_write(
        &self,
        socket: &net::Stream,
        parts: &[IoSlice<'_>],
        push: Push,
    ) -> io::Result<usize> {
        self.0.borrow_mut().write(socket, parts, push)
    }

    /// Says that nothing more will come, as far as the kernel takes it now.
    pub(crate) fn say_end(&self, socket: &net::Stream) {
        self.0.borrow_mut().say_end(socket);
    }
}

impl State {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            incoming: Incoming::default(),
            plain: Vec::new(),
            plain_at: 0,
            is_behind: false,
            reading: Reading::Open,
            left: Vec::new(),
            owed: 0,
            said_end: false,
            refusal: None,
        }
    }

    /// Begins anew with another connection, on the bytes that have come.
    pub(super) fn restart(&mut self, connection: Connection) {
        self.connection = connection;
    }

    pub(super) fn common(&self) -> &CommonState {
        self.connection.common()
    }

    /// What came of the other side and is not used yet.
    pub(super) fn incoming(&mut self) -> &mut Incoming {
        &mut self.incoming
    }

    pub(super) fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Lets the handshake go on with what has come; plaintext that is in it already is kept.
    pub(super) fn step(&mut self) -> Result<Pace, rustls::Error> {
        let mut sink = Sink {
            room: &mut [],
            count: 0,
            spill: &mut self.plain,
        };
        let pace = advance(
            &mut self.connection,
            &mut self.incoming,
            &mut self.left,
            &mut sink,
        );
        match pace {
            Ok(Pace::Ended) => self.reading = Reading::Ended,
            Ok(_) => {}
            Err(_) => self.reading = Reading::Failed,
        }
        self.incoming.rest();
        pace
    }

    /// Reads what has come into the buffer; 0 at the end.
    pub(super) fn fill(&mut self, socket: &net::Stream) -> io::Result<usize> {
        let room = self.incoming.room();
        if room.is_empty() {
            return Err(io::Error::other("a message is too long"));
        }
        let read = socket.try_read(room);
        match &read {
            Ok(count) => self.incoming.added(*count),
            Err(_) => self.incoming.rest(),
        }
        read
    }

    /// Writes what is left, as far as the kernel takes it; `WouldBlock` when it does not take all.
    pub(super) fn flush(&mut self, socket: &net::Stream) -> io::Result<()> {
        while !self.left.is_empty() {
            let count = socket.try_write(&[IoSlice::new(&self.left)], Push::Now)?;
            self.left.drain(..count.min(self.left.len()));
        }
        self.left = Vec::new();
        Ok(())
    }

    /// After a fault: tells the other side what it was, as far as the kernel takes it.
    pub(super) fn say_fault(&mut self, socket: &net::Stream) {
        self.reading = Reading::Failed;
        let (incoming, left) = (&mut self.incoming, &mut self.left);
        // The alert may stand behind records of the handshake that were made before the fault was found.
        while self.connection.common().wants_write() {
            let took = match &mut self.connection {
                Connection::Server(connection) => last_word(connection, incoming, left),
                Connection::Client(connection) => last_word(connection, incoming, left),
            };
            if !took {
                break;
            }
        }
        let _ = self.flush(socket);
    }

    fn read(&mut self, socket: &net::Stream, room: &mut [u8]) -> io::Result<usize> {
        if room.is_empty() {
            return Ok(0);
        }
        if let Some(kept) = self
            .plain
            .get(self.plain_at..)
            .filter(|kept| !kept.is_empty())
        {
            let count = copy(kept, room);
            self.plain_at += count;
            if self.plain_at == self.plain.len() {
                self.plain = Vec::new();
                self.plain_at = 0;
            }
            return Ok(count);
        }
        loop {
            match self.reading {
                Reading::Open => {}
                Reading::Ended => return Ok(0),
                Reading::Failed => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
            if !self.incoming.is_empty() {
                let count = self.decrypt(socket, room)?;
                if count > 0 {
                    return Ok(count);
                }
                if self.reading == Reading::Ended {
                    return Ok(0);
                }
            }
            // A write may have used what had come since.
            self.is_behind = false;
            match self.fill(socket) {
                Ok(0) => {
                    self.reading = Reading::Failed;
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Decrypts what has come into `room`; bytes of plaintext.
    fn decrypt(&mut self, socket: &net::Stream, room: &mut [u8]) -> io::Result<usize> {
        let mut sink = Sink {
            room,
            count: 0,
            spill: &mut self.plain,
        };
        let pace = advance(
            &mut self.connection,
            &mut self.incoming,
            &mut self.left,
            &mut sink,
        );
        let count = sink.count;
        self.is_behind = pace == Ok(Pace::Full) && !self.incoming.is_empty();
        match pace {
            Ok(Pace::Ended) => self.reading = Reading::Ended,
            Ok(_) => {}
            Err(error) => {
                note_refusal(&mut self.refusal, &error);
                self.say_fault(socket);
                // What came before the fault is good.
                if count == 0 {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
        self.incoming.rest();
        if !self.left.is_empty() && self.owed == 0 {
            // An answer to the other side's new keys; if the kernel is full it goes with the next write.
            let _ = self.flush(socket);
        }
        Ok(count)
    }

    fn write(
        &mut self,
        socket: &net::Stream,
        parts: &[IoSlice<'_>],
        push: Push,
    ) -> io::Result<usize> {
        if self.reading == Reading::Failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.owed > 0 {
            self.flush(socket)?;
            self.owed = 0;
            return Ok(1);
        }
        Outgoing::with(|out| {
            if !out.begin_with(&self.left) {
                self.flush(socket)?;
            }
            let taken = self.encrypt(parts, out)?;
            if taken == 0 {
                return Ok(0);
            }
            let all: usize = parts.iter().map(|part| part.len()).sum();
            if push == Push::WithClose && taken == all && !self.said_end {
                self.close(out);
            }
            let written = match socket.try_write(&[out.slice()], push) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            let rest = out.filled().get(written..).unwrap_or_default();
            if rest.is_empty() {
                self.left = Vec::new();
                return Ok(taken);
            }
            self.left = rest.to_vec();
            self.owed = 1;
            match taken {
                1 => Err(io::ErrorKind::WouldBlock.into()),
                more => Ok(more - 1),
            }
        })
    }

    /// Encrypts a batch, small parts together in one record; bytes of plaintext.
    fn encrypt(&mut self, parts: &[IoSlice<'_>], out: &mut Outgoing) -> io::Result<usize> {
        let mut taken = 0;
        let mut gathered = std::mem::take(&mut out.gathered);
        let last = parts.len().saturating_sub(1);
        for (at, part) in parts.iter().enumerate() {
            let mut part: &[u8] = part;
            while !part.is_empty() && taken < BATCH_BYTES {
                let left = BATCH_BYTES - taken;
                let whole = part.len().min(left);
                let direct = match gathered.is_empty() {
                    true if at == last => whole,
                    true => whole - whole % PLAIN_BYTES_MAX,
                    false => 0,
                };
                let (count, record) = if direct > 0 {
                    (direct, part.get(..direct))
                } else {
                    let room = PLAIN_BYTES_MAX.saturating_sub(gathered.len());
                    let count = whole.min(room);
                    gathered.extend_from_slice(part.get(..count).unwrap_or_default());
                    let is_full = gathered.len() == PLAIN_BYTES_MAX;
                    (count, is_full.then_some(gathered.as_slice()))
                };
                if let Some(record) = record {
                    self.seal(record, out)?;
                    gathered.clear();
                }
                taken += count;
                part = part.get(count..).unwrap_or_default();
            }
        }
        if !gathered.is_empty() {
            self.seal(&gathered, out)?;
            gathered.clear();
        }
        out.gathered = gathered;
        Ok(taken)
    }

    /// Encrypts `plain` into `out`, as one record or several.
    fn seal(&mut self, plain: &[u8], out: &mut Outgoing) -> io::Result<()> {
        let inbox = Inbox {
            incoming: &mut self.incoming,
            plain: &mut self.plain,
            reading: &mut self.reading,
            refusal: &mut self.refusal,
        };
        match &mut self.connection {
            Connection::Server(connection) => {
                write_with(connection, inbox, out, |traffic, room| {
                    traffic.encrypt(plain, room).ok()
                })
            }
            Connection::Client(connection) => {
                write_with(connection, inbox, out, |traffic, room| {
                    traffic.encrypt(plain, room).ok()
                })
            }
        }
    }

    /// Adds the word that nothing more will come.
    fn close(&mut self, out: &mut Outgoing) {
        self.said_end = true;
        let inbox = Inbox {
            incoming: &mut self.incoming,
            plain: &mut self.plain,
            reading: &mut self.reading,
            refusal: &mut self.refusal,
        };
        // Without a session there is nothing to end.
        let _ = match &mut self.connection {
            Connection::Server(connection) => {
                write_with(connection, inbox, out, |traffic, room| {
                    traffic.queue_close_notify(room).ok()
                })
            }
            Connection::Client(connection) => {
                write_with(connection, inbox, out, |traffic, room| {
                    traffic.queue_close_notify(room).ok()
                })
            }
        };
    }

    fn say_end(&mut self, socket: &net::Stream) {
        if self.said_end || self.reading == Reading::Failed {
            return;
        }
        Outgoing::with(|out| {
            if out.begin_with(&self.left) {
                self.close(out);
                // What does not fit now is lost: the other side then takes the end for a cut, which it may be.
                let _ = socket.try_write(&[out.slice()], Push::Now);
                self.left = Vec::new();
            }
        });
    }
}

/// Keeps what the other side has said if that is a refusal.
fn note_refusal(refusal: &mut Option<Box<str>>, error: &rustls::Error) {
    if refusal.is_none() && refuses(error) {
        *refusal = Some(error.to_string().into());
    }
}

/// Whether it is an alert by which a handshake is refused (RFC 8446 §6.2).
fn refuses(error: &rustls::Error) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        error,
        rustls::Error::AlertReceived(
            Alert::HandshakeFailure
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::CertificateRequired
        )
    )
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..count), to.get_mut(..count)) {
        to.copy_from_slice(from);
    }
    count
}

/// Where plaintext goes: into the reader's room, and what that does not hold aside.
struct Sink<'s> {
    room: &'s mut [u8],
    count: usize,
    spill: &'s mut Vec<u8>,
}

impl Sink<'_> {
    fn take(&mut self, plain: &[u8]) {
        let room = self.room.get_mut(self.count..).unwrap_or_default();
        let count = copy(plain, room);
        self.count += count;
        self.spill
            .extend_from_slice(plain.get(count..).unwrap_or_default());
    }

    fn is_full(&self) -> bool {
        !self.room.is_empty() && self.count == self.room.len()
    }
}

/// What both ends of rustls do alike.
trait Codec {
    type Data;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Codec for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Codec for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// Lets the state machine use what has come.
fn advance(
    connection: &mut Connection,
    incoming: &mut Incoming,
    left: &mut Vec<u8>,
    sink: &mut Sink<'_>,
) -> Result<Pace, rustls::Error> {
    match connection {
        Connection::Server(connection) => advance_with(connection, incoming, left, sink),
        Connection::Client(connection) => advance_with(connection, incoming, left, sink),
    }
}

fn advance_with<C: Codec>(
    connection: &mut C,
    incoming: &mut Incoming,
    left: &mut Vec<u8>,
    sink: &mut Sink<'_>,
) -> Result<Pace, rustls::Error> {
    loop {
        let UnbufferedStatus { mut discard, state } = connection.process(incoming.filled_mut());
        let pace = match state {
            Err(error) => Some(Err(error)),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut failed = None;
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard = discard.saturating_add(record.discard);
                            sink.take(record.payload);
                        }
                        Err(error) => {
                            failed = Some(Err(error));
                            break;
                        }
                    }
                }
                failed.or_else(|| sink.is_full().then_some(Ok(Pace::Full)))
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut data, left);
                None
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                None
            }
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Some(Ok(Pace::Ended)),
            // Early data is not asked for.
            Ok(_) => Some(Ok(Pace::Reads)),
        };
        incoming.consume(discard);
        if let Some(pace) = pace {
            return pace;
        }
    }
}

/// Takes a record that a fault has left; false when there is none. Not asked again once all are taken: rustls would look at
/// the same bytes again, and find the same fault.
fn last_word<C: Codec>(connection: &mut C, incoming: &mut Incoming, left: &mut Vec<u8>) -> bool {
    let UnbufferedStatus { state, .. } = connection.process(incoming.filled_mut());
    let Ok(ConnectionState::EncodeTlsData(mut data)) = state else {
        return false;
    };
    encode(&mut data, left);
    true
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, left: &mut Vec<u8>) {
    let at = left.len();
    let mut wanted = 0;
    // The first try says how much room it takes.
    for _ in 0..2 {
        left.resize(at.saturating_add(wanted), 0);
        match data.encode(left.get_mut(at..).unwrap_or_default()) {
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                wanted = required_size;
            }
            _ => return,
        }
    }
}

/// What comes in while something is written: it must not be lost, nor the place in it.
struct Inbox<'i> {
    incoming: &'i mut Incoming,
    plain: &'i mut Vec<u8>,
    reading: &'i mut Reading,
    refusal: &'i mut Option<Box<str>>,
}

fn write_with<C: Codec>(
    connection: &mut C,
    inbox: Inbox<'_>,
    out: &mut Outgoing,
    write: impl FnOnce(&mut WriteTraffic<'_, C::Data>, &mut [u8]) -> Option<usize>,
) -> io::Result<()> {
    loop {
        let filled = inbox.incoming.filled_mut();
        let UnbufferedStatus { discard, state } = connection.process(filled);
        match state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let written = write(&mut traffic, out.room());
                // No room is a fault of ours; worn-out keys of TLS 1.2 are the end of the connection.
                let written = written.ok_or(io::ErrorKind::BrokenPipe)?;
                out.added(written);
                inbox.incoming.consume(discard);
                return Ok(());
            }
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(Ok(record)) = traffic.next_record() {
                    inbox.plain.extend_from_slice(record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => match data.encode(out.room()) {
                Ok(written) => out.added(written),
                Err(_) => return Err(io::ErrorKind::BrokenPipe.into()),
            },
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => *inbox.reading = Reading::Ended,
            failed => {
                if let Err(error) = failed {
                    note_refusal(inbox.refusal, &error);
                }
                *inbox.reading = Reading::Failed;
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        inbox.incoming.consume(discard);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

    use super::*;

    /// What a session holds while it is idle, beside what rustls keeps of it in boxes of its own.
    const IDLE_BYTES_MAX: usize = 2048;

    #[test]
    fn an_idle_session_is_small() {
        let bytes = std::mem::size_of::<Session>();
        assert!(bytes <= IDLE_BYTES_MAX, "{bytes} bytes");
    }

    fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
        let issued = rcgen::generate_simple_self_signed(["a.example".to_owned()]);
        let issued = issued.expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).expect("a key");
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key);
        let mut roots = RootCertStore::empty();
        roots.add(issued.cert.der().clone()).expect("an authority");
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        (Arc::new(client), Arc::new(server.expect("a server")))
    }

    /// A client after its handshake, and our end of it.
    fn shaken() -> ((ClientConnection, TcpStream), (Session, net::Stream)) {
        let (client, server) = configs();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut far =
            TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
        let (near, _) = listener.accept().expect("a connection");
        near.set_nonblocking(true).expect("it can");
        let near = net::Stream::from_std(near);
        let shaking = std::thread::spawn(move || {
            let name = "a.example".try_into().expect("a name");
            let mut client = ClientConnection::new(client, name).expect("a client");
            while client.is_handshaking() {
                client.complete_io(&mut far).expect("it goes on");
            }
            (client, far)
        });
        let connection = UnbufferedServerConnection::new(server).expect("a server");
        let mut state = State::new(Connection::Server(connection));
        while state.common().is_handshaking() {
            again(|| state.fill(&near)).expect("the client speaks");
            state.step().expect("it is understood");
            again(|| state.flush(&near)).expect("the client takes it");
        }
        let client = shaking.join().expect("the client is there");
        (client, (Session::new(state), near))
    }

    /// Tries until it does not block.
    fn again<T>(mut what: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match what() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::yield_now();
                }
                done => return done,
            }
        }
    }

    /// Else whoever reads while it is readable does so for ever.
    #[test]
    fn a_write_that_uses_up_what_has_come_leaves_nothing_to_read() {
        const PIECE: usize = 100;
        let ((mut client, mut far), (session, near)) = shaken();
        for piece in [[1; PIECE], [2; PIECE]] {
            client.writer().write_all(&piece).expect("room");
        }
        // Both records in one segment.
        client.write_tls(&mut far).expect("sent");
        let mut room = [0; PIECE];
        let first = again(|| session.try_read(&near, &mut room)).expect("a record");
        assert_eq!((first, room), (PIECE, [1; PIECE]));
        assert!(session.is_readable(), "the second one is there");
        let written = session.try_write(&near, &[IoSlice::new(b"x")], Push::Now);
        assert_eq!(written.expect("taken"), 1);
        assert!(session.is_readable());
        let second = session.try_read(&near, &mut room).expect("a record");
        assert_eq!((second, room), (PIECE, [2; PIECE]));
        let nothing = session.try_read(&near, &mut room).expect_err("nothing");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        assert!(!session.is_readable());
    }
}

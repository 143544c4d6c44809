//! A connection's bytes: what HTTP/1, TCP and tunnels read and write, plain, through TLS, or as one stream of an HTTP/2
//! connection, which reads and writes as if it were HTTP/1.
//!
//! The plain path costs a branch that is always taken the same way; all else is boxed, so that a plain connection is
//! not larger for it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::http2::{Exchange, Served};
use crate::net::{self, Push, Taken};
use crate::tls::Session;

/// A connected byte stream.
pub(crate) struct Stream(Kind);

enum Kind {
    Plain(net::Stream),
    Tls(net::Stream, Box<Session>),
    /// A client's stream over HTTP/2.
    Served(Rc<Served>),
    /// A server's.
    Exchange(Rc<Exchange>),
}

impl From<net::Stream> for Stream {
    fn from(socket: net::Stream) -> Self {
        Self(Kind::Plain(socket))
    }
}

impl From<Rc<Served>> for Stream {
    fn from(served: Rc<Served>) -> Self {
        Self(Kind::Served(served))
    }
}

impl From<Rc<Exchange>> for Stream {
    fn from(exchange: Rc<Exchange>) -> Self {
        Self(Kind::Exchange(exchange))
    }
}

impl Stream {
    /// A stream whose handshake is over.
    pub(crate) fn secured(socket: net::Stream, session: Session) -> Self {
        Self(Kind::Tls(socket, Box::new(session)))
    }

    /// Its TLS session, if it has one of its own.
    pub(crate) fn session(&self) -> Option<&Session> {
        match &self.0 {
            Kind::Tls(_, session) => Some(session),
            _ => None,
        }
    }

    /// Whether both ends agreed to speak HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.session().is_some_and(Session::speaks_http2)
    }

    /// Why the other side has refused the handshake after it was over for this one, if it has.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.session().and_then(Session::refusal)
    }

    /// Whether it is one stream of an HTTP/2 connection: others share that with it, and its end is not theirs.
    #[inline]
    pub(crate) fn is_carried(&self) -> bool {
        matches!(self.0, Kind::Served(_) | Kind::Exchange(_))
    }

    /// A request to a server over HTTP/2, if it is one.
    pub(crate) fn exchange(&self) -> Option<&Exchange> {
        match &self.0 {
            Kind::Exchange(exchange) => Some(exchange),
            _ => None,
        }
    }

    /// The socket, if what is read and written are its bytes.
    pub(crate) fn plain(&self) -> Option<&net::Stream> {
        match &self.0 {
            Kind::Plain(socket) => Some(socket),
            _ => None,
        }
    }

    /// Reads what is there, without waiting. `WouldBlock` when nothing is.
    #[inline]
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Kind::Plain(socket) => socket.try_read(buffer),
            Kind::Tls(socket, session) => session.try_read(socket, buffer),
            Kind::Served(served) => served.try_read(buffer),
            Kind::Exchange(exchange) => exchange.try_read(buffer),
        }
    }

    /// Reads at least one byte, or 0 at the end.
    #[inline]
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match &self.0 {
            Kind::Plain(socket) => socket.poll_read(cx, buffer),
            _ => self.poll_decode(cx, buffer),
        }
    }

    #[cold]
    fn poll_decode(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Kind::Exchange(exchange) = &self.0 {
            return exchange.poll_read(cx, buffer);
        }
        loop {
            ready!(self.poll_readable(cx))?;
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Ready when a read might not block. Takes no buffer, so that idle connections hold none.
    #[inline]
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Kind::Plain(socket) => socket.poll_readable(cx),
            Kind::Tls(_, session) if session.is_readable() => Poll::Ready(Ok(())),
            Kind::Tls(socket, _) => socket.poll_readable(cx),
            Kind::Served(served) => served.poll_readable(cx),
            Kind::Exchange(exchange) => exchange.poll_readable(cx),
        }
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buffer)).await
    }

    /// Writes what the kernel takes now. `WouldBlock` when it takes nothing; then the same bytes have to come again.
    #[inline]
    pub(crate) fn try_write(&self, parts: &[IoSlice<'_>], push: Push) -> io::Result<usize> {
        match &self.0 {
            Kind::Plain(socket) => socket.try_write(parts, push),
            Kind::Tls(socket, session) => session.try_write(socket, parts, push),
            Kind::Served(served) => served.try_write(parts),
            Kind::Exchange(exchange) => exchange.try_write(parts),
        }
    }

    /// Writes at least one byte of a non-empty `parts`. The socket is tried before it is waited for: mostly there
    /// is room.
    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        push: Push,
    ) -> Poll<io::Result<usize>> {
        if let Kind::Plain(socket) = &self.0 {
            return socket.poll_write(cx, parts, push);
        }
        loop {
            match self.try_write(parts, push) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_writable(cx))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Kind::Plain(socket) | Kind::Tls(socket, _) => socket.poll_writable(cx),
            Kind::Served(served) => served.poll_writable(cx),
            Kind::Exchange(exchange) => exchange.poll_writable(cx),
        }
    }

    /// How far the other side has come, while nothing is written.
    pub(crate) fn taken(&self) -> Taken {
        match &self.0 {
            Kind::Plain(socket) | Kind::Tls(socket, _) => socket.taken(),
            Kind::Served(served) => served.taken(),
            Kind::Exchange(exchange) => exchange.taken(),
        }
    }

    /// Bytes that were written and that the other side's kernel has not acknowledged yet; none of a carried stream's.
    pub(crate) fn unacknowledged(&self) -> u64 {
        match &self.0 {
            Kind::Plain(socket) | Kind::Tls(socket, _) => socket.unacknowledged(),
            Kind::Served(_) | Kind::Exchange(_) => 0,
        }
    }

    /// Ready when the connection has failed (a reset), not when the other side has only stopped sending.
    pub(crate) fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Kind::Plain(socket) | Kind::Tls(socket, _) => socket.poll_failed(cx),
            Kind::Served(served) => served.poll_failed(cx).map(Ok),
            // Whoever reads hears of it.
            Kind::Exchange(_) => Poll::Pending,
        }
    }

    /// Ready when the other side has hung up or the connection failed, whatever may still be read. Nobody else may
    /// wait to read meanwhile. One who has ended only its half of a carried stream still waits for the answer.
    pub(crate) fn poll_hung_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.0 {
            Kind::Plain(socket) | Kind::Tls(socket, _) => socket.poll_hung_up(cx),
            Kind::Served(served) => served.poll_failed(cx),
            Kind::Exchange(_) => Poll::Pending,
        }
    }

    /// Whether bytes have come that are not read yet.
    pub(crate) fn has_unread(&self) -> bool {
        match &self.0 {
            Kind::Plain(socket) => socket.has_unread(),
            Kind::Tls(socket, session) => session.is_readable() || socket.has_unread(),
            Kind::Served(_) | Kind::Exchange(_) => false,
        }
    }

    /// Whether this stream has ever been waited for.
    #[inline]
    pub(crate) fn is_registered(&self) -> bool {
        match &self.0 {
            Kind::Plain(socket) | Kind::Tls(socket, _) => socket.is_registered(),
            Kind::Served(_) | Kind::Exchange(_) => true,
        }
    }

    /// Has the kernel report what happens to a stream that nobody waits for.
    pub(crate) fn watch(&self) -> io::Result<()> {
        match &self.0 {
            Kind::Plain(socket) | Kind::Tls(socket, _) => socket.watch(),
            Kind::Served(_) | Kind::Exchange(_) => Ok(()),
        }
    }

    /// Whether nothing has come that is not read yet, not even the end: asked of the kernel, not of what it has told.
    pub(crate) fn is_quiet(&self) -> bool {
        match &self.0 {
            Kind::Plain(socket) | Kind::Tls(socket, _) => socket.is_quiet(),
            Kind::Served(_) | Kind::Exchange(_) => false,
        }
    }

    /// Whether a close would be a reset, since bytes have come that nobody has read.
    pub(crate) fn holds_unread(&self) -> bool {
        match &self.0 {
            Kind::Plain(socket) | Kind::Tls(socket, _) => socket.holds_unread(),
            Kind::Served(_) | Kind::Exchange(_) => false,
        }
    }

    /// Whether anything has arrived, or the other side hung up, as far as the kernel has told this thread. What only
    /// the session is told, such as tickets, does not count.
    pub(crate) fn has_news(&self) -> bool {
        match &self.0 {
            Kind::Plain(socket) => socket.has_news(),
            Kind::Tls(socket, session) => {
                if session.is_readable() {
                    return true;
                }
                let mut byte = [0];
                socket.has_news()
                    && !matches!(session.try_read(socket, &mut byte),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            // Nobody keeps one for later.
            Kind::Served(_) | Kind::Exchange(_) => true,
        }
    }

    /// Says that nothing more will come, where the protocol has a word for that. Whoever hears only the close takes it
    /// for a cut.
    #[inline]
    pub(crate) fn say_end(&self) {
        match &self.0 {
            Kind::Plain(_) => {}
            Kind::Tls(socket, session) => session.say_end(socket),
            Kind::Served(served) => served.end(),
            Kind::Exchange(exchange) => exchange.end(),
        }
    }

    /// Ends a response in the middle with these trailers, whatever was to come of it; false: that cannot be said.
    pub(crate) fn end_with(&self, trailers: &[u8]) -> bool {
        match &self.0 {
            Kind::Served(served) => served.end_with(trailers),
            _ => false,
        }
    }

    /// Ends the sending half.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.say_end();
        match &self.0 {
            Kind::Plain(socket) | Kind::Tls(socket, _) => socket.shutdown_write(),
            Kind::Served(_) | Kind::Exchange(_) => Ok(()),
        }
    }

    /// Makes the close of this socket a reset, so that the other side sees a failure and not an end.
    pub(crate) fn reset_on_close(&self) {
        match &self.0 {
            Kind::Plain(socket) | Kind::Tls(socket, _) => socket.reset_on_close(),
            Kind::Served(served) => served.reset(),
            // One that is dropped before its end is reset in any case.
            Kind::Exchange(_) => {}
        }
    }

    /// TCP keep-alive probes after `idle` of silence.
    pub(crate) fn keep_alive_probes(&self, idle: Duration) {
        match &self.0 {
            Kind::Plain(socket) | Kind::Tls(socket, _) => socket.keep_alive_probes(idle),
            Kind::Served(_) | Kind::Exchange(_) => {}
        }
    }
}

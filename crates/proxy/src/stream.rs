//! A connection's bytes, plain or through TLS: what HTTP/1, TCP and tunnels read and write.
//!
//! The plain path costs a branch that is always taken the same way; a TLS session is boxed, so that a plain connection
//! is not larger for it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::net::{self, Push};
use crate::tls::Session;

/// A connected byte stream.
pub(crate) struct Stream {
    socket: net::Stream,
    session: Option<Box<Session>>,
}

impl From<net::Stream> for Stream {
    fn from(socket: net::Stream) -> Self {
        Self {
            socket,
            session: None,
        }
    }
}

impl Stream {
    /// A stream whose handshake is over.
    pub(crate) fn secured(socket: net::Stream, session: Session) -> Self {
        Self {
            socket,
            session: Some(Box::new(session)),
        }
    }

    /// Its TLS session, if it has one.
    pub(crate) fn session(&self) -> Option<&Session> {
        self.session.as_deref()
    }

    /// The socket, if what is read and written are its bytes.
    pub(crate) fn plain(&self) -> Option<&net::Stream> {
        self.session.is_none().then_some(&self.socket)
    }

    /// Reads what is there, without waiting. `WouldBlock` when nothing is.
    #[inline]
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.session {
            None => self.socket.try_read(buffer),
            Some(session) => session.try_read(&self.socket, buffer),
        }
    }

    /// Reads at least one byte, or 0 at the end.
    #[inline]
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match &self.session {
            None => self.socket.poll_read(cx, buffer),
            Some(_) => self.poll_decrypt(cx, buffer),
        }
    }

    #[cold]
    fn poll_decrypt(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
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
        if let Some(session) = &self.session
            && session.is_readable()
        {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_readable(cx)
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
        match &self.session {
            None => self.socket.try_write(parts, push),
            Some(session) => session.try_write(&self.socket, parts, push),
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
        if self.session.is_none() {
            return self.socket.poll_write(cx, parts, push);
        }
        loop {
            match self.try_write(parts, push) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_writable(cx))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Ready when the connection has failed (a reset), not when the other side has only stopped sending.
    pub(crate) fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_failed(cx)
    }

    /// Ready when the other side has hung up or the connection failed, whatever may still be read. Nobody else may
    /// wait to read meanwhile.
    pub(crate) fn poll_hung_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_hung_up(cx)
    }

    /// Whether bytes have come that are not read yet.
    pub(crate) fn has_unread(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.is_readable())
            || self.socket.has_unread()
    }

    /// Whether this stream has ever been waited for.
    pub(crate) fn is_registered(&self) -> bool {
        self.socket.is_registered()
    }

    /// Has the kernel report what happens to a stream that nobody waits for.
    pub(crate) fn watch(&self) -> io::Result<()> {
        self.socket.watch()
    }

    /// Whether anything has arrived, or the other side hung up, as far as the kernel has told this thread. What only
    /// the session is told, such as tickets, does not count.
    pub(crate) fn has_news(&self) -> bool {
        match &self.session {
            None => self.socket.has_news(),
            Some(session) => {
                if session.is_readable() {
                    return true;
                }
                let mut byte = [0];
                self.socket.has_news()
                    && !matches!(session.try_read(&self.socket, &mut byte),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
        }
    }

    /// Says that nothing more will come, where the protocol has a word for that. Whoever hears only the close takes it
    /// for a cut.
    #[inline]
    pub(crate) fn say_end(&self) {
        if let Some(session) = &self.session {
            session.say_end(&self.socket);
        }
    }

    /// Ends the sending half.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.say_end();
        self.socket.shutdown_write()
    }

    /// Makes the close of this socket a reset, so that the other side sees a failure and not an end.
    pub(crate) fn reset_on_close(&self) {
        self.socket.reset_on_close();
    }

    /// TCP keep-alive probes after `idle` of silence.
    pub(crate) fn keep_alive_probes(&self, idle: Duration) {
        self.socket.keep_alive_probes(idle);
    }
}

//! Streams and accepting sockets whose waits are futures.

use std::cell::{Cell, OnceCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::task::{Context, Poll, ready};

use mio::Interest;
use rustix::event::{self, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, SockAddr, SockRef, Type};

use super::conduit::Conduit;
use super::files::{self, Use};
use super::reactor::{Registration, Side};
use super::taken::{Taken, unacknowledged};

/// When what is written has to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Push {
    /// At once.
    Now,
    /// With the close of the socket, which follows at once: so data and FIN share a packet, and an acknowledgement.
    WithClose,
}

enum Socket {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

/// A connected byte stream. Not registered with the kernel's poll until something must be waited for.
pub(crate) struct Stream {
    socket: Socket,
    registration: OnceCell<Registration>,
    /// The last read came back short before the socket was registered: reading again would only learn that.
    drained: Cell<bool>,
}

/// Why a connection could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// Nobody listens there.
    Refused,
    /// No way there.
    Unreachable,
    /// A fault of this machine: no local port, no descriptor, no memory.
    Exhausted,
}

/// An accepted connection that no worker's poll knows: any of them may have it.
pub(crate) struct Bare(Socket);

impl Bare {
    /// Whether its descriptor is one of those that clients may have.
    pub(crate) fn may_stay(&self) -> bool {
        files::may_have(Use::Client, self.0.as_fd())
    }

    /// The same connection under the lowest descriptor that is free, if clients may have that one.
    pub(crate) fn lowered(&self) -> Option<Self> {
        let lower = rustix::io::fcntl_dupfd_cloexec(self.0.as_fd(), 0).ok()?;
        files::may_have(Use::Client, &lower).then(|| {
            Self(match self.0 {
                Socket::Tcp(_) => Socket::Tcp(mio::net::TcpStream::from_std(lower.into())),
                Socket::Unix(_) => Socket::Unix(mio::net::UnixStream::from_std(lower.into())),
            })
        })
    }
}

impl From<Bare> for Stream {
    fn from(bare: Bare) -> Self {
        Self::new(bare.0)
    }
}

impl Stream {
    fn new(socket: Socket) -> Self {
        Self {
            socket,
            registration: OnceCell::new(),
            drained: Cell::new(false),
        }
    }

    /// A stream from a socket of the standard library.
    #[cfg(test)]
    pub(crate) fn from_std(socket: std::net::TcpStream) -> Self {
        Self::new(Socket::Tcp(mio::net::TcpStream::from_std(socket)))
    }

    fn registration(&self) -> io::Result<&Registration> {
        if let Some(registration) = self.registration.get() {
            return Ok(registration);
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registration = Registration::new(self.socket.as_raw_fd(), interest)?;
        Ok(self.registration.get_or_init(|| registration))
    }

    fn clear(&self, side: Side) {
        if let Some(registration) = self.registration.get() {
            registration.clear(side);
        } else if side == Side::Read {
            self.drained.set(true);
        }
    }

    /// Reads what is there, without waiting. `WouldBlock` when nothing is.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = match &self.socket {
            Socket::Tcp(socket) => receive(socket, buffer),
            Socket::Unix(socket) => receive(socket, buffer),
        };
        match &result {
            Ok(count) if *count > 0 && *count < buffer.len() => self.clear(Side::Read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.clear(Side::Read),
            _ => {}
        }
        result
    }

    /// Reads at least one byte, or 0 at the end.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
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
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.registration.get() {
            None if !self.drained.get() => Poll::Ready(Ok(())),
            _ => self.poll_side(cx, Side::Read),
        }
    }

    #[cfg(test)]
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buffer)).await
    }

    fn poll_side(&self, cx: &mut Context<'_>, side: Side) -> Poll<io::Result<()>> {
        self.registration()?.poll(side, cx.waker()).map(Ok)
    }

    /// Writes what the kernel takes now. `WouldBlock` when it takes nothing.
    pub(crate) fn try_write(&self, parts: &[IoSlice<'_>], push: Push) -> io::Result<usize> {
        let result = match &self.socket {
            Socket::Tcp(socket) if push == Push::WithClose => write_before_close(socket, parts),
            Socket::Tcp(socket) => write_parts(socket, parts),
            Socket::Unix(socket) => write_parts(socket, parts),
        };
        if result
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        {
            self.clear(Side::Write);
        }
        result
    }

    /// Writes at least one byte of a non-empty `parts`. The socket is tried before it is waited for: mostly there
    /// is room.
    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        push: Push,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(parts, push) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_side(cx, Side::Write))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Ready when a write might not block.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_side(cx, Side::Write)
    }

    /// Moves at least one byte, and at most `max`, into an empty conduit; 0 at the end.
    pub(crate) fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        conduit: &Conduit,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_readable(cx))?;
            match conduit.fill(self, max) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.clear(Side::Read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Moves at least one byte out of a conduit that holds some.
    pub(crate) fn poll_drain(
        &self,
        cx: &mut Context<'_>,
        conduit: &Conduit,
        push: Push,
    ) -> Poll<io::Result<usize>> {
        loop {
            match conduit.drain(self, push) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.clear(Side::Write);
                    ready!(self.poll_side(cx, Side::Write))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Ready when the connection has failed (a reset), not when the other side has only stopped sending.
    pub(crate) fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_side(cx, Side::Hangup)
    }

    /// Ready when the other side has hung up or the connection failed, whatever may still be read. Nobody else may
    /// wait to read meanwhile.
    pub(crate) fn poll_hung_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.registration() {
            Ok(registration) => registration.poll(Side::End, cx.waker()),
            Err(_) => Poll::Ready(()),
        }
    }

    /// Whether bytes have come that are not read yet.
    pub(crate) fn has_unread(&self) -> bool {
        self.peek().is_ok_and(|count| count > 0)
    }

    /// Whether nothing has come that is not read yet, not even the end.
    pub(crate) fn is_quiet(&self) -> bool {
        let quiet = self
            .peek()
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        if quiet {
            self.clear(Side::Read);
        }
        quiet
    }

    /// Whether bytes have come that nobody has read: a close would then be a reset, which takes with it what the other
    /// side has not read yet.
    pub(crate) fn holds_unread(&self) -> bool {
        self.peek().is_ok_and(|count| count > 0)
    }

    fn peek(&self) -> io::Result<usize> {
        let (count, _) = rustix::net::recv(self, &mut [0], RecvFlags::PEEK)?;
        Ok(count)
    }

    /// Bytes that were written and that the other side's kernel has not acknowledged yet.
    pub(crate) fn unacknowledged(&self) -> u64 {
        unacknowledged(self)
    }

    /// How far the other side has come, while nothing is written.
    pub(crate) fn taken(&self) -> Taken {
        Taken {
            bytes: u64::MAX.saturating_sub(self.unacknowledged()),
            end: u64::MAX,
        }
    }

    /// Whether this stream has ever been waited for.
    pub(crate) fn is_registered(&self) -> bool {
        self.registration.get().is_some()
    }

    /// Has the kernel report what happens to a stream that nobody waits for.
    pub(crate) fn watch(&self) -> io::Result<()> {
        self.registration().map(|_| ())
    }

    /// Whether anything has arrived, or the other side hung up, as far as the kernel has told this thread.
    pub(crate) fn has_news(&self) -> bool {
        self.registration
            .get()
            .is_some_and(|registration| registration.is_ready(Side::Read))
    }

    /// Ends the sending half.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Socket::Unix(socket) => socket.shutdown(Shutdown::Write),
        }
    }

    /// Makes the close of this socket a reset, so that the other side sees a failure and not an end.
    pub(crate) fn reset_on_close(&self) {
        if let Socket::Tcp(socket) = &self.socket {
            let _ = SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO));
        }
    }

    /// TCP keep-alive probes after `idle` of silence.
    pub(crate) fn keep_alive_probes(&self, idle: std::time::Duration) {
        if let Socket::Tcp(socket) = &self.socket {
            let probes = socket2::TcpKeepalive::new().with_time(idle);
            let _ = SockRef::from(socket).set_tcp_keepalive(&probes);
        }
    }

    #[cfg(test)]
    pub(crate) fn sends_at_once(&self) -> bool {
        match &self.socket {
            Socket::Tcp(socket) => socket.nodelay().is_ok_and(|on| on),
            Socket::Unix(_) => true,
        }
    }

    /// The error that the kernel keeps for this socket, if any.
    fn take_error(&self) -> io::Result<Option<io::Error>> {
        match &self.socket {
            Socket::Tcp(socket) => socket.take_error(),
            Socket::Unix(socket) => socket.take_error(),
        }
    }
}

/// Leaves the last packet to the close, which sends it with its FIN.
#[cfg(target_os = "linux")]
fn write_before_close(socket: &mio::net::TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    use rustix::net::{SendAncillaryBuffer, sendmsg};
    let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
    Ok(sendmsg(
        socket,
        parts,
        &mut SendAncillaryBuffer::default(),
        flags,
    )?)
}

#[cfg(not(target_os = "linux"))]
fn write_before_close(socket: &mio::net::TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    write_parts(socket, parts)
}

/// Straight to the kernel: libc's wrappers make each of these calls a point of cancellation, which costs as much as
/// the way in and out of the kernel.
fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (count, _) = rustix::net::recv(socket, buffer, RecvFlags::empty())?;
    Ok(count)
}

fn write_parts(socket: impl AsFd, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(match parts {
        [one] => rustix::net::send(socket, one, SendFlags::empty())?,
        _ => rustix::io::writev(socket, parts)?,
    })
}

/// Connects over TCP. Returns when the connection stands.
pub(crate) async fn connect_tcp(
    address: SocketAddr,
    receive_buffer: Option<usize>,
) -> Result<Stream, ConnectError> {
    let socket = begin_connect(Domain::for_address(address), &address.into())?;
    let socket = mio::net::TcpStream::from_std(socket.into());
    let options = SockRef::from(&socket);
    let _ = options.set_tcp_nodelay(true);
    if let Some(bytes) = receive_buffer {
        let _ = options.set_recv_buffer_size(bytes);
    }
    finish(Stream::new(Socket::Tcp(socket))).await
}

/// Connects to a Unix socket.
pub(crate) async fn connect_unix(path: &Path) -> Result<Stream, ConnectError> {
    let address = SockAddr::unix(path).map_err(|error| from_io(&error))?;
    let socket = begin_connect(Domain::UNIX, &address)?;
    let socket = mio::net::UnixStream::from_std(socket.into());
    finish(Stream::new(Socket::Unix(socket))).await
}

/// A socket on its way to a server, unless its descriptor is one that traffic may not have.
fn begin_connect(domain: Domain, address: &SockAddr) -> Result<OwnedFd, ConnectError> {
    let socket = nonblocking(domain).map_err(|error| from_io(&error))?;
    if !files::may_have(Use::Server, &socket) {
        return Err(ConnectError::Exhausted);
    }
    match socket.connect(address) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
            Err(from_io(&error))
        }
        _ => Ok(socket.into()),
    }
}

#[cfg(target_os = "linux")]
fn nonblocking(domain: Domain) -> io::Result<socket2::Socket> {
    socket2::Socket::new_raw(domain, Type::STREAM.nonblocking().cloexec(), None)
}

#[cfg(not(target_os = "linux"))]
fn nonblocking(domain: Domain) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(domain, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn finish(stream: Stream) -> Result<Stream, ConnectError> {
    // On loopback the handshake is mostly over already; `getpeername` tells without a trip through the poll.
    if stream.is_connected() {
        return Ok(stream);
    }
    loop {
        poll_fn(|cx| stream.poll_side(cx, Side::Write))
            .await
            .map_err(|error| from_io(&error))?;
        if let Some(error) = stream.take_error().map_err(|error| from_io(&error))? {
            return Err(from_io(&error));
        }
        if stream.is_connected() {
            return Ok(stream);
        }
        stream.clear(Side::Write);
    }
}

impl Stream {
    fn is_connected(&self) -> bool {
        match &self.socket {
            Socket::Tcp(socket) => socket.peer_addr().is_ok(),
            Socket::Unix(socket) => socket.peer_addr().is_ok(),
        }
    }
}

fn from_io(error: &io::Error) -> ConnectError {
    let of_ours = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
    ];
    let code = error.raw_os_error();
    if of_ours
        .iter()
        .any(|errno| Some(errno.raw_os_error()) == code)
    {
        return ConnectError::Exhausted;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::NotFound => ConnectError::Refused,
        _ => ConnectError::Unreachable,
    }
}

impl Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(socket) => socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

enum Listening {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

/// One worker's view of a listening socket.
pub(crate) struct Acceptor {
    socket: Listening,
    registration: Registration,
}

impl Acceptor {
    /// Takes a bound, listening, non-blocking socket.
    ///
    /// # Errors
    /// When the kernel's poll refuses it.
    pub(crate) fn tcp(socket: std::net::TcpListener) -> io::Result<Self> {
        // What is accepted inherits it: a system call less for each connection.
        SockRef::from(&socket).set_tcp_nodelay(true)?;
        let socket = mio::net::TcpListener::from_std(socket);
        let registration = Registration::new(socket.as_raw_fd(), Interest::READABLE)?;
        Ok(Self {
            socket: Listening::Tcp(socket),
            registration,
        })
    }

    /// As [`Acceptor::tcp`], for a Unix socket.
    ///
    /// # Errors
    /// When the kernel's poll refuses it.
    pub(crate) fn unix(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        let socket = mio::net::UnixListener::from_std(socket);
        let registration = Registration::new(socket.as_raw_fd(), Interest::READABLE)?;
        Ok(Self {
            socket: Listening::Unix(socket),
            registration,
        })
    }

    /// The next connection that waits in the kernel's queue, with its peer (`None` for a Unix socket).
    pub(crate) fn try_accept(&self) -> io::Result<(Bare, Option<SocketAddr>)> {
        let accepted = match &self.socket {
            Listening::Tcp(socket) => socket
                .accept()
                .map(|(stream, peer)| (Bare(Socket::Tcp(stream)), Some(peer))),
            Listening::Unix(socket) => socket
                .accept()
                .map(|(stream, _)| (Bare(Socket::Unix(stream)), None)),
        };
        if accepted
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        {
            self.registration.clear(Side::Read);
        }
        accepted
    }

    /// Whether another connection waits in the kernel's queue. To ask costs a tenth of an `accept` that finds none:
    /// the kernel makes the socket before it looks.
    pub(crate) fn has_more(&self) -> bool {
        let socket = match &self.socket {
            Listening::Tcp(socket) => socket.as_fd(),
            Listening::Unix(socket) => socket.as_fd(),
        };
        let mut asked = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
        let more = event::poll(&mut asked, Some(&Timespec::default())) != Ok(0);
        if !more {
            self.registration.clear(Side::Read);
        }
        more
    }

    /// Ready when a connection may wait.
    pub(crate) fn poll_acceptable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.registration.poll(Side::Read, cx.waker())
    }

    /// Takes the socket out of this worker's poll. A duplicated descriptor must leave before it is closed, else its
    /// events go on.
    pub(crate) fn close(self) {
        let Self {
            socket,
            registration,
        } = self;
        registration.deregister(match &socket {
            Listening::Tcp(socket) => socket.as_raw_fd(),
            Listening::Unix(socket) => socket.as_raw_fd(),
        });
    }
}

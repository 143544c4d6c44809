//! A connection as the h2 crate reads and writes it.
//!
//! What h2 writes during one poll of the connection's task is gathered, and goes out together when the task has done:
//! ten responses in one system call, and in one TLS record. Its own flushes do nothing, so whoever polls h2 calls
//! [`Carrier::poll_flush`] afterwards. What is read for one poll is bounded, so that one connection does not keep a
//! worker to itself.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wire::http2::{Flood, FrameWatch};

use super::receive::Unread;
use crate::memory::Counted;
use crate::net::{self, Push, Taken};
use crate::stream::Stream;

/// Bytes read for one poll of the connection's task before others run.
const READ_BUDGET: usize = 256 * 1024;
/// What one read asks for, at first and at most; it follows what comes, since the room is cleared before each read.
const READ_MIN: usize = 2 * 1024;
const READ_MAX: usize = 64 * 1024;
/// Bytes gathered before they go out in the middle of a poll.
const GATHER_MAX: usize = 32 * 1024;
/// The slices of one write, what was gathered among them.
const SLICES_MAX: usize = 8;

thread_local! {
    /// The buffer that the next connection gathers into: held by one only while something is in it.
    static SPARE: RefCell<Option<Counted>> = const { RefCell::new(None) };
}

/// The connection beneath HTTP/2, shared by h2 and the connection's task.
pub(super) struct Carrier {
    stream: Stream,
    /// Bytes that were read before it was known what is spoken.
    first: RefCell<Vec<u8>>,
    out: RefCell<Out>,
    read_budget: Cell<usize>,
    read_size: Cell<usize>,
    /// Bytes received so far, to tell whether the other side is alive.
    received: Cell<u64>,
    /// Bytes that the kernel took.
    written: Cell<u64>,
    watch: RefCell<FrameWatch>,
    unread: Rc<Unread>,
    flood: Cell<Option<Flood>>,
    /// Nothing goes out any more.
    is_mute: Cell<bool>,
    /// Since a write failed: what had come before is still to be read.
    is_broken: Cell<bool>,
}

/// What was written and has not gone out.
#[derive(Default)]
struct Out {
    bytes: Counted,
    /// How much of it has gone out.
    at: usize,
}

impl Carrier {
    /// `first`: what was read already. `watch` judges the frames that come; what of bodies they bring is told to `unread`.
    pub(super) fn new(
        stream: Stream,
        first: Vec<u8>,
        watch: FrameWatch,
        unread: Rc<Unread>,
    ) -> Rc<Self> {
        Rc::new(Self {
            stream,
            first: RefCell::new(first),
            out: RefCell::default(),
            read_budget: Cell::new(READ_BUDGET),
            read_size: Cell::new(READ_MIN),
            received: Cell::new(0),
            written: Cell::new(0),
            watch: RefCell::new(watch),
            unread,
            flood: Cell::new(None),
            is_mute: Cell::new(false),
            is_broken: Cell::new(false),
        })
    }

    /// The connection itself.
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Bytes received so far.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Bytes that the other side has not taken, of what h2 has written.
    pub(super) fn left(&self) -> u64 {
        let gathered = self.out.borrow().left().len() as u64;
        gathered.saturating_add(self.stream.unacknowledged())
    }

    /// How far the other side has come, for who has given h2 something of which no more than `ahead` bytes go before it.
    pub(super) fn taken(&self, ahead: usize) -> Taken {
        let written = self.written.get();
        let ahead = ahead.saturating_add(self.out.borrow().left().len());
        Taken {
            bytes: written.saturating_sub(self.stream.unacknowledged()),
            end: written.saturating_add(ahead as u64),
        }
    }

    fn add_written(&self, count: usize) {
        let written = self.written.get().saturating_add(count as u64);
        self.written.set(written);
    }

    /// Streams that the other side has opened, whatever became of them.
    pub(super) fn opened(&self) -> u64 {
        self.watch.borrow().opened()
    }

    /// Whether the other side has said GOAWAY, and that it has taken some of the streams.
    pub(super) fn has_taken_some(&self) -> bool {
        self.watch.borrow().has_taken_some()
    }

    /// What the other side sends too much of. From then on nothing is read.
    pub(super) fn flood(&self) -> Option<Flood> {
        self.flood.get()
    }

    /// The other side takes nothing any more: what h2 writes from now on is dropped.
    pub(super) fn stop_writing(&self) {
        self.is_mute.set(true);
        *self.out.borrow_mut() = Out::default();
    }

    /// Called before h2 is polled.
    pub(super) fn begin(&self) {
        self.read_budget.set(READ_BUDGET);
    }

    /// A write has failed, for which h2 would leave unread what has come: a GOAWAY may say which requests were not taken.
    /// [`Carrier::poll_flush`] tells of it.
    #[cold]
    fn note_broken(&self) {
        self.is_broken.set(true);
        self.stop_writing();
    }

    /// Writes what was gathered. Called after each poll of h2.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_broken.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut out = self.out.borrow_mut();
        while !out.left().is_empty() {
            let slices = [IoSlice::new(out.left())];
            let count = ready!(self.stream.poll_write(cx, &slices, Push::Now))?;
            self.add_written(count);
            out.went(count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.flood.get().is_some() {
            // The connection's task looks at this next, and closes.
            return Poll::Pending;
        }
        let mut first = self.first.borrow_mut();
        if !first.is_empty() {
            let count = first.len().min(room.remaining());
            let taken: Vec<u8> = first.drain(..count).collect();
            if first.is_empty() {
                *first = Vec::new();
            }
            if self.judge(&taken) {
                room.put_slice(&taken);
                return Poll::Ready(Ok(()));
            }
            return Poll::Pending;
        }
        let budget = self.read_budget.get();
        if budget == 0 {
            net::wake_after_others(cx);
            return Poll::Pending;
        }
        let size = room.remaining().min(self.read_size.get());
        let asked = room.initialize_unfilled_to(size);
        let count = match self.stream.poll_read(cx, asked) {
            // A write may know of the end before the reactor does.
            Poll::Pending if self.is_mute.get() => match self.stream.try_read(asked) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                read => read?,
            },
            polled => ready!(polled)?,
        };
        if !self.judge(asked.get(..count).unwrap_or_default()) {
            return Poll::Pending;
        }
        room.advance(count);
        self.read_budget.set(budget.saturating_sub(count));
        self.received
            .set(self.received.get().saturating_add(count as u64));
        if count == size {
            self.read_size.set((size * 2).clamp(READ_MIN, READ_MAX));
        } else if count < size / 4 {
            self.read_size.set((size / 2).max(READ_MIN));
        }
        Poll::Ready(Ok(()))
    }

    /// Whether what has come may be passed on.
    fn judge(&self, bytes: &[u8]) -> bool {
        let mut watch = self.watch.borrow_mut();
        let flood = watch.handle(bytes, net::now(), |stream, bytes| {
            self.unread.came(stream, bytes);
        });
        self.flood.set(flood);
        flood.is_none()
    }

    fn write(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        if self.is_mute.get() {
            return Poll::Ready(Ok(total));
        }
        let mut out = self.out.borrow_mut();
        loop {
            if out.left().len().saturating_add(total) <= GATHER_MAX {
                parts.iter().for_each(|part| out.add(part));
                return Poll::Ready(Ok(total));
            }
            let gathered = out.left().len();
            let written = {
                let mut slices: [IoSlice<'_>; SLICES_MAX] =
                    std::array::from_fn(|_| IoSlice::new(&[]));
                let own = std::iter::once(out.left()).filter(|own| !own.is_empty());
                let all = own.chain(parts.iter().map(|part| &**part));
                let mut count = 0;
                for (slice, part) in slices.iter_mut().zip(all) {
                    *slice = IoSlice::new(part);
                    count += 1;
                }
                let slices = slices.get(..count).unwrap_or_default();
                ready!(self.stream.poll_write(cx, slices, Push::Now))
            };
            let Ok(written) = written else {
                drop(out);
                self.note_broken();
                return Poll::Ready(Ok(total));
            };
            self.add_written(written);
            out.went(written.min(gathered));
            if written > gathered {
                return Poll::Ready(Ok(written - gathered));
            }
        }
    }
}

impl Out {
    fn left(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.bytes.capacity() == 0
            && let Some(spare) = SPARE.with_borrow_mut(Option::take)
        {
            self.bytes = spare;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn went(&mut self, count: usize) {
        self.at = self.at.saturating_add(count);
        if self.at >= self.bytes.len() && self.bytes.capacity() > 0 {
            self.at = 0;
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            SPARE.with_borrow_mut(|spare| *spare = Some(bytes));
        }
    }
}

/// The connection, for h2.
pub(super) struct Io(Rc<Carrier>);

impl Io {
    pub(super) fn new(carrier: &Rc<Carrier>) -> Self {
        Self(carrier.clone())
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_read(cx, room)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.write(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_flush(cx))?;
        Poll::Ready(self.0.stream.shutdown_write())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;

    /// A GOAWAY by which no stream was taken (RFC 9113 §6.8).
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const SOON: Duration = Duration::from_secs(10);

    /// What is read of a server that has said GOAWAY and reset, once a write of this size has failed: before the reactor
    /// has told of either.
    fn heard(write: &[u8], cx: &mut Context<'_>) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("an address"));
        let near = near.expect("it listens");
        let (mut far, _) = listener.accept().expect("a connection");
        near.set_nonblocking(true).expect("it can");
        let carrier = Carrier::new(
            Stream::from(net::Stream::from_std(near)),
            Vec::new(),
            FrameWatch::of_server(),
            Rc::default(),
        );
        let write = |cx: &mut Context<'_>| {
            let taken = carrier.write(cx, &[IoSlice::new(write)]);
            assert!(!matches!(taken, Poll::Ready(Err(_))), "h2 would stop");
            matches!(carrier.poll_flush(cx), Poll::Ready(Err(_)))
        };
        // Nobody reads it, so that the end is a reset.
        assert!(!write(cx));
        let mut room = [0; 64];
        let nothing = carrier.poll_read(cx, &mut ReadBuf::new(&mut room));
        assert!(nothing.is_pending());
        far.write_all(&GOAWAY).expect("sent");
        drop(far);
        let until = Instant::now() + SOON;
        while !write(cx) {
            assert!(Instant::now() < until, "no write fails");
        }
        carrier.stop_writing();
        let mut room = ReadBuf::new(&mut room);
        let _ = carrier.poll_read(cx, &mut room);
        room.filled().to_vec()
    }

    #[test]
    fn what_had_come_before_a_write_failed_is_read() {
        for size in [1, GATHER_MAX + 1] {
            let (out, result) = mpsc::channel();
            let worker = std::thread::spawn(move || {
                net::run(|_| {
                    net::spawn(async move {
                        let heard =
                            std::future::poll_fn(|cx| Poll::Ready(heard(&vec![0; size], cx)));
                        out.send(heard.await).expect("the test waits");
                        net::stop();
                    });
                })
            });
            let heard = result.recv_timeout(2 * SOON).expect("the worker ends");
            assert_eq!(heard, GOAWAY, "after a write of {size}");
            worker.join().expect("it ends").expect("its poll works");
        }
    }
}

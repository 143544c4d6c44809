//! Readiness of sockets, as the kernel's edges report it.

use std::cell::RefCell;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::task::{Poll, Waker};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use slab::Slab;

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 512;
const WAKE: Token = Token(usize::MAX);

/// What is known of one registered socket.
struct Entry {
    readable: bool,
    writable: bool,
    /// The other side has hung up or the socket failed: reading will never block again.
    read_closed: bool,
    /// A reset or an error was reported.
    failed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    hangup: Option<Waker>,
}

struct Reactor {
    poll: mio::Poll,
    events: Events,
}

thread_local! {
    static REACTOR: RefCell<Option<Reactor>> = const { RefCell::new(None) };
    /// Emptied by [`close`], so that no access has to see whether it is still there.
    static ENTRIES: ManuallyDrop<RefCell<Slab<Entry>>> = const {
        ManuallyDrop::new(RefCell::new(Slab::new()))
    };
}

fn with_entries<T>(f: impl FnOnce(&mut Slab<Entry>) -> T) -> T {
    ENTRIES.with(|entries| f(&mut entries.borrow_mut()))
}

/// Opens this thread's poll and gives the waker for its inbox.
pub(super) fn open() -> io::Result<mio::Waker> {
    let poll = mio::Poll::new()?;
    let waker = mio::Waker::new(poll.registry(), WAKE)?;
    REACTOR.set(Some(Reactor {
        poll,
        events: Events::with_capacity(EVENTS_MAX),
    }));
    Ok(waker)
}

/// Forgets this thread's sockets; those that still live are dropped unheard.
pub(super) fn close() {
    with_entries(|entries| *entries = Slab::new());
}

/// Waits for events and queues the tasks that wait for them; true when the inbox was signalled.
pub(super) fn wait(timeout: Option<Duration>) -> io::Result<bool> {
    let mut signalled = false;
    REACTOR.with_borrow_mut(|reactor| {
        let Some(Reactor { poll, events }) = reactor.as_mut() else {
            return Err(io::Error::other("this thread runs no worker"));
        };
        match poll.poll(events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        with_entries(|entries| {
            for event in events.iter() {
                if event.token() == WAKE {
                    signalled = true;
                } else if let Some(entry) = entries.get_mut(event.token().0) {
                    entry.take(event);
                }
            }
        });
        Ok(())
    })?;
    Ok(signalled)
}

impl Entry {
    fn is_ready(&self, side: Side) -> bool {
        match side {
            Side::Read => self.readable,
            Side::Write => self.writable,
            Side::End => self.read_closed,
            Side::Hangup => self.failed,
        }
    }

    fn take(&mut self, event: &mio::event::Event) {
        // A failure arrives as "hung up" on one or both halves; both sides must then try and see it.
        let failed = event.is_error() || (event.is_read_closed() && event.is_write_closed());
        self.failed |= failed;
        if event.is_readable() || event.is_read_closed() || failed {
            self.readable = true;
            self.read_closed |= event.is_read_closed() || failed;
            if let Some(waker) = self.reader.take() {
                waker.wake();
            }
        }
        if event.is_writable() || event.is_write_closed() || failed {
            self.writable = true;
            if let Some(waker) = self.writer.take() {
                waker.wake();
            }
        }
        if failed && let Some(waker) = self.hangup.take() {
            waker.wake();
        }
    }
}

/// One registered socket of this thread. Dropping it forgets the entry; the descriptor's own close takes it out
/// of the kernel's set.
pub(super) struct Registration {
    key: usize,
    /// Means nothing to another thread.
    _of_this_thread: PhantomData<*const ()>,
}

/// Which half of a socket a task waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Read,
    Write,
    /// That the other side will send no more: woken by whatever comes.
    End,
    /// Neither: only that the connection failed.
    Hangup,
}

impl Registration {
    /// Registers a socket for both directions, edge-triggered. Whatever is ready now is reported by the next wait.
    pub(super) fn new(fd: RawFd, interest: Interest) -> io::Result<Self> {
        let key = with_entries(|entries| {
            entries.insert(Entry {
                readable: false,
                writable: false,
                read_closed: false,
                failed: false,
                reader: None,
                writer: None,
                hangup: None,
            })
        });
        let registration = Self {
            key,
            _of_this_thread: PhantomData,
        };
        REACTOR.with_borrow(|reactor| match reactor.as_ref() {
            Some(reactor) => {
                reactor
                    .poll
                    .registry()
                    .register(&mut SourceFd(&fd), Token(key), interest)
            }
            None => Err(io::Error::other("this thread runs no worker")),
        })?;
        Ok(registration)
    }

    /// Takes the socket out of the kernel's set, for one that lives on elsewhere.
    pub(super) fn deregister(self, fd: RawFd) {
        REACTOR.with_borrow(|reactor| {
            if let Some(reactor) = reactor.as_ref() {
                let _ = reactor.poll.registry().deregister(&mut SourceFd(&fd));
            }
        });
    }

    pub(super) fn is_ready(&self, side: Side) -> bool {
        self.with(|entry| entry.is_ready(side))
    }

    /// Forgets readiness: the next event must set it again. A closed read half stays ready for ever.
    pub(super) fn clear(&self, side: Side) {
        self.with(|entry| match side {
            Side::Read => entry.readable = entry.read_closed,
            Side::Write => entry.writable = entry.failed,
            Side::End | Side::Hangup => {}
        });
    }

    /// Ready when `side` is; else `waker`'s task is woken when it becomes so. One task for each side at a time.
    pub(super) fn poll(&self, side: Side, waker: &Waker) -> Poll<()> {
        self.with(|entry| {
            if entry.is_ready(side) {
                return Poll::Ready(());
            }
            let place = match side {
                Side::Read | Side::End => &mut entry.reader,
                Side::Write => &mut entry.writer,
                Side::Hangup => &mut entry.hangup,
            };
            match place {
                Some(known) if known.will_wake(waker) => {}
                _ => *place = Some(waker.clone()),
            }
            Poll::Pending
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Entry) -> T) -> T {
        with_entries(|entries| f(&mut entries[self.key]))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        with_entries(|entries| entries.try_remove(self.key));
    }
}

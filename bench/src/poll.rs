//! Readiness by epoll, level-triggered: as little as the programs of the benchmark need.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Events taken at once.
const BATCH: usize = 256;

/// An epoll instance.
#[derive(Debug)]
pub struct Poll(OwnedFd);

/// What a socket waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes to read, or the other end's close.
    Read,
    /// Room to write.
    Write,
    /// Both.
    Both,
    /// Only errors and hang-ups, which epoll always tells.
    Nothing,
}

/// What a socket is ready for.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// The number that the socket was added with.
    pub token: u64,
    /// A read will not block: bytes, the end, or an error.
    pub read: bool,
    /// A write will not block.
    pub write: bool,
    /// Gone in both directions.
    pub gone: bool,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Read => EventFlags::IN,
            Self::Write => EventFlags::OUT,
            Self::Both => EventFlags::IN | EventFlags::OUT,
            Self::Nothing => EventFlags::empty(),
        }
    }
}

impl Poll {
    /// A new instance.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Watches a descriptor until it is closed.
    ///
    /// # Errors
    /// What the system says.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(
            &self.0,
            fd,
            EventData::new_u64(token),
            interest.flags(),
        )?)
    }

    /// Watches a descriptor for something else.
    ///
    /// # Errors
    /// What the system says.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(
            &self.0,
            fd,
            EventData::new_u64(token),
            interest.flags(),
        )?)
    }

    /// Waits for the next events, which replace those in `events`.
    ///
    /// # Errors
    /// What the system says; an interruption by a signal is none.
    pub fn wait(&self, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        events.reserve(BATCH);
        match epoll::wait(&self.0, rustix::buffer::spare_capacity(events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What an event says.
#[must_use]
pub fn ready(event: &Event) -> Ready {
    let (flags, data) = (event.flags, event.data);
    let gone = flags.intersects(EventFlags::ERR | EventFlags::HUP);
    Ready {
        token: data.u64(),
        read: gone || flags.contains(EventFlags::IN),
        write: flags.contains(EventFlags::OUT),
        gone,
    }
}

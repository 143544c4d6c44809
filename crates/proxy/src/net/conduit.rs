//! Bytes from one socket to another inside the kernel: through a pipe, so that a stream is not copied into this process
//! and out again (splice(2), Linux).

use std::cell::Cell;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::Push;
use super::files::{self, Use};

/// Bytes that a conduit is to hold, and that move at once. The kernel may grant less: what a user's pipes hold together
/// is bounded. Half of it costs a TCP stream 5 % more CPU, twice as much 3 % less.
const CAPACITY: usize = 512 * 1024;

/// A pipe. What is put in must come out before more is put in: then "would block" has one meaning on either side.
pub(crate) struct Conduit {
    way_in: OwnedFd,
    way_out: OwnedFd,
    held: Cell<usize>,
}

impl Conduit {
    /// `None` when the kernel grants no pipe, or knows no splicing, or hardly any descriptor is left: bytes are then
    /// copied.
    #[cfg(target_os = "linux")]
    pub(crate) fn open() -> Option<Self> {
        use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
        let (way_out, way_in) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        if !files::may_have(Use::Client, &way_out) || !files::may_have(Use::Client, &way_in) {
            return None;
        }
        // A user's pipes together are bounded: the size that it has will do.
        let _ = fcntl_setpipe_size(&way_in, CAPACITY);
        Some(Self {
            way_in,
            way_out,
            held: Cell::new(0),
        })
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn open() -> Option<Self> {
        None
    }

    /// Whether the kernel splices for this process: sandboxes may refuse it.
    pub(crate) fn is_possible() -> bool {
        let try_it = || -> io::Result<usize> {
            let (near, far) = UnixStream::pair()?;
            (&near).write_all(b"x")?;
            let conduit = Self::open().ok_or(io::ErrorKind::Unsupported)?;
            conduit.fill(&far, 1)?;
            conduit.drain(&far, Push::Now)
        };
        try_it().is_ok()
    }

    /// Whether all that was put in has come out.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.get() == 0
    }

    /// Moves at most `max` bytes in from a socket, 0 at its end; `WouldBlock` when nothing has come. Only while it is
    /// empty.
    pub(super) fn fill(&self, from: impl AsFd, max: usize) -> io::Result<usize> {
        let count = splice(from, &self.way_in, max.min(CAPACITY), Push::Now)?;
        self.held.set(count);
        Ok(count)
    }

    /// Moves out to a socket what it takes; `WouldBlock` when it takes nothing.
    pub(super) fn drain(&self, to: impl AsFd, push: Push) -> io::Result<usize> {
        let count = splice(&self.way_out, to, self.held.get(), push)?;
        self.held.set(self.held.get().saturating_sub(count));
        Ok(count)
    }
}

#[cfg(target_os = "linux")]
fn splice(from: impl AsFd, to: impl AsFd, max: usize, push: Push) -> io::Result<usize> {
    use rustix::pipe::SpliceFlags;
    let mut flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    if push == Push::WithClose {
        flags |= SpliceFlags::MORE;
    }
    Ok(rustix::pipe::splice(from, None, to, None, max, flags)?)
}

#[cfg(not(target_os = "linux"))]
fn splice(_: impl AsFd, _: impl AsFd, _: usize, _: Push) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

//! Connections on their way from the worker that accepted them to another: bare descriptors that nobody has read from.
//!
//! Who should have one is decided in `control::crew`. A worker's box is a list behind a lock, taken only for a
//! connection that moves; the first one in wakes the worker, and what comes until it looks goes with that wake. A
//! connection that was handed is served where it arrives: it never moves twice, unless that worker is lost.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use control::live::ListenerState;
use control::world::World;

use crate::engine;
use crate::http2;
use crate::net::{Bare, Remote};
use crate::tls::{Registry, ServerTls};

/// An accepted connection, with all that another worker needs to serve it.
pub(crate) struct Handed {
    /// Its listener's name.
    pub(crate) name: Arc<str>,
    pub(crate) place: HeldPlace,
    /// The world that it was accepted in, and the listener's index there.
    pub(crate) world: Arc<World>,
    pub(crate) index: usize,
    pub(crate) socket: Bare,
    pub(crate) peer: Option<SocketAddr>,
    /// What its client is to meet, where it was accepted.
    pub(crate) tls: Option<Arc<ServerTls>>,
}

/// A place among a listener's connections that is taken; free again when dropped.
pub(crate) struct HeldPlace {
    state: Arc<ListenerState>,
    is_passed_on: bool,
}

impl HeldPlace {
    /// One that is counted already.
    pub(crate) fn taken(state: Arc<ListenerState>) -> Self {
        Self {
            state,
            is_passed_on: false,
        }
    }

    /// Whose it is.
    pub(crate) fn state(&self) -> &Arc<ListenerState> {
        &self.state
    }

    /// Leaves it to the caller to free it.
    pub(crate) fn pass_on(mut self) {
        self.is_passed_on = true;
    }
}

impl Drop for HeldPlace {
    fn drop(&mut self) {
        if !self.is_passed_on {
            self.state.connections.fetch_sub(1, Relaxed);
        }
    }
}

/// The boxes of all workers.
#[derive(Default)]
pub(crate) struct Mailboxes {
    boxes: Box<[Mutex<Mailbox>]>,
    /// What else all of them share: TLS of each world.
    pub(crate) tls: Registry,
    /// And connections to servers that speak HTTP/2.
    pub(crate) http2: http2::Registry,
}

#[derive(Default)]
struct Mailbox {
    /// `None` while the worker has no thread.
    remote: Option<Remote>,
    waiting: Vec<Handed>,
}

impl Mailboxes {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            boxes: (0..workers).map(|_| Mutex::default()).collect(),
            tls: Registry::default(),
            http2: http2::Registry::default(),
        }
    }

    fn of(&self, worker: usize) -> Option<MutexGuard<'_, Mailbox>> {
        let mailbox = self.boxes.get(worker)?;
        Some(mailbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on the worker can be given connections.
    pub(crate) fn open(&self, worker: usize, remote: Remote) {
        if let Some(mut mailbox) = self.of(worker) {
            mailbox.remote = Some(remote);
        }
    }

    /// The worker's thread has ended: gives what it did not take up.
    pub(crate) fn close(&self, worker: usize) -> Vec<Handed> {
        if let Some(mut mailbox) = self.of(worker) {
            mailbox.remote = None;
        }
        self.take(worker)
    }

    /// Gives a connection to a worker, which is claimed for it; comes back when that has no thread.
    pub(crate) fn give(&self, to: usize, handed: Handed) -> Result<(), Box<Handed>> {
        let Some(mut mailbox) = self.of(to) else {
            return Err(Box::new(handed));
        };
        let Some(remote) = mailbox.remote.clone() else {
            return Err(Box::new(handed));
        };
        let is_first = mailbox.waiting.is_empty();
        mailbox.waiting.push(handed);
        drop(mailbox);
        if is_first {
            remote.run(engine::take_handed);
        }
        Ok(())
    }

    /// Runs `job` on a worker's thread; false when it has none.
    pub(crate) fn run(&self, worker: usize, job: impl FnOnce() + Send + 'static) -> bool {
        let remote = self.of(worker).and_then(|mailbox| mailbox.remote.clone());
        let Some(remote) = remote else {
            return false;
        };
        remote.run(job);
        true
    }

    /// All that waits for a worker, each with its claim of that worker.
    pub(crate) fn take(&self, worker: usize) -> Vec<Handed> {
        let waiting = self
            .of(worker)
            .map(|mut it| std::mem::take(&mut it.waiting));
        waiting.unwrap_or_default()
    }
}

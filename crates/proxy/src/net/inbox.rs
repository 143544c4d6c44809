//! How other threads reach a worker: closures to run there and wakes of its tasks, one eventfd write however
//! many of them wait.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::executor;
use super::waker::TaskId;

/// Every inbox of the process, by worker number.
static INBOXES: RwLock<Vec<Arc<Inbox>>> = RwLock::new(Vec::new());

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Waiting {
    jobs: Vec<Job>,
    wakes: Vec<TaskId>,
    /// Its worker has ended: nothing is taken in any more.
    closed: bool,
}

struct Inbox {
    waiting: Mutex<Waiting>,
    signalled: AtomicBool,
    waker: mio::Waker,
}

/// Reaches a worker from any thread.
#[derive(Clone)]
pub(crate) struct Remote(Arc<Inbox>);

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}

impl Remote {
    /// Runs `job` on the worker's thread, between two of its tasks; jobs run in the order they were given.
    /// After the worker has ended nothing runs, and the job is dropped.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut waiting = self.0.lock();
        if waiting.closed {
            return;
        }
        waiting.jobs.push(Box::new(job));
        drop(waiting);
        self.0.signal();
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            // Fails only when the eventfd's counter is full, which means that a wake is already pending.
            let _ = self.waker.wake();
        }
    }
}

/// Makes an inbox and gives it a worker number: that of a worker that has ended, if there is one.
pub(super) fn open(waker: mio::Waker) -> io::Result<(u16, Remote)> {
    let inbox = Arc::new(Inbox {
        waiting: Mutex::default(),
        signalled: AtomicBool::new(false),
        waker,
    });
    let mut all = INBOXES.write().unwrap_or_else(PoisonError::into_inner);
    let free = all.iter().position(|inbox| inbox.lock().closed);
    let number = free.unwrap_or(all.len());
    let too_many = |_| io::Error::other("65,536 workers in one process");
    let named = u16::try_from(number).map_err(too_many)?;
    match all.get_mut(number) {
        Some(place) => *place = inbox.clone(),
        None => all.push(inbox.clone()),
    }
    Ok((named, Remote(inbox)))
}

/// Takes nothing in any more, and drops what waits. A late wake of the worker's tasks may then reach one of the next
/// worker with this number, which takes it for one without cause.
pub(super) fn close(remote: &Remote) {
    let mut waiting = remote.0.lock();
    waiting.closed = true;
    let left = (
        std::mem::take(&mut waiting.jobs),
        std::mem::take(&mut waiting.wakes),
    );
    // A job may own what reaches for inboxes when it is dropped.
    drop(waiting);
    drop(left);
}

/// Runs what has come in for this thread's worker. Called after a poll that the inbox's waker ended.
pub(super) fn drain(remote: &Remote) {
    remote.0.signalled.store(false, Ordering::Release);
    let (jobs, wakes) = {
        let mut waiting = remote.0.lock();
        let Waiting { jobs, wakes, .. } = &mut *waiting;
        (std::mem::take(jobs), std::mem::take(wakes))
    };
    for id in wakes {
        executor::wake_local(id);
    }
    for job in jobs {
        job();
    }
}

pub(super) fn wake_remote(id: TaskId) {
    let all = INBOXES.read().unwrap_or_else(PoisonError::into_inner);
    let Some(inbox) = all.get(usize::from(id.worker)) else {
        return;
    };
    let mut waiting = inbox.lock();
    if waiting.closed {
        return;
    }
    waiting.wakes.push(id);
    drop(waiting);
    inbox.signal();
}

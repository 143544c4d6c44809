//! How other threads reach a worker: closures to run there and wakes of its tasks, one eventfd write however
//! many of them wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::executor;
use super::waker::TaskId;

/// Every inbox of the process, by worker number.
static INBOXES: RwLock<Vec<Arc<Inbox>>> = RwLock::new(Vec::new());

type Job = Box<dyn FnOnce() + Send>;

struct Inbox {
    jobs: Mutex<(Vec<Job>, Vec<TaskId>)>,
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
    /// After the worker has ended nothing runs, and the job is dropped with the inbox.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut jobs = self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.0.push(Box::new(job));
        drop(jobs);
        self.0.signal();
    }
}

impl Inbox {
    fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            // Fails only when the eventfd's counter is full, which means that a wake is already pending.
            let _ = self.waker.wake();
        }
    }
}

/// Makes an inbox and gives it the next worker number.
pub(super) fn open(waker: mio::Waker) -> (u16, Remote) {
    let inbox = Arc::new(Inbox {
        jobs: Mutex::default(),
        signalled: AtomicBool::new(false),
        waker,
    });
    let mut all = INBOXES.write().unwrap_or_else(PoisonError::into_inner);
    all.push(inbox.clone());
    let number = u16::try_from(all.len() - 1).expect("fewer than 65,536 workers in a process");
    (number, Remote(inbox))
}

/// Runs what has come in for this thread's worker. Called after a poll that the inbox's waker ended.
pub(super) fn drain(remote: &Remote) {
    remote.0.signalled.store(false, Ordering::Release);
    let (jobs, wakes) = {
        let mut waiting = remote.0.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *waiting)
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
    let mut jobs = inbox.jobs.lock().unwrap_or_else(PoisonError::into_inner);
    jobs.1.push(id);
    drop(jobs);
    inbox.signal();
}

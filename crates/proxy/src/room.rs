//! Room for one more socket to a server, made by closing one that is idle: here, or on another worker.
//!
//! Only run by who finds `limits.connections_per_server`, or its pool's `limits.max_connections`, reached. Which sockets
//! another worker keeps idle only that one knows: it is asked, and answers by closing one or not.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use control::live::Member;
use control::sockets::Full;

use crate::engine;
use crate::net::{self, Deadline};
use crate::worker::Worker;

/// A worker that has not answered by then is not waited for.
const ANSWER_WAIT: Duration = Duration::from_millis(100);

/// What room is wanted for, and where there is none.
#[derive(Clone, Copy)]
pub(crate) struct Room<'a> {
    pub(crate) member: &'a Arc<Member>,
    pub(crate) full: Full,
    /// The number of the TLS whose connections over HTTP/2 to this server stay: whoever asks would share one.
    pub(crate) kept: Option<u32>,
}

/// What is asked of the other workers.
struct Asked {
    member: Arc<Member>,
    full: Full,
    kept: Option<u32>,
    /// Workers that have not answered.
    left: AtomicUsize,
    closed: AtomicBool,
    waker: Waker,
}

impl Asked {
    /// Runs on each of them.
    fn answer(&self) {
        let room = Room {
            member: &self.member,
            full: self.full,
            kept: self.kept,
        };
        if engine::here().is_some_and(|worker| room.close_here(&worker)) {
            self.closed.store(true, Ordering::SeqCst);
        }
        let was_last = self.left.fetch_sub(1, Ordering::SeqCst) == 1;
        if was_last || self.closed.load(Ordering::SeqCst) {
            self.waker.wake_by_ref();
        }
    }
}

impl Room<'_> {
    /// Has an idle socket closed, if there is one. Given up at `until`, on [`net::now`]'s clock.
    pub(crate) async fn make(self, worker: &Worker, until: Duration, deadline: &Deadline) {
        if !self.has_idle(worker) || self.close_here(worker) {
            return;
        }
        let answered_by = net::now().saturating_add(ANSWER_WAIT);
        deadline.set_at(Some(until.min(answered_by)));
        let mut asked: Option<Arc<Asked>> = None;
        let answers = poll_fn(|cx| {
            let asked = asked.get_or_insert_with(|| self.ask(worker, cx.waker()));
            if asked.closed.load(Ordering::SeqCst) || asked.left.load(Ordering::SeqCst) == 0 {
                return Poll::Ready(());
            }
            Poll::Pending
        });
        // Who does not answer in time has nothing to give.
        let _ = deadline.guard(answers).await;
    }

    fn ask(self, worker: &Worker, waker: &Waker) -> Arc<Asked> {
        let others = (0..worker.hub.worker_count).filter(|number| *number != worker.number);
        let asked = Arc::new(Asked {
            member: self.member.clone(),
            full: self.full,
            kept: self.kept,
            left: AtomicUsize::new(others.clone().count()),
            closed: AtomicBool::new(false),
            waker: waker.clone(),
        });
        for number in others {
            let job = asked.clone();
            if !worker.mailboxes.run(number, move || job.answer()) {
                asked.left.fetch_sub(1, Ordering::SeqCst);
            }
        }
        asked
    }

    /// Whether there are more sockets than requests that use them, which may share one over HTTP/2; who asks holds a
    /// request, and no socket.
    pub(crate) fn has_idle(self, worker: &Worker) -> bool {
        let member = self.member;
        match self.full {
            Full::Server => {
                let busy = member.cell.in_use().saturating_sub(1);
                member.sockets() > busy || worker.mailboxes.http2.has_idle(member.id, self.kept)
            }
            Full::Pool => member.gate.sockets() >= member.gate.in_use(),
        }
    }

    fn close_here(self, worker: &Worker) -> bool {
        let matches = |of: &Member| match self.full {
            Full::Server => of.id == self.member.id,
            Full::Pool => Arc::ptr_eq(&of.gate, &self.member.gate),
        };
        let stays =
            |of: &Member, transport| of.id == self.member.id && Some(transport) == self.kept;
        worker.idle.close_one(matches) || worker.http2.close_one(matches, stays)
    }
}

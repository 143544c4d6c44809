//! A single-threaded executor on the kernel's readiness (epoll, kqueue), one for each worker thread.
//!
//! It does: tasks, wakes (from this thread and from others), sockets, deadlines. What makes it cheap:
//! a task is a slot and its waker a number, so that a wake from its own thread is a queue push; a socket is
//! read once before it is registered, and registered once, edge-triggered; a short read clears readiness;
//! ready tasks run in a batch between two polls; a deadline is a number that is only looked at when a coarse
//! wheel comes round.
//!
//! It does not know HTTP, servers or configs. Nothing outside this folder names mio.

mod conduit;
mod executor;
pub(crate) mod files;
mod inbox;
mod reactor;
mod socket;
mod taken;
#[cfg(test)]
mod tests;
mod timer;
mod waker;

pub(crate) use conduit::Conduit;
pub(crate) use executor::{
    after_ready, goes_behind, panics, run, spawn, stop, wake_after_others, yield_now,
};
pub(crate) use inbox::Remote;
pub(crate) use socket::{Acceptor, Bare, ConnectError, Push, Stream, connect_tcp, connect_unix};
pub(crate) use taken::Taken;
pub use timer::origin;
pub(crate) use timer::{Deadline, Elapsed, clock, expire, expire_where, now, sleep};

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

/// What ended first.
pub(crate) enum First<A, B> {
    /// The first future, which is asked first.
    Left(A),
    /// The second one.
    Right(B),
}

/// Polls both futures in one task until either ends; the other is dropped.
pub(crate) async fn race<A: Future, B: Future>(a: A, b: B) -> First<A::Output, B::Output> {
    let mut a = pin!(a);
    let mut b = pin!(b);
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(out) = a.as_mut().poll(cx) {
            return Poll::Ready(First::Left(out));
        }
        match b.as_mut().poll(cx) {
            Poll::Ready(out) => Poll::Ready(First::Right(out)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

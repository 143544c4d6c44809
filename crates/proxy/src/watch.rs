//! Whether a client is still there while something else is waited for.
//!
//! A client whose request was there at once has never been waited for, so that the kernel does not report what becomes of
//! it. To ask for that is a system call, which requests that are answered soon are spared: it is made once a wait has
//! lasted for [`UNWATCHED`].

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::net::{self, Deadline};
use crate::stream::Stream;

/// How long a wait goes on before a client is watched that nobody has waited for yet: short enough for who leaves not to
/// keep a place from others, long enough that hardly a request comes to it.
const UNWATCHED: Duration = Duration::from_millis(250);

/// A look at the client during one wait.
#[derive(Default)]
pub(crate) struct Watch {
    /// When the client is watched, on [`net::now`]'s clock.
    due: Cell<Option<Duration>>,
}

impl Watch {
    /// Ready when the client's connection has failed (a reset), not when the client has only stopped sending. `deadline` is
    /// one that the waiting task polls meanwhile.
    #[inline]
    pub(crate) fn poll_failed(
        &self,
        client: &Stream,
        deadline: &Deadline,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if !client.is_registered() && !self.is_due(deadline) {
            return Poll::Pending;
        }
        match client.poll_failed(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            // A client that cannot be watched is not gone for that.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }

    fn is_due(&self, deadline: &Deadline) -> bool {
        let now = net::now();
        let due = self.due.get().unwrap_or_else(|| {
            let due = now.saturating_add(UNWATCHED);
            self.due.set(Some(due));
            deadline.wake_at(due);
            due
        });
        due <= now
    }
}

/// Waits for `future`, which waits by `deadline`, unless the client's connection fails before; `None`: it did.
pub(crate) async fn unless_gone<F: Future>(
    client: &Stream,
    deadline: &Deadline,
    mut future: Pin<&mut F>,
) -> Option<F::Output> {
    let watch = Watch::default();
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        watch.poll_failed(client, deadline, cx).map(|()| None)
    })
    .await
}

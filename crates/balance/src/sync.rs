//! Atomics and the one lock: the standard library's, or those of the model checker (`--cfg loom`).

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

#[cfg(not(loom))]
pub(crate) use std::sync::{
    MutexGuard, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

/// For those who wait anyway, and those who end while others wait.
#[cfg(not(loom))]
#[expect(
    clippy::disallowed_types,
    reason = "a request that waits, or ends while others wait, is not on the fast path; what is held is a look into a map"
)]
pub(crate) type Mutex<T> = std::sync::Mutex<T>;

/// Locks; what a panic left behind is whole, since nothing here panics between two writes.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(loom)]
    return mutex.lock().expect("a model has no poisoned lock");
    #[cfg(not(loom))]
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

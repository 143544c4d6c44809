//! Atomics, and the one lock of this crate; loom's in its models (`model/`).

#[cfg(feature = "loom")]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, Ordering, fence},
};
pub(crate) use std::sync::PoisonError;
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::{
    MutexGuard,
    atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

/// For those who wait anyway, and those who end while others wait.
#[cfg(not(feature = "loom"))]
#[expect(
    clippy::disallowed_types,
    reason = "a request that waits, or ends while others wait, is not on the fast path; what is held is a look into a map"
)]
pub(crate) type Mutex<T> = std::sync::Mutex<T>;

/// Locks; what a panic left behind is whole, since nothing here panics between two writes.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

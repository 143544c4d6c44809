//! What this thread's buffers hold, told to the process in steps.
//!
//! Counted where memory is allocated and freed, not where it is used: a request whose buffers are recycled ones costs
//! nothing here.

use std::cell::{Cell, OnceCell};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use control::memory::Level;
use control::world::Hub;

thread_local! {
    static METER: Meter = const { Meter::new() };
}

/// The bytes of one thread.
struct Meter {
    held: Cell<u64>,
    told: Cell<u64>,
    hub: OnceCell<Arc<Hub>>,
}

impl Meter {
    const fn new() -> Self {
        Self {
            held: Cell::new(0),
            told: Cell::new(0),
            hub: OnceCell::new(),
        }
    }

    fn change(&self, less: usize, more: usize) {
        let held = self.held.get().saturating_add(more as u64);
        let held = held.saturating_sub(less as u64);
        self.held.set(held);
        let Some(hub) = self.hub.get() else { return };
        if held.abs_diff(self.told.get()) >= hub.memory.step() {
            hub.memory.handle_held(self.told.replace(held), held);
        }
    }
}

impl Drop for Meter {
    /// The thread ends, and all that it held with it.
    fn drop(&mut self) {
        if let Some(hub) = self.hub.get() {
            hub.memory.handle_held(self.told.get(), 0);
        }
    }
}

/// Tells of this thread's buffers to `hub`, from now on.
pub(crate) fn begin(hub: &Arc<Hub>) {
    METER.with(|meter| {
        let _ = meter.hub.set(hub.clone());
    });
}

/// What is to be done about the process's buffers.
pub(crate) fn level() -> Level {
    let level = |meter: &Meter| meter.hub.get().map(|hub| hub.memory.level());
    let level = METER.try_with(level).ok().flatten();
    level.unwrap_or_default()
}

/// Counts what something else has freed, and has allocated.
pub(crate) fn change(less: usize, more: usize) {
    // Gone only while the thread ends.
    let _ = METER.try_with(|meter| meter.change(less, more));
}

/// Bytes whose allocation is counted.
#[derive(Default)]
pub(crate) struct Counted(Vec<u8>);

impl Counted {
    pub(crate) fn zeroed(len: usize) -> Self {
        let bytes = vec![0; len];
        change(0, bytes.capacity());
        Self(bytes)
    }

    /// As [`Vec::resize`], with zeros.
    pub(crate) fn resize(&mut self, len: usize) {
        self.alter(|bytes| bytes.resize(len, 0));
    }

    pub(crate) fn extend_from_slice(&mut self, more: &[u8]) {
        self.alter(|bytes| bytes.extend_from_slice(more));
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    pub(crate) fn shrink_to(&mut self, capacity: usize) {
        self.alter(|bytes| bytes.shrink_to(capacity));
    }

    fn alter(&mut self, alter: impl FnOnce(&mut Vec<u8>)) {
        let before = self.0.capacity();
        alter(&mut self.0);
        let after = self.0.capacity();
        if after != before {
            change(before, after);
        }
    }
}

/// Bytes that something else allocated, counted for as long as this lives.
pub(crate) struct Held {
    bytes: usize,
    is_for_others: bool,
}

impl Held {
    pub(crate) fn new(bytes: usize) -> Self {
        change(0, bytes);
        Self {
            bytes,
            is_for_others: false,
        }
    }

    /// That another thread may free: told to the process at once, since no thread's meter sees both.
    pub(crate) fn for_others(bytes: usize) -> Self {
        tell(0, bytes);
        Self {
            bytes,
            is_for_others: true,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.is_for_others {
            tell(self.bytes, 0);
        } else {
            change(self.bytes, 0);
        }
    }
}

fn tell(less: usize, more: usize) {
    let _ = METER.try_with(|meter| {
        if let Some(hub) = meter.hub.get() {
            hub.memory.handle_held(less as u64, more as u64);
        }
    });
}

impl Drop for Counted {
    fn drop(&mut self) {
        let capacity = self.0.capacity();
        if capacity != 0 {
            change(capacity, 0);
        }
    }
}

impl Deref for Counted {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Counted {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// What this thread holds.
#[cfg(test)]
pub(crate) fn held() -> u64 {
    METER.with(|meter| meter.held.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_counted_until_it_is_freed() {
        let before = held();
        let mut bytes = Counted::zeroed(1000);
        assert_eq!(held(), before + 1000);
        bytes.resize(3000);
        assert_eq!(held(), before + bytes.capacity() as u64);
        let mut other = Counted::default();
        other.extend_from_slice(&[1; 500]);
        other.clear();
        assert_eq!(
            held(),
            before + (bytes.capacity() + other.capacity()) as u64
        );
        other.shrink_to(0);
        drop(std::mem::take(&mut bytes));
        assert_eq!(held(), before);
    }
}

//! Buffers that are recycled within a worker and given back when a connection is idle.

use std::cell::{Cell, OnceCell, RefCell};
use std::ops::Deref;
use std::rc::Rc;

use control::memory::Level;

use crate::memory::{self, Counted};
use crate::net::Conduit;

/// Size of a fresh buffer, and of one direction of an exchange.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;
/// Size of a buffer for a stream that fills the usual one: fewer system calls for each byte.
const BULK_BYTES: usize = 128 * 1024;
/// Buffers kept for the next user; what is over is freed. Those that nobody needed for a second are not kept.
const KEPT_MAX: usize = 1024;
/// Large buffers in use by one worker; further streams do with the usual ones.
const BULK_MAX: usize = 64;
/// Large buffers kept.
const BULK_KEPT_MAX: usize = 8;
/// Conduits that hold something for a slow receiver, or move something now, of one worker; further streams are copied.
/// Two descriptors each.
pub(crate) const CONDUITS_MAX: usize = 32;
/// Conduits kept.
const CONDUITS_KEPT_MAX: usize = 4;

/// Bytes that were read and not yet used: a window into a recycled allocation.
#[derive(Default)]
pub(crate) struct Buffer {
    /// Initialised over its whole length.
    bytes: Counted,
    start: usize,
    end: usize,
    /// The last read filled it: there may be much more.
    was_full: bool,
    /// One of the large ones that are counted.
    is_bulk: bool,
    /// How the process stood when this was allocated; calm for a recycled one, which takes nothing more.
    pub(crate) level: Level,
}

impl Buffer {
    fn fresh(size: usize) -> Self {
        Self {
            bytes: Counted::zeroed(size),
            level: memory::level(),
            ..Self::default()
        }
    }

    /// One that holds a copy of `bytes`, and has room for no more.
    pub(crate) fn holding(bytes: &[u8]) -> Self {
        let mut buffer = Self::fresh(bytes.len());
        buffer.fill(bytes);
        buffer
    }

    pub(crate) fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    pub(crate) fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether it holds memory.
    pub(crate) fn is_allocated(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Room to read into. Moves what is left to the front when the end is reached.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.end == self.bytes.len() && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Makes the buffer hold at least `total` bytes from its start on, up to `max`. False when `max` is reached.
    pub(crate) fn grow(&mut self, max: usize) -> bool {
        if self.bytes.len() >= max {
            return false;
        }
        let wanted = (self.bytes.len().max(BUFFER_BYTES) * 2).min(max);
        self.bytes.resize(wanted);
        true
    }

    /// Holds a copy of `bytes`, and nothing else, however large it must grow for them.
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        self.start = 0;
        self.end = 0;
        if self.bytes.len() < bytes.len() {
            self.bytes.resize(bytes.len());
        }
        if let Some(room) = self.bytes.get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
        }
        self.added(bytes.len());
    }

    /// Notes that `count` bytes were read into the room.
    pub(crate) fn added(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
        self.was_full = self.end == self.bytes.len();
    }

    /// Whether it is empty, and the last read filled it: there is probably much more.
    pub(crate) fn is_in_bulk(&self) -> bool {
        self.was_full && self.is_empty()
    }

    /// Notes that what comes now does not fill it.
    pub(crate) fn end_bulk(&mut self) {
        self.was_full = false;
    }

    /// Notes that `count` bytes from the front were used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }
}

/// Things that are free to be used again, and how many of them nobody needed of late.
pub(crate) struct Spares<T> {
    free: RefCell<Vec<T>>,
    /// The fewest that were free at once since the last [`Spares::trim`].
    unused: Cell<usize>,
    max: Cell<usize>,
}

impl<T> Spares<T> {
    /// At most `max` are kept.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            free: RefCell::default(),
            unused: Cell::new(0),
            max: Cell::new(max),
        }
    }

    pub(crate) fn take(&self) -> Option<T> {
        let mut free = self.free.borrow_mut();
        let one = free.pop();
        self.unused.set(self.unused.get().min(free.len()));
        one
    }

    /// Keeps one for the next user; frees it when there are enough.
    pub(crate) fn give(&self, one: T) {
        let mut free = self.free.borrow_mut();
        if free.len() < self.max.get() {
            free.push(one);
        }
    }

    /// From now on at most `max` are kept.
    fn set_max(&self, max: usize) {
        self.max.set(max);
        self.free.borrow_mut().truncate(max);
    }

    /// Frees those that nobody needed since the last time.
    pub(crate) fn trim(&self) {
        let mut free = self.free.borrow_mut();
        let needed = free.len().saturating_sub(self.unused.get());
        free.truncate(needed);
        self.unused.set(needed);
        // After a burst the list itself is most of what is left.
        if free.capacity() > needed.saturating_mul(4) {
            free.shrink_to(needed);
        }
    }
}

/// The free buffers of one worker.
pub(crate) struct Buffers {
    usual: Spares<Buffer>,
    bulk: Spares<Buffer>,
    bulk_in_use: Cell<usize>,
    conduits: Spares<Rc<Conduit>>,
    conduits_in_use: Cell<usize>,
    /// Whether the kernel splices, once somebody has asked.
    splices: OnceCell<bool>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            usual: Spares::new(KEPT_MAX),
            bulk: Spares::new(BULK_KEPT_MAX),
            bulk_in_use: Cell::new(0),
            conduits: Spares::new(CONDUITS_KEPT_MAX),
            conduits_in_use: Cell::new(0),
            splices: OnceCell::new(),
        }
    }
}

impl Buffers {
    pub(crate) fn take(&self) -> Buffer {
        self.usual.take().unwrap_or_else(|| self.fresh())
    }

    /// The same for what can wait; `None` while the process can spare none.
    pub(crate) fn take_if_any(&self) -> Option<Buffer> {
        let kept = self.usual.take();
        kept.or_else(|| (memory::level() < Level::Full).then(|| self.fresh()))
    }

    #[cold]
    fn fresh(&self) -> Buffer {
        let buffer = Buffer::fresh(BUFFER_BYTES);
        if buffer.level >= Level::Shedding {
            // What was let go for want of memory is not kept for others.
            self.usual.set_max(0);
            self.bulk.set_max(0);
        }
        buffer
    }

    /// Takes a buffer back. One that grew for a head is freed, so that it does not stay.
    pub(crate) fn give(&self, mut buffer: Buffer) {
        let was_bulk = std::mem::take(&mut buffer.is_bulk);
        if was_bulk {
            let in_use = self.bulk_in_use.get();
            self.bulk_in_use.set(in_use.saturating_sub(1));
        }
        let spares = match (buffer.bytes.len(), was_bulk) {
            (BUFFER_BYTES, _) => &self.usual,
            (BULK_BYTES, true) => &self.bulk,
            _ => return,
        };
        buffer.start = 0;
        buffer.end = 0;
        buffer.was_full = false;
        buffer.level = Level::Calm;
        spares.give(buffer);
    }

    /// Frees the buffers that nobody needed since the last time; all that are free while memory is short.
    pub(crate) fn trim(&self) {
        let is_calm = memory::level() == Level::Calm;
        self.usual.set_max(if is_calm { KEPT_MAX } else { 0 });
        self.bulk.set_max(if is_calm { BULK_KEPT_MAX } else { 0 });
        self.usual.trim();
        self.bulk.trim();
        self.conduits.trim();
    }

    /// An empty conduit; `None` when as many are in use as may be, memory is short, or the kernel grants none.
    pub(crate) fn conduit(&self) -> Option<Borrowed<'_>> {
        let in_use = self.conduits_in_use.get();
        let is_calm = memory::level() == Level::Calm;
        if in_use >= CONDUITS_MAX || !is_calm || !*self.splices.get_or_init(Conduit::is_possible) {
            return None;
        }
        let conduit = match self.conduits.take() {
            Some(conduit) => conduit,
            None => Rc::new(Conduit::open()?),
        };
        self.conduits_in_use.set(in_use + 1);
        Some(Borrowed {
            conduit,
            buffers: self,
        })
    }

    /// Changes an empty buffer that the last read filled for a large one, while there are any.
    pub(crate) fn widen(&self, buffer: &mut Buffer) {
        let in_use = self.bulk_in_use.get();
        if buffer.is_in_bulk()
            && buffer.bytes.len() == BUFFER_BYTES
            && in_use < BULK_MAX
            && memory::level() == Level::Calm
        {
            self.bulk_in_use.set(in_use + 1);
            let kept = self.bulk.take();
            let mut large = kept.unwrap_or_else(|| Buffer::fresh(BULK_BYTES));
            large.is_bulk = true;
            self.give(std::mem::replace(buffer, large));
        }
    }
}

/// A conduit of a worker; it goes back when dropped, unless something is left in it.
pub(crate) struct Borrowed<'a> {
    conduit: Rc<Conduit>,
    buffers: &'a Buffers,
}

impl Deref for Borrowed<'_> {
    type Target = Conduit;

    fn deref(&self) -> &Conduit {
        &self.conduit
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        let in_use = &self.buffers.conduits_in_use;
        in_use.set(in_use.get().saturating_sub(1));
        if self.conduit.is_empty() {
            self.buffers.conduits.give(self.conduit.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_and_a_grown_one_does_not() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer
            .room()
            .get_mut(..3)
            .expect("room")
            .copy_from_slice(b"abc");
        buffer.added(3);
        buffer.consume(1);
        assert_eq!(buffer.filled(), b"bc");
        buffers.give(buffer);
        let mut buffer = buffers.take();
        assert!(buffer.is_empty());
        assert!(buffer.grow(20_000));
        assert!(!buffer.grow(20_000));
        assert_eq!(buffer.room().len(), 20_000);
        buffers.give(buffer);
        assert!(buffers.usual.free.borrow().is_empty());
    }

    #[test]
    fn one_that_holds_a_head_takes_no_more_memory_than_that_and_is_not_kept() {
        let before = memory::held();
        let mut buffer = Buffer::holding(b"GET / HTTP/1.1");
        assert_eq!(memory::held(), before + 14);
        assert_eq!(buffer.filled(), b"GET / HTTP/1.1");
        assert!(buffer.room().is_empty());
        let buffers = Buffers::default();
        buffers.give(buffer);
        assert_eq!(memory::held(), before);
    }

    #[test]
    fn large_buffers_are_for_streams_that_fill_the_usual_ones_and_are_bounded() {
        let buffers = Buffers::default();
        let mut wide = Vec::new();
        for _ in 0..=BULK_MAX {
            let mut buffer = buffers.take();
            buffers.widen(&mut buffer);
            assert_eq!(buffer.room().len(), BUFFER_BYTES, "nothing has filled it");
            buffer.added(BUFFER_BYTES);
            buffer.consume(BUFFER_BYTES);
            buffers.widen(&mut buffer);
            wide.push(buffer);
        }
        let sizes: Vec<usize> = wide.iter_mut().map(|buffer| buffer.room().len()).collect();
        assert_eq!(
            sizes.iter().filter(|size| **size == BULK_BYTES).count(),
            BULK_MAX
        );
        wide.into_iter().for_each(|buffer| buffers.give(buffer));
        assert_eq!(buffers.bulk_in_use.get(), 0);
        assert_eq!(buffers.bulk.free.borrow().len(), BULK_KEPT_MAX);
    }

    #[test]
    fn who_grows_for_a_head_is_not_taken_for_a_large_buffer() {
        let buffers = Buffers::default();
        let mut grown = buffers.take();
        while grown.room().len() < BULK_BYTES {
            assert!(grown.grow(BULK_BYTES));
        }
        let mut wide = buffers.take();
        wide.added(BUFFER_BYTES);
        wide.consume(BUFFER_BYTES);
        buffers.widen(&mut wide);
        assert!(wide.grow(2 * BULK_BYTES));
        buffers.give(grown);
        assert_eq!(buffers.bulk_in_use.get(), 1, "it was never one of them");
        buffers.give(wide);
        assert_eq!(buffers.bulk_in_use.get(), 0, "however large it has become");
    }

    #[test]
    fn conduits_come_back_and_are_bounded() {
        let buffers = Buffers::default();
        let mut held: Vec<_> = (0..CONDUITS_MAX)
            .map(|_| buffers.conduit().expect("one more"))
            .collect();
        assert!(buffers.conduit().is_none());
        held.pop();
        assert!(buffers.conduit().is_some());
        held.clear();
        assert_eq!(buffers.conduits_in_use.get(), 0);
        assert_eq!(buffers.conduits.free.borrow().len(), CONDUITS_KEPT_MAX);
    }

    #[test]
    fn spares_that_nobody_needed_for_a_while_are_freed_and_no_others() {
        let spares = Spares::new(10);
        (0..12).for_each(|n| spares.give(n));
        let left = |spares: &Spares<i32>| spares.free.borrow().len();
        assert_eq!(left(&spares), 10);
        spares.trim();
        let (a, b) = (spares.take(), spares.take());
        [a, b].into_iter().flatten().for_each(|n| spares.give(n));
        spares.trim();
        assert_eq!(left(&spares), 2);
        spares.trim();
        assert_eq!(left(&spares), 0);
    }
}

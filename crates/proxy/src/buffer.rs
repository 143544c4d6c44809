//! Buffers that are recycled within a worker and given back when a connection is idle.

use std::cell::RefCell;

/// Size of a fresh buffer, and of one direction of an exchange.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;
/// Buffers kept for the next user; what is over is freed.
const KEPT_MAX: usize = 256;

/// Bytes that were read and not yet used: a window into a recycled allocation.
#[derive(Default)]
pub(crate) struct Buffer {
    /// Initialised over its whole length.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn fresh() -> Self {
        Self {
            bytes: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
        }
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
        self.bytes.resize(wanted, 0);
        true
    }

    /// Notes that `count` bytes were read into the room.
    pub(crate) fn added(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Notes that `count` bytes from the front were used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }
}

/// The free buffers of one worker.
#[derive(Default)]
pub(crate) struct Buffers(RefCell<Vec<Buffer>>);

impl Buffers {
    pub(crate) fn take(&self) -> Buffer {
        self.0.borrow_mut().pop().unwrap_or_else(Buffer::fresh)
    }

    /// Takes a buffer back. One that grew is freed, so that a large head does not stay.
    pub(crate) fn give(&self, mut buffer: Buffer) {
        let mut kept = self.0.borrow_mut();
        if buffer.bytes.len() == BUFFER_BYTES && kept.len() < KEPT_MAX {
            buffer.start = 0;
            buffer.end = 0;
            kept.push(buffer);
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
        assert!(buffers.0.borrow().is_empty());
    }
}

//! Buffers for records: recycled within a worker, and held by a connection only while something is in them.

use std::cell::{Cell, RefCell};
use std::io::IoSlice;

use crate::buffer::Spares;
use crate::memory::Counted;

/// Bytes of a plaintext record at most (RFC 8446 §5.1).
pub(super) const PLAIN_BYTES_MAX: usize = 16 * 1024;
/// What one record is longer by than its plaintext, at most (RFC 5246 §6.2.3).
const OVERHEAD_BYTES: usize = 2048 + 5;
/// Room for one record, as it is read.
const RECORD_BYTES: usize = PLAIN_BYTES_MAX + OVERHEAD_BYTES;
/// Room for several, for a stream that fills the usual one: fewer system calls for each byte.
const BULK_BYTES: usize = 4 * RECORD_BYTES;
/// Room for a handshake message in pieces; who sends more is refused. Certificates of clients may be long.
const HANDSHAKE_BYTES: usize = 5 * RECORD_BYTES;
/// Plaintext that is encrypted for one write.
pub(super) const BATCH_BYTES: usize = 4 * PLAIN_BYTES_MAX;
/// What a batch grows by: five bytes of header, a tag and at most a nonce or a type for each record.
const BATCH_OVERHEAD: usize = 8 * 64;
/// What was left from before, a ticket or an alert, and goes out with a batch.
const LEFT_BYTES: usize = 8 * 1024;
/// Buffers kept for the next user, of each size.
const KEPT_MAX: usize = 64;

thread_local! {
    static USUAL: Spares<Counted> = Spares::new(KEPT_MAX);
    static BULK: Spares<Counted> = Spares::new(8);
    static OUTGOING: RefCell<Outgoing> = RefCell::default();
}

/// Frees the buffers that nobody needed since the last time.
pub(crate) fn trim() {
    USUAL.with(Spares::trim);
    BULK.with(Spares::trim);
}

/// Ciphertext that was read and is not used yet. Without an allocation while it is empty.
#[derive(Default)]
pub(super) struct Incoming {
    bytes: Counted,
    start: usize,
    end: usize,
    /// The last read filled it: there may be much more.
    was_full: Cell<bool>,
}

impl Incoming {
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
    }

    pub(super) fn added(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.bytes.len());
        self.was_full.set(self.end == self.bytes.len());
    }

    /// Room to read into; empty when what is there is longer than anything may be.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.is_empty() {
            self.start = 0;
            self.end = 0;
            if self.bytes.is_empty() {
                let kept = USUAL.with(Spares::take);
                self.bytes = kept.unwrap_or_else(|| Counted::zeroed(RECORD_BYTES));
            } else if self.was_full.get() && self.bytes.len() == RECORD_BYTES {
                let kept = BULK.with(Spares::take);
                let large = kept.unwrap_or_else(|| Counted::zeroed(BULK_BYTES));
                give(std::mem::replace(&mut self.bytes, large));
            }
        } else if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        } else if self.end == self.bytes.len() && self.end < HANDSHAKE_BYTES {
            let mut larger = Counted::zeroed(HANDSHAKE_BYTES);
            if let Some(front) = larger.get_mut(..self.end) {
                front.copy_from_slice(self.filled());
            }
            give(std::mem::replace(&mut self.bytes, larger));
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Gives the buffer back, if nothing is in it.
    pub(super) fn rest(&mut self) {
        if self.is_empty() && !self.bytes.is_empty() {
            give(std::mem::take(&mut self.bytes));
            self.start = 0;
            self.end = 0;
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.bytes));
    }
}

fn give(bytes: Counted) {
    // Refused while the thread ends: then it is freed.
    let _ = match bytes.len() {
        RECORD_BYTES => USUAL.try_with(|spares| spares.give(bytes)),
        BULK_BYTES => BULK.try_with(|spares| spares.give(bytes)),
        _ => Ok(()),
    };
}

/// Ciphertext of one write: one for each worker, since what a socket does not take is copied out.
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    end: usize,
    /// Pieces of plaintext that are put together into one record.
    pub(super) gathered: Vec<u8>,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            end: 0,
            gathered: Vec::with_capacity(PLAIN_BYTES_MAX),
        }
    }
}

impl Outgoing {
    /// Lends this thread's.
    pub(super) fn with<T>(job: impl FnOnce(&mut Self) -> T) -> T {
        OUTGOING.with_borrow_mut(|outgoing| {
            if outgoing.bytes.is_empty() {
                outgoing.bytes = vec![0; LEFT_BYTES + BATCH_BYTES + BATCH_OVERHEAD];
            }
            outgoing.end = 0;
            outgoing.gathered.clear();
            job(outgoing)
        })
    }

    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.get(..self.end).unwrap_or_default()
    }

    pub(super) fn slice(&self) -> IoSlice<'_> {
        IoSlice::new(self.filled())
    }

    /// Takes in what was left from before; false when that is too long to go out with a batch.
    pub(super) fn begin_with(&mut self, left: &[u8]) -> bool {
        let fits = left.len() <= LEFT_BYTES;
        if fits && let Some(front) = self.bytes.get_mut(..left.len()) {
            front.copy_from_slice(left);
            self.end = left.len();
        }
        fits
    }

    pub(super) fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    pub(super) fn added(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_held_only_while_something_is_in_it() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.room().len(), RECORD_BYTES);
        incoming.added(10);
        incoming.consume(4);
        incoming.rest();
        assert_eq!(incoming.filled().len(), 6);
        assert_eq!(incoming.room().len(), RECORD_BYTES - 6);
        incoming.consume(6);
        incoming.rest();
        assert!(incoming.bytes.is_empty());
    }

    #[test]
    fn a_stream_that_fills_it_gets_a_larger_one_and_a_long_message_room() {
        let mut incoming = Incoming::default();
        let room = incoming.room().len();
        incoming.added(room);
        assert_eq!(incoming.room().len(), HANDSHAKE_BYTES - RECORD_BYTES);
        let room = incoming.room().len();
        incoming.added(room);
        assert!(incoming.room().is_empty(), "no message is as long as that");

        let mut incoming = Incoming::default();
        let room = incoming.room().len();
        incoming.added(room);
        incoming.consume(room);
        assert_eq!(incoming.room().len(), BULK_BYTES);
    }
}

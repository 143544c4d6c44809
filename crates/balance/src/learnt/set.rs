//! Eight entries side by side, and the two words of each.

use std::time::Duration;

use super::key::Key;
use crate::sync::{AtomicU64, Ordering};

/// Entries of a set.
pub(super) const SLOTS: usize = 8;
/// The key word of a slot that nobody has.
pub(super) const EMPTY: u64 = 0;
/// The key word of a slot that is changing hands.
pub(super) const BUSY: u64 = 1;
pub(super) const SERVER_BITS: u32 = 20;
const TAG_BITS: u32 = 12;

/// Keys on one cache line, values on the next: CPUs fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Set {
    keys: [AtomicU64; SLOTS],
    values: [AtomicU64; SLOTS],
}

/// One entry's place.
#[derive(Clone, Copy)]
pub(super) struct Slot<'t> {
    pub(super) key: &'t AtomicU64,
    pub(super) value: &'t AtomicU64,
}

/// An entry as it was a moment ago.
pub(super) struct Seen<'t> {
    pub(super) slot: Slot<'t>,
    pub(super) key: Key,
    pub(super) value: Value,
}

/// When an entry was used, its server, and a few bits of its key:
///
/// ```text
///  63                              32 31                  12 11          0
/// +----------------------------------+----------------------+-------------+
/// | used: sixteenths of a second     | server               | tag         |
/// +----------------------------------+----------------------+-------------+
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Value(pub(super) u64);

impl Value {
    pub(super) fn new(key: Key, server: u32, used: u32) -> Self {
        let server = u64::from(server) << TAG_BITS;
        Self((u64::from(used) << 32) | server | tag(key.word()))
    }

    pub(super) fn used(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) fn server(self) -> u32 {
        (self.0 as u32) >> TAG_BITS
    }

    pub(super) fn with_used(self, used: u32) -> Self {
        Self((u64::from(used) << 32) | (self.0 & u64::from(u32::MAX)))
    }

    fn is_of(self, key: u64) -> bool {
        self.0 & ((1 << TAG_BITS) - 1) == tag(key)
    }
}

fn tag(key: u64) -> u64 {
    key & ((1 << TAG_BITS) - 1)
}

/// Ticks from `used` to `now`; none when another thread's clock was ahead.
pub(super) fn age(now: u32, used: u32) -> u32 {
    let age = now.wrapping_sub(used);
    if age > u32::MAX / 2 { 0 } else { age }
}

impl Set {
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let slots = self.keys.iter().zip(&self.values);
        slots.map(|(key, value)| Slot { key, value })
    }

    pub(super) fn find(&self, key: Key) -> Option<Seen<'_>> {
        let mut slots = self.slots();
        slots.find_map(|slot| slot.seen_as(key))
    }
}

impl<'t> Slot<'t> {
    /// Whoever's it is.
    pub(super) fn seen(self) -> Option<Seen<'t>> {
        self.seen_as(Key::from_word(self.key.load(Ordering::Acquire))?)
    }

    /// If it is this key's.
    fn seen_as(self, key: Key) -> Option<Seen<'t>> {
        let word = key.word();
        if self.key.load(Ordering::Acquire) != word {
            return None;
        }
        let value = Value(self.value.load(Ordering::Acquire));
        // If the value were another's, the slot would have been marked busy before it was written.
        let same = self.key.load(Ordering::Relaxed) == word && value.is_of(word);
        same.then_some(Seen {
            slot: self,
            key,
            value,
        })
    }

    /// Marks the slot as changing hands, if its key word is still this.
    pub(super) fn claim(self, key: u64) -> bool {
        self.key
            .compare_exchange(key, BUSY, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Gives a slot that is claimed to a key.
    pub(super) fn fill(self, key: Key, value: Value) {
        self.value.store(value.0, Ordering::Release);
        self.key.store(key.word(), Ordering::Release);
    }
}

impl Seen<'_> {
    /// Gives the entry another value, if nobody else has meanwhile.
    pub(super) fn swap(&self, value: Value) -> bool {
        let word = &self.slot.value;
        word.compare_exchange(self.value.0, value.0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    pub(super) fn claim(&self) -> bool {
        self.slot.claim(self.key.word())
    }

    pub(super) fn is_still_here(&self) -> bool {
        self.slot.key.load(Ordering::Acquire) == self.key.word()
    }

    pub(super) fn entry(&self, now: u32) -> super::Entry {
        let unused = age(now, self.value.used());
        super::Entry {
            key: self.key,
            server: self.value.server(),
            unused: Duration::from_millis(u64::from(unused) * 125 / 2),
        }
    }
}

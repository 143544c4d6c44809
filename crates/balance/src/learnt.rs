//! What was learnt: which server a client was bound to last, in a table that all workers share and none locks.
//!
//! A [`Table`] keeps, by the keyed hash of whatever tells clients apart, a server's number and when it was last asked
//! for. It is bounded, and what was unused longest gives way; what was unused for longer than `expire` is as good as
//! gone. Which server a number stands for is the caller's affair: numbers that stand for *names* outlive a change of
//! the servers.
//!
//! # How it stays right without a lock
//! Entries lie in sets of eight, and a key has two sets in which it may lie (two random choices keep sets evenly full:
//! Azar, Broder, Karlin and Upfal, "Balanced Allocations", 1999). An entry is two words, the key and
//! the value; the value carries a few bits of its key, its server and its time. Who changes whose entry it is first
//! marks the key word as busy; so a reader who sees the same key before and after it read the value has read that
//! key's value. A new time or another server is one compare-and-swap of the value, which fails when the entry has
//! become another's meanwhile.
//!
//! * [`Table::find`] never waits or repeats: at most 16 keys are looked at.
//! * [`Table::bind`] tries again when others were quicker, a bounded number of times.
//! * Two threads that bind one new key at the same moment may both insert it. Both then look again, and what lies
//!   second is taken out: one of the two bindings stands.
//! * *Oldest first* is approximate: the one that gives way is the oldest of the 16 in which the newcomer may lie, and
//!   times are rounded to a sixteenth of a second.
//! * The bound may be passed by as many entries as there are threads that insert at the same moment.

mod key;
mod set;

use std::sync::Arc;
use std::time::Duration;

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};
pub use key::{Key, Secret};
use set::{BUSY, EMPTY, SLOTS, Seen, Set, Value, age};

/// Servers have numbers below this.
pub const SERVERS_MAX: u32 = 1 << set::SERVER_BITS;
/// So many entries a table holds at most, about 1.6 GB of them.
pub const ENTRIES_MAX: u32 = 1 << 26;
/// How often a binding is tried while others change the same entries.
const ATTEMPTS: usize = 16;

/// See the module's own words.
#[derive(Debug)]
pub struct Table {
    sets: Box<[Set]>,
    entries_max: u64,
    /// In ticks.
    expire: AtomicU32,
    len: Padded,
    totals: Arc<Tally>,
}

/// On a cache line of its own: it changes when an entry comes or goes, not when one is found.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

/// What became of the entries of a table, or of several that followed one another.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Tally {
    learnt: AtomicU64,
    moved: AtomicU64,
    evicted: AtomicU64,
    expired: AtomicU64,
    removed: AtomicU64,
    dropped: AtomicU64,
}

/// What a table holds and what became of its entries. None but `entries` ever falls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Entries now, those included that have expired and were not yet noticed.
    pub entries: u64,
    /// Bindings of keys that had none.
    pub learnt: u64,
    /// Bindings of keys that were bound to another server.
    pub moved: u64,
    /// Entries that gave way to others.
    pub evicted: u64,
    /// Entries that were unused for too long.
    pub expired: u64,
    /// Entries that were taken out by whoever runs this.
    pub removed: u64,
    /// Bindings given up, since too many others changed the same entries at that moment.
    pub dropped: u64,
}

/// What came of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// The key had no binding, or one that had expired.
    New,
    /// It was bound to this server already.
    Same,
    /// It was bound to another.
    Moved {
        /// The server that it was bound to.
        from: u32,
    },
    /// Nothing was bound: too many others changed the same entries at that moment, or the server's number is
    /// [`SERVERS_MAX`] or more.
    Dropped,
}

/// One binding, as lists show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub key: Key,
    /// The server's number.
    pub server: u32,
    /// How long it was not asked for.
    pub unused: Duration,
}

impl Table {
    /// An empty table of at most `entries_max` entries (1 to [`ENTRIES_MAX`]), each of which expires when it was unused
    /// for `expire` (a sixteenth of a second to four years). It takes 24 bytes for each, at once.
    #[must_use]
    pub fn new(entries_max: u32, expire: Duration) -> Self {
        Self::with_tally(entries_max, expire, Arc::default())
    }

    /// The same, counting on where another table has ended.
    #[must_use]
    pub fn with_tally(entries_max: u32, expire: Duration, totals: Arc<Tally>) -> Self {
        let entries_max = entries_max.clamp(1, ENTRIES_MAX);
        // A third more room than entries: two sets that are both full are next to impossible then.
        let sets = (entries_max as usize * 3).div_ceil(2 * SLOTS).max(2);
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
            entries_max: entries_max.into(),
            expire: AtomicU32::new(ticks_of_expiry(expire)),
            len: Padded::default(),
            totals,
        }
    }

    /// How many entries it holds at most.
    #[must_use]
    pub fn entries_max(&self) -> u32 {
        u32::try_from(self.entries_max).unwrap_or(ENTRIES_MAX)
    }

    /// Changes how long an entry may be unused.
    pub fn set_expire(&self, expire: Duration) {
        self.expire
            .store(ticks_of_expiry(expire), Ordering::Relaxed);
    }

    /// The server that the key is bound to; the entry counts as used at `now`. At most 16 keys are looked at, and
    /// nothing is written when it was used a moment ago.
    #[must_use]
    pub fn find(&self, key: Key, now: Duration) -> Option<u32> {
        let now = ticks(now);
        let seen = self.seek(key).filter(|seen| self.is_fresh(seen, now))?;
        if age(now, seen.value.used()) > 0 {
            // Somebody else may have touched, moved or replaced it: all the same to us.
            let _ = seen.swap(seen.value.with_used(now));
        }
        Some(seen.value.server())
    }

    /// As [`Table::find`], but the entry is no younger for it.
    #[must_use]
    pub fn peek(&self, key: Key, now: Duration) -> Option<u32> {
        let seen = self
            .seek(key)
            .filter(|seen| self.is_fresh(seen, ticks(now)))?;
        Some(seen.value.server())
    }

    /// The key's entry, which is no younger for it.
    #[must_use]
    pub fn entry(&self, key: Key, now: Duration) -> Option<Entry> {
        let now = ticks(now);
        let seen = self.seek(key).filter(|seen| self.is_fresh(seen, now))?;
        Some(seen.entry(now))
    }

    /// Binds the key to a server, as of `now`.
    pub fn bind(&self, key: Key, server: u32, now: Duration) -> Bound {
        if server >= SERVERS_MAX {
            self.totals.dropped.fetch_add(1, Ordering::Relaxed);
            return Bound::Dropped;
        }
        let bound = self.put(key, Value::new(key, server, ticks(now)), ticks(now));
        let total = match bound {
            Bound::New => &self.totals.learnt,
            Bound::Moved { .. } => &self.totals.moved,
            Bound::Dropped => &self.totals.dropped,
            Bound::Same => return bound,
        };
        total.fetch_add(1, Ordering::Relaxed);
        bound
    }

    /// Takes an entry over from another table or process, unless this one has the key already. Counts nothing as
    /// learnt. Whether it was taken over.
    pub fn restore(&self, entry: Entry, now: Duration) -> bool {
        let now = ticks(now);
        let used = now.wrapping_sub(ticks(entry.unused));
        let value = Value::new(entry.key, entry.server, used);
        if entry.server >= SERVERS_MAX || age(now, used) > self.expire() {
            return false;
        }
        let mut attempts = 0..ATTEMPTS;
        attempts.any(|_| self.seek(entry.key).is_none() && self.insert(entry.key, value, now))
    }

    /// Forgets a key. Whether it was bound.
    pub fn remove(&self, key: Key) -> bool {
        let mut found = false;
        for slot in self.sets_of(key).into_iter().flat_map(Set::slots) {
            found |= slot.key.load(Ordering::Acquire) == key.word() && self.empty(slot, key.word());
        }
        self.count_removed(found.into());
        found
    }

    /// Forgets all entries that `unwanted` names; gives how many these were. Looks at every entry: for those beside
    /// traffic.
    pub fn remove_if(&self, mut unwanted: impl FnMut(&Entry) -> bool, now: Duration) -> u64 {
        let mut count = 0;
        for slot in self.sets.iter().flat_map(Set::slots) {
            let Some(seen) = slot.seen() else { continue };
            if unwanted(&seen.entry(ticks(now))) && self.empty(slot, seen.key.word()) {
                count += 1;
            }
        }
        self.count_removed(count);
        count
    }

    /// Forgets what has expired, and shows the rest to `keep`. Looks at every entry: for those beside traffic.
    pub fn sweep(&self, now: Duration, mut keep: impl FnMut(&Entry)) {
        let now = ticks(now);
        for slot in self.sets.iter().flat_map(Set::slots) {
            let Some(seen) = slot.seen() else { continue };
            if self.is_fresh(&seen, now) {
                keep(&seen.entry(now));
            } else if seen.claim() {
                // It may have been bound again before the claim.
                if Value(slot.value.load(Ordering::Acquire)) == seen.value {
                    self.vacate(slot);
                    self.totals.expired.fetch_add(1, Ordering::Relaxed);
                } else {
                    slot.key.store(seen.key.word(), Ordering::Release);
                    self.settle(seen.key);
                }
            }
        }
    }

    /// Up to `max` entries from the place `from` on, 0 being the first, and the place to go on from; `None` when that
    /// was all. An entry that stays is shown once; those that come or go meanwhile may be shown or not.
    #[must_use]
    pub fn entries(&self, from: usize, max: usize, now: Duration) -> (Vec<Entry>, Option<usize>) {
        let now = ticks(now);
        let mut found = Vec::new();
        let mut places = self.sets.iter().flat_map(Set::slots).enumerate().skip(from);
        for (place, slot) in places.by_ref() {
            let Some(seen) = slot.seen().filter(|seen| self.is_fresh(seen, now)) else {
                continue;
            };
            if found.len() == max {
                return (found, Some(place));
            }
            found.push(seen.entry(now));
        }
        (found, None)
    }

    /// Shows every entry. For those beside traffic.
    pub fn visit(&self, now: Duration, mut show: impl FnMut(&Entry)) {
        let now = ticks(now);
        let seen = self
            .sets
            .iter()
            .flat_map(Set::slots)
            .filter_map(set::Slot::seen);
        for seen in seen.filter(|seen| self.is_fresh(seen, now)) {
            show(&seen.entry(now));
        }
    }

    /// What it holds, and what became of its entries.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let of = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Counts {
            entries: of(&self.len.0),
            learnt: of(&self.totals.learnt),
            moved: of(&self.totals.moved),
            evicted: of(&self.totals.evicted),
            expired: of(&self.totals.expired),
            removed: of(&self.totals.removed),
            dropped: of(&self.totals.dropped),
        }
    }

    fn count_removed(&self, count: u64) {
        self.totals.removed.fetch_add(count, Ordering::Relaxed);
    }

    fn expire(&self) -> u32 {
        self.expire.load(Ordering::Relaxed)
    }

    fn is_fresh(&self, seen: &Seen<'_>, now: u32) -> bool {
        age(now, seen.value.used()) <= self.expire()
    }

    /// The two sets in which a key may lie; they may be the same.
    fn sets_of(&self, key: Key) -> [&Set; 2] {
        let places = key.places(self.sets.len());
        places.map(|place| &self.sets[place])
    }

    /// The key's entry, expired or not.
    fn seek(&self, key: Key) -> Option<Seen<'_>> {
        let sets = self.sets_of(key);
        sets.into_iter().find_map(|set| set.find(key))
    }

    fn put(&self, key: Key, value: Value, now: u32) -> Bound {
        for _ in 0..ATTEMPTS {
            let Some(seen) = self.seek(key) else {
                if self.insert(key, value, now) {
                    return Bound::New;
                }
                continue;
            };
            let expired = !self.is_fresh(&seen, now);
            if seen.value == value {
                return Bound::Same;
            }
            // If it gave way to another meanwhile, the new value may have come too late for it.
            if !seen.swap(value) || !seen.is_still_here() {
                continue;
            }
            if expired {
                self.totals.expired.fetch_add(1, Ordering::Relaxed);
                return Bound::New;
            }
            return match seen.value.server() {
                from if from != value.server() => Bound::Moved { from },
                _ => Bound::Same,
            };
        }
        Bound::Dropped
    }

    /// Gives a new key a slot of its two sets. False when others took it first.
    fn insert(&self, key: Key, value: Value, now: u32) -> bool {
        let full = self.len.0.load(Ordering::Relaxed) >= self.entries_max;
        let mut free = None;
        let mut free_most = 0;
        let mut oldest: Option<Seen<'_>> = None;
        for set in self.sets_of(key) {
            let mut free_here = 0;
            for slot in set.slots() {
                match slot.seen() {
                    Some(seen) => {
                        let older = |other: &Seen<'_>| {
                            age(now, seen.value.used()) > age(now, other.value.used())
                        };
                        if oldest.as_ref().is_none_or(older) {
                            oldest = Some(seen);
                        }
                    }
                    None if slot.key.load(Ordering::Relaxed) == EMPTY => {
                        free_here += 1;
                        if free_here > free_most {
                            free_most = free_here;
                            free = Some(slot);
                        }
                    }
                    None => {}
                }
            }
        }
        let expired = oldest
            .as_ref()
            .is_some_and(|seen| !self.is_fresh(seen, now));
        let taken = match (free, oldest) {
            (_, Some(oldest)) if expired || full || free.is_none() => {
                let total = if expired {
                    &self.totals.expired
                } else {
                    &self.totals.evicted
                };
                self.take_over(&oldest, key, value, total)
            }
            (Some(free), _) => {
                if full {
                    self.evict_near(key, now);
                }
                let claimed = free.claim(EMPTY);
                if claimed {
                    self.len.0.fetch_add(1, Ordering::Relaxed);
                    free.fill(key, value);
                }
                claimed
            }
            (None, _) => false,
        };
        if taken {
            self.settle(key);
        }
        taken
    }

    /// Gives the slot of another entry to this key, unless that entry was used or replaced meanwhile.
    fn take_over(&self, seen: &Seen<'_>, key: Key, value: Value, total: &AtomicU64) -> bool {
        if !seen.claim() {
            return false;
        }
        if Value(seen.slot.value.load(Ordering::Acquire)) != seen.value {
            seen.slot.key.store(seen.key.word(), Ordering::Release);
            self.settle(seen.key);
            return false;
        }
        seen.slot.fill(key, value);
        total.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Makes room where the table is full and none of the newcomer's sets has an entry: the oldest of the nearest set
    /// that has one goes.
    fn evict_near(&self, key: Key, now: u32) {
        let [first, _] = key.places(self.sets.len());
        let (before, after) = self.sets.split_at(first);
        for set in after.iter().chain(before) {
            let seen = set.slots().filter_map(set::Slot::seen);
            if let Some(oldest) = seen.max_by_key(|seen| age(now, seen.value.used()))
                && self.empty(oldest.slot, oldest.key.word())
            {
                self.totals.evicted.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Leaves only the first of several entries of one key: those of threads that inserted it at the same moment.
    fn settle(&self, key: Key) {
        let word = key.word();
        // Each of them has written its entry before this, and reads those of the others after it.
        fence(Ordering::SeqCst);
        let [first, second] = self.sets_of(key);
        let again = (!std::ptr::eq(first, second)).then_some(second);
        let slots = first.slots().chain(again.into_iter().flat_map(Set::slots));
        let own = slots.filter(|slot| slot.key.load(Ordering::Relaxed) == word);
        for slot in own.skip(1) {
            self.empty(slot, word);
        }
    }

    /// Frees a slot if it is still this key's.
    fn empty(&self, slot: set::Slot<'_>, key: u64) -> bool {
        let claimed = slot.claim(key);
        if claimed {
            self.vacate(slot);
        }
        claimed
    }

    /// Frees a slot that is claimed.
    fn vacate(&self, slot: set::Slot<'_>) {
        debug_assert_eq!(slot.key.load(Ordering::Relaxed), BUSY);
        slot.value.store(0, Ordering::Release);
        slot.key.store(EMPTY, Ordering::Release);
        self.len.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sixteenths of a second; they begin anew after eight years, of which half are told from the other half.
fn ticks(at: Duration) -> u32 {
    const PER_SECOND: u32 = 16;
    let parts = at.subsec_nanos() / (1_000_000_000 / PER_SECOND);
    // The low bits are meant.
    (at.as_secs() as u32).wrapping_mul(PER_SECOND) + parts
}

fn ticks_of_expiry(expire: Duration) -> u32 {
    const MAX: Duration = Duration::from_secs(4 * 365 * 24 * 3600);
    ticks(expire.min(MAX)).max(1)
}

//! Deadlines on a coarse wheel.
//!
//! A deadline is a number; pushing it back is one store. The wheel only holds when to look at it again: when that
//! moment comes and the deadline has moved, it is put further along. So a connection that renews its deadline with
//! each request costs nothing for it. An empty wheel does not tick.

#![expect(
    clippy::indexing_slicing,
    reason = "slots are taken modulo the wheel's size, and keys come from the slab itself"
)]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

/// Width of a slot: a deadline fires up to this much late, never early.
const TICK: Duration = Duration::from_millis(8);
/// Slots of the wheel: about 65 s; what is further away is looked at once a round.
const SLOTS: u64 = 8192;
const WORDS: usize = (SLOTS / 64) as usize;
/// No deadline.
const NEVER: u64 = u64::MAX;
/// The tag of what [`expire`] has made fire: over until it is given another one.
const EXPIRED: u32 = u32::MAX - 1;

struct Entry {
    /// Tick at which it fires.
    at: u64,
    /// Tick at which whoever polls it is woken, whether it fires then or not; `NEVER`: not asked for, or over.
    wake_at: u64,
    /// Tick at which the wheel looks at it next; `NEVER`: it is in no slot.
    armed: u64,
    generation: u32,
    /// Deadlines of one tag can be made to fire together; 0 is no tag.
    tag: u32,
    waker: Option<Waker>,
}

struct Wheel {
    entries: Slab<Entry>,
    slots: Vec<Vec<(u32, u32)>>,
    occupied: [u64; WORDS],
    /// The last tick that was worked through.
    current: u64,
    generation: u32,
}

thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static WHEEL: RefCell<Wheel> = RefCell::new(Wheel::new());
}

/// The process's monotonic clock, read now: time since [`origin`].
pub(crate) fn clock() -> Duration {
    origin().elapsed()
}

/// The origin of the data plane's clock: its first use in this process.
pub fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// The same clock as this thread last read it: when it came back from the kernel, or some turns of tasks ago.
pub(crate) fn now() -> Duration {
    NOW.get()
}

/// The time was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// A moment after which what a task waits for is given up. Off when made.
pub(crate) struct Deadline {
    key: usize,
}

impl Deadline {
    pub(crate) fn new() -> Self {
        let key = WHEEL.with_borrow_mut(|wheel| {
            wheel.generation = wheel.generation.wrapping_add(1);
            let generation = wheel.generation;
            wheel.entries.insert(Entry {
                at: NEVER,
                wake_at: NEVER,
                armed: NEVER,
                generation,
                tag: 0,
                waker: None,
            })
        });
        Self { key }
    }

    /// Fires `after` from now; `None` turns it off.
    pub(crate) fn set(&self, after: Option<Duration>) {
        self.set_at(after.map(|after| now().saturating_add(after)));
    }

    /// Fires at a moment of [`now`]'s clock; `None` turns it off.
    pub(crate) fn set_at(&self, at: Option<Duration>) {
        let at = at.map_or(NEVER, tick_after);
        WHEEL.with_borrow_mut(|wheel| {
            let Some(entry) = wheel.entries.get_mut(self.key) else {
                return;
            };
            if entry.tag == EXPIRED {
                return;
            }
            entry.at = at;
            if entry.next() < entry.armed {
                wheel.arm(self.key);
            }
        });
    }

    /// Has whoever polls it polled once more at this moment of [`now`]'s clock, whenever it fires, and however often that
    /// is changed meanwhile. The last moment asked for counts.
    pub(crate) fn wake_at(&self, at: Duration) {
        let at = tick_after(at);
        WHEEL.with_borrow_mut(|wheel| {
            let Some(entry) = wheel.entries.get_mut(self.key) else {
                return;
            };
            entry.wake_at = at;
            if entry.next() < entry.armed {
                wheel.arm(self.key);
            }
        });
    }

    /// Marks what is waited for, so that [`expire`] finds it; one that it had found is off, and can be set again.
    pub(crate) fn tag(&self, tag: u32) {
        WHEEL.with_borrow_mut(|wheel| {
            if let Some(entry) = wheel.entries.get_mut(self.key) {
                if entry.tag == EXPIRED {
                    entry.at = NEVER;
                }
                entry.tag = tag;
            }
        });
    }

    /// Whether its moment has come.
    pub(crate) fn is_over(&self) -> bool {
        WHEEL.with_borrow(|wheel| {
            wheel
                .entries
                .get(self.key)
                .is_some_and(|entry| entry.at <= wheel.current)
        })
    }

    /// Wakes the task of `cx` when the moment comes; ready when it has come.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Elapsed> {
        WHEEL.with_borrow_mut(|wheel| {
            let Some(entry) = wheel.entries.get_mut(self.key) else {
                return Poll::Pending;
            };
            if entry.at <= wheel.current {
                return Poll::Ready(Elapsed);
            }
            match &entry.waker {
                Some(known) if known.will_wake(cx.waker()) => {}
                _ => entry.waker = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
    }

    /// Runs `future` until it ends or the deadline fires. The future is asked first, so that what is done counts.
    pub(crate) async fn guard<F: Future>(&self, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(out) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(out));
            }
            self.poll(cx).map(Err)
        })
        .await
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let _ = WHEEL.try_with(|wheel| {
            if let Ok(mut wheel) = wheel.try_borrow_mut()
                && wheel.entries.contains(self.key)
            {
                wheel.entries.remove(self.key);
            }
        });
    }
}

/// Makes every deadline of this thread that carries `tag` fire now, and stay over until it is given another tag: a task
/// that is between two waits, and sets it anew, finds it over at the next one.
pub(crate) fn expire(tag: u32) {
    expire_where(|it| it == tag);
}

/// The same for every tag that `is_meant` says; 0 is no tag.
pub(crate) fn expire_where(is_meant: impl Fn(u32) -> bool) {
    WHEEL.with_borrow_mut(|wheel| {
        for (_, entry) in &mut wheel.entries {
            if entry.tag != 0 && is_meant(entry.tag) {
                entry.at = 0;
                entry.tag = EXPIRED;
                if let Some(waker) = entry.waker.take() {
                    waker.wake();
                }
            }
        }
    });
}

/// Waits.
pub(crate) async fn sleep(duration: Duration) {
    let deadline = Deadline::new();
    deadline.set(Some(duration));
    std::future::poll_fn(|cx| deadline.poll(cx)).await;
}

/// Reads the clock and wakes what is due. Called after each wait for the kernel.
pub(super) fn advance() {
    let time = read_clock();
    WHEEL.with_borrow_mut(|wheel| wheel.advance(ticks(time)));
}

/// Reads the clock for those who ask for the time until the next call.
pub(super) fn read_clock() -> Duration {
    let time = clock();
    NOW.set(time);
    time
}

/// How long the kernel may be waited for; `None`: no deadline is set.
pub(super) fn until_next() -> Option<Duration> {
    let tick = WHEEL.with_borrow(|wheel| wheel.next_tick())?;
    let at = TICK.saturating_mul(u32::try_from(tick).unwrap_or(u32::MAX));
    // A millisecond is what the kernel's wait can tell apart; waiting too short would make it spin.
    Some(at.saturating_sub(clock()).max(Duration::from_millis(1)))
}

/// The first tick at which that moment has passed.
fn tick_after(at: Duration) -> u64 {
    ticks(at).saturating_add(1)
}

fn ticks(time: Duration) -> u64 {
    const OF_A_SECOND: u64 = 1000 / TICK.as_millis() as u64;
    let of_the_rest = time.subsec_millis() / TICK.as_millis() as u32;
    let of_seconds = time.as_secs().saturating_mul(OF_A_SECOND);
    of_seconds
        .saturating_add(u64::from(of_the_rest))
        .min(NEVER - 1)
}

impl Entry {
    /// Tick at which something is due.
    fn next(&self) -> u64 {
        self.at.min(self.wake_at)
    }
}

impl Wheel {
    fn new() -> Self {
        Self {
            entries: Slab::new(),
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; WORDS],
            current: 0,
            generation: 0,
        }
    }

    /// Puts an entry into the slot where it is next looked at: its own tick, or as far as the wheel reaches.
    fn arm(&mut self, key: usize) {
        let entry = &mut self.entries[key];
        let tick = entry
            .next()
            .clamp(self.current + 1, self.current + SLOTS - 1);
        entry.armed = tick;
        let slot = (tick % SLOTS) as usize;
        self.slots[slot].push((key as u32, entry.generation));
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    fn advance(&mut self, to: u64) {
        if to <= self.current {
            return;
        }
        // Nothing lies further than one round ahead, so that one round sees everything.
        let rounds_end = to.min(self.current + SLOTS);
        let mut tick = self.current + 1;
        self.current = to;
        while tick <= rounds_end {
            let slot = (tick % SLOTS) as usize;
            let word = self.occupied[slot / 64] >> (slot % 64);
            if word == 0 {
                tick += 64 - (slot % 64) as u64;
                continue;
            }
            let skip = u64::from(word.trailing_zeros());
            if skip > 0 {
                tick += skip;
                continue;
            }
            self.fire(slot);
            tick += 1;
        }
    }

    fn fire(&mut self, slot: usize) {
        self.occupied[slot / 64] &= !(1 << (slot % 64));
        let mut due = std::mem::take(&mut self.slots[slot]);
        for (key, generation) in due.drain(..) {
            let key = key as usize;
            let Some(entry) = self.entries.get_mut(key) else {
                continue;
            };
            // A stale place: the entry was freed and used again, or armed for an earlier moment since.
            if entry.generation != generation || entry.armed > self.current {
                continue;
            }
            entry.armed = NEVER;
            if entry.next() <= self.current
                && let Some(waker) = entry.waker.take()
            {
                waker.wake();
            }
            if entry.wake_at <= self.current {
                entry.wake_at = NEVER;
            }
            if entry.at > self.current && entry.next() != NEVER {
                self.arm(key);
            }
        }
        if self.slots[slot].is_empty() {
            self.slots[slot] = due;
        }
    }

    fn next_tick(&self) -> Option<u64> {
        let start = self.current + 1;
        let first = (start % SLOTS) as usize;
        for step in 0..=WORDS {
            let index = (first / 64 + step) % WORDS;
            let mut word = self.occupied[index];
            if step == 0 {
                word &= u64::MAX << (first % 64);
            } else if step == WORDS {
                word &= !(u64::MAX << (first % 64));
            }
            if word != 0 {
                let slot = (index * 64) as u64 + u64::from(word.trailing_zeros());
                let ahead = (slot + SLOTS - start % SLOTS) % SLOTS;
                return Some(start + ahead);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wheel_with(at: u64) -> (Wheel, usize) {
        let mut wheel = Wheel::new();
        let key = wheel.entries.insert(Entry {
            at,
            wake_at: NEVER,
            armed: NEVER,
            generation: 0,
            tag: 0,
            waker: None,
        });
        wheel.arm(key);
        (wheel, key)
    }

    #[test]
    fn fires_at_its_tick_and_not_before() {
        for at in [1, 63, 64, 65, 8191, 8192, 8193, 100_000] {
            let (mut wheel, key) = wheel_with(at);
            while wheel.entries[key].armed != NEVER {
                let next = wheel.next_tick().expect("armed");
                assert!(next <= at, "{next} is after {at}");
                wheel.advance(next);
            }
            assert_eq!(wheel.current, at);
            assert_eq!(wheel.next_tick(), None);
        }
    }

    #[test]
    fn a_long_sleep_of_the_thread_loses_nothing() {
        for (at, to) in [(5, 8192 * 3), (8191, 9000), (70_000, 70_000)] {
            let (mut wheel, key) = wheel_with(at);
            wheel.advance(to);
            if at <= to && wheel.entries[key].armed != NEVER {
                // Looked at once a round: still further along than one round.
                let next = wheel.next_tick().expect("armed");
                wheel.advance(next.max(to));
            }
            assert_eq!(wheel.entries[key].armed, NEVER, "at {at} to {to}");
        }
    }

    #[test]
    fn who_asks_to_be_woken_before_is_and_the_deadline_stays() {
        let (mut wheel, key) = wheel_with(10_000);
        wheel.entries[key].wake_at = 20;
        wheel.arm(key);
        wheel.entries[key].waker = Some(Waker::noop().clone());
        wheel.advance(19);
        assert!(wheel.entries[key].waker.is_some());
        wheel.advance(20);
        assert!(wheel.entries[key].waker.is_none());
        wheel.entries[key].waker = Some(Waker::noop().clone());
        while wheel.current < 10_000 {
            assert!(wheel.entries[key].waker.is_some(), "at {}", wheel.current);
            let next = wheel.next_tick().expect("armed");
            wheel.advance(next);
        }
        assert!(wheel.entries[key].waker.is_none());
        assert_eq!(wheel.next_tick(), None);
    }

    #[test]
    fn a_wake_asked_for_outlives_the_deadline() {
        let deadline = Deadline::new();
        let millis = Duration::from_millis;
        deadline.set_at(Some(millis(50)));
        deadline.wake_at(millis(250));
        WHEEL.with_borrow_mut(|wheel| wheel.advance(ticks(millis(60))));
        assert!(deadline.is_over());
        deadline.set_at(None);
        let next = WHEEL.with_borrow(Wheel::next_tick);
        assert_eq!(next, Some(tick_after(millis(250))));
    }

    #[test]
    fn pushing_back_is_seen_when_the_old_slot_comes() {
        let (mut wheel, key) = wheel_with(10);
        wheel.entries[key].at = 500;
        wheel.advance(10);
        assert_eq!(wheel.entries[key].armed, 500);
        wheel.advance(499);
        assert_eq!(wheel.entries[key].armed, 500);
        wheel.advance(500);
        assert_eq!(wheel.entries[key].armed, NEVER);
    }
}

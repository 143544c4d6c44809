//! The bytes that buffers of the process hold, and what is to be done about them.
//!
//! Workers add in steps what they have taken or given back since; who takes connections or requests looks at one word.
//! How much there may be is the runtime's to say.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// The largest step in which a worker tells of its bytes.
const STEP_MAX: u64 = 256 * 1024;
/// What workers have not told yet is at most this part of the bound, all together.
const UNTOLD_PART: u64 = 32;

/// What is to be done, from the least on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    #[default]
    Calm = 0,
    /// No new connections are accepted.
    Pausing = 1,
    /// New requests are refused, too, unless memory that is held anyway suffices for them.
    Shedding = 2,
    /// What runs gets no more, either.
    Full = 3,
}

impl Level {
    /// Where each level above [`Level::Calm`] begins and where it ends, in percent of the bound. What is missing of 100
    /// is what workers have not told.
    const MARKS: [(Self, u64, u64); 3] = [
        (Self::Full, 96, 93),
        (Self::Shedding, 90, 85),
        (Self::Pausing, 80, 70),
    ];

    fn of(number: u8) -> Self {
        match number {
            0 => Self::Calm,
            1 => Self::Pausing,
            2 => Self::Shedding,
            _ => Self::Full,
        }
    }

    /// The level with so many bytes held, after `before`: one that has begun lasts until a lower mark.
    fn next(before: Self, held: u64, max: u64) -> Self {
        let percent = |part: u64| max / 100 * part;
        for (level, begins, ends) in Self::MARKS {
            let mark = if before >= level { ends } else { begins };
            if held >= percent(mark) {
                return level;
            }
        }
        Self::Calm
    }
}

/// The bytes held by buffers of the process, and their bound.
#[derive(Debug)]
pub struct Memory {
    held: Padded<AtomicU64>,
    level: Padded<AtomicU8>,
    /// `u64::MAX`: no bound.
    max: AtomicU64,
    step: AtomicU64,
}

/// On a line of its own: what changes often beside what is read often.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl Default for Memory {
    fn default() -> Self {
        Self {
            held: Padded::default(),
            level: Padded::default(),
            max: AtomicU64::new(u64::MAX),
            step: AtomicU64::new(STEP_MAX),
        }
    }
}

impl Memory {
    /// Bounds the bytes, from now on; `None` is no bound. `workers` tell of theirs.
    pub fn set_max(&self, max: Option<u64>, workers: usize) {
        let max = max.unwrap_or(u64::MAX);
        let workers = u64::try_from(workers.max(1)).unwrap_or(u64::MAX);
        let step = (max / UNTOLD_PART / workers).clamp(1, STEP_MAX);
        self.step.store(step, Ordering::SeqCst);
        self.max.store(max, Ordering::SeqCst);
        self.judge();
    }

    /// The bound; `None` if there is none.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        match self.max.load(Ordering::Relaxed) {
            u64::MAX => None,
            max => Some(max),
        }
    }

    /// The bytes held, less what workers have not told.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.0.load(Ordering::Relaxed)
    }

    /// What is to be done. One relaxed load of a word that seldom changes.
    #[must_use]
    pub fn level(&self) -> Level {
        Level::of(self.level.0.load(Ordering::Relaxed))
    }

    /// Of how many bytes a worker may know alone.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step.load(Ordering::Relaxed)
    }

    /// Takes in what a worker held when it told of it last, and what it holds now.
    pub fn handle_held(&self, before: u64, now: u64) {
        if now >= before {
            self.held.0.fetch_add(now - before, Ordering::SeqCst);
        } else {
            self.held.0.fetch_sub(before - now, Ordering::SeqCst);
        }
        self.judge();
    }

    /// Whoever changes a number last also judges by all that came before: it looks again after it has written.
    fn judge(&self) {
        loop {
            let (held, max) = (
                self.held.0.load(Ordering::SeqCst),
                self.max.load(Ordering::SeqCst),
            );
            let before = Level::of(self.level.0.load(Ordering::SeqCst));
            let level = Level::next(before, held, max);
            self.level.0.store(level as u8, Ordering::SeqCst);
            let same = self.held.0.load(Ordering::SeqCst) == held
                && self.max.load(Ordering::SeqCst) == max;
            if same {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_begins_at_one_mark_and_ends_at_a_lower_one() {
        let memory = Memory::default();
        memory.set_max(Some(1000), 1);
        let mut told = 0;
        let mut check = |held: u64, expected: Level| {
            memory.handle_held(told, held);
            told = held;
            assert_eq!(memory.level(), expected, "{held}");
            assert_eq!(memory.held(), held);
        };
        check(799, Level::Calm);
        check(800, Level::Pausing);
        check(700, Level::Pausing);
        check(699, Level::Calm);
        check(900, Level::Shedding);
        check(850, Level::Shedding);
        check(849, Level::Pausing);
        check(1000, Level::Full);
        check(930, Level::Full);
        check(929, Level::Shedding);
        check(0, Level::Calm);
    }

    #[test]
    fn another_bound_holds_at_once() {
        let memory = Memory::default();
        memory.handle_held(0, 5000);
        assert_eq!((memory.level(), memory.max()), (Level::Calm, None));
        memory.set_max(Some(4000), 2);
        assert_eq!((memory.level(), memory.max()), (Level::Full, Some(4000)));
        memory.set_max(Some(1 << 40), 2);
        assert_eq!(memory.level(), Level::Calm);
        assert_eq!(memory.step(), STEP_MAX);
        memory.set_max(Some(1 << 20), 2);
        assert_eq!(memory.step(), (1 << 20) / 64);
        memory.set_max(None, 2);
        assert_eq!(memory.level(), Level::Calm);
    }
}

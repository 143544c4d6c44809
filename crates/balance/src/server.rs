//! The cell that every worker shares for one server: what its operator said, how many requests it
//! holds, how fast it answers.
//!
//! It does not know the server's address, weight or health: those live with the caller.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::latency::{Average, Kind, Reading};
use crate::sync::AtomicU64 as Word;

/// How long a server is taken to need whose first answer says that it has failed. No more than the difference from which
/// on an average is called slow: one failure says little.
const FAILED_LATENCY_MIN: Duration = Duration::from_millis(50);
/// The requests in use, in the low half of the word.
const IN_USE: u64 = 0xffff_ffff;
/// Set while the pool must be asked before a slot is taken, and after one is given back.
const WATCHED: u64 = 1 << 61;
/// Set while the operator drains the server.
const DRAIN: u64 = 1 << 62;
/// Set while the operator has the server disabled.
const DISABLED: u64 = 1 << 63;

/// One server as all workers see it; one `Arc` per member of a pool.
///
/// State bits and in-use count share one word, so that a drain is one atomic operation: every pick
/// that was let in before it is counted in what [`Server::set_state`] returns, and none is let in
/// after it. The cell fills two cache lines, since CPUs fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub struct Server {
    /// State bits and in-use count.
    word: Word,
    /// When this server's turn comes again, among equals; see [`Server::due`].
    due: AtomicU64,
    average: Average,
    peak: Average,
    /// Picks let in while the server was ready.
    picks: AtomicU64,
    /// Picks let in by affinity while the server drained.
    affinity_picks: AtomicU64,
}

/// The operator's word on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Takes traffic, health permitting.
    #[default]
    Ready,
    /// Takes no new traffic; what it holds is finished, and affinity may still bind to it.
    Drain,
    /// Takes no traffic at all.
    Disabled,
}

/// Why a server did not take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// Its operator drains it.
    Draining,
    /// Its operator disabled it.
    Disabled,
    /// It holds as many requests as it may.
    Full,
    /// Its pool holds as many requests as it may; a server by itself never says this.
    PoolFull,
    /// It is watched: requests wait for it, and they come first. See [`Server::watch`].
    Watched,
}

/// What becomes of a client bound to a server that drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDrain {
    /// It stays until the drain ends.
    #[default]
    Keep,
    /// It moves to another server at its next request.
    Move,
}

impl Server {
    /// A server that is ready, holds nothing, and was never picked or measured.
    pub fn new() -> Self {
        Self {
            word: Word::new(0),
            due: AtomicU64::new(0),
            average: Average::new(),
            peak: Average::new(),
            picks: AtomicU64::new(0),
            affinity_picks: AtomicU64::new(0),
        }
    }

    /// The operator's word.
    pub fn state(&self) -> State {
        match self.word.load(Ordering::Relaxed) & (DRAIN | DISABLED) {
            0 => State::Ready,
            DRAIN => State::Drain,
            _ => State::Disabled,
        }
    }

    /// Sets the operator's word, and returns how many requests were in use at that very moment: a
    /// drain waits for exactly these, and for those that affinity brings.
    pub fn set_state(&self, state: State) -> u32 {
        let bits = match state {
            State::Ready => 0,
            State::Drain => DRAIN,
            State::Disabled => DISABLED,
        };
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                Some(word & !(DRAIN | DISABLED) | bits)
            })
            .unwrap_or_else(|word| word);
        in_use(before)
    }

    /// Requests that hold the server now. A pick being taken back may count for a moment.
    pub fn in_use(&self) -> u32 {
        in_use(self.word.load(Ordering::Acquire))
    }

    /// Takes one of the server's slots; each success is paid back by one [`Server::release`].
    ///
    /// One atomic addition, then a look at the bits that the same operation returned; a refused
    /// pick is taken back. Near `max` two callers may both be refused where one would have fitted;
    /// `max` itself is never passed.
    ///
    /// # Errors
    /// When the server drains, is disabled, or already holds `max` requests.
    pub fn acquire(&self, max: Option<u32>) -> Result<(), Refused> {
        self.acquire_by_affinity(max, OnDrain::Move)
    }

    /// As [`Server::acquire`] for a client that affinity binds to this server: with
    /// [`OnDrain::Keep`] it is let in while the server drains.
    ///
    /// # Errors
    /// When the server is disabled, already holds `max` requests, or drains with [`OnDrain::Move`].
    pub fn acquire_by_affinity(&self, max: Option<u32>, on_drain: OnDrain) -> Result<(), Refused> {
        let before = self.word.fetch_add(1, Ordering::AcqRel);
        if before & (DRAIN | DISABLED | WATCHED) == 0 && has_room(before, max) {
            self.picks.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.judge(before, max, on_drain)
    }

    /// The rest of an acquisition that has added itself to the word, and found more than a ready
    /// server with room.
    #[cold]
    fn judge(&self, before: u64, max: Option<u32>, on_drain: OnDrain) -> Result<(), Refused> {
        let refused = match refusal(before, max, on_drain) {
            None if before & WATCHED == 0 => {
                self.count_pick(before);
                return Ok(());
            }
            refused => refused.unwrap_or(Refused::Watched),
        };
        let after = self.word.fetch_sub(1, Ordering::AcqRel);
        // For a moment this pick stood where one who waits may have been offered a slot: who takes a
        // pick back while the server is watched must look for those.
        Err(if after & WATCHED == 0 {
            refused
        } else {
            Refused::Watched
        })
    }

    /// As [`Server::acquire_by_affinity`], whether the server is watched or not: for those whose turn it
    /// is.
    ///
    /// # Errors
    /// When the server is disabled, already holds `max` requests, or drains with [`OnDrain::Move`].
    pub fn acquire_in_turn(&self, max: Option<u32>, on_drain: OnDrain) -> Result<(), Refused> {
        let taken = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                refusal(word, max, on_drain).is_none().then(|| word + 1)
            });
        match taken {
            Ok(before) => {
                self.count_pick(before);
                Ok(())
            }
            Err(word) => Err(refusal(word, max, on_drain).unwrap_or(Refused::Full)),
        }
    }

    /// Why [`Server::acquire`] would refuse now, if it would. Takes nothing and counts nothing.
    pub fn would_refuse(&self, max: Option<u32>) -> Option<Refused> {
        self.would_refuse_bound(max, OnDrain::Move)
    }

    /// The same for [`Server::acquire_by_affinity`].
    pub fn would_refuse_bound(&self, max: Option<u32>, on_drain: OnDrain) -> Option<Refused> {
        let word = self.word.load(Ordering::Acquire);
        refusal(word, max, on_drain).or_else(|| (word & WATCHED != 0).then_some(Refused::Watched))
    }

    fn count_pick(&self, before: u64) {
        let counter = if before & DRAIN != 0 {
            &self.affinity_picks
        } else {
            &self.picks
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives a slot back; true when the server is watched, so that the slot must be offered to those
    /// who wait ([`Queue::offer_slots`](crate::queue::Queue::offer_slots)). One release too many is
    /// ignored rather than counted below zero.
    pub fn release(&self) -> bool {
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                (word & IN_USE != 0).then(|| word - 1)
            })
            .unwrap_or_else(|word| word);
        before & WATCHED != 0
    }

    /// From now on [`Server::acquire`] refuses with [`Refused::Watched`], and [`Server::release`] says
    /// that it gave a slot back: whoever does either asks the queue. Costs the others nothing.
    pub fn watch(&self) {
        self.word.fetch_or(WATCHED, Ordering::AcqRel);
    }

    /// Ends [`Server::watch`]. Only while the queue's lock says that nobody waits.
    pub(crate) fn unwatch(&self) {
        self.word.fetch_and(!WATCHED, Ordering::AcqRel);
    }

    /// Whether it is watched.
    pub fn is_watched(&self) -> bool {
        self.word.load(Ordering::Relaxed) & WATCHED != 0
    }

    /// Records that a response began `sample` after its request went out. Feeds both averages,
    /// which lose the weight of an old sample with a time constant of ten seconds.
    pub fn record_latency(&self, now: Duration, sample: Duration) {
        self.average.record(Kind::Mean, now, sample);
        self.peak.record(Kind::Peak, now, sample);
    }

    /// The same for a response that says that the server has failed: it makes a server seem slower, never faster. One that
    /// fails at once would draw whatever goes by latency.
    pub fn record_failed_latency(&self, now: Duration, sample: Duration) {
        let known = |average: &Average| match average.last() {
            Duration::ZERO => FAILED_LATENCY_MIN,
            known => known,
        };
        let (mean, peak) = (known(&self.average), known(&self.peak));
        self.average.record(Kind::Mean, now, sample.max(mean));
        self.peak.record(Kind::Peak, now, sample.max(peak));
    }

    /// The moving average of what was recorded; zero if nothing was.
    pub fn latency(&self) -> Duration {
        self.average.last()
    }

    /// The moving average as it is now; two of these tell the mean of what was recorded in between.
    pub fn latency_reading(&self) -> Reading {
        self.average.reading()
    }

    /// The peak-sensitive average: rises to a slow sample at once, and falls slowly; zero if
    /// nothing was recorded.
    pub fn peak_latency(&self) -> Duration {
        self.peak.last()
    }

    /// Both averages with what their age has taken off them: first the plain one, then the peak-sensitive one. `None`
    /// if nothing was recorded.
    pub fn latencies_at(&self, now: Duration) -> (Option<Duration>, Option<Duration>) {
        let now = crate::latency::stamp(now);
        let duration = |nanos: f64| Duration::from_nanos(nanos as u64);
        (
            self.average_at(now).map(duration),
            self.peak_at(now).map(duration),
        )
    }

    /// Sets both averages to what another process measured, as [`Server::latencies_at`] gave them.
    pub fn restore_latency(&self, now: Duration, mean: Option<Duration>, peak: Option<Duration>) {
        if let Some(mean) = mean {
            self.average.set(now, mean);
        }
        if let Some(peak) = peak {
            self.peak.set(now, peak);
        }
    }

    /// All picks let in, ever; for metrics.
    pub fn picks(&self) -> u64 {
        self.picks.load(Ordering::Relaxed) + self.affinity_picks()
    }

    /// Picks let in by affinity while the server drained, ever. What this grew by since a drain
    /// began is the receipt's `affinity_picks`; its `new_picks` is zero by construction, since
    /// [`Server::acquire`] lets none in.
    pub fn affinity_picks(&self) -> u64 {
        self.affinity_picks.load(Ordering::Relaxed)
    }

    /// The requests in use, if the operator's word lets a pick choose this server.
    pub(crate) fn ready_in_use(&self) -> Option<u32> {
        let word = self.word.load(Ordering::Relaxed);
        (word & (DRAIN | DISABLED) == 0).then(|| in_use(word))
    }

    /// The average in nanoseconds, less what its age takes off; `None` if never measured.
    pub(crate) fn average_at(&self, now: u32) -> Option<f64> {
        self.average.at(now)
    }

    /// The peak-sensitive average in nanoseconds, less what its age takes off.
    pub(crate) fn peak_at(&self, now: u32) -> Option<f64> {
        self.peak.at(now)
    }

    /// When this server's turn comes again, among equals: the turn of its last pick, and a pause
    /// in inverse proportion to its weight. With equal weights the smallest is the one picked
    /// longest ago.
    pub(crate) fn due(&self) -> u64 {
        self.due.load(Ordering::Relaxed)
    }

    /// Its turn comes at `latest`, if it would come later; see [`Server::due`].
    pub(crate) fn limit_due(&self, latest: u64) {
        self.due.fetch_min(latest, Ordering::Relaxed);
    }

    /// Notes a pick; see [`Server::due`].
    pub(crate) fn set_due(&self, due: u64) {
        self.due.store(due, Ordering::Relaxed);
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Disabled => "disabled",
        })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Draining => "draining",
            Self::Disabled => "disabled",
            Self::Full => "at its limit",
            Self::PoolFull => "in a pool at its limit",
            Self::Watched => "kept for those who wait",
        })
    }
}

impl std::error::Error for Refused {}

/// Why a server with this word takes no request; whether it is watched is not asked.
fn refusal(word: u64, max: Option<u32>, on_drain: OnDrain) -> Option<Refused> {
    if word & DISABLED != 0 {
        Some(Refused::Disabled)
    } else if word & DRAIN != 0 && on_drain == OnDrain::Move {
        Some(Refused::Draining)
    } else if has_room(word, max) {
        None
    } else {
        Some(Refused::Full)
    }
}

fn has_room(word: u64, max: Option<u32>) -> bool {
    max.is_none_or(|max| in_use(word) < max)
}

/// The count half of a word; the mask makes the cast lossless.
fn in_use(word: u64) -> u32 {
    (word & IN_USE) as u32
}

//! What is to come, and when.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use control::message::Event;
use control::world::World;

use crate::exchange::Stage;

/// What may happen. Small, since there are many: what is seldom is boxed.
pub(crate) enum Happening {
    /// A request comes.
    Arrives,
    /// What comes of a try.
    Stage {
        request: u32,
        number: u32,
        stage: Stage,
    },
    /// A request's wait before its next try is over.
    Retries { request: u32, number: u32 },
    /// Something of a race may be due.
    RaceTime(u32),
    /// A request has waited as long as it may.
    QueueOver { request: u32, number: u32 },
    /// The publisher hears something.
    Hears(Box<Event>),
    /// A worker takes up a world.
    World(u32, Arc<World>),
    /// A step of the scenario, by its number.
    Step(u32),
}

/// Everything to come, by time; what comes at the same moment, as it was entered.
#[derive(Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Entry>,
    /// Ends of waits for an answer, request and number of each try. Nearly all are of one length, so that they end in the
    /// order in which they began; and nearly all are long over by then.
    deadlines: VecDeque<(Key, u32, u32)>,
    sequence: u64,
}

/// Nanoseconds, then the order of entering.
type Key = (u64, u64);

struct Entry {
    key: Key,
    happening: Happening,
}

impl Agenda {
    /// This happens then.
    pub(crate) fn add(&mut self, at: Duration, happening: Happening) {
        let key = self.key(at);
        self.heap.push(Entry { key, happening });
    }

    /// The time of a try is over then.
    pub(crate) fn add_deadline(&mut self, at: Duration, request: u32, number: u32) {
        let key = self.key(at);
        if self.deadlines.back().is_none_or(|(last, _, _)| *last < key) {
            return self.deadlines.push_back((key, request, number));
        }
        let happening = deadline(request, number);
        self.heap.push(Entry { key, happening });
    }

    /// When the next thing happens. `runs`: whether this try of this request still does; the deadlines of others are let
    /// go of.
    pub(crate) fn next_at(&mut self, runs: impl Fn(u32, u32) -> bool) -> Option<Duration> {
        while let Some((_, request, number)) = self.deadlines.front()
            && !runs(*request, *number)
        {
            self.deadlines.pop_front();
        }
        let first = self.heap.peek().map(|it| it.key);
        let deadline = self.deadlines.front().map(|it| it.0);
        let next = first.into_iter().chain(deadline).min();
        next.map(|(at, _)| Duration::from_nanos(at))
    }

    /// The next thing.
    pub(crate) fn pop(&mut self) -> Option<Happening> {
        let first = self.heap.peek().map(|it| it.key);
        let is_first = |it: &&(Key, u32, u32)| first.is_none_or(|first| it.0 < first);
        if let Some((_, request, number)) = self.deadlines.front().filter(is_first) {
            let happening = deadline(*request, *number);
            self.deadlines.pop_front();
            return Some(happening);
        }
        self.heap.pop().map(|it| it.happening)
    }

    fn key(&mut self, at: Duration) -> Key {
        self.sequence += 1;
        (at.as_nanos() as u64, self.sequence)
    }
}

fn deadline(request: u32, number: u32) -> Happening {
    Happening::Stage {
        request,
        number,
        stage: Stage::Deadline,
    }
}

/// The earliest is the greatest: what the heap gives first.
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Entry {}

//! Metric cells: atomics with one writer each, a padded block for each worker.
//!
//! A worker adds with a relaxed load and store on its own block; whoever reads sums the blocks. Nothing here knows how
//! the numbers are shown.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::affinity::End;
use crate::reason::Reason;

/// A total that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one. Only the thread that owns the block may call this.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `amount`. Only the thread that owns the block may call this.
    pub fn add(&self, amount: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// The total so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// One block for each worker.
#[derive(Debug)]
pub struct PerWorker<T>(Box<[Padded<T>]>);

impl<T: Default> PerWorker<T> {
    /// Blocks for `workers` threads, at least one.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| Padded(T::default())).collect())
    }
}

impl<T> PerWorker<T> {
    /// The block of one worker. A number out of range shares the last block, so that a mistake miscounts and does no
    /// worse.
    #[must_use]
    pub fn of(&self, worker: usize) -> &T {
        let index = worker.min(self.0.len() - 1);
        &self.0[index].0
    }

    /// How many blocks there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All blocks.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }

    /// The sum of one number over all blocks.
    pub fn sum(&self, number: impl Fn(&T) -> u64) -> u64 {
        self.iter().map(number).sum()
    }
}

/// Totals by the first digit of the status; index 0 is for requests that got no answer.
#[derive(Debug, Default)]
pub struct Classes([Counter; 6]);

impl Classes {
    /// The label of each class.
    pub const LABELS: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

    /// Counts one answer with `status`; 0 and 499 are "none".
    pub fn record(&self, status: u16) {
        let class = if status == 499 {
            0
        } else {
            usize::from(status / 100)
        };
        if let Some(counter) = self.0.get(class) {
            counter.increment();
        }
    }

    /// The total of the class with this index.
    #[must_use]
    pub fn get(&self, class: usize) -> u64 {
        self.0.get(class).map_or(0, Counter::get)
    }

    /// Adds what another one has counted.
    pub fn add(&self, other: &Self) {
        add_each(&self.0, &other.0);
    }
}

fn add_each(to: &[Counter], from: &[Counter]) {
    for (to, from) in to.iter().zip(from) {
        to.add(from.get());
    }
}

/// Upper bounds of the histograms' buckets, in microseconds.
pub const BUCKETS_US: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 60_000_000,
];

/// Durations by bucket.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].increment();
        self.sum_us.add(us);
    }

    /// The total of one bucket; the last one is for what passes every bound.
    #[must_use]
    pub fn bucket(&self, index: usize) -> u64 {
        self.buckets.get(index).map_or(0, Counter::get)
    }

    /// How many durations there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }

    /// The sum of all durations, in microseconds.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }

    /// Adds what another one has counted.
    pub fn add(&self, other: &Self) {
        add_each(&self.buckets, &other.buckets);
        self.sum_us.add(other.sum_us.get());
    }
}

/// What is counted for a route of a listener.
#[derive(Debug, Default)]
pub struct RouteCells {
    /// Answers by class.
    pub classes: Classes,
    /// From the first byte of the request to the last of the response.
    pub seconds: Histogram,
}

impl RouteCells {
    /// Adds what another one has counted.
    pub fn add(&self, other: &Self) {
        self.classes.add(&other.classes);
        self.seconds.add(&other.seconds);
    }
}

/// What is counted for a pool.
#[derive(Debug, Default)]
pub struct PoolCells {
    /// From the pick to the end of the response.
    pub seconds: Histogram,
    /// Requests that no server served: answered here with a status from 500 on, or broken off. TCP connections that no
    /// server took.
    pub failed: Counter,
    /// Requests for which no server was picked, which `seconds` does not have; TCP connections that no server took.
    pub unserved: Counter,
    /// Further tries by cause, by the order of [`RetryCause::ALL`].
    pub retries: [Counter; RetryCause::ALL.len()],
    /// Servers taken out by traffic, by cause, in the order of [`balance::outlier::Cause::LABELS`]. The publisher
    /// counts them, in the first block.
    pub ejections: [Counter; balance::outlier::Cause::LABELS.len()],
    /// Agent checks that were answered. These three are the publisher's, in the first block.
    pub agent_answers: Counter,
    /// Agent checks that were not: no connection, or no line in time.
    pub agent_failures: Counter,
    /// Words of agents that mean nothing.
    pub agent_unknown_words: Counter,
    /// What a bound of the pool refused, in the order of [`Overflow::ALL`].
    pub overflows: [Counter; Overflow::ALL.len()],
    /// How long requests waited in the queue, however the wait ended.
    pub queue_seconds: Histogram,
    /// Waits by how they ended, by the order of [`WaitEnd::ALL`].
    pub waits: [Counter; WaitEnd::ALL.len()],
    /// Requests of a pool whose clients are bound, by what came of that, in the order of [`End::ALL`].
    pub affinity: [Counter; End::ALL.len()],
}

/// A bound of a whole pool that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Overflow {
    /// `limits.max_connections`: the request waits in the queue, or is refused.
    Connections,
    /// `limits.max_requests`: the request is refused.
    Requests,
    /// `limits.max_retries`: the request is not tried again.
    Retries,
}

impl Overflow {
    /// Each, in the order of its number.
    pub const ALL: [Self; 3] = [Self::Connections, Self::Requests, Self::Retries];

    /// Its label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::Requests => "max_requests",
            Self::Retries => "max_retries",
        }
    }
}

/// How a wait in a pool's queue ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum WaitEnd {
    /// With a server.
    Served,
    /// The time was up.
    Timeout,
    /// The queue was full, on arrival or when one of higher priority came.
    Full,
    /// No server was left that the request might have.
    NoServer,
    /// The client hung up.
    Left,
}

impl PoolCells {
    /// Counts what a bound refused.
    pub fn count_overflow(&self, overflow: Overflow) {
        if let Some(counter) = self.overflows.get(overflow as usize) {
            counter.increment();
        }
    }
}

impl WaitEnd {
    /// Every end, in the order of its number.
    pub const ALL: [Self; 5] = [
        Self::Served,
        Self::Timeout,
        Self::Full,
        Self::NoServer,
        Self::Left,
    ];

    /// Its label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Timeout => "timeout",
            Self::Full => "full",
            Self::NoServer => "no_server",
            Self::Left => "left",
        }
    }
}

/// What is counted for a server.
#[derive(Debug, Default)]
pub struct ServerCells {
    /// Responses by class; "none" where the server gave none.
    pub classes: Classes,
    /// Tries that failed as a gateway error does: no connection, no whole answer, or 502, 503, 504.
    pub failed: Counter,
    /// TCP connections to it that have ended.
    pub tunnels: Counter,
    /// Those of them that were broken off by it.
    pub broken: Counter,
    /// Requests and TCP connections that it served because their clients are bound to it.
    pub affinity_picks: Counter,
}

/// What is counted for a listener.
#[derive(Debug, Default)]
pub struct ListenerCells {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections that have ended.
    pub closed: Counter,
    /// Times that accepting paused, by why, in the order of [`PauseCause::ALL`].
    pub paused: [Counter; PauseCause::ALL.len()],
    /// Bytes from clients (TCP listeners).
    pub bytes_in: Counter,
    /// Bytes to clients (TCP listeners).
    pub bytes_out: Counter,
}

/// What is counted for a worker.
#[derive(Debug)]
pub struct WorkerCells {
    /// Answers made here, by reason.
    pub errors: [Counter; Reason::ALL.len()],
    /// Requests that have begun.
    pub begun: Counter,
    /// Requests that have ended.
    pub ended: Counter,
    /// Connections to servers that were opened.
    pub opened: Counter,
    /// Connections to servers that were used again.
    pub reused: Counter,
    /// Client connections that were accepted here and handed to another worker.
    pub handed: Counter,
    /// Log lines dropped because the log was behind.
    pub log_dropped: Counter,
    /// Tasks that ended in a panic.
    pub panics: Counter,
}

impl Default for WorkerCells {
    fn default() -> Self {
        Self {
            errors: std::array::from_fn(|_| Counter::default()),
            begun: Counter::default(),
            ended: Counter::default(),
            opened: Counter::default(),
            reused: Counter::default(),
            handed: Counter::default(),
            log_dropped: Counter::default(),
            panics: Counter::default(),
        }
    }
}

/// Why a listener accepts nothing for a moment. What waits stays in the kernel's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum PauseCause {
    /// It has as many connections as it may.
    Connections,
    /// Clients have all the file descriptors that they may have, or the system is out of them.
    Descriptors,
    /// Buffers hold nearly as much as they may, or the kernel is out of memory.
    Memory,
    /// The system refuses for another reason.
    System,
}

impl PauseCause {
    /// Every cause, in the order of its number.
    pub const ALL: [Self; 4] = [
        Self::Connections,
        Self::Descriptors,
        Self::Memory,
        Self::System,
    ];

    /// Its label in metrics and its word in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
            Self::System => "system",
        }
    }
}

/// Why another server was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RetryCause {
    /// The connection was refused or could not be made.
    ConnectRefused,
    /// The connection was not made in time.
    ConnectTimeout,
    /// The server's certificate is not to be believed.
    ServerCertificate,
    /// The TLS handshake with the server came to nothing.
    ServerHandshake,
    /// The connection ended before a response byte.
    ServerClosed,
    /// The connection was reset before a response byte.
    ServerReset,
    /// The server said that it has not taken the request: HTTP/2's REFUSED_STREAM or GOAWAY.
    NotTaken,
    /// No response head came within `retries.per_try_timeout`.
    PerTryTimeout,
    /// The answer had a status of `retries.on`.
    Status,
    /// No response head had come after `hedge.after`: the further try ran beside the one before.
    Hedge,
}

impl RetryCause {
    /// Every cause, in the order of its number.
    pub const ALL: [Self; 10] = [
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ServerCertificate,
        Self::ServerHandshake,
        Self::ServerClosed,
        Self::ServerReset,
        Self::NotTaken,
        Self::PerTryTimeout,
        Self::Status,
        Self::Hedge,
    ];

    /// Its label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::ServerCertificate => "server_certificate",
            Self::ServerHandshake => "server_handshake",
            Self::ServerClosed => "server_closed",
            Self::ServerReset => "server_reset",
            Self::NotTaken => "not_taken",
            Self::PerTryTimeout => "per_try_timeout",
            Self::Status => "status",
            Self::Hedge => "hedge",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for us in [0, 500, 501, 60_000_000, 60_000_001] {
            histogram.record(Duration::from_micros(us));
        }
        assert_eq!(histogram.bucket(0), 2);
        assert_eq!(histogram.bucket(1), 1);
        assert_eq!(histogram.bucket(BUCKETS_US.len() - 1), 1);
        assert_eq!(histogram.bucket(BUCKETS_US.len()), 1);
    }

    #[test]
    fn classes_follow_the_first_digit() {
        let classes = Classes::default();
        for status in [0, 499, 200, 204, 503, 999] {
            classes.record(status);
        }
        assert_eq!(
            (0..6).map(|class| classes.get(class)).collect::<Vec<_>>(),
            [2, 0, 2, 0, 0, 1]
        );
    }
}

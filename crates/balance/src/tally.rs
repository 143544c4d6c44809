//! About how many requests a large pool holds in all, as one worker knows it.

/// Counts read again at each pick.
const SLICE: usize = 16;

/// The counts as last read, and their sum. After n/16 picks each has been read again.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    counts: Vec<u32>,
    sum: u64,
    next: usize,
}

impl Tally {
    pub(crate) fn new(len: usize, count: impl Fn(usize) -> u32) -> Self {
        let counts: Vec<u32> = (0..len).map(count).collect();
        let sum = counts.iter().map(|count| u64::from(*count)).sum();
        Self {
            counts,
            sum,
            next: 0,
        }
    }

    /// Reads the next slice, and returns the sum.
    pub(crate) fn step(&mut self, count: impl Fn(usize) -> u32) -> u64 {
        for _ in 0..SLICE.min(self.counts.len()) {
            let fresh = count(self.next);
            self.sum = self.sum - u64::from(self.counts[self.next]) + u64::from(fresh);
            self.counts[self.next] = fresh;
            self.next = (self.next + 1) % self.counts.len();
        }
        self.sum
    }
}

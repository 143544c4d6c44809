//! Weights laid end to end: from a slot to the server that owns it.

/// Weights without their common divisor, as slots `0..total`.
#[derive(Debug)]
pub(crate) struct Spread {
    /// Where the slots of each server end; empty if each has just one.
    ends: Vec<u64>,
    total: u64,
}

impl Spread {
    /// `weights` are above 0.
    pub(crate) fn new(weights: &[u32]) -> Self {
        let weights = reduced(weights);
        if weights.iter().all(|weight| *weight == 1) {
            let total = weights.len() as u64;
            return Self {
                ends: Vec::new(),
                total,
            };
        }
        let mut total = 0;
        let ends = weights
            .iter()
            .map(|weight| {
                total += u64::from(*weight);
                total
            })
            .collect();
        Self { ends, total }
    }

    /// How many slots there are: the sum of the weights without their common divisor.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The server that owns `slot`, which is below the total.
    pub(crate) fn at(&self, slot: u64) -> usize {
        if self.ends.is_empty() {
            slot as usize
        } else {
            self.ends.partition_point(|end| *end <= slot)
        }
    }

    /// The slots of the server at `index`: the first of them, and how many.
    pub(crate) fn slots(&self, index: usize) -> (u64, u64) {
        if self.ends.is_empty() {
            return (index as u64, 1);
        }
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        (start, self.ends[index] - start)
    }

    /// The server that owns `slot` once those of the server at `without` are taken out; `slot` is
    /// below the total of what is left.
    pub(crate) fn at_without(&self, slot: u64, without: usize) -> usize {
        let (start, count) = self.slots(without);
        self.at(if slot < start { slot } else { slot + count })
    }
}

/// The same proportions in the smallest whole numbers.
pub(crate) fn reduced(weights: &[u32]) -> Vec<u32> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    weights.iter().map(|weight| weight / divisor).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

//! What one worker keeps for itself: random state and scratch. It is shared with nobody.

use crate::tally::Tally;
use crate::tree::Tree;

/// Pools above 64 servers whose view of the counts a worker keeps; the least recently used goes.
const POOLS_MAX: usize = 16;

/// One worker's own state for picks; it may serve every pool of the worker.
#[derive(Debug, Clone)]
pub struct Local {
    random: u64,
    /// Most recently used first; each is its view's by fingerprint.
    trees: Vec<(u64, Tree)>,
    tallies: Vec<(u64, Tally)>,
}

impl Local {
    /// State whose every choice follows from `seed`; give each worker another.
    pub fn new(seed: u64) -> Self {
        Self {
            random: seed,
            trees: Vec::new(),
            tallies: Vec::new(),
        }
    }

    /// The next random number, all 64 bits alike (splitmix64).
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A random number in `0..bound`; 0 when `bound` is 0. Its bias is below `bound` / 2^64.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.random()) * u128::from(bound)) >> 64) as u64
    }

    pub(crate) fn tree(&mut self, fingerprint: u64, fresh: impl FnOnce() -> Tree) -> &mut Tree {
        recent(&mut self.trees, fingerprint, fresh)
    }

    pub(crate) fn tally(&mut self, fingerprint: u64, fresh: impl FnOnce() -> Tally) -> &mut Tally {
        recent(&mut self.tallies, fingerprint, fresh)
    }
}

/// The entry of `fingerprint`, made if it is missing, moved to the front.
fn recent<T>(entries: &mut Vec<(u64, T)>, fingerprint: u64, fresh: impl FnOnce() -> T) -> &mut T {
    match entries.iter().position(|(of, _)| *of == fingerprint) {
        Some(at) => entries[..=at].rotate_right(1),
        None => {
            entries.truncate(POOLS_MAX - 1);
            entries.insert(0, (fingerprint, fresh()));
        }
    }
    &mut entries[0].1
}

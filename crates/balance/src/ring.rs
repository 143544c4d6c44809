//! The ring of consistent hashing: keys and virtual nodes on one circle of 2^64 places.

use crate::hash::mix;
use crate::view::Candidate;

/// Virtual nodes per weight: shares then differ from the fair ones by about 1/√512, 4 %.
const POINTS_PER_WEIGHT: u64 = 512;
/// Above this the virtual nodes per weight are halved, and halved again (16 MiB).
const POINTS_MAX: u64 = 1 << 20;

/// Places in order, each with the index of the server that owns it.
#[derive(Debug)]
pub(crate) struct Ring(Vec<(u64, u32)>);

impl Ring {
    /// A server's places follow from its name and weight alone, so that they stay where they are
    /// whoever else comes or goes, unless the pool is so large that places have to be saved.
    pub(crate) fn new(candidates: &[Candidate]) -> Self {
        let total: u64 = candidates
            .iter()
            .map(|candidate| u64::from(candidate.weight))
            .sum();
        let mut halvings = 0;
        while (total.saturating_mul(POINTS_PER_WEIGHT) >> halvings) > POINTS_MAX {
            halvings += 1;
        }
        let mut points = Vec::new();
        for (index, candidate) in candidates.iter().enumerate() {
            let count = (u64::from(candidate.weight) * POINTS_PER_WEIGHT) >> halvings;
            for point in 0..count.max(1) {
                points.push((mix(candidate.hash_name, point), index as u32));
            }
        }
        points.sort_unstable();
        Self(points)
    }

    /// The owners from the key's place on, once around.
    pub(crate) fn walk(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let place = mix(key, 0);
        let from = self.0.partition_point(|(point, _)| *point < place);
        let (before, after) = self.0.split_at(from);
        after.iter().chain(before).map(|(_, owner)| *owner as usize)
    }
}

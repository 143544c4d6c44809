//! The ring of consistent hashing: keys and virtual nodes on one circle of 2^64 places.

use crate::hash::mix;
use crate::view::Candidate;

/// Virtual nodes per weight: shares then differ from the fair ones by about 1/√512, 4 %.
const POINTS_PER_WEIGHT: u64 = 512;
/// Above this the virtual nodes per weight are halved, and halved again: 12 MiB.
const POINTS_MAX: u64 = 1 << 20;

/// Places in order, and an index into them.
///
/// Places are sorted by all of their 64 bits, on every node alike, and kept as the upper 32, which
/// is what a key is compared by.
#[derive(Debug)]
pub(crate) struct Ring {
    points: Vec<Point>,
    /// For each value of the uppermost bits of a place, the first point from there on. There are
    /// at least as many of these as points, so that a look-up has one or two points to pass.
    starts: Vec<u32>,
    /// How far a place is shifted to give its index into `starts`.
    shift: u32,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    place: u32,
    /// The index of the server that owns the keys before this point.
    owner: u32,
}

impl Ring {
    /// A server's places follow from its name and weight alone, so that they stay where they are
    /// whoever else comes or goes, unless the pool is so large that places have to be saved. With
    /// a smaller share it keeps the first of its places, and gives up the rest.
    pub(crate) fn new(candidates: &[Candidate]) -> Self {
        let total: u64 = candidates.iter().map(|it| u64::from(it.weight)).sum();
        let mut halvings = 0;
        while (total.saturating_mul(POINTS_PER_WEIGHT) >> halvings) > POINTS_MAX {
            halvings += 1;
        }
        let mut places = Vec::new();
        for (index, candidate) in candidates.iter().enumerate() {
            let count = (u64::from(candidate.units()) * POINTS_PER_WEIGHT / 16) >> halvings;
            for point in 0..count.max(1) {
                places.push((mix(candidate.hash_name, point), index as u32));
            }
        }
        places.sort_unstable();
        let points = places
            .into_iter()
            .map(|(place, owner)| Point {
                place: upper(place),
                owner,
            })
            .collect();
        Self::indexed(points)
    }

    fn indexed(points: Vec<Point>) -> Self {
        let bits = points
            .len()
            .next_power_of_two()
            .trailing_zeros()
            .clamp(1, 31);
        let shift = u32::BITS - bits;
        let mut starts = Vec::with_capacity(1 << bits);
        let mut at = 0;
        for start in 0..1_u32 << bits {
            while points
                .get(at)
                .is_some_and(|point| point.place >> shift < start)
            {
                at += 1;
            }
            starts.push(at as u32);
        }
        Self {
            points,
            starts,
            shift,
        }
    }

    /// The owners from the key's place on, once around.
    pub(crate) fn walk(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let place = upper(mix(key, 0));
        let mut from = self.starts[(place >> self.shift) as usize] as usize;
        while self
            .points
            .get(from)
            .is_some_and(|point| point.place < place)
        {
            from += 1;
        }
        let (before, after) = self.points.split_at(from);
        after.iter().chain(before).map(|point| point.owner as usize)
    }
}

fn upper(place: u64) -> u32 {
    (place >> 32) as u32
}

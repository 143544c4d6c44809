//! The ring of consistent hashing: keys and virtual nodes on one circle of 2^64 places.

use crate::hash::mix;
use crate::share::Share;
use crate::view::Candidate;

/// Virtual nodes per weight: shares then differ from the fair ones by about 1/√512, 4 %.
const POINTS_PER_WEIGHT: u64 = 512;
/// Above this the virtual nodes per weight are halved, and halved again: 12 MiB.
const POINTS_MAX: u64 = 1 << 20;
/// Two to this power is how many groups of places are sorted one by one: few enough to be filled
/// side by side, and each small enough for the nearest caches.
const GROUP_BITS_MAX: u32 = 11;

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
        let full = u64::from(Share::FULL.units());
        let mut places = Vec::new();
        for (index, candidate) in candidates.iter().enumerate() {
            let count = (u64::from(candidate.units()) * POINTS_PER_WEIGHT / full) >> halvings;
            for point in 0..count.max(1) {
                places.push((mix(candidate.hash_name, point), index as u32));
            }
        }
        let points = in_order(&places)
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

/// Sorts by place. Places are spread evenly, so that their uppermost bits already part them into groups; sorting these
/// is quicker than sorting a million at once.
fn in_order(places: &[(u64, u32)]) -> Vec<(u64, u32)> {
    let bits = places.len().max(2).ilog2().min(GROUP_BITS_MAX);
    let group = |place: u64| (place >> (u64::BITS - bits)) as usize;
    let mut ends = vec![0; 1 << bits];
    for (place, _) in places {
        ends[group(*place)] += 1;
    }
    let mut sum = 0;
    for end in &mut ends {
        (*end, sum) = (sum, sum + *end);
    }
    let mut sorted = vec![(0, 0); places.len()];
    for point in places {
        let end = &mut ends[group(point.0)];
        sorted[*end] = *point;
        *end += 1;
    }
    let mut from = 0;
    for end in ends {
        sorted[from..end].sort_unstable();
        from = end;
    }
    sorted
}

fn upper(place: u64) -> u32 {
    (place >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_give_the_same_order_as_one_sort() {
        for len in [0_u64, 1, 2, 3, 100, 5_000] {
            // Some places twice, and some groups full.
            let place = |number: u64| mix(number / 2 % 700, 7) >> (number % 3 * 20);
            let places: Vec<_> = (0..len).map(|at| (place(at), at as u32)).collect();
            let mut sorted = places.clone();
            sorted.sort_unstable();
            assert_eq!(in_order(&places), sorted, "{len}");
        }
    }
}

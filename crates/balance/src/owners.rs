//! Which server owns a key, whoever of them may serve.
//!
//! [`View`](crate::View) with a hashing algorithm looks for a server that may serve; this says whose a key is, so that
//! the caller can decide what becomes of it while its owner cannot.

use crate::hash::mix;
use crate::ring::Ring;
use crate::share::Share;
use crate::view::Candidate;

/// Servers on a ring, each with its part of all keys in proportion to its weight. Who joins or leaves moves only the
/// keys that it gets or had.
#[derive(Debug)]
pub struct Owners {
    ring: Ring,
    /// The candidate of each server on the ring.
    places: Vec<u32>,
}

impl Owners {
    /// A ring of these; those of weight 0 own nothing. See [`View::build_time`](crate::View::build_time) of
    /// `consistent_hash` for how long it takes.
    pub fn build(candidates: &[Candidate]) -> Self {
        let on_ring = |candidate: &Candidate| candidate.units() > 0;
        let places = candidates.iter().enumerate();
        let places = places.filter(|(_, candidate)| on_ring(candidate));
        let places = places.map(|(at, _)| at as u32).collect();
        let kept: Vec<Candidate> = candidates
            .iter()
            .filter(|it| on_ring(it))
            .cloned()
            .collect();
        Self {
            ring: Ring::new(&kept),
            places,
        }
    }

    /// The candidates (by index) that own the key: its owner, who would own it without that one, and so on. One may
    /// come again and again.
    pub fn of(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let walk = self.ring.walk(key);
        walk.filter_map(|at| self.places.get(at).map(|place| *place as usize))
    }
}

/// Whether a key has come to a server of this name that has so much of its own keys: with a larger share it has those
/// of a smaller one too.
pub fn has_come(key: u64, hash_name: u64, share: Share) -> bool {
    let place = (mix(key, hash_name) >> 11) as f64 / (1_u64 << 53) as f64;
    place < share.factor()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_little_by_little_and_stay() {
        let keys = || (0..10_000_u64).map(|key| mix(key, 3));
        let mut before = 0;
        for percent in [0, 10, 35, 90, 100] {
            let share = Share::exact(f64::from(percent) / 100.0);
            let come: Vec<_> = keys().filter(|key| has_come(*key, 7, share)).collect();
            assert!((come.len() as f64 / 100.0 - f64::from(percent)).abs() < 2.0);
            let stay = keys().take(1000).filter(|key| come.contains(key)).count();
            assert!(stay >= before, "{percent} %");
            before = stay;
        }
        assert_eq!(before, 1000, "in the end all are there");
    }
}

//! Which server owns a key, whoever of them may serve.
//!
//! [`View`](crate::View) with a hashing algorithm looks for a server that may serve; this says whose a key is, so that
//! the caller can decide what becomes of it while its owner cannot.

use crate::ring::Ring;
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

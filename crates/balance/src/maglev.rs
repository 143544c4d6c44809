//! Google's Maglev table: each server prefers the entries in an order of its own, and they choose
//! in turn until the table is full (Eisenbud et al., "Maglev", NSDI 2016, section 3.4).

use crate::hash::mix;
use crate::view::Candidate;

/// Entries of the table: a prime of about 100 for each server.
const SMALL: u64 = 65_537;
/// The same, when there are more than 655 servers.
const LARGE: u64 = 1_048_573;

/// Each entry holds the index of a server.
#[derive(Debug)]
pub(crate) struct Maglev(Vec<u32>);

/// A server's place in the order of its own in which it prefers entries.
struct Claim {
    owner: u32,
    weight: u64,
    /// Turns saved up, in weights.
    credit: u64,
    next: u64,
    skip: u64,
}

impl Maglev {
    /// The same table on every node, in whatever order it lists the servers.
    pub(crate) fn new(candidates: &[Candidate]) -> Self {
        let size = if candidates.len() as u64 <= SMALL / 100 {
            SMALL
        } else {
            LARGE
        };
        let mut claims: Vec<_> = candidates
            .iter()
            .enumerate()
            .map(|(index, candidate)| (candidate.hash_name, Claim::new(index, candidate, size)))
            .collect();
        claims.sort_unstable_by_key(|(name, _)| *name);
        let heaviest = claims
            .iter()
            .map(|(_, claim)| claim.weight)
            .max()
            .unwrap_or(0);
        if heaviest == 0 {
            return Self(Vec::new());
        }
        let mut table = vec![u32::MAX; size as usize];
        let mut left = size;
        loop {
            for (_, claim) in &mut claims {
                claim.credit += claim.weight;
                if claim.credit < heaviest {
                    continue;
                }
                claim.credit -= heaviest;
                claim.take(&mut table);
                left -= 1;
                if left == 0 {
                    return Self(table);
                }
            }
        }
    }

    /// The owners from the key's entry on, once around.
    pub(crate) fn walk(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let from = mix(key, 0).checked_rem(self.0.len() as u64).unwrap_or(0);
        let (before, after) = self.0.split_at(from as usize);
        after.iter().chain(before).map(|owner| *owner as usize)
    }
}

impl Claim {
    fn new(index: usize, candidate: &Candidate, size: u64) -> Self {
        Self {
            owner: index as u32,
            weight: u64::from(candidate.units()),
            credit: 0,
            next: mix(candidate.hash_name, 1) % size,
            skip: mix(candidate.hash_name, 2) % (size - 1) + 1,
        }
    }

    /// Takes the entry that this server prefers among the free ones; there is one, since `skip`
    /// and the prime size lead past all.
    fn take(&mut self, table: &mut [u32]) {
        let size = table.len() as u64;
        loop {
            let entry = &mut table[self.next as usize];
            self.next = (self.next + self.skip) % size;
            if *entry == u32::MAX {
                *entry = self.owner;
                return;
            }
        }
    }
}

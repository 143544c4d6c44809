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
    ///
    /// A server with a part of its weight first takes what its whole weight would give it, then
    /// leaves entries to the owners of the next ones: so as its part grows entries only move to it.
    pub(crate) fn new(candidates: &[Candidate]) -> Self {
        let mut table = Self::whole(candidates);
        table.thin(candidates);
        table
    }

    /// The table of the whole weights.
    fn whole(candidates: &[Candidate]) -> Self {
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
        let mut table = vec![0; size as usize];
        let mut taken = Taken::new(size);
        let mut left = size;
        loop {
            for (_, claim) in &mut claims {
                claim.credit += claim.weight;
                if claim.credit < heaviest {
                    continue;
                }
                claim.credit -= heaviest;
                table[claim.take(&mut taken)] = claim.owner;
                left -= 1;
                if left == 0 {
                    return Self(table);
                }
            }
        }
    }

    /// Has each server keep the part of its entries that is its share, against the largest one.
    fn thin(&mut self, candidates: &[Candidate]) {
        let shares = candidates.iter().map(|candidate| candidate.share);
        let (Some(least), Some(most)) = (shares.clone().min(), shares.max()) else {
            return;
        };
        if least == most {
            return;
        }
        // A hash up to this keeps the entry; that of the largest share keeps all.
        let bounds: Vec<u64> = candidates
            .iter()
            .map(|it| {
                let part = u128::from(it.share.units()) * u128::from(u64::MAX);
                (part / u128::from(most.units())) as u64
            })
            .collect();
        let kept: Vec<bool> = self
            .0
            .iter()
            .enumerate()
            .map(|(entry, owner)| {
                let owner = *owner as usize;
                mix(candidates[owner].hash_name, entry as u64) <= bounds[owner]
            })
            .collect();
        let Some(first) = kept.iter().position(|kept| *kept) else {
            return;
        };
        let mut next = self.0[first];
        for (owner, kept) in self.0.iter_mut().zip(kept).rev() {
            if kept {
                next = *owner;
            } else {
                *owner = next;
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
            weight: u64::from(candidate.weight),
            credit: 0,
            next: mix(candidate.hash_name, 1) % size,
            skip: mix(candidate.hash_name, 2) % (size - 1) + 1,
        }
    }

    /// Takes the entry that this server prefers among the free ones; there is one, since `skip`
    /// and the prime size lead past all.
    fn take(&mut self, taken: &mut Taken) -> usize {
        loop {
            let entry = self.next;
            // Both are below the size: cheaper than a division.
            self.next += self.skip;
            if self.next >= taken.size {
                self.next -= taken.size;
            }
            if taken.insert(entry) {
                return entry as usize;
            }
        }
    }
}

/// Which entries are taken, a bit each: what is looked at a dozen times for each entry stays in the
/// nearest caches, as the table itself would not.
struct Taken {
    bits: Vec<u64>,
    size: u64,
}

impl Taken {
    fn new(size: u64) -> Self {
        let words = size.div_ceil(u64::from(u64::BITS));
        let bits = vec![0; words as usize];
        Self { bits, size }
    }

    /// Whether it was free.
    fn insert(&mut self, entry: u64) -> bool {
        let word = &mut self.bits[(entry / u64::from(u64::BITS)) as usize];
        let bit = 1 << (entry % u64::from(u64::BITS));
        let free = *word & bit == 0;
        *word |= bit;
        free
    }
}

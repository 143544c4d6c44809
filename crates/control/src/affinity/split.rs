//! Which arm of a split a user has, remembered without a table: a user has a place, and place and weights give the arm.

use std::net::IpAddr;

use balance::hash_key;
use config::{Arm, HashKey, Pool};
use rules::Request;

use crate::decide;

/// A user's place among all users of a split: drawn once and kept in its cookie, or the hash of what binds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(pub u32);

/// How often a place is drawn for a user whose arm is known.
const DRAWS_MAX: u32 = 512;

impl Share {
    /// The place of a key.
    #[must_use]
    pub fn of_key(key: u64) -> Self {
        Self((key >> 32) as u32)
    }

    /// The arm of this place, by its index: weighted rendezvous (Schindelhauer and Schomaker, "Weighted distributed hash
    /// tables", 2005). When the weight of one arm changes against the others, users come to it or go from it, only as
    /// many as that asks for, and nobody moves between the others; the order of the arms does not matter.
    #[must_use]
    pub fn arm(self, arms: &[Arm], pools: &[Pool]) -> Option<usize> {
        let mut best = None;
        let mut least = f64::INFINITY;
        for (at, arm) in arms.iter().enumerate().filter(|(_, arm)| arm.weight > 0) {
            let hash = hash_key(&pair(u64::from(self.0), identity(arm, pools)));
            let point = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            let score = -point.ln() / f64::from(arm.weight);
            if score < least {
                (best, least) = (Some(at), score);
            }
        }
        best
    }

    /// A place of a user who has been with the arm of this index, and is to stay; any place if the arm has none left.
    #[must_use]
    pub fn within(
        at: usize,
        arms: &[Arm],
        pools: &[Pool],
        mut random: impl FnMut() -> u32,
    ) -> Self {
        let mut share = Self(random());
        for _ in 0..DRAWS_MAX {
            if share.arm(arms, pools) == Some(at) {
                break;
            }
            share = Self(random());
        }
        share
    }
}

/// What tells an arm from the others, over changes of their order and weights.
fn identity(arm: &Arm, pools: &[Pool]) -> u64 {
    let Some(pool) = pools.get(arm.to.pool) else {
        return 0;
    };
    let labels = arm
        .to
        .labels(pools)
        .into_iter()
        .flat_map(|labels| labels.iter());
    labels.fold(hash_key(pool.name.as_bytes()), |hash, (name, value)| {
        let label = hash_key(&pair(hash_key(name.as_bytes()), hash_key(value.as_bytes())));
        hash_key(&pair(hash, label))
    })
}

fn pair(a: u64, b: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (low, high) = bytes.split_at_mut(8);
    low.copy_from_slice(&a.to_le_bytes());
    high.copy_from_slice(&b.to_le_bytes());
    bytes
}

/// The key of a client's address, of which `ipv6_prefix` bits count if it is an IPv6 one.
#[must_use]
pub fn source_key(source: IpAddr, ipv6_prefix: u8) -> u64 {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let cut = 128_u32.saturating_sub(ipv6_prefix.into());
            let kept = u128::MAX.checked_shl(cut).unwrap_or(0);
            hash_key(&(address.to_bits() & kept).to_be_bytes())
        }
        IpAddr::V4(address) => hash_key(&address.octets()),
    }
}

/// The hash of what a request is bound by; `None` if it lacks that.
#[must_use]
pub fn request_key(key: &HashKey, request: &Request<'_>) -> Option<u64> {
    match key {
        HashKey::Source => Some(decide::source_key(request.source)),
        HashKey::Header(name) => request.header(name).map(hash_key),
        HashKey::Cookie(name) => request.cookie(name).map(hash_key),
        HashKey::Query(name) => request.query_value(name, &mut Vec::new()).map(hash_key),
        HashKey::Path => Some(hash_key(request.path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use config::Destination;

    /// Pools named after their index, as far as a place asks for them.
    fn pools(count: usize) -> Vec<Pool> {
        let names = (0..count).map(|at| format!("p{at}: {{ servers: ['10.0.0.1:1'] }}"));
        let names: Vec<_> = names.collect();
        let arms: Vec<_> = (0..count).map(|at| format!("p{at}: 1")).collect();
        let yaml = format!(
            "listeners: {{ l: {{ bind: ':1', routes: [{{ split: {{ {} }} }}] }} }}\npools:\n  {}\n",
            arms.join(", "),
            names.join("\n  ")
        );
        crate::publisher::tests::snapshot(&yaml).pools.clone()
    }

    fn arms(weights: &[u32]) -> Vec<Arm> {
        let arm = |(pool, weight): (usize, &u32)| Arm {
            to: Destination::whole(pool),
            weight: *weight,
        };
        weights.iter().enumerate().map(arm).collect()
    }

    const USERS: u32 = 40_000;

    /// Where each user is with these weights.
    fn users(weights: &[u32], pools: &[Pool]) -> Vec<usize> {
        let arms = arms(weights);
        let user = |user: u32| {
            Share(user.wrapping_mul(0x9e37_79b9))
                .arm(&arms, pools)
                .unwrap()
        };
        (0..USERS).map(user).collect()
    }

    #[test]
    fn arms_have_their_shares() {
        let pools = pools(3);
        for weights in [[90, 10, 0], [1, 1, 1], [500, 1, 20]] {
            let total: u32 = weights.iter().sum();
            let users = users(&weights, &pools);
            for (arm, weight) in weights.iter().enumerate() {
                let found = users.iter().filter(|user| **user == arm).count() as f64;
                let wanted = f64::from(USERS) * f64::from(*weight) / f64::from(total);
                assert!(
                    (found - wanted).abs() <= 4.0 * wanted.sqrt(),
                    "{weights:?}: {found} of {wanted}"
                );
            }
        }
    }

    #[test]
    fn a_change_moves_as_many_as_it_asks_for() {
        let pools = pools(3);
        let moved = |from: &[u32], to: &[u32]| {
            let (before, after) = (users(from, &pools), users(to, &pools));
            let pairs = before.into_iter().zip(after);
            pairs
                .filter(|(before, after)| before != after)
                .collect::<Vec<_>>()
        };
        // Of two arms, whatever changes; of more, when one changes against the others.
        for (from, to, part) in [
            ([90, 10, 0], [80, 20, 0], 0.1),
            ([90, 10, 0], [0, 100, 0], 0.9),
            ([50, 50, 0], [1, 1, 0], 0.0),
            ([1, 1, 1], [2, 1, 1], 1.0 / 6.0),
            ([1, 1, 0], [1, 1, 1], 1.0 / 3.0),
        ] {
            let moved = moved(&from, &to);
            let wanted = f64::from(USERS) * part;
            let found = moved.len() as f64;
            assert!(
                (found - wanted).abs() <= 4.0 * wanted.sqrt(),
                "{from:?} -> {to:?}: {found} of {wanted}"
            );
            let one_way = moved
                .windows(2)
                .all(|pair| to[2] == 0 || pair[0].1 == pair[1].1);
            assert!(one_way, "{from:?} -> {to:?}");
        }
    }

    #[test]
    fn who_is_there_stays_there() {
        let pools = pools(2);
        let arms = arms(&[95, 5]);
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state
        };
        for at in [0, 1, 1, 0] {
            let share = Share::within(at, &arms, &pools, &mut random);
            assert_eq!(share.arm(&arms, &pools), Some(at));
        }
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let key = |text: &str, prefix| source_key(text.parse().unwrap(), prefix);
        assert_eq!(key("2001:db8::1", 64), key("2001:db8::ffff:1", 64));
        assert_ne!(key("2001:db8::1", 64), key("2001:db8:0:1::1", 64));
        assert_ne!(key("2001:db8::1", 128), key("2001:db8::2", 128));
        assert_eq!(key("10.0.0.1", 64), key("::ffff:10.0.0.1", 64));
        assert_ne!(key("10.0.0.1", 64), key("10.0.0.2", 64));
    }
}

//! The decisions that traffic and `explain` share, so that both always say the same: which key is hashed, whose turn
//! it is in a split, what a bad head is answered with.
//!
//! Matching is `rules`, picking is `balance`; nothing here waits or logs.

mod bound;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use balance::{Algorithm, Local, OnDrain, Refused, Why};
use config::{Arm, Balance, Destination, HashKey, HttpListener};
use rules::Request;
use wire::http1::{HeadLimits, RequestErrorKind};

use crate::gate::Lease;
use crate::live::{Member, PoolState, PoolView};
use crate::reason::Reason;

pub use bound::{Course, WouldBind, would_bind};

/// How a head that cannot be read is answered.
#[must_use]
pub fn reason_of(kind: RequestErrorKind) -> Reason {
    match kind {
        RequestErrorKind::BadRequest => Reason::BadRequest,
        RequestErrorKind::BadFraming => Reason::BadFraming,
        RequestErrorKind::UriTooLong => Reason::UriTooLong,
        RequestErrorKind::HeaderTooLarge => Reason::HeaderTooLarge,
        RequestErrorKind::UnknownCoding => Reason::NotImplemented,
        RequestErrorKind::Version => Reason::VersionNotSupported,
    }
}

/// What a listener lets a request head cost.
#[must_use]
pub fn head_limits(http: &HttpListener) -> HeadLimits {
    HeadLimits {
        head_bytes: http.limits.header_bytes,
        headers: http.limits.headers,
        uri_bytes: http.limits.uri_bytes,
    }
}

/// What the pool's algorithm hashes of a request; `None` when it hashes nothing, or the request lacks it.
#[must_use]
pub fn hash_key(balance: &Balance, request: &Request<'_>) -> Option<u64> {
    match balance.algorithm {
        Algorithm::IpHash => Some(source_key(request.source)),
        Algorithm::ConsistentHash { .. } | Algorithm::Maglev => match &balance.key {
            HashKey::Source => Some(source_key(request.source)),
            HashKey::Header(name) => request.header(name).map(balance::hash_key),
            HashKey::Cookie(name) => request.cookie(name).map(balance::hash_key),
            HashKey::Query(name) => request
                .query_value(name, &mut Vec::new())
                .map(balance::hash_key),
            HashKey::Path => Some(balance::hash_key(request.path)),
        },
        _ => None,
    }
}

/// The key of a client's address for hashing algorithms.
#[must_use]
pub fn source_key(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(address) => balance::hash_key(&address.octets()),
        IpAddr::V6(address) => balance::hash_key(&address.octets()),
    }
}

/// What the next request to a pool would get.
#[derive(Debug)]
pub struct WouldPick {
    /// The view that was asked.
    pub view: Arc<PoolView>,
    /// The server; `None` when there is none, or none with room.
    pub member: Option<Arc<Member>>,
    /// Whether all that might serve are full, or the pool is, or they are kept for those who wait: then a request waits, where the pool has a
    /// queue.
    pub full: bool,
    /// A word for each of the view's candidates, in their order.
    pub candidates: Vec<Against>,
}

/// What is said of one candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Against {
    /// By the algorithm; also "picked".
    Algorithm(Why),
    /// By the server's own word: it was this request's turn, and there was no room.
    Refused(Refused),
}

/// Asks the view, the rotation and the servers' words as a pick of traffic does, server by server until one has room.
/// Claims nothing, counts nothing and leaves every turn as it was.
#[must_use]
pub fn would_pick(state: &PoolState, local: &Local, key: Option<u64>, now: Duration) -> WouldPick {
    let view = state.view();
    let mut tried = Vec::new();
    let mut refusals: Vec<(usize, Refused)> = Vec::new();
    let (mut member, mut full) = (None, false);
    let explained = loop {
        let explained = view.view.explain(&state.rotation, local, key, &tried, now);
        let picked = explained
            .picked
            .and_then(|index| Some((index, view.members.get(index)?)));
        let Some((index, picked)) = picked else {
            break explained;
        };
        match Lease::would_refuse(picked, OnDrain::Move) {
            None => {}
            Some(refused) => {
                full |= matches!(
                    refused,
                    Refused::Full | Refused::Watched | Refused::PoolFull
                );
                refusals.push((index, refused));
                // No other one has room then.
                if refused == Refused::PoolFull {
                    break explained;
                }
                // With subsets others may have room though somebody waits.
                if refused == Refused::Watched && !view.divided {
                    break explained;
                }
                tried.push(picked.id);
                continue;
            }
        }
        member = Some(picked.clone());
        break explained;
    };
    let mut candidates: Vec<Against> = explained
        .candidates
        .into_iter()
        .map(Against::Algorithm)
        .collect();
    for (index, refused) in refusals {
        if let Some(candidate) = candidates.get_mut(index) {
            *candidate = Against::Refused(refused);
        }
    }
    WouldPick {
        full: full && member.is_none(),
        member,
        candidates,
        view,
    }
}

/// Where the arm leads in whose share `point` (below the sum of the weights) falls.
#[must_use]
pub fn arm_at(arms: &[Arm], mut point: u64) -> Option<Destination> {
    for arm in arms {
        let weight = u64::from(arm.weight);
        if point < weight {
            return Some(arm.to);
        }
        point -= weight;
    }
    None
}

/// The turn `n` of a split, spread so that a small arm's turns do not come in a row: a stride of about the golden
/// ratio, coprime to the total, visits every point once in each round.
#[must_use]
pub fn spread(n: u64, total: u64) -> u64 {
    if total < 3 {
        return n.checked_rem(total).unwrap_or(0);
    }
    let mut stride = (total * 618 / 1000).max(1);
    while gcd(stride, total) != 1 {
        stride += 1;
    }
    (n % total * stride) % total
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_keeps_its_shares_in_every_round_and_mixes_them() {
        let arms = [
            Arm {
                to: Destination::whole(0),
                weight: 90,
            },
            Arm {
                to: Destination::whole(1),
                weight: 10,
            },
        ];
        let picks: Vec<_> = (0..100)
            .filter_map(|n| Some(arm_at(&arms, spread(n, 100))?.pool))
            .collect();
        assert_eq!(picks.iter().filter(|pool| **pool == 1).count(), 10);
        let longest_run = picks.split(|pool| *pool == 0).map(<[usize]>::len).max();
        assert_eq!(longest_run, Some(1));
    }
}

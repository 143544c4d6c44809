//! The decisions that traffic and `explain` share, so that both always say the same: which key is hashed, whose turn
//! it is in a split, what a bad head is answered with.
//!
//! Matching is `rules`, picking is `balance`; nothing here waits or logs.

use std::net::IpAddr;

use balance::Algorithm;
use config::{Arm, Balance, Destination, HashKey, HttpListener};
use rules::Request;
use wire::http1::{HeadLimits, RequestErrorKind};

use crate::reason::Reason;

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

//! The one hash that all nodes agree on.

use twox_hash::XxHash64;

/// The seed of every hash here. A constant, since nodes and versions must place a key alike;
/// changing it moves every key of every user.
pub const HASH_SEED: u64 = 0x0065_7665_6e6b_6565;

/// Hashes what a client sent, or a server's name, alike on every node: xxh64 with [`HASH_SEED`].
///
/// Not keyed by a secret: a client that chooses its keys chooses its server, as with any
/// consistent hash that nodes share.
pub fn hash_key(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(HASH_SEED, bytes)
}

/// Mixes two numbers into one, evenly; alike on every node.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut bytes = [0; 16];
    let (low, high) = bytes.split_at_mut(8);
    low.copy_from_slice(&a.to_le_bytes());
    high.copy_from_slice(&b.to_le_bytes());
    hash_key(&bytes)
}

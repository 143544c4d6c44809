//! Keyed hashes, so that no client can choose a key that meets another's.

use std::num::NonZeroU64;

/// What keys are hashed with: 128 bits that no client knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret([u8; 16]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// The hash of what tells one client from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(NonZeroU64);

impl Secret {
    /// A secret of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for whoever hands it on to another process.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 16] {
        self.0
    }

    /// The key of what a client sent.
    #[must_use]
    pub fn key(&self, value: &[u8]) -> Key {
        Key::new(siphash(&self.0, value))
    }

    /// A secret for one of several uses, told apart by their names.
    #[must_use]
    pub fn derive(&self, name: &[u8]) -> Self {
        let mut bytes = [0; 16];
        let (low, high) = bytes.split_at_mut(8);
        let first = siphash(&self.0, name);
        low.copy_from_slice(&first.to_le_bytes());
        let second = [&first.to_le_bytes(), name].concat();
        high.copy_from_slice(&siphash(&self.0, &second).to_le_bytes());
        Self(bytes)
    }
}

impl Key {
    /// Words below this mean something else in a table.
    const MIN: u64 = 2;

    fn new(hash: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(hash.max(Self::MIN) - 1))
    }

    /// The key that [`Key::word`] gave; `None` for a word that no key has.
    #[must_use]
    pub fn from_word(word: u64) -> Option<Self> {
        NonZeroU64::new(word)
            .filter(|word| word.get() >= Self::MIN)
            .map(Self)
    }

    /// As a number.
    #[must_use]
    pub fn word(self) -> u64 {
        self.0.get()
    }

    /// Two places of so many, from other bits of the key.
    pub(super) fn places(self, count: usize) -> [usize; 2] {
        // Lemire, "Fast Random Integer Generation in an Interval", 2019: no division.
        let scale = |word: u64| ((u128::from(word) * count as u128) >> 64) as usize;
        let other = self
            .word()
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(32);
        [scale(self.word()), scale(other)]
    }
}

/// SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012).
fn siphash(secret: &[u8; 16], bytes: &[u8]) -> u64 {
    let (low, high) = secret.split_at(8);
    let (k0, k1) = (word(low), word(high));
    let mut state = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let chunks = bytes.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        compress(&mut state, word(chunk));
    }
    compress(&mut state, ((bytes.len() as u64) << 56) | word(rest));
    let [v0, v1, v2, v3] = rounds(rounds([state[0], state[1], state[2] ^ 0xff, state[3]]));
    v0 ^ v1 ^ v2 ^ v3
}

fn compress(state: &mut [u64; 4], message: u64) {
    state[3] ^= message;
    *state = rounds(*state);
    state[0] ^= message;
}

/// Two rounds.
fn rounds(mut state: [u64; 4]) -> [u64; 4] {
    for _ in 0..2 {
        let [mut v0, mut v1, mut v2, mut v3] = state;
        v0 = v0.wrapping_add(v1);
        v1 = v1.rotate_left(13) ^ v0;
        v0 = v0.rotate_left(32);
        v2 = v2.wrapping_add(v3);
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.wrapping_add(v3);
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.wrapping_add(v1);
        v1 = v1.rotate_left(17) ^ v2;
        v2 = v2.rotate_left(32);
        state = [v0, v1, v2, v3];
    }
    state
}

/// Up to eight bytes, the first the lowest.
fn word(bytes: &[u8]) -> u64 {
    match bytes.try_into() {
        Ok(whole) => u64::from_le_bytes(whole),
        Err(_) => {
            let low_to_high = bytes.iter().rev();
            low_to_high.fold(0, |word, byte| (word << 8) | u64::from(*byte))
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        deprecated,
        reason = "the standard library has the same hash, if no longer for use"
    )]
    use std::hash::{Hasher, SipHasher};

    use super::*;

    #[test]
    fn it_is_the_hash_of_the_paper() {
        let secret: [u8; 16] = std::array::from_fn(|at| at as u8);
        let bytes: Vec<u8> = (0..15).collect();
        assert_eq!(siphash(&secret, &bytes), 0xa129_ca61_49be_45e5);
        let (k0, k1) = (word(&secret[..8]), word(&secret[8..]));
        for len in 0..100 {
            let bytes: Vec<u8> = (0..len).collect();
            let mut other = SipHasher::new_with_keys(k0, k1);
            other.write(&bytes);
            assert_eq!(siphash(&secret, &bytes), other.finish(), "{len}");
        }
    }

    #[test]
    fn no_hash_is_a_mark() {
        for hash in [0, 1, 2, 3, u64::MAX] {
            let key = Key::new(hash);
            assert!(key.word() >= Key::MIN);
            assert_eq!(Key::from_word(key.word()), Some(key));
        }
        assert_eq!(Key::new(77).word(), 77);
        assert_eq!(Key::from_word(0).or(Key::from_word(1)), None);
    }

    #[test]
    fn secrets_for_several_uses_differ() {
        let secret = Secret::new([7; 16]);
        assert_ne!(secret.derive(b"a"), secret.derive(b"b"));
        assert_eq!(secret.derive(b"a"), secret.derive(b"a"));
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}

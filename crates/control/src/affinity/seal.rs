//! What a client carries instead of a server's name: a keyed hash of it, alike on every node and after every restart.

use aws_lc_rs::hmac;
use config::Secret;

/// Bytes of the hash that are kept: nobody finds another name with the same by chance.
const BYTES: usize = 12;
/// RFC 4648 §5.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// The key where there is no secret: whoever guesses a name can tell its hash.
const KNOWN_KEY: &[u8] = b"evenkeel affinity";

/// Hashes names.
pub(crate) struct Seal(hmac::Key);

impl Seal {
    pub(crate) fn new(secret: Option<&Secret>) -> Self {
        let key = secret.map_or(KNOWN_KEY, |secret| &secret.0);
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// 16 characters of base64url for the server of this name in this pool.
    pub(crate) fn seal(&self, pool: &str, server: &str) -> [u8; BYTES / 3 * 4] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [pool.as_bytes(), b"\0", server.as_bytes()] {
            context.update(part);
        }
        let tag = context.sign();
        let mut text = [0; BYTES / 3 * 4];
        for (group, out) in tag.as_ref().chunks(3).zip(text.chunks_mut(4)) {
            let bits = group
                .iter()
                .fold(0, |bits, byte| bits << 8 | usize::from(*byte));
            for (place, char) in out.iter_mut().rev().enumerate() {
                *char = ALPHABET[bits >> (6 * place) & 63];
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_name_has_its_own_alike_everywhere() {
        let secret = Secret(b"0123456789abcdef"[..].into());
        let other = Secret(b"0123456789abcdeF"[..].into());
        let mut seen = BTreeSet::new();
        for seal in [None, Some(&secret), Some(&other)].map(Seal::new) {
            for (pool, server) in [("p", "a"), ("p", "b"), ("q", "a"), ("pa", ""), ("", "pa")] {
                let text = seal.seal(pool, server);
                assert_eq!(text, seal.seal(pool, server));
                assert!(seen.insert(text));
                let text = std::str::from_utf8(&text).unwrap();
                assert!(text.bytes().all(|byte| ALPHABET.contains(&byte)), "{text}");
            }
        }
        // HMAC-SHA256 of "site\0a" as `openssl dgst -sha256 -hmac "evenkeel affinity" -binary | basenc --base64url` has it:
        // changing this loses every client's server at an upgrade.
        let text = Seal::new(None).seal("site", "a");
        assert_eq!(std::str::from_utf8(&text).unwrap(), "3gYdI9T0cpAbrsa3");
    }
}

//! The key that a WebSocket over HTTP/2 does without, and HTTP/1 does not (RFC 8441 §5.1, RFC 6455 §4.1).

use http::Response;
use http::header::SEC_WEBSOCKET_ACCEPT;
use wire::http1::encode;

/// What a server appends to the key before it hashes it.
const SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What proves that a server has understood an upgrade.
pub(super) struct Accept(Option<Vec<u8>>);

impl Accept {
    /// Whether a 101 is one that was asked for.
    pub(super) fn matches(&self, response: &Response<()>) -> bool {
        let said = response.headers().get(SEC_WEBSOCKET_ACCEPT);
        self.0
            .as_ref()
            .is_none_or(|expected| said.is_some_and(|said| said.as_bytes() == expected))
    }
}

/// Ends the head of an upgrade to `protocol`, with a key where that is what it needs.
pub(super) fn finish(out: &mut Vec<u8>, protocol: &[u8], random: [u64; 2]) -> Accept {
    let accept = protocol.eq_ignore_ascii_case(b"websocket").then(|| {
        let [first, second] = random;
        let nonce = [first.to_be_bytes(), second.to_be_bytes()].concat();
        let key = base64(&nonce);
        encode::field(out, b"sec-websocket-key", &key);
        accept_of(&key)
    });
    out.extend_from_slice(encode::CRLF);
    Accept(accept)
}

/// What a server answers to a key.
pub(super) fn accept_of(key: &[u8]) -> Vec<u8> {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    let text = [key, SUFFIX].concat();
    base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text).as_ref())
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut word = 0_u32;
        for place in 0..3 {
            word = word << 8 | u32::from(group.get(place).copied().unwrap_or_default());
        }
        for place in 0..4 {
            let digit = (word >> (18 - 6 * place) & 63) as usize;
            let digit = DIGITS.get(digit).copied().unwrap_or(b'=');
            text.push(if place <= group.len() { digit } else { b'=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(
            accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="),
            b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        for (bytes, text) in [
            (&b""[..], &b""[..]),
            (b"f", b"Zg=="),
            (b"fo", b"Zm8="),
            (b"foo", b"Zm9v"),
            (b"foob", b"Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }
}

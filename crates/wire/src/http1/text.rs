//! Which bytes may stand where: token, field value, host.
//!
//! The three grammars that both the decoders here and whoever writes a head
//! (config, filters) must agree on.

/// Bytes of a token, RFC 9110 §5.6.2.
const TOKEN: u8 = 1;
/// Bytes of a registered name and its escapes, RFC 3986 §3.2.2.
const REG_NAME: u8 = 2;
/// Bytes of an IP literal between its brackets.
const IP_LITERAL: u8 = 4;

/// The classes of every byte.
static CLASSES: [u8; 256] = classes();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, over all 256 bytes"
)]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() {
            table[byte] = TOKEN | REG_NAME;
        }
        if matches!(
            b,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        ) {
            table[byte] |= TOKEN;
        }
        // unreserved, sub-delims and the sign of an escape
        if matches!(
            b,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        ) {
            table[byte] |= REG_NAME;
        }
        // IPv6 with an embedded IPv4; zones and future versions are refused
        if b.is_ascii_hexdigit() || b == b':' || b == b'.' {
            table[byte] |= IP_LITERAL;
        }
        byte += 1;
    }
    table
}

#[inline]
fn is(byte: u8, class: u8) -> bool {
    CLASSES
        .get(usize::from(byte))
        .is_some_and(|classes| classes & class != 0)
}

fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().all(|&byte| is(byte, class))
}

/// Whether `byte` may stand in a token.
#[inline]
pub(super) fn is_token_byte(byte: u8) -> bool {
    is(byte, TOKEN)
}

/// Whether `bytes` is a token (RFC 9110 §5.6.2): what methods and field names are.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// Whether `bytes` may stand as a field's value (RFC 9110 §5.5): visible
/// characters, bytes from 0x80, and blanks between them; empty is valid.
pub fn is_field_value(bytes: &[u8]) -> bool {
    trim(bytes).len() == bytes.len() && bytes.iter().all(|&b| is_text(b))
}

/// Whether `bytes` may stand as the value of `Host` (RFC 9112 §3.2): a host and
/// perhaps a port, nothing of a path, a query or user information. Empty is
/// *not* a host here; when it is allowed, the request decoder knows.
pub fn is_host(bytes: &[u8]) -> bool {
    let port = if let Some(literal) = bytes.strip_prefix(b"[") {
        let Some(end) = memchr::memchr(b']', literal) else {
            return false;
        };
        let (address, rest) = literal.split_at(end);
        if !all(address, IP_LITERAL) || !address.contains(&b':') {
            return false;
        }
        match rest {
            [_] => return true,
            [_, b':', port @ ..] => port,
            _ => return false,
        }
    } else {
        let (name, port) = match memchr::memchr(b':', bytes) {
            Some(colon) => {
                let (name, rest) = bytes.split_at(colon);
                (name, rest.get(1..).unwrap_or_default())
            }
            None => (bytes, &b""[..]),
        };
        if name.is_empty() || !all(name, REG_NAME) {
            return false;
        }
        port
    };
    port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// A byte of text: neither a control byte nor DEL, but for the tab.
pub(super) fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Without the blanks and tabs around it (OWS, RFC 9110 §5.6.3).
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The members of a comma-separated list (RFC 9110 §5.6.1), trimmed; empty ones
/// are kept.
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for good in ["", "a", "a b\tc", "ä", "\u{80}"] {
            assert!(is_field_value(good.as_bytes()), "{good:?}");
        }
        for bad in [" a", "a ", "\t", "a\nb", "a\rb", "\0", "a\u{7f}"] {
            assert!(!is_field_value(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn tokens() {
        assert!(is_token(b"X-a_1!"));
        for bad in ["", "a b", "a:", "\u{e4}", "a\0", "\"a\"", "a/b"] {
            assert!(!is_token(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn lists() {
        let all: Vec<_> = members(b" a,\tb ,, c").collect();
        let expected: [&[u8]; 4] = [b"a", b"b", b"", b"c"];
        assert_eq!(all, expected);
    }
}

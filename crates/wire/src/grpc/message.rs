//! `grpc-message`: the text of a status, percent-encoded.
//!
//! ```text
//! Percent-Encoded           = 1*( Percent-Byte-Unencoded / Percent-Byte-Encoded )
//! Percent-Byte-Unencoded    = 1*( %x20-%x24 / %x26-%x7E )     ; space and VCHAR, except "%"
//! Percent-Byte-Encoded      = "%" 2HEXDIGIT
//! ```

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// Appends the value of `grpc-message` for a text.
pub fn encode_message(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => {
                let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied();
                out.push(b'%');
                out.extend(digit(byte >> 4));
                out.extend(digit(byte & 15));
            }
            plain => out.push(plain),
        }
    }
}

/// The text that a value of `grpc-message` stands for. What is wrongly encoded stays as it is, as the document says, and
/// what is not UTF-8 is replaced.
#[must_use]
pub fn decode_message(value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, after @ ..] = rest {
        let pair = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match pair {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = rest.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_values() {
        for (text, value) in [
            ("", ""),
            ("server busy, try again", "server busy, try again"),
            ("100%", "100%25"),
            ("line\r\nline", "line%0D%0Aline"),
            ("\u{fc}ber\u{7f}", "%C3%BCber%7F"),
        ] {
            let mut out = Vec::new();
            encode_message(text, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), value);
            assert_eq!(decode_message(value.as_bytes()), text);
        }
    }

    #[test]
    fn what_is_wrongly_encoded_stays() {
        for (value, text) in [
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz%41%c3%bc", "%zzA\u{fc}"),
            ("%%41", "%A"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(decode_message(value.as_bytes()), text, "{value:?}");
        }
    }
}

//! Base64 (RFC 4648 §4) of a body that comes in pieces, for gRPC-Web's text form: each piece that a sender flushed may be
//! padded by itself, so that padding may stand between two pieces.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What is no base64, or ends within a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadBase64;

/// Appends `bytes` as base64 that stands for itself: padded at its end.
pub fn encode_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = ALPHABET.get((bits >> (18 - 6 * at) & 63) as usize).copied();
            out.push(if at > group.len() {
                b'='
            } else {
                letter.unwrap_or(b'=')
            });
        }
    }
}

/// Where in a body the next letter stands.
#[derive(Debug, Clone, Default)]
pub struct Base64Decoder {
    /// The bits of a group that has begun.
    bits: u32,
    /// Letters of the group so far, padding included; 0-3.
    letters: u8,
    /// How many of these are padding.
    padding: u8,
}

impl Base64Decoder {
    /// Appends what a piece stands for.
    ///
    /// # Errors
    /// At a letter that cannot stand where it does.
    pub fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), BadBase64> {
        for letter in bytes {
            self.take(*letter)?;
            if self.letters == 4 {
                let [_, group @ ..] = self.bits.to_be_bytes();
                let count = group.len().saturating_sub(usize::from(self.padding));
                out.extend(group.into_iter().take(count));
                *self = Self::default();
            }
        }
        Ok(())
    }

    /// Whether a body may end here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.letters == 0
    }

    fn take(&mut self, letter: u8) -> Result<(), BadBase64> {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' if self.letters >= 2 => {
                self.padding += 1;
                0
            }
            _ => return Err(BadBase64),
        };
        if self.padding > 0 && letter != b'=' {
            return Err(BadBase64);
        }
        self.bits = self.bits << 6 | u32::from(value);
        self.letters += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        encode_base64(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn decoded(text: &str, piece: usize) -> Result<Vec<u8>, BadBase64> {
        let mut decoder = Base64Decoder::default();
        let mut whole = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            decoder.decode(piece, &mut whole)?;
        }
        decoder.is_whole().then_some(whole).ok_or(BadBase64)
    }

    #[test]
    fn the_vectors_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encoded(bytes.as_bytes()), text);
            for piece in 1..9 {
                assert_eq!(decoded(text, piece), Ok(bytes.into()), "{text} by {piece}");
            }
        }
        assert_eq!(encoded(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn padding_may_stand_between_pieces_and_nowhere_else() {
        assert_eq!(decoded("Zg==Zm8=Zm9v", 100), Ok(b"ffofoo".to_vec()));
        for text in [
            "=", "Z", "Z=", "Z===", "Zg=", "Zg=a", "====", "Zm9v\n", "Zm-_", "Zm9vY",
        ] {
            assert_eq!(decoded(text, 100), Err(BadBase64), "{text}");
        }
    }
}

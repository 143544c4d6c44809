//! Where the parts of a head end: eight bytes at a time, in one word.
//!
//! Each search stops at the *first* byte that matters and leaves what it means to the
//! caller. The words are read as little-endian, so that the first byte is the lowest one.

/// The lowest and the highest bit of each byte of a word.
const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Marks the bytes that are less than `bound` (1 to 128), by their high bit; exact up to
/// and with the lowest, since above it a borrow may show more. Bytes from 0x80 may be
/// marked too: [`first`] takes ASCII only.
#[inline(always)]
const fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(LOW * bound as u64)
}

/// Marks the bytes that are `byte` (below 128), as [`below`] does.
#[inline(always)]
const fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (LOW * byte as u64), 1)
}

/// The offset of the first ASCII byte at or after `from` that `marks` marks by its high
/// bit, or the length of `bytes`.
#[inline(always)]
fn first(bytes: &[u8], from: usize, marks: impl Fn(u64) -> u64) -> usize {
    let find = |word| marks(word) & !word & HIGH;
    let (words, tail) = bytes.get(from..).unwrap_or_default().as_chunks();
    let mut at = from;
    for word in words {
        let found = find(u64::from_le_bytes(*word));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += size_of::<u64>();
    }
    let found = find(padded(bytes, tail));
    at + tail.len().min((found.trailing_zeros() / 8) as usize)
}

/// The `tail` of `bytes`, shorter than a word, with zeros behind it.
#[inline(always)]
fn padded(bytes: &[u8], tail: &[u8]) -> u64 {
    let surplus = 8 * (size_of::<u64>() - tail.len()) as u32;
    match bytes.last_chunk() {
        Some(last) => u64::from_le_bytes(*last).checked_shr(surplus).unwrap_or(0),
        None => {
            let bytes = tail.iter().rev();
            bytes.fold(0, |word, &byte| word << 8 | u64::from(byte))
        }
    }
}

/// From `from` over as many pieces of sixteen bytes as hold nothing that `stops`: what
/// the compiler makes one comparison of.
#[inline(always)]
fn over_pieces(bytes: &[u8], from: usize, stops: impl Fn(u8) -> bool) -> usize {
    let (pieces, _) = bytes.get(from..).unwrap_or_default().as_chunks::<16>();
    let is_free = |piece: &&[u8; 16]| !piece.iter().fold(false, |any, &byte| any | stops(byte));
    from + 16 * pieces.iter().take_while(is_free).count()
}

/// The first colon at or after `from`.
#[inline(always)]
pub(super) fn colon(bytes: &[u8], from: usize) -> usize {
    first(bytes, from, |word| equal(word, b':'))
}

/// The first control byte or DEL at or after `from`. The tab is one of them.
#[inline(always)]
pub(super) fn control(bytes: &[u8], from: usize) -> usize {
    let from = over_pieces(bytes, from, |byte| byte < b' ' || byte == 0x7f);
    first(bytes, from, |word| below(word, b' ') | equal(word, 0x7f))
}

/// The first byte at or after `from` that is no visible ASCII (`!` to `~`), or is `#`.
#[inline(always)]
pub(super) fn target_end(bytes: &[u8], from: usize) -> usize {
    let ends = |byte: u8| !(b'!'..=b'~').contains(&byte) || byte == b'#';
    let from = over_pieces(bytes, from, ends);
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|&&byte| !ends(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte at every place among others that do not stop, and at both ends.
    #[test]
    fn each_search_finds_the_first_byte_of_its_kind() {
        type Search = (&'static str, fn(&[u8], usize) -> usize, fn(u8) -> bool);
        let searches: [Search; 3] = [
            ("colon", colon, |b| b == b':'),
            ("control", control, |b| b < b' ' || b == 0x7f),
            ("target_end", target_end, |b| {
                !(b'!'..=b'~').contains(&b) || b == b'#'
            }),
        ];
        for (name, search, stops) in searches {
            for len in 0..37 {
                assert_eq!(search(&vec![b'a'; len], 0), len, "{name}");
                for (at, byte) in (0..len).flat_map(|at| (0..=255).map(move |b| (at, b))) {
                    // What follows must not hide the first.
                    for after in [b'a', 0, b':', 0xff, byte] {
                        let mut bytes = vec![b'a'; len];
                        bytes[at..].fill(after);
                        bytes[at] = byte;
                        for from in [0, at / 2, at] {
                            let expected = (from..len).find(|&i| stops(bytes[i])).unwrap_or(len);
                            assert_eq!(search(&bytes, from), expected, "{name} {bytes:?}");
                        }
                    }
                }
            }
        }
    }
}

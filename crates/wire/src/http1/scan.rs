//! Where the parts of a head end: sixteen bytes at a time.
//!
//! Each search stops at the *first* byte that matters and leaves what it means to the
//! caller.

use wide::u8x16;

/// The bytes that are looked at together.
const LANES: usize = 16;

/// The offset of the first byte at or after `from` for which `marks` has a bit, or the
/// length of `bytes`.
#[inline(always)]
fn first(bytes: &[u8], from: usize, marks: impl Fn(u8x16) -> u8x16) -> usize {
    let find = |piece: &[u8; LANES]| marks(u8x16::new(*piece)).to_bitmask();
    let mut at = from;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(piece) = rest.first_chunk() else {
            let found = match bytes.last_chunk() {
                Some(last) => find(last) >> (LANES - rest.len()),
                None => find(&padded(rest)),
            };
            return at + rest.len().min(found.trailing_zeros() as usize);
        };
        let found = find(piece);
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += LANES;
    }
}

/// The `tail`, shorter than a piece, with zeros behind it.
#[cold]
fn padded(tail: &[u8]) -> [u8; LANES] {
    let mut piece = [0; LANES];
    for (to, from) in piece.iter_mut().zip(tail) {
        *to = *from;
    }
    piece
}

/// Marks the bytes that are `byte`.
#[inline(always)]
fn equal(piece: u8x16, byte: u8) -> u8x16 {
    piece.simd_eq(u8x16::splat(byte))
}

/// Marks the bytes that are not above `bound`.
#[inline(always)]
fn up_to(piece: u8x16, bound: u8) -> u8x16 {
    piece.min(u8x16::splat(bound)).simd_eq(piece)
}

/// The first colon at or after `from`.
#[inline(always)]
pub(super) fn colon(bytes: &[u8], from: usize) -> usize {
    first(bytes, from, |piece| equal(piece, b':'))
}

/// The first control byte or DEL at or after `from`. The tab is one of them.
#[inline(always)]
pub(super) fn control(bytes: &[u8], from: usize) -> usize {
    first(bytes, from, |piece| {
        up_to(piece, b' ' - 1) | equal(piece, 0x7f)
    })
}

/// The first byte at or after `from` that is no visible ASCII (`!` to `~`), or is `#`.
#[inline(always)]
pub(super) fn target_end(bytes: &[u8], from: usize) -> usize {
    first(bytes, from, |piece| {
        let above = piece.max(u8x16::splat(b'~' + 1)).simd_eq(piece);
        up_to(piece, b' ') | above | equal(piece, b'#')
    })
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

//! Readers of cookies and query parameters. What is malformed is read as far as it makes sense.

use crate::path::hex_pair;

/// The value of the first cookie called `name` in a `Cookie` field value.
pub fn cookie<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    cookies(value)
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// Names and values of a `Cookie` field value (RFC 6265 §4.2.1), as they stand: nothing is decoded,
/// quotes stay. A piece without `=` is a name with an empty value.
pub fn cookies(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    pieces(value).map(pair)
}

/// Writes a `Cookie` field value without the cookies called `name`, and without empty pieces; false when nothing is left
/// of it.
pub fn without_cookie(value: &[u8], name: &[u8], out: &mut Vec<u8>) -> bool {
    let mut any = false;
    for piece in pieces(value).map(<[u8]>::trim_ascii) {
        if piece.is_empty() || pair(piece).0 == name {
            continue;
        }
        if any {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(piece);
        any = true;
    }
    any
}

/// What semicolons separate.
fn pieces(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let value = rest?;
        let at = memchr::memchr(b';', value);
        rest = at.and_then(|at| value.get(at + 1..));
        Some(at.and_then(|at| value.get(..at)).unwrap_or(value))
    })
}

fn pair(piece: &[u8]) -> (&[u8], &[u8]) {
    let (name, value) = split_at_byte(piece.trim_ascii(), b'=');
    (name.trim_ascii_end(), value.trim_ascii_start())
}

/// The decoded value of the first parameter called `name` in a query.
///
/// Borrowed where nothing needs decoding, else written to `scratch`, which may be cleared in any case.
pub fn query<'a>(query: &'a [u8], name: &[u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let (_, value) = params(query).find(|(found, _)| is_name(found, name, scratch))?;
    Some(decode(value, scratch))
}

/// Names and values of a query, as they stand; a piece without `=` is a name with an empty value.
pub fn params(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query
        .split(|byte| *byte == b'&')
        .filter(|piece| !piece.is_empty())
        .map(|piece| split_at_byte(piece, b'='))
}

/// Whether `found`, decoded, is `name`.
pub(crate) fn is_name(found: &[u8], name: &[u8], scratch: &mut Vec<u8>) -> bool {
    decode(found, scratch) == name
}

/// `+` is a space, `%41` an `A`; a `%` that begins no escape stands for itself.
pub(crate) fn decode<'a>(text: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return text;
    }
    scratch.clear();
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'+', _) => scratch.push(b' '),
            (b'%', [high, low, after @ ..]) => match hex_pair(*high, *low) {
                Some(value) => {
                    scratch.push(value);
                    rest = after;
                }
                None => scratch.push(byte),
            },
            _ => scratch.push(byte),
        }
    }
    scratch
}

fn split_at_byte(text: &[u8], byte: u8) -> (&[u8], &[u8]) {
    match memchr::memchr(byte, text) {
        Some(at) => {
            let (before, rest) = text.split_at(at);
            (before, rest.get(1..).unwrap_or_default())
        }
        None => (text, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_cookie(value: &str, name: &str, expected: Option<&str>) {
        assert_eq!(
            cookie(value.as_bytes(), name.as_bytes()),
            expected.map(str::as_bytes),
            "{value}"
        );
    }

    fn check_query(text: &str, name: &str, expected: Option<&str>) {
        let mut scratch = Vec::new();
        let got = query(text.as_bytes(), name.as_bytes(), &mut scratch);
        assert_eq!(got, expected.map(str::as_bytes), "{text}");
    }

    #[test]
    fn cookie_values() {
        check_cookie("a=1; b=2", "b", Some("2"));
        check_cookie("a=1;b=2", "b", Some("2"));
        check_cookie("a=1; a=2", "a", Some("1"));
        check_cookie("a = 1", "a", Some("1"));
        check_cookie("a=b=c", "a", Some("b=c"));
        check_cookie("a=\"x\"", "a", Some("\"x\""));
        check_cookie("flag; a=1", "flag", Some(""));
        check_cookie("A=1", "a", None);
        check_cookie("aa=1", "a", None);
        check_cookie(";;=;", "a", None);
        check_cookie("", "a", None);
    }

    fn check_without(value: &str, name: &str, expected: &str) {
        let mut out = Vec::new();
        let any = without_cookie(value.as_bytes(), name.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{value}");
        assert_eq!(any, !expected.is_empty(), "{value}");
    }

    #[test]
    fn one_cookie_less() {
        check_without("a=1; b=2; c=3", "b", "a=1; c=3");
        check_without("a=1; b=2", "a", "b=2");
        check_without("a=1; b=2", "b", "a=1");
        check_without("a=1;a=2 ; b=\"x\";;c", "a", "b=\"x\"; c");
        check_without("a=1", "a", "");
        check_without("a", "a", "");
        check_without("", "a", "");
        check_without("A=1; aa=2; b=a", "a", "A=1; aa=2; b=a");
    }

    proptest::proptest! {
        /// However cookies are written: one that is taken out is gone, and the others are what they were.
        #[test]
        fn the_others_stay(value in "[ab=; \"x]{0,40}", name in "[ab]{1,2}") {
            let (value, name) = (value.as_bytes(), name.as_bytes());
            let mut out = Vec::new();
            without_cookie(value, name, &mut out);
            proptest::prop_assert_eq!(cookie(&out, name), None);
            let others = |value| {
                let is_other = |(found, value): &(&[u8], &[u8])| *found != name && !(found.is_empty() && value.is_empty());
                cookies(value).filter(is_other).map(|(name, value)| (name.to_vec(), value.to_vec())).collect::<Vec<_>>()
            };
            proptest::prop_assert_eq!(others(value), others(&out));
        }
    }

    #[test]
    fn query_values() {
        check_query("a=1&b=2", "b", Some("2"));
        check_query("a=1&a=2", "a", Some("1"));
        check_query("a=x+y%21", "a", Some("x y!"));
        check_query("%61=1", "a", Some("1"));
        check_query("debug", "debug", Some(""));
        check_query("debug=&x", "debug", Some(""));
        check_query("a=%zz%4", "a", Some("%zz%4"));
        check_query("a=1=2", "a", Some("1=2"));
        check_query("&&a=1", "a", Some("1"));
        check_query("a+b=1", "a b", Some("1"));
        check_query("", "a", None);
        check_query("A=1", "a", None);
    }
}

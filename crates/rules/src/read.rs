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
    value.split(|byte| *byte == b';').map(|piece| {
        let (name, value) = split_at_byte(piece.trim_ascii(), b'=');
        (name.trim_ascii_end(), value.trim_ascii_start())
    })
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

//! Readers of what applications tell their sessions apart by: `Set-Cookie` fields, and parameters of paths.

/// The value that a `Set-Cookie` field gives the cookie `name` (RFC 6265 §5.2), as it stands. `None` when it is of
/// another cookie, empty, or ends the cookie by its `Max-Age`.
#[must_use]
pub fn set_cookie<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut pieces = field.split(|byte| *byte == b';');
    let (found, value) = pair(pieces.next()?)?;
    if found != name || value.is_empty() {
        return None;
    }
    let mut attributes = pieces.filter_map(pair);
    // The first character of a Max-Age is a digit or a minus (§5.2.2); none but 0 and what is below it ends a cookie.
    let ends = attributes.any(|(name, value)| {
        name.eq_ignore_ascii_case(b"max-age")
            && match value.split_first() {
                Some((b'-', rest)) => is_number(rest),
                _ => is_number(value) && value.iter().all(|digit| *digit == b'0'),
            }
    });
    (!ends).then_some(value)
}

/// The value of the parameter `name` in a path (RFC 3986 §3.3): `/shop;jsessionid=VALUE/cart`. The last one that is not
/// empty, as it stands.
#[must_use]
pub fn path_parameter<'a>(path: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    // Mostly there is none.
    memchr::memchr(b';', path)?;
    let segments = path.split(|byte| *byte == b'/');
    let parameters = segments.flat_map(|segment| segment.split(|byte| *byte == b';').skip(1));
    let values = parameters.filter_map(|parameter| {
        let value = parameter.strip_prefix(name)?.strip_prefix(b"=")?;
        (!value.is_empty()).then_some(value)
    });
    values.last()
}

/// Name and value around the first `=`, without blanks around them.
fn pair(piece: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'=', piece)?;
    let (name, rest) = piece.split_at(at);
    Some((name.trim_ascii(), rest.get(1..)?.trim_ascii()))
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_set() {
        let check = |field: &str, name: &str, expected: Option<&str>| {
            let found = set_cookie(field.as_bytes(), name.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{field}");
        };
        check("id=abc", "id", Some("abc"));
        check("id=abc; Path=/; HttpOnly", "id", Some("abc"));
        check(" id = abc ;Max-Age=60", "id", Some("abc"));
        check("id=\"a=b\"; Secure", "id", Some("\"a=b\""));
        check("id=abc.node1; max-age=x", "id", Some("abc.node1"));
        check("id=abc; Max-Age=010", "id", Some("abc"));
        check("id=abc; Max-Age=-", "id", Some("abc"));
        check("ID=abc", "id", None);
        check("idx=abc", "id", None);
        check("other=1; id=abc", "id", None);
        check("id=; Path=/", "id", None);
        check("id", "id", None);
        check(
            "id=deleted; Expires=Thu, 01 Jan 1970 00:00:00 GMT; MAX-AGE=0",
            "id",
            None,
        );
        check("id=abc; Max-Age=-1", "id", None);
        check("id=abc; max-age = 00", "id", None);
        check("", "id", None);
    }

    #[test]
    fn values_in_a_path() {
        let check = |path: &str, expected: Option<&str>| {
            let found = path_parameter(path.as_bytes(), b"jsessionid");
            assert_eq!(found, expected.map(str::as_bytes), "{path}");
        };
        check("/cart;jsessionid=A1.n2", Some("A1.n2"));
        check("/a;v=1;jsessionid=A1/b", Some("A1"));
        check("/a;jsessionid=A1;v=1", Some("A1"));
        check("/a;jsessionid=A1/b;jsessionid=B2", Some("B2"));
        check("/a;jsessionid=A=1", Some("A=1"));
        check("/cart;jsessionid=", None);
        check("/cart;jsessionid", None);
        check("/cart;JSESSIONID=A1", None);
        check("/cart;xjsessionid=A1", None);
        check("/jsessionid=A1", None);
        check("/;", None);
        check("", None);
    }
}

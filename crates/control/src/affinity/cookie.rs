//! The cookie that says which server a client is bound to: what it holds, and how it is set.
//!
//! ```text
//! value = text [ "~s" place ] [ "~t" seconds ]     text: of the server; both numbers hexadecimal
//! ```
//!
//! `place` is the user's among those of a split, `seconds` when the cookie was given, since the Unix epoch: only with
//! `max_age`. Neither is secret nor signed: who changes them changes its own luck.

use std::io::Write as _;
use std::time::Duration;

use config::InsertedCookie;
use rules::Request;

use super::{Bond, Bound, BoundServer, Share, Tie};

/// Cookies of one name that are looked at.
const LOOKS_MAX: usize = 8;
/// Bytes of a value that can be ours: a name of a server, and what follows.
const VALUE_BYTES_MAX: usize = 512;
/// A time that is further ahead than clocks of nodes may differ, in seconds, is none of ours: its cookie would never end.
const AHEAD_MAX: u64 = 300;
/// Separates the parts of a value.
const SEPARATOR: u8 = b'~';

/// What a value says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// Of the server.
    pub text: &'a [u8],
    /// The user's place in a split.
    pub share: Option<Share>,
    /// When it was given: wall time, in seconds since the Unix epoch.
    pub given: Option<u64>,
}

impl<'a> Value<'a> {
    /// Takes a value apart; `None` if it cannot be one of ours.
    #[must_use]
    pub fn read(value: &'a [u8]) -> Option<Self> {
        let quoted = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""));
        let value = quoted.unwrap_or(value);
        if value.len() > VALUE_BYTES_MAX {
            return None;
        }
        let mut parts = value.split(|byte| *byte == SEPARATOR);
        let mut read = Self {
            text: parts.next().filter(|text| !text.is_empty())?,
            share: None,
            given: None,
        };
        for part in parts {
            match part.split_first()? {
                (b's', digits) if read.share.is_none() && read.given.is_none() => {
                    let share = u32::try_from(hex(digits)?).ok()?;
                    read.share = Some(Share(share));
                }
                (b't', digits) if read.given.is_none() => read.given = Some(hex(digits)?),
                _ => return None,
            }
        }
        Some(read)
    }
}

impl Value<'_> {
    /// How old it is, in seconds, where both are known.
    fn age(&self, now: Option<u64>) -> Option<u64> {
        Some(now?.saturating_sub(self.given?))
    }

    /// Whether it says to be given at a time that has not come, where cookies end.
    fn is_ahead(&self, now: Option<u64>) -> bool {
        let both = self.given.zip(now);
        both.is_some_and(|(given, now)| given > now.saturating_add(AHEAD_MAX))
    }
}

/// 1-16 hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(number << 4 | u64::from(digit))
    })
}

/// What those cookies of a request say that can be ours, in their order.
pub fn values<'a>(
    cookie: &InsertedCookie,
    request: &Request<'a>,
) -> impl Iterator<Item = Value<'a>> {
    let values = request.cookies(&cookie.name).take(LOOKS_MAX);
    values.filter_map(Value::read)
}

/// What one of a request's cookies of the name says.
#[derive(Debug)]
pub enum Look<'a, 'b> {
    /// It is none of ours: cut off, written by somebody else, or of a time to come.
    Foreign,
    /// It names no server of the pool.
    Unknown(Value<'a>),
    /// It names one, and was given longer ago than `max_age`.
    Old(Value<'a>),
    /// It names this one.
    Names(Value<'a>, &'b BoundServer),
}

/// What each of the request's cookies of the name says, in their order. `now`: wall time in seconds, where cookies end.
pub fn looks<'a, 'b>(
    cookie: &InsertedCookie,
    bound: &'b Bound,
    request: &Request<'a>,
    now: Option<u64>,
) -> impl Iterator<Item = Look<'a, 'b>> {
    let values = request.cookies(&cookie.name).take(LOOKS_MAX);
    values.map(move |value| {
        let read = Value::read(value).filter(|read| !read.is_ahead(now));
        let Some(read) = read else {
            return Look::Foreign;
        };
        let Some(server) = bound.of_text(read.text) else {
            return Look::Unknown(read);
        };
        let age = read.age(now);
        match age.zip(cookie.max_age) {
            Some((age, max)) if age > max.as_secs() => Look::Old(read),
            _ => Look::Names(read, server),
        }
    })
}

/// What the cookies of a request bind it to. The first that names a server counts, whatever others of that name say;
/// `wall`: asked only where cookies end.
#[must_use]
pub fn bond(
    cookie: &InsertedCookie,
    bound: &Bound,
    request: &Request<'_>,
    wall: impl FnOnce() -> Duration,
) -> Bond {
    let now = cookie.max_age.map(|_| wall().as_secs());
    let mut bond = Bond::default();
    for look in looks(cookie, bound, request, now) {
        bond.foreign = true;
        match look {
            Look::Foreign => {}
            Look::Unknown(read) | Look::Old(read) => bond.share = bond.share.or(read.share),
            Look::Names(read, server) => {
                let age = read.age(now).zip(cookie.renewal);
                let old = age.is_some_and(|(age, renewal)| age >= renewal.as_secs());
                bond.tie = Tie::Server(server.member.id);
                bond.foreign = false;
                bond.renew = old || read.given.is_some() != now.is_some();
                bond.share = read.share;
                break;
            }
        }
    }
    bond
}

/// Writes the value of a `Set-Cookie` field (RFC 6265 §4.1.1). `secure`: the client came over TLS.
pub fn write(
    out: &mut Vec<u8>,
    cookie: &InsertedCookie,
    text: &[u8],
    share: Option<Share>,
    secure: bool,
    wall: impl FnOnce() -> Duration,
) {
    out.extend_from_slice(cookie.name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(text);
    // Writing to a vector does not fail.
    if let Some(Share(share)) = share {
        let _ = write!(out, "~s{share:x}");
    }
    if cookie.max_age.is_some() {
        let _ = write!(out, "~t{:x}", wall().as_secs());
    }
    let _ = write!(out, "; Path={}", cookie.path);
    if let Some(domain) = &cookie.domain {
        let _ = write!(out, "; Domain={domain}");
    }
    if let Some(max_age) = cookie.max_age {
        let _ = write!(out, "; Max-Age={}", max_age.as_secs());
    }
    if cookie.secure.unwrap_or(secure) {
        out.extend_from_slice(b"; Secure");
    }
    if cookie.http_only {
        out.extend_from_slice(b"; HttpOnly");
    }
    let _ = write!(out, "; SameSite={}", cookie.same_site);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(value: &str, expected: Option<(&str, Option<u32>, Option<u64>)>) {
        let read = Value::read(value.as_bytes());
        let expected = expected.map(|(text, share, given)| Value {
            text: text.as_bytes(),
            share: share.map(Share),
            given,
        });
        assert_eq!(read, expected, "{value}");
    }

    #[test]
    fn values() {
        check("3gYdI9T0cpAbrsa3", Some(("3gYdI9T0cpAbrsa3", None, None)));
        check("\"server-a\"", Some(("server-a", None, None)));
        check("10.0.0.1:80~s1f", Some(("10.0.0.1:80", Some(31), None)));
        check("a~t65a0ff12", Some(("a", None, Some(0x65a0_ff12))));
        check("a~sffffffff~t1", Some(("a", Some(u32::MAX), Some(1))));
        check("a~S1", None);
        check("a~t1~s1", None);
        check("a~s1~s1", None);
        check("a~t1~t1", None);
        check("a~s100000000", None);
        check("a~t", None);
        check("a~t12345678123456781", None);
        check("a~", None);
        check("a~x1", None);
        check("~s1", None);
        check("", None);
        check("\"\"", None);
        check(&"a".repeat(513), None);
    }

    fn cookie(max_age: Option<u64>) -> InsertedCookie {
        InsertedCookie {
            name: "SERVERID".into(),
            opaque: true,
            path: "/".into(),
            domain: None,
            secure: None,
            http_only: true,
            same_site: "Lax",
            max_age: max_age.map(Duration::from_secs),
            renewal: max_age.map(|age| Duration::from_secs(age / 2)),
            indirect: true,
            no_cache: true,
        }
    }

    fn written(cookie: &InsertedCookie, share: Option<u32>, secure: bool) -> String {
        let mut out = Vec::new();
        let wall = || Duration::from_secs(0x65a0_ff12);
        write(&mut out, cookie, b"text", share.map(Share), secure, wall);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn as_it_is_set() {
        let plain = cookie(None);
        assert_eq!(
            written(&plain, None, false),
            "SERVERID=text; Path=/; HttpOnly; SameSite=Lax"
        );
        assert_eq!(
            written(&plain, Some(255), true),
            "SERVERID=text~sff; Path=/; Secure; HttpOnly; SameSite=Lax"
        );
        let long = InsertedCookie {
            domain: Some("example.com".into()),
            path: "/shop".into(),
            secure: Some(true),
            http_only: false,
            same_site: "None",
            ..cookie(Some(3600))
        };
        assert_eq!(
            written(&long, Some(1), false),
            "SERVERID=text~s1~t65a0ff12; Path=/shop; Domain=example.com; Max-Age=3600; Secure; SameSite=None"
        );
        let open = InsertedCookie {
            secure: Some(false),
            ..plain
        };
        assert!(!written(&open, None, true).contains("Secure"));
    }

    proptest! {
        /// Whatever is set is read back; whatever comes is read without a fault.
        #[test]
        fn what_is_written_is_read(text in "[A-Za-z0-9._:/@-]{1,64}", share: Option<u32>, given: Option<u64>) {
            let mut value = text.clone();
            if let Some(share) = share {
                value += &format!("~s{share:x}");
            }
            if let Some(given) = given {
                value += &format!("~t{given:x}");
            }
            check(&value, Some((&text, share, given)));
        }

        #[test]
        fn anything_is_read(value: Vec<u8>) {
            if let Some(read) = Value::read(&value) {
                prop_assert!(!read.text.is_empty() && read.text.len() <= value.len());
                prop_assert!(!read.text.contains(&SEPARATOR));
            }
        }
    }
}

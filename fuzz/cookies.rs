//! What must hold for every cookie that a client is bound by. The fuzz target calls this; a test of `evenkeel-control`
//! includes this file and calls it with the corpus and with random bytes.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use config::InsertedCookie;
use evenkeel_control::affinity::cookie::{self, Value};
use rules::Request;
use wire::http1::{Decoded, HeadLimits, RequestHead, decode_request};

const NAME: &str = "S";

/// Values of a `Cookie` field: no panic; what is read of a cookie of ours is bounded, and the same when it is set anew
/// and comes back; taking it out leaves the others as they were.
pub(crate) fn affinity_cookie(data: &[u8]) {
    taken_out(data);
    learnt(data);
    let before = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: ";
    let bytes = [&before[..], data, b"\r\n\r\n"].concat();
    let mut head = RequestHead::default();
    let wide = HeadLimits {
        head_bytes: usize::MAX,
        headers: 4096,
        uri_bytes: usize::MAX,
    };
    if decode_request(&bytes, &wide, &mut head) != Ok(Decoded::Complete(())) {
        return;
    }
    let request = Request {
        method: b"GET",
        host: b"a",
        path: b"/",
        query: None,
        head: &head,
        bytes: &bytes,
        source: IpAddr::V4(Ipv4Addr::LOCALHOST),
        tls: None,
        https: false,
    };
    let mut count = 0;
    for value in cookie::values(&inserted(false), &request) {
        count += 1;
        assert!(!value.text.is_empty() && value.text.len() <= 512);
        assert!(!value.text.contains(&b'~'));
        comes_back(value);
    }
    assert!(count <= 8);
}

/// What is set for a value is read as that value. Quotes are not part of one.
fn comes_back(value: Value<'_>) {
    if !value
        .text
        .iter()
        .all(|byte| byte.is_ascii_graphic() && *byte != b'"')
    {
        return;
    }
    let mut set = Vec::new();
    let wall = || Duration::from_secs(value.given.unwrap_or_default());
    let ours = inserted(value.given.is_some());
    cookie::write(&mut set, &ours, value.text, value.share, false, wall);
    let again = rules::set_cookie(&set, NAME.as_bytes()).and_then(Value::read);
    assert_eq!(again, Some(value));
}

/// A field without the cookies of one name.
fn taken_out(field: &[u8]) {
    let mut out = Vec::new();
    let any = rules::without_cookie(field, NAME.as_bytes(), &mut out);
    assert_eq!(any, !out.is_empty());
    assert_eq!(rules::cookie(&out, NAME.as_bytes()), None);
    let is_other = |(name, value): &(&[u8], &[u8])| {
        *name != NAME.as_bytes() && !(name.is_empty() && value.is_empty())
    };
    let others = rules::cookies(field).filter(is_other);
    assert!(others.eq(rules::cookies(&out).filter(is_other)));
}

/// Cookies and path parameters of applications.
fn learnt(data: &[u8]) {
    for name in [NAME, "jsessionid"] {
        if let Some(value) = rules::set_cookie(data, name.as_bytes()) {
            assert!(!value.is_empty() && !value.contains(&b';'));
        }
        if let Some(value) = rules::path_parameter(data, name.as_bytes()) {
            assert!(!value.is_empty() && !value.iter().any(|byte| matches!(byte, b'/' | b';')));
        }
    }
}

fn inserted(ends: bool) -> InsertedCookie {
    InsertedCookie {
        name: NAME.into(),
        opaque: true,
        path: "/".into(),
        domain: None,
        secure: None,
        http_only: true,
        same_site: "Lax",
        max_age: ends.then(|| Duration::from_secs(3600)),
        renewal: None,
        indirect: true,
        no_cache: true,
    }
}

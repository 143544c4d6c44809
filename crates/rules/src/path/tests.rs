//! Targets: normal forms by tables, and properties of normalising.

use proptest::prelude::*;

use super::*;

/// `expected`: the path, or the error.
fn check(target: &str, expected: Result<&str, TargetError>) {
    let mut scratch = Vec::new();
    let got = normalise(Method::Get, target.as_bytes(), &mut scratch)
        .map(|target| String::from_utf8_lossy(target.path).into_owned());
    assert_eq!(got, expected.map(str::to_owned), "{target}");
}

#[test]
fn paths() {
    check("/", Ok("/"));
    check("/a/b", Ok("/a/b"));
    check("/a/b/", Ok("/a/b/"));
    check("//", Ok("//"));
    check("/a//b", Ok("/a//b"));
    check("/%7Euser/%61", Ok("/~user/a"));
    check("/a%2fb", Ok("/a%2Fb"));
    check("/a%2Fb", Ok("/a%2Fb"));
    check("/%25%32%65", Ok("/%252e"));
    check("/%252e%252e/", Ok("/%252e%252e/"));
    check("/a%20b%0D%0a", Ok("/a%20b%0D%0A"));
    check("/caf\u{e9}", Ok("/caf%C3%A9"));
    check("/a;v=1,2:x@y!$&'()*+", Ok("/a;v=1,2:x@y!$&'()*+"));
    check("/a\\b", Ok("/a\\b"));
}

#[test]
fn dot_segments() {
    check("/.", Ok("/"));
    check("/./", Ok("/"));
    check("/a/.", Ok("/a/"));
    check("/a/./b", Ok("/a/b"));
    check("/a/..", Ok("/"));
    check("/a/../", Ok("/"));
    check("/a/b/../c", Ok("/a/c"));
    check("/a/b/../../c", Ok("/c"));
    check("/a/b/c/./../../g", Ok("/a/g"));
    check("/a/%2e%2E/b", Ok("/b"));
    check("/a/.%2e", Ok("/"));
    check("/a/%2e", Ok("/a/"));
    check("//..", Ok("/"));
    check("/a//../b", Ok("/a/b"));
    check("/a/..//b", Ok("//b"));
    check("/a/...", Ok("/a/..."));
    check("/a/.b/..c/d.", Ok("/a/.b/..c/d."));
    check("/a/..?/../..", Ok("/"));
    check("/..", Err(TargetError::AboveRoot));
    check("/../a", Err(TargetError::AboveRoot));
    check("/a/../..", Err(TargetError::AboveRoot));
    check("/a/../../b", Err(TargetError::AboveRoot));
    check("/%2e%2e/a", Err(TargetError::AboveRoot));
    check("/./..", Err(TargetError::AboveRoot));
}

#[test]
fn refused() {
    check("", Err(TargetError::Empty));
    check("/%00", Err(TargetError::Nul));
    check("/a%", Err(TargetError::MalformedEscape));
    check("/a%4", Err(TargetError::MalformedEscape));
    check("/a%4?1", Err(TargetError::MalformedEscape));
    check("/a%zz", Err(TargetError::MalformedEscape));
    check("/a%+1", Err(TargetError::MalformedEscape));
    check("/a b", Err(TargetError::InvalidByte(b' ')));
    check("/a\n", Err(TargetError::InvalidByte(b'\n')));
    check("/%41\x7f", Err(TargetError::InvalidByte(0x7f)));
    check("/a#b", Err(TargetError::InvalidByte(b'#')));
    check("/a?b c", Err(TargetError::InvalidByte(b' ')));
    check("/%41?b#c", Err(TargetError::InvalidByte(b'#')));
    check("a/b", Err(TargetError::Form));
    check("*", Err(TargetError::Form));
    check("example.com:443", Err(TargetError::Form));
}

/// `expected`: form, path and query.
fn check_form(
    method: Method,
    target: &str,
    expected: Result<(Form<'_>, &str, Option<&str>), TargetError>,
) {
    let mut scratch = Vec::new();
    let expected = expected.map(|(form, path, query)| Target {
        form,
        path: path.as_bytes(),
        query: query.map(str::as_bytes),
    });
    assert_eq!(
        normalise(method, target.as_bytes(), &mut scratch),
        expected,
        "{target}"
    );
}

#[test]
fn forms() {
    let absolute = |scheme, authority: &'static str| Form::Absolute {
        scheme,
        authority: authority.as_bytes(),
    };
    let http = |authority| absolute(Scheme::Http, authority);
    let check = check_form;
    check(Method::Get, "/a?b?c", Ok((Form::Origin, "/a", Some("b?c"))));
    check(Method::Get, "/?", Ok((Form::Origin, "/", Some(""))));
    check(
        Method::Get,
        "/%41?%41/../%zz",
        Ok((Form::Origin, "/A", Some("%41/../%zz"))),
    );
    check(
        Method::Get,
        "/a?x=//b",
        Ok((Form::Origin, "/a", Some("x=//b"))),
    );
    check(
        Method::Get,
        "http://a.b:80/c?d",
        Ok((http("a.b:80"), "/c", Some("d"))),
    );
    check(
        Method::Get,
        "HTTPS://A.B/%7e",
        Ok((absolute(Scheme::Https, "A.B"), "/~", None)),
    );
    check(Method::Get, "http://a", Ok((http("a"), "/", None)));
    check(Method::Get, "http://a?q", Ok((http("a"), "/", Some("q"))));
    check(
        Method::Get,
        "http://[::1]:80/x",
        Ok((http("[::1]:80"), "/x", None)),
    );
    check(Method::Options, "*", Ok((Form::Asterisk, "*", None)));
    check(Method::Options, "/*", Ok((Form::Origin, "/*", None)));
    check(Method::Options, "http://a", Ok((http("a"), "*", None)));
    check(Method::Options, "http://a/", Ok((http("a"), "/", None)));
    check(
        Method::Connect,
        "a.b:443",
        Ok((Form::Authority(b"a.b:443"), "", None)),
    );
    check(
        Method::Connect,
        "/a",
        Err(TargetError::Authority(HostError::InvalidByte(b'/'))),
    );
    check(Method::Get, "ftp://a/", Err(TargetError::Scheme));
    check(
        Method::Get,
        "http:///a",
        Err(TargetError::Authority(HostError::Empty)),
    );
    check(
        Method::Get,
        "http://u@a/",
        Err(TargetError::Authority(HostError::InvalidByte(b'@'))),
    );
    check(Method::Get, "http://a/..", Err(TargetError::AboveRoot));
    check(
        Method::Get,
        "http://a#b",
        Err(TargetError::InvalidByte(b'#')),
    );
}

#[test]
fn what_is_normal_is_borrowed() {
    let mut scratch = vec![1];
    normalise(Method::Get, b"/a/%2F/.b/c..?d=%41", &mut scratch).unwrap();
    assert_eq!(scratch, [1]);
}

/// Targets with much of what matters in them.
fn target() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "/", "/", ".", "..", "a", "%2e", "%2E", "%2F", "%25", "%41", "%c3", "\u{e9}", "?", "%",
        "%0", "%00", "~", "*",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..12)
        .prop_map(|pieces| format!("/{}", pieces.concat()).into_bytes())
}

fn path_of(target: &[u8]) -> Result<Vec<u8>, TargetError> {
    normalise(Method::Get, target, &mut Vec::new()).map(|target| target.path.to_owned())
}

proptest! {
    #[test]
    fn normal_stays_normal(target in target()) {
        if let Ok(path) = path_of(&target) {
            prop_assert_eq!(path_of(&path), Ok(path.clone()));
            let mut scratch = vec![1];
            normalise(Method::Get, &path, &mut scratch).unwrap();
            prop_assert_eq!(scratch, [1], "rewritten though normal: {:?}", path);
            let segments: Vec<_> = path.split(|byte| *byte == b'/').collect();
            prop_assert!(!segments.iter().any(|segment| matches!(*segment, b"." | b"..")), "{:?}", path);
        }
    }

    #[test]
    fn scan_and_rewrite_agree(target in target()) {
        let path = target.split(|byte| *byte == b'?').next().unwrap();
        let mut rewritten = Vec::new();
        let result = rewrite(path, &mut rewritten).map(|()| rewritten);
        prop_assert_eq!(path_of(path), result);
    }

    #[test]
    fn never_panics(target in prop::collection::vec(any::<u8>(), 0..64)) {
        for method in [Method::Get, Method::Options, Method::Connect] {
            let _ = normalise(method, &target, &mut Vec::new());
        }
        let _ = crate::host::normalise(&target, &mut Vec::new());
        let _ = crate::query(&target, b"a", &mut Vec::new());
        let _ = crate::cookie(&target, b"a");
    }
}

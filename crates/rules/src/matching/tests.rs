//! Matches: each key by tables, and properties of negation.

use super::*;
use crate::testing::{Sample, sample};
use crate::why::Shown;

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts
        .iter()
        .map(|text| Pattern::compile(text).unwrap())
        .collect()
}

fn named(name: &str, texts: &[&str]) -> Vec<(String, Vec<Pattern>)> {
    vec![(name.to_owned(), patterns(texts))]
}

fn check_host(pattern: &str, host: &str, expected: bool) {
    let pattern = HostPattern::compile(pattern).unwrap();
    let mut buffer = Vec::new();
    let host = crate::host::normalise(host.as_bytes(), &mut buffer)
        .unwrap()
        .host;
    assert_eq!(
        pattern.matches(host, &mut Scratch::new()),
        expected,
        "{} {}",
        pattern.text(),
        Shown(host)
    );
}

#[test]
fn hosts() {
    check_host("example.com", "example.com", true);
    check_host("EXAMPLE.com.", "Example.Com:8080", true);
    check_host("example.com", "example.com.", true);
    check_host("example.com", "www.example.com", false);
    check_host("*.example.com", "www.example.com", true);
    check_host("*.example.com", "a.b.example.com", true);
    check_host("*.example.com", "example.com", false);
    check_host("*.example.com", "wwwexample.com", false);
    check_host("*example.com", "wwwexample.com", true);
    check_host("www.*", "www.example.com", true);
    check_host("a.*.c", "a.b.b.c", true);
    check_host("*", "x", true);
    check_host("~^(www|shop)\\.", "SHOP.example.com", true);
    check_host("~^SHOP", "shop.example.com", true);
    check_host("10.0.0.1", "10.0.0.1:80", true);
    check_host("[::1]", "[0:0::1]:80", true);
    check_host("[0::1]", "[::1]", true);
}

fn check_path(pattern: &str, path: &str, expected: bool) {
    let pattern = PathPattern::compile(pattern).unwrap();
    assert_eq!(
        pattern.matches(path.as_bytes(), &mut Scratch::new()),
        expected,
        "{} {path}",
        pattern.text()
    );
}

#[test]
fn paths() {
    check_path("/api", "/api", true);
    check_path("/api", "/api/", false);
    check_path("/api/*", "/api", true);
    check_path("/api/*", "/api/", true);
    check_path("/api/*", "/api/v1/x", true);
    check_path("/api/*", "/apix", false);
    check_path("/api/*", "/API/x", false);
    check_path("/api*", "/apix", true);
    check_path("/api*", "/api/x", true);
    check_path("/*", "/", true);
    check_path("/*", "/x", true);
    check_path("/*", "*", false);
    check_path("*", "*", true);
    check_path("*", "/x", true);
    check_path("*.png", "/a/b.png", true);
    check_path("/a/*/c", "/a/b/b/c", true);
    check_path("/a/*/c", "/a/c", false);
    check_path("/a/*/c/*", "/a/b/c", true);
    check_path("/a/*/c/*", "/a/b/c/d", true);
    check_path("/a/*/c/*", "/a/b/cd", false);
    check_path("~\\.php$", "/x.php", true);
    check_path("/%7euser/*", "/~user/x", true);
    check_path("/a%2fb", "/a%2Fb", true);
    check_path("/caf\u{e9}/*", "/caf%C3%A9", true);
    check_path("/api//*", "/api//x", true);
    check_path("/api//*", "/api/x", false);
}

#[test]
fn errors() {
    let host = |text: &str| HostPattern::compile(text).unwrap_err();
    assert_eq!(host(""), PatternError::Empty);
    assert_eq!(host("."), PatternError::Empty);
    assert_eq!(host("example.com:80"), PatternError::HostPort);
    assert_eq!(host("[::1]:80"), PatternError::HostPort);
    assert_eq!(host("http://a"), PatternError::HostPort);
    assert_eq!(host("a/b"), PatternError::Host('/'));
    assert_eq!(host("b\u{fc}cher.de"), PatternError::Host('\u{fc}'));
    let path = |text: &str| PathPattern::compile(text).unwrap_err();
    assert_eq!(path(""), PatternError::Empty);
    assert_eq!(path("api"), PatternError::PathStart);
    assert_eq!(path("/a?b"), PatternError::PathQuery);
    assert_eq!(
        path("/a/../.."),
        PatternError::Path(path::TargetError::AboveRoot)
    );
    assert_eq!(
        path("/%zz"),
        PatternError::Path(path::TargetError::MalformedEscape)
    );
}

fn check_regex_start(pattern: &str, expected: &str) {
    assert_eq!(regex_start(pattern), expected.as_bytes(), "{pattern}");
}

#[test]
fn regex_starts() {
    check_regex_start("~^/api/v[0-9]/", "/api/v");
    check_regex_start("~^/api/?x", "/api");
    check_regex_start("~^/api/$", "/api/");
    check_regex_start("~^/a|/b", "");
    check_regex_start("~^/a(?i)b", "");
    check_regex_start("~/api", "");
    check_regex_start("~^/a.b", "/a");
    check_regex_start("~^/*", "");
}

/// `expected`: the key that does not hold and why, if any.
fn check(rule: Match, request: &Sample, expected: Option<(Key, &str)>) {
    let request = request.request();
    let got = rule
        .test(&request, &mut Scratch::new())
        .err()
        .map(|miss| (miss.key, rule.why(miss, &request).to_string()));
    assert_eq!(
        got,
        expected.map(|(key, why)| (key, why.to_owned())),
        "{rule:?}"
    );
}

fn visitor() -> Sample {
    sample(
        "GET shop.example.com/api/x?id=7&tag=a&tag=b%20c&debug",
        &[
            "X-User: ann",
            "Accept: text/html",
            "Accept: image/*",
            "Cookie: beta=1; id=x",
            "Cookie: late=2",
        ],
    )
    .from("10.1.2.3")
}

fn header(name: &str, texts: &[&str]) -> Match {
    Match {
        header: named(name, texts),
        ..Match::default()
    }
}

fn method(text: &str) -> Match {
    Match {
        method: vec![Pattern::compile_method(text).unwrap()],
        ..Match::default()
    }
}

#[test]
fn keys() {
    let request = visitor();
    let ok = None;
    let cookie = |name, texts: &[&str]| Match {
        cookie: named(name, texts),
        ..Match::default()
    };
    let query = |name, texts: &[&str]| Match {
        query: named(name, texts),
        ..Match::default()
    };
    let source = |text: &str| Match {
        source: vec![text.parse().unwrap()],
        ..Match::default()
    };
    let check = |rule, expected| check(rule, &request, expected);

    check(Match::default(), ok);
    check(method("get"), ok);
    check(
        method("post"),
        Some((Key::Method, "method GET does not match POST")),
    );
    check(source("10.0.0.0/8"), ok);
    check(
        source("11.0.0.0/8"),
        Some((Key::Source, "source 10.1.2.3 is not in 11.0.0.0/8")),
    );

    check(header("x-user", &["ann"]), ok);
    check(header("x-user", &["bob", "a*"]), ok);
    check(header("accept", &["image*"]), ok);
    check(header("accept", &["true"]), ok);
    check(header("x-none", &["false"]), ok);
    check(
        header("x-user", &["bob", "eve"]),
        Some((Key::Header, "header x-user does not match bob or eve")),
    );
    check(
        header("x-user", &["false"]),
        Some((Key::Header, "header x-user does not match false")),
    );
    let absent = "header x-none is absent, which does not match true";
    check(header("x-none", &["true"]), Some((Key::Header, absent)));

    check(cookie("beta", &["1"]), ok);
    check(cookie("late", &["~^\\d$"]), ok);
    check(cookie("none", &["false"]), ok);
    check(
        cookie("beta", &["2"]),
        Some((Key::Cookie, "cookie beta does not match 2")),
    );

    check(query("id", &["7"]), ok);
    check(query("tag", &["b c"]), ok);
    check(query("debug", &["true"]), ok);
    check(query("none", &["false"]), ok);
    check(
        query("id", &["8"]),
        Some((Key::Query, "query id does not match 8")),
    );
    check(
        query("no", &["*"]),
        Some((Key::Query, "query no is absent, which does not match *")),
    );
}

#[test]
fn keys_together() {
    let request = visitor();
    let ok = None;
    let check = |rule, expected| check(rule, &request, expected);

    let not = |rule| Match {
        not: Some(Box::new(rule)),
        ..Match::default()
    };
    check(not(method("post")), ok);
    check(
        not(method("get")),
        Some((Key::Not, "what `not` excludes matches")),
    );
    check(not(not(method("get"))), ok);

    let host = Match {
        host: vec![HostPattern::compile("*.example.org").unwrap()],
        ..Match::default()
    };
    check(
        host,
        Some((
            Key::Host,
            "host shop.example.com does not match *.example.org",
        )),
    );
    let path = Match {
        path: vec![PathPattern::compile("/web/*").unwrap()],
        ..method("get")
    };
    check(path, Some((Key::Path, "path /api/x does not match /web/*")));
    let all = Match {
        source: vec!["10.1.2.3".parse().unwrap()],
        ..header("x-user", &["ann"])
    };
    check(all, ok);
}

#[test]
fn request_readers() {
    let request = sample("GET a/p?k=x%20y", &["X-A: 1", "x-a: 2", "Cookie: c=3"]);
    let request = request.request();
    assert_eq!(request.header("X-a"), Some(b"1".as_slice()));
    assert_eq!(request.headers("x-A").count(), 2);
    assert_eq!(request.cookie("c"), Some(b"3".as_slice()));
    assert_eq!(
        request.query_value("k", &mut Vec::new()),
        Some(b"x y".as_slice())
    );
    assert_eq!(request.query_value("z", &mut Vec::new()), None);
}

#[test]
fn the_name_asked_for_and_the_certificate_shown() {
    let request = sample("GET a/x", &[]);
    let of = |sni: Option<&str>, subject: Option<&str>| crate::TlsFacts {
        sni: sni.map(Into::into),
        client: subject.map(|subject| {
            Box::new(crate::ClientCertificate {
                subject: subject.into(),
                ..Default::default()
            })
        }),
    };
    let check = |rule: &Match, tls: Option<&crate::TlsFacts>, expected: Result<(), &str>| {
        let request = Request {
            tls,
            ..request.request()
        };
        let got = rule.test(&request, &mut Scratch::new());
        let got = got.map_err(|miss| rule.why(miss, &request).to_string());
        assert_eq!(got, expected.map_err(str::to_owned));
    };
    let sni = Match {
        sni: vec![HostPattern::compile("*.B.example").unwrap()],
        ..Match::default()
    };
    check(&sni, Some(&of(Some("a.b.example"), None)), Ok(()));
    let absent = Err("sni is absent, which does not match *.b.example");
    check(&sni, Some(&of(None, None)), absent);
    check(&sni, None, absent);
    let other = Err("sni b.example does not match *.b.example");
    check(&sni, Some(&of(Some("b.example"), None)), other);

    let like = vec![(crate::CertPart::Subject, patterns(&["CN=ops*"]))];
    let ops = Match {
        client_cert: Some(CertMatch::Like(like)),
        ..Match::default()
    };
    check(&ops, Some(&of(None, Some("CN=ops-1"))), Ok(()));
    let other = Err("the client certificate does not match subject CN=ops*");
    check(&ops, Some(&of(None, Some("CN=dev"))), other);
    let none = Err("no client certificate was shown, which does not match subject CN=ops*");
    check(&ops, Some(&of(None, None)), none);
    check(&ops, None, none);
}

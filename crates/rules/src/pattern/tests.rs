//! Patterns: exact, glob, regex and presence by tables.

use super::*;

fn check(pattern: &str, value: Option<&str>, expected: bool) {
    let pattern = Pattern::compile(pattern).unwrap();
    let got = pattern.matches(value.map(str::as_bytes), &mut Scratch::new());
    assert_eq!(got, expected, "{} {value:?}", pattern.text());
}

fn check_error(pattern: &str, expected: &str) {
    assert_eq!(
        Pattern::compile(pattern).unwrap_err().to_string(),
        expected,
        "{pattern}"
    );
}

#[test]
fn exact() {
    check("a", Some("a"), true);
    check("a", Some("A"), false);
    check("a", Some("ab"), false);
    check("a", None, false);
    check("", Some(""), true);
    check("", Some("a"), false);
    check("1.0", Some("1.0"), true);
}

#[test]
fn globs() {
    check("*", Some(""), true);
    check("*", Some("x"), true);
    check("*", None, false);
    check("fr*", Some("fr-CH"), true);
    check("fr*", Some("fr"), true);
    check("fr*", Some("en,fr"), false);
    check("*fr", Some("en,fr"), true);
    check("*fr*", Some("en,fr;q=1"), true);
    check("a*b*c", Some("a1b2c"), true);
    check("a*b*c", Some("abc"), true);
    check("a*b*c", Some("acb"), false);
    check("a*a", Some("a"), false);
    check("a*a", Some("aa"), true);
    check("ab*b*bc", Some("abbc"), false);
    check("a**b", Some("ab"), true);
    check("*a*a*", Some("ba"), false);
    check("*[x]*", Some("[x]"), true);
}

#[test]
fn regexes() {
    check("~b+", Some("abbc"), true);
    check("~^b+", Some("abbc"), false);
    check("~^a.c$", Some("abc"), true);
    check("~(?i)ABC", Some("abc"), true);
    check("~^caf\u{e9}$", Some("caf\u{e9}"), true);
    check("~(?u)^.$", Some("\u{e9}"), true);
}

#[test]
fn presence() {
    check("true", Some(""), true);
    check("true", None, false);
    check("false", Some(""), false);
    check("false", None, true);
    check("~.", None, false);
    let quoted = Pattern::compile_text("true").unwrap();
    assert!(quoted.matches(Some(b"true"), &mut Scratch::new()));
    assert!(!quoted.matches(Some(b"x"), &mut Scratch::new()));
}

#[test]
fn regexes_see_bytes() {
    let pattern = Pattern::compile("~a.c").unwrap();
    assert!(pattern.matches(Some(b"a\xffc"), &mut Scratch::new()));
}

#[test]
fn methods() {
    let mut scratch = Scratch::new();
    for (pattern, value, expected) in [
        ("get", "GET", true),
        ("p*", "PATCH", true),
        ("GET", "get", false),
        ("~^(GET|HEAD)$", "HEAD", true),
    ] {
        let pattern = Pattern::compile_method(pattern).unwrap();
        assert_eq!(
            pattern.matches(Some(value.as_bytes()), &mut scratch),
            expected,
            "{value}"
        );
    }
}

#[test]
fn errors() {
    check_error("~(", "bad regex: unclosed group");
    check_error(
        "~a{5,2}",
        "bad regex: invalid repetition count range, the start must be <= the end",
    );
    check_error(
        "~(?u:\\w{900}){900}",
        "the regex needs more than 1024 KiB when compiled",
    );
    check_error(&"a".repeat(8193), "the pattern is longer than 8192 bytes");
    assert_eq!(Pattern::compile("~").unwrap_err(), PatternError::Empty);
}

#[test]
fn one_scratch_serves_many_patterns() {
    // Unnumbered, all of them use slot 0.
    let mut scratch = Scratch::new();
    let patterns: Vec<_> = ["~^a+$", "~b[0-9]{3}", "~(x|y)z"]
        .iter()
        .map(|text| Pattern::compile(text).unwrap())
        .collect();
    for _ in 0..3 {
        let found: Vec<bool> = patterns
            .iter()
            .map(|pattern| pattern.matches(Some(b"--b123--"), &mut scratch))
            .collect();
        assert_eq!(found, [false, true, false]);
    }
}

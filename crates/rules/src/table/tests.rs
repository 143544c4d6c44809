//! Route tables: the index finds what a scan finds.

use proptest::prelude::*;

use super::*;
use crate::testing::sample;
use crate::trace::{Collect, Key, NoTrace, Rejection};
use crate::{HostPattern, PathPattern, Pattern};

/// `host path`, either of which may be `-` for "not given" or several joined by commas.
fn rule(text: &str) -> Match {
    let (hosts, paths) = text.split_once(' ').unwrap();
    let each = |text: &str| -> Vec<String> {
        text.split(',')
            .filter(|part| *part != "-")
            .map(str::to_owned)
            .collect()
    };
    Match {
        host: each(hosts)
            .iter()
            .map(|text| HostPattern::compile(text).unwrap())
            .collect(),
        path: each(paths)
            .iter()
            .map(|text| PathPattern::compile(text).unwrap())
            .collect(),
        ..Match::default()
    }
}

fn table(rules: &[&str]) -> RouteTable {
    RouteTable::build(rules.iter().map(|text| rule(text)).collect())
}

/// The same rules, behind so many that match nothing asked for that the table has an index.
fn large(rules: &[&str]) -> RouteTable {
    let fill = (0..SCAN_ROUTES_MAX).map(|at| rule(&format!("none{at}.test /none")));
    RouteTable::build(rules.iter().map(|text| rule(text)).chain(fill).collect())
}

const RULES: [&str; 8] = [
    "- /api/v1/*",
    "shop.test /api/*,/cart",
    "*.test /static/*.css",
    "a.b.test -",
    "*.b.test ~^/users/[0-9]+$",
    "- /api/*",
    "*.test -",
    "- /health",
];

fn check(line: &str, expected: Option<usize>) {
    let request = sample(line, &[]);
    for table in [table(&RULES), large(&RULES)] {
        let found = table.find(&request.request(), &mut Scratch::new(), &mut NoTrace);
        assert_eq!(found, expected, "{line}, {} routes", table.len());
    }
}

#[test]
fn first_match_wins() {
    check("GET x/api/v1/y", Some(0));
    check("GET shop.test/api/v1", Some(0));
    check("GET shop.test/api", Some(1));
    check("GET shop.test/cart", Some(1));
    check("GET shop.test/cart/x", Some(6));
    check("GET x.test/static/a/b.css", Some(2));
    check("GET test/static/a/b.css", None);
    check("GET a.b.test/users/7", Some(3));
    check("GET c.b.test/users/7", Some(4));
    check("GET d.c.b.test/users/x", Some(6));
    check("GET x/api", Some(5));
    check("GET x/apix", None);
    check("GET x/health", Some(7));
    check("GET x/", None);
}

#[test]
fn a_trace_tells_every_rejection_before_the_winner() {
    for table in [
        table(&["- /api/*", "a.test -", "- -"]),
        large(&["- /api/*", "a.test -", "- -"]),
    ] {
        let mut trace = Collect::default();
        let request = sample("GET b.test/x", &[]);
        assert_eq!(
            table.find(&request.request(), &mut Scratch::new(), &mut trace),
            Some(2)
        );
        let expected = [
            Rejection {
                route: 0,
                key: Key::Path,
                why: "path /x does not match /api/*".to_owned(),
            },
            Rejection {
                route: 1,
                key: Key::Host,
                why: "host b.test does not match a.test".to_owned(),
            },
        ];
        assert_eq!(trace.0, expected);
    }
}

/// `expected`: pairs of a route and who takes its requests.
fn check_unreachable(rules: Vec<Match>, expected: &[(usize, usize)]) {
    let got: Vec<_> = RouteTable::build(rules)
        .unreachable()
        .iter()
        .map(|found| (found.route, found.taken_by))
        .collect();
    assert_eq!(got, expected);
}

#[test]
fn unreachable_routes() {
    let check = |rules: &[&str], expected| {
        check_unreachable(rules.iter().map(|text| rule(text)).collect(), expected)
    };
    check(&["- -", "a.test /x"], &[(1, 0)]);
    check(
        &["- /api/*", "- /api/v1/*", "- /api", "- /apix"],
        &[(1, 0), (2, 0)],
    );
    check(
        &["*.test -", "a.test /x", "*.b.test -", "test -"],
        &[(1, 0), (2, 0)],
    );
    check(&["a.test /x,/y", "a.test /y", "a.test /x,/z"], &[(1, 0)]);
    check(&["- ~^/x", "- ~^/x", "- ~^/y", "- /xy"], &[(1, 0), (3, 0)]);
    check(&["a.test -", "b.test -", "a.test,b.test -"], &[]);
    check(&["- /a/*", "- /a/*.css", "- /a/b*c"], &[(1, 0), (2, 0)]);
    check(&["* -", "- -"], &[(1, 0)]);
    check(&["- /*", "- /x", "- *"], &[(1, 0)]);
}

#[test]
fn unreachable_by_other_keys() {
    let header = |texts: &[&str]| Match {
        header: vec![(
            "X-A".to_owned(),
            texts
                .iter()
                .map(|text| Pattern::compile(text).unwrap())
                .collect(),
        )],
        ..Match::default()
    };
    let source = |text: &str| Match {
        source: vec![text.parse().unwrap()],
        ..Match::default()
    };
    let not = |rule| Match {
        not: Some(Box::new(rule)),
        ..Match::default()
    };
    check_unreachable(
        vec![header(&["true"]), header(&["1"]), header(&["false"])],
        &[(1, 0)],
    );
    check_unreachable(
        vec![header(&["1", "2"]), header(&["2"]), header(&["1", "3"])],
        &[(1, 0)],
    );
    check_unreachable(
        vec![header(&["a*"]), header(&["ab"]), Match::default()],
        &[(1, 0)],
    );
    check_unreachable(
        vec![
            source("10.0.0.0/8"),
            source("10.1.0.0/16"),
            source("0.0.0.0/0"),
        ],
        &[(1, 0)],
    );
    check_unreachable(
        vec![not(source("10.1.0.0/16")), not(source("10.0.0.0/8"))],
        &[(1, 0)],
    );
    check_unreachable(
        vec![not(source("10.0.0.0/8")), not(source("10.1.0.0/16"))],
        &[],
    );
}

#[test]
fn a_scratch_may_change_tables() {
    let mut scratch = Scratch::new();
    let request = sample("GET a/x7", &[]);
    for (rules, expected) in [
        (["- ~^/y", "- ~[0-9]$"], Some(1)),
        (["- ~7", "- -"], Some(0)),
        (["- ~8", "- ~9"], None),
    ] {
        assert_eq!(
            table(&rules).find(&request.request(), &mut scratch, &mut NoTrace),
            expected
        );
    }
}

#[test]
fn more_regexes_than_caches() {
    let rules: Vec<Match> = (0..1100).map(|at| rule(&format!("- ~^/r{at}$"))).collect();
    let table = RouteTable::build(rules);
    let mut scratch = Scratch::new();
    for (line, expected) in [
        ("GET a/r1099", 1099),
        ("GET a/r75", 75),
        ("GET a/r1099", 1099),
    ] {
        let request = sample(line, &[]);
        assert_eq!(
            table.find(&request.request(), &mut scratch, &mut NoTrace),
            Some(expected)
        );
    }
    assert_eq!(table.unreachable(), []);
}

fn rules() -> impl Strategy<Value = Vec<Match>> {
    let hosts = [
        "-",
        "a.test",
        "b.test",
        "*.test",
        "*.b.test",
        "*",
        "~^a",
        "a.*",
        "a.test,*.b.test",
    ];
    let paths = [
        "-", "/", "/a", "/a/b", "/a/*", "/a/b/*", "/*", "/a*", "*.x", "/a/*/b", "~^/a/b", "~b$",
        "/a//*", "/b,/a/*",
    ];
    let methods = ["", "GET", "P*"];
    let one = (
        prop::sample::select(hosts.to_vec()),
        prop::sample::select(paths.to_vec()),
        prop::sample::select(methods.to_vec()),
        any::<bool>(),
    );
    let one = one.prop_map(|(host, path, method, negated)| {
        let positive = rule(&format!("{host} {path}"));
        let method = Some(method).filter(|method| !method.is_empty());
        let method = method
            .iter()
            .map(|method| Pattern::compile_method(method).unwrap())
            .collect();
        if negated && host != "-" {
            Match {
                not: Some(Box::new(positive)),
                method,
                ..rule(&format!("- {path}"))
            }
        } else {
            Match { method, ..positive }
        }
    });
    prop::collection::vec(one, 0..40)
}

fn requests() -> impl Strategy<Value = Vec<String>> {
    let hosts = [
        "a.test",
        "b.test",
        "c.b.test",
        "d.c.b.test",
        "test",
        "other",
    ];
    let paths = [
        "/",
        "/a",
        "/a/",
        "/ab",
        "/a/b",
        "/a/b/c",
        "/a/x/b",
        "/a//b",
        "/a/b.x",
        "/b",
        "//",
        "/a/b/c/d/e",
    ];
    let methods = ["GET", "POST", "HEAD"];
    let one = (
        prop::sample::select(methods.to_vec()),
        prop::sample::select(hosts.to_vec()),
        prop::sample::select(paths.to_vec()),
    );
    prop::collection::vec(
        one.prop_map(|(method, host, path)| format!("{method} {host}{path}")),
        1..20,
    )
}

proptest! {
    #[test]
    fn index_finds_what_a_scan_finds(rules in rules(), lines in requests()) {
        let table = RouteTable::build(rules);
        let indexed = RouteTable { index: Some(Index::build(table.matches())), ..table.clone() };
        let unreachable = table.unreachable();
        let mut scratch = Scratch::new();
        for line in lines {
            let request = sample(&line, &[]);
            let expected = table.scan(&request.request(), &mut scratch, &mut NoTrace);
            let found = indexed.find(&request.request(), &mut scratch, &mut NoTrace);
            prop_assert_eq!(found, expected, "{}", line);
            prop_assert!(!unreachable.iter().any(|never| Some(never.route) == expected), "{}", line);
        }
    }
}

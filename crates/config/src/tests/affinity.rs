//! What binds clients to servers.

use std::time::Duration;

use balance::OnDrain;

use super::{Given, check_given};
use crate::{
    Affinity, AffinityKind, HashKey, InsertedCookie, Learning, LearntBy, Severity, Strength,
};

fn pool(affinity: &str) -> Given {
    Given::main(&format!(
        "listeners: {{ l: {{ bind: \":1\", pool: p }} }}\npools: {{ p: {{ servers: [10.0.0.1:1],\n affinity: {affinity}\n }} }}\n"
    ))
}

fn affinity(written: &str) -> Option<Affinity> {
    let given = pool(written);
    let loaded = given.load();
    let snapshot = loaded
        .snapshot
        .unwrap_or_else(|| panic!("{:?}", given.found()));
    snapshot.pools[0].affinity.clone()
}

fn cookie(written: &str) -> InsertedCookie {
    match affinity(written).map(|affinity| affinity.kind) {
        Some(AffinityKind::Cookie(cookie)) => *cookie,
        other => panic!("{other:?}"),
    }
}

fn kind(written: &str) -> AffinityKind {
    affinity(written).expect(written).kind
}

#[test]
fn each_kind_in_each_spelling() {
    assert_eq!(affinity("off"), None);
    for name in [
        "{ cookie: SERVERID }",
        "cookie",
        "{ cookie: {} }",
        "{ cookie: { name: SERVERID } }",
    ] {
        assert_eq!(&*cookie(name).name, "SERVERID", "{name}");
    }
    let header = AffinityKind::Header("x-session-server".into());
    assert_eq!(kind("{ header: X-Session-Server }"), header);
    assert_eq!(
        kind("{ header: { name: X-Session-Server, mode: name } }"),
        header
    );
    let hashed = AffinityKind::Hash(HashKey::Header("x-user".to_owned()));
    assert_eq!(kind("{ header: { name: X-User, mode: hash } }"), hashed);
    for source in [
        "source",
        "{ source: hash }",
        "{ source: {} }",
        "{ source: { ipv6_prefix: 64 } }",
    ] {
        assert_eq!(
            kind(source),
            AffinityKind::Source { ipv6_prefix: 64 },
            "{source}"
        );
    }
    let narrow = "{ source: { mode: hash, ipv6_prefix: 56 } }";
    assert_eq!(kind(narrow), AffinityKind::Source { ipv6_prefix: 56 });
    for hash in [
        "{ hash: source }",
        "{ hash: {} }",
        "{ hash: { key: source } }",
    ] {
        assert_eq!(kind(hash), AffinityKind::Hash(HashKey::Source), "{hash}");
    }
    assert_eq!(kind("{ hash: { header: X-User } }"), hashed);
    assert_eq!(
        kind("{ hash: { key: { header: X-User }, strength: required } }"),
        hashed
    );
    assert_eq!(kind("{ hash: path }"), AffinityKind::Hash(HashKey::Path));
    let query = AffinityKind::Hash(HashKey::Query("user".to_owned()));
    assert_eq!(kind("{ hash: { query: user } }"), query);
}

fn learnt(by: LearntBy, entries: u32, expire: u64) -> AffinityKind {
    let expire = Duration::from_secs(expire);
    AffinityKind::Learnt(Learning {
        by,
        entries,
        expire,
    })
}

#[test]
fn what_is_learnt_in_each_spelling() {
    let cookie = |name: &str, parameter: Option<&str>| LearntBy::AppCookie {
        name: name.into(),
        path_parameter: parameter.map(Into::into),
    };
    let header = LearntBy::Header("x-user".into());
    for (written, by, entries, expire) in [
        (
            "{ app_cookie: JSESSIONID }",
            cookie("JSESSIONID", Some("jsessionid")),
            100_000,
            1800,
        ),
        (
            "{ app_cookie: { name: JSESSIONID, path_parameter: off } }",
            cookie("JSESSIONID", None),
            100_000,
            1800,
        ),
        (
            "{ app_cookie: session_id }",
            cookie("session_id", None),
            100_000,
            1800,
        ),
        (
            "{ app_cookie: { name: sid, path_parameter: sid, entries: 10, expire: 1h } }",
            cookie("sid", Some("sid")),
            10,
            3600,
        ),
        (
            "{ header: { name: X-User, mode: learn } }",
            header.clone(),
            100_000,
            1800,
        ),
        (
            "{ header: { name: X-User, mode: learn, entries: 7, expire: 1s } }",
            header,
            7,
            1,
        ),
        (
            "{ source: learn }",
            LearntBy::Source { ipv6_prefix: 64 },
            100_000,
            1800,
        ),
        (
            "{ source: { mode: learn, ipv6_prefix: 56, entries: 7 } }",
            LearntBy::Source { ipv6_prefix: 56 },
            7,
            1800,
        ),
    ] {
        assert_eq!(kind(written), learnt(by, entries, expire), "{written}");
    }
    let alarm = |written: &str| affinity(written).expect(written).source_alarm;
    assert_eq!(alarm("source"), Some(25));
    assert_eq!(alarm("{ source: { source_alarm: off } }"), None);
    let learnt = "{ source: { mode: learn, source_alarm: 40% } }";
    assert_eq!(alarm(learnt), Some(40));
    assert_eq!(alarm("{ app_cookie: X }"), None);
}

#[test]
fn firmness() {
    let found = affinity("{ cookie: X }").unwrap();
    assert_eq!(
        (found.strength, found.on_drain),
        (Strength::Preferred, OnDrain::Keep)
    );
    assert_eq!(
        found.queue_wait,
        Some(Duration::MAX),
        "as long as the pool says"
    );
    let found =
        affinity("{ source: { strength: required, on_drain: move, queue_wait: 2s } }").unwrap();
    assert_eq!(
        (found.strength, found.on_drain),
        (Strength::Required, OnDrain::Move)
    );
    assert_eq!(found.queue_wait, Some(Duration::from_secs(2)));
    let found = affinity("{ hash: { key: path, queue_wait: off } }").unwrap();
    assert_eq!(found.queue_wait, None);
}

#[test]
fn a_cookie_and_its_attributes() {
    let plain = cookie("cookie");
    assert!(plain.opaque && plain.http_only && plain.indirect && plain.no_cache);
    assert_eq!(
        (&*plain.path, plain.domain, plain.secure),
        ("/", None, None)
    );
    assert_eq!(
        (plain.same_site, plain.max_age, plain.renewal),
        ("Lax", None, None)
    );
    let long = cookie(
        "{ cookie: { name: S, value: name, path: /shop, domain: example.com, secure: true, http_only: false, same_site: none, max_age: 2h, indirect: false, no_cache: false } }",
    );
    assert!(!long.opaque && !long.http_only && !long.indirect && !long.no_cache);
    assert_eq!(
        (&*long.path, long.domain.as_deref(), long.secure),
        ("/shop", Some("example.com"), Some(true))
    );
    let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
    assert_eq!(
        (long.same_site, long.max_age, long.renewal),
        ("None", hours(2), hours(1))
    );
    assert_eq!(
        cookie("{ cookie: { max_age: 2h, renewal: off } }").renewal,
        None
    );
    assert_eq!(
        cookie("{ cookie: { max_age: 3h, renewal: 1h } }").renewal,
        hours(1)
    );
    assert_eq!(cookie("{ cookie: { same_site: none } }").secure, Some(true));
    assert_eq!(
        &*cookie("{ cookie: { name: __Host-S, secure: true } }").name,
        "__Host-S"
    );
}

#[test]
fn what_is_wrong_is_told() {
    for (written, expected) in [
        (
            "cokie",
            "3:12: error[value]: `cokie` is not a kind of affinity (did you mean `cookie`?)",
        ),
        (
            "{ cokie: X }",
            "3:14: error[unknown_key]: unknown key `cokie` in a kind of affinity (did you mean `cookie`?)",
        ),
        (
            "header",
            "3:12: error[value]: which header is it? (write `{ header: NAME }`)",
        ),
        (
            "hash",
            "3:12: error[value]: which key is it? (write `{ hash: source }` or `{ hash: { header: NAME } }`)",
        ),
        (
            "{ header: {} }",
            "3:22: error[missing]: `affinity: header` lacks `name`",
        ),
        (
            "{ cookie: 'a b' }",
            "3:22: error[value]: `a b` is not the name of a cookie",
        ),
        (
            "{ header: 'a b' }",
            "3:22: error[value]: `a b` is not the name of a header",
        ),
        (
            "{ cookie: { path: shop } }",
            "3:30: error[value]: `shop` is not a path of a cookie, such as `/` or `/shop`",
        ),
        (
            "{ cookie: { domain: 'a/b' } }",
            "3:32: error[value]: `a/b` is not a domain, such as `example.com`",
        ),
        (
            "{ cookie: { secure: false, same_site: none } }",
            "3:50: error[conflict]: browsers refuse a cookie with `same_site: none` that is not `secure`",
        ),
        (
            "{ cookie: { renewal: 1h } }",
            "3:24: error[conflict]: `renewal` is only for a cookie with `max_age`",
        ),
        (
            "{ cookie: { max_age: 1h, renewal: 1h } }",
            "3:46: error[conflict]: `renewal` comes after `max_age`: the cookie would have ended",
        ),
        (
            "{ cookie: __Secure-S }",
            "3:2: error[conflict]: browsers take the cookie `__Secure-S` only with `secure: true`",
        ),
        (
            "{ cookie: { name: __Host-S, secure: true, path: /a } }",
            "3:2: error[conflict]: browsers take the cookie `__Host-S` only with `path: /` and without `domain`",
        ),
        (
            "{ cookie: S, strenght: required }",
            "3:25: error[unknown_key]: unknown key `strenght` beside `cookie` (did you mean `strength`?)",
        ),
        (
            "{ on_drain: move, app_cookie: S }",
            "3:14: error[type]: `on_drain` is an option of `app_cookie`, and stands beside it (write `app_cookie: { name: …, on_drain: … }`)",
        ),
        (
            "{ cookie: S, header: H }",
            "3:12: error[type]: a kind of affinity is a map with exactly one key, found 2 (known: `cookie`, `app_cookie`, `header`, `source`, `hash`)",
        ),
        (
            "{ cookie: { strenght: required } }",
            "3:24: error[unknown_key]: unknown key `strenght` in `affinity: cookie` (did you mean `strength`?)",
        ),
        (
            "{ source: { strength: strong } }",
            "3:34: error[value]: `strong` is not a strength (known: `preferred`, `required`)",
        ),
        (
            "{ source: { ipv6_prefix: 129 } }",
            "3:37: error[value]: expected a whole number from 1 to 128",
        ),
    ] {
        let found = pool(written).found();
        assert_eq!(found, [expected], "{written}");
    }
}

#[test]
fn what_is_wrong_with_a_table_is_told() {
    for (written, expected) in [
        (
            "app_cookie",
            "3:12: error[value]: which cookie is it? (write `{ app_cookie: NAME }`)",
        ),
        (
            "{ app_cookie: { entries: 5 } }",
            "3:26: error[missing]: `affinity: app_cookie` lacks `name`",
        ),
        (
            "{ app_cookie: 'a b' }",
            "3:26: error[value]: `a b` is not the name of a cookie",
        ),
        (
            "{ app_cookie: { name: S, path_parameter: 'a/b' } }",
            "3:53: error[value]: `a/b` is not the name of a path's parameter",
        ),
        (
            "{ app_cookie: { name: S, expire: 10ms } }",
            "3:45: error[value]: a time from `1s` to `365d` is expected",
        ),
        (
            "{ header: { name: X, mode: hash, entries: 5 } }",
            "3:45: error[conflict]: `entries` is only for `mode: learn`",
        ),
        (
            "{ source: { expire: 1h } }",
            "3:24: error[conflict]: `expire` is only for `mode: learn`",
        ),
    ] {
        let found = pool(written).found();
        assert_eq!(found, [expected], "{written}");
    }
}

#[test]
fn names_that_stand_in_cookies() {
    let yaml = |name: &str| {
        Given::main(&format!(
            "listeners: {{ l: {{ bind: \":1\", pool: p }} }}\npools: {{ p: {{ servers: [{{ name: '{name}', address: '10.0.0.1:1' }}],\n affinity: {{ cookie: {{ value: name }} }} }} }}\n"
        ))
    };
    assert_eq!(yaml("10.0.0.1:80").found(), [""; 0]);
    for name in ["a b", "a;b", "a~b", "é", "a\"b"] {
        let found = yaml(name).found();
        let expected = format!(
            "3:31: error[value]: the name `{name}` of a server cannot stand in a cookie (names of ASCII letters, digits and `-._:/` can; or leave `value` out)"
        );
        assert_eq!(found, [expected]);
    }
}

const SECRET: &str = "secret_file: etc/secret\n";

#[test]
fn a_secret() {
    let with = |secret: &str, open: bool| {
        let mut given = Given::main(&format!(
            "{SECRET}listeners: {{ l: {{ bind: \":1\", pool: p }} }}\npools: {{ p: {{ servers: [10.0.0.1:1], affinity: cookie }} }}\n"
        ))
        .file("etc/secret", secret);
        if open {
            given.open.push("etc/secret".to_owned());
        }
        given
    };
    let good = with("0123456789abcdef\n", false);
    check_given(&good, &[]);
    let loaded = good.load();
    let noted = loaded
        .diagnostics
        .iter()
        .any(|it| it.message.contains("secret_file"));
    assert!(!noted, "{:?}", loaded.diagnostics);
    let secret = loaded.snapshot.unwrap().secret.unwrap();
    assert_eq!(&*secret.0, b"0123456789abcdef");
    assert!(!format!("{secret:?}").contains("0123"));
    check_given(
        &with("0123456789abcdef", true),
        &[
            "1:14: warning[secret]: the secret in `etc/secret` can be read by every user of this machine",
        ],
    );
    check_given(
        &with("short\n", false),
        &[
            "1:14: error[value]: the secret in `etc/secret` has less than 16 bytes (`openssl rand -base64 32` makes a good one)",
        ],
    );
    let missing = Given::main(
        "secret_file: etc/nothing\nlisteners: { l: { bind: \":1\", pool: p } }\npools: { p: { servers: [10.0.0.1:1] } }\n",
    );
    check_given(
        &missing,
        &["1:14: error[file]: cannot read `etc/nothing`: no such file"],
    );
}

#[test]
fn without_a_secret_it_is_noted() {
    let notes = |affinity: &str| {
        let loaded = pool(affinity).load();
        let of =
            |it: &&crate::Diagnostic| it.severity == Severity::Note && it.kind.as_str() == "secret";
        loaded.diagnostics.iter().filter(of).count()
    };
    assert_eq!(notes("cookie"), 1);
    assert_eq!(notes("{ cookie: { value: name } }"), 0);
    assert_eq!(notes("source"), 0);
}

#[test]
fn what_does_not_fit_the_listeners() {
    let tcp = |affinity: &str| {
        Given::main(&format!(
            "listeners: {{ t: {{ bind: \":1\", protocol: tcp, pool: p }} }}\npools:\n  p: {{ servers: [10.0.0.1:1], affinity: {affinity} }}\n"
        ))
    };
    check_given(&tcp("source"), &[]);
    check_given(&tcp("{ hash: source }"), &[]);
    for (affinity, by) in [
        ("cookie", "cookie"),
        ("{ header: X }", "header"),
        ("{ hash: path }", "hash"),
    ] {
        let expected = format!(
            "3:3: error[conflict]: the pool `p` binds clients by {by}, which connections of the TCP listener `t` do not have; `affinity: source` is for both"
        );
        check_given(&tcp(affinity), &[&expected]);
    }
}

/// One listener with these routes, or several, and two pools, `a` with a cookie.
fn two(listeners: &[&str], other: &str) -> Given {
    let listeners = listeners.iter().zip(1..);
    let listeners = listeners
        .map(|(routes, port)| format!("l{port}: {{ bind: \":{port}\", routes: [{routes}] }}"));
    let listeners: Vec<_> = listeners.collect();
    Given::main(&format!(
        "listeners: {{ {} }}\npools:\n  a: {{ servers: [10.0.0.1:1], affinity: cookie }}\n  b: {{ servers: [10.0.0.1:1]{other} }}\n",
        listeners.join(", ")
    ))
}

#[test]
fn pools_behind_one_host_whose_cookies_overwrite_each_other() {
    let same = ", affinity: cookie";
    let apart = "{ match: { path: /a }, pool: a }, { pool: b }";
    let warning = "4:3: warning[conflict]: the pools `a` and `b` of the listener `l1` use the same cookie `SERVERID`: a client of both loses its server at each change; give one another name or path";
    check_given(&two(&[apart], same), &[warning]);
    check_given(&two(&[apart], ", affinity: { cookie: B }"), &[]);
    check_given(&two(&[apart], ", affinity: { cookie: { path: /b } }"), &[]);
    check_given(&two(&["{ split: { a: 1, b: 1 } }"], same), &[]);
    // Told once, though it is so of both listeners and between them.
    check_given(&two(&[apart, apart], same), &[warning]);
    let on = |host: &str, pool: &str| format!("{{ match: {{ host: '{host}' }}, pool: {pool} }}");
    for (one, other, clash) in [
        ("a.test", "b.test", false),
        ("a.test", "*.test", true),
        ("*.a.test", "*.b.test", false),
        ("*.b.test", "*.test", true),
        ("*.test", "~^x", true),
    ] {
        let routes = format!("{}, {}", on(one, "a"), on(other, "b"));
        let expected: &[&str] = if clash { &[warning] } else { &[] };
        check_given(&two(&[&routes], same), expected);
    }
}

#[test]
fn browsers_do_not_tell_the_ports_of_a_host_apart() {
    let same = ", affinity: cookie";
    let warning = "4:3: warning[conflict]: the pools `a` of the listener `l1` and `b` of `l2` use the same cookie `SERVERID`, and browsers do not tell ports apart: a client of both loses its server at each change; give one another name or path";
    let at = |host: &str, pool: &str| format!("{{ match: {{ host: {host} }}, pool: {pool} }}");
    let (shop, other) = (at("shop.test", "a"), at("other.test", "b"));
    let shop_too = at("shop.test", "b");
    check_given(&two(&["{ pool: a }", "{ pool: b }"], same), &[warning]);
    check_given(&two(&[&shop, "{ pool: b }"], same), &[warning]);
    check_given(&two(&["{ pool: a }", &other], same), &[warning]);
    check_given(&two(&[&shop, &shop_too], same), &[warning]);
    check_given(&two(&[&shop, &other], same), &[]);
    // HTTP and HTTPS of one site; what one of them has besides is told of that one.
    check_given(&two(&[&format!("{shop}, {other}"), &shop], same), &[]);
    let apart = "{ match: { path: /a }, pool: a }, { pool: b }";
    let of_one = "4:3: warning[conflict]: the pools `a` and `b` of the listener `l2` use the same cookie `SERVERID`: a client of both loses its server at each change; give one another name or path";
    check_given(&two(&["{ pool: a }", apart], same), &[of_one]);
    let domain = ", affinity: { cookie: { domain: test } }";
    let given = two(&[&shop, &other], domain);
    check_given(&given, &[]);
}

#[test]
fn parts_of_a_pool_that_rob_each_other() {
    let parts = |routes: &str| {
        Given::main(&format!(
            "listeners: {{ l: {{ bind: \":1\", routes: [{routes}] }} }}\npools:\n  p:\n    affinity: cookie\n    servers:\n      - {{ address: \"10.0.0.1:1\", labels: {{ v: \"1\" }} }}\n      - {{ address: \"10.0.0.2:1\", labels: {{ v: \"2\", gold: x }} }}\n"
        ))
    };
    let part = |labels: &str| format!("pool: {{ name: p, labels: {{ {labels} }} }}");
    let (one, two, gold) = (part("v: '1'"), part("v: '2'"), part("v: '2', gold: x"));
    check_given(
        &parts(&format!(
            "{{ match: {{ path: /v1/* }}, {one} }}, {{ match: {{ path: /v2/* }}, {two} }}"
        )),
        &[
            "3:3: warning[conflict]: the parts `p (v=1)` and `p (v=2)` of the listener `l` share the cookie `SERVERID` of their pool: a client of both loses its server at each change; make them two pools with cookies of their own",
        ],
    );
    // Who is bound within the smaller one is so in the larger one.
    check_given(
        &parts(&format!(
            "{{ match: {{ path: /v1/* }}, {one} }}, {{ pool: p }}"
        )),
        &[],
    );
    check_given(
        &parts(&format!(
            "{{ match: {{ path: /v1/* }}, {gold} }}, {{ {two} }}"
        )),
        &[],
    );
    check_given(
        &parts(&format!(
            "{{ split: [{{ {one}, weight: 1 }}, {{ {two}, weight: 1 }}] }}"
        )),
        &[],
    );
}

#[test]
fn a_split_whose_arms_remember_by_different_things() {
    let split = &["{ name: shop, split: { a: 1, b: 1 } }"];
    let warning = |kind: &str| {
        format!(
            "4:3: warning[conflict]: the arms of the split of the route `shop` of the listener `l1` bind their clients by different things, `a` by cookie, `b` by {kind}: it remembers them by cookie alone, and who is not known by that changes arms; give all of these pools the same kind of `affinity`"
        )
    };
    for (other, kind) in [
        ("", "nothing"),
        (", affinity: { app_cookie: SID }", "app_cookie"),
        (", affinity: { header: X-S }", "header x-s"),
        (", affinity: source", "source, IPv6 by /64"),
        (
            ", affinity: { hash: { header: X-User } }",
            "hash of header x-user",
        ),
    ] {
        check_given(&two(split, other), &[&warning(kind)]);
    }
    check_given(&two(split, ", affinity: cookie"), &[]);
    check_given(&two(split, ", affinity: { cookie: B }"), &[]);
    // The address tells the arm, whatever that does with it.
    let by_source = |given: &str| {
        let text = format!(
            "listeners: {{ l: {{ bind: \":1\", routes: [{{ split: {{ a: 1, b: 1 }} }}] }} }}\npools:\n  a: {{ servers: [10.0.0.1:1], affinity: source }}\n  b: {{ servers: [10.0.0.1:1]{given} }}\n"
        );
        Given::main(&text)
    };
    check_given(&by_source(""), &[]);
}

#[test]
fn thousands_of_pools_are_checked_in_a_moment() {
    let routes =
        (0..4000).map(|at| format!("{{ match: {{ host: '*.h{at}.test' }}, pool: p{at} }}"));
    let routes: Vec<_> = routes.collect();
    let pools =
        (0..4000).map(|at| format!("  p{at}: {{ servers: [10.0.0.1:1], affinity: cookie }}\n"));
    let pools: String = pools.collect();
    let text = format!(
        "listeners: {{ l: {{ bind: \":1\", routes: [{}] }} }}\npools:\n{pools}",
        routes.join(", ")
    );
    check_given(&Given::main(&text), &[]);
}

#[test]
fn a_name_in_a_cookie_shows_where_a_server_is_that_is_found_by_dns() {
    let given = |value: &str| {
        Given::main(&format!(
            "listeners: {{ l: {{ bind: \":1\", pool: p }} }}\npools:\n  p:\n    servers: [{{ name: app, address: 'app.internal:80' }}]\n    affinity: {{ cookie: {{ value: {value} }} }}\n"
        ))
    };
    let noted = |value: &str| {
        let note =
            "the server `app` is found by DNS: with `value: name` the cookie is `app@ADDRESS`";
        let found = given(value).load().diagnostics;
        found
            .iter()
            .any(|it| it.severity == Severity::Note && it.message.contains(note))
    };
    assert!(noted("name") && !noted("opaque"));
}

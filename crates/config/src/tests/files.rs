//! Includes, merging, anchors: how several texts become one config.

use super::{Given, MAIN, check, check_given};
use crate::{Address, Protocol, Severity, Snapshot};

fn snapshot(given: &Given) -> Snapshot {
    let loaded = given.load();
    assert_eq!(given.found(), Vec::<String>::new());
    loaded.snapshot.unwrap()
}

fn names<'a>(names: impl IntoIterator<Item = &'a std::sync::Arc<str>>) -> Vec<String> {
    names.into_iter().map(|name| name.to_string()).collect()
}

#[test]
fn includes_merge_in_name_order() {
    let given = Given::main("include: conf.d/*.yaml\nlisteners: { a: { bind: \":1\", pool: one } }\npools: { one: { servers: [h:1] } }\n")
        .file("etc/conf.d/20.yaml", "listeners: { c: { bind: \":3\", pool: one } }\n")
        .file("etc/conf.d/10.yaml", "listeners: { b: { bind: \":2\", pool: two } }\npools: { two: { servers: [h:2] } }\n")
        .file("etc/conf.d/30.yaml", "")
        .file("etc/conf.d/other.txt", "nothing: here\n");
    let snapshot = snapshot(&given);
    assert_eq!(
        names(snapshot.listeners.iter().map(|l| &l.name)),
        ["a", "b", "c"]
    );
    assert_eq!(
        names(snapshot.pools.iter().map(|p| &p.name)),
        ["one", "two"]
    );
    assert_eq!(
        snapshot.files,
        [
            MAIN,
            "etc/conf.d/10.yaml",
            "etc/conf.d/20.yaml",
            "etc/conf.d/30.yaml"
        ]
    );
}

#[test]
fn the_same_name_twice_names_both_places() {
    let given = Given::main("include: more.yaml\nworkers: 1\nlisteners: { a: { bind: \":1\", pool: p } }\npools: { p: { servers: [h:1] } }\n")
        .file("etc/more.yaml", "workers: 2\npools:\n  p: { servers: [h:2] }\n");
    check_given(
        &given,
        &[
            "etc/more.yaml:1:1: error[duplicate]: the key `workers` is given twice; first at etc/main.yaml:2:1",
            "etc/more.yaml:3:3: error[duplicate]: the name `p` is given twice; first at etc/main.yaml:4:10",
        ],
    );
}

#[test]
fn named_lists_append_and_the_one_without_match_is_last() {
    let given = Given::main("include: [b.yaml, c.yaml]\nlisteners: { a: { bind: \":1\", routes: shop } }\nroutes: { shop: [{ name: rest, pool: p }, { name: a, match: { path: /a }, pool: p }] }\npools: { p: { servers: [h:1] } }\n")
        .file("etc/b.yaml", "routes: { shop: [{ name: b, match: { path: /b }, pool: p }] }\n")
        .file("etc/c.yaml", "routes: { shop: [{ name: c, match: { path: /c }, pool: p }], more: [] }\nlisteners: { b: { bind: \":2\", routes: shop } }\n");
    let loaded = given.load();
    let listeners = loaded.snapshot.unwrap().listeners;
    for listener in &listeners {
        let Protocol::Http(http) = &listener.protocol else {
            panic!("http")
        };
        assert_eq!(
            names(http.routes.iter().map(|r| &r.name)),
            ["a", "b", "c", "rest"]
        );
    }
    check_given(
        &given,
        &["etc/c.yaml:1:62: warning[unused]: no listener has the routes `more`"],
    );
}

#[test]
fn files_that_are_not_there() {
    check_given(
        &Given::default(),
        &[" error[file]: cannot read `etc/main.yaml`: no such file"],
    );
    let given = Given::main(
        "include: [gone.yaml, \"none/*.yaml\", /etc/abs.yaml]\nlisteners: { a: { bind: \":1\", pool: p, x: 1 } }\n",
    );
    check_given(
        &given,
        &[
            "1:11: error[file]: cannot read `etc/gone.yaml`: no such file",
            "1:37: error[file]: cannot read `/etc/abs.yaml`: no such file",
            "2:40: error[unknown_key]: unknown key `x` in `listener`",
        ],
    );
}

#[test]
fn includes_end() {
    check_given(
        &Given::main("include: main.yaml\n"),
        &[
            "1:1: error[missing]: `config` lacks `listeners`",
            "1:10: error[duplicate]: the file `etc/main.yaml` is given twice; first at etc/main.yaml:1:1",
        ],
    );
    let mut given = Given::main("include: 1.yaml\n");
    for n in 1..=9 {
        given = given.file(
            &format!("etc/{n}.yaml"),
            &format!("include: {}.yaml\n", n + 1),
        );
    }
    check_given(
        &given,
        &["etc/8.yaml:1:1: error[limit]: includes go 8 deep at most"],
    );
}

#[test]
fn a_config_is_bounded() {
    let given = Given::main(&format!("include: more.yaml\n# {}\n", "x".repeat(9 << 20)))
        .file("etc/more.yaml", &format!("# {}\n", "x".repeat(9 << 20)));
    check_given(
        &given,
        &["1:10: error[limit]: a config has at most 16 MiB, its included files counted"],
    );
    // Many notes leave room for the errors.
    let pools: String = (0..1500)
        .map(|n| format!("  p{n}: {{ servers: [h:1] }}\n"))
        .collect();
    let loaded = Given::main(&format!(
        "listeners: {{ a: {{ bind: \":1\", pool: q }} }}\npools:\n{pools}"
    ))
    .load();
    assert_eq!(
        (loaded.diagnostics.len(), loaded.count(Severity::Error)),
        (1, 1)
    );
    let many = "x: 1\n".repeat(3000);
    let loaded = Given::main(&many).load();
    assert_eq!(loaded.diagnostics.len(), 1000);
    assert!(loaded.snapshot.is_none());
}

#[test]
fn a_fault_in_one_file_does_not_hide_those_in_others() {
    let given =
        Given::main("include: '*.inc'\nlisteners: { a: { bind: \":1\", pool: p } }\nwrokers: 1\n")
            .file("etc/a.inc", "a: [\n")
            .file("etc/b.inc", "b: ]\n");
    let found = given.found();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("3:1: error[unknown_key]"), "{found:?}");
    assert!(
        found[1].starts_with("etc/a.inc:1:4: error[syntax]"),
        "{found:?}"
    );
    assert!(
        found[2].starts_with("etc/b.inc:1:4: error[syntax]"),
        "{found:?}"
    );
}

#[test]
fn anchors_aliases_and_merge_keys() {
    let given = Given::main(
        "\
listeners:
  a: &base { bind: \":1\", pool: p, timeouts: &times { header: 1s, keep_alive: 2s } }
  b:
    <<: *base
    bind: \":2\"
  c:
    bind: \":3\"
    pool: &pool p
    timeouts: { <<: [{ header: 3s }, *times], write_idle: 4s }
pools:
  p: { servers: [h:1] }
",
    );
    let snapshot = snapshot(&given);
    let header = |at: usize| match &snapshot.listeners[at].protocol {
        Protocol::Http(http) => http.timeouts.clone(),
        Protocol::Tcp(_) => panic!("http"),
    };
    let seconds = |time: Option<std::time::Duration>| time.unwrap().as_secs();
    assert_eq!(seconds(header(1).header), 1);
    assert_eq!(seconds(header(2).header), 3);
    assert_eq!(seconds(header(2).keep_alive), 2);
    assert_eq!(seconds(header(2).write_idle), 4);
    check(
        "a: { <<: 1 }\nlisteners: { <<: [x] }\n",
        &[
            "1:1: error[unknown_key]: unknown key `a` in `config` (known: `workers`, `admin`, `zone`, `shutdown`, `limits`, `access_log`, `secret_file`, `state_file`, `include`, `routes`, `listeners`, `pools`)",
            "1:10: error[type]: `<<` takes a map or a list of maps, not a number",
            "2:18: error[type]: `<<` takes a map or a list of maps, not a list",
        ],
    );
}

#[test]
fn variables_take_the_type_of_their_value() {
    let text = "workers: ${N}\nlisteners: { a: { bind: \"${IP:-127.0.0.1}:${PORT}\", pool: p } }\npools: { p: { servers: [\"${HOST}:1\"], balance: \"${ALGORITHM:-random}\", retries: \"${RETRIES}\" } }\n";
    let given = Given::main(text)
        .env("N", "3")
        .env("PORT", "80")
        .env("HOST", "h")
        .env("RETRIES", "off");
    let snapshot = snapshot(&given);
    assert_eq!(snapshot.workers, Some(3));
    assert_eq!(
        snapshot.pools[0].servers[0].address,
        Address::Name("h".into(), 1)
    );
    assert_eq!(snapshot.pools[0].balance.name, "random");
    assert_eq!(snapshot.pools[0].retries.attempts, 0);
    check(
        "workers: \"3\"\nlisteners: {}\n",
        &["1:10: error[type]: expected a whole number from 1 to 1024, found the text `3`"],
    );
}

#[test]
fn notes_come_only_when_nothing_is_wrong() {
    let given = Given::main(
        "listeners: { a: { bind: \":1\", pool: p } }\npools: { p: { servers: [h:1] } }\n",
    );
    let loaded = given.load();
    assert_eq!(loaded.count(Severity::Note), 1);
    assert_eq!(loaded.count(Severity::Error), 0);
}

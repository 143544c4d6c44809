//! Labels of servers, and routes that lead to those which have them.

use super::Given;
use crate::snapshot::{Arm, Destination, Protocol, Target};

/// What is found, but for its place; that is where the word is, as everywhere.
#[track_caller]
fn check(yaml: &str, expected: &[&str]) {
    let found = Given::main(yaml).found();
    let said = |line: &String| line.split_once(": ").map(|(_, said)| said.to_owned());
    let found: Vec<String> = found.iter().filter_map(said).collect();
    assert_eq!(found, expected);
}

/// Three servers, the third without labels, and routes as given.
fn web(routes: &str) -> String {
    format!(
        "\
listeners: {{ l: {{ bind: \":1\", routes: [{routes}] }} }}
pools:
  web:
    health_check: tcp
    servers:
      - {{ address: \"10.0.0.1:80\", labels: {{ version: v1, tier: gold }} }}
      - {{ address: \"10.0.0.2:80\", labels: {{ version: v2, build: 7 }} }}
      - 10.0.0.3:80
"
    )
}

#[test]
fn routes_choose_servers_by_label() {
    let yaml = web("\
{ match: { path: /a }, pool: { name: web, labels: { version: v2 } } }, \
{ match: { path: /b }, pool: { name: web } }, \
{ match: { path: /c }, split: [{ pool: { name: web, labels: { version: v1 } }, weight: 9 }, { pool: web }] }, \
{ pool: { name: web, labels: { build: 7, version: v2 } } }, \
{ pool: { name: web, labels: { version: v2 } } }");
    let given = Given::main(&yaml);
    let snapshot = given.load().snapshot.unwrap();
    let Protocol::Http(http) = &snapshot.listeners[0].protocol else {
        panic!("http")
    };
    let targets: Vec<_> = http.routes.iter().map(|route| &route.target).collect();
    let part = |subset| Destination {
        pool: 0,
        subset: Some(subset),
    };
    let arms = vec![
        Arm {
            to: part(1),
            weight: 9,
        },
        Arm {
            to: Destination::whole(0),
            weight: 1,
        },
    ];
    assert_eq!(
        targets,
        [
            &Target::Pool(part(0)),
            &Target::Pool(Destination::whole(0)),
            &Target::Split(arms),
            &Target::Pool(part(2)),
            &Target::Pool(part(0)),
        ]
    );
    let pool = &snapshot.pools[0];
    let subsets: Vec<_> = pool.subsets.iter().map(ToString::to_string).collect();
    assert_eq!(subsets, ["version=v2", "version=v1", "build=7,version=v2"]);
    let meant = |subset: usize| {
        let servers = pool.servers.iter();
        servers
            .map(|server| pool.subsets[subset].are_among(&server.labels))
            .collect::<Vec<_>>()
    };
    assert_eq!(meant(0), [false, true, false]);
    assert_eq!(part(2).shown(&snapshot.pools), "web (build=7,version=v2)");
    assert_eq!(Destination::whole(0).shown(&snapshot.pools), "web");
}

#[test]
fn a_listener_may_choose_too() {
    let yaml = web("").replace(
        "bind: \":1\", routes: []",
        "bind: \":1\", protocol: tcp, pool: { name: web, labels: { version: v2 } }",
    );
    let snapshot = Given::main(&yaml).load().snapshot.unwrap();
    let Protocol::Tcp(tcp) = &snapshot.listeners[0].protocol else {
        panic!("tcp")
    };
    let part = Destination {
        pool: 0,
        subset: Some(0),
    };
    assert_eq!(tcp.target, Target::Pool(part));
}

#[test]
fn a_subset_without_servers_is_refused() {
    check(
        &web("{ pool: { name: web, labels: { version: v3 } } }"),
        &[
            "error[unknown_name]: no server of the pool `web` has the labels version=v3 (labels of its servers: build=7 tier=gold version=v1 version=v2)",
        ],
    );
    // Each label is there, but no server has both.
    check(
        &web("{ split: [{ pool: { name: web, labels: { version: v2, tier: gold } } }] }"),
        &[
            "error[unknown_name]: no server of the pool `web` has the labels tier=gold,version=v2 (labels of its servers: build=7 tier=gold version=v1 version=v2)",
        ],
    );
    check(
        "listeners: { l: { bind: \":1\", pool: { name: p, labels: { a: b } } } }\npools: { p: { servers: [10.0.0.1:80], health_check: tcp } }\n",
        &[
            "error[unknown_name]: no server of the pool `p` has the labels a=b (none of its servers has any: `{ address: …, labels: { … } }`)",
        ],
    );
}

#[test]
fn what_is_wrong_with_labels_is_said_where_it_is() {
    let found = Given::main(&web("{ pool: { name: web, labels: { version: v3 } } }")).found();
    assert!(
        found[0].starts_with("1:61: error[unknown_name]"),
        "{found:?}"
    );
    check(
        &web("{ pool: { name: wep, labels: { version: v2 } } }"),
        &["error[unknown_name]: there is no pool `wep` (did you mean `web`?)"],
    );
    check(
        &web("{ pool: { labels: { version: v2 } } }"),
        &["error[missing]: `destination` lacks `name`"],
    );
    check(
        &web("{ pool: { name: web, label: { version: v2 } } }"),
        &["error[unknown_key]: unknown key `label` in `destination` (did you mean `labels`?)"],
    );
    check(
        &web("{ pool: { name: web, labels: {} } }"),
        &["error[empty]: no label is given: without `labels` all servers of the pool are meant"],
    );
    check(
        &web("{ pool: { name: web, labels: { version: true } } }"),
        &["error[type]: expected text, found `true`"],
    );
    check(
        &web("{ split: [{ pool: web, weight: 0 }] }, { split: [] }"),
        &[
            "error[empty]: all arms of the split are 0",
            "error[empty]: the split has no arms",
        ],
    );
    check(
        &web("{ split: [{ weight: 3 }] }"),
        &["error[missing]: `arm` lacks `pool`"],
    );
    check(
        &web("{ split: web }"),
        &[
            "error[type]: expected a map of pools to weights, or a list of arms, found the text `web`",
        ],
    );
}

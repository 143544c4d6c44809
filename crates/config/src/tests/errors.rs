//! What is said of each mistake: all of them at once, each with its place.

use super::{Given, check, check_given};

/// A sound pool, for configs whose mistake is elsewhere.
const POOL: &str = "pools: { p: { servers: [10.0.0.1:80], health_check: tcp } }\n";

/// The findings of a listener `l` with these keys, in front of a sound pool.
#[track_caller]
fn check_listener(keys: &str, expected: &[&str]) {
    check(
        &format!("listeners: {{ l: {{\n {keys}\n }} }}\n{POOL}"),
        expected,
    );
}

/// The findings of a pool `p` with these keys, behind a sound listener.
#[track_caller]
fn check_pool(keys: &str, expected: &[&str]) {
    check(
        &format!(
            "listeners: {{ l: {{ bind: \":1\", pool: p }} }}\npools: {{ p: {{\n {keys}\n }} }}\n"
        ),
        expected,
    );
}

#[test]
fn ten_mistakes_at_once() {
    check(
        "\
listeners:
  web:
    bind: \":8080\"
    timeouts: { header: 10 }
    routes:
      - match: { path: \"~(\" }
        pool: sitte
      - match: { source: 10.0.0.1/8 }
        pool: site
  other:
    bind: 127.0.0.1:8080
    pool: empty
pools:
  site:
    servers: [10.0.0.1, 10.0.0.2:80, 10.0.0.2:80]
    blance: random
    affinity: { app_cookie: 'a b' }
  empty: { servers: [] }
workers: many
",
        &[
            "4:25: error[type]: `10` lacks its unit (write `10s` if that is meant)",
            "6:24: error[value]: bad regex: unclosed group",
            "7:15: error[unknown_name]: there is no pool `sitte` (did you mean `site`?)",
            "8:26: error[address]: `10.0.0.1/8`: the address has bits beyond its prefix; did you mean 10.0.0.0/8?",
            "11:11: error[conflict]: this bind and that of the listener `web` at etc/main.yaml:3:11 would take each other's traffic",
            "15:15: error[address]: `10.0.0.1` has no port (write `10.0.0.1:80` if that port is meant)",
            "15:38: error[duplicate]: the server `10.0.0.2:80` is given twice; first at etc/main.yaml:15:25",
            "16:5: error[unknown_key]: unknown key `blance` in `pool` (did you mean `balance`?)",
            "17:29: error[value]: `a b` is not the name of a cookie",
            "18:12: error[empty]: the pool `empty` has no servers",
            "19:10: error[type]: expected a whole number from 1 to 1024, found the text `many`",
        ],
    );
}

#[test]
fn a_key_in_the_wrong_section_is_told_where_it_belongs() {
    check_listener(
        "bind: ':1', balance: random, timeout: 3s, servers: [], routes: [{ affinity: x, pool: p }]",
        &[
            "2:14: error[unknown_key]: unknown key `balance` in `listener` (it is a key of `pool`)",
            "2:31: error[unknown_key]: unknown key `timeout` in `listener` (did you mean `timeouts`?)",
            "2:44: error[unknown_key]: unknown key `servers` in `listener` (it is a key of `pool`)",
            "2:68: error[unknown_key]: unknown key `affinity` in `route` (it is a key of `pool`)",
        ],
    );
}

#[test]
fn rendered() {
    let yaml = "listeners:\n  wéb: { bind: \":1\", pool: p, upgrads: x }\npools: { p: { servers: [a:1] } }\n";
    let diagnostics = Given::main(yaml).load().diagnostics;
    let expected = "\
etc/main.yaml:2:31: error[unknown_key]: unknown key `upgrads` in `listener`
      wéb: { bind: \":1\", pool: p, upgrads: x }
                                  ^^^^^^^
    did you mean `upgrades`?
";
    assert_eq!(
        diagnostics
            .iter()
            .map(|d| d.render(false))
            .collect::<String>(),
        expected
    );
    assert!(
        diagnostics[0]
            .render(true)
            .contains("\x1b[1;31merror[unknown_key]\x1b[0m")
    );
}

#[test]
fn quoting() {
    let help = |yaml: &str, expected: &[&str]| check(yaml, expected);
    help(
        "listeners:\n  l:\n    bind: [::1]:443\n",
        &[
            "3:16: error[syntax]: not YAML: while parsing a block mapping, did not find expected key (quote what starts with `[`: \"[::1]:443\")",
        ],
    );
    help(
        "host: *.example.com\n",
        &[
            "1:7: error[syntax]: not YAML: while parsing node, found unknown anchor (quote what starts with `*`: \"*.example.com\")",
        ],
    );
    help(
        "l: { pool: ${X} }\n",
        &[
            "1:13: error[syntax]: not YAML: while parsing a flow mapping, did not find expected ',' or '}' (quote what holds `{` or `[`: \"${X}\")",
        ],
    );
    help(
        "a: { path: /x/{id} }\n",
        &[
            "1:15: error[syntax]: not YAML: while parsing a flow mapping, did not find expected ',' or '}' (quote what holds `{` or `[`: \"/x/{id}\")",
        ],
    );
    help(
        "a: [ @x ]\n",
        &[
            "1:6: error[syntax]: not YAML: unexpected character: `@' (quote what starts with `@`: \"@x\")",
        ],
    );
    check_pool(
        "servers: [[::1]]",
        &[
            "3:12: error[type]: expected an address (text) or a map, found a list (quote text that starts with `[` or `{`, or holds one: \"[::1]:8080\")",
        ],
    );
}

#[test]
fn yaml() {
    check(
        "- a\n",
        &["1:1: error[type]: a config is a map (`listeners:`, `pools:`), found a list"],
    );
    check("", &["1:1: error[missing]: `config` lacks `listeners`"]);
    check(
        "listeners: {}\n",
        &["1:1: error[empty]: there is no listener: nothing would be balanced"],
    );
    check(
        "a: 1\n---\nb: 2\n",
        &["2:1: error[syntax]: a config is one YAML document; this starts a second"],
    );
    check(
        "a: &x [*x]\n",
        &["1:8: error[syntax]: an alias inside of what it stands for"],
    );
    check(
        "listeners:\n\tl: {}\n",
        &[
            "2:2: error[syntax]: not YAML: tabs disallowed within this context (block indentation) (indent with spaces, not tabs)",
        ],
    );
    check(
        "workers: 1\nworkers: 2\nlisteners: {}\n",
        &["2:1: error[duplicate]: the key `workers` is given twice; first at etc/main.yaml:1:1"],
    );
    check(
        "workers: !thing 2\nlisteners: {}",
        &["1:10: error[syntax]: the tag `!thing` means nothing here"],
    );
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    check(
        &deep,
        &["1:65: error[limit]: lists and maps inside one another are deeper than 64"],
    );
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n";
    check(
        bomb,
        &["4:33: error[limit]: aliases bring in more than 10000 values"],
    );
}

#[test]
fn variables() {
    let yaml = format!(
        "workers: ${{W}}\nlisteners: {{ l: {{ bind: \":${{PORT:-80}}\", pool: \"${{POOL}}\" }} }}\n{POOL}"
    );
    check_given(
        &Given::main(&yaml),
        &[
            "1:10: error[variable]: `W` is not set and has no default",
            "2:47: error[variable]: `POOL` is not set and has no default",
        ],
    );
    let given = Given::main(&yaml).env("W", "two").env("POOL", "p");
    check_given(
        &given,
        &["1:10: error[type]: expected a whole number from 1 to 1024, found the text `two`"],
    );
    check_given(&Given::main(&yaml).env("W", "2").env("POOL", "p"), &[]);
}

#[test]
fn types() {
    check_listener(
        "bind: 8080, pool: p",
        &["2:8: error[address]: `8080` is a port without an address (write \":8080\")"],
    );
    check_listener(
        "bind: \":1\", pool: p, limits: { headers: 0, header_bytes: 32KB, connections: 1.5 }",
        &[
            "2:42: error[value]: expected a whole number from 1 to 4096",
            "2:59: error[value]: `32KB` is not a size such as `32KiB` (B KiB MiB GiB)",
            "2:78: error[type]: expected a whole number from 1 to 10000000, found a number",
        ],
    );
    check_listener(
        "bind: \":1\", pool: p, timeouts: { header: 0, body_idle: off, keep_alive: false, write_idle: 1x }",
        &[
            "2:43: error[value]: a time of 0 would end everything at once (`off`, where it is taken, means no limit)",
            "2:74: error[type]: `false` is not taken here (write `off`)",
            "2:93: error[value]: `1x` is not a time such as `10s`, `250ms` or `1m30s` (us ms s m h d)",
        ],
    );
    check_listener(
        "bind: \":1\", pool: p, forwarded: { via: yes, request_id: kept }",
        &[
            "2:41: error[type]: expected `true` or `false`, found the text `yes`",
            "2:58: error[value]: `kept` is not a way to treat request ids (known: `keep`, `replace`, `off`)",
        ],
    );
    check_listener(
        "bind: \":1\", pool: [p]",
        &[
            "2:20: error[type]: expected the name of a pool (text) or a map, found a list (quote text that starts with `[` or `{`, or holds one: \"[::1]:8080\")",
        ],
    );
    check_pool(
        "servers: 10.0.0.1:80",
        &["3:11: error[type]: expected a list, found the text `10.0.0.1:80`"],
    );
}

#[test]
fn unsupported() {
    check_listener(
        "bind: \":1\", protocol: udp, pool: p",
        &["2:24: error[unsupported]: `udp` is not supported by this version"],
    );
    check_pool(
        "servers: [{ address: a:1 }         ], http: 1, panic_threshold: 101%",
        &["3:66: error[value]: `101%` is not a percentage from 0% to 100%"],
    );
    check_pool(
        "servers: [\"10.0.0.1:80\"], capacity_alarm: 0.8",
        &["3:44: error[type]: `0.8` lacks its unit (write `0.8%` if that is meant)"],
    );
    check_listener(
        "bind: \":1\", routes: [{ match: { sni: x, body: y }, pool: p }]",
        &["2:42: error[unsupported]: `body` is not supported by this version"],
    );
    let reserved = "sites: x\ndns: x\nvip: x\ndiscovery: x\nmesh: x\n";
    let found = Given::main(&format!(
        "{reserved}listeners: {{ l: {{ bind: \":1\", pool: p }} }}\n{POOL}"
    ))
    .found();
    assert_eq!(found.len(), 5);
    assert!(
        found.iter().all(|line| line.contains("error[unsupported]")),
        "{found:?}"
    );
}

#[test]
fn routes() {
    check_listener(
        "bind: \":1\"",
        &[
            "1:14: error[missing]: the listener leads nowhere (give it `routes`, or a `pool` as shorthand for a single route)",
        ],
    );
    check_listener(
        "bind: \":1\", routes: []",
        &[
            "1:14: error[empty]: the listener's list of routes is empty: every request would be a 404",
        ],
    );
    check_listener(
        "bind: \":1\", pool: p, routes: [{ pool: p }]",
        &[
            "2:23: error[conflict]: `routes` and the shorthand for a single route exclude each other",
        ],
    );
    check_listener(
        "bind: \":1\", routes: shop",
        &["2:22: error[unknown_name]: there is no list of routes `shop`"],
    );
    check_listener(
        "bind: \":1\", routes: [{ filters: [{ strip_prefix: /a }] }, { pool: p, split: { p: 1 } }, { split: { p: 0 } }, { split: {} }, { split: { p: 1001 } }]",
        &[
            "2:23: error[missing]: the route leads nowhere (give it a `pool`, a `split`, or a filter that answers (`respond`, `redirect`, `https_redirect`))",
            "2:71: error[conflict]: `pool` and `split` exclude each other",
            "2:92: error[empty]: all arms of the split are 0",
            "2:113: error[empty]: the split has no arms",
            "2:140: error[value]: expected a whole number from 0 to 1000",
        ],
    );
    check_listener(
        "bind: \":1\", routes: [{ name: a, match: { path: /a }, pool: p }, { name: a, pool: p }]",
        &["2:74: error[duplicate]: the route `a` is given twice; first at etc/main.yaml:2:31"],
    );
    check_listener(
        "bind: \":1\", routes: [{ match: { host: [a, true], path: x, method: false, header: { x: [] }, not: { host: 'a:1' } }, pool: p }]",
        &[
            "2:44: error[type]: expected text, found `true`",
            "2:57: error[value]: a path begins with `/`, `*` or `~`",
            "2:68: error[type]: expected text, found `false`",
            "2:85: error[empty]: no value to match is given",
            "2:107: error[value]: a host matches without its port; leave the port out",
        ],
    );
}

#[test]
fn filters() {
    check_listener(
        "bind: \":1\", routes: [{ filters: [{ strip: /a }, { set_header: { 'a b': x } }, { remove_header: host }, { respond: 99 }], pool: p }]",
        &[
            "2:37: error[unknown_key]: unknown key `strip` in a filter (known: `grpc_web`, `strip_prefix`, `set_header`, `remove_header`, `set_response_header`, `remove_response_header`, `redirect`, `https_redirect`, `hsts`, `respond`)",
            "2:66: error[value]: \"a b\" is no header name",
            "2:97: error[value]: host can be set on a request, and neither removed nor set elsewhere",
            "2:116: error[value]: expected a whole number from 200 to 599",
        ],
    );
    check_listener(
        "bind: \":1\", routes: [{ filters: [{ redirect: { to: /x, status: 305 } }, { respond: 200 }], pool: p }]",
        &[
            "2:35: error[conflict]: a route whose filter answers leads to no pool: leave one of them out",
            "2:65: error[value]: 305 is no redirect; expected 301, 302, 303, 307 or 308",
            "2:74: error[conflict]: no filter runs after one that answers",
        ],
    );
    check_listener(
        "bind: \":1\", routes: [{ filters: [{ a: 1, b: 2 }], pool: p }]",
        &[
            "2:35: error[type]: a filter is a map with exactly one key, found 2 (known: `grpc_web`, `strip_prefix`, `set_header`, `remove_header`, `set_response_header`, `remove_response_header`, `redirect`, `https_redirect`, `hsts`, `respond`)",
        ],
    );
}

#[test]
fn tcp() {
    check_listener(
        "bind: \":1\", protocol: tcp, pool: p, timeouts: { header: 1s }, limits: { headers: 1 }, upgrades: x",
        &[
            "2:50: error[conflict]: `header` is only for a listener with `protocol: http`",
            "2:74: error[conflict]: `headers` is only for a listener with `protocol: http`",
            "2:88: error[conflict]: `upgrades` is only for a listener with `protocol: http`",
        ],
    );
    check_listener(
        "bind: \":1\", protocol: tcp, pool: p, routes: [{ pool: p }]",
        &[
            "2:38: error[conflict]: `routes` and the shorthand for a single route exclude each other",
        ],
    );
    check_listener(
        "bind: \":1\", pool: p, timeouts: { idle: 1s }",
        &["2:35: error[conflict]: `idle` is only for a listener with `protocol: tcp`"],
    );
    check(
        "listeners: { l: { bind: \":1\", protocol: tcp, pool: p } }\npools: { p: { servers: [a:1], balance: { consistent_hash: { key: path } } } }\n",
        &[
            "1:52: error[conflict]: the pool `p` hashes what only HTTP has; a TCP listener can hash the source",
        ],
    );
}

#[test]
fn admin() {
    let admin = |value: &str, expected: &[&str]| {
        check(
            &format!("admin: {value}\nlisteners: {{ l: {{ bind: \":9000\", pool: p }} }}\n{POOL}"),
            expected,
        );
    };
    admin("off", &[]);
    admin("{ bind: 127.0.0.1:9900 }", &[]);
    admin("{ bind: localhost:9900 }", &[]);
    admin("{ bind: 0.0.0.0:9900, token_file: /t }", &[]);
    admin(
        "{ bind: 0.0.0.0:9900 }",
        &["1:16: error[missing]: away from loopback the admin listener needs a `token_file`"],
    );
    admin(
        "on",
        &["1:8: error[type]: expected a map for `admin`, found the text `on`"],
    );
    admin(
        "{ bind: 127.0.0.1:9000 }",
        &[
            "1:16: error[conflict]: this bind and that of the listener `l` at etc/main.yaml:2:25 would take each other's traffic",
        ],
    );
}

#[test]
fn pools() {
    check_pool(
        "servers: [{ name: x }, { address: a:1, weight: -1, max_connections: 0 }, { address: a:1, name: '' }]",
        &[
            "3:12: error[missing]: `server` lacks `address`",
            "3:49: error[value]: expected a whole number from 0 to 1000",
            "3:70: error[value]: expected a whole number from 1 to 1000000",
            "3:97: error[value]: a name cannot be empty",
        ],
    );
    check_pool(
        "servers: [a:1], balance: round-robin, retries: { attempts: x, budget: 101% }, drain: { timeout: 5 }",
        &[
            "3:27: error[value]: `round-robin` is not an algorithm (did you mean `round_robin`?)",
            "3:61: error[type]: expected a whole number from 0 to 100, found the text `x`",
            "3:72: error[value]: `101%` is not a percentage from 0% to 100%",
            "3:98: error[type]: `5` lacks its unit (write `5s` if that is meant)",
        ],
    );
    check_pool(
        "servers: [a:1], balance: { consistent_hash: { key: header, bounded_load: 0.5 } }",
        &[
            "3:53: error[value]: which header is hashed? (write `{ header: NAME }`)",
            "3:75: error[value]: expected a number from 1 to 100",
        ],
    );
    check_pool(
        "servers: [a:1], balance: { random: { x: 1 } }",
        &["3:39: error[unknown_key]: unknown key `x`: there are no options here"],
    );
    check_pool(
        "servers: [a:1], health_check: { tcp: { path: / } }",
        &["3:41: error[conflict]: a TCP probe sends nothing: this key is only for HTTP"],
    );
    check_pool(
        "servers: [a:1], health_check: { tcp: { service: a } }",
        &["3:41: error[conflict]: a TCP probe sends nothing: this key is only for gRPC"],
    );
    check_pool(
        "servers: [a:1], health_check: { http: { service: a } }",
        &["3:42: error[conflict]: this key is only for a gRPC probe"],
    );
    check_pool(
        "servers: [a:1], health_check: { service: a, path: / }",
        &["3:46: error[conflict]: this key is only for HTTP: a gRPC probe has `service`"],
    );
    check_pool(
        "servers: [a:1], health_check: { grpc: { servise: a, headers: { te: x, grpc-timeout: 1S } } }",
        &[
            "3:42: error[unknown_key]: unknown key `servise` in `health_check` (did you mean `service`?)",
            "3:69: error[value]: te belongs to the connection or the framing; only the proxy sets it",
            "3:86: error[value]: grpc-timeout belongs to the call; only the probe sets it",
        ],
    );
    check_pool(
        "servers: [a:1], health_check: { path: health, method: 'G T', host: 'a b', headers: { te: x }, status: [99, 300-200], interval: 1ms, initial: up }",
        &[
            "3:40: error[value]: the path of a probe begins with `/` and holds no blank",
            "3:56: error[value]: `G T` is no method of a probe",
            "3:69: error[value]: the value of host holds a control character, or a blank at one end",
            "3:91: error[value]: te belongs to the connection or the framing; only the proxy sets it",
            "3:105: error[value]: `99` is not a status such as `200` or a range such as `200-299`",
            "3:109: error[value]: `300-200` is not a status such as `200` or a range such as `200-299`",
            "3:129: error[value]: probes come at most every 10ms",
            "3:143: error[value]: `up` is not an initial health (known: `unknown`, `healthy`, `unhealthy`)",
        ],
    );
}

#[test]
fn warnings() {
    check(
        "\
listeners:
  l:
    bind: \":1\"
    routes:
      - match: { path: /a/* }
        pool: p
      - match: { path: /a/b }
        pool: p
      - pool: p
      - match: { host: x }
        pool: p
pools:
  p: { servers: [{ address: a.invalid:1, weight: 0 }], health_check: tcp }
  unused: { servers: [a:1], health_check: off }
routes: { spare: [{ pool: p }] }
",
        &[
            "7:9: warning[unreachable]: this route can never match: the one at etc/main.yaml:5:9 takes all that it would",
            "10:9: warning[unreachable]: this route can never match: the one at etc/main.yaml:9:9 takes all that it would",
            "13:3: warning[weight]: every weight of the pool `p` is 0: it takes no new traffic",
            "13:29: warning[resolve]: `a.invalid` does not resolve now",
            "14:3: warning[unused]: nothing leads to the pool `unused`",
            "15:11: warning[unused]: no listener has the routes `spare`",
        ],
    );
}

#[test]
fn a_listener_that_sends_to_itself() {
    let circle = |at: &str, server: &str| {
        format!(
            "{at}: warning[conflict]: the listener sends to itself: the server `{server}` of the pool `p` is this address, and one request would go round until no connection is left"
        )
    };
    for (bind, server, is_circle) in [
        (":8080", "127.0.0.1:8080", true),
        (":8080", "[::1]:8080", true),
        ("0.0.0.0:8080", "127.0.0.2:8080", true),
        ("10.0.0.1:8080", "10.0.0.1:8080", true),
        ("unix:/run/a", "unix:/run/a", true),
        // On another machine, at another port, of the other family.
        (":8080", "10.0.0.1:8080", false),
        (":8080", "127.0.0.1:8081", false),
        ("[::]:8080", "127.0.0.1:8080", false),
        ("127.0.0.1:8080", "127.0.0.2:8080", false),
        ("unix:/run/a", "unix:/run/b", false),
    ] {
        for protocol in ["http", "tcp"] {
            let config = format!(
                "listeners: {{ l: {{ bind: \"{bind}\", protocol: {protocol}, pool: p }} }}\npools: {{ p: {{ servers: [\"{server}\"], health_check: off }} }}\n"
            );
            let expected = is_circle.then(|| circle("1:25", server));
            check(&config, expected.as_deref().as_slice());
        }
    }
    // Plain HTTP is refused by a listener of TLS, and TLS by one without.
    let tls = "pools: { p: { servers: [\"127.0.0.1:8080\"], tls: {}, health_check: off } }\n";
    for (protocol, is_circle) in [("http", false), ("tcp", true)] {
        let config = format!(
            "listeners: {{ l: {{ bind: \":8080\", protocol: {protocol}, pool: p }} }}\n{tls}"
        );
        let expected = is_circle.then(|| circle("1:25", "127.0.0.1:8080"));
        check(&config, expected.as_deref().as_slice());
    }
    // One listener behind another is what people do.
    check(
        "listeners:
  outer: { bind: \":8080\", protocol: tcp, pool: inner }
  inner: { bind: \"127.0.0.1:8081\", pool: p }
pools:
  inner: { servers: [\"127.0.0.1:8081\"], health_check: off }
  p: { servers: [\"127.0.0.1:8082\"], health_check: off }
",
        &[],
    );
}

#[test]
fn a_state_file_is_a_files_path() {
    let found = Given::main(&format!(
        "state_file: /var/lib/evenkeel/\nlisteners: {{ l: {{ bind: \":1\", pool: p }} }}\n{POOL}"
    ))
    .found();
    assert_eq!(
        found,
        [
            "1:13: error[value]: `state_file` is the path of a file, such as /var/lib/evenkeel/state.json"
        ]
    );
}

#[test]
fn places_of_servers() {
    check_pool(
        "servers: [{ address: \"10.0.0.1:80\", priority: 101, backup: yes, zone: \"\" }], zones: prefer_own, overprovision: 0.5, slow_start: 30",
        &[
            "3:48: error[value]: expected a whole number from 0 to 100",
            "3:61: error[type]: expected `true` or `false`, found the text `yes`",
            "3:72: error[value]: a name cannot be empty",
            "3:86: error[missing]: the own zone is not known (name it at the top: `zone: eu-1a`, or `zone: ${ZONE}`)",
            "3:113: error[value]: expected a number from 1 to 100",
            "3:130: error[type]: `30` lacks its unit (write `30s` if that is meant)",
        ],
    );
    check_pool(
        "servers: [{ address: \"10.0.0.1:80\", backup: true }], zones: own, slow_start: { duration: 0, aggression: 20, floor: 0% }",
        &[
            "2:10: warning[unused]: every server of the pool is a backup: they are used as any others",
            "3:62: error[value]: `own` is not a use of zones (known: `any`, `prefer_own`)",
            "3:106: error[value]: expected a number from 0.1 to 10",
            "3:117: error[value]: `floor` is 1% to 100%",
        ],
    );
    check(
        "zone: eu-1a
listeners: { l: { bind: \":1\", pool: p } }
pools: { p: { servers: [{ address: \"10.0.0.1:80\", zone: eu-1b }], zones: { prefer_own: { traffic: 0% } } } }
",
        &[
            "3:67: warning[unused]: no server of this pool is in the zone `eu-1a`: all are used alike",
            "3:99: error[value]: `traffic` is 1% to 100%",
        ],
    );
}

#[test]
fn retries_and_hedging() {
    check_pool(
        "servers: [a:1], retries: { on: [503, 200, 500-600], backoff: { base: 2s, max: 1s }, methods: [GET], per_try_timeout: 0 }, hedge: { max: 6 }",
        &[
            "3:39: error[value]: only after statuses from 400 to 599 another server is tried",
            "3:44: error[value]: `500-600` is not a status such as `200` or a range such as `200-299`",
            "3:80: error[conflict]: `max` is below `base`, which is 2s",
            "3:96: error[value]: `GET` is not a method to repeat (known: `POST`, `PATCH`)",
            "3:119: error[value]: a time of 0 would end everything at once (`off`, where it is taken, means no limit)",
            "3:131: error[missing]: `hedge` lacks `after`",
            "3:138: error[value]: expected a whole number from 1 to 5",
        ],
    );
    check_pool(
        "servers: [a:1], retries: { on: [unavailible, ok, 14] }",
        &[
            "3:34: error[value]: `unavailible` is no status of HTTP, and no code of gRPC to retry (did you mean `unavailable`?)",
            "3:47: error[value]: `ok` is no status of HTTP, and no code of gRPC to retry",
            "3:51: error[value]: `14` is not a status such as `200` or a range such as `200-299`",
        ],
    );
    check_pool(
        "servers: [a:1], retries: many, hedge: p95",
        &["3:27: error[type]: expected a whole number from 0 to 100, found the text `many`"],
    );
    check_pool(
        "servers: [a:1], hedge: { after: p95.123, at_least: 0 }",
        &[
            "3:34: error[value]: `p95.123` is not a percentile from `p50` to `p99.99`",
            "3:53: error[value]: a time of 0 would end everything at once (`off`, where it is taken, means no limit)",
        ],
    );
    check_pool(
        "servers: [a:1], hedge: p100",
        &["3:25: error[value]: `p100` is not a percentile from `p50` to `p99.99`"],
    );
    check_pool(
        "servers: [a:1], hedge: { after: p99.9, at_least: 2s, at_most: 1s }",
        &["3:64: error[conflict]: `at_most` is below `at_least`, which is 2s"],
    );
    check_pool(
        "servers: [a:1], hedge: { after: 1s, at_least: 2s, at_most: off }",
        &[
            "3:48: error[conflict]: only with a percentile: this `after` is a time",
            "3:61: error[conflict]: only with a percentile: this `after` is a time",
        ],
    );
}

#[test]
fn what_servers_may_say_of_themselves() {
    check_pool("servers: [a:1], health_check: off, agent_check: 9999", &[]);
    check_pool(
        "servers: [a:1], health_check: { path: /, drain_status: [429, 460-469], drain_header: \"x-drain: true\", maintenance_header: [x-off, \"x-state: off\"] }, agent_check: { port: 1, interval: 1s, timeout: 500ms, send: \"a\\n\" }",
        &[],
    );
    check_pool(
        "servers: [a:1], health_check: { tcp: { drain_status: 429 } }, agent_check: { port: 1, interval: 1ms }",
        &[
            "3:41: error[conflict]: a TCP probe sends nothing: this key is only for HTTP",
            "3:98: error[value]: agents are asked at most every 10ms",
        ],
    );
    check_pool(
        "servers: [\"unix:/s\"], health_check: { drain_header: \"no name: 1\" }, agent_check: { port: 0, intervall: 1s }",
        &[
            "3:54: error[value]: `no name: 1` is not a header such as `x-drain: true` or `x-drain`",
            "3:70: error[conflict]: the server `unix:/s` is a Unix socket, which has no port for an agent",
            "3:91: error[value]: expected a whole number from 1 to 65535",
            "3:94: error[unknown_key]: unknown key `intervall` in `agent_check` (did you mean `interval`?)",
        ],
    );
    check_pool(
        "servers: [a:1], health_check: off, agent_check: on",
        &["3:50: error[type]: expected a port or a map for `agent_check`, found the text `on`"],
    );
}

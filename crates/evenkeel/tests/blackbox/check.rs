//! `evenkeel check`: ten deliberate mistakes are each told at their place; a good config is summed up.

use crate::command::evenkeel_with;

/// A config that is right but for what a test replaces.
const GOOD: &str = r#"listeners:
  web:
    bind: "127.0.0.1:8080"
    routes:
      - match: { path: /api/* }
        pool: api
      - pool: site
pools:
  site:
    servers: ["127.0.0.1:9001", "127.0.0.1:9002"]
  api:
    balance: least_connections
    servers: ["127.0.0.1:9003"]
    health_check: { path: /health, interval: 10s }
"#;

/// Replaces `right` by `wrong` in the good config; `check` must then fail with each of `expected`.
#[track_caller]
fn mistake(right: &str, wrong: &str, expected: &[&str]) {
    assert!(GOOD.contains(right), "{right:?} is not in the config");
    let finished = evenkeel_with(&GOOD.replacen(right, wrong, 1), &["check"]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert_eq!(finished.text(), "", "a summary of what would not run");
    for part in expected {
        assert!(
            finished.stderr.contains(part),
            "{part:?} is not in\n{}",
            finished.stderr
        );
    }
}

#[test]
fn an_unknown_key() {
    mistake(
        "balance:",
        "ballance:",
        &[
            "./evenkeel.yaml:12:5: error[unknown_key]: ",
            "did you mean `balance`?",
            "    ballance: least_connections\n        ^^^^^^^^\n",
            "evenkeel: 1 error\n",
        ],
    );
}

#[test]
fn a_pool_that_is_not_there() {
    mistake(
        "- pool: site",
        "- pool: sites",
        &[
            "./evenkeel.yaml:7:15: error[unknown_name]: there is no pool `sites`\n",
            "did you mean `site`?",
        ],
    );
}

#[test]
fn a_server_without_a_port() {
    mistake(
        "\"127.0.0.1:9003\"",
        "127.0.0.1",
        &[
            "./evenkeel.yaml:13:15: error[address]: `127.0.0.1` has no port\n",
            "write `127.0.0.1:80`",
        ],
    );
}

#[test]
fn a_duration_without_a_unit() {
    mistake(
        "interval: 10s",
        "interval: 10",
        &["./evenkeel.yaml:14:46: error[", "10s"],
    );
}

#[test]
fn a_tab_for_indentation() {
    mistake(
        "    routes:",
        "\troutes:",
        &[
            "./evenkeel.yaml:4:2: error[syntax]: ",
            "indent with spaces, not tabs",
        ],
    );
}

#[test]
fn an_unquoted_bind_that_yaml_takes_for_something_else() {
    mistake(
        "bind: \"127.0.0.1:8080\"",
        "bind: [::1]:8080",
        &["./evenkeel.yaml:3:", "error[", "quote"],
    );
}

#[test]
fn a_key_given_twice() {
    mistake(
        "  api:\n    balance",
        "  site:\n    balance",
        &["./evenkeel.yaml:11:3: error[duplicate]: ", "9:3"],
    );
}

#[test]
fn an_algorithm_that_is_none() {
    mistake(
        "least_connections",
        "least_conections",
        &["./evenkeel.yaml:12:14: error[", "did you mean `least_conn"],
    );
}

#[test]
fn a_pool_without_servers() {
    mistake(
        "[\"127.0.0.1:9003\"]",
        "[]",
        &["./evenkeel.yaml:13:5: error[empty]: the pool `api` has no servers"],
    );
}

#[test]
fn binds_that_would_take_each_others_traffic() {
    mistake(
        "pools:\n",
        "  other: { bind: \":8080\", pool: site }\npools:\n",
        &[
            "./evenkeel.yaml:8:18: error[conflict]: ",
            "evenkeel.yaml:3:11 would take each other's traffic",
        ],
    );
}

#[test]
fn a_capability_of_a_later_version_is_not_silently_ignored() {
    mistake(
        "{ path: /api/* }",
        "{ path: /api/*, body: order }",
        &["./evenkeel.yaml:5:", "not supported by this version"],
    );
}

#[test]
fn a_variable_that_is_not_set() {
    mistake(
        "127.0.0.1:9003",
        "${EVENKEEL_TEST_UNSET}:80",
        &["error[variable]: ", "EVENKEEL_TEST_UNSET"],
    );
}

#[test]
fn a_path_that_no_file_can_be_at() {
    for (keys, place, why) in [
        (
            "state_file: /nonexistent/state.json",
            "1:13",
            "the state file: there is no folder `/nonexistent`",
        ),
        (
            "access_log: { to: /nonexistent/log }",
            "1:19",
            "the access log: there is no folder `/nonexistent`",
        ),
        (
            "access_log: { to: /tmp }",
            "1:19",
            "the access log: `/tmp` is a folder, where a file is expected",
        ),
        (
            "admin: { token_file: /nonexistent/token }",
            "1:22",
            "the token file: cannot read `/nonexistent/token`: there is no such file",
        ),
        (
            "listeners: { web: { bind: 'unix:/nonexistent/web.sock', pool: site } }",
            "1:27",
            "the socket: there is no folder `/nonexistent`",
        ),
    ] {
        let rest = match keys.starts_with("listeners") {
            true => GOOD.split_once("pools:").map_or("", |(_, pools)| pools),
            false => GOOD,
        };
        let pools = if rest == GOOD { "" } else { "pools:" };
        let config = format!("{keys}\n{pools}{rest}");
        let line = format!("./evenkeel.yaml:{place}: error[file]: {why}\n");
        // Who starts it is told the same.
        for command in [["check"].as_slice(), &["run", "evenkeel.yaml"]] {
            let finished = evenkeel_with(&config, command);
            assert_eq!(finished.code, Some(1), "{keys}: {}", finished.stderr);
            let line = match command.len() {
                1 => line.as_str(),
                _ => line.trim_start_matches("./"),
            };
            assert!(
                finished.stderr.contains(line),
                "{line} in\n{}",
                finished.stderr
            );
        }
    }
}

#[test]
fn all_errors_are_told_at_once() {
    let config = GOOD
        .replace("balance:", "ballance:")
        .replace("pool: api", "pool: apis")
        .replace("10s", "ten");
    let finished = evenkeel_with(&config, &["check"]);
    assert!(
        finished.stderr.contains("evenkeel: 3 errors\n"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_good_config_is_summed_up() {
    let finished = evenkeel_with(GOOD, &["check"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(
        finished.text(),
        "\
listeners
  web  127.0.0.1:8080  http
    route 1  path /api/*      -> pool api
    route 2  everything else  -> pool site
pools
  site  power_of_two  TCP only: probed by connect every 10s, timeout 5s
    server  127.0.0.1:9001  weight 1
    server  127.0.0.1:9002  weight 1
  api  least_connections  probed by GET /health every 10s, timeout 5s
    server  127.0.0.1:9003  weight 1
admin       http://127.0.0.1:9900 (default)
access log  off
workers     one for each core
files       ./evenkeel.yaml
"
    );
    assert!(
        finished.stderr.contains("note[tcp_only]"),
        "{}",
        finished.stderr
    );
}

#[test]
fn warnings_are_errors_when_strict() {
    let config = GOOD.replace(
        "pools:\n",
        "pools:\n  unused: { servers: [\"127.0.0.1:1\"], health_check: off }\n",
    );
    let lenient = evenkeel_with(&config, &["check"]);
    assert_eq!(lenient.code, Some(0), "{}", lenient.stderr);
    assert!(
        lenient
            .stderr
            .contains("evenkeel.yaml:9:3: warning[unused]: "),
        "{}",
        lenient.stderr
    );
    let strict = evenkeel_with(&config, &["check", "--strict"]);
    assert_eq!(strict.code, Some(1), "{}", strict.stderr);
    assert!(
        strict.stderr.ends_with("evenkeel: 1 warning\n"),
        "{}",
        strict.stderr
    );
}

#[test]
fn included_files_are_read_in_the_order_of_their_names() {
    let dir = testkit::TempDir::new("include").expect("a folder");
    dir.write(
        "main.yaml",
        "include: conf.d/*.yaml\nlisteners: { web: { bind: \"127.0.0.1:80\", pool: b } }\n",
    )
    .expect("a file");
    dir.write(
        "conf.d/20-b.yaml",
        "pools: { b: { servers: [\"127.0.0.1:2\"] } }",
    )
    .expect("a file");
    dir.write(
        "conf.d/10-a.yaml",
        "pools: { a: { servers: [\"127.0.0.1:1\"] } }",
    )
    .expect("a file");
    dir.write("conf.d/.hidden.yaml", "nonsense")
        .expect("a file");
    let finished = crate::command::evenkeel_in(dir.path(), &["check", "main.yaml"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let last = "files       main.yaml, conf.d/10-a.yaml, conf.d/20-b.yaml\n";
    assert!(finished.text().ends_with(last), "{}", finished.text());
}

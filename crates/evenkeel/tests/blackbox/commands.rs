//! The commands that print something and end, and the exit codes.

use crate::command::{evenkeel_in, evenkeel_with};
use testkit::TempDir;

#[test]
fn a_missing_config_says_where_it_was_looked_for() {
    let dir = TempDir::new("missing").expect("a folder");
    for command in ["check", "run"] {
        let finished = evenkeel_in(dir.path(), &[command]);
        assert_eq!(finished.code, Some(1));
        assert_eq!(
            finished.stderr,
            "evenkeel: no config: looked for ./evenkeel.yaml and /etc/evenkeel/evenkeel.yaml\n"
        );
        let finished = evenkeel_in(dir.path(), &[command, "other.yaml"]);
        assert_eq!(finished.code, Some(1));
        assert_eq!(finished.stderr, "evenkeel: there is no file other.yaml\n");
    }
}

#[test]
fn a_wrong_command_line_is_exit_2() {
    let dir = TempDir::new("usage").expect("a folder");
    for args in [
        &["nonsense"] as &[&str],
        &[],
        &["run", "--nonsense"],
        &["balance", ":8080"],
        &["server", "weight", "pool", "server", "1001"],
        &["completions", "no-shell"],
        &["explain", "GET http://x/", "--from", "nobody"],
    ] {
        let finished = evenkeel_in(dir.path(), args);
        assert_eq!(finished.code, Some(2), "{args:?}: {}", finished.stderr);
    }
}

#[test]
fn an_instance_that_does_not_answer_is_exit_3() {
    let dir = TempDir::new("nobody").expect("a folder");
    let port = testkit::Port::reserve().expect("a port");
    let url = format!("http://{}", port.address());
    for args in [
        &["status"] as &[&str],
        &["reload"],
        &["server", "drain", "p", "s"],
        &["server", "weight", "p", "s", "1"],
    ] {
        let finished = evenkeel_in(dir.path(), &[args, &["--admin", &url]].concat());
        assert_eq!(finished.code, Some(3), "{args:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(&url), "{}", finished.stderr);
    }
    let finished = evenkeel_in(dir.path(), &["status", "--admin", "ftp://x"]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
}

#[test]
fn the_schema_is_json_and_describes_the_top() {
    let dir = TempDir::new("schema").expect("a folder");
    let finished = evenkeel_in(dir.path(), &["schema"]);
    assert_eq!(finished.code, Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&finished.stdout).expect("JSON");
    assert_eq!(
        schema.get("$schema").and_then(|it| it.as_str()),
        Some("https://json-schema.org/draft/2020-12/schema")
    );
    let text = finished.text();
    assert!(text.contains("\"listeners\"") && text.contains("\"pools\""));
}

#[test]
fn completions_for_each_shell() {
    let dir = TempDir::new("completions").expect("a folder");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let finished = evenkeel_in(dir.path(), &["completions", shell]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert!(finished.text().contains("evenkeel"), "{shell}");
    }
}

#[test]
fn the_reference_is_printed_for_the_documentation() {
    let dir = TempDir::new("reference").expect("a folder");
    let finished = evenkeel_in(dir.path(), &["reference-config"]);
    assert_eq!(finished.code, Some(0));
    assert!(
        finished.text().contains("| `listeners` |"),
        "{}",
        finished.text()
    );
}

#[test]
fn the_config_of_a_command_line_can_be_kept() {
    let dir = TempDir::new("balance").expect("a folder");
    let args = [
        "balance",
        ":8080",
        "127.0.0.1:9001",
        "127.0.0.1:9002",
        "--algorithm",
        "round_robin",
        "--health-path",
        "/health",
        "--print-config",
    ];
    let finished = evenkeel_in(dir.path(), &args);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(
        finished.text(),
        "\
listeners:
  main:
    bind: \":8080\"
    pool: servers
pools:
  servers:
    balance: round_robin
    health_check: { path: \"/health\" }
    servers:
      - 127.0.0.1:9001
      - 127.0.0.1:9002
"
    );
    let checked = evenkeel_with(&finished.text(), &["check", "--strict"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
}

#[test]
fn what_is_wrong_on_the_command_line_is_told_like_an_error_of_a_file() {
    let dir = TempDir::new("balance").expect("a folder");
    for more in [&["--print-config"] as &[&str], &[]] {
        let finished = evenkeel_in(
            dir.path(),
            &[&["balance", ":8080", "127.0.0.1"], more].concat(),
        );
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        let expected = "(command line):8:9: error[address]: `127.0.0.1` has no port\n";
        assert!(finished.stderr.contains(expected), "{}", finished.stderr);
        assert_eq!(finished.text(), "");
    }
}

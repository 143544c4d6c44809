//! The life of a process: start, reload, end. Traffic has its own modules.

use std::net::TcpListener;
use std::time::Duration;

use testkit::{Evenkeel, Finished, Raw, Signal};

use crate::command::{BINARY, evenkeel_in};

const SOON: Duration = Duration::from_secs(10);

/// A listener whose route answers by itself, so that no server is needed.
fn config(body: &str) -> String {
    format!(
        r#"
admin: {{ bind: "127.0.0.1:0" }}
listeners:
  web:
    bind: "127.0.0.1:0"
    routes:
      - {{ match: {{ path: /hello }}, filters: [{{ respond: {{ status: 200, body: "{body}" }} }}] }}
      - {{ match: {{ path: /pool }}, pool: site }}
pools:
  site: {{ servers: ["127.0.0.1:1"], health_check: off }}
"#
    )
}

fn start(config: &str) -> Evenkeel {
    Evenkeel::start(BINARY, config).expect("evenkeel starts")
}

fn hello(evenkeel: &Evenkeel) -> String {
    let address = evenkeel.address("web").expect("an address");
    let mut client = Raw::connect(address).expect("a connection");
    client.get("/hello").expect("an answer").text()
}

/// A command that talks to the instance.
fn ask(evenkeel: &Evenkeel, args: &[&str]) -> Finished {
    let url = evenkeel.admin_url().expect("an admin address");
    evenkeel_in(evenkeel.dir().path(), &[args, &["--admin", &url]].concat())
}

#[test]
fn it_starts_serves_and_ends() {
    let mut evenkeel = start(&config("one"));
    assert_eq!(hello(&evenkeel), "one");
    evenkeel.stop(SOON).expect("exit 0");
    evenkeel
        .wait_log("stopped: 0 requests cut", SOON)
        .expect("the last line");
}

#[test]
fn logs_are_json_unless_asked_otherwise() {
    let mut json = start(&config("one"));
    json.stop(SOON).expect("exit 0");
    for line in json.log_lines() {
        let parsed: serde_json::Value = serde_json::from_str(&line).expect(&line);
        assert!(
            parsed.get("message").is_some() && parsed.get("level").is_some(),
            "{line}"
        );
    }
    let text = Evenkeel::start_with(BINARY, &config("one"), |command| {
        command.env("EVENKEEL_LOG", "text");
    })
    .expect("evenkeel starts");
    let address = text.address("web").expect("an address");
    assert!(text.log_contains(&format!("INFO listening listener=web address={address}")));
    assert!(!text.log_contains("\x1b"), "colours without a terminal");
}

#[test]
fn a_reload_takes_up_what_changed_and_a_bad_one_changes_nothing() {
    let mut evenkeel = start(&config("one"));
    evenkeel
        .write_config(&config("two").replace("/pool", "/other"))
        .expect("written");
    let mark = evenkeel.mark();
    evenkeel.signal(Signal::HUP).expect("a signal");
    evenkeel
        .wait_log_after(mark, "\"message\":\"reloaded: ", SOON)
        .expect("a reload");
    assert_eq!(hello(&evenkeel), "two");

    evenkeel
        .write_config(&config("three").replace("pool: site", "pool: sight"))
        .expect("written");
    let finished = ask(&evenkeel, &["reload"]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("there is no pool `sight`"),
        "{}",
        finished.stderr
    );
    assert!(
        finished.stderr.contains("evenkeel.yaml:8:"),
        "{}",
        finished.stderr
    );
    assert_eq!(finished.text(), "not reloaded: nothing has changed\n");
    assert_eq!(hello(&evenkeel), "two");

    evenkeel.write_config(&config("three")).expect("written");
    let finished = ask(&evenkeel, &["reload"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(
        finished.text().starts_with("reloaded: "),
        "{}",
        finished.text()
    );
    assert_eq!(hello(&evenkeel), "three");
}

#[test]
fn a_reload_whose_port_is_taken_changes_nothing() {
    let evenkeel = start(&config("one"));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let more = format!("listeners:\n  more: {{ bind: \"{address}\", pool: site }}");
    evenkeel
        .write_config(&config("two").replace("listeners:", &more))
        .expect("written");
    let finished = ask(&evenkeel, &["reload"]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    for part in [address.to_string(), format!("(pid {})", std::process::id())] {
        assert!(
            finished.stderr.contains(&part),
            "{part} in {}",
            finished.stderr
        );
    }
    assert_eq!(hello(&evenkeel), "one");
}

#[test]
fn a_changed_file_is_taken_up_when_watched() {
    let mut evenkeel = Evenkeel::start_with(BINARY, &config("one"), |command| {
        command.arg("--watch");
    })
    .expect("evenkeel starts");
    evenkeel.write_config(&config("two")).expect("written");
    evenkeel
        .wait_log("\"message\":\"reloaded: ", SOON)
        .expect("a reload");
    assert_eq!(hello(&evenkeel), "two");
}

#[test]
fn many_reloads_at_once_become_few() {
    let mut evenkeel = start(&config("one"));
    for _ in 0..50 {
        evenkeel.signal(Signal::HUP).expect("a signal");
    }
    let finished = ask(&evenkeel, &["reload"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(hello(&evenkeel), "one");
    evenkeel.stop(SOON).expect("exit 0");
}

#[test]
fn a_taken_port_at_the_start_is_exit_3_and_names_its_owner() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let listener = config("one").replace(
        "bind: \"127.0.0.1:0\"\n    routes",
        &format!("bind: \"{address}\"\n    routes"),
    );
    let admin = config("one").replace(
        "{ bind: \"127.0.0.1:0\" }",
        &format!("{{ bind: \"{address}\" }}"),
    );
    for text in [listener, admin] {
        let mut evenkeel = Evenkeel::launch(BINARY, &text, |_| {}).expect("a process");
        let status = evenkeel.wait_exit(SOON).expect("an end");
        assert_eq!(status.code(), Some(3), "{}", evenkeel.log());
        let owner = format!("(pid {}) listens there", std::process::id());
        evenkeel.wait_log(&owner, SOON).expect("the owner");
        evenkeel
            .wait_log(&address.to_string(), SOON)
            .expect("the address");
    }
}

/// A path may be mistyped: what is there and is no socket is somebody's.
#[test]
fn a_file_where_a_unix_socket_is_to_be_is_left_alone() {
    let evenkeel = start(&config("one"));
    let path = evenkeel.dir().path().join("orders.db");
    std::fs::write(&path, "precious").expect("written");
    let bind = format!("bind: [\"127.0.0.1:0\", \"unix:{}\"]", path.display());
    let changed = config("two").replace("bind: \"127.0.0.1:0\"\n", &format!("{bind}\n"));
    evenkeel.write_config(&changed).expect("written");
    let finished = ask(&evenkeel, &["reload"]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let why = "a file that is no socket is there";
    assert!(finished.stderr.contains(why), "{}", finished.stderr);
    assert_eq!(hello(&evenkeel), "one");

    let mut second = Evenkeel::launch(BINARY, &changed, |_| {}).expect("a process");
    let status = second.wait_exit(SOON).expect("an end");
    assert_eq!(status.code(), Some(3), "{}", second.log());
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), "precious");
}

#[test]
fn away_from_loopback_the_admin_listener_wants_a_token() {
    let open = config("one").replace("127.0.0.1:0\" }\nlisteners", "0.0.0.0:0\" }\nlisteners");
    let mut evenkeel = Evenkeel::launch(BINARY, &open, |_| {}).expect("a process");
    let status = evenkeel.wait_exit(SOON).expect("an end");
    assert_eq!(status.code(), Some(1), "{}", evenkeel.log());

    let missing = open.replace(
        "0.0.0.0:0\" }",
        "0.0.0.0:0\", token_file: /nonexistent/token }",
    );
    let mut evenkeel = Evenkeel::launch(BINARY, &missing, |_| {}).expect("a process");
    let status = evenkeel.wait_exit(SOON).expect("an end");
    assert_eq!(status.code(), Some(1), "{}", evenkeel.log());
    evenkeel
        .wait_log("/nonexistent/token", SOON)
        .expect("the path");
}

#[test]
fn servers_are_shown_and_changed_at_run_time() {
    let evenkeel = start(&config("one"));
    let server = ["site", "127.0.0.1:1"];
    let finished = ask(
        &evenkeel,
        &[&["server", "weight"], &server[..], &["7"]].concat(),
    );
    assert_eq!(
        finished.text(),
        "127.0.0.1:1: ready, weight 7, 0 in use\n",
        "{}",
        finished.stderr
    );
    let finished = ask(&evenkeel, &[&["server", "drain"], &server[..]].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(
        finished
            .text()
            .contains("0 new picks, 0 by affinity, 0 finished, 0 cut"),
        "{}",
        finished.text()
    );
    let finished = ask(&evenkeel, &["status"]);
    assert!(
        finished
            .text()
            .contains("site  127.0.0.1:1  127.0.0.1:1  drain"),
        "{}",
        finished.text()
    );
    let finished = ask(&evenkeel, &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&finished.stdout).expect("JSON");
    assert_eq!(json.pointer("/pools/0/servers/0/weight"), Some(&7.into()));
    let finished = ask(&evenkeel, &[&["server", "enable"], &server[..]].concat());
    assert_eq!(finished.text(), "127.0.0.1:1: ready, weight 7, 0 in use\n");
    let finished = ask(&evenkeel, &["server", "disable", "site", "nobody"]);
    assert_eq!(finished.code, Some(1));
    assert!(
        finished
            .stderr
            .contains("no server `nobody` in pool `site`"),
        "{}",
        finished.stderr
    );
}

#[test]
fn answers_made_here_are_logged_ten_a_second_at_most() {
    let mut evenkeel = start(&config("one"));
    let mut client = Raw::connect(evenkeel.address("web").expect("an address")).expect("connected");
    for _ in 0..40 {
        assert_eq!(client.get("/nowhere").expect("an answer").status, 404);
    }
    let line = evenkeel.wait_log("were not logged", SOON).expect("a count");
    assert!(line.contains("\"reason\":\"no_route\""), "{line}");
    let told = evenkeel.log_lines();
    let told = told
        .iter()
        .filter(|line| line.contains("answered here"))
        .count();
    assert!((10..40).contains(&told), "{told} lines");
}

#[test]
fn the_access_log_goes_to_a_file_that_a_reload_opens_again() {
    let text = format!(
        "access_log: {{ to: access.log, format: common }}\n{}",
        config("one")
    );
    let evenkeel = start(&text);
    let log = evenkeel.dir().path().join("access.log");
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    hello(&evenkeel);
    testkit::wait_until("a line", SOON, || {
        lines(&log).contains("\"GET /hello HTTP/1.1\" 200 ")
    })
    .expect("a line");
    let moved = log.with_extension("old");
    std::fs::rename(&log, &moved).expect("renamed");
    assert_eq!(ask(&evenkeel, &["reload"]).code, Some(0));
    hello(&evenkeel);
    testkit::wait_until("a line in the new file", SOON, || {
        lines(&log).contains("GET /hello")
    })
    .expect("a line in the new file");
    assert_eq!(lines(&moved).lines().count(), 1);
}

#[test]
fn an_idle_connection_has_one_more_request_at_the_end() {
    let text = format!(
        "shutdown: {{ idle_wait: 3s, timeout: 20s }}\n{}",
        config("one")
    );
    let mut evenkeel = start(&text);
    let mut client = Raw::connect(evenkeel.address("web").expect("an address")).expect("connected");
    assert_eq!(client.get("/hello").expect("an answer").text(), "one");
    evenkeel.signal(Signal::TERM).expect("a signal");
    evenkeel
        .wait_log("stopping", SOON)
        .expect("the beginning of the end");
    testkit::wait_until("the listener is closed", SOON, || {
        Raw::connect(evenkeel.address("web").expect("an address")).is_err()
    })
    .expect("the listener is closed");
    let last = client.get("/hello").expect("one more answer");
    assert_eq!(last.text(), "one");
    assert!(last.closes(), "{last}");
    client.expect_close().expect("closed");
    let status = evenkeel.wait_exit(SOON).expect("an end");
    assert_eq!(status.code(), Some(0));
    evenkeel
        .wait_log("stopped: 0 requests cut", SOON)
        .expect("the last line");
}

#[test]
fn the_process_says_that_it_drains_and_a_second_signal_ends_at_once() {
    let text = format!("shutdown: {{ delay: 1m }}\n{}", config("one"));
    let mut evenkeel = start(&text);
    evenkeel.signal(Signal::TERM).expect("a signal");
    evenkeel
        .wait_log("stopping", SOON)
        .expect("the beginning of the end");
    assert_eq!(
        hello(&evenkeel),
        "one",
        "accepting goes on during the delay"
    );
    let mut admin = Raw::connect(evenkeel.admin().expect("an admin address")).expect("connected");
    let health = admin.get("/health").expect("an answer");
    assert_eq!(health.status, 503);
    assert!(health.text().contains("draining"), "{health}");
    // The client has its answer a moment before the request counts as ended.
    testkit::wait_until("nothing is being served", SOON, || {
        crate::life_support::metric(&evenkeel, "evenkeel_requests_in_flight") == 0.0
    })
    .expect("the request ends");
    evenkeel.signal(Signal::TERM).expect("a signal");
    let status = evenkeel.wait_exit(SOON).expect("an end");
    assert_eq!(status.code(), Some(1));
    evenkeel
        .wait_log("stopped at once: 0 requests cut", SOON)
        .expect("the last line");
}

#[test]
fn a_command_line_is_enough_to_balance() {
    let port = testkit::Port::reserve().expect("a port");
    let listen = port.address().to_string();
    let mut command = std::process::Command::new(BINARY);
    command
        .args(["balance", &listen, "127.0.0.1:1"])
        .env("EVENKEEL_LOG", "text");
    // The reservation is a bound socket, which our own probe for foreign owners would meet.
    drop(port);
    let mut process = testkit::Process::spawn("evenkeel", command).expect("a process");
    process.wait_log("listener=main", SOON).expect("listening");
    let mut client = Raw::connect(listen.parse().expect("an address")).expect("connected");
    assert_eq!(client.get("/").expect("an answer").status, 502);
    process.signal(Signal::INT).expect("a signal");
    assert_eq!(process.wait_exit(SOON).expect("an end").code(), Some(0));
}

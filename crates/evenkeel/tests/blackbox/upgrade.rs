//! Upgrades in place: the listening sockets, what is known and the traffic go from one process to the next.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::{Evenkeel, Foreign, Load, Mark, Origin, Signal, missing, reply, wait_until};

use crate::command::BINARY;
use crate::life_support::{
    SOON, ask, assert_metric, assert_no_total_fell, connect, metric, nginxes, server, site, start,
    totals, wait_all, web,
};

/// Waits for the word that another process serves, and gives it: it ends with its value.
fn successor(evenkeel: &mut Evenkeel, mark: Mark) -> Foreign {
    let line = evenkeel
        .wait_log_after(mark, "this one drains", SOON)
        .expect("a line");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let pid = line.get("pid").and_then(serde_json::Value::as_u64);
    Foreign::new(u32::try_from(pid.expect("a pid")).expect("a pid")).expect("it runs")
}

pub(crate) fn upgrade(evenkeel: &mut Evenkeel, more: &[&str]) -> Foreign {
    let mark = evenkeel.mark();
    let finished = ask(evenkeel, &[&["upgrade"], more].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    successor(evenkeel, mark)
}

fn wait_drained(evenkeel: &mut Evenkeel, mark: Mark) {
    evenkeel
        .wait_log_after(mark, "the process before this one has drained", SOON)
        .expect("a line");
}

#[test]
fn five_upgrades_in_a_row_lose_nothing() {
    if missing("nginx") {
        return;
    }
    let servers = nginxes(["a", "b"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let mut evenkeel = start(&site(&addresses, ""));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = Load::to(web(&evenkeel)).clients(12).start();
    let mut newest: Vec<Foreign> = Vec::new();
    for turn in 0..5 {
        load.wait_ok(300, SOON).expect("traffic");
        let before = totals(&evenkeel);
        let mark = evenkeel.mark();
        newest.push(match turn % 2 {
            0 => upgrade(&mut evenkeel, &[]),
            _ => {
                match newest.last() {
                    Some(newest) => newest.signal(Signal::USR2).expect("a signal"),
                    None => evenkeel.signal(Signal::USR2).expect("a signal"),
                }
                successor(&mut evenkeel, mark)
            }
        });
        for address in &addresses {
            let server = server(&evenkeel, "site", &address.to_string());
            assert_eq!(server.get("health"), Some(&"healthy".into()), "{server}");
        }
        assert_no_total_fell(&evenkeel, &before);
        wait_drained(&mut evenkeel, mark);
        assert_no_total_fell(&evenkeel, &before);
    }
    load.wait_ok(300, SOON).expect("traffic");
    let report = load.stop();
    report.assert_none_failed();
    assert_eq!(evenkeel.wait_exit(SOON).expect("an end").code(), Some(0));
    for process in newest.iter().take(4) {
        process.wait_end(SOON).expect("an end");
    }
    // Every request of every process was counted, and told to the last one.
    wait_until("all are counted", SOON, || {
        metric(&evenkeel, "evenkeel_requests_total{") >= report.ok as f64
    })
    .expect("all are counted");
    assert_metric(&evenkeel, "evenkeel_requests_total{", report.ok as f64);
    println!(
        "{} requests over five upgrades, {} lost",
        report.ok, report.failed
    );
}

/// The process that goes answers whoever had connected to its admin listener.
#[test]
fn a_unix_socket_stays_with_the_process_that_goes_on() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let dir = testkit::TempDir::new("upgrade-unix").expect("a folder");
    let path = dir.path().join("web.sock");
    let with = |binds: &str| {
        let bind = format!("bind: ['127.0.0.1:0', 'unix:{}'{binds}]", path.display());
        site(&[origin.address()], "").replacen(
            "bind: '127.0.0.1:0', pool",
            &format!("{bind}, pool"),
            1,
        )
    };
    let ask_it = || {
        use std::io::{Read as _, Write as _};
        let mut client = std::os::unix::net::UnixStream::connect(&path).expect("a connection");
        let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        client.write_all(request).expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    let mut evenkeel = start(&with(""));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    ask_it();
    // The new process adopts the path, and cannot have the other address.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let other = format!(", '{}'", taken.local_addr().expect("an address"));
    evenkeel.write_config(&with(&other)).expect("written");
    let failed = ask(&evenkeel, &["upgrade"]);
    assert_eq!(failed.code, Some(1), "{}", failed.text());
    ask_it();
    // Nor does the old one take it along when the new one serves.
    evenkeel.write_config(&with("")).expect("written");
    let mark = evenkeel.mark();
    let newest = upgrade(&mut evenkeel, &[]);
    wait_drained(&mut evenkeel, mark);
    ask_it();
    newest.signal(Signal::TERM).expect("a signal");
    wait_until("the path is gone", SOON, || !path.exists()).expect("the path is gone");
}

#[test]
fn an_admin_connection_is_answered_across_an_upgrade() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let mut evenkeel = start(&site(&[origin.address()], ""));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let admin = evenkeel.admin().expect("an admin address");
    let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (mut fresh, mut used) = (connect(admin), connect(admin));
    // Accepted in turn: when the second is answered, the first is accepted.
    let answer = used.exchange(request).expect("an answer");
    assert!(!answer.closes(), "{answer}");
    let mark = evenkeel.mark();
    evenkeel.signal(Signal::USR2).expect("a signal");
    let _newest = successor(&mut evenkeel, mark);
    for client in [&mut fresh, &mut used] {
        let answer = client.exchange(request).expect("an answer");
        assert_eq!(answer.status, 200, "{answer}");
        assert!(answer.closes(), "{answer}");
    }
    wait_drained(&mut evenkeel, mark);
    assert_eq!(evenkeel.wait_exit(SOON).expect("an end").code(), Some(0));
}

/// A copy of the binary that a test may break.
pub(crate) fn own_binary(evenkeel: &Path) -> PathBuf {
    let path = evenkeel.join("evenkeel");
    std::fs::copy(BINARY, &path).expect("a copy");
    path
}

pub(crate) fn put(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("written");
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755)).expect("set");
    std::fs::rename(&beside, path).expect("renamed");
}

#[test]
fn what_cannot_take_over_changes_nothing_and_says_why() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let good = site(&[origin.address()], "");
    let dir = testkit::TempDir::new("binary").expect("a folder");
    let binary = own_binary(dir.path());
    let mut evenkeel = Evenkeel::start(&binary, &good).expect("evenkeel starts");
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let load = Load::to(web(&evenkeel)).clients(4).start();
    let mut kept = connect(web(&evenkeel));
    let mut check = |said: &str, more: &[&str]| {
        let mark = evenkeel.mark();
        let finished = ask(&evenkeel, &[&["upgrade"], more].concat());
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        assert!(
            finished.stderr.contains(said),
            "{said}: {}",
            finished.stderr
        );
        evenkeel
            .wait_log_after(mark, "not upgraded: this process goes on", SOON)
            .expect("a line");
        let answer = kept.get("/").expect("an answer");
        assert!(!answer.closes(), "{answer}");
        load.wait_ok(20, SOON).expect("traffic");
    };
    check(
        "before it was ready: exit status: 1",
        &["--binary", "/bin/false"],
    );
    check("No such file", &["--binary", "/nonexistent/evenkeel"]);
    put(&binary, "not a program");
    check("cannot be started", &[]);
    put(&binary, "#!/bin/sh\nkill -SEGV $$\n");
    check("signal: 11", &[]);
    put(&binary, "#!/bin/sh\nexec sleep 100\n");
    check("was not ready within 0.5 s", &["--timeout", "500ms"]);
    std::fs::remove_file(&binary).expect("removed");
    check("No such file", &[]);
    std::fs::copy(BINARY, &binary).expect("a copy");

    for (config, said) in [
        (
            good.replace("pool: site", "pool: sight"),
            "there is no pool `sight`",
        ),
        (
            good.replace(
                "shutdown:",
                "access_log: { to: /nonexistent/log }\nshutdown:",
            ),
            "/nonexistent/log",
        ),
        (
            good.replace(
                "listeners:",
                &format!(
                    "listeners:\n  more: {{ bind: '{}', pool: site }}",
                    origin.address()
                ),
            ),
            "cannot bind",
        ),
    ] {
        evenkeel.write_config(&config).expect("written");
        let mark = evenkeel.mark();
        let finished = ask(&evenkeel, &["upgrade"]);
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        assert!(finished.stderr.contains(said), "{}", finished.stderr);
        evenkeel
            .wait_log_after(mark, "not upgraded: this process goes on", SOON)
            .expect("a line");
        assert_eq!(kept.get("/").expect("an answer").text(), "here");
    }
    evenkeel.write_config(&good).expect("written");
    let newest = upgrade(&mut evenkeel, &[]);
    load.wait_ok(50, SOON).expect("traffic");
    load.stop().assert_none_failed();
    newest.signal(Signal::TERM).expect("a signal");
    newest.wait_end(SOON).expect("an end");
}

/// A config that is read from a pipe: the new process waits there until somebody writes.
fn stuck(evenkeel: &Evenkeel, config: &str) {
    let pipe = evenkeel.dir().path().join("more.yaml");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    evenkeel
        .write_config(&format!("{config}include: more.yaml\n"))
        .expect("written");
}

fn starting(evenkeel: &mut Evenkeel, mark: Mark) -> Foreign {
    let line = evenkeel
        .wait_log_after(mark, "\"successor\":", SOON)
        .expect("a line");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let pid = line.get("successor").and_then(serde_json::Value::as_u64);
    Foreign::new(u32::try_from(pid.expect("a pid")).expect("a pid")).expect("it runs")
}

#[test]
fn a_new_process_that_is_killed_before_it_is_ready_is_not_missed() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let config = site(&[origin.address()], "");
    let mut evenkeel = start(&config);
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let load = Load::to(web(&evenkeel)).clients(4).start();
    stuck(&evenkeel, &config);
    for (signal, said) in [(Signal::KILL, "signal: 9"), (Signal::TERM, "signal: 15")] {
        let mark = evenkeel.mark();
        evenkeel.signal(Signal::USR2).expect("a signal");
        let new = starting(&mut evenkeel, mark);
        // While it starts, no other one may, and nothing is reloaded.
        let finished = ask(&evenkeel, &["upgrade"]);
        assert_eq!(finished.code, Some(1));
        assert!(finished.stderr.contains("under way"), "{}", finished.stderr);
        assert_eq!(ask(&evenkeel, &["reload"]).code, Some(1));
        load.wait_ok(50, SOON).expect("traffic");
        new.signal(signal).expect("a signal");
        evenkeel.wait_log_after(mark, said, SOON).expect("a line");
        evenkeel
            .wait_log_after(mark, "not upgraded: this process goes on", SOON)
            .expect("a line");
    }
    load.wait_ok(50, SOON).expect("traffic");
    load.stop().assert_none_failed();
}

#[test]
fn the_end_during_an_upgrade_ends_both_and_cuts_nothing() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let config = site(&[origin.address()], "");
    let mut evenkeel = start(&config);
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let load = Load::to(web(&evenkeel)).clients(4).end_at_close().start();
    stuck(&evenkeel, &config);
    let mark = evenkeel.mark();
    evenkeel.signal(Signal::USR2).expect("a signal");
    let new = starting(&mut evenkeel, mark);
    load.wait_ok(50, SOON).expect("traffic");
    evenkeel.signal(Signal::TERM).expect("a signal");
    load.wait_ended(SOON)
        .expect("told to go")
        .assert_none_failed();
    assert_eq!(evenkeel.wait_exit(SOON).expect("an end").code(), Some(0));
    new.wait_end(SOON).expect("an end");
}

#[test]
fn words_weights_and_counts_of_workers_go_with_it() {
    let origins: Vec<Origin> = (0..3)
        .map(|_| Origin::http(|_| reply(200, "here")).expect("an origin"))
        .collect();
    let addresses: Vec<SocketAddr> = origins.iter().map(Origin::address).collect();
    let workers = |count: usize| format!("workers: {count}\n{}", site(&addresses, ""));
    let mut evenkeel = start(&workers(3));
    wait_all(&evenkeel, &addresses, "healthy");
    let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    for args in [
        ["server", "drain", "site", &names[0], "--timeout=1s"],
        ["server", "weight", "site", &names[1], "7"],
    ] {
        assert_eq!(ask(&evenkeel, &args).code, Some(0));
    }
    let load = Load::to(web(&evenkeel)).clients(8).start();
    let mut newest = Vec::new();
    for count in [1, 5, 2] {
        evenkeel.write_config(&workers(count)).expect("written");
        let mark = evenkeel.mark();
        newest.push(upgrade(&mut evenkeel, &[]));
        wait_drained(&mut evenkeel, mark);
        assert_metric(&evenkeel, "evenkeel_workers", count as f64);
        let drained = server(&evenkeel, "site", &names[0]);
        assert_eq!(drained.get("state"), Some(&"drain".into()), "{drained}");
        let heavy = server(&evenkeel, "site", &names[1]);
        assert_eq!(heavy.get("weight"), Some(&7.into()), "{heavy}");
        // Connections enough to reach every socket of the group.
        for _ in 0..40 {
            let answer = connect(web(&evenkeel)).get("/").expect("an answer");
            assert_eq!(answer.text(), "here");
        }
        load.wait_ok(50, SOON).expect("traffic");
    }
    load.stop().assert_none_failed();
    let before = origins[0].requests();
    let targets = || {
        origins[0]
            .seen()
            .iter()
            .filter(|it| it.target == "/")
            .count()
    };
    assert_eq!(
        targets(),
        0,
        "a drained server was picked ({before} requests)"
    );
}

#[test]
fn a_web_socket_outlives_an_upgrade_until_the_deadline() {
    let origin = Origin::start(|conn| {
        while let Some(request) = conn.read_request()? {
            if request.header("upgrade").is_none() {
                conn.write(reply(200, "plain"))?;
                continue;
            }
            conn.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")?;
            loop {
                let ping = conn.read_exactly(4)?;
                conn.write(ping)?;
            }
        }
        Ok(())
    });
    let origin = origin.expect("an origin");
    let config = site(&[origin.address()], "")
        .replace("pool: site", "upgrades: [websocket], pool: site")
        .replace("timeout: 10s", "timeout: 3s");
    let mut evenkeel = start(&config);
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut socket = connect(web(&evenkeel));
    let answer = socket.exchange(
        "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
    );
    assert_eq!(answer.expect("an answer").status, 101);
    let mut idle = connect(web(&evenkeel));
    assert_eq!(idle.get("/").expect("an answer").text(), "plain");
    let mark = evenkeel.mark();
    let newest = upgrade(&mut evenkeel, &[]);
    for word in ["one.", "two."] {
        socket.send(word).expect("sent");
        assert_eq!(socket.read_exactly(4).expect("an echo"), word.as_bytes());
    }
    // A connection that waited has one more request, and is told to go.
    let answer = idle.get("/").expect("an answer");
    assert!(answer.closes(), "{answer}");
    // A second upgrade waits for the end of the first.
    let finished = ask(&evenkeel, &["upgrade"]);
    assert_eq!(finished.code, Some(1));
    assert!(
        finished.stderr.contains("still drains"),
        "{}",
        finished.stderr
    );
    newest.signal(Signal::USR2).expect("a signal");
    evenkeel
        .wait_log_after(mark, "not upgraded: this process goes on", SOON)
        .expect("a line");
    assert_eq!(evenkeel.wait_exit(SOON).expect("an end").code(), Some(0));
    evenkeel
        .wait_log_after(mark, "stopped: 1 request cut", Duration::from_secs(5))
        .expect("a line");
    wait_drained(&mut evenkeel, mark);
    let answer = connect(web(&evenkeel)).get("/").expect("an answer");
    assert_eq!(answer.text(), "plain");
}

//! As process 1 of a container: upgrades, signals and ends. `unshare` stands for the container.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::{Evenkeel, Foreign, Load, Origin, Signal, missing, reply, wait_until};

use crate::command::BINARY;
use crate::life_support::{SOON, ask, connect, reload, site, wait_all, web};

/// Whether there can be a process 1 here; says so if not.
fn impossible() -> bool {
    if missing("unshare") {
        return true;
    }
    let tried = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "true"])
        .output()
        .expect("unshare starts");
    if tried.status.success() {
        return false;
    }
    let why = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "no process 1 can be made here, and with CI=true no test is skipped: {why}"
    );
    let line = format!("\nSKIPPED: no process 1 can be made here (root is needed): {why}\n");
    std::io::stderr().write_all(line.as_bytes()).ok();
    true
}

/// Evenkeel as process 1, and that process as it is known outside.
fn contained(config: &str) -> (Evenkeel, Foreign) {
    let evenkeel = Evenkeel::start_with(BINARY, config, |command| {
        let mut outer = Command::new("unshare");
        outer.args([
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child=KILL",
            BINARY,
        ]);
        outer.args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            outer.current_dir(folder);
        }
        *command = outer;
    })
    .expect("evenkeel starts");
    let first = children(evenkeel.pid());
    assert_eq!(first.len(), 1, "{first:?}");
    let parent = Foreign::new(first[0]).expect("it runs");
    (evenkeel, parent)
}

/// The processes that a process has started, or that have come to it since.
fn children(of: u32) -> Vec<u32> {
    let parent_of = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
        // The name, in brackets, may hold anything.
        let stat = stat.ok()?;
        let rest = stat.rsplit_once(')')?.1;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        fields.next()?.parse().ok().filter(|_| state != "Z")
    };
    let all = std::fs::read_dir("/proc").expect("/proc");
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found: Vec<u32> = pids.filter(|pid| parent_of(*pid) == Some(of)).collect();
    found.sort_unstable();
    found
}

fn wait_children(parent: &Foreign, count: usize) {
    wait_until(&format!("process 1 has {count} children"), SOON, || {
        children(parent.pid()).len() == count
    })
    .expect("children");
}

#[test]
fn process_1_stays_over_upgrades_and_ends_with_who_serves() {
    if impossible() {
        return;
    }
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let config = site(&[origin.address()], "");
    let (mut evenkeel, parent) = contained(&config);
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let load = Load::to(web(&evenkeel)).clients(6).start();
    let mut serving = children(parent.pid());
    assert_eq!(serving.len(), 1, "{serving:?}");
    for turn in 0..3 {
        load.wait_ok(100, SOON).expect("traffic");
        let mark = evenkeel.mark();
        if turn % 2 == 0 {
            let finished = ask(&evenkeel, &["upgrade"]);
            assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        } else {
            parent.signal(Signal::USR2).expect("a signal");
        }
        evenkeel
            .wait_log_after(mark, "the process before this one has drained", SOON)
            .expect("a line");
        evenkeel
            .wait_log_after(mark, "serves now", SOON)
            .expect("process 1 follows");
        // The old one is reaped, and the new one is process 1's.
        wait_until("one process serves, another than before", SOON, || {
            let now = children(parent.pid());
            now.len() == 1 && now != serving
        })
        .expect("another process");
        serving = children(parent.pid());
    }
    // What process 1 is told reaches who serves now.
    let mark = evenkeel.mark();
    parent.signal(Signal::HUP).expect("a signal");
    evenkeel
        .wait_log_after(mark, "reloaded", SOON)
        .expect("a reload");
    load.wait_ok(100, SOON).expect("traffic");
    load.stop().assert_none_failed();
    parent.signal(Signal::TERM).expect("a signal");
    assert_eq!(evenkeel.wait_exit(SOON).expect("an end").code(), Some(0));
}

#[test]
fn the_end_reaches_the_new_process_while_the_old_one_drains() {
    if impossible() {
        return;
    }
    // An answer that takes its time keeps the old process draining.
    let origin = Origin::http(|request| {
        if request.target == "/slow" {
            std::thread::sleep(Duration::from_secs(3));
        }
        reply(200, "here")
    })
    .expect("an origin");
    let config = site(&[origin.address()], "");
    let (mut evenkeel, parent) = contained(&config);
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let address = web(&evenkeel);
    let slow = std::thread::spawn(move || connect(address).get("/slow").expect("an answer"));
    wait_until("it is being served", SOON, || {
        origin.seen().iter().any(|it| it.target == "/slow")
    })
    .expect("it is being served");
    let mark = evenkeel.mark();
    let finished = ask(&evenkeel, &["upgrade"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    evenkeel
        .wait_log_after(mark, "serves now", SOON)
        .expect("process 1 follows");
    parent.signal(Signal::TERM).expect("a signal");
    assert_eq!(slow.join().expect("no panic").text(), "here");
    assert_eq!(evenkeel.wait_exit(SOON).expect("an end").code(), Some(0));
}

#[test]
fn the_death_of_who_serves_and_a_config_that_is_wrong_are_the_containers() {
    if impossible() {
        return;
    }
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let config = site(&[origin.address()], "");
    let (mut evenkeel, parent) = contained(&config);
    wait_children(&parent, 1);
    // A new process that fails leaves the one that serves in charge, and no zombie.
    evenkeel
        .write_config(&config.replace("pool: site", "pool: sight"))
        .expect("written");
    let finished = ask(&evenkeel, &["upgrade"]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    evenkeel.write_config(&config).expect("written");
    let said = reload(&evenkeel, &config);
    assert!(said.contains("reloaded"), "{said}");
    let serves = Foreign::new(children(parent.pid())[0]).expect("it runs");
    serves.signal(Signal::KILL).expect("a signal");
    assert_eq!(evenkeel.wait_exit(SOON).expect("an end").code(), Some(137));

    let wrong = config.replace("pool: site", "pool: sight");
    let mut evenkeel = Evenkeel::launch(BINARY, &wrong, |command| {
        let mut outer = Command::new("unshare");
        outer.args(["--pid", "--fork", "--mount-proc", BINARY]);
        outer.args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            outer.current_dir(folder);
        }
        *command = outer;
    })
    .expect("unshare starts");
    assert_eq!(evenkeel.wait_exit(SOON).expect("an end").code(), Some(1));
}

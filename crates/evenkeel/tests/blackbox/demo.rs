//! The demo as a stranger meets it: piped, and on a terminal.

use std::process::Command;

use testkit::{Process, Signal, curl, missing, run, wait_until};

use crate::command::BINARY;
use crate::life_support::SOON;
use crate::shown::Shown;

/// What the shell makes of a line that was printed.
fn shell(line: &str) -> (Option<i32>, String) {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    let finished = run(command, SOON).expect("a shell");
    (finished.code, finished.text())
}

/// The part of the first line with `mark` from there on.
fn printed(process: &Process, mark: &str) -> String {
    let lines = process.log_lines();
    let found = lines
        .iter()
        .find_map(|line| Some(&line[line.find(mark)?..]));
    found.expect(mark).to_owned()
}

#[test]
fn without_a_terminal_it_says_what_to_try_and_that_works() {
    if missing("curl") {
        return;
    }
    let mut command = Command::new(BINARY);
    command.arg("demo");
    let mut demo = Process::spawn("demo", command).expect("it starts");
    demo.wait_log("Ctrl-C", SOON).expect("it says how it ends");
    for number in 1..=3 {
        demo.wait_log(&format!("server-{number} is healthy"), SOON)
            .expect("its probes succeed");
    }

    let url = printed(&demo, "http://");
    let mut names: Vec<String> = (0..30)
        .map(|_| curl(&[&url]).expect("an answer").text())
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names, ["server-1\n", "server-2\n", "server-3\n"]);

    let (code, status) = shell(&printed(&demo, &format!("{BINARY} status")));
    assert_eq!(code, Some(0), "{status}");
    assert!(status.contains("server-3"), "{status}");
    let (code, receipt) = shell(&printed(&demo, &format!("{BINARY} server drain")));
    assert_eq!(code, Some(0), "{receipt}");
    let health = format!("{url}health");
    assert!(
        curl(&[&health])
            .expect("an answer")
            .text()
            .contains("healthy")
    );

    demo.signal(Signal::TERM).expect("it runs");
    let ended = demo.wait_exit(SOON).expect("it ends");
    assert_eq!(ended.code(), Some(0), "{}", demo.log());
    let config = printed(&demo, "config ").replacen("config", "", 1);
    assert!(!std::path::Path::new(config.trim()).exists());
}

#[test]
fn on_a_terminal_keys_break_things_and_nothing_fails() {
    if missing("script") {
        return;
    }
    let mut demo = Shown::start("demo");
    for number in 1..=3 {
        demo.wait(0, &format!("server-{number} is healthy"));
    }
    demo.press("1", "unhealthy: connection refused (you killed it)");
    demo.press("1", "gets requests once its probes succeed");
    demo.press("y", "picked now:");
    demo.press("c", "health_check: { path: /health, interval: 1s }");
    demo.press("d", "is drained, in ");
    demo.press("d", "takes requests again");
    demo.press("r", "reloaded: ");
    let before = demo.text(0);
    assert!(before.contains("Receipt: 0 new picks"), "{before}");
    assert!(before.contains(" 0 cut"), "{before}");

    let last = ", 0 failed; you killed 1 server, drained 1, reloaded once";
    demo.press("q", last);
    wait_until("the end", SOON, || {
        matches!(demo.child.try_wait(), Ok(Some(_)))
    })
    .expect("it ends");
    let status = demo.child.wait().expect("a status");
    assert_eq!(status.code(), Some(0));
    let all = demo.text(0);
    let mut lines = all.lines().filter(|line| !line.trim().is_empty());
    let line = lines.next_back().unwrap_or_default();
    assert!(line.trim_end().ends_with(last), "{line}");
    assert!(all.contains("\x1b[?1049l"), "the terminal is given back");
}

#[test]
fn it_ends_with_its_terminal() {
    if missing("script") {
        return;
    }
    let mut demo = Shown::start("demo");
    demo.wait(0, "server-1 is healthy");
    demo.press("c", "evenkeel.yaml (change it, then r)");
    let screen = demo.text(0);
    let end = screen.find("/evenkeel.yaml").expect("its path");
    let start = screen[..end].rfind("evenkeel-demo-").expect("its folder");
    let folder = std::env::temp_dir().join(&screen[start..end]);
    assert!(folder.is_dir(), "{}", folder.display());
    drop(demo);
    wait_until("the folder to go", SOON, || !folder.exists()).expect("it ends");
}

//! The state file: what an operator has said outlives the process.

use std::net::SocketAddr;

use testkit::{Evenkeel, Origin, reply, wait_until};

use crate::affinity::{self, Browser};
use crate::command::BINARY;
use crate::life_support::{SOON, ask, server, site, start, wait_all, web};
use crate::upgrade::upgrade;
use crate::upgrade_carried;

fn origins<const N: usize>() -> [Origin; N] {
    std::array::from_fn(|_| Origin::http(|_| reply(200, "here")).expect("an origin"))
}

fn with_file(path: &str, servers: &[SocketAddr], settings: &str) -> String {
    format!("state_file: '{path}'\n{}", site(servers, settings))
}

fn say(evenkeel: &Evenkeel, args: &[&str]) {
    let finished = ask(evenkeel, &[&["server"], args].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

/// State and weight.
fn words(evenkeel: &Evenkeel, address: SocketAddr) -> (String, u64) {
    let server = server(evenkeel, "site", &address.to_string());
    let state = server.get("state").and_then(|it| it.as_str());
    let weight = server.get("weight").and_then(|it| it.as_u64());
    (
        state.expect("a state").to_owned(),
        weight.expect("a weight"),
    )
}

#[test]
fn words_outlive_a_restart_and_a_crash() {
    let servers: [Origin; 3] = origins();
    let addresses = servers.each_ref().map(Origin::address);
    let dir = testkit::TempDir::new("state").expect("a folder");
    let path = dir.path().join("state.json");
    let shown = path.to_str().expect("a path");
    let config = with_file(shown, &addresses, "");
    let [one, two, three] = addresses.map(|it| it.to_string());
    let mut evenkeel = start(&config);
    wait_all(&evenkeel, &addresses, "healthy");
    say(&evenkeel, &["drain", "site", &one]);
    say(&evenkeel, &["weight", "site", &two, "7"]);
    evenkeel.stop(SOON).expect("exit 0");

    let mut evenkeel = start(&config);
    let ready = |weight: u64| ("ready".to_owned(), weight);
    assert_eq!(words(&evenkeel, addresses[0]), ("drain".to_owned(), 1));
    assert_eq!(words(&evenkeel, addresses[1]), ready(7));
    assert_eq!(words(&evenkeel, addresses[2]), ready(1));
    // Else none could be taken out.
    wait_all(&evenkeel, &addresses, "healthy");
    // The process that an upgrade starts writes it from then on.
    let newest = upgrade(&mut evenkeel, &[]);
    say(&evenkeel, &["disable", "site", &three]);
    say(&evenkeel, &["enable", "site", &one]);
    wait_until("it is written", SOON, || {
        let text = std::fs::read_to_string(&path).expect("a file");
        text.contains("disabled") && !text.contains("drain")
    })
    .expect("it is written");
    newest.signal(testkit::Signal::KILL).expect("a signal");
    newest.wait_end(SOON).expect("an end");

    let mut evenkeel = start(&config);
    assert_eq!(words(&evenkeel, addresses[0]), ready(1));
    assert_eq!(words(&evenkeel, addresses[1]), ready(7));
    assert_eq!(words(&evenkeel, addresses[2]), ("disabled".to_owned(), 1));
    evenkeel.stop(SOON).expect("exit 0");
}

#[test]
fn a_state_file_of_no_use_is_set_aside_and_told() {
    set_aside(
        "{\"version\": 1, \"servers\": [{\"po",
        "the state file is damaged (EOF",
    );
    // One of a later version may mean something else by the same words.
    let words = r#""servers": [{"pool": "site", "server": "a", "state": "drain"}]"#;
    set_aside(
        &format!("{{\"version\": 7, {words}}}"),
        "the state file is of version 7, and this evenkeel reads 1",
    );
    set_aside(
        &format!("{{{words}}}"),
        "the state file is damaged (it has no version)",
    );
    // Words that nobody can have said.
    for (said, told) in [
        ("\"state\": \"disable\"", "`disable` is no state"),
        ("\"weight\": 5", "a weight without file_weight"),
        ("\"weight\": 99999, \"file_weight\": 1", "a weight of 99999"),
        ("\"wieght\": 5", "nothing is said"),
    ] {
        let words = format!("{{\"pool\": \"site\", \"server\": \"a\", {said}}}");
        set_aside(
            &format!("{{\"version\": 1, \"servers\": [{words}]}}"),
            &format!("`: {told}"),
        );
    }
}

/// Its clients come back to a server that drains, and no longer once that is over.
#[test]
fn a_drain_is_over_after_a_restart_too() {
    let servers = affinity::origins(["a", "b"]);
    let [a, b] = servers.each_ref().map(Origin::address);
    let dir = testkit::TempDir::new("state").expect("a folder");
    let path = dir.path().join("state.json");
    let config = format!(
        "state_file: '{}'\nsecret_file: '{}'\n{}",
        path.display(),
        dir.write("secret", "s".repeat(64))
            .expect("written")
            .display(),
        affinity::config("affinity: { cookie: S }", &[("a", a, ""), ("b", b, "")])
    );
    let mut evenkeel = start(&config);
    let mut browser = Browser::new(web(&evenkeel));
    let home = browser.server("/");
    let command = upgrade_carried::drain(&evenkeel, &home, "3s");
    evenkeel.stop(SOON).expect("exit 0");
    command.join().expect("a thread");

    // The deadline holds over a restart.
    let restart = |jar: Vec<String>| {
        let evenkeel = start(&config);
        let mut browser = Browser::new(web(&evenkeel));
        browser.jar = jar;
        (evenkeel, browser)
    };
    let jar = browser.jar.clone();
    let (mut evenkeel, mut browser) = restart(jar.clone());
    wait_until("the drain ends", SOON, || browser.server("/") != home).expect("an end");
    evenkeel.stop(SOON).expect("exit 0");

    let (mut evenkeel, mut browser) = restart(jar);
    assert_ne!(browser.server("/"), home);
    evenkeel.stop(SOON).expect("exit 0");
}

#[track_caller]
fn set_aside(text: &str, told: &str) {
    let [origin] = origins();
    let dir = testkit::TempDir::new("state").expect("a folder");
    let text = text.replace("\"a\"", &format!("\"{}\"", origin.address()));
    let path = dir.write("state.json", &text).expect("written");
    let config = with_file(path.to_str().expect("a path"), &[origin.address()], "");
    let mut evenkeel = start(&config);
    evenkeel.wait_log(told, SOON).expect("a line");
    let aside = std::fs::read_dir(dir.path()).expect("a folder").flatten();
    let aside: Vec<_> = aside
        .filter(|it| {
            it.file_name()
                .to_string_lossy()
                .starts_with("state.json.damaged-")
        })
        .collect();
    assert_eq!(aside.len(), 1);
    assert_eq!(words(&evenkeel, origin.address()), ("ready".to_owned(), 1));
    say(
        &evenkeel,
        &["disable", "site", &origin.address().to_string()],
    );
    evenkeel.stop(SOON).expect("exit 0");
    let text = std::fs::read_to_string(&path).expect("a file");
    assert!(text.contains("disabled"), "{text}");
}

#[test]
fn a_state_file_that_cannot_be_written_is_an_error_at_the_start() {
    let config = with_file(
        "/nonexistent/state.json",
        &["127.0.0.1:9".parse().expect("one")],
        "",
    );
    let mut evenkeel = Evenkeel::launch(BINARY, &config, |_| {}).expect("started");
    assert_eq!(evenkeel.wait_exit(SOON).expect("an end").code(), Some(1));
    evenkeel
        .wait_log("the state file: there is no folder `/nonexistent`", SOON)
        .expect("a line");
}

//! Automatic certificates when something is wrong: with the authority, with what it is asked, and with the store.

use std::time::Duration;

use testkit::{Evenkeel, wait_until};

use crate::command::{BINARY, evenkeel_in};
use crate::life_support::{SOON, ask, metric, reload};
use crate::tls_acme_support::{ORDERED, Scene, Stage, believer, status, wait_problem, wait_shown};
use crate::tls_support::{Wants, believing, shake};

fn failures(evenkeel: &Evenkeel, domain: &str) -> f64 {
    metric(
        evenkeel,
        &format!("evenkeel_acme_failures{{domain=\"{domain}\""),
    )
}

/// What it wrote may be read a moment later.
#[track_caller]
fn wait_told(evenkeel: &Evenkeel, text: &str) {
    wait_until(text, SOON, || evenkeel.log_contains(text))
        .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
}

#[test]
fn while_the_authority_is_down_names_without_a_certificate_are_refused_and_all_is_told() {
    let Some(stage) = Stage::new() else { return };
    let (port, scene) = stage.split();
    let evenkeel = scene.start(&scene.config(&scene.acme(&["a.example"], ""), ""));
    let told = wait_problem(&evenkeel, "a.example");
    assert_eq!(told["state"], "missing");
    let problem = told["problem"].as_str().expect("a problem");
    assert!(problem.contains("cannot connect"), "{problem}");
    let client = believing(&scene.ca.pem, &Wants::default());
    let refused = shake(scene.tls, "a.example", &client).map(drop);
    assert!(refused.is_err());
    assert_eq!(failures(&evenkeel, "a.example"), 1.0);
    wait_told(&evenkeel, "clients that ask for this name are refused");
    let table = ask(&evenkeel, &["status"]).text();
    assert!(
        table.contains("missing") && table.contains("cannot connect"),
        "{table}"
    );
    // It is there again: other settings are tried at once.
    let pebble = scene.pebble_on(port, "", 0);
    reload(
        &evenkeel,
        &scene.config(&scene.acme(&["a.example"], ", email: me@example.org"), ""),
    );
    wait_shown(&evenkeel, scene.tls, "a.example", &believer(&pebble));
    assert_eq!(failures(&evenkeel, "a.example"), 0.0);
}

#[test]
fn what_the_authority_refuses_is_told_in_its_words_and_not_asked_again_at_once() {
    let Some(stage) = Stage::new() else { return };
    let (pebble, scene) = stage.authority("\"domainBlocklist\": [\"blocked.example\"],");
    let config = scene.config(&scene.acme(&["blocked.example", "a.example"], ""), "");
    let mut evenkeel = scene.start(&config);
    let client = believer(&pebble);
    wait_shown(&evenkeel, scene.tls, "a.example", &client);
    let told = wait_problem(&evenkeel, "blocked.example");
    let problem = told["problem"].as_str().expect("a problem").to_owned();
    assert!(problem.starts_with("rejectedIdentifier: "), "{problem}");
    wait_told(&evenkeel, "rejectedIdentifier");
    let next = told["next_order"].clone();

    // Nor does a restart.
    evenkeel.stop(SOON).expect("it ends");
    let evenkeel = scene.start(&config);
    wait_shown(&evenkeel, scene.tls, "a.example", &client);
    let again = wait_problem(&evenkeel, "blocked.example");
    assert_eq!(
        (&again["failures"], &again["next_order"]),
        (&1.into(), &next)
    );
    assert!(!evenkeel.log_contains("asked for"), "{}", evenkeel.log());
}

#[test]
fn an_authority_that_does_not_find_us_says_so() {
    let Some(stage) = Stage::new() else { return };
    let (_pebble, scene) = stage.authority("");
    // Nobody answers where it looks.
    let elsewhere = "127.0.0.1:0".parse().expect("an address");
    let acme = scene.acme(&["a.example"], "");
    let evenkeel = scene.start(&scene.config_at(elsewhere, scene.tls, &acme, ""));
    let told = wait_problem(&evenkeel, "a.example");
    let problem = told["problem"].as_str().expect("a problem");
    assert!(
        problem.starts_with("connection: ") || problem.starts_with("unauthorized: "),
        "{problem}"
    );
    let challenges = scene.folder().join("challenges");
    assert_eq!(std::fs::read_dir(challenges).expect("a folder").count(), 0);
}

#[test]
fn nonces_that_are_refused_are_asked_for_anew() {
    let Some(stage) = Stage::new() else { return };
    let (pebble, scene) = stage.authority_with("", 10);
    let evenkeel = scene.start(&scene.config(&scene.acme(&["a.example"], ""), ""));
    wait_shown(&evenkeel, scene.tls, "a.example", &believer(&pebble));
}

#[test]
fn an_authority_that_refuses_every_nonce_is_left_alone_for_a_while() {
    let Some(stage) = Stage::new() else { return };
    let (_pebble, scene) = stage.authority_with("", 100);
    let evenkeel = scene.start(&scene.config(&scene.acme(&["a.example"], ""), ""));
    let told = wait_problem(&evenkeel, "a.example");
    let problem = told["problem"].as_str().expect("a problem");
    assert!(problem.starts_with("badNonce: "), "{problem}");
}

/// An instance that stands in for an authority which answers everything with this.
fn stand_in(scene: &Scene, port: &testkit::Port, respond: &str) -> Evenkeel {
    let text = format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web:
    bind: '{}'
    tls: {{ certificates: [{{ cert: it.pem, key: it.key }}] }}
    routes: [{{ filters: [{{ respond: {respond} }}] }}]
",
        port.address(),
    );
    Evenkeel::start_with(BINARY, &text, |command| {
        let folder = command.get_current_dir().expect("a folder").to_owned();
        std::fs::write(folder.join("it.pem"), &scene.issued.cert).expect("written");
        std::fs::write(folder.join("it.key"), &scene.issued.key).expect("written");
    })
    .expect("the stand-in starts")
}

#[test]
fn who_asks_too_often_waits_as_long_as_it_is_told() {
    let Some(stage) = Stage::new() else { return };
    let (port, scene) = stage.split();
    let document =
        r#"{ "type": "urn:ietf:params:acme:error:rateLimited", "detail": "slowly, please" }"#;
    let respond =
        format!("{{ status: 429, headers: {{ retry-after: '172800' }}, body: '{document}' }}");
    let authority = stand_in(&scene, &port, &respond);
    let evenkeel = scene.start(&scene.config(&scene.acme(&["a.example"], ""), ""));
    let told = wait_problem(&evenkeel, "a.example");
    assert_eq!(told["problem"], "rateLimited: slowly, please");
    let in_two_days = std::time::SystemTime::now() + Duration::from_secs(172_800 - 120);
    let day = day_of(in_two_days);
    let next = told["next_order"].as_str().expect("a time");
    assert!(*next >= *day, "{next} is before {day}");
    let asked = || metric(&authority, "evenkeel_requests_total");
    let before = asked();
    assert!((1.0..4.0).contains(&before), "{before}");
    // Not by a reload either.
    reload(
        &evenkeel,
        &scene.config(&scene.acme(&["a.example"], ""), ", min_version: '1.3'"),
    );
    wait_until("the reload is taken up", SOON, || {
        evenkeel.log_contains("reloaded")
    })
    .expect("it is");
    assert_eq!(asked(), before);
}

/// `YYYY-MM-DD`.
fn day_of(time: std::time::SystemTime) -> String {
    let since = time.duration_since(std::time::UNIX_EPOCH).expect("a time");
    let mut command = std::process::Command::new("date");
    command.args(["-u", "-d", &format!("@{}", since.as_secs()), "+%Y-%m-%d"]);
    let said = testkit::run(command, SOON).expect("a date");
    said.text().trim().to_owned()
}

#[test]
fn an_authority_that_talks_no_acme_is_told_of() {
    let Some(stage) = Stage::new() else { return };
    let (port, scene) = stage.split();
    let _authority = stand_in(
        &scene,
        &port,
        "{ status: 502, body: '<h1>Bad gateway</h1>' }",
    );
    let evenkeel = scene.start(&scene.config(&scene.acme(&["a.example"], ""), ""));
    let told = wait_problem(&evenkeel, "a.example");
    let problem = told["problem"].as_str().expect("a problem");
    assert!(problem.contains("answers 502"), "{problem}");
}

#[test]
fn an_account_of_another_place_is_bound_and_its_lack_is_told() {
    let Some(stage) = Stage::new() else { return };
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let settings = format!(
        "\"externalAccountBindingRequired\": true, \"externalAccountMACKeys\": {{ \"kid-1\": \"{key}\" }},"
    );
    let (pebble, scene) = stage.authority(&settings);
    let evenkeel = scene.start(&scene.config(&scene.acme(&["a.example"], ""), ""));
    let told = wait_problem(&evenkeel, "a.example");
    let problem = told["problem"].as_str().expect("a problem");
    assert!(
        problem.starts_with("externalAccountRequired: "),
        "{problem}"
    );
    let file = scene.dir.write("hmac", key).expect("written");
    let more = format!(
        ", external_account: {{ id: kid-1, key_file: '{}' }}",
        file.display()
    );
    reload(
        &evenkeel,
        &scene.config(&scene.acme(&["a.example"], &more), ""),
    );
    wait_shown(&evenkeel, scene.tls, "a.example", &believer(&pebble));
}

#[test]
fn an_authority_that_has_forgotten_us_gets_a_new_account() {
    let Some(stage) = Stage::new() else { return };
    let (pebble, scene) = stage.authority("");
    let evenkeel = scene.start(&scene.config(&scene.acme(&["a.example"], ""), ""));
    wait_shown(&evenkeel, scene.tls, "a.example", &believer(&pebble));
    // Pebble keeps nothing over a restart.
    let pebble = scene.pebble_on(pebble.end(), "", 0);
    reload(
        &evenkeel,
        &scene.config(&scene.acme(&["a.example", "b.example"], ""), ""),
    );
    wait_shown(&evenkeel, scene.tls, "b.example", &believer(&pebble));
    wait_told(&evenkeel, "does not know our account any more");
}

#[test]
fn a_store_that_cannot_be_used_ends_the_start_and_refuses_a_reload() {
    let Some(stage) = Stage::new() else { return };
    let (pebble, scene) = stage.authority("");
    let good = scene.config(&scene.acme(&["a.example"], ""), "");
    std::fs::write(scene.path("file"), "no folder").expect("written");
    let bad = good.replace("/store'", "/file/store'");
    assert_ne!(good, bad);
    let file = scene.dir.write("bad.yaml", &bad).expect("written");
    let ended = evenkeel_in(scene.dir.path(), &["run", &file.display().to_string()]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot be used"), "{}", ended.stderr);

    let evenkeel = scene.start(&good);
    let client = believer(&pebble);
    let first = wait_shown(&evenkeel, scene.tls, "a.example", &client);
    evenkeel.write_config(&bad).expect("written");
    let refused = ask(&evenkeel, &["reload"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("cannot be used"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        wait_shown(&evenkeel, scene.tls, "a.example", &client),
        first
    );
}

#[test]
fn what_is_damaged_in_the_store_is_told_of_and_replaced() {
    let Some(stage) = Stage::new() else { return };
    let (pebble, scene) = stage.authority("");
    std::fs::create_dir_all(scene.folder()).expect("a folder");
    std::fs::write(scene.file("a.example"), "-----BEGIN").expect("written");
    let evenkeel = scene.start(&scene.config(&scene.acme(&["a.example"], ""), ""));
    wait_shown(&evenkeel, scene.tls, "a.example", &believer(&pebble));
    wait_told(&evenkeel, "is damaged");
    wait_until("it is valid", ORDERED, || {
        status(&evenkeel, "a.example")["state"] == "valid"
    })
    .expect("valid");
}

#[test]
fn contacts_that_the_authority_does_not_take_are_told_of() {
    let Some(stage) = Stage::new() else { return };
    let (_pebble, scene) = stage.authority("");
    let email = ", email: [a@example.org, b@example.org, c@example.org]";
    let evenkeel = scene.start(&scene.config(&scene.acme(&["a.example"], email), ""));
    let told = wait_problem(&evenkeel, "a.example");
    let problem = told["problem"].as_str().expect("a problem");
    assert!(problem.contains("contacts"), "{problem}");
}

//! How servers are judged by their traffic.

use std::time::Duration;

use balance::outlier::Settings;

use super::Given;

fn pool(keys: &str) -> Given {
    Given::main(&format!(
        "listeners: {{ l: {{ bind: \":1\", pool: p }} }}\npools: {{ p: {{ servers: [10.0.0.1:1],\n {keys}\n }} }}\n"
    ))
}

fn settings(keys: &str) -> Option<Settings> {
    let given = pool(keys);
    let loaded = given.load();
    let snapshot = loaded
        .snapshot
        .unwrap_or_else(|| panic!("{:?}", given.found()));
    snapshot.pools[0].outlier_detection.clone()
}

#[test]
fn it_is_on_unless_it_is_off() {
    assert_eq!(settings(""), Some(Settings::default()));
    assert_eq!(settings("outlier_detection: {}"), Some(Settings::default()));
    assert_eq!(settings("outlier_detection: off"), None);
}

#[test]
fn each_part_is_turned_off_alone() {
    let found = settings(
        "outlier_detection: { consecutive_gateway_errors: off, success_rate: off, latency: off, degrade: false }",
    )
    .unwrap();
    let mut expected = Settings::default();
    expected.gateway_errors = None;
    expected.success_rate = None;
    expected.latency = None;
    expected.degrade = false;
    assert_eq!(found, expected);
}

#[test]
fn a_long_first_ejection_makes_the_longest_as_long() {
    let found = settings("outlier_detection: { ejection_time: 10m }").unwrap();
    assert_eq!(found.ejection, Duration::from_secs(600));
    assert_eq!(found.ejection_max, Duration::from_secs(600));
}

#[test]
fn mistakes_have_their_place() {
    for (keys, expected) in [
        (
            "outlier_detection: { consecutive_gateway_error: 5 }",
            "3:23: error[unknown_key]: ",
        ),
        (
            "outlier_detection: { consecutive_gateway_errors: 0 }",
            "3:51: error[value]: expected a whole number from 1 to 1000",
        ),
        (
            "outlier_detection: { success_rate: { deviations: 0 } }",
            "3:51: error[value]: expected a number from 0.1 to 100",
        ),
        (
            "outlier_detection: { ejection_time: 1m, max_ejection_time: 30s }",
            "3:61: error[conflict]: the longest ejection is shorter than the first, `ejection_time`: 1m",
        ),
        (
            "outlier_detection: false",
            "3:21: error[type]: `false` is not taken here",
        ),
        (
            "outlier_detection: { max_ejected: 101% }",
            "3:36: error[value]: ",
        ),
    ] {
        let found = pool(keys).found();
        assert!(
            found.iter().any(|line| line.contains(expected)),
            "{keys}: {found:?}"
        );
    }
}

//! Bounds: of the process, of pools.

use super::{Given, check};

const REST: &str =
    "listeners: { l: { bind: \":1\", pool: p } }\npools: { p: { servers: [10.0.0.1:1] } }\n";

fn bytes(keys: &str) -> Option<Option<u64>> {
    let given = Given::main(&format!("{REST}{keys}\n"));
    let loaded = given.load();
    let snapshot = loaded
        .snapshot
        .unwrap_or_else(|| panic!("{:?}", given.found()));
    snapshot.buffer_bytes_max
}

#[test]
fn the_bytes_of_buffers_are_bounded_by_the_machine_unless_the_file_says() {
    assert_eq!(bytes(""), None);
    assert_eq!(bytes("limits: {}"), None);
    assert_eq!(bytes("limits: { buffer_bytes: off }"), Some(None));
    assert_eq!(
        bytes("limits: { buffer_bytes: 512MiB }"),
        Some(Some(512 << 20))
    );
}

#[test]
fn mistakes_in_the_process_limits_have_their_place() {
    for (keys, expected) in [
        (
            "limits: { buffer_byte: 1GiB }",
            "3:11: error[unknown_key]: ",
        ),
        ("limits: { buffer_bytes: 1000000 }", "3:25: error[type]: "),
        ("limits: { buffer_bytes: 64KiB }", "3:25: error[value]: "),
        ("limits: 1GiB", "3:9: error[type]: "),
    ] {
        let found = Given::main(&format!("{REST}{keys}\n")).found();
        assert!(
            found.iter().any(|found| found.contains(expected)),
            "{keys}: {found:?}"
        );
    }
}

fn pool(keys: &str) -> Given {
    let listener = "listeners: { l: { bind: \":1\", pool: p } }";
    Given::main(&format!(
        "{listener}\npools: {{ p: {{ servers: [10.0.0.1:1],\n {keys}\n }} }}\n"
    ))
}

fn compiled(keys: &str) -> crate::Pool {
    let given = pool(keys);
    let mut snapshot = given
        .load()
        .snapshot
        .unwrap_or_else(|| panic!("{:?}", given.found()));
    snapshot.pools.remove(0)
}

#[test]
fn bounds_of_a_pool_are_off_unless_they_are_written() {
    let bounds = |keys| {
        let pool = compiled(keys);
        (pool.connections_max, pool.requests_max, pool.retries_max)
    };
    assert_eq!(bounds(""), (None, None, None));
    let all = "limits: { max_connections: 9, max_requests: 11, max_retries: 0 }";
    assert_eq!(bounds(all), (Some(9), Some(11), Some(0)));
    let off = "limits: { max_connections: off, max_requests: off, max_retries: off }";
    assert_eq!(bounds(off), (None, None, None));
}

#[test]
fn adaptive_concurrency_has_two_spellings() {
    use balance::adaptive::Settings;
    let settings = |keys| compiled(keys).adaptive_concurrency;
    assert_eq!(settings(""), None);
    assert_eq!(settings("adaptive_concurrency: off"), None);
    let standard = Some(Settings::default());
    assert_eq!(settings("adaptive_concurrency: gradient"), standard);
    assert_eq!(settings("adaptive_concurrency: {}"), standard);
    let mut expected = Settings::default();
    (expected.min, expected.max) = (2000, 2000);
    expected.tolerance = 0.5;
    expected.measure_every = std::time::Duration::from_secs(60);
    assert_eq!(
        settings("adaptive_concurrency: { min: 2000, tolerance: 50%, measure_every: 1m }"),
        Some(expected)
    );
}

#[test]
fn mistakes_in_the_bounds_of_a_pool_have_their_place() {
    for (keys, expected) in [
        ("limits: { max_request: 5 }", "3:12: error[unknown_key]: "),
        ("limits: { max_requests: 0 }", "3:26: error[value]: "),
        ("limits: { max_retries: 20% }", "3:25: error[type]: "),
        (
            "adaptive_concurrency: gradiant",
            "3:24: error[value]: `gradiant` is not a way to find the limit (did you mean `gradient`?)",
        ),
        (
            "adaptive_concurrency: { min: 5, max: 4 }",
            "3:39: error[conflict]: `max` (4) is less than `min` (5)",
        ),
        (
            "adaptive_concurrency: { tolerance: 0.5 }",
            "3:37: error[type]: ",
        ),
        (
            "outlier_detection: { half_open_requests: 0 }",
            "3:43: error[value]: ",
        ),
    ] {
        let found = pool(keys).found();
        assert!(
            found.iter().any(|found| found.contains(expected)),
            "{keys}: {found:?}"
        );
    }
    let tcp = "listeners: { l: { bind: \":1\", protocol: tcp, pool: p } }\npools: { p: { servers: [10.0.0.1:1], adaptive_concurrency: gradient } }\n";
    let found = Given::main(tcp).found();
    let expected = "1:52: error[conflict]: `adaptive_concurrency` of the pool `p` goes by";
    assert!(
        found.iter().any(|found| found.contains(expected)),
        "{found:?}"
    );
}

#[test]
fn a_bound_that_sockets_keep_from_being_reached_is_warned_of() {
    let check_pool = |keys: &str, expected: &[&str]| {
        let servers = "servers: [{ name: a, address: \"10.0.0.1:80\", max_connections: 500 }]";
        let yaml = format!(
            "listeners: {{ l: {{ bind: \":1\", pool: p }} }}\npools: {{ p: {{ health_check: tcp, {servers},\n {keys} }} }}\n"
        );
        check(&yaml, expected);
    };
    check_pool("limits: { connections_per_server: 500 }", &[]);
    check_pool(
        "limits: { connections_per_server: 4 }",
        &[
            "3:12: warning[conflict]: `max_connections` of the server `a` (500) is above `limits.connections_per_server` (4): it is never reached",
        ],
    );
    check_pool("limits: { connections_per_server: 4 }, http: 2", &[]);
    check_pool(
        "limits: { connections_per_server: 4 }, http: { version: 2, streams: 100 }",
        &[
            "3:12: warning[conflict]: `max_connections` of the server `a` (500) is above `limits.connections_per_server` (4) and `http.streams` (100), by which a server has at most 400 requests at once: it is never reached",
        ],
    );
    check_pool(
        "limits: { connections_per_server: 500 }, adaptive_concurrency: { min: 501 }",
        &[
            "3:12: warning[conflict]: the least limit of `adaptive_concurrency` (501) is above `limits.connections_per_server` (500): it never bounds anything",
        ],
    );
}

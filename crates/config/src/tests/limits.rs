//! Bounds: of the process, of pools.

use super::Given;

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

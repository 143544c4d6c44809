//! Nothing that a user can write panics, and every finding has a place inside its file.

use proptest::prelude::*;

use super::Given;
use crate::fuzz::{load_any, read_der};

/// Pieces that make YAML, or nearly.
fn yamlish() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "listeners",
        "pools",
        "routes",
        "include",
        "a",
        "p",
        "bind",
        "pool",
        "servers",
        "match",
        "not",
        "path",
        "split",
        "filters",
        "weight",
        ": ",
        ":",
        "- ",
        ", ",
        "{ ",
        " }",
        "[",
        "]",
        "\n",
        "\n  ",
        "\n    ",
        "\n      ",
        "&a ",
        "*a",
        "<<: ",
        "\"",
        "'",
        "|\n",
        "#",
        "~",
        "${A}",
        "${",
        "$${A}",
        "${B:-x}",
        "0",
        "10s",
        "off",
        "true",
        "\":1\"",
        "10.0.0.1:80",
        "h:1",
        "!t ",
        "---\n",
        "...\n",
        "\t",
        "\r",
        "é",
        "\u{feff}",
        "\0",
        "? ",
        "%YAML 1.2\n",
        ">-\n",
        "\\",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// A sound config with a few characters replaced.
fn damaged(sound: &'static str) -> impl Strategy<Value = String> {
    let at = prop::collection::vec((0..sound.len(), any::<char>(), 0..4_usize), 1..4);
    at.prop_map(move |damages| {
        let mut text: Vec<char> = sound.chars().collect();
        for (at, with, cut) in damages {
            let at = at.min(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, [with]);
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in any::<String>()) {
        load_any(text.as_bytes());
    }

    #[test]
    fn any_yaml(text in yamlish()) {
        load_any(text.as_bytes());
    }

    #[test]
    fn any_damage(text in damaged(include_str!("whole.yaml"))) {
        load_any(text.as_bytes());
    }

    #[test]
    fn any_quick(listen in any::<String>(), server in any::<String>(), algorithm in any::<String>()) {
        let yaml = crate::quick(&listen, std::slice::from_ref(&server), false, Some(&algorithm), Some(&server));
        let tree_is_sound = Given::main(&yaml).load().diagnostics.iter().all(|d| d.kind != crate::Kind::Syntax && d.kind != crate::Kind::UnknownKey);
        prop_assert!(tree_is_sound, "{yaml}");
    }
}

/// Real ones with some bytes replaced.
fn damaged_der() -> impl Strategy<Value = Vec<u8>> {
    let real = prop::sample::select(real_der());
    let damages = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (real, damages).prop_map(|(mut der, damages)| {
        for (at, with) in damages {
            let at = at.index(der.len());
            der[at] = with;
        }
        der
    })
}

/// The corpus of the fuzz target.
fn real_der() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../../../../fuzz/corpus/der/ocsp").to_vec(),
        include_bytes!("../../../../fuzz/corpus/der/certificate").to_vec(),
        include_bytes!("../../../../fuzz/corpus/der/names").to_vec(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_der(bytes in damaged_der()) {
        read_der(&bytes);
    }
}

/// What once went wrong, and what looks as if it might.
#[test]
fn corpus() {
    for text in [
        "",
        "\n",
        "\r\n",
        "\u{feff}",
        "\u{feff}listeners:\n",
        "a",
        "? a",
        "a: |",
        "{",
        "}",
        "[",
        "- - -",
        "&a *a",
        "<<: *x",
        "\"",
        "%",
        "...",
        "---",
        "a:\n\n\n",
        "${",
        "? [a]\n: b",
    ] {
        load_any(text.as_bytes());
    }
}

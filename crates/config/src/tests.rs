//! The whole way from text to snapshot or diagnostics, as tables.

mod acme;
mod affinity;
mod errors;
mod files;
mod fuzz;
mod http;
mod http2;
mod labels;
mod limits;
mod outlier;
mod snapshots;
mod surfaces;
mod tls;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Loaded, Severity, Source, load};

/// Files, variables and names that tests give.
#[derive(Default)]
struct Given {
    files: BTreeMap<String, String>,
    /// Files that are no text.
    bytes: BTreeMap<String, Vec<u8>>,
    env: BTreeMap<String, String>,
    wall: Option<Duration>,
    /// Files that every user may read.
    open: Vec<String>,
}

impl Source for Given {
    fn read(&self, path: &str) -> Result<String, String> {
        self.files
            .get(path)
            .cloned()
            .ok_or_else(|| "no such file".to_owned())
    }

    fn read_bytes(&self, path: &str) -> Result<Vec<u8>, String> {
        let known = self.bytes.get(path).cloned();
        known.map_or_else(|| self.read(path).map(String::into_bytes), Ok)
    }

    fn glob(&self, pattern: &str) -> Result<Vec<String>, String> {
        let (before, after) = pattern.split_once('*').ok_or("no star")?;
        let found = |path: &&String| path.starts_with(before) && path.ends_with(after);
        // In the wrong order, since a shell may answer in any.
        Ok(self.files.keys().filter(found).rev().cloned().collect())
    }

    fn env(&self, name: &str) -> Option<String> {
        self.env.get(name).cloned()
    }

    fn wall(&self) -> Option<Duration> {
        self.wall
    }

    fn is_open_to_others(&self, path: &str) -> bool {
        self.open.iter().any(|open| open == path)
    }

    fn resolves(&self, name: &str) -> Option<bool> {
        Some(!name.ends_with(".invalid"))
    }
}

/// The main file's path in tests.
const MAIN: &str = "etc/main.yaml";

impl Given {
    fn main(text: &str) -> Self {
        let given = Self::default().file(MAIN, text);
        let given = given.file("etc/tls/cert.pem", include_str!("tests/tls/cert.pem"));
        let given = given.file("etc/tls/key.pem", include_str!("tests/tls/key.pem"));
        let given = given.file("etc/secret", "0123456789abcdef");
        let given = given.bytes("etc/tls/ocsp.der", include_bytes!("tests/tls/ocsp.der"));
        given.file("etc/tls/hmac", "Zm9v\n")
    }

    fn bytes(mut self, path: &str, bytes: &[u8]) -> Self {
        self.bytes.insert(path.to_owned(), bytes.to_owned());
        self
    }

    fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_owned(), text.to_owned());
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn load(&self) -> Loaded {
        load(MAIN, self)
    }

    /// `LINE:COLUMN: error[kind]: message (help)` for each error and warning.
    fn found(&self) -> Vec<String> {
        let shown = |d: &crate::Diagnostic| {
            let help = d
                .help
                .as_ref()
                .map_or(String::new(), |help| format!(" ({help})"));
            let text = format!(
                "{}: {}[{}]: {}{help}",
                d.place,
                d.severity.as_str(),
                d.kind.as_str(),
                d.message
            );
            text.strip_prefix("etc/main.yaml:")
                .map_or(text.clone(), str::to_owned)
        };
        let loaded = self.load();
        let diagnostics = loaded
            .diagnostics
            .iter()
            .filter(|d| d.severity != Severity::Note);
        diagnostics.map(shown).collect()
    }
}

#[track_caller]
fn check_given(given: &Given, expected: &[&str]) {
    let found = given.found();
    assert!(
        found == expected,
        "found:\n{}\nexpected:\n{}",
        found.join("\n"),
        expected.join("\n")
    );
}

/// What is found in a config of one file, whole and in order.
#[track_caller]
fn check(yaml: &str, expected: &[&str]) {
    check_given(&Given::main(yaml), expected);
}

//! The rules for every tracked file: sizes, opening docs, `unsafe`, lint exceptions, ignored
//! tests, and paths of the machine that it was written on.

use super::scan::{self, attributes, code_only, line_of, words};
use super::{Findings, PURE};
use crate::shell;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// A file of Rust: above the first it is listed, above the second it fails.
const FILE_LINES: (usize, usize) = (500, 800);
/// The same for a function.
const FUNCTION_LINES: (usize, usize) = (70, 100);
/// The only places for `unsafe`.
const UNSAFE_PLACES: &[&str] = &["crates/proxy/src/sys", "crates/proxy/src/net"];
/// How far above an `unsafe` its reason may stand, in lines.
const SAFETY_WITHIN: usize = 10;
/// Where work is done is nobody's business. In two pieces, so that this file may be read too.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/")];

pub(super) fn check(root: &Path, findings: &mut Findings) -> Result<()> {
    for path in tracked(root)? {
        // Deleted but not committed yet, or no text.
        let Ok(text) = std::fs::read_to_string(root.join(&path)) else {
            continue;
        };
        if path != "Cargo.lock" {
            machine_paths(&path, &text, findings);
        }
        if path.ends_with(".rs") && !is_exempt(&path) {
            rust(&path, &text, findings);
        }
    }
    for room in PURE {
        pure_room(root, room, findings);
    }
    Ok(())
}

/// Tracked files and new ones that git does not ignore.
fn tracked(root: &Path) -> Result<Vec<String>> {
    let mut list = Command::new("git");
    list.args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root);
    let text = shell::output(&mut list).context("tidy reads the tracked files")?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Generated code is checked to be current elsewhere; data for tests may look as it likes.
fn is_exempt(path: &str) -> bool {
    let generated = path.split('/').any(|part| part == "generated");
    generated || path.contains("/tests/data/") || path.contains("/corpus/")
}

fn machine_paths(path: &str, text: &str, findings: &mut Findings) {
    for (number, line) in text.lines().enumerate() {
        if let Some(found) = MACHINE_PATHS.iter().find(|place| line.contains(**place)) {
            let number = number + 1;
            findings.fail(format!(
                "{path}:{number}: {found} is a path of somebody's machine"
            ));
        }
    }
}

fn rust(path: &str, text: &str, findings: &mut Findings) {
    let code = code_only(text);
    // A published crate may open with its README instead.
    let opens = ["//!", "#![doc = include_str!("];
    if !opens.iter().any(|open| text.trim_start().starts_with(open)) {
        findings.fail(format!(
            "{path}: must open with `//!`: its duty, and what it leaves to others"
        ));
    }
    sizes(path, text, &code, findings);
    unsafe_code(path, text, &code, findings);
    exceptions(path, &code, findings);
}

fn sizes(path: &str, text: &str, code: &str, findings: &mut Findings) {
    let lines = text.lines().count();
    over(
        format!("{path}: {lines} lines"),
        lines,
        FILE_LINES,
        findings,
    );
    for function in scan::functions(code) {
        let scan::Function { name, line, lines } = function;
        let what = format!("{path}:{line}: fn {name} has {lines} lines");
        over(what, lines, FUNCTION_LINES, findings);
    }
}

fn over(what: String, lines: usize, (listed, failed): (usize, usize), findings: &mut Findings) {
    if lines > failed {
        findings.fail(format!("{what}, over {failed}: it wants to be two"));
    } else if lines > listed {
        findings.note(format!("{what}, over {listed}"));
    }
}

fn unsafe_code(path: &str, text: &str, code: &str, findings: &mut Findings) {
    let may = UNSAFE_PLACES.iter().any(|place| {
        let rest = path.strip_prefix(place);
        rest.is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
    });
    for at in words(code, "unsafe") {
        let line = line_of(code, at);
        if !may {
            findings.fail(format!(
                "{path}:{line}: unsafe belongs in {} only",
                UNSAFE_PLACES.join(" and ")
            ));
        } else if !has_reason(text, line) {
            findings.fail(format!(
                "{path}:{line}: unsafe without `// SAFETY:` above it"
            ));
        }
    }
}

fn has_reason(text: &str, line: usize) -> bool {
    let first = line.saturating_sub(SAFETY_WITHIN);
    let mut near = text.lines().skip(first).take(line - first);
    near.any(|line| line.contains("SAFETY:") || line.contains("# Safety"))
}

fn exceptions(path: &str, code: &str, findings: &mut Findings) {
    for (at, inside) in attributes(code) {
        let inside = inside.trim();
        let mut fail = |what: &str| findings.fail(format!("{path}:{}: {what}", line_of(code, at)));
        if inside.starts_with("allow") {
            fail("#[allow] outlives its cause: use #[expect(lint, reason = \"…\")]");
        }
        let excuses = inside.starts_with("expect(")
            || (inside.starts_with("cfg_attr") && has_exception(inside));
        if excuses && words(inside, "reason").next().is_none() {
            fail("a lint exception without its reason");
        }
        if words(inside, "ignore").any(|at| at == 0) {
            fail("#[ignore] hides a test: make it fast, or a chore of its own");
        }
    }
}

fn has_exception(inside: &str) -> bool {
    ["allow", "expect"]
        .iter()
        .any(|word| words(inside, word).next().is_some())
}

fn pure_room(root: &Path, room: &str, findings: &mut Findings) {
    let folder = root.join("crates").join(room);
    if !folder.is_dir() {
        return;
    }
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
    if !code_only(&read("src/lib.rs")).contains("#![forbid(unsafe_code)]") {
        findings.fail(format!(
            "crates/{room}/src/lib.rs: a pure room says #![forbid(unsafe_code)]"
        ));
    }
    for list in ["disallowed-methods", "disallowed-types"] {
        if !read("clippy.toml").contains(list) {
            findings.fail(format!(
                "crates/{room}/clippy.toml: a pure room bans clocks and I/O by {list}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The failures of one file, by their first words after the place.
    fn check(path: &str, text: &str, expected: &[&str]) {
        let mut findings = Findings::default();
        rust(path, text, &mut findings);
        machine_paths(path, text, &mut findings);
        assert_eq!(
            findings.failures.len(),
            expected.len(),
            "{:?}",
            findings.failures
        );
        for (found, expected) in findings.failures.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn each_rule() {
        let net = "crates/proxy/src/net/poll.rs";
        let cases: &[(&str, &str, &[&str])] = &[
            ("a.rs", "//! Duty.\nfn f() {}\n", &[]),
            ("a.rs", "fn f() {}\n", &["must open"]),
            ("a.rs", "//! Duty.\nfn f() { unsafe {} }\n", &["belongs in"]),
            (
                "crates/proxy/src/network.rs",
                "//! Duty.\nfn f() { unsafe {} }\n",
                &["belongs in"],
            ),
            (net, "//! Duty.\nfn f() { unsafe {} }\n", &["SAFETY"]),
            (
                net,
                "//! Duty.\n// SAFETY: why.\nfn f() { unsafe {} }\n",
                &[],
            ),
            (
                "a.rs",
                "//! Duty.\n// unsafe #[allow(x)]\nconst A: &str = \"unsafe\";\n",
                &[],
            ),
            (
                "a.rs",
                "//! Duty.\n#[allow(x, reason = \"y\")]\nfn f() {}\n",
                &["#[allow]"],
            ),
            (
                "a.rs",
                "//! Duty.\n#[expect(x)]\nfn f() {}\n",
                &["without its reason"],
            ),
            (
                "a.rs",
                "//! Duty.\n#[expect(x, reason = \"y\")]\nfn f() {}\n",
                &[],
            ),
            (
                "a.rs",
                "//! Duty.\n#![cfg_attr(test, allow(x))]\n",
                &["without its reason"],
            ),
            (
                "a.rs",
                "//! Duty.\n#[ignore = \"slow\"]\nfn f() {}\n",
                &["#[ignore]"],
            ),
            (
                "a.rs",
                concat!("//! In /ro", "ot/x.\n"),
                &["somebody's machine"],
            ),
        ];
        for (path, text, expected) in cases {
            check(path, text, expected);
        }
    }

    #[test]
    fn sizes_are_listed_then_fail() {
        for (lines, notes, failures) in [(60, 0, 0), (90, 1, 0), (120, 0, 1)] {
            let body = "    x();\n".repeat(lines);
            let mut findings = Findings::default();
            rust(
                "a.rs",
                &format!("//! Duty.\nfn f() {{\n{body}}}\n"),
                &mut findings,
            );
            assert_eq!(
                (findings.notes.len(), findings.failures.len()),
                (notes, failures)
            );
        }
    }
}

//! The licences of everything that is built, tests and build scripts included, against the list in
//! deny.toml, which stands in one place so that cargo-deny and this check agree.

use super::Findings;
use anyhow::{Context, Result};
use cargo_metadata::Metadata;
use std::path::Path;

pub(super) fn check(metadata: &Metadata, root: &Path, findings: &mut Findings) -> Result<()> {
    let text = std::fs::read_to_string(root.join("deny.toml")).context("deny.toml")?;
    let allowed = allow_list(&text).context("deny.toml has no list `allow` under [licenses]")?;
    for package in &metadata.packages {
        if package.source.is_none() {
            continue; // our own
        }
        let licence = package.license.as_deref().unwrap_or_default();
        if !accepts(licence, &allowed) {
            let (name, version) = (&package.name, &package.version);
            findings.fail(format!(
                "{name} {version} is under {licence:?}, which deny.toml does not allow"
            ));
        }
    }
    Ok(())
}

/// The strings of `allow = […]` under `[licenses]`.
fn allow_list(text: &str) -> Option<Vec<&str>> {
    let (_, section) = text.split_once("[licenses]")?;
    let (_, list) = section.split_once("allow = [")?;
    let (list, _) = list.split_once(']')?;
    Some(list.split('"').skip(1).step_by(2).collect())
}

/// Whether an SPDX expression can be met with the allowed licences. An old `/` means OR.
fn accepts(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words: Vec<&str> = spaced.split_whitespace().rev().collect();
    let verdict = any_of(&mut words, allowed);
    verdict == Some(true) && words.is_empty()
}

/// `a OR b`; the words are a stack with the next one on top. `None` is no expression.
fn any_of(words: &mut Vec<&str>, allowed: &[&str]) -> Option<bool> {
    let mut verdict = all_of(words, allowed)?;
    while words.pop_if(|word| *word == "OR").is_some() {
        verdict |= all_of(words, allowed)?;
    }
    Some(verdict)
}

/// `a AND b`, which binds more closely than OR.
fn all_of(words: &mut Vec<&str>, allowed: &[&str]) -> Option<bool> {
    let mut verdict = one(words, allowed)?;
    while words.pop_if(|word| *word == "AND").is_some() {
        verdict &= one(words, allowed)?;
    }
    Some(verdict)
}

/// `(…)`, `id` or `id WITH exception`.
fn one(words: &mut Vec<&str>, allowed: &[&str]) -> Option<bool> {
    let word = words.pop()?;
    if word == "(" {
        let verdict = any_of(words, allowed)?;
        words.pop_if(|word| *word == ")")?;
        return Some(verdict);
    }
    if words.pop_if(|word| *word == "WITH").is_some() {
        let whole = format!("{word} WITH {}", words.pop()?);
        return Some(allowed.contains(&whole.as_str()));
    }
    Some(allowed.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let allowed = [
            "MIT",
            "Apache-2.0",
            "Apache-2.0 WITH LLVM-exception",
            "Unicode-3.0",
        ];
        let cases = [
            ("MIT", true),
            ("CC0-1.0", false),
            ("", false),
            ("Unlicense/MIT", true),
            ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", true),
            ("Apache-2.0 WITH other", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND GPL-3.0", false),
            ("GPL-3.0 OR MIT AND GPL-2.0", false),
            ("GPL-3.0 AND GPL-2.0 OR MIT", true),
            ("(MIT", false),
            ("MIT OR", false),
            ("MIT Apache-2.0", false),
        ];
        for (expression, expected) in cases {
            assert_eq!(accepts(expression, &allowed), expected, "{expression}");
        }
    }

    #[test]
    fn the_list_is_read_from_deny_toml() {
        let text =
            "[advisories]\nallow = [\"no\"]\n[licenses]\nallow = [\n  \"MIT\",\n  \"ISC\",\n]\n";
        assert_eq!(allow_list(text), Some(vec!["MIT", "ISC"]));
    }
}

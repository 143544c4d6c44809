//! `cargo xtask tidy`: the rules of the house that no compiler holds. Each set of rules is a
//! module that adds to one list of findings; a finding fails, a note is only listed.

mod arrows;
mod licences;
mod scan;
mod sources;

use crate::shell;
use anyhow::{Context, Result, bail};
use cargo_metadata::{CargoOpt, Metadata, MetadataCommand};
use std::path::Path;
use std::process::Command;

/// Rooms that know no runtime, socket, file, clock, environment or global.
const PURE: &[&str] = &[
    "wire", "balance", "rules", "gslb", "ha", "config", "control", "sim",
];

/// What was found, as lines that say where, what, and what would be right.
#[derive(Default)]
struct Findings {
    failures: Vec<String>,
    notes: Vec<String>,
}

impl Findings {
    fn fail(&mut self, text: impl Into<String>) {
        self.failures.push(text.into());
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

/// All rules, and the reference if a binary is there to ask.
pub(crate) fn run() -> Result<()> {
    rules()?;
    if binary().is_file() {
        reference()?;
    }
    println!("tidy");
    Ok(())
}

/// Every rule that needs no built binary.
pub(crate) fn rules() -> Result<()> {
    let root = shell::root();
    let metadata = metadata(&root)?;
    let mut findings = Findings::default();
    arrows::check(&metadata, &mut findings);
    no_ring(&mut findings)?;
    licences::check(&metadata, &root, &mut findings)?;
    sources::check(&root, &mut findings)?;
    for note in &findings.notes {
        println!("note: {note}");
    }
    if findings.failures.is_empty() {
        return Ok(());
    }
    let count = findings.failures.len();
    bail!(
        "{}\n{count} against the rules of the house",
        findings.failures.join("\n")
    )
}

/// docs/config.md is what the binary says of its own config.
pub(crate) fn reference() -> Result<()> {
    const COMMAND: &str = "reference-config";
    let page = shell::root().join("docs/config.md");
    if !page.is_file() {
        println!("note: docs/config.md is not there yet");
        return Ok(());
    }
    let binary = binary();
    let mend = format!("mend it by: cargo run -q -- {COMMAND} > docs/config.md");
    let says = shell::output(Command::new(&binary).arg(COMMAND)).context(mend.clone())?;
    if std::fs::read_to_string(&page)? != says {
        bail!("docs/config.md is not what this evenkeel says of its config; {mend}");
    }
    Ok(())
}

fn binary() -> std::path::PathBuf {
    shell::target().join("debug/evenkeel")
}

fn metadata(root: &Path) -> Result<Metadata> {
    let mut command = MetadataCommand::new();
    command.manifest_path(root.join("Cargo.toml"));
    command.features(CargoOpt::AllFeatures);
    Ok(command.exec()?)
}

/// Two crypto providers make rustls panic, so this one must never be built. Asked of `cargo tree`,
/// since metadata also lists what only a weak feature (`ring?/std`) names.
fn no_ring(findings: &mut Findings) -> Result<()> {
    let mut tree = shell::cargo();
    tree.args([
        "tree",
        "--workspace",
        "--all-features",
        "--target",
        "all",
        "--invert",
        "ring",
    ]);
    let output = tree.output()?;
    let users = String::from_utf8_lossy(&output.stdout);
    let unknown = String::from_utf8_lossy(&output.stderr).contains("did not match any packages");
    if !users.trim().is_empty() {
        findings.fail(format!("ring is in the tree beside aws-lc-rs:\n{users}"));
    } else if !output.status.success() && !unknown {
        bail!("{tree:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

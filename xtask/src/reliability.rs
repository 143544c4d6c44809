//! `cargo xtask reliability`: builds in release what is tried, and hands over to the scenarios.

use crate::shell;
use anyhow::{Result, ensure};

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let release = shell::target().join("release/evenkeel");
    let mut harness = shell::cargo();
    harness.args(["run", "--quiet", "--release", "-p", "evenkeel-testkit"]);
    harness.args(["--bin", "reliability", "--"]);
    if !args.contains(&"--binary") && !args.contains(&"--list") {
        shell::build_release(&["-p", "evenkeel"])?;
        harness.arg("--binary").arg(release);
    }
    let status = harness.args(args).status()?;
    ensure!(
        status.success(),
        "a promise was broken, or a scenario failed"
    );
    Ok(())
}

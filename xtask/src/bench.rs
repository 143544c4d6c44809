//! `cargo xtask bench` and `cargo xtask count`: build in release what is measured, and hand over to the harness.

use crate::shell;
use anyhow::{Result, ensure};

/// `before` goes in front of what the harness is asked.
pub(crate) fn run(before: &[&str], args: &[&str]) -> Result<()> {
    // Apart, so that each has its own features: what is measured is what is shipped.
    if before.is_empty() {
        shell::build_release(&["-p", "evenkeel"])?;
    }
    shell::build_release(match before {
        ["count"] => &[
            "-p",
            "evenkeel-bench",
            "--no-default-features",
            "--bin",
            "count",
            "--bin",
            "evenkeel-bench",
        ],
        _ => &["-p", "evenkeel-bench", "--bins"],
    })?;
    let mut harness = shell::cargo();
    harness.args(["run", "--quiet", "--release", "-p", "evenkeel-bench"]);
    if before == ["count"] {
        harness.arg("--no-default-features");
    }
    harness.arg("--");
    let status = harness.args(before).args(args).status()?;
    ensure!(status.success(), "the harness failed: {status}");
    Ok(())
}

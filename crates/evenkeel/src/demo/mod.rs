//! The demo: real servers, a balancer in front of them, and something to see and to break.
//!
//! Not built yet: this is the hook that the command line calls.

use std::process::ExitCode;

/// What `evenkeel demo` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {}

/// Runs the demo until the user ends it.
///
/// # Errors
/// What the system refused.
pub(crate) fn run(_args: DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("the demo is not built yet")
}

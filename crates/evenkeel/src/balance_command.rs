//! `evenkeel balance LISTEN SERVER…`: a balancer for those who have no config file yet.

use std::process::ExitCode;

use crate::cli::BalanceArgs;
use crate::source::Origin;
use crate::{diagnose, exit, runtime};

/// What errors call the config that the command line stands for.
const NAME: &str = "(command line)";

/// Runs the command.
///
/// # Errors
/// What the system refused.
pub(crate) fn run(args: &BalanceArgs) -> anyhow::Result<ExitCode> {
    let text = config::quick(
        &args.listen,
        &args.servers,
        args.tcp,
        args.algorithm.as_deref(),
        args.health_path.as_deref(),
    );
    let origin = Origin::Text { name: NAME, text };
    if args.print_config {
        return Ok(print(&origin));
    }
    let options = runtime::Options {
        upgrades: true,
        ..runtime::Options::default()
    };
    runtime::run(origin, options)
}

/// Prints the config, if it is a good one.
fn print(origin: &Origin) -> ExitCode {
    if let Err(counts) = diagnose::show(origin.load(), false) {
        return exit::wrong(counts);
    }
    if let Origin::Text { text, .. } = origin {
        exit::print(text);
    }
    exit::WELL
}

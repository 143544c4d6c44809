//! Programs in Python and JavaScript beside this crate: peers by libraries that others made.

use crate::tools::{node_modules, python};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// A command that runs `NAME.py` or `NAME.js`.
///
/// # Errors
///
/// When Python or Node.js is not installed with its packages.
pub fn script(name: &str) -> Result<Command> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = match name.ends_with(".py") {
        true => {
            let mut command =
                Command::new(python().context("target/python is missing (./test makes it)")?);
            command.arg("-u").arg(folder.join("python").join(name));
            // Neither proxies of this machine nor words of the library itself have a part in a test.
            command.env("GRPC_VERBOSITY", "NONE");
            command
        }
        false => {
            let modules = node_modules().context("target/node is missing (./test makes it)")?;
            let mut command = Command::new("node");
            command
                .arg(folder.join("node").join(name))
                .env("NODE_PATH", modules);
            command
        }
    };
    command.env("no_proxy", "*");
    Ok(command)
}

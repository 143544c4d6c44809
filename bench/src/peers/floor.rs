//! The floor: see `bin/floor.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::Setup;

pub(super) fn find() -> Result<(PathBuf, String)> {
    let version = "read, write, read, write".to_owned();
    Ok((super::sibling("floor")?, version))
}

pub(super) fn lay_out(program: &Path, setup: &Setup) -> Result<Command> {
    let servers: Vec<String> = setup.servers.iter().map(ToString::to_string).collect();
    let mut command = Command::new(program);
    command.arg(setup.port.to_string()).arg(servers.join(","));
    command.args(setup.close.then_some("--close"));
    Ok(command)
}

//! What the commands share in tests: a run of the binary to its end.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::{Finished, TempDir};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_evenkeel");
const LIMIT: Duration = Duration::from_secs(20);

/// Runs `evenkeel ARGS…` in `folder`, without the environment's own settings.
pub(crate) fn evenkeel_in(folder: &Path, args: &[&str]) -> Finished {
    let mut command = Command::new(BINARY);
    command.args(args).current_dir(folder);
    for name in ["EVENKEEL_ADMIN", "EVENKEEL_TOKEN", "EVENKEEL_LOG"] {
        command.env_remove(name);
    }
    testkit::run(command, LIMIT).expect("evenkeel runs")
}

/// The same in a folder with one config, `evenkeel.yaml`.
pub(crate) fn evenkeel_with(config: &str, args: &[&str]) -> Finished {
    let dir = TempDir::new("command").expect("a folder");
    dir.write("evenkeel.yaml", config).expect("a config");
    evenkeel_in(dir.path(), args)
}

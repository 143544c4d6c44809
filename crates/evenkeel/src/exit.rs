//! The exit codes of every command.

use std::process::ExitCode;

/// All is well.
pub(crate) const WELL: ExitCode = ExitCode::SUCCESS;
/// What the user gave is wrong, or a drain cut something.
pub(crate) const WRONG: u8 = 1;
/// The system refused, or an instance does not answer. (2 is a wrong command line, which clap reports.)
pub(crate) const REFUSED: u8 = 3;

/// Says on stderr what was wrong with what the user gave.
pub(crate) fn wrong(message: impl std::fmt::Display) -> ExitCode {
    eprintln!("evenkeel: {message}");
    ExitCode::from(WRONG)
}

/// Says on stderr what the system refused.
pub(crate) fn refused(message: impl std::fmt::Display) -> ExitCode {
    eprintln!("evenkeel: {message}");
    ExitCode::from(REFUSED)
}

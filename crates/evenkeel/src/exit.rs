//! How every command ends: its exit code, and what it prints.

use std::process::ExitCode;

/// All is well.
pub(crate) const WELL: ExitCode = ExitCode::SUCCESS;
/// What the user gave is wrong, or a drain cut something.
pub(crate) const WRONG: u8 = 1;
/// The system refused, or an instance does not answer. (2 is a wrong command line, which clap reports.)
pub(crate) const REFUSED: u8 = 3;

/// Writes a command's result to stdout. A reader that has left, as `head` does, is no fault of ours.
pub(crate) fn print(text: &str) {
    use std::io::Write as _;
    let mut stdout = std::io::stdout();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

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

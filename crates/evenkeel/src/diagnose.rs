//! Shows what was found in a config, and says whether it may be used.

use std::io::IsTerminal as _;

use config::{Loaded, Severity, Snapshot};

/// Writes every finding to stderr, and gives the config if it may be used.
///
/// # Errors
/// A closing line with the counts, when there are errors, or warnings and `strict`.
pub(crate) fn show(loaded: Loaded, strict: bool) -> Result<Snapshot, String> {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for diagnostic in &loaded.diagnostics {
        eprint!("{}", diagnostic.render(color));
    }
    accept(loaded, strict)
}

/// Gives the config if it may be used, and shows nothing.
///
/// # Errors
/// As [`show`].
pub(crate) fn accept(loaded: Loaded, strict: bool) -> Result<Snapshot, String> {
    let counts = counts(&loaded);
    let warned = strict && loaded.count(Severity::Warning) > 0;
    loaded.snapshot.filter(|_| !warned).ok_or(counts)
}

/// "2 errors, 1 warning".
fn counts(loaded: &Loaded) -> String {
    let parts: Vec<String> = [
        (loaded.count(Severity::Error), "error"),
        (loaded.count(Severity::Warning), "warning"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
    .collect();
    parts.join(", ")
}

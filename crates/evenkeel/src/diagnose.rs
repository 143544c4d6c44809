//! Shows what was found in a config, and says whether it may be used.

use std::io::IsTerminal as _;

use config::{Diagnostic, Loaded, Severity, Snapshot};

/// Writes every finding to stderr, and gives the config if it may be used.
///
/// # Errors
/// A closing line with the counts, when there are errors, or warnings and `strict`.
pub(crate) fn show(loaded: Loaded, strict: bool) -> Result<Snapshot, String> {
    print(&loaded.diagnostics);
    accept(loaded, strict).map_err(|refused| refused.counts)
}

/// Writes findings to stderr, as a person reads them.
pub(crate) fn print(diagnostics: &[Diagnostic]) {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for diagnostic in diagnostics {
        eprint!("{}", diagnostic.render(color));
    }
}

/// Why a config may not be used.
#[derive(Debug)]
pub(crate) struct Refused {
    /// "2 errors, 1 warning".
    pub(crate) counts: String,
    /// All that was found.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Gives the config if it may be used, and shows nothing.
///
/// # Errors
/// When there are errors, or warnings and `strict`.
pub(crate) fn accept(loaded: Loaded, strict: bool) -> Result<Snapshot, Refused> {
    let counts = counts(&loaded);
    let warned = strict && loaded.count(Severity::Warning) > 0;
    loaded.snapshot.filter(|_| !warned).ok_or(Refused {
        counts,
        diagnostics: loaded.diagnostics,
    })
}

/// "2 errors".
pub(crate) fn errors(count: usize) -> String {
    format!("{count} error{}", if count == 1 { "" } else { "s" })
}

fn counts(loaded: &Loaded) -> String {
    let counts = [
        (loaded.count(Severity::Error), "error"),
        (loaded.count(Severity::Warning), "warning"),
    ];
    let parts: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
        .collect();
    parts.join(", ")
}

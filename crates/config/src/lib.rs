//! Text to a validated, immutable snapshot; every error carries its place.
//!
//! The way of a config: files are read and merged into one tree in which each value knows where it
//! is written (`load`, `tree`), sections are read from it as written (`read`, `raw`), and then made
//! into a [`Snapshot`] with every default filled in, every name an index and every pattern compiled
//! (`compile`). Every step reports what is wrong and goes on, so that a user sees all of it at once.
//!
//! This crate opens no file, asks no environment and resolves no name: it asks its [`Source`].
//! It holds no live state and binds nothing; taking a snapshot up is for others.

#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]

mod address;
mod compile;
pub mod defaults;
mod diagnostic;
#[doc(hidden)]
pub mod fuzz;
mod labels;
mod load;
mod ocsp;
mod quick;
mod quoting;
mod raw;
mod read;
mod reference;
mod scalar;
mod schema;
mod snapshot;
mod suggest;
#[cfg(test)]
mod tests;
mod tree;
mod units;
mod values;
mod x509;

pub use diagnostic::{Diagnostic, Kind, Place, Severity, Span};
pub use labels::Labels;
pub use quick::quick;
pub use reference::reference;
pub use schema::schema;
pub use snapshot::*;
pub use units::{parse_duration, show_duration};
pub use x509::{client_certificate, not_after};

use std::time::Duration;

use diagnostic::Report;
use read::Read as _;

/// Where a config comes from; the shell answers with files and the environment, a test with a map.
pub trait Source {
    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read, in words for the user.
    fn read(&self, path: &str) -> Result<String, String>;

    /// The bytes of a file that is no text.
    ///
    /// # Errors
    /// Why it cannot be read, in words for the user.
    fn read_bytes(&self, path: &str) -> Result<Vec<u8>, String> {
        self.read(path).map(String::into_bytes)
    }

    /// Whether every user of the machine can read a file; asked of private keys only.
    fn is_open_to_others(&self, path: &str) -> bool {
        let _ = path;
        false
    }

    /// What is at a path now; asked of paths that the process opens later.
    fn found(&self, path: &str) -> Found {
        let _ = path;
        Found::Unknown
    }

    /// Wall time, since the Unix epoch; `None` when nothing is to be said of what is out of date.
    fn wall(&self) -> Option<Duration> {
        None
    }

    /// The files that a pattern (`*`, `?`, `[…]`) finds, in any order; none is no error.
    ///
    /// # Errors
    /// Why it cannot be looked for, in words for the user.
    fn glob(&self, pattern: &str) -> Result<Vec<String>, String>;

    /// A variable of the environment, `None` when it is unset.
    fn env(&self, name: &str) -> Option<String>;

    /// Whether a DNS name has an address now; `None` when that is not asked.
    fn resolves(&self, name: &str) -> Option<bool>;
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// That cannot be told, or is not asked.
    Unknown,
    /// Nothing.
    Nothing,
    /// Something other than a folder.
    File,
    /// A folder.
    Folder,
}

/// What came of a config.
#[derive(Debug)]
pub struct Loaded {
    /// `None` when there is any error.
    pub snapshot: Option<Snapshot>,
    /// Everything found, in the order of the files; at most 1,000 of each severity, notes only without errors.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// How many findings are of this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics
            .iter()
            .filter(|d| d.severity == severity)
            .count()
    }
}

/// Reads the config at `path` and everything that it includes.
pub fn load(path: &str, source: &dyn Source) -> Loaded {
    let mut report = Report::default();
    let (tree, whole) = load::read_files(path, source, &mut report);
    let nothing_read = !whole && tree.get("listeners").is_none();
    let raw = if nothing_read {
        None
    } else {
        raw::RawConfig::read(&tree, &mut report)
    };
    let snapshot = match raw {
        // With a file missing every name in it would look dangling.
        Some(raw) if whole => compile::compile(raw, source, &mut report),
        _ => None,
    };
    let snapshot = if report.has_errors() { None } else { snapshot };
    Loaded {
        snapshot,
        diagnostics: report.into_diagnostics(),
    }
}

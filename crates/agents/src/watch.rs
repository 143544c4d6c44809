//! Tells when a config's files may have changed, by looking at them once a second.
//!
//! It does not read them: the reload compares. Polling works on every file system and in containers, where a config map
//! changes by a symbolic link that points elsewhere.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A change is told when nothing more has changed for this long: a file being written is left alone.
const QUIET: Duration = Duration::from_millis(250);
/// But after this long it is told all the same.
const QUIET_MAX: Duration = Duration::from_secs(5);

/// What of a file or folder tells whether it changed: seconds and nanoseconds of its last change, inode, length.
type Print = (i64, i64, u64, u64);
/// `None` for what is not there.
type Prints = BTreeMap<PathBuf, Option<Print>>;

/// Files and folders that are watched.
#[derive(Debug)]
pub struct Watch {
    known: Prints,
    every: Duration,
}

impl Watch {
    /// Watches files, and folders for what comes and goes in them; what changed before this call is not told.
    #[must_use]
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut watch = Self {
            known: Prints::new(),
            every: LOOK_EVERY,
        };
        watch.set(paths);
        watch
    }

    /// Watches these from now on, after a reload that read others. A path watched before is still compared with what
    /// it was when it was last told of, so that a change during the reload is not missed.
    pub fn set(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        let before = std::mem::take(&mut self.known);
        self.known = paths
            .into_iter()
            .map(|path| {
                let print = before.get(&path).copied();
                let print = print.unwrap_or_else(|| print_of(&path));
                (path, print)
            })
            .collect();
    }

    /// Waits until something has changed and come to rest. May be dropped and called again: nothing is missed.
    pub async fn changed(&mut self) {
        let mut now = loop {
            tokio::time::sleep(self.every).await;
            let now = self.look().await;
            if now != self.known {
                break now;
            }
        };
        let quiet_by = tokio::time::Instant::now() + QUIET_MAX;
        while tokio::time::Instant::now() < quiet_by {
            tokio::time::sleep(QUIET.min(self.every)).await;
            let next = self.look().await;
            if next == now {
                break;
            }
            now = next;
        }
        self.known = now;
    }

    async fn look(&self) -> Prints {
        let paths: Vec<PathBuf> = self.known.keys().cloned().collect();
        let looking = tokio::task::spawn_blocking(move || {
            paths
                .into_iter()
                .map(|path| {
                    let print = print_of(&path);
                    (path, print)
                })
                .collect()
        });
        looking.await.unwrap_or_else(|_| self.known.clone())
    }
}

/// The folder whose listing decides what an include pattern finds: that of the part before its first wildcard.
#[must_use]
pub fn folder_of(pattern: &str) -> PathBuf {
    let wild = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    match pattern.get(..wild).and_then(|fixed| fixed.rsplit_once('/')) {
        None => PathBuf::from("."),
        Some(("", _)) => PathBuf::from("/"),
        Some((folder, _)) => PathBuf::from(folder),
    }
}

fn print_of(path: &Path) -> Option<Print> {
    let data = std::fs::metadata(path).ok()?;
    Some((data.mtime(), data.mtime_nsec(), data.ino(), data.len()))
}

#[cfg(test)]
mod tests;

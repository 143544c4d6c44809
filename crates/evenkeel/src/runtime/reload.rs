//! Reloads are serial: while one reads, only one more waits, and answers for all who asked meanwhile.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Diagnostic;
use control::message::{Event, Reply};
use tokio::task::JoinHandle;

use super::names;
use crate::diagnose::{self, Refused};
use crate::source::Origin;

/// What is not read within this is given up: one of its files may be a pipe that nobody writes to, or on a disk that has
/// gone. Whoever comes next would wait for it.
pub(super) const READ_MAX: Duration = Duration::from_secs(60);

/// What was read, ready to be taken up.
pub(super) struct Read {
    pub(super) snapshot: Result<config::Snapshot, Refused>,
    /// Warnings and notes of a config that may be used.
    pub(super) findings: Vec<Diagnostic>,
    /// Files and folders that were looked at.
    pub(super) looked_at: Vec<PathBuf>,
    /// Addresses of names that were not known before.
    pub(super) names: Vec<Event>,
}

/// Reads and compiles a config off the runtime's threads, within `limit`, and looks new names up.
///
/// # Errors
/// When that did not come to an end, in words for the user. The thread that reads is left to itself.
pub(super) async fn read(
    origin: Arc<Origin>,
    strict: bool,
    known: BTreeSet<Arc<str>>,
    limit: Duration,
) -> Result<Read, String> {
    let reading = tokio::task::spawn_blocking(move || origin.load_watched());
    let (mut loaded, looked_at) = match tokio::time::timeout(limit, reading).await {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => {
            return Err(format!(
                "one of its files has not come to an end within {limit:?}"
            ));
        }
    };
    let mut findings = loaded.diagnostics.clone();
    let snapshot = diagnose::accept(
        config::Loaded {
            snapshot: loaded.snapshot.take(),
            diagnostics: loaded.diagnostics,
        },
        strict,
    );
    let names = match &snapshot {
        Ok(snapshot) => {
            let new = names::of(snapshot).difference(&known).cloned().collect();
            names::look_up(new).await
        }
        Err(_) => {
            findings.clear();
            Vec::new()
        }
    };
    Ok(Read {
        snapshot,
        findings,
        looked_at,
        names,
    })
}

/// What came of one reading, and who waits for it.
pub(super) struct Finished {
    pub(super) read: Result<Read, String>,
    pub(super) replies: Vec<Reply>,
    /// What asked first.
    pub(super) asked_by: &'static str,
    pub(super) began: Instant,
}

/// The reload that reads, and the one that waits.
#[derive(Default)]
pub(super) struct Reloads {
    running: Option<Running>,
    waiting: Option<Waiting>,
}

struct Waiting {
    asked_by: &'static str,
    replies: Vec<Reply>,
}

struct Running {
    asked_by: &'static str,
    task: JoinHandle<Result<Read, String>>,
    replies: Vec<Reply>,
    began: Instant,
}

impl Reloads {
    /// Asks for a reload; true when `start` is to be called.
    pub(super) fn request(&mut self, reply: Option<Reply>, asked_by: &'static str) -> bool {
        let none = || Waiting {
            asked_by,
            replies: Vec::new(),
        };
        self.waiting.get_or_insert_with(none).replies.extend(reply);
        self.running.is_none()
    }

    /// Whether one is under way.
    pub(super) fn is_reading(&self) -> bool {
        self.running.is_some()
    }

    /// Begins the waiting reload, if there is one.
    pub(super) fn start(&mut self, read: impl FnOnce() -> JoinHandle<Result<Read, String>>) {
        if self.running.is_some() {
            return;
        }
        if let Some(waiting) = self.waiting.take() {
            self.running = Some(Running {
                asked_by: waiting.asked_by,
                task: read(),
                replies: waiting.replies,
                began: Instant::now(),
            });
        }
    }

    /// Waits for the end of the one that reads; for ever if none does. May be dropped and called again.
    pub(super) async fn finished(&mut self) -> Finished {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        let read = (&mut running.task).await;
        let read = read.unwrap_or_else(|error| Err(error.to_string()));
        let (replies, asked_by, began) = match self.running.take() {
            Some(running) => (running.replies, running.asked_by, running.began),
            None => (Vec::new(), "", Instant::now()),
        };
        Finished {
            read,
            replies,
            asked_by,
            began,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pipe_that_nobody_writes_to_is_given_up_and_the_next_reload_reads() {
        let dir = testkit::TempDir::new("reload").expect("a folder");
        let path = dir.path().join("evenkeel.yaml");
        let pipe = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(pipe.expect("mkfifo runs").success());
        let origin = Arc::new(Origin::File(path.clone()));
        let begin = |limit| read(origin.clone(), false, BTreeSet::new(), limit);
        let error = begin(Duration::from_millis(50)).await.err();
        assert_eq!(
            error.as_deref(),
            Some("one of its files has not come to an end within 50ms")
        );
        // A writer lets go of the thread that still waits.
        let opened = std::fs::OpenOptions::new().write(true).open(&path);
        drop(opened.expect("it is read"));
        dir.write("evenkeel.yaml.new", "listeners: {}\n")
            .and_then(|new| Ok(std::fs::rename(new, &path)?))
            .expect("written");
        let next = begin(READ_MAX).await.expect("it is read");
        assert_eq!(next.looked_at, [path]);
    }
}

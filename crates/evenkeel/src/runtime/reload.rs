//! Reloads are serial: while one reads, only one more waits, and answers for all who asked meanwhile.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use config::Diagnostic;
use control::message::{Event, Reply};
use tokio::task::JoinHandle;

use super::names;
use crate::diagnose::{self, Refused};
use crate::source::Origin;

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

/// Reads and compiles a config off the runtime's threads, and looks new names up.
pub(super) async fn read(
    origin: Arc<Origin>,
    strict: bool,
    known: BTreeSet<Arc<str>>,
) -> Result<Read, tokio::task::JoinError> {
    let reading = tokio::task::spawn_blocking(move || origin.load_watched());
    let (mut loaded, looked_at) = reading.await?;
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
    pub(super) read: Result<Read, tokio::task::JoinError>,
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
    task: JoinHandle<Result<Read, tokio::task::JoinError>>,
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
    pub(super) fn start(
        &mut self,
        read: impl FnOnce() -> JoinHandle<Result<Read, tokio::task::JoinError>>,
    ) {
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
        let read = (&mut running.task).await.and_then(|read| read);
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

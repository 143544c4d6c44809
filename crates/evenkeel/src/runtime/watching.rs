//! Watches the files of the config, on a task of its own.

use std::path::PathBuf;

use agents::Watch;
use tokio::sync::mpsc::{Receiver, UnboundedSender, channel, unbounded_channel};

/// A running watch.
pub(super) struct Watching {
    changes: Receiver<()>,
    paths: UnboundedSender<Vec<PathBuf>>,
}

impl Watching {
    /// Tells from now on what `watch` sees. To be called on a runtime.
    pub(super) fn start(mut watch: Watch) -> Self {
        let (changed, changes) = channel(1);
        let (sender, mut others) = unbounded_channel();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = watch.changed() => {
                        // A change that has not been taken in yet stands for this one too.
                        let _ = changed.try_send(());
                    }
                    paths = others.recv() => match paths {
                        Some(paths) => watch.set(paths),
                        None => break,
                    },
                }
            }
        });
        Self {
            changes,
            paths: sender,
        }
    }

    /// Watches these from now on.
    pub(super) fn set(&self, paths: Vec<PathBuf>) {
        let _ = self.paths.send(paths);
    }

    /// Waits for a change.
    pub(super) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

//! Which of the instances that share a store asks the authority: the one that holds the lease. A lease that its holder
//! does not prolong ends by itself; the clocks of the machines may differ by less than that.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::store::{Store, read_json, wall};

/// For how long it is taken.
const LENGTH: Duration = Duration::from_secs(60);
/// How often it is prolonged.
const PROLONG_EVERY: Duration = Duration::from_secs(15);

#[derive(Debug, Serialize, Deserialize)]
struct Written {
    holder: String,
    /// Wall time at which it ends.
    until: Duration,
}

/// The right to ask. Given back when dropped.
pub(super) struct Lease<'s> {
    store: &'s Store,
}

impl<'s> Lease<'s> {
    /// Takes it, if nobody else has it.
    ///
    /// # Errors
    /// When the store cannot be written, or its file system knows no locks.
    pub(super) fn take(store: &'s Store) -> io::Result<Option<Self>> {
        let is_mine = locked(store, |written| match written {
            Some(other) if other.holder != store.holder() && other.until > wall() => None,
            _ => Some(wall().saturating_add(LENGTH)),
        })?;
        Ok(is_mine.then_some(Self { store }))
    }

    /// Prolongs it for as long as it is polled; ends when that is no longer possible.
    pub(super) async fn keep(&self) -> io::Error {
        loop {
            tokio::time::sleep(PROLONG_EVERY).await;
            let is_mine = locked(self.store, |written| {
                let is_mine = written.is_none_or(|it| it.holder == self.store.holder());
                is_mine.then(|| wall().saturating_add(LENGTH))
            });
            match is_mine {
                Ok(true) => {}
                Ok(false) => return io::Error::other("another instance has taken the lease"),
                Err(error) => return error,
            }
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // If it cannot be given back it ends by itself.
        let _ = locked(self.store, |written| {
            let is_mine = written.is_some_and(|it| it.holder == self.store.holder());
            is_mine.then_some(Duration::ZERO)
        });
    }
}

/// Looks at the lease and writes another one for this process, if `until` says so, while nobody else does either.
fn locked(
    store: &Store,
    until: impl FnOnce(Option<Written>) -> Option<Duration>,
) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(store.folder.join("lease.lock"))?;
    // Held for the time of a look and a write; ends with the process whatever happens.
    flock(&lock, FlockOperation::LockExclusive)?;
    let path = store.folder.join("lease.json");
    let Some(until) = until(read_json(&path)) else {
        return Ok(false);
    };
    let holder = store.holder().to_owned();
    store.replace(&path, &serde_json::to_vec(&Written { holder, until })?)?;
    Ok(true)
}

//! The open-file limit of the process.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one, and gives what holds then.
pub(super) fn raise_open_files() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let soft = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.current,
        Err(error) => {
            tracing::warn!(%error, "the open-file limit cannot be raised");
            soft
        }
    }
    .unwrap_or(u64::MAX)
}

/// A number that nobody can guess: spreads probes, places picks.
pub(super) fn seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    use std::io::Read as _;
    let mut bytes = [0; 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    match read {
        Ok(()) => u64::from_le_bytes(bytes),
        // Seeded by the system once for each process.
        Err(_) => RandomState::new().hash_one(std::process::id()),
    }
}

//! Which descriptors traffic may have: the highest ones stay free for probes, the admin listener, logs and reloads.
//!
//! The kernel gives the lowest number that is free. So the number of a socket says by itself how many are left, and
//! nothing is counted.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

/// What is kept is this many and one for each worker, which may hold one accepted connection back. At most an eighth of
/// all.
const KEPT: u64 = 16;
const KEPT_PART: u64 = 8;

/// From which number on descriptors are not for clients, and not for servers either.
static CLIENTS_END: AtomicI32 = AtomicI32::new(i32::MAX);
static SERVERS_END: AtomicI32 = AtomicI32::new(i32::MAX);

/// For what traffic wants a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// A connection of a client, or a pipe.
    Client,
    /// A connection to a server: for what is accepted already.
    Server,
}

/// Says what the process may have. To be called before the first worker starts.
pub(crate) fn set_limit(open_files: u64, workers: usize) {
    let (clients, servers) = ends(open_files, workers);
    CLIENTS_END.store(clients, Relaxed);
    SERVERS_END.store(servers, Relaxed);
}

/// As many as are kept from all traffic are kept from clients beyond that, so that who is accepted can be served.
fn ends(open_files: u64, workers: usize) -> (i32, i32) {
    let kept = KEPT.saturating_add(workers as u64);
    let kept = kept.min(open_files / KEPT_PART);
    let number = |end: u64| i32::try_from(end).unwrap_or(i32::MAX);
    let servers = open_files - kept;
    (number(servers - kept), number(servers))
}

/// Whether a descriptor is one of those that this use may have.
pub(crate) fn may_have(what: Use, descriptor: impl AsFd) -> bool {
    let end = match what {
        Use::Client => &CLIENTS_END,
        Use::Server => &SERVERS_END,
    };
    descriptor.as_fd().as_raw_fd() < end.load(Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_part_is_kept_from_traffic() {
        for (open_files, workers, expected) in [
            (1 << 20, 4, ((1 << 20) - 40, (1 << 20) - 20)),
            (1024, 2, (988, 1006)),
            (120, 2, (90, 105)),
            (7, 64, (7, 7)),
            (0, 1, (0, 0)),
            (u64::MAX, 64, (i32::MAX, i32::MAX)),
        ] {
            assert_eq!(ends(open_files, workers), expected, "{open_files}");
        }
    }
}

//! Faults on purpose, for the tests of what a panic, a stuck and a dead worker do to the others.
//!
//! They exist in debug builds only: a release has not even the branch. There they are armed once, before anything
//! serves, by the text of `EVENKEEL_FAULT`, a list such as `panic@/boom, stall@/stall=8s, die@/die, lost_after=7s`;
//! a request for such a path then has the fault once it has been sent to a server.

use std::time::Duration;

use crate::worker::Worker;

#[cfg(not(panic = "unwind"))]
compile_error!("a panic must end one connection, not the process");

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::time::Duration;

    pub(super) static FAULTS: OnceLock<Faults> = OnceLock::new();

    #[derive(Debug, Default)]
    pub(super) struct Faults {
        pub(super) at: Vec<(String, Fault)>,
        pub(super) lost_after: Option<Duration>,
    }

    #[derive(Debug, Clone, Copy)]
    pub(super) enum Fault {
        /// The task panics.
        Panic,
        /// The worker's thread does nothing for so long.
        Stall(Duration),
        /// The worker's thread ends.
        Die,
    }

    impl Faults {
        pub(super) fn parse(text: &str) -> Option<Self> {
            let mut faults = Self::default();
            for part in text.split(',').map(str::trim) {
                if let Some(after) = part.strip_prefix("lost_after=") {
                    faults.lost_after = Some(seconds(after)?);
                    continue;
                }
                let (kind, path) = part.split_once('@')?;
                let (path, fault) = match (kind, path.split_once('=')) {
                    ("panic", None) => (path, Fault::Panic),
                    ("die", None) => (path, Fault::Die),
                    ("stall", Some((path, time))) => (path, Fault::Stall(seconds(time)?)),
                    _ => return None,
                };
                faults.at.push((path.to_owned(), fault));
            }
            Some(faults)
        }
    }

    fn seconds(text: &str) -> Option<Duration> {
        text.strip_suffix('s')?
            .parse()
            .ok()
            .map(Duration::from_secs)
    }
}

/// Arms the faults of `EVENKEEL_FAULT`.
///
/// # Errors
/// In words for whoever set it: what cannot be read, or that this is no debug build.
#[cfg(debug_assertions)]
pub fn arm_faults(text: &str) -> Result<(), String> {
    let faults = armed::Faults::parse(text).ok_or_else(|| {
        format!("EVENKEEL_FAULT={text}: `panic@/a, stall@/b=8s, die@/c` is expected")
    })?;
    // Armed already only by a test in one process.
    let _ = armed::FAULTS.set(faults);
    Ok(())
}

/// As in a debug build, where there are faults.
///
/// # Errors
/// Always: a release has none.
#[cfg(not(debug_assertions))]
pub fn arm_faults(_: &str) -> Result<(), String> {
    Err("EVENKEEL_FAULT is for debug builds only".to_owned())
}

/// Has the fault that is armed for the path of a request, whose head this is.
#[cfg(debug_assertions)]
pub(crate) fn at(worker: &Worker, head: &[u8]) {
    use armed::Fault;
    let Some(faults) = armed::FAULTS.get() else {
        return;
    };
    let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let found = faults.at.iter().find(|(at, _)| at.as_bytes() == path);
    match found.map(|(_, fault)| *fault) {
        None => {}
        Some(Fault::Panic) => panic!("a fault on purpose"),
        Some(Fault::Stall(time)) => std::thread::sleep(time),
        Some(Fault::Die) => {
            let die = || panic!("a worker's fault on purpose");
            worker.mailboxes.run(worker.number, die);
        }
    }
}

#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn at(_: &Worker, _: &[u8]) {}

/// What stands in for the bound after which a stuck worker is lost.
#[cfg(debug_assertions)]
pub(crate) fn lost_after() -> Option<Duration> {
    armed::FAULTS.get()?.lost_after
}

#[cfg(not(debug_assertions))]
pub(crate) fn lost_after() -> Option<Duration> {
    None
}

//! A process that another one has started, as a binary starts its successor.

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Known by a descriptor, so that it is never mistaken for another that has its id. Dropping it kills it.
#[derive(Debug)]
pub struct Foreign {
    pid: u32,
    process: OwnedFd,
}

impl Foreign {
    /// The running process with this id.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn new(pid: u32) -> Result<Self> {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let process = pidfd_open(id.context("no process id")?, PidfdFlags::empty())
            .with_context(|| format!("process {pid}"))?;
        Ok(Self { pid, process })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.process, signal)
            .with_context(|| format!("signal {signal:?} to process {}", self.pid))
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When it still runs after `limit`.
    pub fn wait_end(&self, limit: Duration) -> Result<()> {
        let limit = Timespec::try_from(limit).context("a time")?;
        let mut looked = [PollFd::new(&self.process, PollFlags::IN)];
        let ended = poll(&mut looked, Some(&limit))?;
        anyhow::ensure!(ended > 0, "process {} still runs", self.pid);
        Ok(())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // It has ended where this fails.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }
}

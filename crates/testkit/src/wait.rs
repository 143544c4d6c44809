//! Bounded waiting, in place of sleeps that hope.

use anyhow::{Result, bail};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(5);

/// Asks until the answer is yes.
///
/// # Errors
///
/// When it still is no after `limit`; the error names `what` was waited for.
pub fn wait_until(what: &str, limit: Duration, mut yes: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !yes() {
        if started.elapsed() > limit {
            bail!("waited {limit:?} in vain: {what}");
        }
        std::thread::sleep(STEP);
    }
    Ok(())
}

/// Waits until something accepts connections at `address`.
///
/// # Errors
///
/// When nothing does after `limit`.
pub fn wait_accepts(address: SocketAddr, limit: Duration) -> Result<()> {
    wait_until(&format!("{address} accepts"), limit, || {
        TcpStream::connect_timeout(&address, limit).is_ok()
    })
}

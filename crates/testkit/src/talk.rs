//! Programs that speak with a server while somebody types: `openssl s_client`, `gnutls-cli`.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(5);

/// What became of a talk.
#[derive(Debug)]
pub struct Talk {
    /// Its exit code, or `None` when a signal ended it.
    pub code: Option<i32>,
    /// All that it wrote, errors and the rest in the order of their coming.
    pub text: String,
}

impl Talk {
    /// Whether it wrote this.
    pub fn has(&self, text: &str) -> bool {
        self.text.contains(text)
    }
}

/// Runs a program, gives it `says` on its input, and keeps that open until it has written `until` or ends by itself.
///
/// # Errors
///
/// When it cannot be started, or has neither written that nor ended within `limit`; it is then killed.
pub fn talk(mut command: Command, says: &str, until: &str, limit: Duration) -> Result<Talk> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?} cannot be started"))?;
    let written: Arc<Mutex<Vec<u8>>> = Arc::default();
    let readers = [
        copy(child.stdout.take(), &written),
        copy(child.stderr.take(), &written),
    ];
    let mut input = child.stdin.take();
    if let Some(input) = &mut input {
        // Who has ended already does not listen.
        input.write_all(says.as_bytes()).ok();
        input.flush().ok();
    }
    let text = || {
        let written = written.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written).into_owned()
    };
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if input.is_some() && text().contains(until) {
            input = None;
        }
        if started.elapsed() > limit {
            child.kill().ok();
            child.wait().ok();
            bail!("{command:?} still ran after {limit:?}: {}", text());
        }
        std::thread::sleep(POLL);
    };
    for reader in readers {
        reader.join().ok();
    }
    Ok(Talk {
        code: status.code(),
        text: text(),
    })
}

fn copy(
    from: Option<impl Read + Send + 'static>,
    to: &Arc<Mutex<Vec<u8>>>,
) -> std::thread::JoinHandle<()> {
    let to = to.clone();
    std::thread::spawn(move || {
        let Some(mut from) = from else { return };
        let mut piece = [0; 4096];
        while let Ok(count) = from.read(&mut piece) {
            if count == 0 {
                return;
            }
            let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
            to.extend(piece.iter().take(count));
        }
    })
}

//! A child process whose output is collected line by line, and which ends with its value.

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(5);

/// A running program. Dropping it kills it, by its own id.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    log: Arc<Log>,
}

/// A place in a process's output, so that a test can wait for what comes *after* it.
#[derive(Clone, Copy, Debug)]
pub struct Mark(pub(crate) usize);

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Process {
    /// Starts it with both outputs collected. `name` is for error texts.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn(name: &str, mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name} cannot be started ({command:?})"))?;
        let log = Arc::new(Log::default());
        if let Some(out) = child.stdout.take() {
            log.collect(out);
        }
        if let Some(err) = child.stderr.take() {
            log.collect(err);
        }
        Ok(Self {
            name: name.to_owned(),
            child,
            ended: None,
            log,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, if it still runs.
    ///
    /// # Errors
    ///
    /// When it has ended already, or the system refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // Asked first, so that the id cannot be that of another process by now.
        if let Some(status) = self.exit_status()? {
            bail!("{} has already ended: {status}{}", self.name, self.said());
        }
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("signal {signal:?} to {}", self.name))
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    ///
    /// When the system cannot say.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When it still runs after `limit`; it is then left running.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.exit_status()? {
                return Ok(status);
            }
            if started.elapsed() > limit {
                bail!("{} still runs after {limit:?}{}", self.name, self.said());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Ends it at once (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            self.child.kill().ok();
            self.ended = self.child.wait().ok();
        }
    }

    /// All that it has said so far, both outputs, in the order of arrival.
    pub fn log(&self) -> String {
        self.log.lines().join("\n")
    }

    /// The lines said so far.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lines().clone()
    }

    /// Whether some line holds `text`.
    pub fn log_contains(&self, text: &str) -> bool {
        self.log.lines().iter().any(|line| line.contains(text))
    }

    /// Where the output stands now.
    pub fn mark(&self) -> Mark {
        Mark(self.log.lines().len())
    }

    /// Waits for a line that holds `text`, said before or later, and gives it.
    ///
    /// # Errors
    ///
    /// When it does not come within `limit`, or the process ends without it.
    pub fn wait_log(&mut self, text: &str, limit: Duration) -> Result<String> {
        self.wait_line(Mark(0), limit, text, |line| line.contains(text))
    }

    /// The same for lines after `mark` only.
    ///
    /// # Errors
    ///
    /// As [`wait_log`](Self::wait_log).
    pub fn wait_log_after(&mut self, mark: Mark, text: &str, limit: Duration) -> Result<String> {
        self.wait_line(mark, limit, text, |line| line.contains(text))
    }

    /// The first line after `mark` that `matches`; `what` names it in the error.
    pub(crate) fn wait_line(
        &mut self,
        mark: Mark,
        limit: Duration,
        what: &str,
        matches: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let started = Instant::now();
        loop {
            // In this order: what it said before its end must be seen.
            let ended = self.exit_status()?;
            let found = self.log.find(mark, &matches);
            if let Some(line) = found {
                return Ok(line);
            }
            if let Some(status) = ended.filter(|_| self.log.settled()) {
                let said = self.said();
                return Err(anyhow!(
                    "{} ended ({status}) without saying {what:?}{said}",
                    self.name
                ));
            }
            if started.elapsed() > limit {
                bail!(
                    "{} did not say {what:?} within {limit:?}{}",
                    self.name,
                    self.said()
                );
            }
            self.log.wait_grown(POLL);
        }
    }

    pub(crate) fn said(&self) -> String {
        format!("; it said:\n{}", self.log())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            self.log.wait_settled(Duration::from_millis(200));
            eprintln!(
                "---- {} (pid {}){}\n----",
                self.name,
                self.pid(),
                self.said()
            );
        }
    }
}

impl Log {
    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads `from` to its end on a thread of its own, which holds a reference meanwhile.
    fn collect(self: &Arc<Self>, from: impl Read + Send + 'static) {
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(from);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line);
                log.lines().push(text.trim_end().to_owned());
                log.grown.notify_all();
                line.clear();
            }
        });
    }

    /// Both outputs have been read to their end.
    fn settled(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }

    fn wait_settled(self: &Arc<Self>, limit: Duration) {
        let started = Instant::now();
        while !self.settled() && started.elapsed() < limit {
            std::thread::sleep(POLL);
        }
    }

    fn find(&self, mark: Mark, matches: impl Fn(&str) -> bool) -> Option<String> {
        let lines = self.lines();
        lines
            .iter()
            .skip(mark.0)
            .find(|line| matches(line))
            .cloned()
    }

    fn wait_grown(&self, limit: Duration) {
        drop(self.grown.wait_timeout(self.lines(), limit));
    }
}

/// What a program that has ended left behind.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code, or `None` when a signal ended it.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error, as text.
    pub stderr: String,
}

impl Finished {
    /// Its standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs a program to its end.
///
/// # Errors
///
/// When it cannot be started, or still runs after `limit`; it is then killed.
pub fn run(mut command: Command, limit: Duration) -> Result<Finished> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?} cannot be started"))?;
    let stdout = slurp(child.stdout.take());
    let stderr = slurp(child.stderr.take());
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > limit {
            child.kill().ok();
            child.wait().ok();
            bail!("{command:?} still ran after {limit:?}");
        }
        std::thread::sleep(POLL);
    };
    let join = |reader: std::thread::JoinHandle<Vec<u8>>| {
        reader
            .join()
            .map_err(|_| anyhow!("the output of {command:?} cannot be read"))
    };
    Ok(Finished {
        code: status.code(),
        stdout: join(stdout)?,
        stderr: String::from_utf8_lossy(&join(stderr)?).into_owned(),
    })
}

fn slurp(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut from) = from {
            from.read_to_end(&mut all).ok();
        }
        all
    })
}

//! The access log, and the warnings about answers made here: one thread that takes the workers' records.
//!
//! Workers never wait for it: when its queue is full they drop a line and count it.

mod throttle;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use config::{LogFormat, LogTarget};
use control::reason::Reason;
use control::record::Record;

use throttle::{Throttle, Verdict};

/// Records that wait at most.
const QUEUE_MAX: usize = 8192;
/// Records that are written at once at most.
const BATCH_MAX: usize = 1024;
/// How long the thread waits for a record before it looks at what else there is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Where lines go, opened; `None`: nowhere.
pub(super) type Output = Option<(Box<dyn Write + Send>, LogFormat)>;

/// Opens what a config names.
///
/// # Errors
/// When its file cannot be opened, in words for the user.
pub(super) fn open(config: Option<&config::AccessLog>) -> Result<Output, String> {
    let Some(config) = config else {
        return Ok(None);
    };
    let output: Box<dyn Write + Send> = match &config.to {
        LogTarget::Stdout => Box::new(io::stdout()),
        LogTarget::Stderr => Box::new(io::stderr()),
        LogTarget::File(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Box::new(file.map_err(|error| format!("access_log: cannot open {path}: {error}"))?)
        }
    };
    Ok(Some((output, config.format)))
}

/// The running log.
pub(super) struct AccessLog {
    next: Next,
    thread: JoinHandle<()>,
}

/// What the thread is to write to from its next look on.
type Next = Arc<Mutex<Option<Output>>>;

impl AccessLog {
    /// Starts the thread; it ends when every sender is gone.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(output: Output) -> io::Result<(Self, SyncSender<Record>)> {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let next: Next = Arc::default();
        let writer = Writer {
            receiver,
            next: next.clone(),
            output,
            throttle: Throttle::default(),
            started: Instant::now(),
            failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run())?;
        Ok((Self { next, thread }, sender))
    }

    /// Writes to another output from now on.
    pub(super) fn change(&self, output: Output) {
        *lock(&self.next) = Some(output);
    }

    /// Waits until all is written; every sender must be gone.
    pub(super) fn end(self) {
        // A panic there has been printed already.
        let _ = self.thread.join();
    }
}

fn lock(next: &Next) -> MutexGuard<'_, Option<Output>> {
    next.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Writer {
    receiver: Receiver<Record>,
    next: Next,
    output: Output,
    throttle: Throttle,
    started: Instant,
    /// Whether the last write failed, so that it is told once.
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        let mut text = String::new();
        loop {
            let first = self.receiver.recv_timeout(LOOK_EVERY);
            if let Some(output) = lock(&self.next).take() {
                self.output = output;
            }
            match first {
                Ok(record) => self.take(&record, &mut text),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            for _ in 1..BATCH_MAX {
                let Ok(record) = self.receiver.try_recv() else {
                    break;
                };
                self.take(&record, &mut text);
            }
            self.write(&text);
            text.clear();
            self.tell_suppressed(false);
        }
        self.tell_suppressed(true);
    }

    fn take(&mut self, record: &Record, text: &mut String) {
        if let Some((_, format)) = &self.output {
            text.push_str(&record.line(*format));
            text.push('\n');
        }
        if let Some(reason) = record.reason
            && !matches!(reason, Reason::Filter | Reason::AcmeChallenge)
            && self.throttle.judge(reason, self.started.elapsed()) == Verdict::Tell
        {
            warn(record, reason);
        }
    }

    fn write(&mut self, text: &str) {
        let Some((output, _)) = &mut self.output else {
            return;
        };
        if text.is_empty() {
            return;
        }
        let written = output
            .write_all(text.as_bytes())
            .and_then(|()| output.flush());
        match written {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(%error, "the access log cannot be written; lines are lost");
            }
            Err(_) => {}
        }
    }

    fn tell_suppressed(&mut self, all: bool) {
        for (reason, count) in self.throttle.poll(self.started.elapsed(), all) {
            tracing::warn!(
                reason = reason.name(),
                count,
                "further answers made here were not logged"
            );
        }
    }
}

fn warn(record: &Record, reason: Reason) {
    let pool = record.server.as_ref().map(|(pool, _)| &**pool);
    let server = record.server.as_ref().map(|(_, server)| &**server);
    let shown = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    tracing::warn!(
        reason = reason.name(),
        status = record.status,
        listener = &*record.listener,
        route = record.route.as_deref(),
        pool,
        server,
        source = record.source.map(|source| source.to_string()),
        method = shown(&record.method),
        host = shown(&record.host),
        target = shown(&record.target),
        request_id = shown(&record.request_id),
        tries = record.tries,
        took_ms = u64::try_from(record.took.as_millis()).unwrap_or(u64::MAX),
        detail = shown(&record.detail),
        "{}",
        if reason == Reason::ClientClosed {
            "the client left"
        } else {
            "answered here"
        }
    );
}

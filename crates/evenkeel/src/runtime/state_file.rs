//! Operators' words over a restart: a small file, replaced as a whole by a thread of its own.
//!
//! Which words there are, and when one ends, is the publisher's matter.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::handover::{Live, LiveServer};
use control::publisher::Publisher;
use serde::{Deserialize, Serialize};

/// Bytes of a file that is read.
const BYTES_MAX: u64 = 64 << 20;
/// A file that could not be written is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// The form of the file.
const VERSION: u32 = 1;

/// What the file holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Document {
    version: u32,
    /// When it was written, in milliseconds since the Unix epoch: what is left of a drain counts from then.
    wall_ms: u64,
    #[serde(flatten)]
    words: Live,
}

/// The words that a file holds; none if there is no file. A damaged one, or one of another
/// version, is set aside, and said to be.
///
/// # Errors
/// When it is there and cannot be read, in words for the user.
pub(super) fn load(path: &str) -> Result<Live, String> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut text));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Live::default()),
        Err(error) => return Err(format!("state_file: cannot read {path}: {error}")),
    }
    let wall = wall();
    let why = match serde_json::from_slice::<Document>(&text) {
        Ok(document) if document.version == VERSION => {
            let mut servers = document.words.servers.iter();
            match servers.try_for_each(LiveServer::check_words) {
                Ok(()) => return Ok(document.words_at(wall)),
                Err(why) => format!("damaged ({why})"),
            }
        }
        Ok(Document { version: 0, .. }) => "damaged (it has no version)".to_owned(),
        Ok(Document { version, .. }) => {
            format!("of version {version}, and this evenkeel reads {VERSION}")
        }
        Err(error) => format!("damaged ({error})"),
    };
    let aside = format!("{path}.damaged-{}", wall.as_secs());
    match fs::rename(path, &aside) {
        Ok(()) => tracing::error!(
            path,
            aside,
            "the state file is {why}: it is set aside, and what operators had said is not known"
        ),
        Err(error) => {
            return Err(format!(
                "state_file: {path} is {why}, and cannot be set aside: {error}"
            ));
        }
    }
    Ok(Live::default())
}

impl Document {
    fn words_at(self, wall: Duration) -> Live {
        let passed = wall.saturating_sub(Duration::from_millis(self.wall_ms));
        let mut words = self.words;
        for server in &mut words.servers {
            server.drain = server.drain.map(|drain| drain.after(passed));
        }
        words
    }
}

/// Since the Unix epoch.
fn wall() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Whether a file can be written there.
///
/// # Errors
/// Why not, in words for the user.
pub(super) fn probe(path: &str) -> Result<(), String> {
    let beside = beside(Path::new(path), "probe");
    let probed = File::create(&beside).and_then(|_| fs::remove_file(&beside));
    probed.map_err(|error| format!("state_file: cannot write beside {path}: {error}"))
}

/// The writer, and what it was told last.
#[derive(Default)]
pub(super) struct StateFile {
    writer: Option<(Sender<Document>, JoinHandle<()>)>,
    path: Option<String>,
    version: Option<u64>,
    told: Live,
}

impl StateFile {
    /// Writes to this file from now on; what was to be written to another is written first.
    pub(super) fn change(&mut self, path: Option<&str>) {
        if self.path.as_deref() == path {
            return;
        }
        self.end();
        self.path = path.map(str::to_owned);
        let Some(path) = path.map(PathBuf::from) else {
            return;
        };
        let (sender, words) = channel();
        let thread = std::thread::Builder::new()
            .name("state-file".to_owned())
            .spawn(move || run(&path, &words));
        match thread {
            Ok(thread) => self.writer = Some((sender, thread)),
            Err(error) => tracing::error!(%error, "the state file is not written"),
        }
    }

    /// Has the words written if they are others than before.
    pub(super) fn tell(&mut self, publisher: &Publisher, now: Duration) {
        let Some((sender, _)) = &self.writer else {
            return;
        };
        let version = Some(publisher.words_version());
        if self.version == version {
            return;
        }
        let words = publisher.words(now);
        if self.version.is_none() || self.told != words {
            // The thread ends only when this end is dropped.
            let _ = sender.send(Document {
                version: VERSION,
                wall_ms: u64::try_from(wall().as_millis()).unwrap_or(u64::MAX),
                words: words.clone(),
            });
            self.told = words;
        }
        self.version = version;
    }

    /// Waits until all is written; nothing is from then on.
    pub(super) fn end(&mut self) {
        if let Some((sender, thread)) = self.writer.take() {
            drop(sender);
            // A panic there has been printed already.
            let _ = thread.join();
        }
        self.path = None;
        self.version = None;
    }
}

/// Writes the newest words: those that came while it wrote are passed over but for the last.
fn run(path: &Path, words: &Receiver<Document>) {
    let mut waiting: Option<Document> = None;
    let mut failed = false;
    loop {
        let next = match &waiting {
            None => words.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => words.recv_timeout(TRY_AGAIN),
        };
        let is_over = matches!(next, Err(RecvTimeoutError::Disconnected));
        if let Some(newest) = next.ok().into_iter().chain(words.try_iter()).last() {
            waiting = Some(newest);
        }
        if let Some(newest) = waiting.take() {
            match write(path, &newest) {
                Ok(()) => failed = false,
                Err(error) => {
                    if !failed {
                        let path = path.display();
                        tracing::error!(%path, %error, "the state file cannot be written; it is tried again");
                    }
                    failed = true;
                    waiting = Some(newest);
                }
            }
        }
        if is_over {
            return;
        }
    }
}

/// Replaces the file: whoever reads it, also after a crash of the machine, finds all of the old or all of the new.
fn write(path: &Path, document: &Document) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(document)?;
    text.push(b'\n');
    let new = beside(path, "new");
    let mut file = File::create(&new)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{what}"));
    PathBuf::from(beside)
}

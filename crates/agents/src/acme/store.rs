//! Where what comes from one authority is kept: an account, and for each name a file with key and certificate and one
//! with what else is known of it. Several instances may share it.
//!
//! Every file is replaced as a whole: whoever reads it, also after a crash of the machine, finds all of the old or all
//! of the new. Only this user can read them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::Certificate;
use control::acme::{Failures, Window};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes of a file that is read.
const BYTES_MAX: u64 = 1 << 20;
/// Answers that are pending at once, of all instances.
const CHALLENGES_MAX: usize = 1000;
/// A folder that changed within this is read again: its clock may be coarse.
const COARSE: Duration = Duration::from_secs(3);

/// Wall time, since the Unix epoch.
pub(super) fn wall() -> Duration {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    wall.unwrap_or_default()
}

/// What is known of a name beside its certificate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Known {
    /// Attempts that failed, since the last that did not.
    pub(super) failures: Option<Failures>,
    /// The settings that those failed with: with others it is tried at once.
    pub(super) settings: String,
    /// When the authority wants the certificate to be renewed.
    pub(super) window: Option<Window>,
    /// The certificate that this is said of: the end of its life.
    pub(super) window_of: Duration,
    /// Wall time at which the authority is asked that next.
    pub(super) ask_window: Duration,
}

/// An answer that is pending, for every instance to give.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Wall time after which nobody asks any more.
    pub(super) until: Duration,
    #[serde(flatten)]
    pub(super) what: What,
}

/// What is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// To a request for a token.
    Http {
        /// The last part of the path.
        token: String,
        /// The body.
        key_authorization: String,
    },
    /// In a handshake.
    Tls {
        /// The name that is asked for.
        domain: String,
        /// Key and certificate.
        pem: String,
    },
}

/// Tells one state of a file or folder from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// Of what is at a path; `None` if nothing is.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }

    /// Whether another change could have left the same stamp.
    fn is_fresh(&self, now: Duration) -> bool {
        let changed = u64::try_from(self.changed.0).unwrap_or(0);
        now.saturating_sub(COARSE) < Duration::from_secs(changed)
    }
}

/// The folder of one authority.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) folder: PathBuf,
    /// Tells this process from others that share the folder.
    holder: String,
}

impl Store {
    /// Makes the folder if need be, and sees whether it can be used.
    ///
    /// # Errors
    /// Why not, in words for the user.
    pub(super) fn open(folder: &str, holder: &str) -> Result<Self, String> {
        let store = Self {
            folder: PathBuf::from(folder),
            holder: holder.to_owned(),
        };
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(store.challenges_folder());
        let usable = made.and_then(|()| {
            let probe = store.folder.join(format!(".probe.{holder}"));
            create(&probe).and_then(|_| fs::remove_file(&probe))
        });
        match usable {
            Ok(()) => Ok(store),
            Err(error) => Err(format!("acme: the store {folder} cannot be used: {error}")),
        }
    }

    /// The same without making or trying anything.
    pub(super) fn glance(folder: &str) -> Self {
        Self {
            folder: PathBuf::from(folder),
            holder: String::new(),
        }
    }

    pub(super) fn holder(&self) -> &str {
        &self.holder
    }

    fn challenges_folder(&self) -> PathBuf {
        self.folder.join("challenges")
    }

    fn certificate_path(&self, domain: &str) -> PathBuf {
        self.folder.join(format!("{domain}.pem"))
    }

    /// The state of the file with a name's certificate.
    pub(super) fn certificate_stamp(&self, domain: &str) -> Option<Stamp> {
        Stamp::of(&self.certificate_path(domain))
    }

    /// The certificate for a name, if there is one.
    ///
    /// # Errors
    /// When there is a file that holds none for the name, in words for the user.
    pub(super) fn certificate(&self, domain: &str) -> Result<Option<Certificate>, String> {
        let path = self.certificate_path(domain);
        let shown = path.display().to_string();
        let text = match read(&path) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            Err(error) => return Err(format!("{shown} cannot be read: {error}")),
        };
        let found = Certificate::from_pem(&text, &shown, &shown);
        let found = found.map_err(|why| format!("{shown} is damaged: {why}"))?;
        if !found.covers(domain) {
            return Err(format!("{shown} holds a certificate for another name"));
        }
        Ok(Some(found))
    }

    /// Keeps key and certificate of a name.
    pub(super) fn put_certificate(&self, domain: &str, pem: &str) -> io::Result<()> {
        self.replace(&self.certificate_path(domain), pem.as_bytes())
    }

    /// What else is known of a name; nothing if that cannot be read.
    pub(super) fn known(&self, domain: &str) -> Known {
        let path = self.folder.join(format!("{domain}.json"));
        read_json(&path).unwrap_or_default()
    }

    pub(super) fn put_known(&self, domain: &str, known: &Known) -> io::Result<()> {
        let path = self.folder.join(format!("{domain}.json"));
        self.replace(&path, &serde_json::to_vec_pretty(known)?)
    }

    /// The account's document, as it was kept.
    ///
    /// # Errors
    /// When it is there and cannot be read: another account would hide that.
    pub(super) fn account(&self) -> io::Result<Option<String>> {
        read(&self.account_path())
    }

    pub(super) fn put_account(&self, text: &[u8]) -> io::Result<()> {
        self.replace(&self.account_path(), text)
    }

    /// Sets the account aside: the authority does not know it any more.
    pub(super) fn forget_account(&self) -> io::Result<()> {
        let aside = format!("account.json.unknown-{}", wall().as_secs());
        fs::rename(self.account_path(), self.folder.join(aside))
    }

    fn account_path(&self) -> PathBuf {
        self.folder.join("account.json")
    }

    /// The states of what changes when anything does; `None` when they say nothing certain.
    pub(super) fn stamps(&self, now: Duration) -> Option<[Option<Stamp>; 2]> {
        let stamps = [
            Stamp::of(&self.folder),
            Stamp::of(&self.challenges_folder()),
        ];
        let is_fresh = stamps.iter().flatten().any(|stamp| stamp.is_fresh(now));
        (!is_fresh).then_some(stamps)
    }

    /// Answers that are pending, by the name of their file. Those of the past are removed.
    pub(super) fn answers(&self, now: Duration) -> BTreeMap<String, Answer> {
        let mut found = BTreeMap::new();
        let Ok(entries) = fs::read_dir(self.challenges_folder()) else {
            return found;
        };
        for entry in entries.flatten().take(CHALLENGES_MAX) {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let answer: Option<Answer> = read_json(&path);
            match answer {
                Some(answer) if answer.until > now => {
                    found.insert(name, answer);
                }
                // Another instance may have been quicker.
                _ => drop(fs::remove_file(&path)),
            }
        }
        found
    }

    /// Has every instance give an answer; gives the name of its file.
    pub(super) fn put_answer(&self, answer: &Answer) -> io::Result<String> {
        let name = match &answer.what {
            What::Http { token, .. } => format!("http-{}.json", plain(token)),
            What::Tls { domain, .. } => format!("tls-{}.json", plain(domain)),
        };
        let path = self.challenges_folder().join(&name);
        self.replace(&path, &serde_json::to_vec_pretty(answer)?)?;
        Ok(name)
    }

    pub(super) fn remove_answer(&self, name: &str) {
        // Gone is gone.
        let _ = fs::remove_file(self.challenges_folder().join(name));
    }

    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let new = path.with_file_name(format!(".{name}.{}", self.holder));
        let written = create(&new).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, path)
        });
        if let Err(error) = written {
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(BYTES_MAX).read_to_string(&mut text)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(text))
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = read(path).ok()??;
    serde_json::from_str(&text).ok()
}

/// What an authority names, fit for the name of a file.
fn plain(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let kept = text.chars().map(|c| if plain(c) { c } else { '_' });
    kept.take(200).collect()
}

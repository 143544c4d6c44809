//! Where a config comes from: files, the environment, the system's name resolution.
//!
//! Reads what it is asked for and nothing else; what the text means is `config`'s matter.

use std::cell::RefCell;
use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use config::{Found, Source};

/// Where a config is looked for when none is named.
pub(crate) const DEFAULT_FILES: [&str; 2] = ["./evenkeel.yaml", "/etc/evenkeel/evenkeel.yaml"];
/// Bytes of one file; one more than a config may have is enough to be told so.
const FILE_BYTES_MAX: u64 = (16 << 20) + 1;
/// All look-ups of one load together.
const RESOLVE_MAX: Duration = Duration::from_secs(2);

/// Wall time, since the Unix epoch.
pub(crate) fn wall() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

/// What a config is read from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// A file.
    File(PathBuf),
    /// A text that the command line stands for, and what errors call it.
    Text { name: &'static str, text: String },
}

impl Origin {
    /// The named file, or the first of the default ones that is there.
    ///
    /// # Errors
    /// Which paths were looked at, when there is none.
    pub(crate) fn find(file: Option<&Path>) -> Result<Self, String> {
        let found = match file {
            Some(file) => Some(file.to_owned()).filter(|file| file.exists()),
            None => DEFAULT_FILES
                .iter()
                .map(PathBuf::from)
                .find(|file| file.exists()),
        };
        found.map(Self::File).ok_or_else(|| match file {
            Some(file) => format!("there is no file {}", file.display()),
            None => format!("no config: looked for {}", DEFAULT_FILES.join(" and ")),
        })
    }

    /// Reads it, and everything that it includes.
    pub(crate) fn load(&self) -> config::Loaded {
        self.load_watched().0
    }

    /// The same, with the files that were read and the folders that were looked into: what to watch for changes.
    pub(crate) fn load_watched(&self) -> (config::Loaded, Vec<PathBuf>) {
        let (path, given) = match self {
            Self::File(path) => (path.to_string_lossy(), None),
            Self::Text { name, text } => ((*name).into(), Some((*name, text.as_str()))),
        };
        let files = Files::new(given);
        let loaded = config::load(&path, &files);
        (loaded, files.looked_at.into_inner())
    }
}

/// The file system, the environment and the resolver, for one load.
struct Files<'a> {
    /// A path that stands for this text.
    given: Option<(&'a str, &'a str)>,
    resolve_until: Instant,
    looked_at: RefCell<Vec<PathBuf>>,
}

impl<'a> Files<'a> {
    fn new(given: Option<(&'a str, &'a str)>) -> Self {
        Self {
            given,
            resolve_until: Instant::now() + RESOLVE_MAX,
            looked_at: RefCell::default(),
        }
    }
}

impl Source for Files<'_> {
    fn read(&self, path: &str) -> Result<String, String> {
        if let Some((name, text)) = self.given
            && name == path
        {
            return Ok(text.to_owned());
        }
        self.looked_at.borrow_mut().push(PathBuf::from(path));
        read_text(Path::new(path)).map_err(|error| error.to_string())
    }

    fn read_bytes(&self, path: &str) -> Result<Vec<u8>, String> {
        self.looked_at.borrow_mut().push(PathBuf::from(path));
        read_file(Path::new(path)).map_err(|error| error.to_string())
    }

    fn found(&self, path: &str) -> Found {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Found::Folder,
            Ok(_) => Found::File,
            Err(error) if error.kind() == ErrorKind::NotFound => Found::Nothing,
            Err(_) => Found::Unknown,
        }
    }

    #[cfg(unix)]
    fn is_open_to_others(&self, path: &str) -> bool {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = std::fs::metadata(path);
        metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
    }

    fn wall(&self) -> Option<Duration> {
        Some(wall())
    }

    fn glob(&self, pattern: &str) -> Result<Vec<String>, String> {
        let folder = agents::watch::folder_of(pattern);
        self.looked_at.borrow_mut().push(folder);
        glob(pattern)
    }

    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn resolves(&self, name: &str) -> Option<bool> {
        let left = self.resolve_until.saturating_duration_since(Instant::now());
        match resolve(name, left) {
            Some(Ok(addresses)) => Some(!addresses.is_empty()),
            Some(Err(_)) => Some(false),
            None => None,
        }
    }
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_text(path: &Path) -> std::io::Result<String> {
    String::from_utf8(read_file(path)?)
        .map_err(|_| std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// Asks the system for a name's addresses; `None` when it does not answer in time.
///
/// The system's call cannot be stopped, so it is left to a thread of its own, which ends with it.
pub(crate) fn resolve(name: &str, limit: Duration) -> Option<std::io::Result<Vec<IpAddr>>> {
    if limit.is_zero() {
        return None;
    }
    let (sender, receiver) = mpsc::channel();
    let name = name.to_owned();
    std::thread::Builder::new()
        .name("resolve".to_owned())
        .spawn(move || {
            let addresses = (name.as_str(), 0)
                .to_socket_addrs()
                .map(|found| found.map(|address| address.ip()).collect());
            sender.send(addresses).ok();
        })
        .ok()?;
    receiver.recv_timeout(limit).ok()
}

/// The files of one folder whose names match; the folder's own name is taken as it stands.
fn glob(pattern: &str) -> Result<Vec<String>, String> {
    let (folder, name) = match pattern.rsplit_once('/') {
        Some((folder, name)) => (Some(folder), name),
        None => (None, pattern),
    };
    if folder.is_some_and(|folder| folder.contains(['*', '?', '['])) {
        return Err("`*` and `?` may stand in the last part of a path only".to_owned());
    }
    if name.contains('[') {
        return Err("`[…]` is not supported here; use `*` and `?`".to_owned());
    }
    let looked_in = match folder {
        Some("") => "/",
        Some(folder) => folder,
        None => ".",
    };
    let entries = match std::fs::read_dir(looked_in) {
        Ok(entries) => entries,
        // A folder that is not there holds nothing, as a shell has it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| error.to_string())?;
        let Ok(file) = entry.file_name().into_string() else {
            continue;
        };
        if matches(name, &file) && entry.path().is_file() {
            found.push(match folder {
                Some(folder) => format!("{folder}/{file}"),
                None => file,
            });
        }
    }
    found.sort();
    Ok(found)
}

/// Whether `name` matches `pattern`, in which `*` is any text and `?` any character. As in a shell, a leading dot
/// wants to be written.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut of) = (0, 0);
    // Where the last star stood, and how much of the name it takes.
    let mut star: Option<(usize, usize)> = None;
    while of < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(c) if *c == '?' || name.get(of) == Some(c) => {
                at += 1;
                of += 1;
            }
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    at = star_at + 1;
                    of = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_patterns() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        };
        check("*.yaml", "a.yaml", true);
        check("*.yaml", ".yaml", false);
        check("*.yaml", "a.yml", false);
        check("*.yaml", "a.yaml.bak", false);
        check("??-*.yaml", "10-a.yaml", true);
        check("??-*.yaml", "1-a.yaml", false);
        check("*a*b*", "xxaxxbxx", true);
        check("*a*b*", "xxbxxaxx", false);
        check("a*a", "a", false);
        check("*", "é", true);
        check("?", "é", true);
        check(".*", ".a", true);
    }

    #[test]
    fn a_folder_that_is_not_there_holds_nothing() {
        assert_eq!(glob("/nonexistent-folder/*.yaml"), Ok(Vec::new()));
        assert!(glob("conf*/x.yaml*").is_err());
    }

    #[test]
    fn a_missing_file_is_told_with_the_paths() {
        let error = Origin::find(Some(Path::new("/nonexistent/x.yaml"))).expect_err("no file");
        assert_eq!(error, "there is no file /nonexistent/x.yaml");
    }
}

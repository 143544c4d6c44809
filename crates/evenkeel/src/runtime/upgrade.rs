//! Upgrade in place: a running process hands its sockets and what it knows to a new one, and drains.
//!
//! ```text
//! old                                   new
//!  | starts it; Hello, every socket  ->  | reads the config, adopts or binds, starts workers
//!  |                     <-  "prepared"  | nothing is accepted yet: whatever can fail has been done
//!  | State: health, words, totals    ->  | takes it in, accepts
//!  |                        <-  "ready"  | until here the old one goes on if the new one fails
//!  | stops accepting; Update         ->  | probes, admin, state file are its own from here on
//!  | drains; an Update each second   ->  | totals grow by what the old one still counts
//!  |                     <-  Word        | what operators and reloads say of servers
//!  | obeys; Update                   ->  | who waits for that is answered
//! ```
//!
//! `successor` is the old one's side, `predecessor` the new one's. Who decides is the shell.

mod channel;
mod document;
mod predecessor;
mod successor;

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

pub(super) use document::{AdminSocket, Hello, Sockets, State, Tickets};
pub(super) use predecessor::{Following, Predecessor};
pub(super) use successor::{Event, Plan, Ready, Successor};

/// Tells a new process that it is one, and where its predecessor is heard: on its standard input.
const VARIABLE: &str = "EVENKEEL_UPGRADE";

/// What this process was started from, as it was at the start: the file may be another by the time of an upgrade.
#[derive(Debug, Clone)]
pub(super) struct Invocation {
    binary: PathBuf,
    arguments: Vec<OsString>,
}

impl Invocation {
    /// To be called at the start.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(super) fn now() -> std::io::Result<Self> {
        Ok(Self {
            binary: std::env::current_exe()?,
            arguments: std::env::args_os().collect(),
        })
    }

    /// What to start for an upgrade.
    ///
    /// # Errors
    /// Why another binary is not to be trusted, in words for the user.
    pub(super) fn program(&self, other: Option<&str>) -> Result<Program, String> {
        let mut program = Program {
            path: self.binary.clone(),
            shown: self.binary.clone(),
            arguments: self.arguments.clone(),
            _open: None,
        };
        if let Some(other) = other {
            let open = open_trusted(Path::new(other)).map_err(|why| format!("{other}: {why}"))?;
            program.path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
            program.shown = PathBuf::from(other);
            program._open = Some(open);
        }
        Ok(program)
    }
}

/// A file that is to be run.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    shown: PathBuf,
    arguments: Vec<OsString>,
    /// Keeps `path` what was looked at.
    _open: Option<File>,
}

/// Who may use the admin listener may name a binary: it must be one that somebody who can act for this process's user
/// has put there. What was looked at is what will be run, whatever becomes of the path.
fn open_trusted(path: &Path) -> Result<File, String> {
    if !path.is_absolute() {
        return Err("an absolute path is expected".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    let found = file.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is not a file".to_owned());
    }
    let user = rustix::process::geteuid().as_raw();
    if found.uid() != 0 && found.uid() != user {
        return Err(format!(
            "it belongs to user {}; it must belong to root or to the user that evenkeel runs as ({user})",
            found.uid()
        ));
    }
    if found.mode() & 0o022 != 0 {
        return Err("its group or others may write to it: `chmod go-w` first".to_owned());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_binary_that_others_can_write_is_not_run() {
        let dir = std::env::temp_dir().join(format!("evenkeel-upgrade-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("it works");
        let path = dir.join("binary");
        std::fs::write(&path, "x").expect("it works");
        for (mode, trusted) in [(0o755, true), (0o775, false), (0o757, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
                .expect("it works");
            assert_eq!(open_trusted(&path).is_ok(), trusted, "{mode:o}");
        }
        assert!(
            open_trusted(&dir)
                .expect_err("it is refused")
                .contains("not a file")
        );
        assert!(
            open_trusted(Path::new("x"))
                .expect_err("it is refused")
                .contains("absolute")
        );
        std::fs::remove_dir_all(&dir).expect("it works");
    }
}

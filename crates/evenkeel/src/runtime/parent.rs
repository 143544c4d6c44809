//! As process 1 of a container: a thin parent, since the end of process 1 is the container's.
//!
//! It starts this binary once more with the same arguments, and from then on passes signals on, reaps what has ended,
//! and follows the process that serves over upgrades; it ends when there is none any more, with that one's exit code.
//! Who serves tells it by a datagram; as with systemd's `MAINPID=` only the one that serves names another. The socket's
//! name can be seen by everybody, so that a word has a secret in it, which only this user's processes can know.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};

use super::{limits, logging};
use crate::exit;

/// Tells a process the abstract address of its parent's socket and, behind a blank, the secret.
const VARIABLE: &str = "EVENKEEL_PARENT";
/// Set by a service manager to the process that its sockets are for; without it they are for whoever has them.
const LISTEN_PID: &str = "LISTEN_PID";
/// Bytes of a datagram: the secret and two numbers.
const WORD_BYTES_MAX: usize = 128;
/// What the end by a signal adds to its number, as shells have it.
const BY_SIGNAL: i32 = 128;

/// Whether this process is to be a parent only.
pub(crate) fn is_needed() -> bool {
    std::process::id() == 1
}

/// Says to the parent, if there is one, which process serves.
pub(super) fn tell(pid: u32) {
    let Ok(parent) = std::env::var(VARIABLE) else {
        return;
    };
    let (name, secret) = parent.split_once(' ').unwrap_or((&parent, ""));
    let word = format!("{secret} {} {pid}", std::process::id());
    let told = SocketAddr::from_abstract_name(name).and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(word.as_bytes(), &address)
    });
    if let Err(error) = told {
        tracing::warn!(%error, "process 1 cannot be told which process serves");
    }
}

/// Stays until no process serves any more.
///
/// # Errors
/// What the system refused.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    if let Err(error) = logging::init() {
        return Ok(exit::wrong(error));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let code = runtime.block_on(watch())?;
    Ok(ExitCode::from(code))
}

async fn watch() -> anyhow::Result<u8> {
    // First, so that none that comes while the child starts is lost.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    let mut ended = signal(SignalKind::child())?;
    let parent = Parent::listen().context("the socket for those that serve")?;
    let started = parent.start();
    let mut family = Family::new(started.context("this binary cannot be started again")?);
    tracing::info!(
        serves = family.main,
        "process 1 of a container: process {} serves, this one only watches",
        family.main
    );
    loop {
        tokio::select! {
            _ = hangup.recv() => pass_on(Signal::HUP, &[family.main]),
            _ = user2.recv() => pass_on(Signal::USR2, &[family.main]),
            _ = terminate.recv() => pass_on(Signal::TERM, &family.all()),
            _ = interrupt.recv() => pass_on(Signal::INT, &family.all()),
            heard = parent.socket.readable() => {
                heard?;
                parent.hear(&mut family);
            }
            _ = ended.recv() => {
                // What one said before it ended is heard before its end.
                parent.hear(&mut family);
                if let Some(code) = reap(&mut family) {
                    return Ok(code);
                }
            }
        }
    }
}

/// What it takes to be told who serves.
struct Parent {
    socket: tokio::net::UnixDatagram,
    name: String,
    secret: String,
}

impl Parent {
    /// To be called on a runtime.
    fn listen() -> io::Result<Self> {
        let name = format!("evenkeel-parent-{:016x}", limits::seed());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: tokio::net::UnixDatagram::from_std(socket)?,
            name,
            secret: format!("{:016x}{:016x}", limits::seed(), limits::seed()),
        })
    }

    /// Starts the process that serves.
    fn start(&self) -> io::Result<u32> {
        let mut arguments = std::env::args_os();
        let mut command = Command::new(std::env::current_exe()?);
        if let Some(own) = arguments.next() {
            command.arg0(own);
        }
        command
            .args(arguments)
            .env(VARIABLE, format!("{} {}", self.name, self.secret))
            // A group of its own: what a terminal sends reaches it once, from here.
            .process_group(0);
        let own = std::process::id().to_string();
        if std::env::var(LISTEN_PID).is_ok_and(|pid| pid == own) {
            command.env_remove(LISTEN_PID);
        }
        Ok(command.spawn()?.id())
    }

    /// Takes in whatever was said.
    fn hear(&self, family: &mut Family) {
        let mut word = [0; WORD_BYTES_MAX];
        loop {
            match self.socket.try_recv(&mut word) {
                Ok(bytes) => {
                    let word = word.get(..bytes).unwrap_or_default();
                    if let Some((from, main)) = self.read(word) {
                        family.handle_word(from, main);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "what the process that serves has to say is lost");
                    return;
                }
            }
        }
    }

    /// Who says it, and which process serves.
    fn read(&self, word: &[u8]) -> Option<(u32, u32)> {
        let mut words = std::str::from_utf8(word).ok()?.split(' ');
        if words.next() != Some(self.secret.as_str()) {
            return None;
        }
        let from = words.next()?.parse().ok()?;
        Some((from, words.next()?.parse().ok()?))
    }
}

fn pass_on(signal: Signal, to: &[u32]) {
    for pid in to.iter().filter_map(|pid| process(*pid)) {
        // One that has just ended is about to be reaped.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Reaps all that have ended; the code to end with, if that is due.
fn reap(family: &mut Family) -> Option<u8> {
    loop {
        let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(ended)) => ended,
            Ok(None) => return None,
            Err(rustix::io::Errno::INTR) => continue,
            // There is no child any more.
            Err(_) => return family.code,
        };
        let pid = u32::try_from(pid.as_raw_nonzero().get()).unwrap_or_default();
        if let Some(code) = family.handle_end(pid, code(status), is_child) {
            return Some(code);
        }
    }
}

fn code(status: WaitStatus) -> u8 {
    let code = status
        .exit_status()
        .or_else(|| Some(BY_SIGNAL + status.terminating_signal()?));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(exit::REFUSED)
}

/// Whether it runs, and its end would be told here: those whose parents have ended are process 1's.
fn is_child(pid: u32) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let looked = process(pid).map(|pid| rustix::process::waitid(WaitId::Pid(pid), look));
    matches!(looked, Some(Ok(None)))
}

fn process(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Which processes there are, and which of them serves.
#[derive(Debug, PartialEq, Eq)]
struct Family {
    main: u32,
    /// Those that served before, and drain.
    draining: BTreeSet<u32>,
    /// One that says of itself that it serves, which nobody has said of it yet.
    claims: Option<u32>,
    /// Set once none serves any more.
    code: Option<u8>,
}

impl Family {
    fn new(main: u32) -> Self {
        Self {
            main,
            draining: BTreeSet::new(),
            claims: None,
            code: None,
        }
    }

    fn all(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.draining.iter().copied().collect();
        all.push(self.main);
        all
    }

    /// A process says which one serves.
    fn handle_word(&mut self, from: u32, main: u32) {
        if main == self.main {
            return;
        }
        if from == self.main {
            self.draining.insert(self.main);
            self.follow(main);
        } else if from == main {
            self.claims = Some(main);
        }
    }

    /// A process has ended; the code to end with, if that is due. One that ended well has others drain to their end;
    /// after any other end whoever has started this container is to know at once.
    fn handle_end(&mut self, pid: u32, code: u8, is_child: impl Fn(u32) -> bool) -> Option<u8> {
        self.draining.remove(&pid);
        if pid == self.main && self.code.is_none() {
            match self.claims.filter(|next| is_child(*next)) {
                Some(next) => self.follow(next),
                None => self.code = Some(code),
            }
        }
        self.code
            .filter(|code| *code != 0 || self.draining.is_empty())
    }

    fn follow(&mut self, main: u32) {
        self.main = main;
        self.claims = None;
        tracing::info!(serves = main, "process {main} serves now");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `from>main` is a word, `pid=code` an end; then who serves, who drains, and the code to end with.
    #[track_caller]
    fn check(story: &str, main: u32, draining: &[u32], code: Option<u8>) {
        let number = |text: &str| text.parse::<u32>().expect("a number");
        let mut family = Family::new(2);
        let mut ended = None;
        for step in story.split_whitespace() {
            assert_eq!(ended, None, "{story}: it has ended before {step}");
            if let Some((from, main)) = step.split_once('>') {
                family.handle_word(number(from), number(main));
            } else if let Some((pid, code)) = step.split_once('=') {
                let code = u8::try_from(number(code)).expect("a code");
                ended = family.handle_end(number(pid), code, |child| child < 50);
            }
        }
        let drain: Vec<u32> = family.draining.iter().copied().collect();
        assert_eq!(
            (family.main, &*drain, ended),
            (main, draining, code),
            "{story}"
        );
    }

    #[test]
    fn the_end_of_the_one_that_serves_is_the_end() {
        check("2>2", 2, &[], None);
        check("2=0", 2, &[], Some(0));
        check("2=3", 2, &[], Some(3));
        check("9=1", 2, &[], None);
    }

    #[test]
    fn it_is_followed_over_upgrades() {
        check("2>7", 7, &[2], None);
        check("7>7 2>7 7>7 2=0", 7, &[], None);
        check("2>7 2=0 7>9 7=0 9=0", 9, &[], Some(0));
        // A new process that fails is no more than an end.
        check("7=1", 2, &[], None);
    }

    #[test]
    fn only_who_serves_names_another() {
        check("9>7", 2, &[], None);
        check("9>7 2=137", 2, &[], Some(137));
        // It died before it could say so: who says that it serves is believed, if it is a child of this process.
        check("7>7 2=137", 7, &[], None);
        check("77>77 2=137", 2, &[], Some(137));
    }

    #[test]
    fn who_drains_is_waited_for_after_a_good_end_only() {
        check("2>7 7=0", 7, &[2], None);
        check("2>7 7=0 2=1", 7, &[], Some(0));
        check("2>7 7=134", 7, &[2], Some(134));
    }
}

//! The shell's part of an upgrade: when one may begin, what the new process is told, and what becomes of this one.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use admin::Console;
use config::{Bind, Shutdown};
use control::handover::{Obeyed, Word};
use control::message::{Answer, Reply};
use sd_notify::NotifyState;

use super::super::ending::Ending;
use super::super::parent;
use super::super::upgrade::{
    AdminSocket, Event, Following, Hello, Invocation, Plan, Ready, Sockets, State, Successor,
    Tickets,
};
use super::{Shell, answer, notify};

/// How long the new process has to be ready when nobody says.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often the new process is told what is still counted here.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How far an upgrade is.
pub(in crate::runtime) struct Upgrading {
    /// `None`: this process cannot be upgraded.
    invocation: Option<Invocation>,
    /// The process before this one, until it has ended.
    predecessor: Option<Following>,
    stage: Stage,
}

enum Stage {
    None,
    Starting {
        successor: Successor,
        reply: Option<Reply>,
        /// Whether it has been told what is known, for the last time.
        is_told: bool,
    },
    HandedOver {
        successor: Successor,
        adopted: BTreeSet<Bind>,
        /// When the new process was told last.
        told: Instant,
        /// Whether a signal has asked for the end since.
        is_asked: bool,
    },
}

impl Upgrading {
    pub(in crate::runtime) fn new(
        invocation: Option<Invocation>,
        predecessor: Option<Following>,
    ) -> Self {
        Self {
            invocation,
            predecessor,
            stage: Stage::None,
        }
    }

    /// What the new process has to say; for ever if there is none. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Event {
        match &mut self.stage {
            Stage::Starting { successor, .. } | Stage::HandedOver { successor, .. } => {
                successor.next().await
            }
            Stage::None => std::future::pending().await,
        }
    }

    /// Whether a new process is starting or serves.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.stage, Stage::None)
    }

    /// Whether a new process has taken what is known, and does not serve yet.
    pub(super) fn is_told(&self) -> bool {
        matches!(self.stage, Stage::Starting { is_told: true, .. })
    }

    pub(super) fn has_handed_over(&self) -> bool {
        self.adopted().is_some()
    }

    /// The addresses that another process goes on with, once one does.
    pub(super) fn adopted(&self) -> Option<&BTreeSet<Bind>> {
        match &self.stage {
            Stage::HandedOver { adopted, .. } => Some(adopted),
            Stage::None | Stage::Starting { .. } => None,
        }
    }

    /// Tells the process before this one.
    pub(super) fn forward(&self, word: Word) {
        if let Some(predecessor) = &self.predecessor {
            predecessor.send(word);
        }
    }

    /// There is nobody to tell any more.
    pub(super) fn forget_predecessor(&mut self) {
        self.predecessor = None;
    }

    /// Tells the process after this one.
    pub(super) fn send_obeyed(&self, obeyed: Obeyed) {
        if let Stage::HandedOver { successor, .. } = &self.stage {
            successor.send_obeyed(obeyed);
        }
    }

    /// Tells what was counted to the last.
    pub(super) fn end(self, console: &Console) {
        match self.stage {
            Stage::None => {}
            Stage::Starting { successor, .. } => successor.end(),
            Stage::HandedOver { successor, .. } => {
                successor.send_totals(console, true);
                successor.end();
            }
        }
    }
}

impl Shell {
    pub(super) fn begin_upgrade_by_signal(&mut self) {
        self.begin_upgrade(None, TIMEOUT, None);
    }

    pub(super) fn begin_upgrade(
        &mut self,
        binary: Option<&str>,
        timeout: Duration,
        reply: Option<Reply>,
    ) {
        match self.start_successor(binary, timeout) {
            Ok(successor) => {
                self.upgrading.stage = Stage::Starting {
                    successor,
                    reply,
                    is_told: false,
                };
            }
            Err(why) => not_upgraded(reply, vec![why]),
        }
    }

    fn start_successor(
        &self,
        binary: Option<&str>,
        timeout: Duration,
    ) -> Result<Successor, String> {
        let predecessor = self.upgrading.predecessor.as_ref();
        let drains = || predecessor.is_some_and(Following::drains);
        let invocation = self.upgrading.invocation.as_ref();
        let why = match &self.upgrading.stage {
            Stage::Starting { .. } => "an upgrade is under way already",
            Stage::HandedOver { .. } => "another process has taken over: ask that one",
            Stage::None if self.ending.is_some() => "the process is ending",
            Stage::None if self.reloads.is_reading() => "a reload is under way",
            Stage::None if drains() => {
                "the process before this one still drains: try again when it has ended"
            }
            Stage::None if invocation.is_none() => "this command cannot be upgraded",
            Stage::None => "",
        };
        let Some(invocation) = invocation.filter(|_| why.is_empty()) else {
            return Err(why.to_owned());
        };
        let program = invocation.program(binary)?;
        let (hello, sockets) = self
            .hello()
            .map_err(|error| format!("the sockets cannot be handed over: {error}"))?;
        let plan = Plan {
            program,
            hello,
            sockets,
            timeout,
        };
        Successor::start(plan).map_err(|error| error.to_string())
    }

    fn hello(&self) -> std::io::Result<(Hello, Vec<OwnedFd>)> {
        let mut all = Vec::new();
        let mut listed = Vec::new();
        for (bind, handed) in self.engine.descriptors()? {
            listed.push(Sockets::new(&bind, handed.unlink, handed.sockets.len()));
            all.extend(handed.sockets);
        }
        let mut admin = None;
        if let (Some(task), Some(config)) = (&self.admin, &self.admin_config) {
            all.push(task.descriptor()?);
            admin = Some(AdminSocket { bind: config.bind });
        }
        let live = self.publisher.live(self.now());
        Ok((Hello::new(listed, admin, live), all))
    }

    pub(super) fn take_upgrade(&mut self, event: Event) {
        let stage = std::mem::replace(&mut self.upgrading.stage, Stage::None);
        match (event, stage) {
            (
                Event::Prepared,
                Stage::Starting {
                    successor, reply, ..
                },
            ) => {
                successor.send_state(State {
                    live: self.publisher.live(self.now()),
                    totals: self.console.freeze(),
                    tickets: Tickets(self.engine.ticket_secrets()),
                    ticket_age_secs: self.engine.ticket_age().as_secs(),
                });
                self.upgrading.stage = Stage::Starting {
                    successor,
                    reply,
                    is_told: true,
                };
            }
            (
                Event::Ready(ready),
                Stage::Starting {
                    successor, reply, ..
                },
            ) => {
                self.hand_over(successor, ready, reply);
            }
            (
                Event::Failed(errors),
                Stage::Starting {
                    successor, reply, ..
                },
            ) => {
                self.console.thaw();
                successor.end();
                not_upgraded(reply, errors);
            }
            (event, stage) => {
                self.upgrading.stage = stage;
                if let Event::Word(word) = event {
                    self.publisher.handle_word(&word, self.now());
                }
            }
        }
    }

    /// The new process accepts: this one has only to finish what it has.
    fn hand_over(&mut self, successor: Successor, ready: Ready, reply: Option<Reply>) {
        let Ready {
            pid,
            version,
            adopted,
            words,
        } = ready;
        // Under systemd only the process that it knows may name another.
        notify(&[NotifyState::MainPid(pid)]);
        parent::tell(pid);
        let shutdown = Shutdown {
            delay: Duration::ZERO,
            ..self.hub.world().snapshot.shutdown.clone()
        };
        self.ending = Some(Ending::new(shutdown, self.now()));
        self.publisher.end_all_drills(self.now());
        self.publisher.hand_drains_over();
        // Before anything can end here that they ask for.
        for word in &words {
            self.publisher.handle_word(word, self.now());
        }
        self.upgrading.stage = Stage::HandedOver {
            successor,
            adopted: adopted.into_iter().collect(),
            told: Instant::now(),
            is_asked: false,
        };
        self.look_at_end();
        if let Some(admin) = self.admin.take() {
            self.admin_leaves = Some(admin.hand_over());
        }
        self.acme.stop();
        // Written to the last, before the new process writes it.
        self.state_file.end();
        if let Stage::HandedOver { successor, .. } = &self.upgrading.stage {
            successor.send_totals(&self.console, false);
        }
        tracing::info!(
            pid,
            version,
            active = self.engine.active(),
            "upgraded: process {pid} serves, this one drains"
        );
        answer(reply, &Answer::Upgraded { pid, version });
    }

    /// Says once in a while what is still counted.
    pub(super) fn tell_successor(&mut self) {
        if let Stage::HandedOver {
            successor, told, ..
        } = &mut self.upgrading.stage
            && told.elapsed() >= TELL_EVERY
        {
            *told = Instant::now();
            successor.send_totals(&self.console, false);
        }
    }

    /// Whether a signal that asks for the end changes nothing: the first one while this process drains already.
    pub(super) fn goes_on_draining(&mut self) -> bool {
        let Stage::HandedOver { is_asked, .. } = &mut self.upgrading.stage else {
            return false;
        };
        let first = !std::mem::replace(is_asked, true);
        if first {
            tracing::info!("draining since the upgrade; another signal ends at once");
        }
        first
    }

    /// This process ends: it hands over to nobody.
    pub(super) fn give_up_upgrade(&mut self) {
        let stage = std::mem::replace(&mut self.upgrading.stage, Stage::None);
        if let Stage::Starting {
            successor, reply, ..
        } = stage
        {
            successor.give_up();
            successor.end();
            self.console.thaw();
            not_upgraded(reply, vec!["the process is ending".to_owned()]);
        } else {
            self.upgrading.stage = stage;
        }
    }
}

fn not_upgraded(reply: Option<Reply>, errors: Vec<String>) {
    for error in &errors {
        tracing::error!("{}", error.trim_end());
    }
    tracing::error!(errors = errors.len(), "not upgraded: this process goes on");
    answer(reply, &Answer::Refused(errors));
}

/// What commands get that come too late.
pub(super) fn refused_here() -> Answer {
    Answer::Refused(vec!["another process has taken over".to_owned()])
}

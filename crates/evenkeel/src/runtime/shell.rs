//! The loop around the publisher: gives it messages and the time, and does what it says.
//!
//! It also takes new configs up, as transactions, hands over to another process, and ends in order. It decides nothing
//! about servers.

mod upgrading;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agents::{Acme, Agents};
use config::Snapshot;
use control::message::{Answer, Command, Event, Message, ReloadReport, Reply};
use control::publisher::{Action, Changes, Publisher};
use control::world::{Hub, Phase};
use proxy::Engine;
use sd_notify::NotifyState;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use super::access_log::{self, AccessLog};
use super::acme;
use super::admin_listener::AdminTask;
use super::ending::{self, Ending, Step};
use super::reload::{self, Finished, READ_MAX, Read, Reloads};
use super::signals::{Asked, Signals};
use super::state_file::{self, StateFile};
use super::upgrade;
use super::watching::Watching;
use super::{log_findings, logging, memory, names, not_prepared, parent, workers};
use crate::exit;

pub(super) use upgrading::Upgrading;

/// Messages taken in before the publisher is looked at again.
const MESSAGES_BATCH: usize = 256;
/// What a second signal ends the process with: what was being served is lost.
const AT_ONCE: u8 = exit::WRONG;

/// Everything that runs.
pub(super) struct Shell {
    pub(super) origin: Arc<crate::source::Origin>,
    pub(super) strict: bool,
    /// The origin of `now`.
    pub(super) started: Instant,
    pub(super) publisher: Publisher,
    pub(super) hub: Arc<Hub>,
    pub(super) engine: Engine,
    pub(super) agents: Agents,
    pub(super) acme: Acme,
    pub(super) access_log: AccessLog,
    pub(super) state_file: StateFile,
    pub(super) console: admin::Console,
    pub(super) admin: Option<AdminTask>,
    /// By which the admin listener was started, whatever a reload has brought since.
    pub(super) admin_config: Option<config::Admin>,
    /// Serves who was connected to the admin listener when another process took it over.
    pub(super) admin_leaves: Option<JoinHandle<()>>,
    pub(super) addresses: admin::Addresses,
    pub(super) messages: UnboundedReceiver<Message>,
    pub(super) signals: Signals,
    pub(super) watching: Option<Watching>,
    pub(super) reloads: Reloads,
    /// Set once a signal has asked for the end.
    pub(super) ending: Option<Ending>,
    /// Requests and TCP connections that were served when the time of the end was over.
    pub(super) cut: u64,
    pub(super) upgrading: Upgrading,
}

/// What the loop woke up for.
enum Woken {
    Message(Option<Message>),
    Due,
    Read(Box<Finished>),
    Changed,
    Signal(Asked),
    Upgrade(upgrade::Event),
}

impl Shell {
    /// Serves until the end, and gives the exit code.
    pub(super) async fn run(mut self) -> ExitCode {
        self.tell_addresses();
        if let Some(admin) = &self.admin {
            tracing::info!(address = %admin.address, "admin");
        }
        tracing::info!("ready");
        // After an upgrade the service is another process from here on.
        notify(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
        parent::tell(std::process::id());
        self.engine.inherit();
        loop {
            self.work();
            match self.wait().await {
                Woken::Message(message) => self.take_messages(message),
                Woken::Due => {}
                Woken::Read(finished) => self.end_reload(*finished),
                Woken::Changed => self.begin_reload(None, "a file changed"),
                Woken::Signal(Asked::Reload) => self.begin_reload(None, "SIGHUP"),
                Woken::Signal(Asked::Upgrade) => self.begin_upgrade_by_signal(),
                Woken::Signal(Asked::End) if self.goes_on_draining() => {}
                Woken::Signal(Asked::End) if self.ending.is_some() => return self.end_at_once(),
                Woken::Signal(Asked::End) => self.begin_ending(),
                Woken::Upgrade(event) => self.take_upgrade(event),
            }
            if self.look_at_end() == Some(Step::Stop) {
                self.work();
                return self.end().await;
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    async fn wait(&mut self) -> Woken {
        let next_look = self.engine.next_look();
        let mut due = Some(
            self.publisher
                .poll_timeout()
                .map_or(next_look, |due| due.min(next_look)),
        );
        if self.ending.is_some() {
            let look = self.now() + ending::LOOK_EVERY;
            due = Some(due.map_or(look, |due| due.min(look)));
        }
        let due = async {
            match due.and_then(|due| self.started.checked_add(due)) {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            match &mut self.watching {
                Some(watching) => watching.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            asked = self.signals.next() => Woken::Signal(asked),
            finished = self.reloads.finished() => Woken::Read(Box::new(finished)),
            event = self.upgrading.next() => Woken::Upgrade(event),
            message = self.messages.recv() => Woken::Message(message),
            () = changed => Woken::Changed,
            () = due => Woken::Due,
        }
    }

    /// Lets the publisher do what is due, and does what it says.
    fn work(&mut self) {
        for notice in self.engine.tend(self.now()) {
            logging::worker(&notice);
            if matches!(notice, proxy::Notice::Lost { .. }) && self.ending.is_none() {
                // What it serves is lost already; a supervisor starts anew what would otherwise stay half dead.
                std::process::abort();
            }
        }
        self.publisher.handle_timeout(self.now());
        self.publisher.measure(self.now());
        self.tell_successor();
        self.state_file.tell(&self.publisher, self.now());
        while let Some(action) = self.publisher.poll_action() {
            // Probes and look-ups are another process's now.
            let is_foreign = matches!(action, Action::Probe(_) | Action::Resolve(_));
            if is_foreign && self.upgrading.has_handed_over() {
                continue;
            }
            match self.agents.perform(action) {
                None => {}
                Some(Action::Cut(member)) => self.engine.cut(member),
                Some(Action::Sever(member)) => self.engine.sever(&member),
                Some(Action::CloseIdle(member)) => self.engine.close_idle_to(member),
                Some(Action::Log(notice)) => logging::notice(&notice),
                Some(Action::Reply(reply, answer)) => reply(answer),
                Some(Action::Forward(word)) => self.upgrading.forward(word),
                Some(Action::Obeyed(obeyed)) => self.upgrading.send_obeyed(obeyed),
                // The agents take these.
                Some(Action::Probe(_) | Action::AskAgent(_) | Action::Resolve(_)) => {}
            }
        }
    }

    fn take_messages(&mut self, first: Option<Message>) {
        let mut next = first;
        for _ in 0..MESSAGES_BATCH {
            let Some(message) = next else {
                return;
            };
            self.take(message);
            next = self.messages.try_recv().ok();
        }
        if let Some(message) = next {
            self.take(message);
        }
    }

    fn take(&mut self, message: Message) {
        let now = self.now();
        match message {
            Message::Command(_, reply) if self.upgrading.has_handed_over() => {
                reply(upgrading::refused_here());
            }
            Message::Command(command, reply) => self.obey(command, reply, now),
            // They are looked after next.
            Message::WorkerEnded => {}
            Message::Event(event) => {
                if matches!(event, Event::PredecessorEnded { .. }) {
                    self.upgrading.forget_predecessor();
                }
                self.publisher.handle_event(event, now);
            }
        }
    }

    fn obey(&mut self, command: Command, reply: Reply, now: Duration) {
        if self.upgrading.is_told() && says_more(&command) {
            let why = "an upgrade is under way: try again when it is over".to_owned();
            reply(Answer::Refused(vec![why]));
            return;
        }
        if let Some(why) = self.publisher.objection(&command) {
            reply(Answer::NeedsForce(why));
            return;
        }
        match command {
            Command::Upgrade { binary, timeout } => {
                self.begin_upgrade(binary.as_deref(), timeout, Some(reply));
            }
            Command::Reload => self.begin_reload(Some(reply), "the admin API"),
            Command::Set {
                pool,
                server,
                state,
                weight,
                force: _,
            } => {
                self.publisher
                    .handle_set(&pool, &server, state, weight, reply, now);
            }
            Command::Drain {
                pool,
                server,
                timeout,
                force: _,
            } => {
                self.publisher
                    .handle_drain(&pool, &server, timeout, reply, now);
            }
            Command::DrainWait { pool, server } => {
                self.publisher.handle_drain_wait(&pool, &server, reply);
            }
            Command::Drill {
                pool,
                server,
                length,
                force: _,
            } => {
                self.publisher
                    .handle_drill(&pool, &server, length, reply, now);
            }
            Command::Forget { pool, what } => {
                self.publisher.handle_forget(&pool, &what, reply, now);
            }
        }
    }

    /// Has the config read, now or after the reading that is under way.
    fn begin_reload(&mut self, reply: Option<Reply>, asked_by: &'static str) {
        if self.ending.is_some() {
            answer(reply, &refused_at_the_end());
            return;
        }
        if self.upgrading.is_under_way() {
            let why = "an upgrade is under way: reload when it is over".to_owned();
            tracing::warn!(asked_by, "not reloaded: {why}");
            answer(reply, &Answer::Refused(vec![why]));
            return;
        }
        tracing::info!(asked_by, "reloading");
        if self.reloads.request(reply, asked_by) {
            self.start_reload();
        }
    }

    fn start_reload(&mut self) {
        let (origin, strict) = (self.origin.clone(), self.strict);
        let known = names::of(&self.hub.world().snapshot);
        self.reloads.start(|| {
            if let Ok(now) = NotifyState::monotonic_usec_now() {
                notify(&[NotifyState::Reloading, now]);
            }
            tokio::spawn(reload::read(origin, strict, known, READ_MAX))
        });
    }

    fn end_reload(&mut self, finished: Finished) {
        let result = match finished.read {
            _ if self.ending.is_some() => refused_at_the_end(),
            Ok(read) => self.take_up(read),
            Err(error) => Answer::Refused(vec![format!("the config could not be read: {error}")]),
        };
        let took_ms = u64::try_from(finished.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut report = ReloadReport {
            wall_ms: wall_ms(),
            took_ms,
            asked_by: finished.asked_by,
            generation: self.hub.world().generation,
            changes: None,
            errors: Vec::new(),
        };
        match &result {
            Answer::Reloaded(changes) => {
                let generation = report.generation;
                tracing::info!(generation, "reloaded: {changes}, took {took_ms} ms");
                report.changes = Some(changes.clone());
            }
            Answer::Refused(errors) => {
                for error in errors {
                    tracing::error!("{}", error.trim_end());
                }
                tracing::error!(errors = errors.len(), "not reloaded: nothing has changed");
                report.errors.clone_from(errors);
            }
            _ => {}
        }
        self.hub.set_reloaded(report);
        notify(&[NotifyState::Ready]);
        let now = self.now();
        self.publisher
            .answer_when_all_obeyed(finished.replies, result, now);
        self.start_reload();
    }

    /// Takes up what was read, or nothing of it.
    fn take_up(&mut self, read: Read) -> Answer {
        if let Some(watching) = &self.watching {
            watching.set(read.looked_at);
        }
        let snapshot = match read.snapshot {
            Ok(snapshot) => Arc::new(snapshot),
            Err(refused) => {
                let errors = refused.diagnostics.iter().filter(|found| {
                    found.severity == config::Severity::Error
                        || (self.strict && found.severity == config::Severity::Warning)
                });
                return Answer::Refused(errors.map(ToString::to_string).collect());
            }
        };
        // What is kept already is met by the first handshake.
        let mut errors = self.acme.prepare(&snapshot).err().unwrap_or_default();
        let prepared = self
            .engine
            .prepare(&snapshot)
            .map_err(|failed| errors.extend(not_prepared(&failed)));
        let output =
            access_log::open(snapshot.access_log.as_ref()).map_err(|failed| errors.push(failed));
        if let Some(path) = &snapshot.state_file {
            errors.extend(state_file::probe(path).err());
        }
        let (Ok(prepared), Ok(output), true) = (prepared, output, errors.is_empty()) else {
            return Answer::Refused(errors);
        };
        log_findings(&read.findings);
        let next_start = self.waiting_for_a_start(&snapshot);
        for key in &next_start {
            tracing::warn!("`{key}` changed: that takes effect at the next start");
        }

        let now = self.now();
        for name in read.names {
            self.publisher.handle_event(name, now);
        }
        let state_file = snapshot.state_file.clone();
        let buffer_bytes_max = memory::buffer_bytes_max(&snapshot);
        let (world, changes): (_, Changes) = self.publisher.apply(snapshot, now);
        let changes = Changes {
            next_start,
            ..changes
        };
        self.hub
            .memory
            .set_max(buffer_bytes_max, self.hub.worker_count);
        self.hub.set_world(world.clone());
        self.engine.publish(prepared, world);
        let snapshot = &self.hub.world().snapshot;
        acme::take_up(&mut self.acme, &self.engine, snapshot);
        self.access_log.change(output);
        self.state_file.change(state_file.as_deref());
        self.tell_addresses();
        Answer::Reloaded(changes)
    }

    /// The keys of a config that say something else than what this process was started with, and cannot be changed while
    /// it runs.
    fn waiting_for_a_start(&self, snapshot: &Snapshot) -> Vec<&'static str> {
        [
            ("workers", workers(snapshot) != self.hub.worker_count),
            ("admin", snapshot.admin != self.admin_config),
        ]
        .into_iter()
        .filter_map(|(key, waits)| waits.then_some(key))
        .collect()
    }

    /// Logs the addresses that are new, and shows all of them to the admin room.
    fn tell_addresses(&self) {
        let addresses = self.engine.addresses();
        let mut known = self
            .addresses
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for (listener, address) in addresses.iter().filter(|address| !known.contains(address)) {
            tracing::info!(%listener, %address, "listening");
        }
        *known = addresses;
    }

    fn begin_ending(&mut self) {
        self.give_up_upgrade();
        self.acme.stop();
        let shutdown = self.hub.world().snapshot.shutdown.clone();
        self.hub.set_phase(Phase::Draining);
        notify(&[NotifyState::Stopping]);
        tracing::info!(
            active = self.engine.active(),
            timeout_ms = u64::try_from(shutdown.timeout.as_millis()).unwrap_or(u64::MAX),
            "stopping; a second signal ends at once"
        );
        self.ending = Some(Ending::new(shutdown, self.now()));
    }

    /// Does what of the end is due; [`Step::Stop`] is left to the caller.
    fn look_at_end(&mut self) -> Option<Step> {
        let now = self.now();
        let active = self.engine.active();
        let listeners = &self.hub.world().listeners;
        let open = listeners
            .iter()
            .map(|listener| u64::from(listener.connections.load(Ordering::Relaxed)))
            .sum();
        let step = self.ending.as_mut()?.poll(now, active, open)?;
        match step {
            Step::CloseListeners => {
                self.engine.begin_drain();
                match self.upgrading.adopted() {
                    Some(adopted) => self.engine.hand_over(adopted),
                    None => self.engine.close_listeners(),
                }
            }
            Step::CloseIdle => self.engine.close_idle(),
            Step::Cut => {
                self.cut = active;
                self.publisher.conclude_drains(now);
                self.engine.cut_all();
            }
            Step::Stop => self.publisher.conclude_drains(now),
        }
        Some(step)
    }

    async fn end(mut self) -> ExitCode {
        self.state_file.end();
        let proxy::Stopped { cut, stuck } = self.engine.stop();
        // Those who were told are not served any more.
        let cut = cut.max(self.cut);
        if stuck == 0 {
            // Every sender was a worker's.
            self.access_log.end();
        } else {
            tracing::warn!(stuck, "workers did not end; they end with the process");
        }
        if let Some(admin) = self.admin {
            admin.end().await;
        }
        if let Some(task) = self.admin_leaves {
            let _ = task.await;
        }
        self.upgrading.end(&self.console);
        tracing::info!(cut, "stopped: {}", cut_text(cut));
        exit::WELL
    }

    /// A second signal: nothing is waited for.
    fn end_at_once(&self) -> ExitCode {
        let cut = self.engine.active();
        tracing::warn!(cut, "stopped at once: {}", cut_text(cut));
        // Not by returning: that would wait for workers and the log.
        std::process::exit(i32::from(AT_ONCE))
    }
}

fn cut_text(cut: u64) -> String {
    format!("{cut} request{} cut", if cut == 1 { "" } else { "s" })
}

/// Wall time now, in milliseconds since the Unix epoch.
fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(wall.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Whether it changes what a process that takes over was told.
fn says_more(command: &Command) -> bool {
    match command {
        Command::Set { .. }
        | Command::Drain { .. }
        | Command::Drill { .. }
        | Command::Forget { .. } => true,
        Command::Reload | Command::Upgrade { .. } | Command::DrainWait { .. } => false,
    }
}

fn refused_at_the_end() -> Answer {
    Answer::Refused(vec!["the process is ending".to_owned()])
}

fn answer(reply: Option<Reply>, answer: &Answer) {
    if let Some(reply) = reply {
        reply(answer.clone());
    }
}

/// Tells systemd, if it asks to be told.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

//! `evenkeel run`: reads a config, starts the workers and what runs beside them, and stays until a signal ends it.
//!
//! This module starts things in the order that lets a failure leave nothing behind; `shell` is the loop afterwards.
//! What a request meets is in `proxy`, what a config changes in `control`.

mod access_log;
mod admin_listener;
mod ending;
mod limits;
pub(crate) mod logging;
mod names;
mod port_owner;
mod reload;
mod shell;
mod signals;
mod watching;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use agents::{Agents, Resolver, Watch};
use anyhow::Context as _;
use config::{Diagnostic, Severity, Snapshot};
use control::message::Message;
use control::publisher::Publisher;
use control::world::{Hub, Phase};
use proxy::{BindError, Engine};
use tokio::sync::mpsc::unbounded_channel;

use crate::source::Origin;
use crate::{diagnose, exit};
use access_log::AccessLog;
use admin_listener::AdminTask;
use shell::Shell;
use signals::Signals;
use watching::Watching;

/// Threads of the runtime beside traffic.
const BESIDE_THREADS: usize = 2;

/// How to run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// Reload when a file of the config changes.
    pub(crate) watch: bool,
    /// Warnings count as errors.
    pub(crate) strict: bool,
}

/// Runs until a signal ends it.
///
/// # Errors
/// What the system refused.
pub(crate) fn run(origin: Origin, options: Options) -> anyhow::Result<ExitCode> {
    run_with(origin, options, |_| {})
}

/// The same, for a command that looks at what runs: `serving` is called once requests are served.
///
/// # Errors
/// What the system refused.
pub(crate) fn run_with(
    origin: Origin,
    options: Options,
    serving: impl FnOnce(&Arc<Hub>),
) -> anyhow::Result<ExitCode> {
    if let Err(error) = logging::init() {
        return Ok(exit::wrong(error));
    }
    // Looked at before it is read, so that no change falls between the two.
    let watch = options.watch.then(|| Watch::new(origin.load_watched().1));
    let loaded = origin.load();
    let findings = loaded.diagnostics.clone();
    let snapshot = match diagnose::accept(loaded, options.strict) {
        Ok(snapshot) => snapshot,
        Err(refused) => {
            diagnose::print(&refused.diagnostics);
            return Ok(exit::wrong(refused.counts));
        }
    };
    log_findings(&findings);
    let token = match admin_listener::token(snapshot.admin.as_ref()) {
        Ok(token) => token,
        Err(error) => return Ok(exit::wrong(error)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(BESIDE_THREADS)
        .thread_name("beside")
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let given = Given {
        origin: Arc::new(origin),
        options,
        snapshot: Arc::new(snapshot),
        token,
        watch,
    };
    let code = runtime.block_on(start(given, serving))?;
    // What still runs beside traffic is of no use to anybody now.
    runtime.shutdown_background();
    Ok(code)
}

/// What was read before anything was started.
struct Given {
    origin: Arc<Origin>,
    options: Options,
    snapshot: Arc<Snapshot>,
    token: Option<String>,
    watch: Option<Watch>,
}

/// Starts everything, or says why not; then serves.
async fn start(given: Given, serving: impl FnOnce(&Arc<Hub>)) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    // First, so that a signal that comes while starting is not lost.
    let signals = Signals::listen().context("signals cannot be listened to")?;
    let open_files = limits::raise_open_files();
    let snapshot = given.snapshot;
    let workers = workers(&snapshot);
    let output = match access_log::open(snapshot.access_log.as_ref()) {
        Ok(output) => output,
        Err(error) => return Ok(exit::wrong(error)),
    };
    let answers = names::look_up(names::of(&snapshot)).await;

    let mut publisher = Publisher::new(workers, limits::seed());
    for answer in answers {
        publisher.handle_event(answer, started.elapsed());
    }
    let (world, _) = publisher.apply(snapshot.clone(), started.elapsed());

    let (sender, messages) = unbounded_channel();
    let report = sender.clone();
    // Fails only when the loop has ended, and with it the process.
    let send = move |message: Message| drop(sender.send(message));
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let hub = Hub::new(
        world.clone(),
        workers,
        wall.unwrap_or_default(),
        Box::new(send),
    );
    let hub = Arc::new(hub);
    let (access_log, records) = AccessLog::start(output).context("the access log")?;
    let engine = Engine::start(hub.clone(), limits::seed(), Some(records));
    let mut engine = engine.context("the workers cannot be started")?;

    let prepared = match engine.prepare(&snapshot) {
        Ok(prepared) => prepared,
        Err(errors) => return Ok(exit::refused(bind_messages(&errors).join("\nevenkeel: "))),
    };
    let admin = match snapshot
        .admin
        .as_ref()
        .map(admin_listener::bind)
        .transpose()
    {
        Ok(admin) => admin,
        Err(error) => return Ok(exit::refused(error)),
    };
    engine.publish(prepared, world);
    hub.set_phase(Phase::Running);

    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        workers,
        open_files,
        connections_default_max = proxy::connection_default_max(open_files),
        "started"
    );
    let addresses = admin::Addresses::default();
    let start_admin = |listener| {
        let (hub, token) = (hub.clone(), given.token);
        AdminTask::start(listener, hub, token, started, addresses.clone())
    };
    let admin = admin
        .map(start_admin)
        .transpose()
        .context("the admin listener")?;
    let report = move |event| drop(report.send(Message::Event(event)));
    let agents = Agents::new(
        tokio::runtime::Handle::current(),
        Resolver::system(),
        Arc::new(report),
    );
    let watching = given.watch.map(Watching::start);
    serving(&hub);
    let shell = Shell {
        origin: given.origin,
        strict: given.options.strict,
        started,
        publisher,
        hub,
        engine,
        agents,
        access_log,
        admin,
        addresses,
        messages,
        signals,
        watching,
        reloads: reload::Reloads::default(),
        ending: None,
    };
    Ok(shell.run().await)
}

fn workers(snapshot: &Snapshot) -> usize {
    match snapshot.workers {
        Some(workers) => usize::from(workers.max(1)),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// Each address that cannot be had, and by whom it is taken where that can be known.
fn bind_messages(errors: &[BindError]) -> Vec<String> {
    let message = |error: &BindError| {
        let owner = match &error.bind {
            config::Bind::Tcp { address, .. } => port_owner::of_error(&error.error, address.port()),
            config::Bind::Unix(_) => String::new(),
        };
        format!("{error}{owner}")
    };
    errors.iter().map(message).collect()
}

/// Writes what was found in a config as log lines.
fn log_findings(findings: &[Diagnostic]) {
    for finding in findings {
        let (place, kind, help) = (&finding.place, finding.kind.as_str(), &finding.help);
        let help = help.as_deref();
        match finding.severity {
            Severity::Error => tracing::error!(%place, kind, help, "{}", finding.message),
            Severity::Warning => tracing::warn!(%place, kind, help, "{}", finding.message),
            Severity::Note => tracing::info!(%place, kind, help, "{}", finding.message),
        }
    }
}

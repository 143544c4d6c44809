//! `evenkeel run`: reads a config, starts the workers and what runs beside them, and stays until a signal ends it.
//!
//! This module starts things in the order that lets a failure leave nothing behind; `shell` is the loop afterwards.
//! What a request meets is in `proxy`, what a config changes in `control`.

mod access_log;
mod acme;
mod activation;
mod admin_listener;
mod ending;
mod expiry;
mod limits;
pub(crate) mod logging;
mod memory;
mod names;
pub(crate) mod parent;
mod port_owner;
mod reload;
mod shell;
mod signals;
mod state_file;
mod upgrade;
mod watching;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use admin::{AdminState, Console};
use agents::{Acme, Agents, Resolver, Watch};
use anyhow::Context as _;
use config::{Bind, Diagnostic, Severity, Snapshot};
use control::message::Message;
use control::publisher::Publisher;
use control::world::{Hub, Phase, World};
use proxy::{BindError, Engine, Inherited, NotPrepared, Prepared};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::source::Origin;
use crate::{diagnose, exit};
use access_log::AccessLog;
use admin_listener::AdminTask;
use shell::{Shell, Upgrading};
use signals::Signals;
use state_file::StateFile;
use upgrade::{Following, Invocation, Predecessor};
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
    /// Another process may take over from this one, and sockets that it was started with are its listeners'.
    pub(crate) upgrades: bool,
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
    if let Ok(faults) = std::env::var("EVENKEEL_FAULT")
        && let Err(error) = proxy::arm_faults(&faults)
    {
        return Ok(exit::wrong(error));
    }
    let inherited = match inherit(options) {
        Ok(inherited) => inherited,
        Err(why) => return Ok(exit::refused(why)),
    };
    let given = match read(origin, options) {
        Ok(given) => given,
        Err(failed) => return Ok(failed.tell(inherited.predecessor.as_ref())),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(BESIDE_THREADS)
        .thread_name("beside")
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let code = runtime.block_on(async {
        match start(given, inherited, serving).await {
            Ok(shell) => shell.run().await,
            Err((failed, predecessor)) => failed.tell(predecessor.as_ref()),
        }
    });
    // What still runs beside traffic is of no use to anybody now.
    runtime.shutdown_background();
    Ok(code)
}

/// What another process gave this one.
#[derive(Default)]
struct Given {
    sockets: Inherited,
    admin: Option<admin_listener::Given>,
    predecessor: Option<Predecessor>,
}

fn inherit(options: Options) -> Result<Given, String> {
    if !options.upgrades {
        return Ok(Given::default());
    }
    let Some(found) = Predecessor::find() else {
        let activated = activation::inherit();
        return Ok(Given {
            sockets: activated.sockets,
            admin: activated.admin.map(admin_listener::Given::Opened),
            predecessor: None,
        });
    };
    let (predecessor, given) = found?;
    Ok(Given {
        sockets: given.sockets,
        admin: given
            .admin
            .map(|(bind, listener)| admin_listener::Given::Handed(bind, listener)),
        predecessor: Some(predecessor),
    })
}

/// Why there is nothing that runs.
struct NotStarted {
    code: u8,
    errors: Vec<String>,
    /// Shown already, in a better form.
    is_shown: bool,
}

impl NotStarted {
    fn wrong(error: impl std::fmt::Display) -> Self {
        Self {
            code: exit::WRONG,
            errors: vec![error.to_string()],
            is_shown: false,
        }
    }

    fn all_wrong(errors: Vec<String>) -> Self {
        Self {
            errors,
            ..Self::wrong("")
        }
    }

    fn refused(error: impl std::fmt::Display) -> Self {
        Self {
            code: exit::REFUSED,
            ..Self::wrong(error)
        }
    }

    /// Tells the user, and the process that would have handed over.
    fn tell(self, predecessor: Option<&Predecessor>) -> ExitCode {
        if !self.is_shown {
            for error in &self.errors {
                eprintln!("evenkeel: {error}");
            }
        }
        if let Some(predecessor) = predecessor {
            predecessor.fail(self.errors);
        }
        ExitCode::from(self.code)
    }
}

impl From<anyhow::Error> for NotStarted {
    fn from(error: anyhow::Error) -> Self {
        Self::refused(format_args!("{error:#}"))
    }
}

/// What was read before anything was started.
struct Config {
    origin: Arc<Origin>,
    options: Options,
    snapshot: Arc<Snapshot>,
    token: Option<String>,
    watch: Option<Watch>,
    invocation: Invocation,
}

fn read(origin: Origin, options: Options) -> Result<Config, NotStarted> {
    // Looked at before it is read, so that no change falls between the two.
    let watch = options.watch.then(|| Watch::new(origin.load_watched().1));
    let loaded = origin.load();
    let findings = loaded.diagnostics.clone();
    let snapshot = diagnose::accept(loaded, options.strict).map_err(|refused| {
        diagnose::print(&refused.diagnostics);
        eprintln!("evenkeel: {}", refused.counts);
        let errors = refused.diagnostics.iter().map(ToString::to_string);
        NotStarted {
            code: exit::WRONG,
            errors: errors.collect(),
            is_shown: true,
        }
    })?;
    log_findings(&findings);
    let invocation = Invocation::now().context("the system does not tell which binary this is");
    Ok(Config {
        token: admin_listener::token(snapshot.admin.as_ref()).map_err(NotStarted::wrong)?,
        invocation: invocation?,
        origin: Arc::new(origin),
        options,
        snapshot: Arc::new(snapshot),
        watch,
    })
}

/// Starts everything, or says why not.
async fn start(
    config: Config,
    given: Given,
    serving: impl FnOnce(&Arc<Hub>),
) -> Result<Shell, (NotStarted, Option<Predecessor>)> {
    let Given {
        mut sockets,
        admin,
        predecessor,
    } = given;
    let mut parts = match prepare(&config, &mut sockets, admin, predecessor.as_ref()).await {
        Ok(parts) => parts,
        Err(failed) => return Err((failed, predecessor)),
    };
    let state = match &predecessor {
        Some(predecessor) => {
            let signals = RefCell::new(&mut parts.signals);
            let is_over = || signals.borrow_mut().ends();
            match predecessor.prepared(&is_over) {
                Ok(state) => state,
                Err(why) => return Err((NotStarted::refused(why), None)),
            }
        }
        None => upgrade::State::default(),
    };
    let now = parts.started.elapsed();
    parts.publisher.take_over(state.live, now);
    parts.console.carry(state.totals);
    let age = std::time::Duration::from_secs(state.ticket_age_secs);
    parts.engine.take_ticket_secrets(&state.tickets.0, age);
    parts.engine.publish(parts.prepared, parts.world);
    acme::take_up(&mut parts.acme, &parts.engine, &config.snapshot);
    parts.hub.set_phase(Phase::Running);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        predecessor = predecessor.as_ref().map(|it| it.hello.pid),
        workers = parts.hub.worker_count,
        open_files = parts.open_files,
        connections_default_max =
            proxy::connection_default_max(parts.open_files, parts.hub.worker_count),
        buffer_bytes_max = parts.hub.memory.max(),
        "started"
    );
    let room = (parts.console.clone(), parts.sender.clone());
    let following = follow(
        predecessor,
        &sockets.left(),
        (&mut parts.publisher, now),
        room,
    );
    drop(sockets);
    let start = |listener| AdminTask::start(listener, &parts.console);
    let admin = match parts.admin.map(start).transpose() {
        Ok(admin) => admin,
        Err(error) => {
            let why = format!("the admin listener: {error}");
            return Err((NotStarted::refused(why), None));
        }
    };
    let report = parts.sender;
    let report = move |event| drop(report.send(Message::Event(event)));
    let agents = Agents::new(
        tokio::runtime::Handle::current(),
        Resolver::system(),
        parts.secure,
        Arc::new(report),
    );
    let mut state_file = StateFile::default();
    state_file.change(config.snapshot.state_file.as_deref());
    expiry::start(&parts.hub);
    serving(&parts.hub);
    Ok(Shell {
        state_file,
        origin: config.origin,
        strict: config.options.strict,
        started: parts.started,
        publisher: parts.publisher,
        hub: parts.hub,
        engine: parts.engine,
        agents,
        acme: parts.acme,
        access_log: parts.access_log,
        console: parts.console,
        admin,
        admin_config: config.snapshot.admin.clone(),
        admin_leaves: None,
        addresses: parts.addresses,
        messages: parts.messages,
        signals: parts.signals,
        watching: config.watch.map(Watching::start),
        reloads: reload::Reloads::default(),
        ending: None,
        cut: 0,
        upgrading: Upgrading::new(
            config.options.upgrades.then_some(config.invocation),
            following,
        ),
    })
}

/// Says that this process serves: from here on the one before it, if there is one, drains.
fn follow(
    predecessor: Option<Predecessor>,
    left: &BTreeSet<Bind>,
    (publisher, now): (&mut Publisher, Duration),
    (console, sender): (Console, UnboundedSender<Message>),
) -> Option<Following> {
    let Some(predecessor) = predecessor else {
        activation::warn_of(left);
        return None;
    };
    let words = publisher.follow_predecessor(predecessor.hello.obeys, now);
    // It is gone: then this is the process that serves, all the more.
    if let Err(why) = predecessor.ready(left, words) {
        tracing::warn!("{why}");
    }
    Some(predecessor.follow(console, sender))
}

/// Everything that can fail, made and not yet visible.
struct Parts {
    started: Instant,
    signals: Signals,
    open_files: u64,
    publisher: Publisher,
    world: Arc<World>,
    hub: Arc<Hub>,
    sender: UnboundedSender<Message>,
    messages: UnboundedReceiver<Message>,
    access_log: AccessLog,
    engine: Engine,
    acme: Acme,
    secure: agents::Secure,
    prepared: Prepared,
    admin: Option<TcpListener>,
    addresses: admin::Addresses,
    console: Console,
}

async fn prepare(
    config: &Config,
    sockets: &mut Inherited,
    admin: Option<admin_listener::Given>,
    predecessor: Option<&Predecessor>,
) -> Result<Parts, NotStarted> {
    // Workers and publisher have one clock: what one of them saw is as old for the other.
    let started = proxy::origin();
    // First, so that a signal that comes while starting is not lost.
    let signals = Signals::listen().context("signals cannot be listened to")?;
    let open_files = limits::raise_open_files();
    let snapshot = config.snapshot.clone();
    let workers = workers(&snapshot);
    let mut publisher = Publisher::new(workers, limits::seed());
    let mut names = names::of(&snapshot);
    if let Some(predecessor) = predecessor {
        let live = predecessor.hello.live.clone();
        names.retain(|name| live.names.iter().all(|known| *known.name != **name));
        publisher.take_over(live, started.elapsed());
    } else if let Some(path) = &snapshot.state_file {
        let words = state_file::load(path).map_err(NotStarted::wrong)?;
        publisher.take_over(words, started.elapsed());
    }
    if let Some(path) = &snapshot.state_file {
        state_file::probe(path).map_err(NotStarted::wrong)?;
    }
    for answer in names::look_up(names).await {
        publisher.handle_event(answer, started.elapsed());
    }
    let (world, _) = publisher.apply(snapshot.clone(), started.elapsed());

    let (sender, messages) = unbounded_channel();
    let to_shell = sender.clone();
    // Fails only when the loop has ended, and with it the process.
    let send = move |message: Message| drop(to_shell.send(message));
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let hub = Hub::new(
        world.clone(),
        workers,
        wall.unwrap_or_default(),
        Box::new(send),
    );
    let hub = Arc::new(hub);
    hub.memory
        .set_max(memory::buffer_bytes_max(&snapshot), workers);
    let output = access_log::open(snapshot.access_log.as_ref()).map_err(NotStarted::wrong)?;
    let (access_log, records) = AccessLog::start(output).context("the access log")?;
    let engine = Engine::start(hub.clone(), limits::seed(), Some(records));
    let engine = engine.context("the workers cannot be started")?;
    let secure = proxy::secure_probes();
    let acme = acme::start(&hub, &engine, secure.clone(), &snapshot);
    let acme = acme.map_err(NotStarted::all_wrong)?;
    let prepared = engine
        .prepare_with(&snapshot, sockets)
        .map_err(|why| match &why {
            NotPrepared::Bind(_) => NotStarted {
                errors: not_prepared(&why),
                ..NotStarted::refused("")
            },
            NotPrepared::Tls(_) => NotStarted::all_wrong(not_prepared(&why)),
        })?;
    let admin = admin_listener::take(snapshot.admin.as_ref(), admin);
    let admin = admin.map_err(NotStarted::refused)?;
    let addresses = admin::Addresses::default();
    let bound = admin.as_ref().and_then(|admin| admin.local_addr().ok());
    let console = Console::new(AdminState {
        hub: hub.clone(),
        token: config.token.clone(),
        bind: bound.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
        version: env!("CARGO_PKG_VERSION"),
        started,
        addresses: addresses.clone(),
        explain: Box::new(crate::explain::live::answer),
    });
    Ok(Parts {
        started,
        signals,
        open_files,
        publisher,
        world,
        hub,
        sender,
        messages,
        access_log,
        engine,
        acme,
        secure,
        prepared,
        admin,
        addresses,
        console,
    })
}

fn workers(snapshot: &Snapshot) -> usize {
    match snapshot.workers {
        Some(workers) => usize::from(workers.max(1)),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// Why a config cannot be taken up, in lines.
fn not_prepared(why: &NotPrepared) -> Vec<String> {
    match why {
        NotPrepared::Bind(errors) => bind_messages(errors),
        NotPrepared::Tls(errors) => errors.iter().map(ToString::to_string).collect(),
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

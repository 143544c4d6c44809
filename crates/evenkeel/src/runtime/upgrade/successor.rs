//! The old process's side of an upgrade: a thread that starts the new process, talks with it, and reports.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use admin::Console;
use config::Bind;
use control::handover::{Obeyed, Word};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::channel::{Channel, Patience};
use super::document::{Answer, Hello, State, Update};
use super::{Program, VARIABLE};

/// A process that has closed the channel ends within this, or is ended.
const END_MAX: Duration = Duration::from_secs(2);

/// What is to be started, and what it is told.
pub(crate) struct Plan {
    pub(crate) program: Program,
    pub(crate) hello: Hello,
    /// In the order of the hello.
    pub(crate) sockets: Vec<OwnedFd>,
    pub(crate) timeout: Duration,
}

/// What the thread reports.
#[derive(Debug)]
pub(crate) enum Event {
    /// The new process has all that it needs, and waits for [`Successor::send_state`].
    Prepared,
    /// It serves.
    Ready(Ready),
    /// It does not, and is gone.
    Failed(Vec<String>),
    /// It serves, and says this of servers.
    Word(Word),
}

/// The process that took over.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) pid: u32,
    pub(crate) version: String,
    /// Addresses that it goes on with.
    pub(crate) adopted: Vec<Bind>,
    /// What it has said of servers by then.
    pub(crate) words: Vec<Word>,
}

enum Outgoing {
    State(Box<State>),
    Update(Update),
}

/// The process that is to take over, or has.
pub(crate) struct Successor {
    events: UnboundedReceiver<Event>,
    outgoing: mpsc::Sender<Outgoing>,
    is_given_up: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Successor {
    /// Starts it on a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(plan: Plan) -> io::Result<Self> {
        let (report, events) = unbounded_channel();
        let (outgoing, messages) = mpsc::channel();
        let is_given_up = Arc::new(AtomicBool::new(false));
        let given_up = is_given_up.clone();
        let thread = std::thread::Builder::new()
            .name("upgrade".to_owned())
            .spawn(move || run(plan, &messages, &report, &given_up))?;
        Ok(Self {
            events,
            outgoing,
            is_given_up,
            thread,
        })
    }

    /// What it has to say next. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn send_state(&self, state: State) {
        let _ = self.outgoing.send(Outgoing::State(Box::new(state)));
    }

    /// Tells it what is still counted here; it may be gone.
    pub(crate) fn send_totals(&self, console: &Console, ended: bool) {
        self.send_update(Update {
            totals: console.totals(),
            active: console.active(),
            ended,
            ..Update::default()
        });
    }

    /// Tells it what came of its word; it may be gone.
    pub(crate) fn send_obeyed(&self, obeyed: Obeyed) {
        self.send_update(Update {
            obeyed: vec![obeyed],
            ..Update::default()
        });
    }

    fn send_update(&self, update: Update) {
        let _ = self.outgoing.send(Outgoing::Update(update));
    }

    /// Ends a process that is not ready yet.
    pub(crate) fn give_up(&self) {
        self.is_given_up.store(true, Relaxed);
    }

    /// Waits until everything has been sent, or the process that is given up has ended.
    pub(crate) fn end(self) {
        let Self {
            outgoing, thread, ..
        } = self;
        drop(outgoing);
        // A panic there has been printed already.
        let _ = thread.join();
    }
}

fn run(
    plan: Plan,
    messages: &mpsc::Receiver<Outgoing>,
    report: &UnboundedSender<Event>,
    is_given_up: &AtomicBool,
) {
    let shown = plan.program.shown.display().to_string();
    let (channel, mut child) = match start(&plan.program) {
        Ok(started) => started,
        Err(error) => {
            let why = format!("{shown} cannot be started: {error}");
            let _ = report.send(Event::Failed(vec![why]));
            return;
        }
    };
    tracing::info!(successor = child.id(), binary = shown, "upgrading");
    let patience = Patience {
        until: Instant::now().checked_add(plan.timeout),
        is_over: &|| is_given_up.load(Relaxed),
    };
    match talk(&channel, &plan, messages, report, &patience) {
        Ok(answer) => {
            let sockets = &plan.hello.sockets;
            let adopted = answer
                .adopted
                .iter()
                .filter_map(|at| sockets.get(*at)?.bind());
            let ready = Ready {
                pid: child.id(),
                version: answer.version,
                adopted: adopted.collect(),
                words: answer.words,
            };
            // Its own copies are to be the only ones that keep an address open.
            drop(plan);
            let _ = report.send(Event::Ready(ready));
            converse(&channel, messages, report);
        }
        Err(broken) => {
            let errors = explain(broken, &mut child, &plan, is_given_up.load(Relaxed));
            let _ = report.send(Event::Failed(errors));
        }
    }
}

fn start(program: &Program) -> io::Result<(Channel, Child)> {
    let (ours, theirs) = UnixStream::pair()?;
    let channel = Channel::new(ours)?;
    let mut arguments = program.arguments.iter();
    let mut command = Command::new(&program.path);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command
        .args(arguments)
        .env(VARIABLE, "stdin")
        .stdin(Stdio::from(OwnedFd::from(theirs)));
    // The command holds the other end until it is dropped: only then is the child's end told from ours.
    command.spawn().map(|child| (channel, child))
}

/// Why it is not ready.
enum Broken {
    Said(Vec<String>),
    Failed(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

fn talk(
    channel: &Channel,
    plan: &Plan,
    messages: &mpsc::Receiver<Outgoing>,
    report: &UnboundedSender<Event>,
    patience: &Patience<'_>,
) -> Result<Answer, Broken> {
    let said = |wanted: &str| -> Result<Answer, Broken> {
        let answer: Answer = channel.receive(patience)?;
        if answer.stage == wanted {
            return Ok(answer);
        }
        let errors = match answer.errors.is_empty() {
            true => vec![format!("the new process said `{}`", answer.stage)],
            false => answer.errors,
        };
        Err(Broken::Said(errors))
    };
    let sent = channel
        .send(&plan.hello)
        .and_then(|()| channel.send_sockets(&plan.sockets));
    // What it said before it closed the channel tells more than that it did.
    let prepared = said("prepared");
    match (sent, prepared) {
        (Err(error), Err(Broken::Failed(_))) => return Err(error.into()),
        (_, prepared) => prepared?,
    };
    let _ = report.send(Event::Prepared);
    let left = |until: Instant| until.saturating_duration_since(Instant::now());
    let state = match patience.until {
        Some(until) => messages.recv_timeout(left(until)).ok(),
        None => messages.recv().ok(),
    };
    match state {
        Some(Outgoing::State(state)) => channel.send(&*state)?,
        _ => return Err(io::Error::from(ErrorKind::TimedOut).into()),
    }
    said("ready")
}

/// Both ways at once, until this process ends or the other one is gone.
fn converse(
    channel: &Channel,
    messages: &mpsc::Receiver<Outgoing>,
    report: &UnboundedSender<Event>,
) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("successor".to_owned());
        let hearing = thread.spawn_scoped(scope, || hear(channel, report, &is_over));
        if let Err(error) = hearing {
            tracing::error!(%error, "what the process that took over says of servers is not heard");
        }
        forward(channel, messages);
        is_over.store(true, Relaxed);
    });
}

/// Reports what it says of servers.
fn hear(channel: &Channel, report: &UnboundedSender<Event>, is_over: &AtomicBool) {
    let patience = Patience {
        until: None,
        is_over: &|| is_over.load(Relaxed),
    };
    loop {
        match channel.receive(&patience) {
            Ok(word) => drop(report.send(Event::Word(word))),
            // A word that is not understood is passed over.
            Err(error) if error.kind() == ErrorKind::InvalidData => {}
            Err(_) => return,
        }
    }
}

/// Passes on what is still counted and what was obeyed, until the process ends.
fn forward(channel: &Channel, messages: &mpsc::Receiver<Outgoing>) {
    for message in messages {
        if let Outgoing::Update(update) = message
            && let Err(error) = channel.send(&update)
        {
            tracing::error!(%error, "the process that took over does not listen any more");
            return;
        }
    }
}

/// Ends what is left of it, and says why it did not take over.
fn explain(broken: Broken, child: &mut Child, plan: &Plan, given_up: bool) -> Vec<String> {
    let error = match broken {
        Broken::Said(errors) => {
            let _ = end(child);
            return errors;
        }
        Broken::Failed(error) => error,
    };
    let who = format!("the new process ({})", child.id());
    if given_up {
        let _ = child.kill().and_then(|()| child.wait());
        return vec![format!("{who} was ended: this process is ending")];
    }
    if error.kind() == ErrorKind::TimedOut {
        let _ = child.kill().and_then(|()| child.wait());
        return vec![format!(
            "{who} was not ready within {} s, and was ended",
            plan.timeout.as_secs_f64()
        )];
    }
    vec![match end(child) {
        Ok(status) => format!("{who} ended before it was ready: {status}"),
        Err(_) => format!("{who} closed the channel before it was ready ({error}), and was ended"),
    }]
}

/// Waits for its end a little, then ends it.
fn end(child: &mut Child) -> io::Result<ExitStatus> {
    let until = Instant::now() + END_MAX;
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()?;
    Err(io::Error::from(ErrorKind::TimedOut))
}

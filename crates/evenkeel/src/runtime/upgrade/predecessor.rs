//! The new process's side of an upgrade: what it is given, and what it answers.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use admin::Console;
use config::Bind;
use control::handover::Word;
use control::message::{Event, Message};
use proxy::{HandedOver, Inherited};
use tokio::sync::mpsc::UnboundedSender;

use super::VARIABLE;
use super::channel::{Channel, Patience};
use super::document::{Answer, Hello, State, Update};

/// The old process says everything at once.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// While it drains it says something each second.
const SILENT_AFTER: Duration = Duration::from_secs(5);

/// The process that hands over to this one.
pub(crate) struct Predecessor {
    channel: Channel,
    pub(crate) hello: Hello,
}

/// The same while it drains.
pub(crate) struct Following {
    follow: Arc<Follow>,
    /// To be obeyed there; `None`: it obeys none.
    words: Option<mpsc::Sender<Word>>,
}

struct Follow {
    predecessor: Predecessor,
    console: Console,
    report: UnboundedSender<Message>,
    drains: AtomicBool,
}

/// What was heard of it.
enum Heard {
    More,
    /// It has said that it ends.
    Last,
    /// It is gone.
    Nothing,
}

/// The sockets that it had.
pub(crate) struct Given {
    pub(crate) sockets: Inherited,
    /// The admin listener's address as the config had it, and its socket.
    pub(crate) admin: Option<(SocketAddr, TcpListener)>,
}

impl Predecessor {
    /// `None`: this process was started by somebody else.
    ///
    /// # Errors
    /// When it cannot be understood, in words for the user.
    pub(crate) fn find() -> Option<Result<(Self, Given), String>> {
        std::env::var_os(VARIABLE)?;
        Some(Self::meet())
    }

    fn meet() -> Result<(Self, Given), String> {
        let wrong = |error: std::io::Error| {
            format!("{VARIABLE} is set, but there is no process that hands over: {error}")
        };
        let stream = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
            .map_err(|error| wrong(error.into()))?;
        // What this process starts must not hear it.
        let nothing = OpenOptions::new()
            .read(true)
            .open("/dev/null")
            .map_err(wrong)?;
        rustix::stdio::dup2_stdin(&nothing).map_err(|error| wrong(error.into()))?;
        let channel = Channel::new(UnixStream::from(stream)).map_err(wrong)?;
        let patience = Patience::for_(HELLO_MAX);
        let hello: Hello = channel.receive(&patience).map_err(wrong)?;
        let this = Self { channel, hello };
        if let Err(why) = this.hello.judge() {
            this.fail(vec![why.clone()]);
            return Err(why);
        }
        let hello = &this.hello;
        let count = hello.sockets.iter().map(|it| it.count).sum::<usize>();
        let count = count.saturating_add(usize::from(hello.admin.is_some()));
        let sockets = this
            .channel
            .receive_sockets(count, &patience)
            .map_err(wrong)?;
        let given = Given::new(hello, sockets);
        Ok((this, given))
    }

    /// Says that this process does not take over.
    pub(crate) fn fail(&self, errors: Vec<String>) {
        let _ = self.channel.send(&Answer {
            stage: "failed".to_owned(),
            errors,
            ..Answer::default()
        });
    }

    /// Says that nothing can fail any more, and waits for what is known by now.
    ///
    /// # Errors
    /// When the old process goes on by itself, in words for the log.
    pub(crate) fn prepared(&self, is_over: &dyn Fn() -> bool) -> Result<State, String> {
        let gone = |error| format!("the process that hands over is gone: {error}");
        self.say("prepared", Vec::new(), Vec::new()).map_err(gone)?;
        let patience = Patience {
            until: None,
            is_over,
        };
        self.channel.receive(&patience).map_err(gone)
    }

    /// Says that this process accepts, at all addresses but these, and what it has to say of servers by then.
    ///
    /// # Errors
    /// When the old process is gone before it heard, in words for the log.
    pub(crate) fn ready(&self, left: &BTreeSet<Bind>, words: Vec<Word>) -> Result<(), String> {
        let sockets = self.hello.sockets.iter().enumerate();
        let adopted = sockets.filter(|(_, it)| it.bind().is_some_and(|bind| !left.contains(&bind)));
        let adopted = adopted.map(|(at, _)| at).collect();
        self.say("ready", adopted, words)
            .map_err(|error| format!("the process that hands over is gone: {error}"))
    }

    /// Waits for its first update, then takes in further ones on a thread of its own until the old process has ended.
    pub(crate) fn follow(self, console: Console, report: UnboundedSender<Message>) -> Following {
        let obeys = self.hello.obeys;
        let follow = Arc::new(Follow {
            predecessor: self,
            console,
            report,
            drains: AtomicBool::new(true),
        });
        follow.take_update(&Patience::for_(HELLO_MAX));
        let (words, to_tell) = mpsc::channel();
        if let Err(error) = follow.start(to_tell) {
            follow.end(false);
            tracing::warn!(%error, "what the process before this one still counts is lost");
        }
        Following {
            follow,
            words: obeys.then_some(words),
        }
    }

    fn say(&self, stage: &str, adopted: Vec<usize>, words: Vec<Word>) -> std::io::Result<()> {
        self.channel.send(&Answer {
            stage: stage.to_owned(),
            errors: Vec::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            adopted,
            words,
        })
    }
}

impl Following {
    /// Whether it has yet to end.
    pub(crate) fn drains(&self) -> bool {
        self.follow.drains.load(Relaxed)
    }

    /// Tells it; it may be gone.
    pub(crate) fn send(&self, word: Word) {
        if let Some(words) = &self.words {
            let _ = words.send(word);
        }
    }
}

impl Follow {
    fn start(self: &Arc<Self>, words: mpsc::Receiver<Word>) -> std::io::Result<()> {
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let (hears, tells) = (self.clone(), self.clone());
        thread("words").spawn(move || tells.tell(words))?;
        thread("predecessor").spawn(move || hears.hear())?;
        Ok(())
    }

    fn hear(&self) {
        let heard = Cell::new(Instant::now());
        let patience = Patience {
            until: None,
            is_over: &|| {
                if heard.get().elapsed() > SILENT_AFTER {
                    heard.set(Instant::now());
                    self.report(Event::PredecessorSilent);
                }
                false
            },
        };
        let in_order = loop {
            match self.take_update(&patience) {
                Heard::More => heard.set(Instant::now()),
                Heard::Last => break true,
                Heard::Nothing => break false,
            }
        };
        self.end(in_order);
        let pid = self.predecessor.hello.pid;
        if in_order {
            tracing::info!(predecessor = pid, "the process before this one has drained");
        } else {
            tracing::warn!(
                predecessor = pid,
                "the process before this one is gone before it has drained"
            );
        }
    }

    /// Its end is heard of elsewhere.
    fn tell(&self, words: mpsc::Receiver<Word>) {
        for word in words {
            if self.predecessor.channel.send(&word).is_err() {
                return;
            }
        }
    }

    fn take_update(&self, patience: &Patience<'_>) -> Heard {
        match self.predecessor.channel.receive::<Update>(patience) {
            Ok(update) => {
                if !update.totals.is_empty() {
                    let all = update.totals.into_iter().chain(update.active);
                    self.console.carry(all.collect());
                }
                for obeyed in update.obeyed {
                    self.report(Event::Obeyed(obeyed));
                }
                if update.ended {
                    Heard::Last
                } else {
                    Heard::More
                }
            }
            // A part that is not understood is passed over.
            Err(error) if error.kind() == ErrorKind::InvalidData => Heard::More,
            Err(_) => Heard::Nothing,
        }
    }

    fn end(&self, in_order: bool) {
        self.console.forget_active();
        self.report(Event::PredecessorEnded { in_order });
        self.drains.store(false, Relaxed);
    }

    fn report(&self, event: Event) {
        // Fails only when the loop has ended, and with it the process.
        let _ = self.report.send(Message::Event(event));
    }
}

impl Given {
    fn new(hello: &Hello, sockets: Vec<OwnedFd>) -> Self {
        let mut rest = sockets.into_iter();
        let mut inherited = Inherited::default();
        for entry in &hello.sockets {
            let sockets = rest.by_ref().take(entry.count).collect();
            if let Some(bind) = entry.bind() {
                let unlink = entry.unlink;
                inherited.insert(bind, HandedOver { sockets, unlink });
            }
        }
        let admin = hello.admin.as_ref().zip(rest.next());
        Self {
            sockets: inherited,
            admin: admin.map(|(admin, socket)| (admin.bind, socket.into())),
        }
    }
}

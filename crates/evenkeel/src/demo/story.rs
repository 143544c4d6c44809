//! What happens, as short lines: those of the demo, and what the balancer logs that a person at the screen wants to know.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Lines that are kept.
const LINES_MAX: usize = 200;
/// What is told again while it stands among this many last lines is counted there.
const REPEATS_WITHIN: usize = 4;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// Since the start; `None` goes on with what the line before began.
    pub(super) at: Option<Duration>,
    pub(super) text: String,
    /// How often it was told, in a row or nearly so.
    pub(super) times: u64,
}

/// The last lines.
#[derive(Debug)]
pub(super) struct Story {
    started: Instant,
    lines: Mutex<VecDeque<Told>>,
    /// Lines go to stderr, not to a screen.
    plain: bool,
}

impl Story {
    pub(super) fn new(plain: bool) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            lines: Mutex::default(),
            plain,
        })
    }

    /// Hears from now on what this process logs.
    pub(super) fn listen(self: &Arc<Self>) {
        // Set already only in a process that runs two, which then share it.
        let _ = tracing_subscriber::registry()
            .with(Listener(self.clone()))
            .try_init();
    }

    /// Since the start.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Adds something; further lines of `text` belong to the first.
    pub(super) fn tell(&self, text: &str) {
        // Terminals act on control bytes, and a file's name may hold some.
        let lines = text.trim_end().lines();
        let lines: Vec<String> = lines
            .map(|line| line.replace(char::is_control, " "))
            .collect();
        if self.plain {
            for line in &lines {
                eprintln!("evenkeel: {line}");
            }
            return;
        }
        let mut told = self.lines();
        if let [line] = lines.as_slice() {
            let mut last = told.iter_mut().rev().take(REPEATS_WITHIN);
            if let Some(again) = last.find(|told| told.at.is_some() && told.text == *line) {
                again.times += 1;
                return;
            }
        }
        let mut at = Some(self.now());
        for text in lines {
            if told.len() >= LINES_MAX {
                told.pop_front();
            }
            told.push_back(Told {
                at: at.take(),
                text,
                times: 1,
            });
        }
    }

    /// All that is kept, the oldest first.
    pub(super) fn told(&self) -> Vec<Told> {
        self.lines().iter().cloned().collect()
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<Told>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes from the log what is worth telling: changes of health, warnings and errors.
struct Listener(Arc<Story>);

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        if let Some(text) = said.text(level) {
            self.0.tell(&text);
        }
    }
}

/// The parts of a log line.
#[derive(Debug, Default)]
struct Said {
    message: String,
    server: String,
    to: String,
    cause: String,
    rest: String,
}

impl Said {
    /// What to tell of it, if anything.
    fn text(&self, level: Level) -> Option<String> {
        let Self {
            message,
            server,
            to,
            cause,
            rest,
        } = self;
        if !to.is_empty() {
            return Some(format!("{server} is {to}: {cause}"));
        }
        if level == Level::INFO {
            return None;
        }
        let mut text = message.clone();
        for (name, value) in [("server", server), ("cause", cause)] {
            if !value.is_empty() {
                let _ = write!(text, " {name}={value}");
            }
        }
        text.push_str(rest);
        Some(text)
    }

    fn add(&mut self, name: &str, value: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = match name {
            "message" => self.message.write_fmt(value),
            "server" => self.server.write_fmt(value),
            "to" => self.to.write_fmt(value),
            "cause" => self.cause.write_fmt(value),
            "reason" | "detail" | "error" | "place" => write!(self.rest, " {name}={value}"),
            _ => Ok(()),
        };
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field.name(), format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of what `log` logs.
    fn told(log: impl FnOnce()) -> Vec<String> {
        let story = Story::new(false);
        let subscriber = tracing_subscriber::registry().with(Listener(story.clone()));
        tracing::subscriber::with_default(subscriber, log);
        story.told().into_iter().map(|told| told.text).collect()
    }

    #[test]
    fn health_warnings_and_errors_are_told() {
        let lines = told(|| {
            let (server, cause) = ("server-1", "connection refused");
            let (from, to) = ("healthy", "unhealthy");
            tracing::warn!(pool = %"site", %server, from, to, %cause, "server is {to}");
            tracing::info!(%server, from = "unhealthy", to = "healthy", cause = %"200", "server is healthy");
            tracing::info!("ready");
            tracing::warn!(
                reason = "no_usable_server",
                status = 503,
                detail = Some("all down"),
                "answered here"
            );
        });
        assert_eq!(
            lines,
            [
                "server-1 is unhealthy: connection refused",
                "server-1 is healthy: 200",
                "answered here reason=no_usable_server detail=all down",
            ]
        );
    }

    #[test]
    fn further_lines_belong_to_the_first_and_old_ones_go() {
        let story = Story::new(false);
        for _ in 0..LINES_MAX {
            story.tell("one\ntwo\x1b[2J\n");
        }
        let told = story.told();
        assert_eq!(told.len(), LINES_MAX);
        assert!(told[0].at.is_some());
        assert_eq!((told[1].at, told[1].text.as_str()), (None, "two [2J"));
    }

    #[test]
    fn what_repeats_is_counted() {
        let story = Story::new(false);
        for text in ["a", "b", "a", "a", "c", "d", "e", "f", "a"] {
            story.tell(text);
        }
        let told = story.told();
        let told: Vec<(&str, u64)> = told
            .iter()
            .map(|told| (told.text.as_str(), told.times))
            .collect();
        assert_eq!(
            told,
            [
                ("a", 3),
                ("b", 1),
                ("c", 1),
                ("d", 1),
                ("e", 1),
                ("f", 1),
                ("a", 1)
            ]
        );
    }
}

//! The demo: real servers, a balancer in front of them, and something to see and to break.
//!
//! The balancer is the one that `evenkeel run` runs, in this process, on a config in a file. This module starts and
//! ends what there is; what keys do is in `controls` and `stage`, what is shown in `frame`.

mod controls;
mod frame;
mod load;
mod mortal;
mod place;
mod server;
mod stage;
mod stats;
mod story;

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use control::world::{Hub, Phase};
use rustix::process::{Signal, getpid, kill_process};

use crate::runtime::{self, Options};
use crate::source::Origin;
use crate::terminal::{self, Input, SCREEN_THREAD, Terminal};
use crate::{exit, table};
use controls::{Controls, Tally, last_line};
use load::Load;
use place::{POOL, Place};
use server::Server;
use stage::Stage;
use stats::Totals;
use story::Story;

/// How long the same picture stays.
const REDRAW_EVERY: Duration = Duration::from_millis(200);
/// How soon a signal is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What `evenkeel demo` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {}

/// Runs the demo until the user ends it.
///
/// # Errors
/// What the system refused.
pub(crate) fn run(_args: DemoArgs) -> anyhow::Result<ExitCode> {
    let on_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    let story = Story::new(!on_terminal);
    story.listen();
    let servers = (1..=controls::SERVERS)
        .map(|number| Server::start(&format!("server-{number}")))
        .collect::<io::Result<Vec<Server>>>()
        .context("the demo's servers cannot be started")?;
    let place = Place::make(&servers).context("the demo's config cannot be written")?;
    let origin = Origin::File(place.config.clone());
    if !on_terminal {
        // Servers and folder live until the balancer has ended.
        return runtime::run_with(origin, Options::default(), |_| exit::print(&intro(&place)));
    }
    let mut screen = None;
    let code = runtime::run_with(origin, Options::default(), |hub| {
        screen = Some(Screen::start(place, servers, hub.clone(), story));
    })?;
    let Some(screen) = screen else {
        return Ok(code);
    };
    let screen = screen.context("the terminal cannot be used")?;
    let (totals, tally) = screen.end()?;
    exit::print(&format!("{}\n", last_line(totals, tally)));
    Ok(code)
}

/// The thread that draws and reads keys.
struct Screen {
    thread: JoinHandle<(Stage, io::Result<()>)>,
    /// Here as well, so that a panic of this thread gives the terminal back too.
    _terminal: Terminal,
}

impl Screen {
    /// Takes the terminal over. When that fails, the balancer is asked to end.
    fn start(
        place: Place,
        servers: Vec<Server>,
        hub: Arc<Hub>,
        story: Arc<Story>,
    ) -> io::Result<Self> {
        let end = EndTheBalancer(hub.clone());
        let load = Load::start(place.address, hub.clone(), story.clone())?;
        let stage = Stage {
            place,
            servers,
            hub,
            story: story.clone(),
            load,
            controls: Controls::default(),
            unicode: is_unicode(),
        };
        story.tell("a gentle load runs: break something, and see what it loses");
        let terminal = Terminal::take(move |bug| story.tell(bug))?;
        let thread = std::thread::Builder::new()
            .name(SCREEN_THREAD.to_owned())
            .spawn(move || show(stage, end))?;
        Ok(Self {
            thread,
            _terminal: terminal,
        })
    }

    /// Waits for its end.
    fn end(self) -> anyhow::Result<(Totals, Tally)> {
        let Ok((mut stage, shown)) = self.thread.join() else {
            anyhow::bail!("the screen ended by a bug");
        };
        shown.context("the terminal is gone")?;
        Ok(stage.end())
    }
}

/// Asks the balancer to end, as a signal from outside would, when it is dropped: after a panic too.
struct EndTheBalancer(Arc<Hub>);

impl Drop for EndTheBalancer {
    fn drop(&mut self) {
        // A second signal would end it at once.
        if self.0.phase() == Phase::Running {
            // Cannot fail: it is our own process.
            let _ = kill_process(getpid(), Signal::TERM);
        }
    }
}

/// Shows the stage until the user, a signal or the terminal's end. The servers live on in what is returned, so that
/// others who are being served lose nothing.
fn show(mut stage: Stage, end: EndTheBalancer) -> (Stage, io::Result<()>) {
    let result = play(&mut stage);
    Terminal::give_back();
    stage.end();
    drop(end);
    (stage, result)
}

fn play(stage: &mut Stage) -> io::Result<()> {
    let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut due = Instant::now();
    while stage.hub.phase() == Phase::Running {
        let now = Instant::now();
        if now >= due {
            let (width, height) = terminal::shape();
            terminal::draw(&frame::frame(&stage.scene(), width, height), color)?;
            due = now + REDRAW_EVERY;
        }
        let wait = due.saturating_duration_since(now).min(LOOK_EVERY);
        match terminal::next(wait)? {
            Some(Input::Key(key)) if stage.handle_key(key) => return Ok(()),
            Some(_) => due = Instant::now(),
            None => {}
        }
    }
    Ok(())
}

/// Whether the locale says that the terminal shows more than ASCII.
fn is_unicode() -> bool {
    let names = ["LC_ALL", "LC_CTYPE", "LANG"];
    let set = names.iter().filter_map(|name| std::env::var(name).ok());
    let locale = set.into_iter().find(|value| !value.is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// What is said without a terminal.
fn intro(place: &Place) -> String {
    let binary = std::env::current_exe();
    let binary = binary.map_or_else(|_| "evenkeel".to_owned(), |path| quoted(&path));
    let (url, admin) = (place.url(), place.admin_url());
    let places = [
        ["listening", &url],
        ["admin page", &format!("{admin}/")],
        ["config", &place.config.display().to_string()],
    ];
    let places = places.map(|row| row.map(str::to_owned).to_vec());
    let config: String = place
        .text()
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    format!(
        "\
Evenkeel demo: three servers, and a balancer in front of them.

{}
The config that it runs:

{config}
Three things to try:

  ask it a few times, and see who answers
    curl {url}
  see what it knows of its servers
    {binary} status --admin {admin}
  drain one, and read the receipt
    {binary} server drain {POOL} server-1 --admin {admin}

SIGINT (Ctrl-C) or SIGTERM ends it. On a terminal there is more to see.
",
        table::aligned(&places, 2)
    )
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |letter: char| letter.is_alphanumeric() || "/._-+@%:,".contains(letter);
    if path.chars().all(plain) {
        return path;
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_where_a_shell_needs_it() {
        let check = |path: &str, expected: &str| assert_eq!(quoted(Path::new(path)), expected);
        check("/usr/bin/evenkeel", "/usr/bin/evenkeel");
        check("/my tools/it's", r"'/my tools/it'\''s'");
    }
}

//! `evenkeel top`: pools, servers and their rates, live on a terminal, once and plainly elsewhere.
//!
//! It reads the admin API and nothing else, so that it shows an instance on another machine as well. What is shown is
//! made in `view`.

mod view;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use admin::Client;
use anyhow::Context as _;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::cli::TopArgs;
use crate::remote::{self, Failed};
use crate::terminal::{self, Input, Terminal};
use crate::{exit, terminal::Line};
use view::{Frame, Sample};

/// Bounds of the interval.
const INTERVAL_MIN: Duration = Duration::from_millis(200);
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// How long an instance has to answer, on a terminal.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Signals are looked for at least as often.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs the command.
///
/// # Errors
/// What the system refused.
pub(crate) fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let interval = match config::parse_duration(&args.interval) {
        Ok(interval) if (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) => interval,
        Ok(_) => return Ok(exit::wrong("the interval is 200ms to 1m")),
        Err(why) => return Ok(exit::wrong(why)),
    };
    let runtime = remote::runtime()?;
    let top = Top {
        client: remote::client(&args.remote),
        runtime,
        interval,
        began: Instant::now(),
    };
    // Before the terminal is taken: who answers not at all is told plainly.
    let first = match top.look() {
        Ok(first) => first,
        Err(failed) => return Ok(failed.tell()),
    };
    let on_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if on_terminal && !args.once && !args.remote.json {
        return top.show(first);
    }
    std::thread::sleep(interval);
    let second = match top.look() {
        Ok(second) => second,
        Err(failed) => return Ok(failed.tell()),
    };
    let frame = Frame::new(Some(&first), &second);
    if args.remote.json {
        let json = serde_json::to_string_pretty(&frame.json())?;
        exit::print(&format!("{json}\n"));
    } else {
        exit::print(&plain(&frame.lines(&args.remote.admin, "")));
    }
    Ok(exit::WELL)
}

/// Who looks, and how.
struct Top {
    client: Client,
    runtime: Runtime,
    interval: Duration,
    began: Instant,
}

impl Top {
    fn look(&self) -> Result<Sample, Failed> {
        let looking = async { timeout(ANSWER_MAX, remote::look(&self.client)).await };
        let (health, pools) = self.runtime.block_on(looking).unwrap_or_else(|_| {
            let why = format!("no answer within {} s", ANSWER_MAX.as_secs());
            Err(Failed::Refused(why))
        })?;
        Ok(Sample {
            at: self.began.elapsed(),
            health,
            pools,
        })
    }

    /// Shows what there is until the user has seen enough. An instance that goes away may come back.
    fn show(&self, first: Sample) -> anyhow::Result<ExitCode> {
        let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        end_by_signal().context("signals cannot be listened to")?;
        let terminal = Terminal::take(|_| {}).context("the terminal cannot be used")?;
        let shown = self.play(first, color);
        drop(terminal);
        shown.context("the terminal is gone")?;
        Ok(exit::WELL)
    }

    fn play(&self, first: Sample, color: bool) -> io::Result<()> {
        let (mut before, mut now, mut trouble) = (None, first, String::new());
        let mut due = Instant::now() + self.interval;
        let mut skipped = 0;
        loop {
            let lines = Frame::new(before.as_ref(), &now).lines(&self.client.url, &trouble);
            let (width, height) = terminal::shape();
            skipped = skipped.min(lines.len().saturating_sub(height));
            terminal::draw(&screen(lines, skipped, width, height), color)?;
            loop {
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    match self.look() {
                        Ok(sample) => {
                            trouble.clear();
                            before = Some(std::mem::replace(&mut now, sample));
                        }
                        Err(failed) => trouble = failed.why().to_owned(),
                    }
                    due = Instant::now() + self.interval;
                    break;
                }
                match terminal::next(left.min(LOOK_EVERY))? {
                    Some(Input::Key('q')) => return Ok(()),
                    Some(Input::Key('j')) => skipped += 1,
                    Some(Input::Key('k')) => skipped = skipped.saturating_sub(1),
                    Some(_) => {}
                    None => continue,
                }
                break;
            }
        }
    }
}

/// Gives the terminal back when a signal ends the command, too.
fn end_by_signal() -> anyhow::Result<()> {
    let runtime = remote::runtime()?;
    let mut signals = {
        let _inside = runtime.enter();
        [
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let [terminate, hangup] = &mut signals;
            runtime.block_on(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            Terminal::give_back();
            std::process::exit(0);
        })?;
    Ok(())
}

/// What fits: the first line stays, the others are moved by `skipped`.
fn screen(lines: Vec<Line>, skipped: usize, width: usize, height: usize) -> Vec<Line> {
    let mut lines = lines.into_iter();
    let mut shown: Vec<Line> = lines.next().into_iter().collect();
    shown.extend(lines.skip(skipped));
    shown.resize(height.max(1), Line::new());
    // The last column stays free: some terminals wrap when it is written to.
    let width = width.saturating_sub(1);
    shown
        .into_iter()
        .map(|line| terminal::cut(line, width))
        .collect()
}

fn plain(lines: &[Line]) -> String {
    let mut out = String::new();
    for line in lines {
        let text: String = line.iter().map(|(_, text)| text.as_str()).collect();
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Style;

    #[test]
    fn the_first_line_stays_while_the_others_move() {
        let lines: Vec<Line> = (0..6)
            .map(|number| vec![(Style::Plain, format!("line {number}"))])
            .collect();
        let text = |skipped, height| plain(&screen(lines.clone(), skipped, 7, height));
        assert_eq!(text(0, 3), "line 0\nline 1\nline 2\n");
        assert_eq!(text(3, 3), "line 0\nline 4\nline 5\n");
        assert_eq!(
            text(0, 8).lines().count(),
            8,
            "the rest of the screen is empty"
        );
    }
}

//! The terminal: taken over while something is shown, and given back on every way out, a panic's too.

use std::io::{self, Write as _};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{execute, queue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// How a piece of a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
}

/// Pieces of one line, from the left.
pub(crate) type Line = Vec<(Style, String)>;

/// The first `width` columns of a line.
pub(crate) fn cut(line: Line, width: usize) -> Line {
    let mut left = width;
    let mut out = Line::new();
    for (style, text) in line {
        let text: String = text.chars().take(left).collect();
        left -= text.chars().count();
        if !text.is_empty() {
            out.push((style, text));
        }
    }
    out
}

/// Whether the terminal is ours: nothing is drawn, and nothing to be undone, while it is not.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// The threads without which nothing is shown: a panic of theirs ends it, so that the terminal must be back before.
const ENDS_WITH: [&str; 2] = ["main", SCREEN_THREAD];
/// The name of the thread that draws.
pub(crate) const SCREEN_THREAD: &str = "screen";

/// The terminal while it is ours.
pub(crate) struct Terminal(());

impl Terminal {
    /// Takes it over; `tell` is told of panics that are not shown.
    ///
    /// # Errors
    /// What the terminal refused.
    pub(crate) fn take(tell: impl Fn(&str) + Send + Sync + 'static) -> io::Result<Self> {
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        let terminal = Self(());
        say_panics_elsewhere(tell);
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(terminal)
    }

    /// Gives it back; the second time nothing happens.
    pub(crate) fn give_back() {
        if TAKEN.swap(false, Ordering::SeqCst) {
            // There is nobody to tell if it is gone.
            let _ = execute!(io::stdout(), ResetColor, LeaveAlternateScreen, Show);
            let _ = disable_raw_mode();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        Self::give_back();
    }
}

/// Keeps the message of a panic off the screen: it is written once the terminal is back, or told as an event.
fn say_panics_elsewhere(tell: impl Fn(&str) + Send + Sync + 'static) {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("a thread");
        if ENDS_WITH.contains(&name) {
            Terminal::give_back();
        }
        if TAKEN.load(Ordering::SeqCst) {
            tell(&format!("a bug, in {name}: {info}"));
        } else {
            usual(info);
        }
    }));
}

/// Columns and lines; the usual ones where a terminal does not say.
pub(crate) fn shape() -> (usize, usize) {
    let said = size()
        .ok()
        .filter(|(width, height)| *width > 0 && *height > 0);
    let (width, height) = said.unwrap_or((80, 24));
    (usize::from(width), usize::from(height))
}

/// What a user did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    Key(char),
    /// The size has changed.
    Resized,
}

/// What the user does next, within `limit`. Ctrl-C is `q`.
///
/// # Errors
/// When the terminal is gone.
pub(crate) fn next(limit: Duration) -> io::Result<Option<Input>> {
    // What was typed in one go may have been read in one go.
    wait(Duration::ZERO)?;
    if !event::poll(Duration::ZERO)? {
        wait(limit)?;
        if !event::poll(Duration::ZERO)? {
            return Ok(None);
        }
    }
    Ok(match event::read()? {
        Event::Resize(..) => Some(Input::Resized),
        Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                Some(Input::Key('q'))
            }
            KeyCode::Char(letter) if !key.modifiers.contains(KeyModifiers::CONTROL) => {
                Some(Input::Key(letter))
            }
            _ => None,
        },
        _ => None,
    })
}

/// Waits for something to read. crossterm would read from a terminal that is gone for ever, so that is found out here.
fn wait(limit: Duration) -> io::Result<()> {
    let stdin = io::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    match poll(&mut polled, Some(&limit)) {
        // A signal, such as that of another size.
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    if polled
        .iter()
        .any(|polled| polled.revents().intersects(gone))
    {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Shows these lines from the top of the screen on, in one go.
///
/// # Errors
/// When the terminal is gone.
pub(crate) fn draw(lines: &[Line], color: bool) -> io::Result<()> {
    if !TAKEN.load(Ordering::SeqCst) {
        return Ok(());
    }
    let mut out = Vec::new();
    queue!(out, BeginSynchronizedUpdate)?;
    for (row, line) in (0..).zip(lines) {
        queue!(out, MoveTo(0, row))?;
        for (style, text) in line {
            begin(&mut out, *style, color)?;
            queue!(out, Print(text), SetAttribute(Attribute::Reset))?;
        }
        queue!(out, Clear(ClearType::UntilNewLine))?;
    }
    queue!(out, EndSynchronizedUpdate)?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(&out)?;
    stdout.flush()
}

fn begin(out: &mut Vec<u8>, style: Style, color: bool) -> io::Result<()> {
    let hue = match style {
        Style::Plain => return Ok(()),
        Style::Bold => return queue!(out, SetAttribute(Attribute::Bold)),
        Style::Dim => return queue!(out, SetAttribute(Attribute::Dim)),
        Style::Good => Color::Green,
        Style::Warn => Color::Yellow,
        Style::Bad => Color::Red,
    };
    if color {
        queue!(out, SetForegroundColor(hue))?;
    }
    Ok(())
}

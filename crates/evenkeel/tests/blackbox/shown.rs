//! A command as it is on a terminal.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use testkit::{Foreign, wait_until};

use crate::command::BINARY;
use crate::life_support::SOON;

/// A command of the binary on a terminal that `script` gives it: 100 columns and 40 lines.
pub(crate) struct Shown {
    pub(crate) child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Shown {
    /// `args` as a shell takes them.
    pub(crate) fn start(args: &str) -> Self {
        let line = format!("stty cols 100 rows 40; echo \"pid=$$.\"; exec \"$BINARY\" {args}");
        let mut child = Command::new("script")
            .args(["-qfec", &line, "/dev/null"])
            .env("BINARY", BINARY)
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script starts");
        let keys = child.stdin.take().expect("its stdin");
        let mut output = child.stdout.take().expect("its stdout");
        let screen = Arc::<Mutex<Vec<u8>>>::default();
        let kept = screen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let read = bytes.get(..count).unwrap_or_default();
                kept.lock().expect("no panic").extend_from_slice(read);
            }
        });
        Self {
            child,
            keys,
            screen,
        }
    }

    /// The command itself: the shell in between became it.
    pub(crate) fn process(&self) -> Foreign {
        self.wait(0, ".");
        let text = self.text(0);
        let number = text
            .split("pid=")
            .nth(1)
            .and_then(|rest| rest.split('.').next());
        let number = number.and_then(|number| number.parse().ok());
        Foreign::new(number.expect(&text)).expect("it runs")
    }

    /// Presses a key, and waits for what it brings to the screen.
    pub(crate) fn press(&mut self, key: &str, expected: &str) {
        let from = self.screen.lock().expect("no panic").len();
        self.keys.write_all(key.as_bytes()).expect("it reads");
        self.keys.flush().expect("it reads");
        self.wait(from, expected);
    }

    /// Waits for what is written after `from` bytes.
    pub(crate) fn wait(&self, from: usize, expected: &str) {
        let seen = || self.text(from).contains(expected);
        let waited = wait_until(expected, SOON, seen);
        assert!(waited.is_ok(), "no `{expected}` in:\n{}", self.text(from));
    }

    /// What was written after `from` bytes.
    pub(crate) fn text(&self, from: usize) -> String {
        let screen = self.screen.lock().expect("no panic");
        String::from_utf8_lossy(screen.get(from..).unwrap_or_default()).into_owned()
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        // Its terminal goes with it, and the command with that.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

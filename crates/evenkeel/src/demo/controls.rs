//! The keys as a state machine: what each does now, and the account of it in the end.

use super::stats::Totals;

/// How many servers the demo has.
pub(super) const SERVERS: usize = 3;

/// What is to be done to the demo. Numbers are servers, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Kill(usize),
    Revive(usize),
    /// Slow, or as fast as it was.
    Slow(usize, bool),
    /// Failing on purpose, or well again.
    Errors(usize, bool),
    Drain(usize),
    Enable(usize),
    Reload,
    Why,
    Config,
    Quit,
    /// The key does nothing now, and this is why.
    Hint(&'static str),
}

/// What the user has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) killed: u64,
    pub(super) drained: u64,
    pub(super) reloaded: u64,
}

/// What the keys depend on.
#[derive(Debug, Default)]
pub(super) struct Controls {
    pub(super) dead: [bool; SERVERS],
    pub(super) slow: Option<usize>,
    pub(super) failing: Option<usize>,
    pub(super) drained: Option<usize>,
    pub(super) tally: Tally,
    /// The server that the user dealt with last.
    last: usize,
}

impl Controls {
    /// What a key does; `None` for one that has no meaning.
    pub(super) fn handle_key(&mut self, key: char) -> Option<Action> {
        let action = match key.to_ascii_lowercase() {
            '1' => self.kill_or_revive(0),
            '2' => self.kill_or_revive(1),
            '3' => self.kill_or_revive(2),
            's' => self.slow_or_not(),
            'e' => self.fail_or_not(),
            'd' => self.drain_or_enable(),
            'r' => {
                self.tally.reloaded += 1;
                Action::Reload
            }
            'y' => Action::Why,
            'c' => Action::Config,
            'q' => Action::Quit,
            _ => return None,
        };
        Some(action)
    }

    fn kill_or_revive(&mut self, server: usize) -> Action {
        self.last = server;
        let Some(dead) = self.dead.get_mut(server) else {
            return Action::Hint("there is no such server");
        };
        *dead = !*dead;
        if !*dead {
            return Action::Revive(server);
        }
        self.tally.killed += 1;
        // It comes back as a new process does.
        self.slow = self.slow.filter(|slow| *slow != server);
        self.failing = self.failing.filter(|failing| *failing != server);
        Action::Kill(server)
    }

    fn slow_or_not(&mut self) -> Action {
        if let Some(server) = self.slow.take() {
            return Action::Slow(server, false);
        }
        self.slow = self.busy_target();
        self.slow
            .map_or(NOBODY, |server| Action::Slow(server, true))
    }

    fn fail_or_not(&mut self) -> Action {
        if let Some(server) = self.failing.take() {
            return Action::Errors(server, false);
        }
        self.failing = self.busy_target();
        self.failing
            .map_or(NOBODY, |server| Action::Errors(server, true))
    }

    fn drain_or_enable(&mut self) -> Action {
        if let Some(server) = self.drained.take() {
            return Action::Enable(server);
        }
        self.drained = self.target(|_| true);
        if self.drained.is_some() {
            self.tally.drained += 1;
        }
        self.drained.map_or(NOBODY, Action::Drain)
    }

    /// One that gets requests, if there is any: what is done to another is not seen.
    fn busy_target(&self) -> Option<usize> {
        let busy = |server| self.drained != Some(server);
        self.target(busy).or_else(|| self.target(|_| true))
    }

    /// The server dealt with last, else the first, of those that are alive and that `wanted` takes.
    fn target(&self, wanted: impl Fn(usize) -> bool) -> Option<usize> {
        let good = |server: &usize| self.dead.get(*server) == Some(&false) && wanted(*server);
        Some(self.last)
            .filter(good)
            .or_else(|| (0..SERVERS).find(good))
    }
}

const NOBODY: Action = Action::Hint("no server is alive: 1, 2 and 3 revive them");

/// The last line: "8,412 requests, 0 failed; you killed 2 servers, drained 1, reloaded 3 times".
pub(super) fn last_line(totals: Totals, tally: Tally) -> String {
    let plural = |count: u64| if count == 1 { "" } else { "s" };
    let mut line = format!(
        "{} request{}, {} failed",
        grouped(totals.requests),
        plural(totals.requests),
        grouped(totals.failed)
    );
    if totals.on_purpose > 0 {
        let count = totals.on_purpose;
        line.push_str(&format!(
            ", {} error{} you asked for",
            grouped(count),
            plural(count)
        ));
    }
    let Tally {
        killed,
        drained,
        reloaded,
    } = tally;
    let times = match reloaded {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    let servers = plural(killed);
    line.push_str(&format!(
        "; you killed {killed} server{servers}, drained {drained}, reloaded {times}"
    ));
    line
}

/// "8,412".
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(keys: &str, expected: &[Action]) -> Controls {
        let mut controls = Controls::default();
        let actions: Vec<Action> = keys
            .chars()
            .filter_map(|key| controls.handle_key(key))
            .collect();
        assert_eq!(actions, expected, "{keys}");
        controls
    }

    #[test]
    fn numbers_kill_and_revive() {
        use Action::{Kill, Revive};
        let controls = check("1213", &[Kill(0), Kill(1), Revive(0), Kill(2)]);
        assert_eq!(controls.dead, [false, true, true]);
        assert_eq!(controls.tally.killed, 3);
    }

    #[test]
    fn modes_toggle_on_the_server_dealt_with_last() {
        use Action::{Errors, Kill, Revive, Slow};
        check("ss", &[Slow(0, true), Slow(0, false)]);
        check(
            "22see",
            &[
                Kill(1),
                Revive(1),
                Slow(1, true),
                Errors(1, true),
                Errors(1, false),
            ],
        );
    }

    #[test]
    fn a_dead_server_is_no_target_and_comes_back_as_new() {
        use Action::{Drain, Enable, Kill, Slow};
        check("1d1d", &[Kill(0), Drain(1), Action::Revive(0), Enable(1)]);
        let controls = check("s1", &[Slow(0, true), Kill(0)]);
        assert_eq!(controls.slow, None);
        let controls = check("123s", &[Kill(0), Kill(1), Kill(2), NOBODY]);
        assert_eq!((controls.slow, controls.tally.drained), (None, 0));
    }

    #[test]
    fn a_drained_server_is_spared_while_another_serves() {
        use Action::{Drain, Errors, Kill, Slow};
        check("ds", &[Drain(0), Slow(1, true)]);
        check("23de", &[Kill(1), Kill(2), Drain(0), Errors(0, true)]);
    }

    #[test]
    fn other_keys_mean_nothing_and_capitals_mean_the_same() {
        use Action::{Config, Quit, Reload, Why};
        let controls = check("xR4 YCQ", &[Reload, Why, Config, Quit]);
        assert_eq!(controls.tally.reloaded, 1);
    }

    #[test]
    fn the_last_line_counts() {
        let totals = |requests, failed, on_purpose| Totals {
            requests,
            failed,
            on_purpose,
        };
        let tally = |killed, drained, reloaded| Tally {
            killed,
            drained,
            reloaded,
        };
        assert_eq!(
            last_line(totals(8412, 0, 0), tally(2, 1, 3)),
            "8,412 requests, 0 failed; you killed 2 servers, drained 1, reloaded 3 times"
        );
        assert_eq!(
            last_line(totals(1, 0, 1_234_567), tally(1, 0, 1)),
            "1 request, 0 failed, 1,234,567 errors you asked for; \
             you killed 1 server, drained 0, reloaded once"
        );
    }
}

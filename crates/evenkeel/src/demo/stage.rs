//! The running demo as its screen sees it: does what the keys say, and puts together what is shown.

use std::sync::Arc;
use std::time::Duration;

use balance::{Condition, Local, State};
use control::live::{PoolState, PoolView, Standing};
use control::message::{Answer, Command, Message, Receipt};
use control::world::Hub;

use super::controls::{Action, Controls, Tally};
use super::frame::{Row, Scene};
use super::load::Load;
use super::place::{POOL, Place};
use super::server::Server;
use super::stats::{Recent, Totals};
use super::story::Story;
use crate::terminal::Style;

/// Everything that the screen shows and the keys change.
pub(super) struct Stage {
    pub(super) place: Place,
    pub(super) servers: Vec<Server>,
    pub(super) hub: Arc<Hub>,
    pub(super) story: Arc<Story>,
    pub(super) load: Load,
    pub(super) controls: Controls,
    pub(super) unicode: bool,
}

impl Stage {
    /// Does what a key says; true when it ends the demo.
    pub(super) fn handle_key(&mut self, key: char) -> bool {
        let Some(action) = self.controls.handle_key(key) else {
            return false;
        };
        match action {
            Action::Quit => return true,
            Action::Kill(index) => self.kill(index),
            Action::Revive(index) => self.revive(index),
            Action::Slow(index, slow) => self.with(index, |server| {
                server.set_slow(slow);
                if slow {
                    "is slow now: 400 ms an answer"
                } else {
                    "is as fast as it was"
                }
            }),
            Action::Errors(index, errors) => self.with(index, |server| {
                server.set_errors(errors);
                if errors {
                    "answers 500 now, and its /health 503"
                } else {
                    "answers well again"
                }
            }),
            Action::Drain(index) => self.drain(index),
            Action::Enable(index) => self.enable(index),
            Action::Reload => self.reload(),
            Action::Why => self.story.tell(&self.why()),
            Action::Config => {
                let (path, text) = (self.place.config.display(), self.place.text());
                self.story
                    .tell(&format!("{path} (change it, then r):\n{text}"));
            }
            Action::Hint(text) => self.story.tell(text),
        }
        false
    }

    /// What to show now.
    pub(super) fn scene(&self) -> Scene {
        let now = self.story.now();
        let pool = self.pool();
        let mut stats = self.load.stats();
        let rate = stats.rate(now);
        let rows = match &pool {
            Some(pool) => {
                let view = pool.view();
                let standings = view.standings.iter();
                standings
                    .map(|standing| self.row(standing, stats.recent(&standing.member.name, now)))
                    .collect()
            }
            None => Vec::new(),
        };
        Scene {
            url: self.place.url(),
            admin: self.place.admin_url(),
            elapsed: now,
            servers: rows,
            totals: stats.totals,
            rate,
            retried: pool.map_or(0, |pool| retried(&pool)),
            story: self.story.told(),
            unicode: self.unicode,
        }
    }

    /// Ends the load, and gives the account.
    pub(super) fn end(&mut self) -> (Totals, Tally) {
        self.load.stop();
        (self.load.stats().totals, self.controls.tally)
    }

    fn with(&self, index: usize, change: impl FnOnce(&Server) -> &'static str) {
        if let Some(server) = self.servers.get(index) {
            let what = change(server);
            self.story.tell(&format!("{} {what}", server.name));
        }
    }

    fn kill(&mut self, index: usize) {
        if let Some(server) = self.servers.get_mut(index) {
            server.kill();
            self.story
                .tell(&format!("{} is dead: you killed it", server.name));
        }
    }

    fn revive(&mut self, index: usize) {
        let Some(server) = self.servers.get_mut(index) else {
            return;
        };
        let name = server.name.clone();
        match server.revive() {
            Ok(()) => self.story.tell(&format!(
                "{name} runs again: it gets requests once its probes succeed"
            )),
            Err(error) => {
                if let Some(dead) = self.controls.dead.get_mut(index) {
                    *dead = true;
                }
                self.story
                    .tell(&format!("{name} cannot come back: {error}"));
            }
        }
    }

    fn drain(&self, index: usize) {
        let Some(name) = self.name(index) else {
            return;
        };
        let command = Command::Drain {
            pool: POOL.to_owned(),
            server: name.to_string(),
            timeout: None,
            force: true,
        };
        self.ask(command, move |answer| match answer {
            Answer::Drained(receipt) => receipt_text(&name, &receipt),
            other => unexpected(&other),
        });
    }

    fn enable(&self, index: usize) {
        let Some(name) = self.name(index) else {
            return;
        };
        let command = Command::Set {
            pool: POOL.to_owned(),
            server: name.to_string(),
            state: Some(State::Ready),
            weight: None,
            force: true,
        };
        self.ask(command, move |answer| match answer {
            Answer::Done => format!("{name} takes requests again"),
            other => unexpected(&other),
        });
    }

    fn reload(&self) {
        self.ask(Command::Reload, |answer| match answer {
            Answer::Reloaded(changes) => format!("reloaded: {changes}"),
            // Each of the errors has been logged, and so told.
            Answer::Refused(_) => "not reloaded: nothing has changed".to_owned(),
            other => unexpected(&other),
        });
    }

    /// Sends a command to the balancer, and tells what comes of it.
    fn ask(&self, command: Command, text: impl FnOnce(Answer) -> String + Send + 'static) {
        let story = self.story.clone();
        let reply = move |answer| story.tell(&text(answer));
        self.hub.send(Message::Command(command, Box::new(reply)));
    }

    /// Who answered last, whom the balancer would pick now, and what speaks against the others.
    fn why(&self) -> String {
        let Some(pool) = self.pool() else {
            return format!("the config has no pool `{POOL}`");
        };
        let last = self.load.stats().last.clone();
        let view = pool.view();
        let mut text = match last {
            Some(last) => format!("the last request went to {last}; the next, picked now:"),
            None => "no server has answered yet; the next request, picked now:".to_owned(),
        };
        for (name, why) in whys(&pool, &view, self.story.now()) {
            text.push_str(&format!("\n  {name:<10} {why}"));
        }
        text
    }

    fn pool(&self) -> Option<Arc<PoolState>> {
        let world = self.hub.world();
        world.pool(POOL).map(|(_, pool)| pool.clone())
    }

    fn name(&self, index: usize) -> Option<Arc<str>> {
        self.servers.get(index).map(|server| server.name.clone())
    }

    fn row(&self, standing: &Standing, recent: Recent) -> Row {
        let name = &standing.member.name;
        let index = self.servers.iter().position(|server| server.name == *name);
        let (style, mut words) = state(standing);
        let done = [
            (
                index.is_some() && self.controls.slow == index,
                "you made it slow",
            ),
            (
                index.is_some() && self.controls.failing == index,
                "you made it fail",
            ),
            (
                index.and_then(|index| self.controls.dead.get(index)) == Some(&true),
                "you killed it",
            ),
        ];
        for (_, what) in done.iter().filter(|(is, _)| *is) {
            words.push_str(&format!(" ({what})"));
        }
        Row {
            name: name.to_string(),
            recent,
            style,
            words,
        }
    }
}

/// State and cause, in words.
fn state(standing: &Standing) -> (Style, String) {
    let cause = &standing.cause;
    match standing.member.cell.state() {
        State::Ready => {
            let style = match standing.condition {
                Condition::Healthy => Style::Good,
                Condition::Unhealthy | Condition::Ejected => Style::Bad,
                _ => Style::Warn,
            };
            (style, format!("{}: {cause}", standing.condition))
        }
        State::Drain => (
            Style::Warn,
            format!("drained: {} requests on it", standing.member.cell.in_use()),
        ),
        other => (Style::Warn, other.to_string()),
    }
}

/// Each server's name and what the next pick has to say about it.
fn whys(pool: &PoolState, view: &PoolView, now: Duration) -> Vec<(String, String)> {
    // A draw as any other: of the time.
    let seed = u64::try_from(now.as_nanos()).unwrap_or_default();
    let explanation = view
        .view
        .explain(&pool.rotation, &Local::new(seed), None, &[], now);
    let why = |standing: &Standing| {
        let mut members = view.members.iter();
        let at = members.position(|member| member.id == standing.member.id);
        match at.and_then(|at| explanation.candidates.get(at)) {
            Some(why) => why.to_string(),
            None if standing.usable => standing.note.to_string(),
            None => format!("not usable: {}", state(standing).1),
        }
    };
    let standings = view.standings.iter();
    standings
        .map(|standing| (standing.member.name.to_string(), why(standing)))
        .collect()
}

fn retried(pool: &PoolState) -> u64 {
    let of_worker = |cells: &control::metrics::PoolCells| {
        let retries = cells.retries.iter();
        retries.map(control::metrics::Counter::get).sum()
    };
    pool.stats.sum(of_worker)
}

fn receipt_text(name: &str, receipt: &Receipt) -> String {
    let cut: u64 = receipt.cut.iter().map(|cut| cut.count).sum();
    format!(
        "{name} is drained, in {} ms. Receipt: {} new picks, {} by affinity, {} finished, {cut} cut",
        receipt.took_ms, receipt.new_picks, receipt.affinity_picks, receipt.finished
    )
}

fn unexpected(answer: &Answer) -> String {
    match answer {
        Answer::NotFound(why) => why.clone(),
        Answer::Refused(errors) => errors.join("; "),
        other => format!("{other:?}"),
    }
}

//! Faults on purpose: the binary under load, in front of real servers, while something goes wrong.
//!
//! Each [`Scenario`] breaks one thing and says what was promised, what was held and what was lost.
//! Its clients keep their connections and never retry. The black-box tests run some in their short
//! form; `cargo xtask reliability` runs all of them and writes `docs/reliability.md`.

mod clients;
mod memory;
mod network;
mod operator;
mod report;
mod servers;
mod stage;

pub use report::{document, line};
pub use stage::{Outcome, Stage};

use anyhow::Result;

/// One fault, and what is promised while it lasts.
#[derive(Debug)]
pub struct Scenario {
    /// For `--only`.
    pub name: &'static str,
    /// What goes wrong.
    pub fault: &'static str,
    /// What is promised, and why no more where requests may be lost.
    pub promise: &'static str,
    /// Debian programs that it needs.
    pub programs: &'static [&'static str],
    /// Needs a network of its own, which [`Stage::in_own_network`] says.
    pub own_network: bool,
    run: fn(&Stage) -> Result<Outcome>,
}

impl Scenario {
    /// Every scenario, in the order of the table.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        let rooms = [
            servers::SCENARIOS,
            network::SCENARIOS,
            operator::SCENARIOS,
            clients::SCENARIOS,
            memory::SCENARIOS,
        ];
        rooms.into_iter().flatten()
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::all().find(|scenario| scenario.name == name)
    }

    /// Runs it. A broken promise is in the outcome.
    ///
    /// # Errors
    ///
    /// When it could not be carried through: a server did not start, an event did not come in time.
    pub fn run(&self, stage: &Stage) -> Result<Outcome> {
        (self.run)(stage)
    }
}

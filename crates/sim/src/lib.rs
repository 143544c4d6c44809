//! The balancer without its I/O, in virtual time: the real publisher, views, retry budget and health verdicts, in front
//! of simulated servers that fail as a [`Scenario`] says, under open-loop load. A [judge] with a simple model
//! of its own watches every decision.
//!
//! Everything follows from the scenario, and a scenario from a seed: what failed once fails again.
//!
//! ```
//! let scenario = evenkeel_sim::Scenario::from_seed(7);
//! let report = evenkeel_sim::run(&scenario);
//! assert!(report.violations.is_empty(), "{report}");
//! ```
//!
//! # What is real and what is not
//! Real: [`control::publisher::Publisher`] with its probes' schedule, verdicts, ejections, slow starts, drains and
//! reloads; the pool's views, rotation, budget and queue; how a worker picks ([`control::pick`]), what a try's end is
//! counted as ([`control::outcome`]), and whether and where another follows ([`control::tries`]); configs, which are
//! read from text. Simulated: the clock, the network, the servers and their agents, the clients, and what the proxy's
//! sockets would do between two decisions (`exchange.rs`; `race.rs` for tries side by side).
//!
//! # What this crate does not do
//! It parses no HTTP, moves no bodies and measures no speed. It opens no socket, reads no clock and no environment.

#![forbid(unsafe_code)]

mod agenda;
mod bound;
pub mod decisions;
mod draw;
mod engine;
mod exchange;
mod hosts;
pub mod judge;
mod race;
mod random;
mod report;
mod scenario;
mod waits;
mod workers;

pub use decisions::{Binds, Decisions, Product};
pub use judge::Rule;
pub use random::Random;
pub use report::{Report, Violation};
pub use scenario::{
    AdaptivePlan, AffinityPlan, Check, Condition, Life, OutlierPlan, QueuePlan, Scenario,
    ServerPlan, Step,
};

/// Plays a scenario through, and says what came of it.
#[must_use]
pub fn run(scenario: &Scenario) -> Report {
    run_with(scenario, &mut Product)
}

/// As [`run`], with other decisions than the product's in some places: to see that the judge objects to them.
#[must_use]
pub fn run_with(scenario: &Scenario, decisions: &mut dyn Decisions) -> Report {
    engine::Engine::new(scenario, decisions, false).run()
}

/// As [`run`], with a line in [`Report::trace`] for everything that happened.
#[must_use]
pub fn trace(scenario: &Scenario) -> Report {
    engine::Engine::new(scenario, &mut Product, true).run()
}

#![doc = include_str!("../README.md")]
//!
//! # What this crate does not do
//! It opens no socket, reads no clock, starts no thread, logs nothing and draws no randomness of
//! its own: `now`, seeds and the outcomes of probes are given to it, and what follows is returned.
//! Which requests exist, what a server's address is, and when a [`View`] is rebuilt are the
//! caller's affair.

#![forbid(unsafe_code)]

pub mod adaptive;
mod algorithm;
pub mod budget;
mod explain;
mod hash;
pub mod health;
mod latency;
pub mod learnt;
mod local;
mod maglev;
pub mod outlier;
mod owners;
mod place;
mod priority;
pub mod quantile;
pub mod queue;
mod ring;
mod rotation;
mod sequence;
mod server;
mod share;
mod slow_start;
mod spread;
mod sync;
mod tally;
mod tree;
mod usable;
mod view;
mod zone;

pub use algorithm::Algorithm;
pub use budget::RetryBudget;
pub use explain::{Explanation, Why};
pub use hash::{HASH_SEED, hash_key};
pub use latency::Reading;
pub use local::Local;
pub use owners::{Owners, has_come};
pub use place::{Division, Placement, Role, Seat, Used, place};
pub use priority::{ALL, overflow};
pub use quantile::{Percentile, Quantile};
pub use queue::Queue;
pub use rotation::Rotation;
pub use server::{OnDrain, Refused, Server, State};
pub use share::Share;
pub use slow_start::SlowStart;
pub use usable::{Condition, Standing, Usable, may_eject, usable};
pub use view::{Candidate, View};
pub use zone::{ZoneWeights, own_share};

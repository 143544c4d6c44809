//! Automatic certificates: when one is asked for, what is answered to an authority meanwhile, and how each one stands.
//!
//! Speaking to authorities and keeping what they give is for `agents`.

mod board;
mod challenges;
mod schedule;

pub use board::{Board, State, Status};
pub use challenges::{Challenges, Pending, TlsAnswer};
pub use schedule::{Failed, Failures, Renewal, Window, next_order, wait_after};

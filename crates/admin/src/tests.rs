//! Real exchanges with the router on a kernel-given port, over a publisher that runs beside it.

mod commands;
mod fixture;
mod reads;

use fixture::{Fixture, MAIN};

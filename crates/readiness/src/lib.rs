//! What a service behind a balancer says about itself: `/livez` (am I running?) and a deep
//! `/health` (can I do my work?), the latter from named checks that are asynchronous, timed, run
//! side by side, and kept for a moment so that many probers cost what one does.
//!
//! What it does *not* do: it brings no ready-made check, starts no server, writes no log, and
//! stops no process; [`Readiness::set_draining`] only changes what `/health` says.
//!
//! ```
//! # async fn ping() -> Result<(), String> { Ok(()) }
//! # #[cfg(feature = "axum")]
//! # fn app() -> axum::Router {
//! use evenkeel_readiness::Readiness;
//!
//! let readiness = Readiness::builder(env!("CARGO_PKG_VERSION")).check("database", ping).build();
//! axum::Router::new().merge(readiness.router())
//! # }
//! ```
//!
//! Checks run on the tokio runtime of whoever asks first. Without the default feature `axum`,
//! [`Readiness::report`] gives the status and the JSON for any other server.

#![forbid(unsafe_code)]

#[cfg(feature = "axum")]
mod axum_router;
mod check;
mod report;
mod run;

pub use check::Check;
pub use report::{Cause, CheckReport, Report, Status};
pub use run::{Builder, Readiness};

/// Compiles and runs the examples of README.md.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

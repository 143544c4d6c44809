//! Real servers and clients on loopback, for black-box tests: the built binary as a process,
//! nginx, HAProxy and Chromium, a scriptable origin for what no real server does on demand, raw sockets,
//! a load that never retries, curl and wrk. On these stand the scenarios of [`reliability`].
//!
//! What it does *not* do: it knows nothing of the workspace's other crates, so that it sees only
//! what a user sees (sockets, log lines, exit codes). Every wait is bounded, every port comes from
//! the kernel, and a process ends by its own id when its value is dropped. When a test panics, the
//! output of its processes is printed.

#![forbid(unsafe_code)]

mod browser;
mod dir;
mod evenkeel;
mod foreign;
mod grpc;
mod http;
pub mod http2;
mod load;
mod origin;
mod pebble;
mod peers;
mod port;
mod process;
mod raw;
pub mod reliability;
mod script;
mod talk;
mod tools;
mod wait;

pub use browser::Chromium;
pub use dir::TempDir;
pub use evenkeel::Evenkeel;
pub use foreign::Foreign;
pub use grpc::GrpcServer;
pub use http::{Headers, Interim, Request, Response};
pub use load::{Failure, Load, LoadPlan, LoadReport};
pub use origin::{Conn, Origin, reply};
pub use pebble::{Pebble, PebblePlan, directory};
pub use peers::{Haproxy, Nghttpd, Nginx};
pub use port::Port;
pub use process::{Finished, Mark, Process, run};
pub use raw::Raw;
pub use rustix::process::Signal;
pub use script::script;
pub use talk::{Talk, talk};
pub use tools::{WrkReport, curl, missing, program, wrk};
pub use wait::{wait_accepts, wait_until};

//! What runs beside traffic: probes, agent checks, name resolution, file watch.
//!
//! It decides nothing: the publisher in `control` says what to probe and what to look up, and this room does it and
//! reports an event. It reads no config and changes no file.
#![forbid(unsafe_code)]

pub mod agent_check;
pub mod drive;
pub mod probe;
pub mod resolve;
pub mod tls;
pub mod watch;

pub use drive::Agents;
pub use resolve::Resolver;
pub use tls::Secure;
pub use watch::Watch;

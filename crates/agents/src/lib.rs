//! What runs beside traffic: probes, agent checks, name resolution, file watch, automatic certificates.
//!
//! It decides nothing: the publisher in `control` says what to probe and what to look up, and this room does it and
//! reports an event. It reads no config, and changes no file but in
//! the stores of automatic certificates.
#![forbid(unsafe_code)]

pub mod acme;
pub mod agent_check;
pub mod drive;
pub mod probe;
pub mod resolve;
pub mod tls;
pub mod watch;

pub use acme::Acme;
pub use drive::Agents;
pub use resolve::Resolver;
pub use tls::Secure;
pub use watch::Watch;

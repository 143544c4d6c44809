//! Where the I/O rooms meet: live state by identity, messages to the publisher and the publisher itself as a state
//! machine, metric cells, the closed list of reasons, and the access-log record.
//!
//! Atomics yes; locks (but the queue's of `balance`), sockets, files and clocks no: those belong to `proxy`, `agents`,
//! `admin` and the binary.
#![forbid(unsafe_code)]

pub mod acme;
pub mod affinity;
pub mod capacity;
pub mod crew;
pub mod decide;
pub mod expiry;
pub mod fairness;
pub mod gate;
pub mod handover;
pub mod learnt;
pub mod live;
pub mod memory;
pub mod message;
pub mod metrics;
pub mod outcome;
pub mod pick;
pub mod publisher;
pub mod reason;
pub mod record;
pub mod sockets;
pub mod sources;
pub mod tries;
pub mod world;

pub use publisher::verdict_word;

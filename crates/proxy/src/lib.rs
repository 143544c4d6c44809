//! The data plane: workers, listeners, HTTP/1, TCP, TLS, and the connections to servers.
//!
//! It carries traffic and nothing else: it does not read configs, probe servers, resolve names or answer operators.
//! Those rooms meet it in `control`.
#![warn(clippy::indexing_slicing)]

mod bounds;
mod buffer;
mod engine;
mod fault;
mod handover;
mod http1;
mod http2;
mod listener;
mod memory;
mod net;
mod outcome;
mod pulse;
mod queue;
mod relay;
mod room;
mod sockets;
mod source;
mod stream;
mod sys;
mod tcp;
mod tls;
mod unshaken;
mod upstream;
mod watch;
mod worker;

pub use engine::{Engine, NotPrepared, Notice, Prepared, Stopped, connection_default_max};
pub use fault::arm_faults;
pub use net::origin;
pub use sockets::{BindError, HandedOver, Inherited, NotAdopted, show};
pub use tls::{Issued, TlsError, ask_certificate, check_tls, secure_probes};

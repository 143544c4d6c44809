//! HTTP/2 (RFC 9113), by the h2 crate, which nothing outside this folder names.
//!
//! Inside Evenkeel every request is one of HTTP/1: matched, filtered, sent, retried, counted and logged by `http1`,
//! whatever the client speaks. A client's stream is a task of its connection's worker that runs that exchange over a
//! codec: [`Served`] gives the exchange the request as HTTP/1.1 would have brought it, and takes the response as
//! HTTP/1.1 would have sent it. There is nothing between codec and h2: what the exchange has not read stays in the
//! stream's window, and it can write what the client's window takes.
//!
//! Where a pool's servers speak HTTP/2, an exchange gets a stream of a connection that it shares with others
//! ([`obtain`]): [`Exchange`] is the same codec the other way round.

mod clients;
mod fields;
mod io;
mod receive;
mod send;
mod served;
mod servers;
mod websocket;

pub(crate) use clients::{CONNECTION_TAG, serve, starts_http2};
pub(crate) use served::Served;
pub(crate) use servers::{
    Connections, Exchange, Fault, Obtained, Registry, Wanted, adopt, obtain, obtain_in_turn,
};

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Buf, Bytes};

use crate::memory::Held;

/// A piece of a body on its way out, counted until h2 has passed it on.
pub(crate) struct Piece {
    bytes: Bytes,
    passed: Passed,
    _held: Held,
}

/// Bytes of bodies that h2 has passed on, of all streams of a connection.
#[derive(Clone, Default)]
struct Passed {
    bytes: Arc<AtomicU64>,
    /// Whether another thread does it.
    elsewhere: bool,
}

impl Passed {
    fn elsewhere() -> Self {
        Self {
            elsewhere: true,
            ..Self::default()
        }
    }

    fn get(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

impl Piece {
    fn new(bytes: Bytes, passed: Passed) -> Self {
        Self {
            _held: if passed.elsewhere {
                Held::for_others(bytes.len())
            } else {
                Held::new(bytes.len())
            },
            passed,
            bytes,
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        // Only one connection's task passes it on.
        let passed = self.passed.get().saturating_add(count as u64);
        self.passed.bytes.store(passed, Relaxed);
        self.bytes.advance(count);
    }
}

//! Bytes to values and back: the framing of the protocols that Evenkeel speaks.
//!
//! Everything here is a pure function or a small state machine over bytes that
//! the caller holds: no socket, clock, file, environment, global or log line.
//! Decoders tell *incomplete* (read more) from *malformed* (give up), never
//! panic whatever the bytes, and keep offsets into the caller's buffer instead
//! of copies.
//!
//! What it does not do: it neither reads nor writes, decides no route and no
//! policy, and does not normalise paths or hosts (`rules` does). It says what a
//! message is, or why it is none.

#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]
#![cfg_attr(
    test,
    expect(
        clippy::indexing_slicing,
        reason = "a test that is out of range should fail"
    )
)]

pub mod agent_check;
pub mod client_hello;
pub mod grpc;
pub mod http1;
pub mod http2;

//! What the wire room promises, seen from outside.

#![expect(clippy::unwrap_used, reason = "what fails to unwrap fails the test")]

#[path = "../../../../fuzz/checks.rs"]
mod checks;

mod corpus;
mod desync;
mod grpc;
mod properties;

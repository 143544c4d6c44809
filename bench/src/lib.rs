//! What the programs of the benchmark share: readiness by epoll, and the header fields that a browser sends. What is
//! measured and how is the duty of the harness (`main.rs`).

#![forbid(unsafe_code)]

pub mod browser;
pub mod poll;

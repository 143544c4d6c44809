//! What the programs of the benchmark share: readiness by epoll, the header fields that a browser sends, and the
//! pieces of work that are counted and timed. What is measured and how is the duty of the harness (`main.rs`).

#![forbid(unsafe_code)]

pub mod browser;
pub mod cases;
pub mod poll;

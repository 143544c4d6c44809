//! Fuzzes the readers of cookies that bind clients; what must hold is in `cookies.rs`.
#![no_main]

// The check names the crates as the tests of `evenkeel-control` do.
extern crate evenkeel_config as config;
extern crate evenkeel_rules as rules;

#[path = "../cookies.rs"]
mod cookies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| cookies::affinity_cookie(data));

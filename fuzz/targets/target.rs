//! Fuzzes the reader of `target`; what must hold is in `rules.rs`.
#![no_main]

#[path = "../rules.rs"]
#[expect(dead_code, reason = "each target calls one of them")]
mod rules;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rules::target(data));

//! Fuzzes what becomes of `http2_response`; what must hold is in `checks.rs`.
#![no_main]

// The checks name the crate as its own tests do.
extern crate wire as evenkeel_wire;

#[path = "../checks.rs"]
#[expect(dead_code, reason = "each target calls one of them")]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::http2_response(data));

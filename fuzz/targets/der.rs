//! Fuzzes the readers of authorities' answers and of clients' certificates: no panic, and texts that fit a header.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evenkeel_config::fuzz::read_der(data));

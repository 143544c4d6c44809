//! Fuzzes the config reader: every finding has a place in its file, and a snapshot comes only without errors.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evenkeel_config::fuzz::load_any(data));

//! Count.
fn main() {}

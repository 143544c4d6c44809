//! How long it takes to find a route.
fn main() {}

//! Builds and tests all of twinflash.
fn main() {}

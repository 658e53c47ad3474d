//! The twinflash command.
fn main() {}

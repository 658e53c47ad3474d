//! What the tests share: a hostile HTTP server, an installer that writes to a real file, images, keys that
//! sign, and the scenarios' patterns.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod disturbed;
pub mod pattern;
pub mod process;
pub mod server;
pub mod signer;
pub mod staging;

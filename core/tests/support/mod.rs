//! What the tests share: a hostile HTTP server, and an installer that writes to a real file.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod server;
pub mod staging;

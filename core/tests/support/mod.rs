//! What the tests share: a hostile HTTP server, an installer that writes to a real file, and the runner
//! of the scenarios in `tests/scenarios`.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod hub;
pub mod pattern;
pub mod scenario;
pub mod server;
pub mod staging;

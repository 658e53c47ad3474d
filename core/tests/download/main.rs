//! The downloader against servers that keep no promise. Every test says what was installed, what was
//! fetched, and how the attempt ended.
#![cfg(feature = "http")]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod body;
mod device;
mod encrypted;
mod faults;
mod hostile;
mod installer;
mod line;
mod logs;
mod packed;
mod refusals;
mod resume;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod tls;
mod transport;

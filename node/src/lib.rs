//! twinflash for Node: the thin native half. What is public is `index.d.ts`; `index.js` is the only
//! one that calls this.
//!
//! Everything that comes from the updater's threads goes through one weak threadsafe function, the
//! [`bridge::Bridge`]; everything that waits does so on a thread of its own, never on JavaScript's.

mod bridge;
mod device;
mod event;
mod failure;
// A function alone: where napi does not register it, as in cargo's tests, nothing else would use it.
pub mod guard;
mod installer;
mod updater;

use engine::update::Code;
use napi_derive::napi;

/// Every code an error can have, in the order of its number.
#[napi(catch_unwind)]
pub fn codes() -> Vec<&'static str> {
    Code::ALL.iter().map(|code| code.as_str()).collect()
}

/// This version.
#[napi(catch_unwind)]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

//! Firmware updates for devices on Azure IoT Hub.
//!
//! The crate is built in layers; a module uses only those above it in this list:
//!
//! | module | what it is |
//! |---|---|
//! | [`update`] | what an update is: request, phase, outcome, failure codes, checks, policy |
//! | [`twin`] | a twin's document: merge patch, limits, the reporter |
//! | [`contract`] | how a back end asks and what it is told, as data |
//! | [`engine`] | decides. Input in, output out: no I/O, no clock, no threads |
//! | [`windows`] | maintenance windows |
//! | [`command`] | runs the commands a device's owner has configured |
//! | `age` | decrypts images (feature `encryption`) |
//! | [`journal`] | remembers: the record on disk |
//! | [`download`] | fetches one attempt of an image: over HTTP, from a file, or from the application |
//! | [`install`] | writes an image and switches to it |
//! | [`iothub`] | the IoT Hub device client; knows no updates |
//! | [`device`] | [`Updater`](device::Updater): runs the engine against the world; [`Device`](device::Device): with its own connection |
//! | [`config`] | all of it set up by one document, as the agent and the other languages do |
//!
//! The first four build without `std`, and of the journal what one copy of the record looks like.
#![forbid(unsafe_code)]
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

extern crate alloc;

#[cfg(feature = "encryption")]
pub mod age;
#[cfg(feature = "std")]
mod clock;
#[cfg(feature = "std")]
pub mod command;
#[cfg(all(feature = "std", unix))]
pub mod config;
pub mod contract;
#[cfg(feature = "std")]
pub mod device;
#[cfg(feature = "std")]
mod disk;
#[cfg(feature = "std")]
pub mod download;
pub mod engine;
#[cfg(feature = "std")]
pub mod install;
#[cfg(feature = "mqtt")]
pub mod iothub;
pub mod journal;
mod json;
mod seconds;
#[cfg(all(test, feature = "std", unix))]
mod testing;
#[cfg(any(feature = "http", feature = "mqtt"))]
pub mod tls;
pub mod twin;
pub mod update;
#[cfg(feature = "std")]
pub mod windows;
#[cfg(all(test, feature = "http", feature = "compression", unix))]
mod world;

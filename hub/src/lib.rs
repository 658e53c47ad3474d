//! A local Azure IoT Hub: devices and back ends are developed and tested with no cloud.
//!
//! The unmodified Azure SDKs talk to it: MQTT 3.1.1 over TLS on one port; REST, and MQTT over WebSockets, on another. Shared
//! access signatures are really checked, twins are merged, limited and versioned as Azure does it, and refusals have
//! Azure's codes and bodies.
//!
//! Where it is not like Azure:
//! - Rates are limited only if [`Options::throttle`] says so, and there is no daily quota.
//! - There is no Event Hubs endpoint: device-to-cloud messages are not kept. `GET /twinflash/telemetry?api-version=…[&device=ID]`,
//!   with a policy that may connect as a service, streams those that come from then on: a line of JSON each, an empty one now and
//!   then, and `{"lost": n}` where a reader was too slow for n of them.
//! - A device that connects again within the response timeout may still answer a direct method.
//! - An answer that is no JSON is refused (400012); Azure passes it on, and the service SDKs fail over it.
//! - There are no modules, cloud-to-device messages and file uploads (yet).
//! - A change of configurations, or of a twin, takes effect at once, not within five minutes.
//!
//! ```
//! use twinflash_hub::{Hub, Options};
//!
//! let hub = Hub::start(Options {
//!     devices: vec!["device1".into()],
//!     mqtt_port: 0, // any free port
//!     https_port: 0,
//!     ..Options::default()
//! })?;
//! let info = hub.info();
//! assert!(info.devices["device1"].starts_with("HostName=localhost:"));
//! assert!(info.ca.is_file());
//! hub.stop();
//! # Ok::<(), twinflash_hub::Error>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod clock;
mod configurations;
mod error;
mod event;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod jobs;
mod methods;
mod mqtt;
mod options;
mod query;
mod rest;
mod sas;
mod server;
mod state;
mod store;
mod telemetry;
mod throttle;
mod tls;
mod twin;
mod x509;

pub use error::Error;
pub use event::{DisconnectReason, Event, Observer};
pub use files::{TooFewFiles, allow_open_files};
pub use options::{Info, Options};
pub use server::Hub;
pub use throttle::{Limits, Rate};

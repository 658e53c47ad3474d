//! Runs the engine against the world.
//!
//! [`Updater`] has everything but a connection to the hub: the application, or an Azure SDK, brings
//! that. [`Device`] is an updater with a connection of its own.

#[cfg(test)]
pub(crate) mod by_hand;
#[cfg(feature = "mqtt")]
mod connected;
mod driver;
mod guard;
mod offer;
mod options;
mod pipeline;
mod restart;
mod shared;
mod updater;

pub use crate::download::{NotTaken, Response, Wanted};
#[cfg(feature = "mqtt")]
pub use connected::{Device, DeviceEvent, DeviceOptions};
pub use guard::{Guarded, guard};
pub use options::Builder;
pub use updater::{Answer, Events, InstallFile, Outbound, Updater};

pub use crate::engine::{Ask, Event, Question, Reply, Status, Verified, Wait, Waiting};

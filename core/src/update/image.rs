//! What is known of an image, and of the one that runs.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Which image runs, or would run at the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageState {
    /// The old image: the new one is not activated, or was rolled back.
    Old,
    /// The new image: it is activated.
    New,
    /// The old image, and a new one that is only partly written.
    Partial,
    /// It cannot be told.
    Unknown,
}

/// What is to be installed, as far as it is known before its bytes come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageInfo {
    /// The image's size in bytes, if announced by request or server.
    pub size: Option<u64>,
    /// The version asked for, if the request names one.
    pub version: Option<String>,
}

/// What makes an activated image run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Restart {
    /// Nothing: it is used from the next time on that somebody opens it.
    #[default]
    None,
    /// This process ends and its supervisor starts it again.
    Exit,
    /// A command restarts the program that uses the image, or the device.
    Command(Vec<String>),
    /// The device reboots.
    System,
    /// The device reboots by this command, which may return before it does.
    Reboot(Vec<String>),
}

impl Restart {
    /// Whether the whole device restarts, not only a program.
    pub const fn is_of_system(&self) -> bool {
        matches!(self, Self::System | Self::Reboot(_))
    }
}

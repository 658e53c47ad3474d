//! What is remembered of the slots from one start to the next.

use serde::{Deserialize, Serialize};

/// How far the image in a slot has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stage {
    /// It is being written; the slot is never started.
    Writing,
    /// It is whole.
    Written,
    /// The switch is being set to it.
    Activating,
    /// The switch is set to it.
    Activated,
    /// It is there to stay.
    Confirmed,
    /// The switch is being set to the old one.
    RollingBack,
    /// The switch is set to the old one.
    RolledBack,
}

/// What is remembered of the slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    pub(super) stage: Stage,
    /// The name of the slot with the new image.
    pub(super) slot: String,
    /// Bytes of the new image that are durable.
    pub(super) durable: u64,
    /// The system's start in which the switch was set, where it is the system that restarts, and
    /// the slot that ran then: until the next start that is the one that runs, whatever the
    /// switch says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) boot: Option<(String, String)>,
}

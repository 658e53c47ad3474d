//! What a hub tells of itself while it runs.

use serde::{Serialize, Serializer};
use serde_json::Value;
use std::{fmt, sync::Arc};

/// Is called with each [`Event`], on a thread of the hub. It must not block.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;

/// Something that happened at the hub. Serialised, each is one object with `event` and its own members in camel case.
///
/// Payloads and patches are what users sent and may hold their secrets, such as a URL's query: print them where the user
/// looks, not into a log. A device that connects again while its old connection is there is told as connected first;
/// the old connection's end follows.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(
    tag = "event",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Event {
    /// A device is connected and was let in.
    DeviceConnected {
        /// Its id.
        device: String,
        /// The address it connects from.
        peer: String,
        /// Whether subscriptions of an earlier connection are still in force.
        session_present: bool,
    },
    /// A device's connection ended.
    DeviceDisconnected {
        /// Its id.
        device: String,
        /// Why.
        reason: DisconnectReason,
    },
    /// An MQTT connection was not let in.
    ConnectionRefused {
        /// The id it gave, when it came that far.
        device: Option<String>,
        /// The address it came from.
        peer: String,
        /// Why, in words.
        reason: String,
    },
    /// A REST request was answered with an error.
    RequestRefused {
        /// The HTTP method.
        method: String,
        /// The path, without the query.
        path: String,
        /// The HTTP status.
        status: u16,
        /// Azure's error code, such as 404103.
        code: u32,
        /// Why, in words.
        reason: String,
    },
    /// A device sent a message.
    Telemetry {
        /// Its id.
        device: String,
        /// The size of the message's body.
        bytes: usize,
    },
    /// A direct method was handed to a device.
    MethodCalled {
        /// The device's id.
        device: String,
        /// The method's name.
        method: String,
        /// Tells calls apart; the answer has the same.
        request: u64,
        /// The payload; absent when the call had none.
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<Value>,
    },
    /// A device answered a direct method.
    MethodAnswered {
        /// The device's id.
        device: String,
        /// The method's name.
        method: String,
        /// As in the call.
        request: u64,
        /// The device's status.
        status: i64,
        /// The device's payload.
        payload: Value,
    },
    /// A direct method ended without an answer of the device.
    MethodFailed {
        /// The device's id.
        device: String,
        /// The method's name.
        method: String,
        /// Azure's error code, such as 404103.
        code: u32,
    },
    /// A device changed its reported properties.
    ReportedPatched {
        /// Its id.
        device: String,
        /// The patch.
        patch: Value,
        /// The section's new version.
        version: u64,
    },
    /// A device's patch of its reported properties was refused.
    ReportedRefused {
        /// Its id.
        device: String,
        /// Azure's error code, such as 400004.
        code: u32,
        /// Why, in words.
        reason: String,
    },
    /// A back end changed a device's desired properties.
    DesiredPatched {
        /// The device's id.
        device: String,
        /// The patch.
        patch: Value,
        /// The section's new version.
        version: u64,
    },
}

/// Why a device's connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The device said DISCONNECT.
    ByDevice,
    /// The connection broke, or was closed without DISCONNECT.
    Lost,
    /// Nothing came within one and a half times the keep-alive.
    KeepAlive,
    /// Another connection with the same id took its place (Azure's 400027).
    Replaced,
    /// Its token expired.
    TokenExpired,
    /// It was disabled or deleted in the registry.
    Removed,
    /// It broke a rule of MQTT or of IoT Hub's use of it.
    Protocol(String),
    /// It did not take what was sent to it.
    TooSlow,
    /// [`Hub::disconnect`](crate::Hub::disconnect) was called.
    Requested,
    /// What had changed could not be written to the hub's state directory, so it could not be answered.
    NotKept(String),
    /// The hub stopped.
    HubStopped,
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ByDevice => "disconnected by itself",
            Self::Lost => "connection lost",
            Self::KeepAlive => "nothing heard within 1.5 times the keep-alive",
            Self::Replaced => "another connection with the same id took its place",
            Self::TokenExpired => "token expired",
            Self::Removed => "disabled or deleted in the registry",
            Self::Protocol(what) => return write!(f, "protocol error: {what}"),
            Self::TooSlow => "does not take what is sent to it",
            Self::Requested => "disconnected on request",
            Self::NotKept(why) => return write!(f, "the hub cannot keep its state: {why}"),
            Self::HubStopped => "the hub stopped",
        })
    }
}

impl Serialize for DisconnectReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

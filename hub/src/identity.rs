//! A device's entry in the identity registry.

use crate::{
    clock,
    error::{Code, Error, Refusal},
    sas::{Key, Keys},
};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What the registry holds of a device.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Identity {
    pub(crate) device_id: String,
    /// Tells a device from an earlier one with the same id.
    generation_id: String,
    etag: u64,
    pub(crate) enabled: bool,
    status_reason: Option<String>,
    status_updated_time: String,
    pub(crate) keys: Keys,
}

impl Identity {
    /// A new device, enabled, with new keys.
    pub(crate) fn new(device_id: &str, generation: u64) -> Result<Self, Error> {
        Ok(Self {
            device_id: device_id.into(),
            generation_id: generation.to_string(),
            etag: 1,
            enabled: true,
            status_reason: None,
            status_updated_time: clock::NEVER.into(),
            keys: Keys::random()?,
        })
    }

    /// The etag, without quotes.
    pub(crate) fn etag(&self) -> String {
        BASE64.encode(format!("{}/{}", self.generation_id, self.etag).as_bytes())
    }

    pub(crate) fn status(&self) -> &'static str {
        if self.enabled { "enabled" } else { "disabled" }
    }

    pub(crate) fn status_updated_time(&self) -> &str {
        &self.status_updated_time
    }

    /// Takes over what the body of a `PUT /devices/{id}` says. Empty keys stay as they are: the Node SDK sends such.
    pub(crate) fn update(&mut self, body: &Value) -> Result<(), Refusal> {
        if let Some(id) = body.get("deviceId").filter(|id| !id.is_null())
            && id.as_str() != Some(&self.device_id)
        {
            return Err(Refusal::argument(
                "deviceId of the body is not the one of the path.",
            ));
        }
        match body.get("status") {
            None | Some(Value::Null) => {}
            Some(status) => {
                let enabled = match status.as_str() {
                    Some("enabled") => true,
                    Some("disabled") => false,
                    _ => return Err(Refusal::argument("status should be enabled or disabled.")),
                };
                if enabled != self.enabled {
                    self.enabled = enabled;
                    self.status_updated_time = clock::now();
                }
            }
        }
        match body.get("statusReason") {
            None => {}
            Some(Value::Null) => self.status_reason = None,
            Some(Value::String(reason)) if reason.chars().count() <= 128 => {
                self.status_reason = Some(reason.clone())
            }
            Some(_) => {
                return Err(Refusal::argument(
                    "statusReason should be a string of at most 128 characters.",
                ));
            }
        }
        match body.pointer("/authentication/type").and_then(Value::as_str) {
            None | Some("sas") => {}
            Some(other) => {
                return Err(Refusal::argument(format!(
                    "this hub has no authentication of type {:?}: use sas.",
                    other.chars().take(40).collect::<String>()
                )));
            }
        }
        for (name, slot) in [
            ("primaryKey", &mut self.keys.primary_key),
            ("secondaryKey", &mut self.keys.secondary_key),
        ] {
            match body.pointer(&format!("/authentication/symmetricKey/{name}")) {
                None | Some(Value::Null) => {}
                Some(Value::String(key)) if key.is_empty() => {}
                Some(Value::String(key)) if Key(key.clone()).is_valid() => *slot = Key(key.clone()),
                Some(_) => {
                    return Err(Refusal::argument(format!(
                        "{name} should be base64 of 16 to 64 bytes."
                    )));
                }
            }
        }
        self.etag += 1;
        Ok(())
    }

    /// As the registry shows it.
    pub(crate) fn shown(&self, live: &Activity) -> Value {
        json!({
            "deviceId": self.device_id,
            "generationId": self.generation_id,
            "etag": self.etag(),
            "connectionState": live.state(),
            "status": self.status(),
            "statusReason": self.status_reason,
            "connectionStateUpdatedTime": live.since,
            "statusUpdatedTime": self.status_updated_time,
            "lastActivityTime": live.last,
            "cloudToDeviceMessageCount": 0,
            "authentication": {
                "symmetricKey": self.keys,
                "x509Thumbprint": {"primaryThumbprint": null, "secondaryThumbprint": null},
                "type": "sas",
            },
            "capabilities": {"iotEdge": false},
        })
    }
}

/// Whether a device is connected, and since when.
#[derive(Debug, Clone)]
pub(crate) struct Activity {
    pub(crate) connected: bool,
    /// When it last connected or disconnected.
    pub(crate) since: String,
    /// When it was last heard of.
    pub(crate) last: String,
}

impl Activity {
    pub(crate) fn none() -> Self {
        Self {
            connected: false,
            since: clock::NEVER.into(),
            last: clock::NEVER.into(),
        }
    }

    pub(crate) fn state(&self) -> &'static str {
        if self.connected {
            "Connected"
        } else {
            "Disconnected"
        }
    }
}

/// Whether a text can be a device id: 1 to 128 characters of those Azure allows.
pub(crate) fn check_device_id(id: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-:.+%_#*?!(),=@$'".contains(c);
    if id.is_empty() || id.len() > 128 || !id.chars().all(allowed) {
        return Err(Refusal::new(
            Code::ARGUMENT_INVALID,
            format!(
                "{:?} is no device id: 1 to 128 ASCII letters, digits and - : . + % _ # * ? ! ( ) , = @ $ '",
                id.chars().take(140).collect::<String>()
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_are_taken_over_or_refused() {
        let mut identity = Identity::new("d", 7).unwrap();
        let (keys, etag) = (identity.keys.clone(), identity.etag());
        identity
            .update(&json!({"deviceId": "d", "status": "disabled", "authentication":
                {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": "AAAAAAAAAAAAAAAAAAAAAA=="}}}))
            .unwrap();
        assert!(!identity.enabled);
        assert!(identity.keys.primary_key == keys.primary_key);
        assert_eq!(identity.keys.secondary_key.0, "AAAAAAAAAAAAAAAAAAAAAA==");
        assert_ne!(identity.etag(), etag);
        for body in [
            json!({"deviceId": "e"}),
            json!({"status": "on"}),
            json!({"statusReason": "x".repeat(129)}),
            json!({"authentication": {"symmetricKey": {"primaryKey": "short"}}}),
            json!({"authentication": {"type": "certificateAuthority"}}),
        ] {
            assert_eq!(
                identity.clone().update(&body).unwrap_err().code,
                Code::ARGUMENT_INVALID,
                "{body}"
            );
        }
    }

    #[test]
    fn device_ids() {
        for id in ["a", "a-:.+%_#*?!(),=@$'9", &"x".repeat(128)] {
            assert!(check_device_id(id).is_ok(), "{id}");
        }
        for id in ["", "a b", "a/b", "ä", &"x".repeat(129)] {
            assert!(check_device_id(id).is_err(), "{id}");
        }
    }
}

//! A device's entry in the identity registry.

use crate::{
    clock,
    error::{Code, Error, Refusal, internal},
    sas::{Key, Keys},
    x509::Thumbprints,
};
use base64ct::{Base64, Encoding as _};
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
    pub(crate) authentication: Authentication,
}

/// How a device proves that it is itself.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(crate) enum Authentication {
    /// With a token that one of its keys signs.
    Sas(Keys),
    /// With one of two certificates.
    SelfSigned(Thumbprints),
    /// With any certificate in its name that an authority signed.
    CertificateAuthority,
}

impl Authentication {
    /// As the registry calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sas(_) => "sas",
            Self::SelfSigned(_) => "selfSigned",
            Self::CertificateAuthority => "certificateAuthority",
        }
    }

    /// What the member `x509Thumbprint` of identities and twins shows.
    pub(crate) fn thumbprints(&self) -> Value {
        match self {
            Self::SelfSigned(thumbprints) => json!(thumbprints),
            _ => json!({"primaryThumbprint": null, "secondaryThumbprint": null}),
        }
    }

    /// What the member `symmetricKey` of identities shows.
    fn keys(&self) -> Value {
        match self {
            Self::Sas(keys) => json!(keys),
            _ => json!({"primaryKey": null, "secondaryKey": null}),
        }
    }

    /// What it becomes by a body's `authentication`. Empty keys stay as they are: the Node SDK sends such.
    fn updated(&self, given: &Value) -> Result<Self, Refusal> {
        let thumbprints = given.get("x509Thumbprint");
        match given.get("type").and_then(Value::as_str) {
            None | Some("sas") => {}
            Some("selfSigned") => return Thumbprints::parse(thumbprints).map(Self::SelfSigned),
            Some("certificateAuthority") => return Ok(Self::CertificateAuthority),
            Some(other) => {
                return Err(Refusal::argument(format!(
                    "this hub has no authentication of type {:?}: use sas, selfSigned or certificateAuthority.",
                    other.chars().take(40).collect::<String>()
                )));
            }
        }
        let mut keys = match self {
            Self::Sas(keys) => keys.clone(),
            _ => Keys::random().map_err(internal)?,
        };
        for (name, slot) in [
            ("primaryKey", &mut keys.primary_key),
            ("secondaryKey", &mut keys.secondary_key),
        ] {
            match given.pointer(&format!("/symmetricKey/{name}")) {
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
        Ok(Self::Sas(keys))
    }
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
            authentication: Authentication::Sas(Keys::random()?),
        })
    }

    /// The etag, without quotes.
    pub(crate) fn etag(&self) -> String {
        Base64::encode_string(format!("{}/{}", self.generation_id, self.etag).as_bytes())
    }

    pub(crate) fn status(&self) -> &'static str {
        if self.enabled { "enabled" } else { "disabled" }
    }

    pub(crate) fn status_updated_time(&self) -> &str {
        &self.status_updated_time
    }

    /// Takes over what the body of a `PUT /devices/{id}` says.
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
        match body.get("authentication") {
            None | Some(Value::Null) => {}
            Some(given) => self.authentication = self.authentication.updated(given)?,
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
                "symmetricKey": self.authentication.keys(),
                "x509Thumbprint": self.authentication.thumbprints(),
                "type": self.authentication.name(),
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
        let keys = |identity: &Identity| match &identity.authentication {
            Authentication::Sas(keys) => keys.clone(),
            other => panic!("{}", other.name()),
        };
        let (before, etag) = (keys(&identity), identity.etag());
        identity
            .update(&json!({"deviceId": "d", "status": "disabled", "authentication":
                {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": "AAAAAAAAAAAAAAAAAAAAAA=="}}}))
            .unwrap();
        assert!(!identity.enabled);
        assert!(keys(&identity).primary_key == before.primary_key);
        assert_eq!(keys(&identity).secondary_key.0, "AAAAAAAAAAAAAAAAAAAAAA==");
        assert_ne!(identity.etag(), etag);
        for body in [
            json!({"deviceId": "e"}),
            json!({"status": "on"}),
            json!({"statusReason": "x".repeat(129)}),
            json!({"authentication": {"symmetricKey": {"primaryKey": "short"}}}),
            json!({"authentication": {"type": "none"}}),
            json!({"authentication": {"type": "selfSigned"}}),
            json!({"authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "AB:CD"}}}),
        ] {
            assert_eq!(
                identity.clone().update(&body).unwrap_err().code,
                Code::ARGUMENT_INVALID,
                "{body}"
            );
        }
    }

    #[test]
    fn every_authentication_is_kept() {
        let mut identity = Identity::new("d", 7).unwrap();
        let thumbprint = "aB".repeat(20);
        let thumbprint = json!({"primaryThumbprint": thumbprint, "secondaryThumbprint": null});
        for authentication in [
            json!({"type": "sas"}),
            json!({"type": "selfSigned", "x509Thumbprint": thumbprint}),
            json!({"type": "certificateAuthority"}),
        ] {
            let body = json!({"authentication": authentication});
            identity.update(&body).unwrap();
            let kept = serde_json::to_vec(&identity).unwrap();
            let again: Identity = serde_json::from_slice(&kept).unwrap();
            let shown = |identity: &Identity| identity.shown(&Activity::none());
            assert_eq!(shown(&again), shown(&identity));
            assert_eq!(
                shown(&again)["authentication"]["type"],
                authentication["type"]
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

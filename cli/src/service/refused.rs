//! Why a request was not granted, in the words of the hub and with what to do.

use super::{About, RESPONSE_TIMEOUT, Service};
use crate::error::Error;
use serde_json::Value;

/// What a hub calls it when a device is not registered.
const NO_DEVICE: &str = "DeviceNotFound";

/// A request was not granted.
#[derive(Debug)]
pub(crate) struct Refused {
    message: String,
    /// What the hub said itself.
    pub(crate) said: String,
    /// The same request may be granted a little later.
    pub(crate) passing: bool,
    /// The hub's HTTP status; 0 if it did not answer.
    pub(crate) status: u16,
    /// The hub did nothing, since it is asked too often.
    pub(super) throttled: bool,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::new(refused.message)
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl About<'_> {
    /// What is spoken of.
    fn name(self) -> String {
        match self {
            Self::Device(id) | Self::Registry(id) | Self::Messages(Some(id)) => {
                format!("device \"{id}\"")
            }
            Self::Messages(None) => "the devices' messages".into(),
            Self::Configuration(id) => format!("configuration \"{id}\""),
            Self::Job(id) => format!("job \"{id}\""),
            Self::Hub => "this".into(),
        }
    }

    /// What a policy must allow.
    fn right(self) -> &'static str {
        match self {
            Self::Registry(_) | Self::Configuration(_) => {
                "\"registry write\"; to look, \"registry read\""
            }
            _ => "\"service connect\"",
        }
    }

    /// How to get what is missing.
    fn remedy(self) -> &'static str {
        match self {
            Self::Device(_) | Self::Registry(_) | Self::Messages(_) => {
                "register it (twinflash devices create), or check its id"
            }
            Self::Configuration(_) => "check its id (twinflash config list)",
            Self::Job(_) => "check its id (twinflash job list)",
            Self::Hub => "check HostName",
        }
    }
}

impl Service {
    /// What an error of the hub means.
    pub(super) fn refused(&self, about: About<'_>, status: u16, body: &Value) -> Refused {
        let hub = self.connection.hub();
        let policy = self.connection.policy();
        let Details { code, name, said } = Details::of(body);
        let in_brackets = match said.as_str() {
            "" => String::new(),
            said => format!(" ({said})"),
        };
        let what = about.name();
        let message = match (status, code) {
            (_, Some(404_103)) => format!(
                "{what} is not connected, or no agent runs on it that takes this method: start it and ask again"
            ),
            (_, Some(504_101)) => format!("{what} did not answer within {RESPONSE_TIMEOUT} s"),
            (401, _) if name != "IotHubUnauthorized" => format!(
                "{hub} does not accept the service's connection string (policy \"{policy}\"): check its key and this machine's clock{in_brackets}"
            ),
            (401, _) => format!(
                "the policy \"{policy}\" of {hub} does not allow this: one with {} is needed{in_brackets}",
                about.right()
            ),
            (400 | 404 | 405, _) if matches!(about, About::Messages(_)) && name != NO_DEVICE => {
                return self.only_local(about);
            }
            (403, _) => format!("{hub} does not allow this{in_brackets}"),
            (404, _) => format!("{hub} has no {what}: {}{in_brackets}", about.remedy()),
            (409, _) => format!(
                "{hub} has {what} already: choose another id, or delete that one first{in_brackets}"
            ),
            (412, _) => format!(
                "{what} is not changed, since its etag is another one by now: look at it, and go on from the etag it has{in_brackets}"
            ),
            (429, _) => format!("{hub} is asked too often{in_brackets}"),
            (400, _) if !said.is_empty() => format!("{hub} refuses {what}: {said}"),
            _ => format!("{hub} answers with status {status}{in_brackets}"),
        };
        Refused {
            message,
            said,
            status,
            throttled: status == 429,
            passing: status == 429 || (status >= 500 && code != Some(504_101)),
        }
    }

    /// A real hub has no REST interface for messages.
    pub(crate) fn only_local(&self, about: About<'_>) -> Refused {
        let hub = self.connection.hub();
        let name = hub.split('.').next().unwrap_or(hub);
        let device = match about {
            About::Messages(Some(id)) => format!(" --device-id {id}"),
            _ => String::new(),
        };
        permanent(format!(
            "--telemetry reads from a local hub (twinflash hub) only, and {hub} is none: an Azure IoT hub hands messages out at its Event Hubs endpoint. There, use: az iot hub monitor-events --hub-name {name}{device}"
        ))
    }

    /// What answers does not answer as an IoT hub does.
    pub(crate) fn no_hub(&self, why: &str) -> Refused {
        permanent(format!(
            "what {} answers is not an IoT hub's ({why}): check HostName and port",
            self.server()
        ))
    }

    /// What it means that there is no answer. Never quotes an error that holds the URL.
    pub(super) fn unreachable(&self, error: ureq::Error) -> Refused {
        use ureq::Error as Http;
        let server = self.server();
        let (passing, why) = match error {
            Http::Rustls(error) => return self.no_tls(&error),
            Http::Io(error) => {
                if let Some(error) = error.get_ref().and_then(|error| error.downcast_ref()) {
                    return self.no_tls(error);
                }
                (true, error.to_string())
            }
            Http::HostNotFound => (true, "the name is not known: check HostName and DNS".into()),
            Http::Timeout(_) => (true, "no answer in time".into()),
            Http::ConnectionFailed => (true, "no connection".into()),
            Http::ConnectProxyFailed(why) => (true, format!("the proxy does not connect: {why}")),
            Http::BadUri(_) | Http::Http(_) => (false, "check HostName".into()),
            Http::Protocol(_) => (
                false,
                "what answers there speaks no HTTP: check the port".into(),
            ),
            error => (true, error.to_string()),
        };
        Refused {
            status: 0,
            message: format!("cannot reach {server}: {why}"),
            said: String::new(),
            passing,
            throttled: false,
        }
    }

    fn no_tls(&self, error: &rustls::Error) -> Refused {
        use rustls::{CertificateError as Certificate, Error as Tls};
        let server = self.server();
        let message = match error {
            Tls::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => {
                format!(
                    "the certificate of {server} comes from an authority that is not trusted here; if it is the hub's own, name its CA file (--ca FILE)"
                )
            }
            Tls::InvalidCertificate(why) => {
                format!("the certificate of {server} is not accepted: {why}")
            }
            Tls::InvalidMessage(_) => {
                format!("{server} does not speak TLS: check the port of HostName")
            }
            why => format!("no secure connection to {server}: {why}"),
        };
        permanent(message)
    }
}

fn permanent(message: String) -> Refused {
    Refused {
        status: 0,
        message,
        said: String::new(),
        passing: false,
        throttled: false,
    }
}

/// What an error's body holds, in either of its two shapes.
#[derive(Debug, Default, PartialEq)]
struct Details {
    code: Option<u64>,
    name: String,
    said: String,
}

impl Details {
    fn of(body: &Value) -> Self {
        let text = |value: &Value, name: &str| {
            let text = value.get(name).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let message = text(body, "Message");
        // Methods: JSON in a text.
        if let Ok(inner) = serde_json::from_str::<Value>(&message) {
            return Self {
                code: inner.get("errorCode").and_then(Value::as_u64),
                said: text(&inner, "message"),
                ..Self::default()
            };
        }
        // Registry and twins: "ErrorCode:DeviceNotFound;text".
        let named = message.strip_prefix("ErrorCode:");
        let (name, said) = named
            .and_then(|rest| rest.split_once(';'))
            .unwrap_or(("", &message));
        Self {
            code: None,
            name: name.into(),
            said: said.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_shapes_of_errors() {
        let inner = json!({"errorCode": 404_103, "message": "not online"}).to_string();
        let details = Details::of(&json!({"Message": inner, "ExceptionMessage": ""}));
        assert_eq!(
            (details.code, details.said.as_str()),
            (Some(404_103), "not online")
        );
        let registry = json!({"Message": "ErrorCode:DeviceNotFound;no device"});
        let details = Details::of(&registry);
        assert_eq!(
            (details.name.as_str(), details.said.as_str()),
            ("DeviceNotFound", "no device")
        );
        assert_eq!(Details::of(&Value::Null), Details::default());
    }
}

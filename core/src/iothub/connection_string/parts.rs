//! The parts of a connection string, read and judged one by one.

use super::{ConnectionStringError, Key};
use std::fmt;

/// A host and the port it listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The parts of a connection string, of either kind, as they stand there.
#[derive(Default)]
pub(super) struct Parts<'a> {
    host: Option<&'a str>,
    gateway: Option<&'a str>,
    pub(super) device_id: Option<&'a str>,
    pub(super) module_id: Option<&'a str>,
    pub(super) policy: Option<&'a str>,
    key: Option<&'a str>,
    x509: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// A part that cannot be read is told by its number: it may be the key, out of its place.
    pub(super) fn split(text: &'a str) -> Result<Self, ConnectionStringError> {
        let mut parts = Self::default();
        let all = text.trim().split(';').enumerate();
        for (index, part) in all.filter(|(_, part)| !part.is_empty()) {
            let number = index + 1;
            let Some((name, value)) = part.split_once('=') else {
                return Err(error(format!("part {number} is not \"name=value\"")));
            };
            let slot = match name.trim().to_ascii_lowercase().as_str() {
                "hostname" => &mut parts.host,
                "gatewayhostname" => &mut parts.gateway,
                "deviceid" => &mut parts.device_id,
                "moduleid" => &mut parts.module_id,
                "sharedaccesskeyname" => &mut parts.policy,
                "sharedaccesskey" => &mut parts.key,
                "x509" => &mut parts.x509,
                "sharedaccesssignature" => {
                    return Err(error(
                        "SharedAccessSignature is not supported: a ready-made token cannot be renewed; use the SharedAccessKey",
                    ));
                }
                _ => {
                    return Err(error(format!(
                        "part {number} has an unknown name; known are HostName, DeviceId, SharedAccessKey, x509, GatewayHostName and SharedAccessKeyName"
                    )));
                }
            };
            if slot.replace(value.trim()).is_some() {
                return Err(error(format!("part {number} is there twice")));
            }
        }
        Ok(parts)
    }

    pub(super) fn host(&self, default_port: u16) -> Result<Endpoint, ConnectionStringError> {
        endpoint("HostName", required("HostName", self.host)?, default_port)
    }

    pub(super) fn gateway(
        &self,
        default_port: u16,
    ) -> Result<Option<Endpoint>, ConnectionStringError> {
        let gateway = self.gateway;
        gateway
            .map(|text| endpoint("GatewayHostName", text, default_port))
            .transpose()
    }

    /// The key of a device that has no certificate.
    pub(super) fn device_key(&self) -> Result<Option<Key>, ConnectionStringError> {
        let x509 = self.x509.unwrap_or("false").to_ascii_lowercase();
        match (x509.as_str(), self.key) {
            ("true", None) => Ok(None),
            ("true", Some(_)) => Err(error(
                "SharedAccessKey and x509=true exclude each other: a device has a key or a certificate",
            )),
            ("false", None) => Err(error(
                "SharedAccessKey is missing; a device with a certificate has x509=true in its place",
            )),
            ("false", Some(_)) => self.key().map(Some),
            _ => Err(error("x509 is neither true nor false")),
        }
    }

    pub(super) fn key(&self) -> Result<Key, ConnectionStringError> {
        Key::from_base64(required("SharedAccessKey", self.key)?).ok_or_else(|| {
            error("SharedAccessKey is not base64: copy the whole key, with its = at the end")
        })
    }
}

pub(super) fn required<'a>(
    name: &str,
    value: Option<&'a str>,
) -> Result<&'a str, ConnectionStringError> {
    match value {
        Some(value) if !value.is_empty() => Ok(value),
        Some(_) => Err(error(format!("{name} is empty"))),
        None => Err(error(format!("{name} is missing"))),
    }
}

/// A value as an error may show it: not if a key may have slipped into it. Keys have at least 16 bytes,
/// which are 24 letters of base64.
fn shown(text: &str) -> &str {
    let base64 = |letter: char| letter.is_ascii_alphanumeric() || "+/=".contains(letter);
    let mut runs = text.split(|letter| !base64(letter));
    if runs.any(|run| run.len() >= 20) {
        "***"
    } else {
        text
    }
}

/// Reads `host`, `host:port`, `[IPv6]` or `[IPv6]:port`.
pub(super) fn endpoint(
    name: &str,
    text: &str,
    default_port: u16,
) -> Result<Endpoint, ConnectionStringError> {
    let refuse = || {
        error(format!(
            "{name} \"{}\" is not a host name, such as myhub.azure-devices.net or localhost:{default_port}",
            shown(text)
        ))
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(refuse)?;
            address
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| refuse())?;
            match port {
                "" => (address, None),
                _ => (address, Some(port.strip_prefix(':').ok_or_else(refuse)?)),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if host.is_empty() || !host.bytes().all(allowed) {
        return Err(refuse());
    }
    let port = match port.map(str::parse) {
        None => default_port,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => {
            return Err(error(format!(
                "{name} \"{}\": the port is not a number from 1 to 65535",
                shown(text)
            )));
        }
    };
    Ok(Endpoint {
        host: host.to_owned(),
        port,
    })
}

/// The identity registry's rule for device ids.
pub(super) fn device_id(text: &str) -> Result<String, ConnectionStringError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-:.+%_#*?!(),=@$'".contains(&byte);
    if text.len() > 128 || !text.bytes().all(allowed) {
        return Err(error(format!(
            "DeviceId \"{}\" is not the id of a device: up to 128 ASCII letters, digits and - : . + % _ # * ? ! ( ) , = @ $ '",
            shown(text)
        )));
    }
    Ok(text.to_owned())
}

pub(super) fn error(message: impl Into<String>) -> ConnectionStringError {
    ConnectionStringError(message.into())
}

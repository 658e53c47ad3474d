//! Connection strings, as the Azure portal and `az iot hub` hand them out.

mod parts;

use super::sas::{Key, sas_token};
use parts::{Endpoint, Parts, device_id, error, required};
use std::{fmt, str::FromStr};

/// The port of MQTT over TLS, where nothing else is said.
const MQTT_PORT: u16 = 8883;
/// The port of a hub's REST interface, where nothing else is said.
const HTTPS_PORT: u16 = 443;

/// A device's connection string:
/// `HostName=…;DeviceId=…;SharedAccessKey=…[;GatewayHostName=…]`, or with `x509=true` in place of the
/// key for a device that has a certificate.
///
/// Both host names may carry a port (`localhost:18883`); IPv6 addresses stand in brackets. Names of
/// parts are read in any case, in any order; white space around the whole is ignored. `Debug` and
/// `Display` do not show the key.
///
/// ```
/// use twinflash::iothub::ConnectionString;
///
/// let text = "HostName=myhub.azure-devices.net;DeviceId=d1;SharedAccessKey=c2VjcmV0";
/// let connection: ConnectionString = text.parse()?;
/// assert_eq!(connection.device_id(), "d1");
/// assert_eq!(connection.server(), ("myhub.azure-devices.net", 8883));
/// assert!(!connection.to_string().contains("c2VjcmV0"));
/// # Ok::<(), twinflash::iothub::ConnectionStringError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionString {
    hub: Endpoint,
    gateway: Option<Endpoint>,
    device_id: String,
    /// None of a device that has a certificate.
    key: Option<Key>,
}

impl ConnectionString {
    /// The hub's name, without port: what tokens and the user name speak of.
    #[must_use]
    pub fn hub(&self) -> &str {
        &self.hub.host
    }

    /// The device's id in the hub's registry.
    #[must_use]
    pub fn device_id(&self) -> &str {
        &self.device_id
    }

    /// Host and port to connect to: the gateway's if one is named, else the hub's.
    #[must_use]
    pub fn server(&self) -> (&str, u16) {
        let server = self.gateway.as_ref().unwrap_or(&self.hub);
        (&server.host, server.port)
    }

    /// As [`ConnectionString::server`], in one text: `host:port`.
    pub(super) fn server_name(&self) -> String {
        self.gateway.as_ref().unwrap_or(&self.hub).to_string()
    }

    /// Whether the device proves itself by a certificate (`x509=true`), and not by a key.
    #[must_use]
    pub fn is_x509(&self) -> bool {
        self.key.is_none()
    }

    /// A token that proves this device to the hub until `expires`, in seconds since 1970 UTC. `None` of a
    /// device with a certificate.
    #[must_use]
    pub fn token(&self, expires: u64) -> Option<String> {
        let resource = format!("{}/devices/{}", self.hub.host, self.device_id);
        let key = self.key.as_ref()?;
        Some(sas_token(&resource, key, None, expires))
    }
}

impl FromStr for ConnectionString {
    type Err = ConnectionStringError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = Parts::split(text)?;
        if parts.module_id.is_some() {
            return Err(error(
                "ModuleId is not supported: use a device's connection string, not a module's",
            ));
        }
        if parts.policy.is_some() && parts.device_id.is_none() {
            return Err(error(
                "this is a service's connection string (it has a SharedAccessKeyName); a device's, with a DeviceId, is needed",
            ));
        }
        if parts.policy.is_some() {
            return Err(error(
                "SharedAccessKeyName does not belong here: a device connects with its own SharedAccessKey",
            ));
        }
        Ok(Self {
            hub: parts.host(MQTT_PORT)?,
            gateway: parts.gateway(MQTT_PORT)?,
            device_id: device_id(required("DeviceId", parts.device_id)?)?,
            key: parts.device_key()?,
        })
    }
}

impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hub, device_id, .. } = self;
        let proof = match self.is_x509() {
            true => "x509=true",
            false => "SharedAccessKey=***",
        };
        write!(f, "HostName={hub};DeviceId={device_id};{proof}")?;
        match &self.gateway {
            Some(gateway) => write!(f, ";GatewayHostName={gateway}"),
            None => Ok(()),
        }
    }
}

/// A back end's connection string:
/// `HostName=…;SharedAccessKeyName=…;SharedAccessKey=…[;GatewayHostName=…]`.
///
/// Read and shown as [`ConnectionString`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConnectionString {
    hub: Endpoint,
    gateway: Option<Endpoint>,
    policy: String,
    key: Key,
}

impl ServiceConnectionString {
    /// The hub's name, without port.
    #[must_use]
    pub fn hub(&self) -> &str {
        &self.hub.host
    }

    /// Host and port of the REST interface: the gateway's if one is named, else the hub's; 443 if
    /// the string names no port.
    #[must_use]
    pub fn server(&self) -> (&str, u16) {
        let server = self.gateway.as_ref().unwrap_or(&self.hub);
        (&server.host, server.port)
    }

    /// The name of the shared access policy.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// A token for the `Authorization` header, good until `expires`, in seconds since 1970 UTC.
    #[must_use]
    pub fn token(&self, expires: u64) -> String {
        sas_token(&self.hub.host, &self.key, Some(&self.policy), expires)
    }
}

impl FromStr for ServiceConnectionString {
    type Err = ConnectionStringError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = Parts::split(text)?;
        if parts.device_id.is_some() {
            return Err(error(
                "this is a device's connection string (it has a DeviceId); a service's, with a SharedAccessKeyName, is needed",
            ));
        }
        Ok(Self {
            hub: parts.host(HTTPS_PORT)?,
            gateway: parts.gateway(HTTPS_PORT)?,
            policy: required("SharedAccessKeyName", parts.policy)?.to_owned(),
            key: parts.key()?,
        })
    }
}

impl fmt::Display for ServiceConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hub, policy, .. } = self;
        write!(
            f,
            "HostName={hub};SharedAccessKeyName={policy};SharedAccessKey=***"
        )?;
        match &self.gateway {
            Some(gateway) => write!(f, ";GatewayHostName={gateway}"),
            None => Ok(()),
        }
    }
}

/// A connection string cannot be used. The message names the part and what is expected there, never
/// the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionStringError(String);

impl fmt::Display for ConnectionStringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection string: {}", self.0)
    }
}

impl std::error::Error for ConnectionStringError {}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "c2VjcmV0//VjcmV0c2VjcmV0";

    fn parse(text: &str) -> ConnectionString {
        text.parse().unwrap()
    }

    #[test]
    fn where_a_device_connects() {
        let plain = parse(&format!(
            "HostName=h.example;DeviceId=d;SharedAccessKey={KEY}"
        ));
        assert_eq!((plain.hub(), plain.device_id()), ("h.example", "d"));
        assert_eq!(plain.server(), ("h.example", 8883));

        let port = parse(&format!(
            " HostName=localhost:18883;DeviceId=d;SharedAccessKey={KEY};\n"
        ));
        assert_eq!(port.server(), ("localhost", 18883));
        assert_eq!(port.hub(), "localhost");

        let gateway = parse(&format!(
            "sharedaccesskey={KEY};GATEWAYHOSTNAME=gw:1;deviceid=d=1;hostname=h:2;x509=false"
        ));
        assert_eq!(gateway.server(), ("gw", 1));
        assert_eq!((gateway.hub(), gateway.device_id()), ("h", "d=1"));

        for (host, server) in [
            ("[::1]", ("::1", 8883)),
            ("[::1]:77", ("::1", 77)),
            ("127.0.0.1:9", ("127.0.0.1", 9)),
        ] {
            let text = format!("HostName={host};DeviceId=d;SharedAccessKey={KEY}");
            assert_eq!(parse(&text).server(), server);
        }
    }

    #[test]
    fn a_token_names_hub_and_device_without_port() {
        let text =
            format!("HostName=hub:7;DeviceId=d#1;SharedAccessKey={KEY};GatewayHostName=gw:8");
        let token = parse(&text).token(5).unwrap();
        assert!(token.contains("sr=hub%2Fdevices%2Fd%231&"), "{token}");
        assert!(token.ends_with("&se=5"), "{token}");
    }

    #[test]
    fn a_device_with_a_certificate() {
        let plain = parse("HostName=h.example;DeviceId=d;X509=True;GatewayHostName=g");
        assert!(plain.is_x509());
        assert_eq!(plain.token(5), None);
        assert_eq!(
            plain.to_string(),
            "HostName=h.example:8883;DeviceId=d;x509=true;GatewayHostName=g:8883"
        );
    }

    #[test]
    fn a_service_string() {
        let text = format!(
            "HostName=hub.example:8443;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}"
        );
        let service: ServiceConnectionString = text.parse().unwrap();
        assert_eq!(service.hub(), "hub.example");
        assert_eq!(service.server(), ("hub.example", 8443));
        assert_eq!(service.policy(), "iothubowner");
        assert!(service.token(5).ends_with("&se=5&skn=iothubowner"));
        let text = text.replace(":8443", "");
        let plain: ServiceConnectionString = text.parse().unwrap();
        assert_eq!(plain.server(), ("hub.example", HTTPS_PORT));
        let text = format!("{text};GatewayHostName=localhost:8443");
        let through: ServiceConnectionString = text.parse().unwrap();
        assert_eq!(through.server(), ("localhost", 8443));
        assert_eq!(through.hub(), "hub.example");
    }

    #[test]
    fn the_key_is_never_shown() {
        let device = parse(&format!(
            "HostName=h;DeviceId=d;SharedAccessKey={KEY};GatewayHostName=g"
        ));
        assert_eq!(
            device.to_string(),
            "HostName=h:8883;DeviceId=d;SharedAccessKey=***;GatewayHostName=g:8883"
        );
        let service: ServiceConnectionString =
            format!("HostName=h;SharedAccessKeyName=p;SharedAccessKey={KEY}")
                .parse()
                .unwrap();
        for shown in [
            format!("{device:?}"),
            format!("{service} {service:?}"),
            format!("{device}"),
        ] {
            assert!(
                !shown.contains(KEY) && !shown.contains("99, 50, 86"),
                "{shown}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_the_key_is_not() {
        for (text, expected) in [
            ("", "HostName is missing"),
            ("DeviceId=d;SharedAccessKey=KEY", "HostName is missing"),
            ("HostName=h;SharedAccessKey=KEY", "DeviceId is missing"),
            (
                "HostName=h;DeviceId=;SharedAccessKey=KEY",
                "DeviceId is empty",
            ),
            (
                "HostName=h;DeviceId=d",
                "SharedAccessKey is missing; a device with a certificate has x509=true in its place",
            ),
            (
                "HostName=h;DeviceId=d;x509=yes;SharedAccessKey=KEY",
                "x509 is neither true nor false",
            ),
            (
                "HostName=h;DeviceId=d;SharedAccessKey=KEY!",
                "SharedAccessKey is not base64",
            ),
            (
                "HostName=h;DeviceId=d;SharedAccessKey:KEY",
                "part 3 is not \"name=value\"",
            ),
            ("HostName=h;DeviceId=d;KEY=", "part 3 has an unknown name"),
            (
                "HostName=h;DeviceId=d;GateHostName=g;SharedAccessKey=KEY",
                "part 3 has an unknown name",
            ),
            (
                "HostName=h;HostName=h;DeviceId=d;SharedAccessKey=KEY",
                "part 2 is there twice",
            ),
            (
                "HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey=KEY",
                "ModuleId is not supported",
            ),
            (
                "HostName=h;DeviceId=d;x509=true;SharedAccessKey=KEY",
                "SharedAccessKey and x509=true exclude each other",
            ),
            (
                "HostName=h;DeviceId=d;SharedAccessSignature=KEY",
                "cannot be renewed",
            ),
            (
                "HostName=h;SharedAccessKeyName=p;SharedAccessKey=KEY",
                "this is a service's connection string",
            ),
            (
                "HostName=h;DeviceId=d;SharedAccessKeyName=p;SharedAccessKey=KEY",
                "SharedAccessKeyName does not belong here",
            ),
            (
                "HostName=https://h;DeviceId=d;SharedAccessKey=KEY",
                "the port is not a number",
            ),
            (
                "HostName=h/x;DeviceId=d;SharedAccessKey=KEY",
                "\"h/x\" is not a host name",
            ),
            (
                "HostName=:8883;DeviceId=d;SharedAccessKey=KEY",
                "is not a host name",
            ),
            (
                "HostName=[::1;DeviceId=d;SharedAccessKey=KEY",
                "is not a host name",
            ),
            (
                "HostName=[nonsense];DeviceId=d;SharedAccessKey=KEY",
                "is not a host name",
            ),
            (
                "HostName=h:0;DeviceId=d;SharedAccessKey=KEY",
                "not a number from 1 to 65535",
            ),
            (
                "HostName=h:65536;DeviceId=d;SharedAccessKey=KEY",
                "not a number from 1 to 65535",
            ),
            (
                "HostName=h;GatewayHostName=g:;DeviceId=d;SharedAccessKey=KEY",
                "GatewayHostName \"g:\"",
            ),
            (
                "HostName=KEY;DeviceId=d;SharedAccessKey=KEY",
                "HostName \"***\" is not a host name",
            ),
            (
                "HostName=h;DeviceId=KEY;SharedAccessKey=KEY",
                "DeviceId \"***\" is not the id",
            ),
            (
                "HostName=h;DeviceId=a/b;SharedAccessKey=KEY",
                "\"a/b\" is not the id of a device",
            ),
        ] {
            let error = text
                .replace("KEY", KEY)
                .parse::<ConnectionString>()
                .unwrap_err();
            let message = error.to_string();
            assert!(message.contains(expected), "{text}: {message}");
            assert!(!message.contains(KEY), "{text}: {message}");
        }
        for (text, expected) in [
            (
                "HostName=h;DeviceId=d;SharedAccessKey=KEY",
                "this is a device's connection string",
            ),
            (
                "HostName=h;SharedAccessKey=KEY",
                "SharedAccessKeyName is missing",
            ),
        ] {
            let error = text
                .replace("KEY", KEY)
                .parse::<ServiceConnectionString>()
                .unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_shows_the_key_or_panics(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec![
                    KEY, "HostName=", "GatewayHostName=", "DeviceId=", "SharedAccessKey=",
                    "SharedAccessKeyName=", "ModuleId=", "x509=", "true", ";", "=", ":", "[", "]", "h",
                    "8883", " ", "\u{fc}",
                ]),
                0..16,
            )
        ) {
            let text = pieces.concat();
            let errors = [
                text.parse::<ConnectionString>().err(),
                text.parse::<ServiceConnectionString>().err(),
            ];
            for error in errors.into_iter().flatten() {
                let shown = error.to_string();
                proptest::prop_assert!(!shown.contains(KEY), "{}", shown);
            }
        }
    }
}

//! The back end's side of an IoT hub: a small client of its REST interface.
//!
//! See Microsoft's "IoT Hub REST API", version 2021-04-12.

use crate::error::Error;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use twinflash::{iothub::ServiceConnectionString, tls::Roots};
use ureq::{
    Agent,
    config::Config,
    http::Response,
    tls::{Certificate, RootCerts, TlsConfig},
};

const API_VERSION: &str = "2021-04-12";
/// How long a token is good for. It is made anew for each request, so this bounds only how wrong the
/// clocks may be.
const TOKEN: Duration = Duration::from_secs(3600);
/// How long a device may take to answer a method.
const RESPONSE_TIMEOUT: u64 = 30;
/// How long a device that is not connected is waited for when a method is called.
const CONNECT_TIMEOUT: u64 = 5;

/// What a path's segment may hold as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A hub, as a back end sees it.
pub(crate) struct Service {
    agent: Agent,
    connection: ServiceConnectionString,
}

/// A request was not granted.
#[derive(Debug)]
pub(crate) struct Refused {
    message: String,
    /// The same request may be granted a little later.
    pub(crate) passing: bool,
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

impl Service {
    /// Nothing is connected yet. `direct`: past the proxy that the environment names.
    pub(crate) fn new(
        connection: ServiceConnectionString,
        roots: &Roots,
        direct: bool,
    ) -> Result<Self, Error> {
        let roots = match roots.certificates()? {
            None => RootCerts::WebPki,
            Some(certificates) => certificates
                .iter()
                .map(|certificate| Certificate::from_der(certificate).to_owned())
                .collect::<Vec<_>>()
                .into(),
        };
        let tls = TlsConfig::builder()
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let mut config = Config::builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("twinflash/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_global(Some(Duration::from_secs(
                RESPONSE_TIMEOUT + CONNECT_TIMEOUT + 15,
            )));
        if direct {
            config = config.proxy(None);
        }
        Ok(Self {
            agent: Agent::new_with_config(config.build()),
            connection,
        })
    }

    /// The device's twin.
    pub(crate) fn twin(&self, device: &str) -> Result<Value, Refused> {
        let request = self.agent.get(self.url(device, ""));
        let sent = request.header("Authorization", self.token()).call();
        self.answer(device, sent)
    }

    /// Merges a patch into the device's twin; its tags and desired properties, that is.
    pub(crate) fn patch_twin(&self, device: &str, patch: &Value) -> Result<Value, Refused> {
        let request = self.agent.patch(self.url(device, ""));
        let sent = request
            .header("Authorization", self.token())
            .content_type("application/json")
            .send(patch.to_string());
        self.answer(device, sent)
    }

    /// Calls a direct method: the device's status and payload.
    pub(crate) fn call_method(
        &self,
        device: &str,
        name: &str,
        payload: &Value,
    ) -> Result<(i64, Value), Refused> {
        let body = json!({
            "methodName": name,
            "payload": payload,
            "responseTimeoutInSeconds": RESPONSE_TIMEOUT,
            "connectTimeoutInSeconds": CONNECT_TIMEOUT,
        });
        let request = self.agent.post(self.url(device, "/methods"));
        let sent = request
            .header("Authorization", self.token())
            .content_type("application/json")
            .send(body.to_string());
        let mut answer = self.answer(device, sent)?;
        let status = answer.get("status").and_then(Value::as_i64);
        let payload = answer.get_mut("payload").map(Value::take);
        Ok((status.unwrap_or_default(), payload.unwrap_or_default()))
    }

    fn url(&self, device: &str, rest: &str) -> String {
        let device = utf8_percent_encode(device, SEGMENT);
        let server = self.server();
        format!("https://{server}/twins/{device}{rest}?api-version={API_VERSION}")
    }

    fn server(&self) -> String {
        match self.connection.server() {
            (host, port) if host.contains(':') => format!("[{host}]:{port}"),
            (host, port) => format!("{host}:{port}"),
        }
    }

    fn token(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.connection
            .token((now.unwrap_or_default() + TOKEN).as_secs())
    }

    fn answer(
        &self,
        device: &str,
        sent: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, Refused> {
        let mut response = sent.map_err(|error| self.unreachable(error))?;
        let status = response.status().as_u16();
        let body = response.body_mut().read_to_vec();
        let body = body.map_err(|error| self.unreachable(error))?;
        let json = serde_json::from_slice(&body);
        if (200..300).contains(&status) {
            return json.map_err(|error| Refused {
                message: format!(
                    "what {} answers is not an IoT hub's ({error}): check HostName and port",
                    self.server()
                ),
                passing: false,
            });
        }
        Err(self.refused(device, status, &json.unwrap_or_default()))
    }

    /// What an error of the hub means.
    fn refused(&self, device: &str, status: u16, body: &Value) -> Refused {
        let hub = self.connection.hub();
        let (code, said) = details(body);
        let said = match said.is_empty() {
            true => String::new(),
            false => format!(" ({said})"),
        };
        let message = match (status, code) {
            (_, Some(404_103)) => format!(
                "device \"{device}\" is not connected, or no agent runs on it that takes this method: start it and ask again"
            ),
            (_, Some(504_101)) => {
                format!("device \"{device}\" did not answer within {RESPONSE_TIMEOUT} s")
            }
            (401, _) => format!(
                "{hub} does not accept the service's connection string (policy \"{}\"): check its key and this machine's clock{said}",
                self.connection.policy()
            ),
            (403, _) => format!(
                "the policy \"{}\" of {hub} does not allow this: \"service connect\" is needed{said}",
                self.connection.policy()
            ),
            (404, _) => {
                format!("{hub} has no device \"{device}\": register it, or check its id{said}")
            }
            (429, _) => format!("{hub} is asked too often{said}"),
            _ => format!("{hub} answers with status {status}{said}"),
        };
        Refused {
            message,
            passing: status == 429 || (status >= 500 && code != Some(504_101)),
        }
    }

    /// What it means that there is no answer. Never quotes an error that holds the URL.
    fn unreachable(&self, error: ureq::Error) -> Refused {
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
            message: format!("cannot reach {server}: {why}"),
            passing,
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
        Refused {
            message,
            passing: false,
        }
    }
}

/// Number and words of an error's body, which has one of two shapes.
fn details(body: &Value) -> (Option<u64>, String) {
    let text = |value: &Value, name: &str| {
        let text = value.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let message = text(body, "Message");
    // Methods: JSON in a text.
    if let Ok(inner) = serde_json::from_str::<Value>(&message) {
        let code = inner.get("errorCode").and_then(Value::as_u64);
        return (code, text(&inner, "message"));
    }
    // Registry and twins: "ErrorCode:DeviceNotFound;text".
    (None, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_of_errors() {
        let inner = json!({"errorCode": 404_103, "message": "not online"}).to_string();
        let (code, message) = details(&json!({"Message": inner, "ExceptionMessage": ""}));
        assert_eq!((code, message.as_str()), (Some(404_103), "not online"));
        let registry = json!({"Message": "ErrorCode:DeviceNotFound;no device"});
        assert_eq!(
            details(&registry),
            (None, "ErrorCode:DeviceNotFound;no device".into())
        );
        assert_eq!(details(&Value::Null), (None, String::new()));
    }

    #[test]
    fn a_device_id_is_one_segment() {
        let id = utf8_percent_encode("a/b#c%d-e.f", SEGMENT).to_string();
        assert_eq!(id, "a%2Fb%23c%25d-e.f");
    }
}

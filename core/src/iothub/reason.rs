//! Why a connection failed, in words that say what to do.

use super::Cause;
use crate::tls::ClientIdentity;
use rumqttc::{ConnectReturnCode, ConnectionError, StateError, TlsError, mqttbytes};
use rustls::{AlertDescription as Alert, CertificateError, Error as Tls};
use std::{io, time::SystemTime};

/// What the words are about.
pub(super) struct Attempt<'a> {
    /// Host and port connected to.
    pub(super) server: &'a str,
    /// The device that connects.
    pub(super) device_id: &'a str,
    /// By which certificate.
    pub(super) identity: Option<&'a ClientIdentity>,
    /// The wall time at its begin.
    pub(super) time: SystemTime,
    /// Whether the hub had accepted the connection.
    pub(super) accepted: bool,
}

impl Attempt<'_> {
    /// The kind of `error`, and the words.
    pub(super) fn explain(&self, error: &ConnectionError) -> (Cause, String) {
        let server = self.server;
        match error {
            ConnectionError::ConnectionRefused(code) => (Cause::Refused, self.refused(*code)),
            ConnectionError::Tls(TlsError::Io(error)) => match tls_error(error) {
                Some(error) => (Cause::Tls, self.tls(error)),
                None => (
                    Cause::Tls,
                    format!(
                        "{server} broke off the TLS handshake ({error}): is it the port for MQTT over TLS, usually 8883?"
                    ),
                ),
            },
            ConnectionError::Tls(TlsError::TLS(error)) => (Cause::Tls, self.tls(error)),
            ConnectionError::Tls(error) => (Cause::Tls, format!("{server}: {error}")),
            ConnectionError::Io(error) => (Cause::Network, self.unreachable(error)),
            ConnectionError::NetworkTimeout => (
                Cause::Network,
                format!(
                    "{server} did not answer in time: check the network and its firewall; MQTT goes straight to that port, past any proxy"
                ),
            ),
            ConnectionError::FlushTimeout
            | ConnectionError::MqttState(StateError::AwaitPingResp) => {
                (Cause::Network, format!("{server} has stopped answering"))
            }
            ConnectionError::MqttState(
                StateError::Io(error) | StateError::Deserialization(mqttbytes::Error::Io(error)),
            ) => match tls_error(error) {
                Some(error) => (Cause::Tls, self.tls(error)),
                None => (Cause::Network, self.closed(Some(error))),
            },
            ConnectionError::MqttState(StateError::ConnectionAborted) => {
                (Cause::Network, self.closed(None))
            }
            ConnectionError::MqttState(StateError::Deserialization(error)) if !self.accepted => (
                Cause::Network,
                format!("what {server} answers is no MQTT ({error}): is it the right port?"),
            ),
            error => (Cause::Network, format!("{server}: {error}")),
        }
    }

    /// A hub gives one code for a wrong key or certificate, an unknown and a disabled device, and a token
    /// that has ended.
    fn refused(&self, code: ConnectReturnCode) -> String {
        let Self {
            server, device_id, ..
        } = self;
        match code {
            ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadUserNamePassword => {
                let proof = match self.identity {
                    Some(identity) => format!(
                        "that it is registered with X.509 and the thumbprint of its certificate, or that an authority of the hub's signed that, for the common name \"{device_id}\" ({})",
                        shown(identity)
                    ),
                    None => "that SharedAccessKey is its key".into(),
                };
                format!(
                    "{server} refuses device \"{device_id}\" (not authorized): check that the hub has this device, that it is enabled, {proof}, and this machine's clock, which says {}",
                    utc(self.time)
                )
            }
            ConnectReturnCode::ServiceUnavailable => {
                format!("{server} says that the hub is not available at the moment")
            }
            ConnectReturnCode::BadClientId => {
                format!("{server} does not accept the device id \"{device_id}\"")
            }
            ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::Success => {
                format!("{server} does not speak MQTT 3.1.1")
            }
        }
    }

    fn tls(&self, error: &Tls) -> String {
        let server = self.server;
        let Tls::InvalidCertificate(certificate) = error else {
            return match error {
                Tls::AlertReceived(
                    alert @ (Alert::AccessDenied
                    | Alert::BadCertificate
                    | Alert::CertificateExpired
                    | Alert::CertificateRequired
                    | Alert::CertificateRevoked
                    | Alert::CertificateUnknown
                    | Alert::UnknownCA
                    | Alert::UnsupportedCertificate),
                ) => match self.identity {
                    Some(identity) => format!(
                        "{server} does not accept the device's certificate ({alert:?}; {}; this machine's clock says {})",
                        shown(identity),
                        utc(self.time)
                    ),
                    None => format!(
                        "{server} lets nobody in without a certificate it accepts ({alert:?}), and this device has none"
                    ),
                },
                Tls::InvalidMessage(_) => format!(
                    "what {server} answers is no TLS: is it the port for MQTT over TLS, usually 8883?"
                ),
                error => format!("no secure connection to {server}: {error}"),
            };
        };
        match certificate {
            // Another authority of the same name shows as a bad signature.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "the certificate of {server} comes from an authority that is not trusted here; if it is the hub's own, name its CA file (--ca FILE)"
            ),
            CertificateError::NotValidForNameContext { presented, .. } => format!(
                "the certificate of {server} is for another name: {}; connect by a name it is for",
                presented.join(", ")
            ),
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => format!(
                "{server}: {certificate}; if the certificate is good, this machine's clock is wrong"
            ),
            certificate => format!("the certificate of {server} is not accepted: {certificate}"),
        }
    }

    fn unreachable(&self, error: &io::Error) -> String {
        let server = self.server;
        match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                format!("nothing listens on {server} (connection refused)")
            }
            // Resolving a name has no kind of its own.
            _ if error.to_string().starts_with("failed to lookup address") => {
                let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
                format!("the name {host} is not known ({error}): check HostName and DNS")
            }
            _ => format!("cannot connect to {server}: {error}"),
        }
    }

    fn closed(&self, error: Option<&io::Error>) -> String {
        let server = self.server;
        if self.accepted {
            // An end without TLS's good-bye says nothing more, at length.
            let error = error
                .filter(|error| error.kind() != io::ErrorKind::UnexpectedEof)
                .map_or(String::new(), |error| format!(" ({error})"));
            format!(
                "{server} has closed the connection{error}: its end, the network's, or another device has connected under the same id"
            )
        } else {
            format!(
                "{server} has closed the connection before it accepted the device: is it the port for MQTT over TLS?"
            )
        }
    }
}

/// What people compare with the hub's registry.
fn shown(identity: &ClientIdentity) -> String {
    let thumbprint = identity.thumbprint();
    match identity.validity() {
        Some((from, to)) => format!(
            "SHA-256 thumbprint {thumbprint}, good from {} to {}",
            utc(from),
            utc(to)
        ),
        None => format!("SHA-256 thumbprint {thumbprint}"),
    }
}

/// Date and time of day, as people read them.
fn utc(time: SystemTime) -> String {
    let time = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
    match time {
        Some(time) => format!(
            "{} {:02}:{:02} UTC",
            time.date(),
            time.hour(),
            time.minute()
        ),
        None => "something impossible".into(),
    }
}

fn tls_error(error: &io::Error) -> Option<&Tls> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reasons a real server cannot be brought to give in `tests/iothub*.rs`.
    #[test]
    fn words_for_reasons() {
        let attempt = Attempt {
            server: "hub.example:8883",
            device_id: "d1",
            identity: None,
            time: SystemTime::UNIX_EPOCH,
            accepted: false,
        };
        for (error, cause, words) in [
            (
                ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized),
                Cause::Refused,
                "\"d1\" (not authorized): check that the hub has this device",
            ),
            (
                ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized),
                Cause::Refused,
                "clock, which says 1970-01-01 00:00 UTC",
            ),
            (
                ConnectionError::ConnectionRefused(ConnectReturnCode::ServiceUnavailable),
                Cause::Refused,
                "not available",
            ),
            (
                ConnectionError::NetworkTimeout,
                Cause::Network,
                "hub.example:8883 did not answer in time",
            ),
            (
                ConnectionError::MqttState(StateError::AwaitPingResp),
                Cause::Network,
                "has stopped answering",
            ),
            (
                ConnectionError::Tls(TlsError::TLS(Tls::InvalidCertificate(
                    CertificateError::Revoked,
                ))),
                Cause::Tls,
                "is not accepted",
            ),
        ] {
            let (found, text) = attempt.explain(&error);
            assert_eq!(found, cause, "{text}");
            assert!(text.contains(words), "{text}");
        }
    }
}

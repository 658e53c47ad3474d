//! The HTTP library's errors in words, and whether they are worth another attempt.

use crate::download::answer::{RESUME, failure};
use crate::update::{Code, Failure, Retry};
use rustls::{AlertDescription, CertificateError};
use std::io::{self, ErrorKind};
use ureq::Timeout;

/// What a failure at `shown` means. Never quotes the error where it holds the URL itself.
pub(super) fn from_ureq(error: ureq::Error, shown: &str) -> (Failure, Retry) {
    use ureq::Error;
    let (code, retry, why) = match error {
        Error::Io(error) => return from_io(error, shown),
        Error::Rustls(error) => tls(&error),
        Error::Tls(why) => (Code::Tls, Retry::Never, format!("TLS failed: {why}")),
        Error::Timeout(timeout) => (Code::Network, RESUME, timed_out(timeout).into()),
        Error::HostNotFound => (Code::Network, RESUME, "its host has no address".into()),
        Error::BadUri(_) | Error::Http(_) => (
            Code::InvalidUri,
            Retry::Never,
            "it is not the URL of an image".into(),
        ),
        Error::Protocol(error) => (
            Code::HttpProtocol,
            Retry::Never,
            format!("the server's answer is no HTTP/1.1: {error}"),
        ),
        Error::LargeResponseHeader(_, limit) => (
            Code::HttpProtocol,
            Retry::Never,
            format!("the header of the server's answer is longer than {limit} bytes"),
        ),
        Error::ConnectProxyFailed(why) => (
            Code::Network,
            RESUME,
            format!("the proxy does not connect: {why}"),
        ),
        Error::ConnectionFailed => (Code::Network, RESUME, "no connection".into()),
        Error::RequireHttpsOnly(_) => (Code::InsecureUri, Retry::Never, "it is not https".into()),
        other => (Code::Network, RESUME, other.to_string()),
    };
    (failure(code, shown, &why), retry)
}

pub(super) fn from_io(error: io::Error, shown: &str) -> (Failure, Retry) {
    let kind = error.kind();
    let text = error.to_string();
    let why = match error.downcast::<rustls::Error>() {
        Ok(error) => {
            let (code, retry, why) = tls(&error);
            return (failure(code, shown, &why), retry);
        }
        Err(error) => match error.downcast::<ureq::Error>() {
            // The library wraps its own errors when a body is read.
            Ok(error) => return from_ureq(error, shown),
            Err(_) => match kind {
                ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe => "the connection broke off".into(),
                // Without the number of the operating system's error, which says no more.
                _ => text
                    .split(" (os error")
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            },
        },
    };
    (failure(Code::Network, shown, &why), RESUME)
}

fn timed_out(timeout: Timeout) -> &'static str {
    match timeout {
        Timeout::Resolve => "finding its host's address took too long",
        Timeout::Connect => "its host does not answer",
        _ => "the server took too long",
    }
}

fn tls(error: &rustls::Error) -> (Code, Retry, String) {
    use rustls::Error;
    let (retry, why) = match error {
        Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                Retry::Never,
                "its certificate comes from no authority that is trusted here; name a CA file that has it".into(),
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                (Retry::Never, "its certificate is for another host".into())
            }
            // A device without a clock that runs on may get the time a minute later.
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
                RESUME,
                "its certificate has expired, or this device's clock is wrong".into(),
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                RESUME,
                "its certificate is not valid yet, or this device's clock is wrong".into(),
            ),
            // webpki's; rustls has no name of its own for it.
            CertificateError::Other(why) if format!("{why:?}").contains("CaUsedAsEndEntity") => (
                Retry::Never,
                "its certificate is a certificate authority's own; it needs one that the authority issued".into(),
            ),
            why => (Retry::Never, format!("its certificate is not accepted: {why}")),
        },
        Error::InvalidMessage(_) => {
            (Retry::Never, "the server does not speak TLS at this port".into())
        }
        Error::AlertReceived(AlertDescription::InternalError) => {
            (RESUME, "the server broke off TLS: internal error".into())
        }
        Error::AlertReceived(alert) => {
            (Retry::Never, format!("the server refused TLS: {alert:?}"))
        }
        error => (RESUME, format!("TLS failed: {error}")),
    };
    (Code::Tls, retry, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_the_url_is_not_quoted() {
        let secret = "https://me:secret@h/x?sig=secret".to_owned();
        for error in [
            ureq::Error::BadUri(secret.clone()),
            ureq::Error::RequireHttpsOnly(secret),
        ] {
            let (failure, retry) = from_ureq(error, "https://h/x");
            assert!(!failure.message.contains("secret"), "{failure}");
            assert_eq!(retry, Retry::Never);
        }
    }

    #[test]
    fn wrapped_errors_are_unwrapped() {
        let expired = rustls::Error::InvalidCertificate(CertificateError::Expired);
        let (failure, retry) = from_io(io::Error::other(expired), "https://h/x");
        assert_eq!((failure.code, retry), (Code::Tls, RESUME));
        let inner = ureq::Error::Timeout(Timeout::Connect);
        let (failure, _) = from_io(io::Error::other(inner), "https://h/x");
        assert_eq!(
            failure.message,
            "cannot download https://h/x: its host does not answer"
        );
        let (failure, _) = from_io(io::Error::from_raw_os_error(111), "http://h/x");
        assert_eq!(
            failure.message,
            "cannot download http://h/x: Connection refused"
        );
    }
}

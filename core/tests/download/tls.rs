//! Over TLS: who is trusted.

use crate::device::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::{ServerConfig, crypto::ring};
use std::{
    io::Write,
    sync::{Arc, mpsc},
};

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_pem(self.0.pem().as_bytes()).unwrap()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key, in PEM.
    pub(crate) fn issue(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.into()]).unwrap();
        // One of the same name as its issuer would be taken for self-signed.
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub(crate) fn server(&self, host: &str, expired: bool) -> ServerConfig {
        let mut params = CertificateParams::new(vec![host.into()]).unwrap();
        if expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                key.serialize_der().try_into().unwrap(),
            )
            .unwrap()
    }
}

#[test]
fn resumed_over_https() {
    let authority = Authority::new();
    let config = authority.server("127.0.0.1", false);
    let server = Server::https(config, |reply| cut_first(reply, &image(1), TAG));
    let mut device = Device::trusting(authority.roots());
    let job = device.cut(Job {
        https_only: true,
        ..job(server.url("/"))
    });
    let ended = device.fetch(&job);
    device.assert_complete(ended, &image(1));
    assert_eq!(device.started(), Some(LENGTH as u64 / 2));
}

#[test]
fn a_certificate_that_is_not_good() {
    let authority = Authority::new();
    let good = authority.server("127.0.0.1", false);
    let cases = [
        (Roots::BuiltIn, good.clone(), Retry::Never, "name a CA file"),
        (
            Authority::new().roots(),
            good,
            Retry::Never,
            "name a CA file",
        ),
        (
            authority.roots(),
            authority.server("other.host", false),
            Retry::Never,
            "for another host",
        ),
        (
            authority.roots(),
            authority.server("127.0.0.1", true),
            Retry::Resume(None),
            "has expired",
        ),
    ];
    for (roots, config, expected, why) in cases {
        let server = Server::https(config, |reply| reply.serve(&image(1), TAG, ALL));
        let mut device = Device::trusting(roots);
        let (code, retry, message) = failed(device.fetch(&job(server.url("/x?sig=secret"))));
        assert_eq!((code, retry), (Code::Tls, expected), "{message}");
        assert!(
            message.contains(why) && !message.contains("secret"),
            "{message}"
        );
        assert_eq!(server.asked().len(), 0);
    }
}

#[test]
fn no_tls_at_that_port() {
    let server = Server::http(|_| {});
    let url = server.url("/").replace("http:", "https:");
    let (code, _, message) = failed(Device::new().fetch(&job(url)));
    assert!(matches!(code, Code::Tls | Code::Network), "{message}");
}

#[test]
fn never_from_https_to_http() {
    let plain = Server::http(|reply| reply.serve(&image(1), TAG, ALL));
    let authority = Authority::new();
    let to = plain.url("/image");
    let secure = Server::https(authority.server("127.0.0.1", false), move |reply| {
        reply.empty("302 Found", &[("Location", &to)]);
    });
    let to = secure.url("/");
    let first = Server::http(move |reply| reply.empty("302 Found", &[("Location", &to)]));
    let mut device = Device::trusting(authority.roots());
    // Also when the first step was from http to https.
    for url in [secure.url("/"), first.url("/")] {
        let (code, retry, message) = failed(device.fetch(&job(url)));
        assert_eq!((code, retry), (Code::Redirect, Retry::Never));
        assert!(message.ends_with("/image, which is not https"), "{message}");
    }
    assert_eq!(plain.asked().len(), 0);
}

/// The connection is taken, and then nothing: before TLS, and in the middle of its handshake.
#[test]
fn silent_in_the_handshake() {
    for begins in [false, true] {
        let (keep, _kept) = mpsc::channel();
        let server = Server::raw(move |_, mut stream| {
            if begins {
                // The header of a record, which never comes.
                stream.write_all(b"\x16\x03\x03\x40\x00").unwrap();
            }
            keep.send(stream).unwrap();
        });
        let url = server.url("/").replace("http:", "https:");
        let (code, retry, message) = failed(Device::new().fetch(&Job {
            stall_time: Duration::from_millis(300),
            ..job(url)
        }));
        assert_eq!(
            (code, retry),
            (Code::Stalled, Retry::Resume(None)),
            "{message}"
        );
    }
}

//! Devices that authenticate with a client certificate: by its thumbprint, or because an authority signed it.
//!
//! "Authenticate identities with X.509 certificates": the thumbprint of either of two certificates is registered, or the
//! certificate's common name is the device's id and its chain ends at an authority the hub trusts.

use crate::error::{Error, Refusal};
use ring::digest;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{path::PathBuf, sync::Arc};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

/// The thumbprints of the certificates that may stand for a device, as they were given.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Thumbprints {
    primary_thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
}

impl Thumbprints {
    /// Reads an identity's `x509Thumbprint`.
    pub(crate) fn parse(given: Option<&Value>) -> Result<Self, Refusal> {
        let read = |name: &str| match given.and_then(|given| given.get(name)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) if is_thumbprint(text) => Ok(Some(text.clone())),
            Some(_) => Err(Refusal::argument(format!(
                "{name} should be the 40 (SHA-1) or 64 (SHA-256) hexadecimal digits of a certificate's thumbprint."
            ))),
        };
        let thumbprints = Self {
            primary_thumbprint: read("primaryThumbprint")?,
            secondary_thumbprint: read("secondaryThumbprint")?,
        };
        if thumbprints.iter().next().is_none() {
            return Err(Refusal::argument(
                "authentication of type selfSigned needs a primaryThumbprint or a secondaryThumbprint.",
            ));
        }
        Ok(thumbprints)
    }

    fn iter(&self) -> impl Iterator<Item = &String> {
        [&self.primary_thumbprint, &self.secondary_thumbprint]
            .into_iter()
            .flatten()
    }

    /// Whether the certificate is one of these.
    pub(crate) fn include(&self, certificate: &CertificateDer<'_>) -> bool {
        let of = |algorithm| {
            base16ct::upper::encode_string(digest::digest(algorithm, certificate).as_ref())
        };
        let [sha1, sha256] = [&digest::SHA1_FOR_LEGACY_USE_ONLY, &digest::SHA256].map(of);
        self.iter().any(|thumbprint| {
            thumbprint.eq_ignore_ascii_case(&sha1) || thumbprint.eq_ignore_ascii_case(&sha256)
        })
    }
}

fn is_thumbprint(text: &str) -> bool {
    [40, 64].contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit())
}

/// The authorities whose signature lets devices in.
pub(crate) struct Authorities(Option<Arc<dyn ClientCertVerifier>>);

impl Authorities {
    /// Reads files of one or more certificates in PEM; there may be none at all.
    pub(crate) fn read(files: &[PathBuf]) -> Result<Self, Error> {
        if files.is_empty() {
            return Ok(Self(None));
        }
        let mut roots = RootCertStore::empty();
        for file in files {
            let failed = |reason: &dyn std::fmt::Display| Error::TrustedAuthority {
                path: file.clone(),
                reason: reason.to_string(),
            };
            let before = roots.len();
            for certificate in
                CertificateDer::pem_file_iter(file).map_err(|error| failed(&error))?
            {
                let certificate = certificate.map_err(|error| failed(&error))?;
                roots.add(certificate).map_err(|error| failed(&error))?;
            }
            if roots.len() == before {
                return Err(failed(&"holds no certificate in PEM"));
            }
        }
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map(|verifier| Self(Some(verifier)))
            .map_err(|error| Error::Certificate(error.to_string()))
    }

    /// Checks a device's certificate, which the others may lead to an authority. Says why not.
    pub(crate) fn check(
        &self,
        id: &str,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(), &'static str> {
        let verifier = self.0.as_ref().ok_or(
            "the device's certificate is to be signed by an authority, and the hub trusts none",
        )?;
        verifier
            .verify_client_cert(certificate, others, UnixTime::now())
            .map_err(|error| match error {
                rustls::Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                ) => "no authority that the hub trusts signed the client certificate",
                rustls::Error::InvalidCertificate(
                    CertificateError::Expired | CertificateError::ExpiredContext { .. },
                ) => "the client certificate, or one on its way to the authority, expired",
                _ => "the client certificate does not pass verification",
            })?;
        let names = X509Certificate::from_der(certificate)
            .map_err(|_| "the client certificate cannot be read")?
            .1;
        let mut names = names.subject().iter_common_name();
        match (names.next().map(|name| name.as_str()), names.next()) {
            (Some(Ok(name)), None) if name == id => Ok(()),
            _ => Err("the client certificate's common name (CN) is not the device's id"),
        }
    }
}

/// Asks for a client certificate at the TLS handshake, and takes any whose key the peer has: who it may be is decided when
/// it says so, by [`Authorities`] and [`Thumbprints`].
#[derive(Debug)]
pub(crate) struct AnyCertificate(pub(crate) Arc<CryptoProvider>);

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        // The check of the signature refuses it anyway, but in words that help nobody.
        if X509Certificate::from_der(certificate)
            .is_ok_and(|(_, certificate)| certificate.version() != X509Version::V3)
        {
            return Err(rustls::Error::General(
                "the client certificate is not of X.509 version 3; openssl x509 makes such with -extfile".into(),
            ));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The cryptography all of the hub's TLS uses.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

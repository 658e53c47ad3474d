//! Who a client is, where a server wants to know it by a certificate.

use super::{Roots, RootsError};
use ring::digest;
use rustls::{Error, crypto::ring::sign, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use spki::der::{
    self, AnyRef, Decode, SliceReader, Tag, Tagged,
    asn1::{GeneralizedTime, UtcTime},
};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A certificate that the device shows, and its private key, which no `Debug` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    certificates: Arc<[CertificateDer<'static>]>,
    /// In PEM, as it was given.
    key: Arc<[u8]>,
}

impl ClientIdentity {
    /// Of PEM texts: the device's certificate followed by those up to its authority, and the key (PKCS#8,
    /// PKCS#1 or SEC1, without a passphrase).
    ///
    /// # Errors
    /// There is no certificate or no key in them, or they are not each other's. No message quotes the key.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, RootsError> {
        let Roots::These(certificates) = Roots::from_pem(certificates)? else {
            return Err(RootsError("holds no certificate".into()));
        };
        let der = private_key(key)?;
        let signing = sign::any_supported_type(&der).map_err(|_| {
            RootsError(
                "the client's key is of no known kind: RSA, P-256, P-384 and Ed25519 are known"
                    .into(),
            )
        })?;
        CertifiedKey::new(certificates.to_vec(), signing)
            .keys_match()
            .map_err(|error| {
                RootsError(match error {
                    Error::InconsistentKeys(_) => "the client's key is not that of its certificate, which must be the first one of several".into(),
                    error => format!("the client's certificate cannot be used ({error}); is it of X.509 version 3?"),
                })
            })?;
        Ok(Self {
            certificates,
            key: key.into(),
        })
    }

    /// The device's certificate, and those up to its authority.
    #[cfg(feature = "http")]
    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    #[cfg(feature = "http")]
    pub(super) fn key_pem(&self) -> &[u8] {
        &self.key
    }

    /// Certificates and key, as rustls wants them.
    pub(super) fn parts(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), RootsError> {
        Ok((self.certificates.to_vec(), private_key(&self.key)?))
    }

    /// The SHA-256 thumbprint of the device's certificate, as a hub's registry has it: upper-case hexadecimal digits.
    pub fn thumbprint(&self) -> String {
        let certificate = self.certificates.first().map_or(&[][..], |it| it.as_ref());
        let thumbprint = digest::digest(&digest::SHA256, certificate);
        base16ct::upper::encode_string(thumbprint.as_ref())
    }

    /// From when and until when the device's certificate is good, where it says so in a way that can be read.
    pub fn validity(&self) -> Option<(SystemTime, SystemTime)> {
        validity(self.certificates.first()?).ok()
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientIdentity({})", self.certificates.len())
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, RootsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        let says = |text: &str| pem.windows(text.len()).any(|part| part == text.as_bytes());
        RootsError(match says("ENCRYPTED") {
            true => "the client's key has a passphrase, which nobody is here to enter; openssl pkey -in FILE -out NEW takes it away".into(),
            false => "the client's key is no private key in PEM".into(),
        })
    })
}

/// RFC 5280, section 4.1: what stands before the times is passed over.
fn validity(certificate: &[u8]) -> der::Result<(SystemTime, SystemTime)> {
    let certificate = AnyRef::from_der(certificate)?;
    let signed = AnyRef::decode(&mut SliceReader::new(certificate.value())?)?;
    let mut signed = SliceReader::new(signed.value())?;
    // The serial number, after a version that is left out of the first one.
    while AnyRef::decode(&mut signed)?.tag() != Tag::Integer {}
    let (_algorithm, _issuer) = (AnyRef::decode(&mut signed)?, AnyRef::decode(&mut signed)?);
    let times = AnyRef::decode(&mut signed)?;
    let mut times = SliceReader::new(times.value())?;
    let mut next = || -> der::Result<SystemTime> {
        let time = AnyRef::decode(&mut times)?;
        let since = match time.tag() {
            Tag::UtcTime => time.decode_as::<UtcTime>()?.to_unix_duration(),
            _ => time.decode_as::<GeneralizedTime>()?.to_unix_duration(),
        };
        Ok(UNIX_EPOCH + since.min(FAR))
    };
    Ok((next()?, next()?))
}

/// The year 9999, which stands for no end: RFC 5280, section 4.1.2.5.
const FAR: Duration = Duration::from_secs(253_402_300_799);

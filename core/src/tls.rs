//! Which certificate authorities a server's certificate must come from. Shared by the downloader
//! and the IoT Hub client, so that both trust the same.

mod identity;

pub use identity::ClientIdentity;
use rustls::{ClientConfig, RootCertStore, crypto::ring, time_provider::TimeProvider};
use rustls_pki_types::{
    CertificateDer, UnixTime,
    pem::{self, PemObject},
};
use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Tells the wall time; `None` as long as it is not known (a board without a battery-backed clock,
/// before its first NTP answer). Called from any thread.
pub type Clock = Arc<dyn Fn() -> Option<SystemTime> + Send + Sync>;

/// The certificate authorities that are trusted.
#[derive(Clone, Default)]
pub enum Roots {
    /// Mozilla's, built in. What the web and Azure use.
    #[cfg(feature = "built-in-roots")]
    #[default]
    BuiltIn,
    /// Those of the operating system. The default where none are built in.
    #[cfg_attr(not(feature = "built-in-roots"), default)]
    System,
    /// These and no others.
    These(Arc<[CertificateDer<'static>]>),
}

impl Roots {
    /// Reads every certificate of a PEM file.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate; the message names it.
    pub fn from_pem_file(path: impl AsRef<Path>) -> Result<Self, RootsError> {
        let path = path.as_ref();
        let pem = std::fs::read(path)
            .map_err(|error| RootsError(format!("cannot read {}: {error}", path.display())))?;
        Self::from_pem(&pem).map_err(|error| RootsError(format!("{}: {error}", path.display())))
    }

    /// Reads every certificate of a PEM text.
    ///
    /// # Errors
    /// The text is no PEM, or holds no certificate.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            // What the error shows may be a key that stands beside them.
            .map_err(|error| {
                RootsError(match error {
                    pem::Error::MissingSectionEnd { .. } => {
                        "not a PEM file of certificates: a block has no end".into()
                    }
                    _ => "not a PEM file of certificates".into(),
                })
            })?;
        if certificates.is_empty() {
            return Err(RootsError("holds no certificate".into()));
        }
        Ok(Self::These(certificates.into()))
    }

    /// The certificates themselves; `None` for those built in, which are kept as trust anchors.
    ///
    /// # Errors
    /// The operating system's store cannot be read or is empty.
    pub fn certificates(&self) -> Result<Option<Vec<CertificateDer<'static>>>, RootsError> {
        match self {
            #[cfg(feature = "built-in-roots")]
            Self::BuiltIn => Ok(None),
            Self::These(certificates) => Ok(Some(certificates.to_vec())),
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                if found.certs.is_empty() {
                    let why = found.errors.first().map(ToString::to_string);
                    return Err(RootsError(format!(
                        "this system has no certificate authorities ({}); install them (package ca-certificates) or name a CA file",
                        why.unwrap_or_else(|| "none found".into())
                    )));
                }
                Ok(Some(found.certs))
            }
        }
    }

    /// As rustls wants them.
    ///
    /// # Errors
    /// As [`Roots::certificates`]; or none of the certificates can be used.
    pub fn store(&self) -> Result<RootCertStore, RootsError> {
        #[cfg(feature = "built-in-roots")]
        if matches!(self, Self::BuiltIn) {
            return Ok(RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            });
        }
        let certificates = self.certificates()?.unwrap_or_default();
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(RootsError("none of the certificates can be used".into()));
        }
        Ok(store)
    }
}

/// How a client speaks TLS: version 1.2 or 1.3, ring for the cryptography, these roots, and
/// certificates judged at the time `clock` tells, this certificate where the server asks for one. No ALPN.
///
/// # Errors
/// As [`Roots::store`].
pub fn client_config(
    roots: &Roots,
    identity: Option<&ClientIdentity>,
    clock: Clock,
) -> Result<Arc<ClientConfig>, RootsError> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_details(provider, Arc::new(Time(clock)))
        .with_safe_default_protocol_versions()
        .map_err(|error| RootsError(error.to_string()))?
        .with_root_certificates(roots.store()?);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let (certificates, key) = identity.parts()?;
            config
                .with_client_auth_cert(certificates, key)
                .map_err(|error| RootsError(error.to_string()))?
        }
    };
    Ok(Arc::new(config))
}

/// How an HTTP client of `ureq` speaks TLS: these roots, this certificate where a server asks for one, ring for the cryptography. `ureq` keeps its own
/// clock: certificates are judged at the system's time.
///
/// # Errors
/// As [`Roots::store`]: roots of which none can be used are refused here, not at the first handshake.
#[cfg(feature = "http")]
pub fn ureq_config(
    roots: &Roots,
    identity: Option<&ClientIdentity>,
) -> Result<ureq::tls::TlsConfig, RootsError> {
    use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
    // ureq drops what it cannot read, and would trust nobody.
    roots.store()?;
    let roots = match roots.certificates()? {
        None => RootCerts::WebPki,
        Some(certificates) => certificates
            .iter()
            .map(|certificate| Certificate::from_der(certificate).to_owned())
            .collect::<Vec<_>>()
            .into(),
    };
    let identity = match identity {
        None => None,
        Some(identity) => {
            let certificates: Vec<_> = identity
                .certificates()
                .iter()
                .map(|certificate| Certificate::from_der(certificate).to_owned())
                .collect();
            let key = PrivateKey::from_pem(identity.key_pem())
                .map_err(|_| RootsError("the client's key is no private key in PEM".into()))?;
            Some(ClientCert::new_with_certs(&certificates, key))
        }
    };
    Ok(TlsConfig::builder()
        .root_certs(roots)
        .client_cert(identity)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build())
}

/// A [`Clock`], as rustls asks for one.
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let since = (self.0)()?.duration_since(UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(feature = "built-in-roots")]
            Self::BuiltIn => f.write_str("BuiltIn"),
            Self::System => f.write_str("System"),
            Self::These(certificates) => write!(f, "These({})", certificates.len()),
        }
    }
}

/// Certificate authorities could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootsError(pub(crate) String);

impl fmt::Display for RootsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RootsError {}

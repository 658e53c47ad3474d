//! The hub's own certificate authority, and the certificate it serves with.

use crate::{
    error::Error,
    x509::{AnyCertificate, provider},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::{NamedTempFile, TempPath};

/// A certificate authority that trusts nobody but itself.
pub(crate) struct Authority {
    /// Its certificate.
    pub(crate) pem: String,
    /// The file the certificate is in.
    pub(crate) file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// Removes the file when the hub goes, if it lives in memory.
    _temporary: Option<TempPath>,
}

impl Authority {
    /// A new one, its certificate in a temporary file.
    pub(crate) fn temporary() -> Result<Self, Error> {
        let (pem, key) = create()?;
        let system = |error: std::io::Error| {
            Error::System(format!("cannot write a temporary file: {error}"))
        };
        let mut file = tempfile::Builder::new()
            .prefix("twinflash-hub-ca-")
            .suffix(".pem")
            .tempfile()
            .map_err(system)?;
        file.write_all(pem.as_bytes()).map_err(system)?;
        readable(file.as_file()).map_err(system)?;
        let path = file.into_temp_path();
        Ok(Self {
            issuer: issuer(&pem, key).map_err(Error::Certificate)?,
            file: path.to_path_buf(),
            pem,
            _temporary: Some(path),
        })
    }

    /// The one kept in a directory, or a new one that is kept there from now on.
    pub(crate) fn kept(directory: &Path) -> Result<Self, Error> {
        let (file, key_file) = (directory.join("ca.pem"), directory.join("ca-key.pem"));
        let state = |path: &Path, reason: String| Error::State {
            path: path.into(),
            reason,
        };
        let read = |path: &Path| match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(state(path, format!("cannot be read: {error}"))),
        };
        let (pem, key) = match (read(&file)?, read(&key_file)?) {
            (Some(pem), Some(key)) => {
                let key = KeyPair::from_pem(&key).map_err(|error| {
                    state(&key_file, format!("holds no usable key ({error}); remove it and ca.pem to make a new authority"))
                })?;
                (pem, key)
            }
            // A certificate without its key cannot sign; a key without its certificate is what a crash between the two leaves.
            (Some(_), None) => {
                return Err(state(&file, "has no ca-key.pem beside it: put it back, or remove ca.pem to make a new authority".into()));
            }
            (None, _) => {
                let (pem, key) = create()?;
                write(&key_file, &key.serialize_pem(), false)?;
                write(&file, &pem, true)?;
                (pem, key)
            }
        };
        let issuer = issuer(&pem, key).map_err(|reason| {
            state(
                &file,
                format!("{reason}; remove it and ca-key.pem to make a new authority"),
            )
        })?;
        Ok(Self {
            pem,
            file,
            issuer,
            _temporary: None,
        })
    }

    /// A server's configuration with a new certificate for `names` (host names and IP addresses), and the same asking for
    /// client certificates.
    pub(crate) fn server(&self, names: Vec<String>) -> Result<[Arc<ServerConfig>; 2], Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Certificate(error.to_string());
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let mut params = CertificateParams::new(names).map_err(|error| failed(&error))?;
        validity(&mut params, "twinflash hub");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Python's strict verification asks for it.
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(|error| failed(&error))?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        // 1.2 as well: the Python device SDK knows no other.
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])
            .map_err(|error| failed(&error))?;
        let asking = builder
            .clone()
            .with_client_cert_verifier(Arc::new(AnyCertificate(provider())));
        let chain = || vec![certificate.der().clone()];
        let plain = builder
            .with_no_client_auth()
            .with_single_cert(chain(), key.clone_key())
            .map_err(|error| failed(&error))?;
        let asking = asking
            .with_single_cert(chain(), key)
            .map_err(|error| failed(&error))?;
        Ok([Arc::new(plain), Arc::new(asking)])
    }
}

fn create() -> Result<(String, KeyPair), Error> {
    let key = KeyPair::generate().map_err(|error| Error::Certificate(error.to_string()))?;
    let mut params = CertificateParams::default();
    validity(&mut params, "twinflash hub CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let certificate = params
        .self_signed(&key)
        .map_err(|error| Error::Certificate(error.to_string()))?;
    Ok((certificate.pem(), key))
}

/// Long, because nobody renews a test hub's certificates, and a device may not know the time yet.
fn validity(params: &mut CertificateParams, name: &str) {
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
}

fn issuer(pem: &str, key: KeyPair) -> Result<Issuer<'static, KeyPair>, String> {
    Issuer::from_ca_cert_pem(pem, key)
        .map_err(|error| format!("holds no usable certificate ({error})"))
}

/// Lets everybody read a certificate: clients may run as other users than the hub.
fn readable(file: &fs::File) -> std::io::Result<()> {
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// Whole or not at all; for the owner's eyes only unless `public`.
fn write(path: &Path, text: &str, public: bool) -> Result<(), Error> {
    let failed = |error: &dyn std::fmt::Display| Error::State {
        path: path.into(),
        reason: format!("cannot be written: {error}"),
    };
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(directory).map_err(|error| failed(&error))?;
    file.write_all(text.as_bytes())
        .map_err(|error| failed(&error))?;
    if public {
        readable(file.as_file()).map_err(|error| failed(&error))?;
    }
    file.as_file().sync_all().map_err(|error| failed(&error))?;
    file.persist(path).map_err(|error| failed(&error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_kept_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let first = Authority::kept(directory.path()).unwrap();
        let again = Authority::kept(directory.path()).unwrap();
        assert_eq!(first.pem, again.pem);
        again
            .server(vec!["localhost".into(), "127.0.0.1".into()])
            .unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |name| {
                let file = directory.path().join(name);
                fs::metadata(file).unwrap().permissions().mode() & 0o777
            };
            assert_eq!((mode("ca-key.pem"), mode("ca.pem")), (0o600, 0o644));
        }
    }

    #[test]
    fn a_broken_authority_is_refused_and_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        Authority::kept(directory.path()).unwrap();
        fs::write(directory.path().join("ca-key.pem"), "nothing").unwrap();
        let error = Authority::kept(directory.path()).err().unwrap().to_string();
        assert!(
            error.contains("ca-key.pem") && error.contains("remove"),
            "{error}"
        );
        fs::remove_file(directory.path().join("ca-key.pem")).unwrap();
        assert!(
            Authority::kept(directory.path())
                .err()
                .unwrap()
                .to_string()
                .contains("ca.pem")
        );
        fs::remove_file(directory.path().join("ca.pem")).unwrap();
        Authority::kept(directory.path()).unwrap();
    }

    #[test]
    fn a_temporary_authority_leaves_nothing() {
        let authority = Authority::temporary().unwrap();
        let file = authority.file.clone();
        assert_eq!(fs::read_to_string(&file).unwrap(), authority.pem);
        drop(authority);
        assert!(!file.exists());
    }
}

//! `twinflash key`

mod encryption;
mod rotate;
mod signer;

pub(crate) use encryption::{identities, recipients};
pub(crate) use signer::{Keys, Signer, read};

use crate::{
    error::Error,
    screen::{Screen, Tone},
};
use base64ct::{Base64, Encoding as _};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde::Serialize;
use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};
use twinflash::update::trust::{Algorithm, PublicKey};

/// Keys that sign manifests
#[derive(clap::Subcommand)]
pub(crate) enum Key {
    /// Make a new key: a private one, and beside it the public one that devices trust
    New {
        /// Its kind
        #[arg(long = "type", value_enum, default_value_t = Type::Ed25519)]
        kind: Type,
        /// Not one that signs, but an age identity: it decrypts images on a device, and what it prints is whom to encrypt
        /// them for
        #[arg(long, conflicts_with = "kind")]
        encryption: bool,
        /// The private key's new file, such as signing.pem; the public one is signing.pub.pem
        file: PathBuf,
    },
    /// Show a public key's kind and id
    Show {
        /// The public key (PEM), or several
        file: PathBuf,
    },
    Rotate(rotate::Rotate),
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Type {
    /// Small and fast
    Ed25519,
    /// For what knows no Ed25519
    P256,
}

/// A key, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    id: String,
    algorithm: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    private: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public: Option<String>,
}

impl Key {
    pub(crate) fn run(self, screen: &Screen) -> Result<bool, Error> {
        match self {
            Self::New {
                encryption: true,
                file,
                ..
            } => encryption::new(&file, screen)?,
            Self::New { kind, file, .. } => {
                let public = new(kind, &file)?;
                show(screen, &public, Some(&file), &file.with_extension(PUBLIC));
            }
            Self::Show { file } => {
                for key in public_keys(&file)? {
                    show(screen, &key, None, &file);
                }
            }
            Self::Rotate(rotate) => rotate.run(screen)?,
        }
        Ok(true)
    }
}

/// What a public key's file ends with.
const PUBLIC: &str = "pub.pem";

fn show(screen: &Screen, key: &PublicKey, private: Option<&Path>, public: &Path) {
    let text = |file: &Path| file.display().to_string();
    let shown = Shown {
        id: key.id().to_string(),
        algorithm: key.algorithm().as_str(),
        private: private.map(text),
        public: Some(text(public)),
    };
    if screen.is_json() {
        return screen.json(&shown);
    }
    for (name, value, what) in [
        ("id", Some(shown.id), ""),
        ("algorithm", Some(shown.algorithm.into()), ""),
        (
            "private key",
            shown.private,
            "signs; keep it off the network and off devices",
        ),
        ("public key", shown.public, "for devices to trust"),
    ] {
        if let Some(value) = value {
            screen.pair(11, name, &value, what, Tone::Normal);
        }
    }
}

/// Every public key of a PEM file.
pub(crate) fn public_keys(file: &Path) -> Result<Vec<PublicKey>, Error> {
    let pem = read(file)?;
    PublicKey::from_pem(&String::from_utf8_lossy(&pem))
        .map_err(|failure| Error::new(format_args!("{}: {}", file.display(), failure.message)))
}

/// Makes a key and writes its two files, neither of which may be there.
fn new(kind: Type, file: &Path) -> Result<PublicKey, Error> {
    let failed = |_| Error::new("the system gives no random numbers to make a key of");
    let random = SystemRandom::new();
    let (pkcs8, public) = match kind {
        Type::Ed25519 => {
            let mut seed = [0; 32];
            random.fill(&mut seed).map_err(failed)?;
            let pair = Ed25519KeyPair::from_seed_unchecked(&seed)
                .map_err(|_| Error::new("no key can be made"))?;
            // RFC 8410, section 7, without the public key, which openssl 3.0 does not read there.
            let mut pkcs8 = vec![
                0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22,
                0x04, 0x20,
            ];
            pkcs8.extend(seed);
            let public = PublicKey::from_bytes(Algorithm::EdDsa, pair.public_key().as_ref())?;
            (pkcs8, public)
        }
        Type::P256 => {
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(failed)?;
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random)
                .map_err(|_| Error::new("no key can be made"))?;
            let public = PublicKey::from_bytes(Algorithm::Es256, pair.public_key().as_ref())?;
            (pkcs8.as_ref().to_vec(), public)
        }
    };
    let public_file = file.with_extension(PUBLIC);
    if public_file.exists() {
        return Err(exists(&public_file));
    }
    create(file, &pem("PRIVATE KEY", &pkcs8), 0o600)?;
    create(&public_file, &public.to_pem(), 0o644)?;
    Ok(public)
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let base64 = Base64::encode_string(der);
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

fn exists(file: &Path) -> Error {
    Error::new(format_args!(
        "{} is there already; a key is never overwritten: give another name",
        file.display()
    ))
}

/// Writes a new file with this mode.
fn create(file: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(file),
        _ => Error::new(format_args!("cannot write {}: {error}", file.display())),
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let mut new = options.open(file).map_err(failed)?;
    let written = new.write_all(text.as_bytes()).and_then(|()| new.sync_all());
    written.map_err(|error| {
        // Half a key is none.
        let _ = fs::remove_file(file);
        failed(error)
    })
}

//! `twinflash image verify`

use super::{digest, read_text};
use crate::{
    error::Error,
    key::{identities, public_keys},
    screen::{Screen, Tone, iso},
};
use serde_json::json;
use std::{path::PathBuf, time::Duration};
use time::OffsetDateTime;
use twinflash::{
    download::{Downloader, HttpOptions, Stop, local_uri},
    install::{DryInstall, ImageInfo},
    update::{
        Ended, Job,
        trust::{KeyId, KeySet, Manifest, Trust},
    },
};

/// Check a manifest's signatures, and that it is of this image
///
/// Everything a device looks at but what it alone knows: its model and its floor.
#[derive(clap::Args)]
pub(crate) struct Verify {
    /// The image; or the file that is served in its place, packed or encrypted, which is undone as a device does it
    file: PathBuf,
    /// The manifest
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// The public keys that are trusted (PEM; may be given several times)
    #[arg(long, value_name = "PEM", required = true)]
    trust: Vec<PathBuf>,
    /// How many of them must have signed
    #[arg(long, default_value_t = 1, value_name = "N")]
    threshold: u32,
    /// A key that does not count, by its id (may be given several times)
    #[arg(long, value_name = "ID")]
    revoked: Vec<String>,
    /// For an encrypted file: the age identity that decrypts it
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

impl Verify {
    pub(super) fn run(self, screen: &Screen) -> Result<bool, Error> {
        let mut keys = Vec::new();
        for file in &self.trust {
            keys.extend(public_keys(file)?);
        }
        let revoked = self.revoked.iter().map(|id| KeyId::parse(id));
        let revoked = revoked.collect::<Result<_, _>>()?;
        let keys = KeySet::new(1, self.threshold, keys, revoked)?;
        let manifest = Trust::new(keys, Default::default()).open(&read_text(&self.manifest)?)?;
        let (size, digests) = digest(&self.file)?;
        let is_image = size == manifest.size && digests.sha256 == manifest.sha256;
        let made = manifest.compression.is_some() || manifest.encryption.is_some();
        // What is served can be told by its size.
        let served = manifest.download.is_none_or(|file| file.size == size);
        match made && served && !is_image {
            true => self.undo(&manifest)?,
            false => check_image(&manifest, size, &digests.sha256)?,
        }
        let now = OffsetDateTime::now_utc().unix_timestamp();
        manifest.check_time(u64::try_from(now).unwrap_or_default().saturating_mul(1000))?;
        if screen.is_json() {
            screen.json(&json!({"verified": true, "manifest": manifest}));
        } else {
            screen.text(
                "the signatures are right, and the image is the one they are of",
                Tone::Good,
            );
            show(screen, &manifest);
        }
        Ok(true)
    }
}

impl Verify {
    /// Decrypts and unpacks the file as a device does it, and checks what comes of it.
    fn undo(&self, manifest: &Manifest) -> Result<(), Error> {
        let failed = |why: &dyn std::fmt::Display| {
            Error::new(format_args!("{}: {why}", self.file.display()))
        };
        let file = std::path::absolute(&self.file).map_err(|error| failed(&error))?;
        let mut downloader = Downloader::new(HttpOptions::default())?;
        match &self.identity {
            Some(identity) => downloader = downloader.decrypting(identities(identity)?),
            None if manifest.encryption.is_some() => {
                return Err(failed(
                    &"it is encrypted: --identity FILE decrypts it; or verify the image itself",
                ));
            }
            None => {}
        }
        let job = Job {
            uri: local_uri(&file),
            resume: None,
            size: Some(manifest.size),
            max_size: u64::MAX,
            compression: manifest.compression,
            encryption: manifest.encryption,
            file_size: manifest.download.map(|download| download.size),
            hash_judges: true,
            content: String::new(),
            local: true,
            https_only: true,
            max_redirects: 0,
            checkpoint_interval: Duration::MAX,
            checkpoint_bytes: u64::MAX,
            stall_time: Duration::MAX,
            stall_bytes: 1,
            bandwidth: None,
            dry_run: true,
        };
        let (mut nowhere, image) = (DryInstall::default(), ImageInfo::default());
        let ended = downloader.fetch(&job, &mut nowhere, image, &Stop::new(), &mut |_| {});
        match ended {
            Ended::Complete { bytes, digests } => check_image(manifest, bytes, &digests.sha256),
            Ended::Failed(failure, _) => Err(failure.into()),
            Ended::Stopped | Ended::Manifest(_) => Err(failed(&"it cannot be read")),
        }
    }
}

/// Whether a manifest is of this image.
pub(crate) fn check_image(manifest: &Manifest, size: u64, sha256: &[u8; 32]) -> Result<(), Error> {
    if manifest.size != size {
        return Err(Error::new(format_args!(
            "the image has {size} bytes; the manifest is of one with {}",
            manifest.size
        )));
    }
    if manifest.sha256 != *sha256 {
        return Err(Error::new(format_args!(
            "the image's SHA-256 is {}; the manifest is of {}",
            base16ct::lower::encode_string(sha256),
            base16ct::lower::encode_string(&manifest.sha256)
        )));
    }
    Ok(())
}

/// What a manifest says.
pub(super) fn show(screen: &Screen, manifest: &Manifest) {
    let time = |seconds: u64| {
        let at = i64::try_from(seconds)
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        at.map_or_else(|| seconds.to_string(), iso)
    };
    let list = |list: &[String]| (!list.is_empty()).then(|| list.join(", "));
    let compatibility = &manifest.compatibility;
    for (name, value) in [
        ("version", Some(manifest.version.clone())),
        ("size", Some(manifest.size.to_string())),
        (
            "sha256",
            Some(base16ct::lower::encode_string(&manifest.sha256)),
        ),
        ("manufacturer", list(&compatibility.manufacturer)),
        ("model", list(&compatibility.model)),
        ("hw revision", list(&compatibility.hardware_revision)),
        ("issued", Some(time(manifest.issued))),
        ("expires", manifest.expires.map(time)),
        ("floor", manifest.floor.clone()),
        (
            "compression",
            manifest.compression.map(|how| how.as_str().into()),
        ),
        (
            "encryption",
            manifest.encryption.map(|how| how.as_str().into()),
        ),
        (
            "file's size",
            manifest.download.map(|file| file.size.to_string()),
        ),
    ] {
        if let Some(value) = value {
            screen.pair(14, name, &value, "", Tone::Normal);
        }
    }
}

//! `twinflash image`

mod pack;
mod sign;
mod verify;

pub(crate) use verify::check_image;

use crate::{
    error::Error,
    key::{Signer, read},
    screen::{Screen, Tone},
};
use serde::Serialize;
use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};
use twinflash::update::{
    Checks, Digests,
    trust::{Jws, Kind, Manifest},
};

/// The longest text that a twin holds, in bytes (Azure's limit).
const TWIN_TEXT: usize = 4096;

#[derive(clap::Subcommand)]
pub(crate) enum Image {
    /// Show an image's size and the check values an update is asked for with
    Info {
        /// The image
        file: PathBuf,
    },
    Sign(sign::Sign),
    Verify(verify::Verify),
}

/// Under the names that the DevKit's tool prints and that requests have.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    fw_path: String,
    fw_size: u64,
    /// CRC-16/XMODEM, without leading zeros.
    fw_package_check_value: String,
    crc32: String,
    sha256: String,
}

impl Image {
    pub(crate) fn run(self, screen: &Screen) -> Result<bool, Error> {
        let file = match self {
            Self::Info { file } => file,
            Self::Sign(sign) => return sign.run(screen),
            Self::Verify(verify) => return verify.run(screen),
        };
        let (size, digests) = digest(&file)?;
        let info = Info {
            fw_path: file.display().to_string(),
            fw_size: size,
            fw_package_check_value: format!("{:x}", digests.crc16),
            crc32: format!("{:08x}", digests.crc32),
            sha256: base16ct::lower::encode_string(&digests.sha256),
        };
        if screen.is_json() {
            screen.json(&info);
        } else {
            for (name, value, what) in [
                ("fwPath", info.fw_path, ""),
                ("fwSize", info.fw_size.to_string(), "bytes"),
                (
                    "fwPackageCheckValue",
                    info.fw_package_check_value,
                    "CRC-16/XMODEM",
                ),
                ("crc32", info.crc32, ""),
                ("sha256", info.sha256, ""),
            ] {
                screen.pair(19, name, &value, what, Tone::Normal);
            }
        }
        Ok(true)
    }
}

/// Size and checks of a file, read once from front to back.
pub(crate) fn digest(file: &Path) -> Result<(u64, Digests), Error> {
    let failed = |error| Error::new(format_args!("cannot read {}: {error}", file.display()));
    let mut reader = File::open(file).map_err(failed)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut checks = Checks::new();
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        checks.update(buffer.get(..read).unwrap_or_default());
    }
    Ok((checks.bytes(), checks.finish()))
}

/// A file that holds text.
pub(crate) fn read_text(file: &Path) -> Result<String, Error> {
    let bytes = read(file)?;
    String::from_utf8(bytes).map_err(|_| Error::new(format_args!("{} is no text", file.display())))
}

/// A manifest and what it says. Who has signed it is not looked at: whoever signs it too, or sends it, says himself that
/// it is right, and a device asks for more.
pub(crate) fn opened(file: &Path) -> Result<(Jws, Manifest), Error> {
    let jws = Jws::parse(read_text(file)?.trim())?;
    let manifest = Manifest::from_json(&jws.payload()?)?;
    Ok((jws, manifest))
}

/// Notes that a manifest is too long for a twin.
pub(crate) fn note_length(screen: &Screen, manifest: &str) {
    let bytes = manifest.len();
    if bytes > TWIN_TEXT {
        screen.note(&format!(
            "the manifest has {bytes} bytes, and a twin's text {TWIN_TEXT} at most: serve it beside the image"
        ));
    }
}

/// Writes a signed document.
pub(crate) fn write(file: &Path, text: &str) -> Result<(), Error> {
    fs::write(file, format!("{text}\n"))
        .map_err(|error| Error::new(format_args!("cannot write {}: {error}", file.display())))
}

/// Signs with each of the keys.
pub(crate) fn add_signatures(jws: &mut Jws, kind: Kind, signers: &[Signer]) -> Result<(), Error> {
    for signer in signers {
        let (protected, message) = jws.to_sign(kind, signer.public());
        jws.add(protected, &signer.sign(&message)?);
    }
    Ok(())
}

//! Makes an image into the file that is served: packed, encrypted, or both. Devices undo it while it comes.

use crate::error::Error;
use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
};
use twinflash::{
    age::{Encryptor, Recipient},
    update::Compression,
};
use zstd_safe::{CCtx, CParameter, compress_bound, get_error_name};

/// So much of an image is packed by itself: a download that breaks goes on at the last such frame.
const FRAME: usize = 4 << 20;
/// Of zstd. Higher ones want a larger window than devices give.
const LEVEL: i32 = 19;

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum How {
    Zstd,
    Gzip,
}

impl How {
    pub(super) fn compression(self) -> Compression {
        match self {
            Self::Zstd => Compression::Zstd,
            Self::Gzip => Compression::Gzip,
        }
    }

    fn ending(self) -> &'static str {
        match self {
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        }
    }
}

/// What is done to an image before it is served.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made<'a> {
    pub(super) packed: Option<How>,
    /// For whom it is encrypted, if it is.
    pub(super) encrypted: &'a [Recipient],
}

impl Made<'_> {
    /// Whether the image itself is served.
    pub(super) fn is_nothing(self) -> bool {
        self.packed.is_none() && self.encrypted.is_empty()
    }

    /// The image's name with what tells what was done to it.
    pub(super) fn beside(self, image: &Path) -> PathBuf {
        let mut name = image.to_owned().into_os_string();
        name.push(self.packed.map_or("", How::ending));
        if !self.encrypted.is_empty() {
            name.push(".age");
        }
        name.into()
    }

    /// Makes the file of the image; the file's size. What was in it is overwritten.
    pub(super) fn make(self, image: &Path, file: &Path) -> Result<u64, Error> {
        let failed = |error: std::io::Error| {
            let (image, file) = (image.display(), file.display());
            Error::new(format_args!("cannot make {file} of {image}: {error}"))
        };
        let make = || {
            let mut source = File::open(image)?;
            let mut made = File::create(file)?;
            if self.encrypted.is_empty() {
                copy(self.packed, &mut source, &mut made)?;
            } else {
                let mut encryptor = Encryptor::new(self.encrypted, &mut made)?;
                copy(self.packed, &mut source, &mut encryptor)?;
                encryptor.finish()?;
            }
            made.sync_all()?;
            Ok(made.metadata()?.len())
        };
        make().map_err(failed)
    }
}

/// Copies the image, packed or as it is.
fn copy(how: Option<How>, source: &mut File, to: &mut dyn Write) -> std::io::Result<()> {
    let Some(how) = how else {
        return std::io::copy(source, to).map(drop);
    };
    let mut bytes = vec![0; FRAME];
    loop {
        let filled = fill(source, &mut bytes)?;
        let bytes = bytes.get(..filled).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        let frame = match how {
            How::Zstd => zstd(bytes).map_err(std::io::Error::other)?,
            How::Gzip => gzip(bytes)?,
        };
        to.write_all(&frame)?;
    }
}

fn fill(source: &mut File, bytes: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        match source.read(room) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn zstd(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(LEVEL),
        CParameter::ChecksumFlag(true),
    ] {
        context.set_parameter(parameter).map_err(get_error_name)?;
    }
    let mut frame = vec![0; compress_bound(bytes.len())];
    let length = context
        .compress2(&mut frame[..], bytes)
        .map_err(get_error_name)?;
    frame.truncate(length);
    Ok(frame)
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

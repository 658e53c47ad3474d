//! Packs an image into a file that devices unpack while it comes.

use crate::error::Error;
use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
};
use twinflash::update::Compression;
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

    /// The image's name with what tells its kind.
    pub(super) fn beside(self, file: &Path) -> PathBuf {
        let mut name = file.to_owned().into_os_string();
        name.push(match self {
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        });
        name.into()
    }

    /// Packs the image into the file; the file's size. What was in it is overwritten.
    pub(super) fn pack(self, image: &Path, file: &Path) -> Result<u64, Error> {
        let failed = |file: &Path, error: std::io::Error| {
            Error::new(format_args!("cannot pack {}: {error}", file.display()))
        };
        let mut source = File::open(image).map_err(|error| failed(image, error))?;
        let mut packed = File::create(file).map_err(|error| failed(file, error))?;
        let mut size = 0;
        let mut bytes = vec![0; FRAME];
        loop {
            let filled = fill(&mut source, &mut bytes).map_err(|error| failed(image, error))?;
            let bytes = bytes.get(..filled).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            let frame = match self {
                Self::Zstd => zstd(bytes).map_err(std::io::Error::other),
                Self::Gzip => gzip(bytes),
            };
            let frame = frame.map_err(|error| failed(image, error))?;
            size += frame.len() as u64;
            packed
                .write_all(&frame)
                .map_err(|error| failed(file, error))?;
        }
        packed.sync_all().map_err(|error| failed(file, error))?;
        Ok(size)
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

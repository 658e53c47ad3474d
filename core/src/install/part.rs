//! A new image while it is written, and the small steps around it that several installers share.

use super::space;
use crate::disk;
use crate::update::{Code, Failure};
use rustix::fs::{Mode, OFlags};
use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Write-back to disk is started each time so many bytes have come, so that a sync finds little
/// left to wait for: 256 MiB with a sync every 16 MiB took 120 ms so, and 180 ms without.
const WRITE_BACK: u64 = 1 << 20;

/// A new image while it is written.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    path: PathBuf,
    /// Bytes in it.
    length: u64,
    /// Bytes whose write-back was started.
    written_back: u64,
}

impl Part {
    /// `length` bytes of it are in the file already, and durable.
    pub(super) fn new(file: File, path: PathBuf, length: u64) -> Self {
        Self {
            file,
            path,
            length,
            written_back: length,
        }
    }

    /// See [`Installer::write`](super::Installer::write).
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        disk::write(&self.file, &self.path, offset, bytes).map_err(storage("write", &self.path))?;
        self.length = offset.saturating_add(bytes.len() as u64);
        if self.length.saturating_sub(self.written_back) >= WRITE_BACK {
            space::start_write_back(&self.file, self.written_back, self.length);
            self.written_back = self.length;
        }
        Ok(())
    }

    /// See [`Installer::sync`](super::Installer::sync).
    pub(super) fn sync(&self) -> Result<u64, Failure> {
        disk::sync_data(&self.file, &self.path).map_err(storage("write", &self.path))?;
        Ok(self.length)
    }
}

/// Opens a file that only its owner may read, made if it is not there; never through a link.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let step = disk::Step::Create { path, empty: false };
    disk::step(step, || open(path, OFlags::WRONLY | OFlags::CREATE))
}

pub(super) fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

/// What is known of a file, if there is one; a link is not followed.
pub(super) fn metadata(path: &Path) -> Result<Option<Metadata>, Failure> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(storage("look at", path)(error)),
    }
}

pub(super) fn same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

pub(super) fn not_begun() -> Failure {
    Failure::new(
        Code::Storage,
        "no image is being written: begin comes first",
    )
}

pub(super) fn storage<'a>(doing: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Failure + 'a {
    cannot(Code::Storage, doing, path)
}

pub(super) fn cannot<'a>(
    code: Code,
    doing: &'a str,
    path: &'a Path,
) -> impl Fn(io::Error) -> Failure + 'a {
    move |error| disk::failure(&error, code, doing, path)
}

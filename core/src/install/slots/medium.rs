//! The place a slot is: opened to be written, measured, and read back.

use super::options::Slot;
use super::{same_place, shown};
use crate::install::{
    part::{create, storage},
    past_cache,
};
use crate::update::{Code, Failure};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use std::{
    fs::{self, File},
    io::{self, Seek, SeekFrom},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Where a slot is.
#[derive(Debug)]
pub(super) struct Place {
    /// Without symbolic links.
    pub(super) path: PathBuf,
    /// Bytes that are there.
    pub(super) length: u64,
    /// Bytes it can hold; `None` where the file system says.
    capacity: Option<u64>,
    shown: String,
}

impl Place {
    pub(super) fn is_device(&self) -> bool {
        self.capacity.is_some()
    }

    /// Fails where an image of so many bytes is too large.
    pub(super) fn holds(&self, bytes: u64) -> Result<(), Failure> {
        match self.capacity {
            Some(capacity) if bytes > capacity => Err(Failure::new(
                Code::NoSpace,
                format_args!(
                    "slot {} holds {capacity} bytes; the image has {bytes} or more",
                    self.shown
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// Opens a slot to be written. This is the only place where one is, and so where it is made sure that
/// it is not the one that runs, nor in use.
pub(super) fn open(target: &Slot, runs: &Slot) -> Result<(File, Place), Failure> {
    let failed = storage("write the slot", &target.path);
    if same_place(&target.path, &runs.path) {
        let why = format!("it is the running slot {} too", shown(runs));
        return Err(failed(io::Error::other(why)));
    }
    let path = match fs::canonicalize(&target.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::path::absolute(&target.path).map_err(&failed)?
        }
        other => other.map_err(&failed)?,
    };
    let found = fs::metadata(&path).map(|found| found.file_type());
    let (mut file, device) = match found {
        Ok(found) if found.is_block_device() => (exclusive(&path).map_err(&failed)?, true),
        Ok(found) if !found.is_file() => {
            let why = "it is neither a block device nor a file";
            return Err(failed(io::Error::other(why)));
        }
        _ => (create(&path).map_err(&failed)?, false),
    };
    let length = File::seek(&mut file, SeekFrom::End(0)).map_err(&failed)?;
    let place = Place {
        path,
        length,
        capacity: device.then_some(length),
        shown: shown(target),
    };
    Ok((file, place))
}

/// Opens a block device that nobody uses: the kernel refuses one that is mounted or part of another
/// device.
fn exclusive(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut tries = 20;
    loop {
        tries -= 1;
        match rustix::fs::open(path, flags, Mode::empty()) {
            // A program being started by another thread holds what was closed here a moment ago.
            Err(Errno::BUSY) if tries > 0 => thread::sleep(Duration::from_millis(20)),
            other => return Ok(other?.into()),
        }
    }
}

/// Reads an image back from its medium and compares its SHA-256.
pub(super) fn read_back(slot: &Slot, size: u64, sha256: &[u8; 32]) -> Result<(), Failure> {
    let open =
        |flags| Ok(rustix::fs::open(&slot.path, flags | OFlags::CLOEXEC, Mode::empty())?.into());
    let found = past_cache::open(open)
        .and_then(|file| past_cache::sha256(&file, size))
        .map_err(storage("read back the slot", &slot.path))?;
    if found == *sha256 {
        return Ok(());
    }
    Err(Failure::new(
        Code::Storage,
        format_args!(
            "slot {} does not hold what was written to it: its medium may be worn out",
            shown(slot)
        ),
    ))
}

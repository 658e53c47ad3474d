//! Room for a file, and its way to the disk.

use crate::disk;
use crate::update::{Code, Failure};
use rustix::{
    fs::{Advice, FallocateFlags},
    io::Errno,
};
use std::{fs::File, num::NonZeroU64, path::Path};

/// Reserves room for bytes `from` to `size`; where the file system cannot, checks that it is there.
/// The file's length stays what it is.
pub(super) fn reserve(file: &File, path: &Path, from: u64, size: u64) -> Result<(), Failure> {
    let needed = size.saturating_sub(from);
    if needed == 0 {
        return Ok(());
    }
    let failed = |error: Errno| disk::failure(&error.into(), Code::Storage, "make room for", path);
    let reserve = || rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, from, needed);
    let reserved = disk::step(disk::Step::Reserve { path }, || {
        Ok(rustix::io::retry_on_intr(reserve)?)
    })
    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
    match reserved {
        Ok(()) => return Ok(()),
        Err(Errno::NOSPC | Errno::FBIG | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(error) => return Err(failed(error)),
    }
    let system = rustix::fs::fstatvfs(file).map_err(failed)?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let directory = path.parent().unwrap_or(path).display();
    if reserved == Err(Errno::NOSPC) || free < needed {
        let message = format_args!(
            "not enough space in {directory}: the image needs {needed} bytes more, {free} are free"
        );
        return Err(Failure::new(Code::NoSpace, message));
    }
    if reserved == Err(Errno::FBIG) {
        let message =
            format_args!("the file system of {directory} cannot hold a file of {size} bytes");
        return Err(Failure::new(Code::NoSpace, message));
    }
    Ok(())
}

/// Starts writing bytes `from` to `to` back to disk, and does not wait for it.
pub(super) fn start_write_back(file: &File, from: u64, to: u64) {
    // Linux begins the write-back of what is dirty, and drops what is clean, which nobody reads soon.
    // It is advice: nothing is lost where it is not taken.
    let length = NonZeroU64::new(to.saturating_sub(from));
    let _ = rustix::fs::fadvise(file, from, length, Advice::DontNeed);
}

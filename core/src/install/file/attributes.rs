//! Owner, mode and extended attributes, from one file to another.

use crate::disk;
use rustix::{
    fs::{Gid, Mode, Uid, XattrFlags},
    io::Errno,
};
use std::{
    fs::{File, Metadata, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

/// The largest value, and the largest list of names, that Linux has, in bytes (`XATTR_SIZE_MAX`).
const LARGEST: usize = 64 * 1024;

/// These speak of a file's content (Linux' integrity measurement), and hold for no other.
const OF_CONTENT: [&[u8]; 2] = [b"security.ima", b"security.evm"];

/// Gives `file` the mode of a file that had none before it.
pub(super) fn set_default(file: &File) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o644))
}

/// Gives `file` the owner and group of another file.
pub(super) fn take_owner(file: &File, from: &Metadata) -> io::Result<()> {
    let now = file.metadata()?;
    let user = (now.uid() != from.uid()).then(|| Uid::from_raw(from.uid()));
    let group = (now.gid() != from.gid()).then(|| Gid::from_raw(from.gid()));
    if user.is_some() || group.is_some() {
        rustix::fs::fchown(file, user, group)?;
    }
    Ok(())
}

/// Gives `file` owner, extended attributes and mode of the file at `path`.
///
/// In this order: a change of owner takes set-user-ID bits and capabilities away, and a mode
/// without write permission keeps attributes from being set.
pub(super) fn take_over(file: &File, path: &Path, from: &Metadata) -> io::Result<()> {
    disk::step("take over", path)?;
    take_owner(file, from)?;
    take_extended(file, path)?;
    disk::step("set mode", path)?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(from.mode() & 0o7777))?;
    Ok(())
}

fn take_extended(file: &File, path: &Path) -> io::Result<()> {
    let mut list = vec![0; LARGEST];
    let length = match rustix::fs::llistxattr(path, &mut list[..]) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
        other => other?,
    };
    list.truncate(length);
    let (mut value, mut now) = (vec![0; LARGEST], vec![0; LARGEST]);
    for name in list.split(|byte| *byte == 0) {
        if name.is_empty() || OF_CONTENT.contains(&name) {
            continue;
        }
        let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        let value = value.get(..length).unwrap_or_default();
        // A label the system gave by itself need not be set, which not everybody may.
        let same = rustix::fs::fgetxattr(file, name, &mut now[..])
            .is_ok_and(|length| now.get(..length) == Some(value));
        if !same {
            rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()).map_err(|error| {
                let (error, name) = (io::Error::from(error), String::from_utf8_lossy(name));
                io::Error::new(error.kind(), format!("attribute {name}: {error}"))
            })?;
        }
    }
    Ok(())
}

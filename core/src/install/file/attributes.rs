//! Owner, mode and extended attributes, from one file to another.

use crate::disk::{self, Step};
use rustix::{
    fs::{Gid, Uid, XattrFlags},
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
pub(super) fn set_default(file: &File, path: &Path) -> io::Result<()> {
    set_mode(file, path, 0o644)
}

fn set_mode(file: &File, path: &Path, mode: u32) -> io::Result<()> {
    disk::step(Step::SetMode { path, mode }, || {
        file.set_permissions(Permissions::from_mode(mode))
    })
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

/// Gives the file at `path` owner, extended attributes and mode of the file at `from`.
///
/// In this order: a change of owner takes set-user-ID bits and capabilities away, and a mode
/// without write permission keeps attributes from being set.
pub(super) fn take_over(file: &File, path: &Path, from: &Path, known: &Metadata) -> io::Result<()> {
    disk::step(Step::TakeOver { path }, || {
        take_owner(file, known)?;
        take_extended(file, from)
    })?;
    set_mode(file, path, known.mode() & 0o7777)
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

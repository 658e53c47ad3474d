//! Files that hold a secret: keys, connection strings, headers.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// The longest, in bytes.
const LONGEST: u64 = 1024 * 1024;

/// What such a file holds, and whether everybody on the device may read or write it. What its group may do is its
/// owner's affair: a credential that a service gets has mode 0440, say.
pub(super) fn read(file: &Path) -> io::Result<(String, bool)> {
    let file = File::open(file)?;
    let open_to_all = file.metadata()?.mode() & 0o007 != 0;
    let mut text = String::new();
    if file.take(LONGEST + 1).read_to_string(&mut text)? as u64 > LONGEST {
        let why = format!("it has more than {LONGEST} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok((text, open_to_all))
}

/// The same, of what the device proves itself by. Everybody's file is not refused but warned of, in the log: a device that
/// reaches neither hub nor server could not be mended from afar, and not every file system (FAT) has modes.
pub(super) fn read_proof(file: &Path, key: &str) -> io::Result<String> {
    let (text, open_to_all) = read(file)?;
    if open_to_all {
        log::warn!("{key}: {}", exposed(file));
    }
    Ok(text)
}

pub(super) fn exposed(file: &Path) -> String {
    let shown = file.display();
    format!("everybody on this device may read or write {shown}: chmod 600 it")
}

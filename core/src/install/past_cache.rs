//! Reads what is on a medium, and not what is remembered of it.

use rustix::fs::{Advice, OFlags};
use sha2::{Digest, Sha256};
use std::{fs::File, io, os::unix::fs::FileExt};

/// So much is read at a time, in bytes; a multiple of every medium's block.
const CHUNK: usize = 1 << 20;
/// Direct reads go to memory at a multiple of this.
const ALIGN: usize = 4096;

/// Opens a file, by `open` and the flags it is given, so that it is read from its medium.
pub(super) fn open(open: impl Fn(OFlags) -> io::Result<File>) -> io::Result<File> {
    // Some file systems know no direct reads: there, what is cached is dropped first.
    let file = open(OFlags::RDONLY | OFlags::DIRECT).or_else(|_| open(OFlags::RDONLY))?;
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    Ok(file)
}

/// The SHA-256 of the first `size` bytes of such a file.
pub(super) fn sha256(file: &File, size: u64) -> io::Result<[u8; 32]> {
    let mut memory = vec![0; CHUNK + ALIGN];
    let from = memory.as_ptr().align_offset(ALIGN);
    let buffer = memory.get_mut(from..).and_then(|m| m.get_mut(..CHUNK));
    let buffer = buffer.ok_or(io::ErrorKind::OutOfMemory)?;
    let mut hash = Sha256::new();
    let mut offset = 0;
    while offset < size {
        let length = match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let left = usize::try_from(size - offset).unwrap_or(usize::MAX);
        let bytes = buffer.get(..length.min(left)).unwrap_or_default();
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(bytes);
        offset += bytes.len() as u64;
    }
    Ok(hash.finalize().into())
}

//! The journal: its two copies as they may be found on a disk.

use crate::device::Choices;
use sha2::{Digest, Sha256};
use std::{fs, path::Path};
use tempfile::TempDir;
use twinflash::journal::{Journal, Loaded};

/// Stands between the two copies.
const SEPARATOR: &[u8] = b"\n=====\n";

/// A directory in memory, where the system has one: nothing here is about power cuts.
pub(crate) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    }
    .expect("a directory for a test")
}

/// Two copies. The newer sound one counts; with none, the loss is told; and what is saved then is
/// there at the next start.
pub(crate) fn journal(data: &[u8]) {
    let (mut choices, rest) = Choices::split(data);
    let directory = directory();
    let at = rest
        .windows(SEPARATOR.len())
        .position(|window| window == SEPARATOR);
    let (a, b) = match at {
        Some(at) => (&rest[..at], Some(&rest[at + SEPARATOR.len()..])),
        None => (rest, None),
    };
    let mut sound = Vec::new();
    for (name, copy) in [("journal.a", Some(a)), ("journal.b", b)] {
        let Some(copy) = copy else { continue };
        // No mutation finds a checksum.
        let whole = choices.below(2) == 0;
        let bytes = if whole {
            with_checksum(copy)
        } else {
            copy.to_vec()
        };
        fs::write(directory.path().join(name), &bytes).expect("written");
        if let Some(copy) = sequence_and_payload(&bytes) {
            sound.push(copy);
        }
    }
    let (mut journal, loaded) = Journal::open(directory.path()).expect("it opens");
    match loaded {
        Loaded::Empty => unreachable!("there are files"),
        Loaded::Lost { files } => {
            assert!(sound.is_empty() && !files.is_empty(), "{sound:?}");
        }
        Loaded::Record(payload) => {
            // The last number is followed by the first.
            let newest = sound.iter().map(|(sequence, _)| *sequence);
            let newest = newest.reduce(|a, b| {
                if b.wrapping_sub(a).cast_signed() > 0 {
                    b
                } else {
                    a
                }
            });
            let counts =
                |(sequence, its): &(u64, Vec<u8>)| Some(*sequence) == newest && *its == payload;
            assert!(sound.iter().any(counts), "{} bytes", payload.len());
        }
    }
    for payload in [&b"saved"[..], data] {
        journal.save(payload).expect("it is saved");
        drop(journal);
        let (again, loaded) = Journal::open(directory.path()).expect("it opens again");
        assert_eq!(loaded, Loaded::Record(payload.to_vec()));
        journal = again;
    }
}

/// The layout, as `journal/copy.rs` has it.
const MAGIC: &[u8] = b"TWFLASHJ";

/// The copy, with the right magic, length and checksum of what it holds.
fn with_checksum(copy: &[u8]) -> Vec<u8> {
    let mut bytes = copy.to_vec();
    if bytes.len() < 64 {
        bytes.resize(64, 0);
    }
    let length = (bytes.len() - 64) as u32;
    bytes[..8].copy_from_slice(MAGIC);
    bytes[12..16].copy_from_slice(&length.to_le_bytes());
    let sum = Sha256::new()
        .chain_update(&bytes[..32])
        .chain_update(&bytes[64..])
        .finalize();
    bytes[32..64].copy_from_slice(&sum);
    bytes
}

fn sequence_and_payload(bytes: &[u8]) -> Option<(u64, Vec<u8>)> {
    let head = bytes.get(..32)?;
    let length = u32::from_le_bytes(head[12..16].try_into().ok()?) as usize;
    let payload = bytes.get(64..64_usize.checked_add(length)?)?;
    let sum = Sha256::new()
        .chain_update(head)
        .chain_update(payload)
        .finalize();
    let sound = head.starts_with(MAGIC) && bytes[32..64] == *sum && length <= 1 << 20;
    let sequence = u64::from_le_bytes(head[16..24].try_into().ok()?);
    sound.then(|| (sequence, payload.to_vec()))
}

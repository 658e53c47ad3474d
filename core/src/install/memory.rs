//! What an installer remembers from one start to the next: one small JSON file.

use super::part::storage;
use crate::{disk, json, update::Failure};
use serde::{Serialize, de::DeserializeOwned};
use std::{io, path::Path};

/// Reads what was [saved](save); `None` where nothing was.
pub(super) fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    let failed = storage("read", path);
    match disk::read(path) {
        Ok(bytes) => match json::read(&bytes) {
            Ok(memory) => Ok(Some(memory)),
            Err(error) => Err(failed(io::Error::other(error))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Saves what is to be remembered: when this returns, it survives a power cut.
pub(super) fn save<T: Serialize>(path: &Path, memory: &T) -> Result<(), Failure> {
    let failed = storage("write", path);
    let bytes = serde_json::to_vec(memory).map_err(io::Error::other);
    bytes
        .and_then(|bytes| disk::replace(path, &bytes))
        .map_err(failed)
}

/// Removes what was saved, durably.
pub(super) fn forget(path: &Path) -> Result<(), Failure> {
    disk::remove(path)
        .and_then(|_| disk::sync_dir(path.parent().unwrap_or(path)))
        .map_err(storage("remove", path))
}

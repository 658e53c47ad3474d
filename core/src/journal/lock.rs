//! Only one process at a time uses a state directory.

use super::files::cannot;
use crate::disk;
use crate::update::{Code, Failure};
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::Read,
    path::Path,
};

/// A held lock; dropping it gives the directory back.
pub(super) struct Lock(File);

impl Drop for Lock {
    /// Closing alone is not enough: a program that another thread is just starting has the file open,
    /// too, between its fork and its exec, and the lock is the open file's.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Locks the state directory; the lock is held until it is dropped or the process ends, however it
/// does.
///
/// The lock is the kernel's, on an open file (`flock`), never the file's mere presence: nothing is
/// left over after a crash. The file only tells people who holds it.
pub(super) fn take(directory: &Path) -> Result<Lock, Failure> {
    let path = directory.join("lock");
    let failed = |error| cannot("lock", &path)(error);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    super::files::private(&mut options);
    let file = disk::create(&path, &options, false).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who it is is said as well as can be; that it is locked is certain.
            let _ = (&file).take(256).read_to_string(&mut holder);
            return Err(locked(directory, holder.trim()));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let holder = format!("process {} ({})\n", std::process::id(), program());
    // A full disk must not keep a device from starting.
    let _ = disk::set_length(&file, &path, 0)
        .and_then(|()| disk::write(&file, &path, 0, holder.as_bytes()));
    Ok(Lock(file))
}

fn locked(directory: &Path, holder: &str) -> Failure {
    let shown = directory.display();
    let ours = format!("process {} ", std::process::id());
    let message = if holder.starts_with(&ours) {
        format!("this process has opened the state directory {shown} already; close that one first")
    } else {
        let holder = if holder.is_empty() {
            "another process"
        } else {
            holder
        };
        format!(
            "the state directory {shown} is in use by {holder}; stop it, or use another directory"
        )
    };
    Failure::new(Code::Locked, message)
}

/// The name of this program's file.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.chars().take(64).collect()
}

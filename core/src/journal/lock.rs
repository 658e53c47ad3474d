//! Only one process at a time uses a state directory.

use super::files::cannot;
use crate::disk;
use crate::update::{Code, Failure};
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// So long a held lock is waited for: a program that a killed process was just starting has the lock
/// until its exec.
const PATIENCE: Duration = Duration::from_millis(300);

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
    let deadline = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // Who it is is said as well as can be; that it is locked is certain.
        let holder = holder(&file);
        if holder.starts_with(&ours()) || Instant::now() >= deadline {
            return Err(locked(directory, holder.trim()));
        }
        thread::sleep(Duration::from_millis(10));
    }
    let holder = format!("process {} ({})\n", std::process::id(), program());
    // A full disk must not keep a device from starting.
    let _ = disk::set_length(&file, &path, 0)
        .and_then(|()| disk::write(&file, &path, 0, holder.as_bytes()));
    Ok(Lock(file))
}

fn ours() -> String {
    format!("process {} ", std::process::id())
}

/// What the file says of who holds it.
fn holder(file: &File) -> String {
    let (mut file, mut holder) = (file, String::new());
    let _ = file.rewind();
    let _ = file.take(256).read_to_string(&mut holder);
    holder
}

fn locked(directory: &Path, holder: &str) -> Failure {
    let shown = directory.display();
    let message = if holder.starts_with(&ours()) {
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

//! The few steps by which journal and installers change a file system, and how their errors are told.
//!
//! Every step that changes a file or a directory, or makes it durable, goes through [`step`], and so
//! does every read that a later decision rests on. So a test can cut the power before any of them,
//! let any of them fail, and know what the disk would hold after a power cut: see [`cut`] and
//! [`observe`]. In what is shipped, `step` does nothing but the step.

#[cfg(test)]
pub(crate) mod cut;
#[cfg(test)]
pub(crate) mod observe;

use crate::update::{Code, Failure};
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    path::Path,
};

/// A step, before it is done.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "only a test looks at it, and not at all of it")]
pub(crate) enum Step<'a> {
    /// A file is opened to be written, made if it is not there, and emptied if so said.
    Create { path: &'a Path, empty: bool },
    /// Bytes are written at an offset.
    Write {
        path: &'a Path,
        offset: u64,
        bytes: &'a [u8],
    },
    /// A file gets a length.
    SetLength { path: &'a Path, length: u64 },
    /// A file gets a mode.
    SetMode { path: &'a Path, mode: u32 },
    /// A file gets owner and attributes of another one.
    TakeOver { path: &'a Path },
    /// Room is reserved for a file.
    Reserve { path: &'a Path },
    /// A file's content, length and mode are made durable.
    Sync { path: &'a Path },
    /// A directory's entries are made durable.
    SyncDirectory { path: &'a Path },
    /// A file gets another name.
    Rename { from: &'a Path, to: &'a Path },
    /// A file gets a second name.
    Link { path: &'a Path, name: &'a Path },
    /// A symbolic link is made.
    Symlink { to: &'a Path, path: &'a Path },
    /// A name is removed.
    Remove { path: &'a Path },
    /// A file is read.
    Read { path: &'a Path },
    /// A program is run.
    Run { program: &'a Path },
}

/// Does a step.
#[cfg(not(test))]
pub(crate) fn step<T>(_: Step<'_>, perform: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    perform()
}

/// Does a step, unless a test cuts it short.
#[cfg(test)]
pub(crate) fn step<T>(step: Step<'_>, perform: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    cut::before(step)?;
    observe::around(step, perform)
}

/// The failure an I/O error stands for. `doing` completes "cannot …"; `otherwise` is the code where
/// the error is neither a lack of space nor of permission.
pub(crate) fn failure(
    error: &io::Error,
    otherwise: Code,
    doing: impl fmt::Display,
    path: &Path,
) -> Failure {
    use io::ErrorKind as Kind;
    let (code, advice) = match error.kind() {
        Kind::StorageFull => (Code::NoSpace, "; free some space"),
        Kind::QuotaExceeded => (Code::NoSpace, "; free some space or raise the quota"),
        Kind::PermissionDenied => (
            Code::NoPermission,
            "; check owner and mode of the file and its directory",
        ),
        Kind::ReadOnlyFilesystem => (Code::NoPermission, ""),
        _ => (otherwise, ""),
    };
    Failure::new(
        code,
        format_args!("cannot {doing} {}: {error}{advice}", path.display()),
    )
}

/// Makes the entries of a directory durable: files created, linked, renamed or removed in it.
pub(crate) fn sync_dir(directory: &Path) -> io::Result<()> {
    step(Step::SyncDirectory { path: directory }, || {
        // Elsewhere a directory cannot be opened as a file, and needs no sync.
        #[cfg(unix)]
        File::open(directory)?.sync_all()?;
        Ok(())
    })
}

/// Makes a file durable: its content, and all else that is known of it.
pub(crate) fn sync_file(file: &File, path: &Path) -> io::Result<()> {
    step(Step::Sync { path }, || file.sync_all())
}

/// Makes a file's content durable.
pub(crate) fn sync_data(file: &File, path: &Path) -> io::Result<()> {
    step(Step::Sync { path }, || file.sync_data())
}

/// Opens a file to be written, as `options` say.
pub(crate) fn create(path: &Path, options: &OpenOptions, empty: bool) -> io::Result<File> {
    step(Step::Create { path, empty }, || options.open(path))
}

/// Writes bytes at an offset.
pub(crate) fn write(file: &File, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let write = || {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::write_all_at(file, bytes, offset);
        #[cfg(not(unix))]
        {
            use io::{Seek, Write};
            let mut file = file;
            file.seek(io::SeekFrom::Start(offset))?;
            file.write_all(bytes)
        }
    };
    step(
        Step::Write {
            path,
            offset,
            bytes,
        },
        write,
    )
}

/// Gives a file a length.
pub(crate) fn set_length(file: &File, path: &Path, length: u64) -> io::Result<()> {
    step(Step::SetLength { path, length }, || file.set_len(length))
}

/// Gives a file a new content, in one step that no power cut can halve: it is written beside it, as
/// `<name>.new` with mode 0600, and renamed. Durable when this returns.
#[cfg(unix)]
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = create(beside, &options, true)?;
    write(&file, beside, 0, content)?;
    sync_file(&file, beside)?;
    rename(beside, path)?;
    sync_dir(path.parent().unwrap_or(path))
}

/// Renames a file, replacing what has the new name.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step(Step::Rename { from, to }, || fs::rename(from, to))
}

/// Gives a file a second name.
pub(crate) fn hard_link(path: &Path, name: &Path) -> io::Result<()> {
    step(Step::Link { path, name }, || fs::hard_link(path, name))
}

/// Makes a symbolic link.
#[cfg(unix)]
pub(crate) fn symlink(to: &Path, path: &Path) -> io::Result<()> {
    step(Step::Symlink { to, path }, || {
        std::os::unix::fs::symlink(to, path)
    })
}

/// Removes a file; says whether it was there.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    step(Step::Remove { path }, || match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    })
}

/// The content of a small file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    step(Step::Read { path }, || fs::read(path))
}

/// The text of a small file.
#[cfg(unix)]
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    step(Step::Read { path }, || fs::read_to_string(path))
}

//! The few steps by which journal and installers change a file system, and how their errors are told.
//!
//! Every step that changes a directory goes through here, so that a test can cut the power before
//! any one of them: see [`cut`].

use crate::update::{Code, Failure};
use std::{fmt, fs, io, path::Path};

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
    step("sync", directory)?;
    // Elsewhere a directory cannot be opened as a file, and needs no sync.
    #[cfg(unix)]
    fs::File::open(directory)?.sync_all()?;
    Ok(())
}

/// Gives a file a new content, in one step that no power cut can halve: it is written beside it, as
/// `<name>.new` with mode 0600, and renamed. Durable when this returns.
#[cfg(unix)]
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt};
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    step("create", beside)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(beside)?;
    step("write", beside)?;
    file.write_all(content)?;
    step("sync", beside)?;
    file.sync_all()?;
    rename(beside, path)?;
    sync_dir(path.parent().unwrap_or(path))
}

/// Renames a file, replacing what has the new name.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step("rename", to)?;
    fs::rename(from, to)
}

/// Gives a file a second name.
pub(crate) fn hard_link(file: &Path, name: &Path) -> io::Result<()> {
    step("link", name)?;
    fs::hard_link(file, name)
}

/// Removes a file; says whether it was there.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    step("remove", path)?;
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(test))]
pub(crate) fn step(_name: &str, _path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use cut::step;

/// Lets a test stop a thread's work before any step, as a power cut would, and see the steps done.
#[cfg(test)]
pub(crate) mod cut {
    use std::{cell::RefCell, io, path::Path};

    #[derive(Default)]
    struct State {
        /// Steps that may still be done; `None` is any number.
        left: Option<usize>,
        /// Hard links are refused, as on vfat.
        no_links: bool,
        done: Vec<String>,
    }

    thread_local!(static STATE: RefCell<State> = RefCell::default());

    /// Nothing is done after `left` steps more; `None` ends the power cut.
    pub(crate) fn after(left: Option<usize>) {
        STATE.with_borrow_mut(|state| state.left = left);
    }

    /// Whether a power cut stopped something.
    pub(crate) fn happened() -> bool {
        STATE.with_borrow(|state| state.left == Some(0))
    }

    /// Makes this thread's file systems one without hard links.
    pub(crate) fn no_links(no_links: bool) {
        STATE.with_borrow_mut(|state| state.no_links = no_links);
    }

    /// The steps done since the last call, as "rename app.bin".
    pub(crate) fn done() -> Vec<String> {
        STATE.with_borrow_mut(|state| std::mem::take(&mut state.done))
    }

    pub(crate) fn step(name: &str, path: &Path) -> io::Result<()> {
        STATE.with_borrow_mut(|state| {
            match &mut state.left {
                Some(0) => return Err(io::Error::other("the power is cut")),
                Some(left) => *left -= 1,
                None => {}
            }
            if name == "link" && state.no_links {
                return Err(io::ErrorKind::Unsupported.into());
            }
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            state.done.push(format!("{name} {file}"));
            Ok(())
        })
    }
}

//! Lets a test stop a thread's work before any step, as a power cut would, and see the steps done.

use super::Step;
use std::{cell::RefCell, io};

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

pub(super) fn before(step: Step<'_>) -> io::Result<()> {
    let (name, path) = match step {
        Step::Read { .. } | Step::Write { .. } => return Ok(()),
        Step::Create { path, .. } => ("create", path),
        Step::SetLength { path, .. } => ("truncate", path),
        Step::SetMode { path, .. } => ("set mode", path),
        Step::TakeOver { path } => ("take over", path),
        Step::Reserve { path } => ("reserve", path),
        Step::Sync { path } | Step::SyncDirectory { path } => ("sync", path),
        Step::Rename { to, .. } => ("rename", to),
        Step::Link { name, .. } => ("link", name),
        Step::Symlink { path, .. } => ("symlink", path),
        Step::Remove { path } => ("remove", path),
        Step::Run { program } => ("run", program),
    };
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

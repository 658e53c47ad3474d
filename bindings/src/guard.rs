//! The guard: a program's first line.

use crate::status::twinflash_status as Status;
use crate::{
    boundary::{enter, give, text},
    status::{twinflash_error, twinflash_status},
};
use engine::device::{Guarded, guard};
use std::ffi::c_char;

/// What the guard did.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum twinflash_guarded {
    /// No new version has to prove itself.
    Nothing = 0,
    /// This start of the new version was counted.
    Counted = 1,
    /// The new version had used up its starts, and the old one is back: end the process, so that the
    /// supervisor starts that one.
    RolledBack = 2,
}

/// Counts a start of a new version that has to prove itself, and brings the old one back when it has
/// used up its starts. To be called as a program's first line, before anything of it can fail: an
/// updater in the program it updates cannot roll back when that program does not come to start it.
/// `*guarded` says what was done, `*starts` how many starts were counted, this one among them, of
/// `*allowed` (0 where none was); each may be NULL. For the installers of the library; the application's
/// own cannot be made here.
///
/// # Safety
/// A zero ends `state_dir`; `guarded`, `starts`, `allowed` and `error` are null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_guard(
    state_dir: *const c_char,
    guarded: *mut twinflash_guarded,
    starts: *mut u32,
    allowed: *mut u32,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let done = guard(text(state_dir, "state_dir")?)?;
            let (counted, of) = match done {
                Guarded::Counted { starts, allowed } => (starts, allowed),
                _ => (0, 0),
            };
            give(starts, counted);
            give(allowed, of);
            give(
                guarded,
                match done {
                    Guarded::Counted { .. } => twinflash_guarded::Counted,
                    Guarded::RolledBack => twinflash_guarded::RolledBack,
                    _ => twinflash_guarded::Nothing,
                },
            );
            Ok(Status::Ok)
        })
    }
}

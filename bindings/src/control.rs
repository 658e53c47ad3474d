//! What the device's user and the application decide of an update.

use crate::status::twinflash_status as Status;
use crate::{
    boundary::{enter, give, handle, not_in_callback, text},
    status::{Error, twinflash_error, twinflash_status},
    updater::{timeout, twinflash_updater},
};
use engine::device::InstallFile;
use serde_json::Number;
use std::{ffi::c_char, path::PathBuf, time::Duration};

/// The application says that the new version is good (needed for "policy.confirm" = "call"; taken under
/// any policy). Never waits.
///
/// # Safety
/// As twinflash_updater_connected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_confirm(
    updater: *const twinflash_updater,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            handle(updater, "updater")?.updater.confirm();
            Ok(Status::Ok)
        })
    }
}

/// Cancels the update that runs; `*cancelled` (may be NULL) is false where none does. It has ended when
/// this returns, and that is durable after twinflash_updater_flush. TWINFLASH_STATUS_BUSY: the image is
/// being applied, which can no longer be cancelled. Never waits.
///
/// # Safety
/// As twinflash_updater_state.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_cancel(
    updater: *const twinflash_updater,
    cancelled: *mut bool,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let updater = handle(updater, "updater")?;
            let was = updater.updater.cancel().map_err(|it| updater.failed(it))?;
            give(cancelled, was);
            Ok(Status::Ok)
        })
    }
}

/// The user agrees to what the update waits for (TWINFLASH_EVENT_KIND_WAITING, "consent"); `*approved` (may
/// be NULL) is false where nobody is asked. Durable after twinflash_updater_flush. Who does not agree calls
/// twinflash_updater_cancel. Never waits.
///
/// # Safety
/// As twinflash_updater_state.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_approve(
    updater: *const twinflash_updater,
    approved: *mut bool,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let updater = handle(updater, "updater")?;
            let was = updater.updater.approve().map_err(|it| updater.failed(it))?;
            give(approved, was);
            Ok(Status::Ok)
        })
    }
}

/// The user puts the update off: for `seconds` nobody is asked, no attempt at the download is begun (one
/// that runs goes on) and nothing applied. `*deferred` (may be NULL) is false where no update runs. It
/// outlives restarts; durable after twinflash_updater_flush. TWINFLASH_STATUS_BUSY: the image is being
/// applied. Never waits.
///
/// # Safety
/// As twinflash_updater_state.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_defer(
    updater: *const twinflash_updater,
    seconds: f64,
    deferred: *mut bool,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let time = Duration::try_from_secs_f64(seconds).map_err(|_| {
                let shown = match Number::from_f64(seconds) {
                    Some(number) => number.to_string(),
                    None if seconds.is_nan() => "NaN".into(),
                    None => "infinite".into(),
                };
                Error::new(
                    Status::InvalidArgument,
                    format_args!("seconds is {shown}; give how long, from 0 on"),
                )
            })?;
            let updater = handle(updater, "updater")?;
            let was = updater
                .updater
                .defer(time)
                .map_err(|it| updater.failed(it))?;
            give(deferred, was);
            Ok(Status::Ok)
        })
    }
}

/// Installs the image in the file `path`, such as one on a USB stick, under the same rules as any other
/// update, and reported like any other. Nobody is asked for consent. `version`, `check` (a check value) and
/// `manifest` (a file's path) may be NULL; where keys are trusted and `manifest` is NULL, it is `path` and
/// ".jws". The file must stay until the update is being applied. TWINFLASH_STATUS_BUSY: an update runs. It
/// has begun when this returns, durably after twinflash_updater_flush. The new version has to prove itself
/// like any other: with "policy.confirm" = "connected", the default, by reaching its hub.
///
/// # Safety
/// As twinflash_updater_state; the texts are NULL or end with a 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_install_file(
    updater: *const twinflash_updater,
    path: *const c_char,
    version: *const c_char,
    check: *const c_char,
    manifest: *const c_char,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let optional = |pointer: *const c_char, name| match pointer.is_null() {
                true => Ok(None),
                false => text(pointer, name).map(|text| Some(text.to_owned())),
            };
            let mut options = InstallFile::default();
            options.version = optional(version, "version")?;
            options.check = optional(check, "check")?;
            options.manifest = optional(manifest, "manifest")?.map(PathBuf::from);
            let path = text(path, "path")?;
            let updater = handle(updater, "updater")?;
            let begun = updater.updater.install_file(path.as_ref(), &options);
            begun.map_err(|it| updater.failed(it))?;
            Ok(Status::Ok)
        })
    }
}

/// Pauses the download of the update that runs, or keeps it from starting; what is there stays. Where
/// none runs, nothing happens: the next update is not paused. It stays paused over a restart, until
/// twinflash_updater_resume, a cancel or another request. Never waits; durable after
/// twinflash_updater_flush.
///
/// # Safety
/// As twinflash_updater_connected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_pause(
    updater: *const twinflash_updater,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            handle(updater, "updater")?.updater.pause();
            Ok(Status::Ok)
        })
    }
}

/// Goes on with a paused download; at once also with one that waits for its next attempt. Never waits.
///
/// # Safety
/// As twinflash_updater_connected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_resume(
    updater: *const twinflash_updater,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            handle(updater, "updater")?.updater.resume();
            Ok(Status::Ok)
        })
    }
}

/// Waits until everything that was decided so far is done and durable: after twinflash_updater_pause the
/// download has stopped, and its last bytes are safe. TWINFLASH_STATUS_STATE: it could not be saved (and
/// is tried again), or not within `timeout_ms` milliseconds (negative: waits for ever). In a callback:
/// TWINFLASH_STATUS_IN_CALLBACK.
///
/// # Safety
/// As twinflash_updater_connected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_flush(
    updater: *const twinflash_updater,
    timeout_ms: i64,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let updater = handle(updater, "updater")?;
            not_in_callback(&updater.identity, "twinflash_updater_flush")?;
            let flushed = updater.updater.flush(timeout(timeout_ms));
            flushed.map_err(|it| updater.failed(it))?;
            Ok(Status::Ok)
        })
    }
}

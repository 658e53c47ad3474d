//! What is to be sent to the hub.

use crate::boundary::{drop_text, raw_text};
use engine::device::Outbound;
use std::{ffi::c_char, ptr};

/// What the hub is to be asked or told.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum twinflash_outbound_kind {
    /// Send `patch` as reported properties, then call twinflash_updater_report_done with `id`.
    Report = 1,
    /// Read the whole twin, then call twinflash_updater_handle_twin with `complete`.
    ReadTwin = 2,
}

/// Something to be sent to the hub.
#[repr(C)]
pub struct twinflash_outbound {
    /// What is to be done.
    pub kind: twinflash_outbound_kind,
    /// The report's number.
    pub id: u64,
    /// The patch: JSON, ended by a zero. NULL where there is none.
    pub patch: *const c_char,
    /// Its length in bytes, without the zero.
    pub patch_length: usize,
}

// SAFETY: its text is its own.
unsafe impl Send for twinflash_outbound {}

impl From<&Outbound> for twinflash_outbound {
    fn from(outbound: &Outbound) -> Self {
        match outbound {
            Outbound::Report(report) => Self {
                kind: twinflash_outbound_kind::Report,
                id: report.id,
                // JSON has no zero byte.
                patch: raw_text(Some(&report.patch)),
                patch_length: report.patch.len(),
            },
            Outbound::ReadTwin => Self {
                kind: twinflash_outbound_kind::ReadTwin,
                id: 0,
                patch: ptr::null(),
                patch_length: 0,
            },
        }
    }
}

impl Drop for twinflash_outbound {
    fn drop(&mut self) {
        // SAFETY: made by `raw_text`, or null.
        unsafe { drop_text(self.patch.cast_mut()) };
    }
}

/// Frees what came from twinflash_updater_next_outbound. NULL is fine. Any thread.
///
/// # Safety
/// `outbound` is null or from twinflash_updater_next_outbound, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_outbound_free(outbound: *mut twinflash_outbound) {
    if !outbound.is_null() {
        // SAFETY: made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(outbound) });
    }
}

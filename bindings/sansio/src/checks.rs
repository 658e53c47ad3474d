//! Checks over an image's bytes, and their values.

use crate::bytes;
use alloc::alloc::{Layout, alloc};
use alloc::boxed::Box;
use core::ffi::c_int;
use twinflash::update::{Check, Checks, Code, Digests};

/// `twinflash_sansio_digests` of the header.
#[repr(C)]
pub struct CDigests {
    crc16: u16,
    crc32: u32,
    sha256: [u8; 32],
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn twinflash_sansio_checks_new() -> *mut Checks {
    // SAFETY: the layout is not of size zero; what is written is written to memory of that layout.
    unsafe {
        // Not `Box::new`: where there is no memory, that ends the program.
        let checks = alloc(Layout::new::<Checks>()).cast::<Checks>();
        if !checks.is_null() {
            checks.write(Checks::new());
        }
        checks
    }
}

/// See the header.
///
/// # Safety
/// `checks` is null or from [`twinflash_sansio_checks_new`] and not freed; `length` bytes can be read
/// at `data`, or it is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_checks_update(
    checks: *mut Checks,
    data: *const u8,
    length: usize,
) {
    // SAFETY: as the caller vouches; no other reference exists during the call.
    unsafe {
        if let Some(checks) = checks.as_mut() {
            checks.update(bytes(data, length));
        }
    }
}

/// See the header.
///
/// # Safety
/// `checks` is null or from [`twinflash_sansio_checks_new`] and not freed; `digests` is null or can
/// be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_checks_finish(
    checks: *const Checks,
    digests: *mut CDigests,
) {
    // SAFETY: as the caller vouches; `write` does not read what was there before.
    unsafe {
        if let Some(checks) = checks.as_ref()
            && !digests.is_null()
        {
            let Digests {
                crc16,
                crc32,
                sha256,
            } = checks.finish();
            digests.write(CDigests {
                crc16,
                crc32,
                sha256,
            });
        }
    }
}

/// See the header.
///
/// # Safety
/// `checks` is null or from [`twinflash_sansio_checks_new`], and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_checks_free(checks: *mut Checks) {
    if !checks.is_null() {
        // SAFETY: allocated with the global allocator and the layout of `Checks`, as a box is.
        drop(unsafe { Box::from_raw(checks) });
    }
}

/// See the header.
///
/// # Safety
/// `length` bytes can be read at `value`, or it is null; `digests` is null or can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_check_matches(
    value: *const u8,
    length: usize,
    digests: *const CDigests,
) -> c_int {
    // SAFETY: as the caller vouches.
    let (value, digests) = unsafe { (bytes(value, length), digests.as_ref()) };
    let check = core::str::from_utf8(value)
        .ok()
        .and_then(|text| Check::parse(text, false).ok());
    match (check, digests) {
        (Some(check), Some(digests)) => c_int::from(check.matches(&Digests {
            crc16: digests.crc16,
            crc32: digests.crc32,
            sha256: digests.sha256,
        })),
        _ => -c_int::from(Code::InvalidCheck.number()),
    }
}

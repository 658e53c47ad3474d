//! Checks over an image's bytes, and their values.

use crate::bytes;
use alloc::alloc::{Layout, alloc};
use alloc::boxed::Box;
use core::ffi::{c_int, c_void};
use twinflash::update::{Check, Checks, Code, Digests};

/// What the checks come to.
#[repr(C)]
pub struct twinflash_sansio_digests {
    /// CRC-16/XMODEM
    pub crc16: u16,
    /// CRC-32/ISO-HDLC, as zip has it
    pub crc32: u32,
    /// SHA-256
    pub sha256: [u8; 32],
}

/// The checks an image must pass, computed while its bytes stream by. About 300 bytes.
pub struct twinflash_sansio_checks(Checks);

/// Starts checks over no bytes yet; NULL if there is no memory. To be given to
/// twinflash_sansio_checks_free.
#[unsafe(no_mangle)]
pub extern "C" fn twinflash_sansio_checks_new() -> *mut twinflash_sansio_checks {
    // SAFETY: the layout is not of size zero; what is written is written to memory of that layout.
    unsafe {
        // Not `Box::new`: where there is no memory, that ends the program.
        let checks =
            alloc(Layout::new::<twinflash_sansio_checks>()).cast::<twinflash_sansio_checks>();
        if !checks.is_null() {
            checks.write(twinflash_sansio_checks(Checks::new()));
        }
        checks
    }
}

/// Takes the image's next `length` bytes.
///
/// # Safety
/// `checks` is null or from [`twinflash_sansio_checks_new`] and not freed; `length` bytes can be read
/// at `data`, or it is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_checks_update(
    checks: *mut twinflash_sansio_checks,
    data: *const c_void,
    length: usize,
) {
    // SAFETY: as the caller vouches; no other reference exists during the call.
    unsafe {
        if let Some(checks) = checks.as_mut() {
            checks.0.update(bytes(data.cast(), length));
        }
    }
}

/// Writes to `digests` what the checks come to over all bytes so far. More may follow.
///
/// # Safety
/// `checks` is null or from [`twinflash_sansio_checks_new`] and not freed; `digests` is null or can
/// be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_checks_finish(
    checks: *const twinflash_sansio_checks,
    digests: *mut twinflash_sansio_digests,
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
            } = checks.0.finish();
            digests.write(twinflash_sansio_digests {
                crc16,
                crc32,
                sha256,
            });
        }
    }
}

/// Frees checks. NULL is fine.
///
/// # Safety
/// `checks` is null or from [`twinflash_sansio_checks_new`], and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_checks_free(checks: *mut twinflash_sansio_checks) {
    if !checks.is_null() {
        // SAFETY: allocated with the global allocator and the layout of this type, as a box is.
        drop(unsafe { Box::from_raw(checks) });
    }
}

/// Whether an image with these digests passes a request's check value (`length` bytes of text, no zero
/// needed), such as "31c3", "crc32:cbf43926" or 64 hex digits of SHA-256. 1: it does; 0: it does not;
/// negative, the failure code invalid-check: the value is none.
///
/// # Safety
/// `length` bytes can be read at `value`, or it is null; `digests` is null or can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_check_matches(
    value: *const c_void,
    length: usize,
    digests: *const twinflash_sansio_digests,
) -> c_int {
    // SAFETY: as the caller vouches.
    let (value, digests) = unsafe { (bytes(value.cast(), length), digests.as_ref()) };
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

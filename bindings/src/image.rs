//! What is known of an image's bytes.

use crate::status::twinflash_status as Status;
use crate::{
    boundary::{enter, place, text},
    status::{Error, twinflash_error, twinflash_status},
};
use engine::update::{Check, Checks};
use std::{
    ffi::c_char,
    fs::File,
    io::{ErrorKind, Read},
};

/// An image's size and check values.
#[repr(C)]
pub struct twinflash_digests {
    /// In bytes.
    pub size: u64,
    /// CRC-16/XMODEM, as the DevKit's fwPackageCheckValue has it.
    pub crc16: u16,
    /// CRC-32/ISO-HDLC.
    pub crc32: u32,
    /// SHA-256.
    pub sha256: [u8; 32],
}

fn read(path: &str) -> Result<(u64, engine::update::Digests), Error> {
    let failed = |error: std::io::Error| {
        let status = match error.kind() {
            ErrorKind::PermissionDenied => Status::NoPermission,
            _ => Status::Storage,
        };
        Error::new(status, format_args!("cannot read {path}: {error}"))
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut checks = Checks::new();
    let (mut size, mut buffer) = (0, vec![0; 256 * 1024]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, checks.finish())),
            Ok(read) => {
                checks.update(buffer.get(..read).unwrap_or_default());
                size += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Reads an image's size and check values from its file, in constant memory. Blocks. Any thread.
///
/// # Safety
/// A zero ends `path`; `info` and `error` are null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_image_info(
    path: *const c_char,
    info: *mut twinflash_digests,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let info = place(info, "info")?;
            let (size, digests) = read(text(path, "path")?)?;
            info.set(twinflash_digests {
                size,
                crc16: digests.crc16,
                crc32: digests.crc32,
                sha256: digests.sha256,
            });
            Ok(Status::Ok)
        })
    }
}

/// Whether an image passes a check value, in any form a request may have: "31c3" or "crc16:31c3"
/// (CRC-16), "cbf43926" (CRC-32), 64 hexadecimal digits (SHA-256). TWINFLASH_STATUS_OK if it does;
/// TWINFLASH_STATUS_CRC_MISMATCH or TWINFLASH_STATUS_HASH_MISMATCH if not;
/// TWINFLASH_STATUS_INVALID_CHECK if it is no check value. Blocks. Any thread.
///
/// # Safety
/// A zero ends `path` and `check`; `error` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_image_verify(
    path: *const c_char,
    check: *const c_char,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let path = text(path, "path")?;
            let check = Check::parse(text(check, "check")?, false)?;
            let (_, digests) = read(path)?;
            if check.matches(&digests) {
                return Ok(Status::Ok);
            }
            let (status, found) = match check {
                Check::Crc16(_) => (Status::CrcMismatch, Check::Crc16(digests.crc16)),
                Check::Crc32(_) => (Status::CrcMismatch, Check::Crc32(digests.crc32)),
                Check::Sha256(_) => (Status::HashMismatch, Check::Sha256(digests.sha256)),
            };
            Err(Error::new(
                status,
                format_args!("{path} is {found}; {check} was expected"),
            ))
        })
    }
}

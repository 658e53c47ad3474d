//! The part of twinflash that does no I/O, as a C library for firmware with no operating system:
//! no `std`, no threads; of C's library it needs `malloc` and its kin, `abort`, and `mem…`.
//!
//! `twinflash-sansio.h` documents the functions for those who call them.
#![no_std]

extern crate alloc;

mod checks;
mod platform;

use core::ffi::c_char;

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn twinflash_sansio_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The bytes a C caller gave by pointer and length; none if the pointer is null.
///
/// # Safety
/// `data` is null, or `length` bytes can be read there for as long as the result is used.
unsafe fn bytes<'a>(data: *const u8, length: usize) -> &'a [u8] {
    if data.is_null() {
        return &[];
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { core::slice::from_raw_parts(data, length) }
}

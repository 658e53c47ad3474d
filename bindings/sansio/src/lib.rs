//! The part of twinflash that does no I/O, as a C library for firmware with no operating system:
//! no `std`, no threads; of C's library it needs `malloc` and its kin, `abort`, and `mem…`.
//!
//! `include/twinflash_sansio.h` is made from this and documents it for those who call it.
#![no_std]

extern crate alloc;

pub mod api;
pub mod board;
pub mod checks;
pub mod download;
mod engine;
mod fetch;
pub mod output;
mod platform;
mod setup;
pub mod status;

use core::ffi::c_char;

/// The library's version, such as "0.1.0". Never freed.
#[unsafe(no_mangle)]
pub extern "C" fn twinflash_sansio_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The bytes a C caller gave by pointer and length; none if the pointer is null.
///
/// # Safety
/// `data` is null, or `length` bytes can be read there for as long as the result is used.
unsafe fn bytes<'a>(data: *const u8, length: usize) -> &'a [u8] {
    // No object is so long: a length that cannot be.
    if data.is_null() || isize::try_from(length).is_err() {
        return &[];
    }
    // SAFETY: not null, of a possible length, and the caller vouches for the rest.
    unsafe { core::slice::from_raw_parts(data, length) }
}

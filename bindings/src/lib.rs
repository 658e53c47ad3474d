//! twinflash for C and C++. `include/twinflash.h` is made from this crate by cbindgen and is its
//! documentation: what stands here before a function is what its caller reads there.
//!
//! Every function crosses the border in [`boundary`]: panics end there, pointers are checked there.

mod boundary;
mod builder;
mod callbacks;
mod control;
#[cfg(feature = "mqtt")]
mod device;
mod event;
mod guard;
mod image;
mod inbound;
mod installer;
mod offer;
mod outbound;
mod queue;
mod state;
mod status;
mod updater;

use std::ffi::c_char;

/// The version of the library that is linked, such as "0.1.0"; TWINFLASH_VERSION is the header's.
/// Never NULL, never freed. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn twinflash_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Ends every walk over the stack before it begins. In the profile `small` nothing unwinds and a panic names its
/// place; the code that would show how it got there, from the program's debug information, is 200 kB that the
/// compiler leaves out where this is never followed by a frame. `cargo xtask install` asks for it, and keeps the
/// symbol from everybody else.
#[cfg(twinflash_no_backtrace)]
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(
    _: *mut core::ffi::c_void,
    _: *mut core::ffi::c_void,
) -> core::ffi::c_int {
    const END_OF_STACK: core::ffi::c_int = 5;
    END_OF_STACK
}

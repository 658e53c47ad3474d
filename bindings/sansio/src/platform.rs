//! What Rust needs of the platform: memory, and an end for a panic.

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;
use core::ptr::null_mut;

unsafe extern "C" {
    fn malloc(size: usize) -> *mut c_void;
    fn calloc(count: usize, size: usize) -> *mut c_void;
    fn realloc(block: *mut c_void, size: usize) -> *mut c_void;
    fn free(block: *mut c_void);
    fn abort() -> !;
}

/// `malloc` aligns for every type C has; no ABI asks for less than two pointers. Nothing here is aligned to more; if
/// it were, there would be no memory for it: `aligned_alloc` is missing in many a board's C library.
const ALIGNED: usize = 2 * size_of::<usize>();

struct Malloc;

#[global_allocator]
static MALLOC: Malloc = Malloc;

// SAFETY: every block comes from C's allocator, with the size and alignment asked for, or is null; it goes back to
// it. None of these functions unwinds.
unsafe impl GlobalAlloc for Malloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGNED {
            return null_mut();
        }
        // SAFETY: C's allocator takes any size.
        unsafe { malloc(layout.size()) }.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGNED {
            return null_mut();
        }
        // SAFETY: C's allocator takes any size.
        unsafe { calloc(1, layout.size()) }.cast()
    }

    unsafe fn realloc(&self, block: *mut u8, _: Layout, size: usize) -> *mut u8 {
        // SAFETY: the block came from `malloc`, `calloc` or `realloc`, and keeps its alignment.
        unsafe { realloc(block.cast(), size) }.cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the block came from C's allocator.
        unsafe { free(block.cast()) }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: always sound; there is nothing to unwind to in C.
    unsafe { abort() }
}

/// The precompiled `alloc` of a target with an operating system names this function as what unwinds
/// its frames. Nothing unwinds here, so it is never called; where `alloc` was compiled to abort
/// (targets without an operating system), nothing names it.
#[cfg(not(target_os = "none"))]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

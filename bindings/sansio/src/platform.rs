//! What Rust needs of the platform: memory, and an end for a panic.

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;

unsafe extern "C" {
    fn malloc(size: usize) -> *mut c_void;
    fn calloc(count: usize, size: usize) -> *mut c_void;
    fn realloc(block: *mut c_void, size: usize) -> *mut c_void;
    fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void;
    fn free(block: *mut c_void);
    fn abort() -> !;
}

/// `malloc` aligns for every type C has; no ABI asks for less than two pointers.
const ALIGNED: usize = 2 * size_of::<usize>();

struct Malloc;

#[global_allocator]
static MALLOC: Malloc = Malloc;

// SAFETY: every block comes from C's allocator, with the size and alignment asked for, and goes back
// to it; all of C's allocating functions share `free`. None of these functions unwinds.
unsafe impl GlobalAlloc for Malloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: C's allocator takes any size; `aligned_alloc` a power of two, of which the size
        // is made a multiple (`Layout` has made sure that this does not overflow).
        let block = unsafe {
            if layout.align() <= ALIGNED {
                malloc(layout.size())
            } else {
                aligned_alloc(layout.align(), layout.pad_to_align().size())
            }
        };
        block.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGNED {
            // SAFETY: any size will do.
            return unsafe { calloc(1, layout.size()) }.cast();
        }
        // SAFETY: the same layout; what was allocated has as many bytes to write to.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= ALIGNED {
            // SAFETY: the block came from `malloc`, `calloc` or `realloc`.
            return unsafe { realloc(block.cast(), size) }.cast();
        }
        // SAFETY: the caller vouches that size and alignment make a layout. Both blocks are at
        // least as long as what is copied, and do not overlap: both are alive.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(block, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
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

//! The border to C: pointers are checked, panics end, and who must not wait is told so.

use crate::status::twinflash_status as Status;
use crate::status::{Error, twinflash_error};
use std::{
    cell::Cell,
    ffi::{CStr, CString, c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::{self, NonNull},
    slice,
    sync::{Arc, OnceLock},
    thread::{self, ThreadId},
};

/// A function of the interface: runs it, catches its panic, fills in the error.
///
/// # Safety
/// `error` is null or can be written to.
pub(crate) unsafe fn enter(
    error: *mut twinflash_error,
    call: impl FnOnce() -> Result<Status, Error>,
) -> Status {
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or(panic.downcast_ref::<String>().map(String::as_str));
        Err(Error::new(
            Status::Panic,
            format_args!(
                "a fault of twinflash, please report it: {}",
                text.unwrap_or("panic")
            ),
        ))
    });
    let failed = match result {
        Ok(Status::Ok) => return Status::Ok,
        // Who shows the message of whatever is not 0 shall not show what was there before.
        Ok(status) => Error::new(status, status.words()),
        Err(failed) => failed,
    };
    // SAFETY: as the caller vouches.
    unsafe { fill(error, &failed) };
    failed.status
}

/// # Safety
/// As [`enter`].
unsafe fn fill(error: *mut twinflash_error, failed: &Error) {
    if error.is_null() {
        return;
    }
    let mut message = [0; 520];
    let cut = message.len() - 1;
    let mut end = failed.message.len().min(cut);
    while !failed.message.is_char_boundary(end) {
        end -= 1;
    }
    for (to, from) in message.iter_mut().zip(failed.message.bytes().take(end)) {
        // A zero would hide the rest.
        *to = from.max(1) as c_char;
    }
    // SAFETY: as the caller vouches; `write` does not read what was there before.
    unsafe {
        error.write(twinflash_error {
            status: failed.status,
            message,
        });
    }
}

/// What a callback of the application wrote as its error.
pub(crate) fn message_of(error: &twinflash_error) -> String {
    let bytes: Vec<u8> = error
        .message
        .iter()
        .map(|c| *c as u8)
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An error with nothing in it, for a callback to fill in.
pub(crate) fn no_error() -> twinflash_error {
    twinflash_error {
        status: Status::Ok,
        message: [0; 520],
    }
}

/// What a handle points to.
///
/// # Safety
/// `pointer` is null, or from the function that makes such handles and not freed.
pub(crate) unsafe fn handle<'a, T>(pointer: *const T, name: &str) -> Result<&'a T, Error> {
    // SAFETY: as the caller vouches.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// Where the caller wants a result. What is there before is never read: it may be anything.
pub(crate) struct Place<T>(NonNull<T>);

impl<T> Place<T> {
    pub(crate) fn set(&self, value: T) {
        // SAFETY: as the caller of `place` vouches.
        unsafe { self.0.as_ptr().write(value) }
    }
}

/// # Safety
/// `pointer` is null, or can be written to; nobody else uses what it points to meanwhile.
pub(crate) unsafe fn place<T>(pointer: *mut T, name: &str) -> Result<Place<T>, Error> {
    NonNull::new(pointer).map(Place).ok_or_else(|| null(name))
}

/// A result that the caller need not take.
///
/// # Safety
/// As [`place`].
pub(crate) unsafe fn give<T>(pointer: *mut T, value: T) {
    if let Some(pointer) = NonNull::new(pointer) {
        Place(pointer).set(value);
    }
}

pub(crate) fn null(name: &str) -> Error {
    Error::new(Status::NullArgument, format_args!("{name} is NULL"))
}

/// A text of the caller's.
///
/// # Safety
/// `pointer` is null, or a zero ends what can be read there.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str, Error> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(pointer) }
        .to_str()
        .map_err(|_| Error::new(Status::InvalidUtf8, format_args!("{name} is not UTF-8")))
}

/// Bytes of the caller's; none where the length is 0, whatever the pointer.
///
/// # Safety
/// `length` bytes can be read at `pointer`, or it is null.
pub(crate) unsafe fn bytes<'a>(
    pointer: *const c_void,
    length: usize,
    name: &str,
) -> Result<&'a [u8], Error> {
    if length == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(null(name));
    }
    if isize::try_from(length).is_err() {
        return Err(Error::new(
            Status::InvalidArgument,
            format_args!("the length of {name} is {length}, more than there can be"),
        ));
    }
    // SAFETY: not null, of a possible length, and the caller vouches for the rest.
    Ok(unsafe { slice::from_raw_parts(pointer.cast(), length) })
}

/// A text for C. What is behind a zero in it is left out.
pub(crate) fn c_text(text: &str) -> CString {
    let text = text.split('\0').next().unwrap_or_default();
    CString::new(text).unwrap_or_default()
}

/// As [`c_text`], to be kept in a structure as a raw pointer; null for `None`. Given back by
/// [`drop_text`].
pub(crate) fn raw_text(text: Option<&str>) -> *mut c_char {
    text.map_or(ptr::null_mut(), |text| c_text(text).into_raw())
}

/// # Safety
/// From [`raw_text`], and not used again.
pub(crate) unsafe fn drop_text(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: made by `CString::into_raw`.
        drop(unsafe { CString::from_raw(text) });
    }
}

unsafe extern "C" {
    fn malloc(size: usize) -> *mut c_void;
}

/// Bytes for the caller, with a zero after them, to be given to `free` by the caller, or by the Azure
/// SDK the caller hands them to.
pub(crate) fn malloc_bytes(bytes: &[u8]) -> Result<*mut c_char, Error> {
    // SAFETY: any size will do.
    let block = unsafe { malloc(bytes.len() + 1) }.cast::<u8>();
    if block.is_null() {
        return Err(Error::new(Status::System, "there is no memory left"));
    }
    // SAFETY: the block has room for the bytes and the zero, and is nobody else's.
    unsafe {
        block.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        block.add(bytes.len()).write(0);
    }
    Ok(block.cast())
}

/// The application's own data for its callbacks. It says that they may be used from the updater's
/// threads by handing them over.
pub(crate) struct UserData {
    pub(crate) pointer: *mut c_void,
    destroy: Option<unsafe extern "C" fn(*mut c_void)>,
}

// SAFETY: the header asks for data that may be used and freed on the updater's threads.
unsafe impl Send for UserData {}

impl UserData {
    pub(crate) fn new(
        pointer: *mut c_void,
        destroy: Option<unsafe extern "C" fn(*mut c_void)>,
    ) -> Self {
        Self { pointer, destroy }
    }
}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(destroy) = self.destroy {
            // SAFETY: the application gave the function for this pointer; it is called once.
            inside(ANY, || unsafe { destroy(self.pointer) });
        }
    }
}

/// What the callbacks of an updater know of it: which one it is, and whether its start has ended.
pub(crate) struct Identity {
    starter: ThreadId,
    started: OnceLock<()>,
}

impl Identity {
    /// Of an updater that this thread is about to start.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            starter: thread::current().id(),
            started: OnceLock::new(),
        })
    }

    /// The application has its handle now, or never gets one.
    pub(crate) fn started(&self) {
        self.started.get_or_init(|| ());
    }

    fn number(&self) -> usize {
        ptr::from_ref(self) as usize
    }
}

/// In a function that must call nothing that waits, of any updater.
const ANY: usize = 0;

/// A callback this thread is in, on its stack.
struct Frame {
    updater: usize,
    outer: *const Frame,
}

thread_local! {
    static INNERMOST: Cell<*const Frame> = const { Cell::new(ptr::null()) };
}

fn inside<T>(updater: usize, call: impl FnOnce() -> T) -> T {
    struct Back(*const Frame);
    impl Drop for Back {
        fn drop(&mut self) {
            INNERMOST.set(self.0);
        }
    }
    let outer = INNERMOST.get();
    let frame = Frame { updater, outer };
    let _back = Back(outer);
    INNERMOST.set(&raw const frame);
    call()
}

/// Runs a callback of an updater; not before the application can have the updater's handle.
pub(crate) fn callback<T>(updater: &Identity, call: impl FnOnce() -> T) -> T {
    // What the start itself calls cannot wait for its end.
    if thread::current().id() != updater.starter {
        updater.started.wait();
    }
    inside(updater.number(), call)
}

/// Refuses what would wait for a callback it is called in.
pub(crate) fn not_in_callback(updater: &Identity, function: &str) -> Result<(), Error> {
    let mut frame = INNERMOST.get();
    // SAFETY: the frames of this thread's callbacks, which have not returned.
    while let Some(callback) = unsafe { frame.as_ref() } {
        if callback.updater == updater.number() || callback.updater == ANY {
            return Err(Error::new(
                Status::InCallback,
                format_args!(
                    "{function} would wait for the callback it is called in: call it elsewhere"
                ),
            ));
        }
        frame = callback.outer;
    }
    Ok(())
}

//! The functions by which an image's bytes come.

use crate::api::{TWINFLASH_SANSIO_UNKNOWN, enter, text, twinflash_sansio, twinflash_sansio_now};
use crate::engine::Driven;
use crate::status::twinflash_sansio_status;
use alloc::string::ToString as _;
use core::ffi::{c_char, c_void};
use core::time::Duration;
use twinflash::update::{Code, answer::Head};

use twinflash_sansio_status as Status;

/// What a server answered, before the body.
#[repr(C)]
pub struct twinflash_sansio_answer {
    /// HTTP's status, such as 200 or 206. Where the image comes in another way: 200.
    pub status: i32,
    /// Seconds of "Retry-After"; 0 where there are none.
    pub retry_after: u32,
    /// "Content-Length" in bytes; TWINFLASH_SANSIO_UNKNOWN where the server does not say it.
    pub length: u64,
    /// "Content-Range", or NULL.
    pub range: *const c_char,
    /// "ETag", with its quotation marks, or NULL.
    pub etag: *const c_char,
}

/// As [`enter`], for a step of a download.
///
/// # Safety
/// As [`enter`].
unsafe fn fetching(
    engine: *const twinflash_sansio,
    step: impl FnOnce(&mut Driven) -> bool,
) -> Status {
    // SAFETY: as the caller vouches.
    match unsafe { enter(engine, step) } {
        Ok(true) => Status::Ok,
        Ok(false) => Status::Closed,
        Err(status) => status,
    }
}

/// The server of the image has answered. TWINFLASH_SANSIO_STATUS_CLOSED where its bytes are of no use:
/// close the connection. So do the next two.
///
/// # Safety
/// `engine` is null or an engine that is not freed; `answer` is null or as its type says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_answered(
    engine: *mut twinflash_sansio,
    answer: *const twinflash_sansio_answer,
    now: twinflash_sansio_now,
) -> twinflash_sansio_status {
    // SAFETY: as the caller vouches.
    unsafe {
        let Some(answer) = answer.as_ref() else {
            return Status::NullArgument;
        };
        // A header that is no text is as good as none.
        let wait = Duration::from_secs(answer.retry_after.into());
        let head = Head {
            status: u16::try_from(answer.status).unwrap_or_default(),
            words: &answer.status.to_string(),
            length: (answer.length != TWINFLASH_SANSIO_UNKNOWN).then_some(answer.length),
            chunked: false,
            range: text(answer.range).unwrap_or_default(),
            etag: text(answer.etag).unwrap_or_default(),
            retry_after: (!wait.is_zero()).then_some(wait),
        };
        fetching(engine, |driven| driven.answered(&head, now.into()))
    }
}

/// Bytes of the image have come. They are checked and written before this returns; any number at once.
///
/// # Safety
/// `engine` is null or an engine that is not freed; `length` bytes can be read at `bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_bytes(
    engine: *mut twinflash_sansio,
    bytes: *const c_void,
    length: usize,
    now: twinflash_sansio_now,
) -> twinflash_sansio_status {
    if bytes.is_null() {
        return Status::NullArgument;
    }
    // SAFETY: as the caller vouches.
    unsafe {
        let bytes = crate::bytes(bytes.cast(), length);
        fetching(engine, |driven| driven.bytes(bytes, now.into()))
    }
}

/// The body is at its end, as far as the transport can tell.
///
/// # Safety
/// `engine` is null or an engine that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_ended(
    engine: *mut twinflash_sansio,
    now: twinflash_sansio_now,
) -> twinflash_sansio_status {
    // SAFETY: as the caller vouches.
    unsafe { fetching(engine, |driven| driven.ended(now.into())) }
}

/// The server cannot be reached, or the connection broke: another attempt is made after a pause, and
/// goes on where this one stopped. `why` is for people; it may be NULL, and holds no secret. `tls`: it was
/// its certificate that was refused.
///
/// # Safety
/// `engine` is null or an engine that is not freed; `why` is null or a zero ends it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_broken(
    engine: *mut twinflash_sansio,
    tls: bool,
    why: *const c_char,
    now: twinflash_sansio_now,
) -> twinflash_sansio_status {
    let code = match tls {
        true => Code::Tls,
        false => Code::Network,
    };
    // SAFETY: as the caller vouches.
    unsafe {
        let why = text(why).ok().flatten().unwrap_or("the connection broke");
        fetching(engine, |driven| driven.broken(code, why, now.into()))
    }
}

//! Images that the application fetches, with an HTTP client of its own.

use crate::status::twinflash_status as Status;
use crate::{
    boundary::{bytes, drop_text, enter, handle, place, raw_text, text},
    status::{Error, to_code, twinflash_error, twinflash_status},
    updater::{timeout, twinflash_updater},
};
use engine::{
    device::{NotTaken, Response, Wanted},
    update::{Code, Retry},
};
use std::{
    ffi::{c_char, c_void},
    ptr,
    time::Duration,
};

/// What the application is to fetch. Texts live as long as the structure. Members may be added at the
/// end in later versions: do not copy the structure, and do not make one.
#[repr(C)]
pub struct twinflash_wanted {
    /// Names this wish in every offer; each attempt has another one.
    pub id: u64,
    /// What is to be fetched. Its query may hold a secret: show it to nobody.
    pub uri: *const c_char,
    /// The first byte that is wanted. Where it is not 0, ask for "Range: bytes=OFFSET-"…
    pub offset: u64,
    /// …and, where this is not NULL, with "If-Range: VALIDATOR".
    pub validator: *const c_char,
    /// Follow at most so many redirects.
    pub max_redirects: u32,
    /// Neither the address nor a redirect may be http.
    pub https_only: bool,
    /// It is not an image, but the manifest beside one: a short text.
    pub manifest: bool,
}

impl twinflash_wanted {
    fn new(wanted: &Wanted) -> Box<Self> {
        Box::new(Self {
            id: wanted.id,
            uri: raw_text(Some(&wanted.uri)),
            offset: wanted.offset,
            validator: raw_text(wanted.validator.as_deref()),
            max_redirects: wanted.max_redirects,
            https_only: wanted.https_only,
            manifest: wanted.manifest,
        })
    }
}

impl Drop for twinflash_wanted {
    fn drop(&mut self) {
        for text in [self.uri, self.validator] {
            // SAFETY: made by `raw_text`, or null.
            unsafe { drop_text(text.cast_mut()) };
        }
    }
}

/// Frees what twinflash_updater_next_wanted gave. NULL is fine. Any thread.
///
/// # Safety
/// `wanted` is null or from twinflash_updater_next_wanted, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_wanted_free(wanted: *mut twinflash_wanted) {
    if !wanted.is_null() {
        // SAFETY: made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(wanted) });
    }
}

/// What a server answered to the application, before its body. Fill it with zeros, then set `size`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct twinflash_response {
    /// sizeof(twinflash_response).
    pub size: usize,
    /// The HTTP status: 200, or 206 where a part was asked for and came. Any other ends the attempt; the
    /// updater decides whether there is another. Where the bytes come by something else than HTTP, 200.
    pub status: i32,
    /// "Retry-After" in seconds, with a status such as 503; 0 where there is none.
    pub retry_after: u32,
    /// Where in the whole the first byte belongs that is offered now: the first byte of
    /// "Content-Range" with 206, else 0.
    pub offset: u64,
    /// The size of the whole in bytes: "Content-Length" with 200, what comes after the slash of
    /// "Content-Range" with 206. 0 where it is not known.
    pub total: u64,
    /// The "ETag", as it came, or NULL. It makes a later attempt go on where this one ends.
    pub validator: *const c_char,
}

impl From<NotTaken> for Error {
    fn from(why: NotTaken) -> Self {
        let status = match why {
            NotTaken::NotWanted => Status::NotWanted,
            _ => Status::InvalidArgument,
        };
        Self::new(status, why)
    }
}

/// What the application is to fetch now, to be given to twinflash_wanted_free; TWINFLASH_STATUS_TIMEOUT
/// and NULL when there was nothing new within `timeout_ms` milliseconds (0: does not wait; negative:
/// waits for ever), TWINFLASH_STATUS_CLOSED once the updater is closed. The configuration's key
/// "source" is "offered" then; so it always is in a library built without HTTP. The application asks its
/// server, and calls twinflash_updater_offer_response, then twinflash_updater_offer for the bytes, then
/// twinflash_updater_offer_end; or twinflash_updater_offer_failed. Whether there is another attempt,
/// from which byte on, and all checks, limits and stalls stay the updater's.
///
/// # Safety
/// `updater` is null or an updater that is not freed; `wanted` and `error` are null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_next_wanted(
    updater: *const twinflash_updater,
    timeout_ms: i64,
    wanted: *mut *mut twinflash_wanted,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let wanted = place(wanted, "wanted")?;
            wanted.set(ptr::null_mut());
            let updater = handle(updater, "updater")?;
            match updater.updater.next_wanted(timeout(timeout_ms)) {
                Some(next) => wanted.set(Box::into_raw(twinflash_wanted::new(&next))),
                None if updater.polled.is_closing() => return Ok(Status::Closed),
                None => return Ok(Status::Timeout),
            }
            Ok(Status::Ok)
        })
    }
}

/// What the server answered, once for each wish, before its bytes. TWINFLASH_STATUS_NOT_WANTED: the wish
/// with this id is no more, or was answered before. An answer that does not fit, as another size than
/// the request announced, ends the attempt: the next call says TWINFLASH_STATUS_NOT_WANTED. Never waits.
///
/// # Safety
/// `updater` is null or an updater that is not freed; `response` is null or as its type says; `error` is
/// null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_offer_response(
    updater: *const twinflash_updater,
    id: u64,
    response: *const twinflash_response,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let updater = handle(updater, "updater")?;
            let size = handle(response.cast::<usize>(), "response")?;
            if *size != size_of::<twinflash_response>() {
                return Err(Error::new(
                    Status::InvalidArgument,
                    format_args!(
                        "response.size is {size}; it has to be sizeof(twinflash_response), {}",
                        size_of::<twinflash_response>()
                    ),
                ));
            }
            let given = response.read();
            let status = u16::try_from(given.status).map_err(|_| {
                Error::new(
                    Status::InvalidArgument,
                    format_args!(
                        "response.status is {}, which is none of HTTP's",
                        given.status
                    ),
                )
            })?;
            let mut response = Response::new(status).offset(given.offset);
            if given.total > 0 {
                response = response.total(given.total);
            }
            if !given.validator.is_null() {
                response = response.validator(text(given.validator, "response.validator")?);
            }
            if given.retry_after > 0 {
                response = response.retry_after(Duration::from_secs(given.retry_after.into()));
            }
            updater.updater.offer_response(id, response)?;
            Ok(Status::Ok)
        })
    }
}

/// The next bytes; `offset` is where in the whole the first of them belongs. `*taken` says how many were
/// taken, from the first on: fewer than there are, or none, where the updater cannot hash and write
/// them as fast. The others are to be offered again a little later. It waits for room for the first at
/// most `timeout_ms` milliseconds (0: does not wait; negative: waits for ever).
/// TWINFLASH_STATUS_NOT_WANTED: they are not wanted any more: end the request, and ask what is. So a
/// request to a server that is silent is to be looked after by a call with `length` 0 now and then.
/// TWINFLASH_STATUS_INVALID_ARGUMENT: they are not the next ones, or the answer was not offered before.
///
/// # Safety
/// `updater` is null or an updater that is not freed; `length` bytes can be read at `data`; `taken` and
/// `error` are null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_offer(
    updater: *const twinflash_updater,
    id: u64,
    offset: u64,
    data: *const c_void,
    length: usize,
    timeout_ms: i64,
    taken: *mut usize,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let taken = place(taken, "taken")?;
            taken.set(0);
            let updater = handle(updater, "updater")?;
            let data = bytes(data, length, "data")?;
            taken.set(
                updater
                    .updater
                    .offer(id, offset, data, timeout(timeout_ms))?,
            );
            Ok(Status::Ok)
        })
    }
}

/// The body is at its end. Need not be said where the response told the total and all came. Nothing
/// happens where this wish is no more. Never waits.
///
/// # Safety
/// `updater` is null or an updater that is not freed; `error` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_offer_end(
    updater: *const twinflash_updater,
    id: u64,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            handle(updater, "updater")?.updater.offer_end(id);
            Ok(Status::Ok)
        })
    }
}

/// The bytes could not be fetched, or not to their end. `status` is TWINFLASH_STATUS_NETWORK for a
/// connection, TWINFLASH_STATUS_TLS for its certificate, or another failure's. `why` goes on from
/// "cannot download …: ", and holds no secret. `again`: another attempt makes sense, after a pause. Nothing
/// happens where this wish is no more. Never waits.
///
/// # Safety
/// `updater` is null or an updater that is not freed; a zero ends `why`; `error` is null or can be
/// written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_offer_failed(
    updater: *const twinflash_updater,
    id: u64,
    status: i32,
    why: *const c_char,
    again: bool,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let updater = handle(updater, "updater")?;
            let retry = match again {
                true => Retry::Resume(None),
                false => Retry::Never,
            };
            let code = to_code(status, Code::Network);
            let why = text(why, "why")?;
            updater.updater.offer_failed(id, code, why, retry);
            Ok(Status::Ok)
        })
    }
}

//! What comes from the hub: methods, twins, and what became of reports.

use crate::status::twinflash_status as Status;
use crate::{
    boundary::{
        Identity, bytes, callback, enter, handle, malloc_bytes, not_in_callback, null, place, text,
    },
    status::{Error, twinflash_error, twinflash_status},
    updater::twinflash_updater,
};
use engine::device::Answer;
use std::{
    ffi::{c_char, c_void},
    ptr,
    sync::Arc,
};

/// The answer to a direct method.
#[repr(C)]
pub struct twinflash_answer {
    /// The status for the back end, such as 200.
    pub status: i32,
    /// JSON, never empty, ended by a zero; made by malloc: the caller's, who calls free(), or gives it
    /// to azure-iot-sdk-c, which does.
    pub payload: *mut c_char,
    /// Its length in bytes, without the zero.
    pub payload_length: usize,
}

impl twinflash_answer {
    fn new(answer: &Answer) -> Result<Self, Error> {
        Ok(Self {
            status: answer.status.into(),
            payload: malloc_bytes(answer.payload.as_bytes())?,
            payload_length: answer.payload.len(),
        })
    }
}

/// Gets a method's answer, once. `answer` and what is in it live until it returns, except that
/// `answer->payload` may be kept and given to free(): set it to NULL then.
pub type twinflash_answer_callback =
    Option<unsafe extern "C" fn(answer: *mut twinflash_answer, user_data: *mut c_void)>;

unsafe extern "C" {
    fn free(block: *mut c_void);
}

/// A direct method was called. TWINFLASH_STATUS_NOT_MINE where it is not one of the updater's: it is the
/// application's to answer then, and `*answer` says status 404. Otherwise `*answer` is to be sent.
///
/// Returns at once, but for a method that starts an update: then it waits until the hub has the first
/// report (twinflash_updater_report_done was called) or two seconds have passed, so that no back end
/// reads the last update's outcome. Where the same thread serves the network, as in the loop of
/// azure-iot-sdk-c's IoTHubDeviceClient_LL_DoWork, set "policy.answer_wait" to 0: then it waits only
/// until that report is handed over, and what waits in twinflash_updater_next_outbound is to be sent
/// before the answer. A callback for what is to be sent has been called with it by then.
/// In a callback of the updater it returns TWINFLASH_STATUS_IN_CALLBACK.
///
/// `payload` need not end with a zero; NULL with length 0 is an empty one.
///
/// # Safety
/// `updater` is null or an updater that is not freed; a zero ends `name`; `length` bytes can be read at
/// `payload`; `answer` and `error` are null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_handle_method(
    updater: *const twinflash_updater,
    name: *const c_char,
    payload: *const c_void,
    length: usize,
    answer: *mut twinflash_answer,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let answer = place(answer, "answer")?;
            answer.set(twinflash_answer {
                status: 404,
                payload: ptr::null_mut(),
                payload_length: 0,
            });
            let updater = handle(updater, "updater")?;
            let (name, payload) = (text(name, "name")?, bytes(payload, length, "payload")?);
            not_in_callback(&updater.identity, "twinflash_updater_handle_method")?;
            match updater.updater.handle_method(name, payload) {
                None => Ok(Status::NotMine),
                Some(given) => {
                    answer.set(twinflash_answer::new(&given)?);
                    Ok(Status::Ok)
                }
            }
        })
    }
}

/// As twinflash_updater_handle_method, without any wait, and to be called anywhere: `callback` gets the
/// answer, on this thread before this returns, or later on the updater's own (there the rules of
/// twinflash_event_callback hold). It is called once where this returns TWINFLASH_STATUS_OK, and not at
/// all otherwise.
///
/// # Safety
/// As twinflash_updater_handle_method; `callback` is as its type says, and may be given `user_data` on
/// any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_handle_method_then(
    updater: *const twinflash_updater,
    name: *const c_char,
    payload: *const c_void,
    length: usize,
    callback: twinflash_answer_callback,
    user_data: *mut c_void,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let updater = handle(updater, "updater")?;
            let (name, payload) = (text(name, "name")?, bytes(payload, length, "payload")?);
            let then = Then {
                call: callback.ok_or_else(|| null("callback"))?,
                user_data,
                of: Arc::clone(&updater.identity),
            };
            let ours = updater
                .updater
                .handle_method_then(name, payload, move |answer| then.call(&answer));
            Ok(match ours {
                true => Status::Ok,
                false => Status::NotMine,
            })
        })
    }
}

/// Who gets an answer.
struct Then {
    call: unsafe extern "C" fn(*mut twinflash_answer, *mut c_void),
    user_data: *mut c_void,
    of: Arc<Identity>,
}

// SAFETY: the header asks for data that may be used on the updater's thread.
unsafe impl Send for Then {}

impl Then {
    fn call(self, answer: &Answer) {
        let mut answer = twinflash_answer::new(answer).unwrap_or(twinflash_answer {
            status: 500,
            payload: ptr::null_mut(),
            payload_length: 0,
        });
        callback(&self.of, || {
            // SAFETY: the application gave the function for this; what it left was made by malloc.
            unsafe {
                (self.call)(&mut answer, self.user_data);
                free(answer.payload.cast());
            }
        });
    }
}

/// A twin was read (`complete`, {"desired": …, "reported": …}), or its desired properties were patched.
/// What is no JSON is ignored, with a warning as an event. Never waits. `json` need not end with a zero.
///
/// # Safety
/// `updater` is null or an updater that is not freed; `length` bytes can be read at `json`; `error` is
/// null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_handle_twin(
    updater: *const twinflash_updater,
    complete: bool,
    json: *const c_void,
    length: usize,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let json = bytes(json, length, "json")?;
            handle(updater, "updater")?
                .updater
                .handle_twin(complete, json);
            Ok(Status::Ok)
        })
    }
}

/// The twin could not be read: the hub refused what TWINFLASH_OUTBOUND_KIND_READ_TWIN asked for. It is
/// asked for again after a pause; without this, after a minute. Never waits.
///
/// # Safety
/// As twinflash_updater_connected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_twin_failed(
    updater: *const twinflash_updater,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            handle(updater, "updater")?.updater.twin_failed();
            Ok(Status::Ok)
        })
    }
}

/// The hub is connected, or no longer. Never waits.
///
/// # Safety
/// `updater` is null or an updater that is not freed; `error` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_connected(
    updater: *const twinflash_updater,
    connected: bool,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            handle(updater, "updater")?.updater.connected(connected);
            Ok(Status::Ok)
        })
    }
}

/// A report's result: the hub's status, such as 204, or 0 if the report was lost. Never waits.
///
/// # Safety
/// As twinflash_updater_connected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_report_done(
    updater: *const twinflash_updater,
    id: u64,
    status: i32,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let updater = handle(updater, "updater")?;
            let status = u16::try_from(status).map_err(|_| {
                Error::new(
                    Status::InvalidArgument,
                    format_args!("status is {status}; a hub's lies between 200 and 599, and 0 is a lost report"),
                )
            })?;
            updater.updater.report_done(id, status);
            Ok(Status::Ok)
        })
    }
}

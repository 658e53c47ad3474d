//! The updater.

use crate::status::twinflash_status as Status;
use crate::{
    boundary::{
        Identity, Place, bytes, callback, enter, give, handle, malloc_bytes, not_in_callback, null,
        place, text,
    },
    event::twinflash_event,
    outbound::twinflash_outbound,
    queue::{Nothing, Queue},
    state::{outcome_of, twinflash_outcome, twinflash_state},
    status::{Error, twinflash_error, twinflash_status},
};
use engine::device::{Answer, InstallFile, Updater};
use std::{
    ffi::{c_char, c_void},
    path::PathBuf,
    ptr,
    sync::Arc,
    time::Duration,
};
#[cfg(feature = "mqtt")]
use {
    crate::callbacks::Listener,
    engine::tls::{ClientIdentity, Roots},
    std::sync::{Mutex, atomic::AtomicBool},
};

/// Firmware updates for one device. Made by twinflash_builder_start. Every function may be called from
/// any thread, and several at once; but nothing may be called any more once twinflash_updater_free is.
/// Several updaters in one process share nothing.
pub struct twinflash_updater {
    /// Tells this updater's callbacks from others'.
    pub(crate) identity: Arc<Identity>,
    pub(crate) updater: Arc<Updater>,
    pub(crate) polled: Arc<Polled>,
    #[cfg(feature = "mqtt")]
    pub(crate) listener: Arc<Mutex<Listener>>,
    /// A `twinflash_device` was made of it.
    #[cfg(feature = "mqtt")]
    pub(crate) connected: AtomicBool,
    /// The configuration's, for `twinflash_device`.
    #[cfg(feature = "mqtt")]
    pub(crate) connection: Option<String>,
    #[cfg(feature = "mqtt")]
    pub(crate) roots: Roots,
    #[cfg(feature = "mqtt")]
    pub(crate) certificate: Option<ClientIdentity>,
}

/// What waits to be fetched, where there are no callbacks.
pub(crate) struct Polled {
    pub(crate) events: Queue<Box<twinflash_event>>,
    pub(crate) outbound: Queue<Box<twinflash_outbound>>,
}

impl Polled {
    pub(crate) fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// Who waits for more waits no longer.
    pub(crate) fn close(&self) {
        self.events.close();
        self.outbound.close();
    }
}

// Many threads use one updater at once.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<twinflash_updater>();
};

impl twinflash_updater {
    pub(crate) fn close(&self) {
        self.updater.close();
        self.polled.close();
    }
}

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
/// azure-iot-sdk-c's IoTHubDeviceClient_LL_DoWork, set "policy.answer_wait" to 0: then it waits for
/// nothing, and what waits in twinflash_updater_next_outbound is to be sent before the answer.
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

/// Milliseconds; for ever where they are negative.
pub(crate) fn timeout(milliseconds: i64) -> Duration {
    u64::try_from(milliseconds).map_or(Duration::MAX, Duration::from_millis)
}

fn next<T>(
    queue: &Queue<Box<T>>,
    milliseconds: i64,
    place: &Place<*mut T>,
) -> Result<Status, Error> {
    match queue.next(timeout(milliseconds)) {
        Ok(item) => {
            place.set(Box::into_raw(item));
            Ok(Status::Ok)
        }
        Err(Nothing::Yet) => Ok(Status::Timeout),
        Err(Nothing::Closed) => Ok(Status::Closed),
    }
}

/// The next thing to be sent to the hub, to be given to twinflash_outbound_free;
/// TWINFLASH_STATUS_TIMEOUT and NULL when there was none within `timeout_ms` milliseconds (0: does not
/// wait; negative: waits for ever), TWINFLASH_STATUS_CLOSED once the updater is closed. Only where
/// there is no callback for it and no twinflash_device.
///
/// # Safety
/// `updater` is null or an updater that is not freed; `outbound` and `error` are null or can be written
/// to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_next_outbound(
    updater: *const twinflash_updater,
    timeout_ms: i64,
    outbound: *mut *mut twinflash_outbound,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let outbound = place(outbound, "outbound")?;
            outbound.set(ptr::null_mut());
            next(
                &handle(updater, "updater")?.polled.outbound,
                timeout_ms,
                &outbound,
            )
        })
    }
}

/// The next event, to be given to twinflash_event_free; waits as twinflash_updater_next_outbound does.
/// Only where there is no callback for events. Who is more than 1000 behind loses the oldest.
///
/// # Safety
/// As twinflash_updater_next_outbound.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_next_event(
    updater: *const twinflash_updater,
    timeout_ms: i64,
    event: *mut *mut twinflash_event,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let event = place(event, "event")?;
            event.set(ptr::null_mut());
            next(
                &handle(updater, "updater")?.polled.events,
                timeout_ms,
                &event,
            )
        })
    }
}

/// A descriptor that poll() and select() report as readable while something waits in
/// twinflash_updater_next_outbound, and once the updater is closed. It is the updater's: do not read
/// from it, do not close it. -1 where `updater` is NULL.
///
/// # Safety
/// `updater` is null or an updater that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_outbound_descriptor(
    updater: *const twinflash_updater,
) -> i32 {
    // SAFETY: as the caller vouches.
    unsafe { updater.as_ref() }.map_or(-1, |updater| updater.polled.outbound.descriptor())
}

/// As twinflash_updater_outbound_descriptor, for twinflash_updater_next_event.
///
/// # Safety
/// As twinflash_updater_outbound_descriptor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_event_descriptor(
    updater: *const twinflash_updater,
) -> i32 {
    // SAFETY: as the caller vouches.
    unsafe { updater.as_ref() }.map_or(-1, |updater| updater.polled.events.descriptor())
}

/// Where everything stands, to be given to twinflash_state_free. Never waits.
///
/// # Safety
/// `updater` is null or an updater that is not freed; `state` and `error` are null or can be written
/// to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_state(
    updater: *const twinflash_updater,
    state: *mut *mut twinflash_state,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let state = place(state, "state")?;
            state.set(ptr::null_mut());
            let status = handle(updater, "updater")?.updater.status();
            state.set(Box::into_raw(Box::new(status.into())));
            Ok(Status::Ok)
        })
    }
}

/// Waits until an update has ended, none runs, and the hub has been told (if it is connected);
/// `*outcome` (may be NULL) is durable then. TWINFLASH_STATUS_TIMEOUT when there was no end within
/// `timeout_ms` milliseconds (negative: waits for ever). Not on the thread that serves the network, and
/// not in a callback: TWINFLASH_STATUS_IN_CALLBACK.
///
/// # Safety
/// As twinflash_updater_state.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_wait(
    updater: *const twinflash_updater,
    timeout_ms: i64,
    outcome: *mut twinflash_outcome,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let updater = handle(updater, "updater")?;
            not_in_callback(&updater.identity, "twinflash_updater_wait")?;
            let ended = updater.updater.wait(timeout(timeout_ms));
            give(outcome, outcome_of(ended.as_ref()));
            Ok(match ended {
                Some(_) => Status::Ok,
                None => Status::Timeout,
            })
        })
    }
}

/// The application says that the new version is good (needed for "policy.confirm" = "call"; taken under
/// any policy). Never waits.
///
/// # Safety
/// As twinflash_updater_connected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_confirm(
    updater: *const twinflash_updater,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            handle(updater, "updater")?.updater.confirm();
            Ok(Status::Ok)
        })
    }
}

/// Cancels the update that runs; `*cancelled` (may be NULL) is false where none does. It has ended when
/// this returns, and that is durable after twinflash_updater_flush. TWINFLASH_STATUS_BUSY: the image is
/// being applied, which can no longer be cancelled. Never waits.
///
/// # Safety
/// As twinflash_updater_state.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_cancel(
    updater: *const twinflash_updater,
    cancelled: *mut bool,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let was = handle(updater, "updater")?.updater.cancel()?;
            give(cancelled, was);
            Ok(Status::Ok)
        })
    }
}

/// The user agrees to what the update waits for (TWINFLASH_EVENT_KIND_WAITING, "consent"); `*approved` (may
/// be NULL) is false where nobody is asked. Durable after twinflash_updater_flush. Who does not agree calls
/// twinflash_updater_cancel. Never waits.
///
/// # Safety
/// As twinflash_updater_state.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_approve(
    updater: *const twinflash_updater,
    approved: *mut bool,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let was = handle(updater, "updater")?.updater.approve()?;
            give(approved, was);
            Ok(Status::Ok)
        })
    }
}

/// The user puts the update off: for `seconds` nobody is asked, no attempt at the download is begun (one
/// that runs goes on) and nothing applied. `*deferred` (may be NULL) is false where no update runs. It
/// outlives restarts; durable after twinflash_updater_flush. TWINFLASH_STATUS_BUSY: the image is being
/// applied. Never waits.
///
/// # Safety
/// As twinflash_updater_state.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_defer(
    updater: *const twinflash_updater,
    seconds: f64,
    deferred: *mut bool,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let time = Duration::try_from_secs_f64(seconds).map_err(|error| {
                Error::new(
                    Status::InvalidArgument,
                    format_args!("seconds is {seconds}: {error}"),
                )
            })?;
            let was = handle(updater, "updater")?.updater.defer(time)?;
            give(deferred, was);
            Ok(Status::Ok)
        })
    }
}

/// Installs the image in the file `path`, such as one on a USB stick, under the same rules as any other
/// update, and reported like any other. Nobody is asked for consent. `version`, `check` (a check value) and
/// `manifest` (a file's path) may be NULL; where keys are trusted and `manifest` is NULL, it is `path` and
/// ".jws". The file must stay until the update is being applied. TWINFLASH_STATUS_BUSY: an update runs. It
/// has begun when this returns, durably after twinflash_updater_flush.
///
/// # Safety
/// As twinflash_updater_state; the texts are NULL or end with a 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_install_file(
    updater: *const twinflash_updater,
    path: *const c_char,
    version: *const c_char,
    check: *const c_char,
    manifest: *const c_char,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let optional = |pointer: *const c_char, name| match pointer.is_null() {
                true => Ok(None),
                false => text(pointer, name).map(|text| Some(text.to_owned())),
            };
            let mut options = InstallFile::default();
            options.version = optional(version, "version")?;
            options.check = optional(check, "check")?;
            options.manifest = optional(manifest, "manifest")?.map(PathBuf::from);
            let path = text(path, "path")?;
            let updater = &handle(updater, "updater")?.updater;
            updater.install_file(path.as_ref(), &options)?;
            Ok(Status::Ok)
        })
    }
}

/// Pauses the download of the update that runs, or keeps it from starting; what is there stays. Where
/// none runs, nothing happens: the next update is not paused. It stays paused over a restart, until
/// twinflash_updater_resume, a cancel or another request. Never waits; durable after
/// twinflash_updater_flush.
///
/// # Safety
/// As twinflash_updater_connected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_pause(
    updater: *const twinflash_updater,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            handle(updater, "updater")?.updater.pause();
            Ok(Status::Ok)
        })
    }
}

/// Goes on with a paused download; at once also with one that waits for its next attempt. Never waits.
///
/// # Safety
/// As twinflash_updater_connected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_resume(
    updater: *const twinflash_updater,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            handle(updater, "updater")?.updater.resume();
            Ok(Status::Ok)
        })
    }
}

/// Waits until everything that was decided so far is done and durable: after twinflash_updater_pause the
/// download has stopped, and its last bytes are safe. TWINFLASH_STATUS_STATE: it could not be saved (and
/// is tried again), not within `timeout_ms` milliseconds (negative: waits for ever), or the updater was
/// closed. In a callback: TWINFLASH_STATUS_IN_CALLBACK.
///
/// # Safety
/// As twinflash_updater_connected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_flush(
    updater: *const twinflash_updater,
    timeout_ms: i64,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let updater = handle(updater, "updater")?;
            not_in_callback(&updater.identity, "twinflash_updater_flush")?;
            updater.updater.flush(timeout(timeout_ms))?;
            Ok(Status::Ok)
        })
    }
}

/// Stops with a checkpoint and gives the state directory back, within a second, whatever network and
/// disk do. Everything after it does nothing. In a callback: TWINFLASH_STATUS_IN_CALLBACK.
///
/// # Safety
/// As twinflash_updater_connected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_close(
    updater: *const twinflash_updater,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let updater = handle(updater, "updater")?;
            not_in_callback(&updater.identity, "twinflash_updater_close")?;
            updater.close();
            Ok(Status::Ok)
        })
    }
}

/// Closes an updater and frees it. NULL is fine. In a callback: TWINFLASH_STATUS_IN_CALLBACK, and it is
/// not freed. A twinflash_device on it is to be freed before it; otherwise the updater goes on until
/// that is.
///
/// Returns within a second, though a callback or a function of the installer may take longer: it still
/// runs then. Its `destroy` is called when it has ended, and is where to free what it uses.
///
/// # Safety
/// `updater` is null or an updater that is not freed, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_updater_free(
    updater: *mut twinflash_updater,
) -> twinflash_status {
    if updater.is_null() {
        return Status::Ok;
    }
    // SAFETY: as the caller vouches; no error to write to.
    unsafe {
        enter(ptr::null_mut(), || {
            not_in_callback(&(*updater).identity, "twinflash_updater_free")?;
            let updater = Box::from_raw(updater);
            if Arc::strong_count(&updater.updater) == 1 {
                updater.close();
            }
            Ok(Status::Ok)
        })
    }
}

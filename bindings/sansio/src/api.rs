//! The functions of the engine.

use crate::board::{twinflash_sansio_board, twinflash_sansio_config};
use crate::engine::Driven;
use crate::output::{outcome_number, phase_number, twinflash_sansio_output};
use crate::setup::make;
use crate::status::twinflash_sansio_status;
use alloc::boxed::Box;
use core::cell::{Cell, UnsafeCell};
use core::ffi::{CStr, c_char, c_void};
use core::ptr;
use core::time::Duration;
use twinflash::engine::{Input, Now};
use twinflash::update::{Code, Failure};

use twinflash_sansio_status as Status;

/// An engine with its board. Not to be used by two threads at once.
pub struct twinflash_sansio {
    /// A function runs, perhaps one of the board's.
    busy: Cell<bool>,
    driven: UnsafeCell<Driven>,
}

/// The two clocks. Every function that has a say in time takes them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct twinflash_sansio_now {
    /// Milliseconds that only ever grow, since the start for example.
    pub monotonic: u64,
    /// Milliseconds since 1970, believable or not; 0 where there is no clock. It makes the time stamps
    /// of the reports.
    pub wall: u64,
}

impl From<twinflash_sansio_now> for Now {
    fn from(now: twinflash_sansio_now) -> Self {
        Self {
            monotonic: Duration::from_millis(now.monotonic),
            wall: (now.wall > 0).then_some(now.wall),
        }
    }
}

/// A length that is not known, and a time that never comes.
pub const TWINFLASH_SANSIO_UNKNOWN: u64 = 0xffff_ffff_ffff_ffff;

/// Where everything stands.
#[repr(C)]
pub struct twinflash_sansio_state {
    /// As in twinflash_sansio_output.
    pub phase: i32,
    /// As in twinflash_sansio_output.
    pub outcome: i32,
    /// Why the last update ended so: a failure's number, 0 where there is none.
    pub status: i32,
    /// The download is paused.
    pub paused: bool,
    /// Bytes of the image that are there.
    pub bytes: u64,
    /// The image's size in bytes; 0 where it is not known.
    pub size: u64,
}

/// Runs a function of the engine.
///
/// # Safety
/// `engine` is null or from [`twinflash_sansio_new`] and not freed; no other thread uses it.
pub(crate) unsafe fn enter<T>(
    engine: *const twinflash_sansio,
    call: impl FnOnce(&mut Driven) -> T,
) -> Result<T, Status> {
    // SAFETY: as the caller vouches.
    let Some(engine) = (unsafe { engine.as_ref() }) else {
        return Err(Status::NullArgument);
    };
    if engine.busy.replace(true) {
        return Err(Status::InCallback);
    }
    // SAFETY: nobody else is inside, as `busy` says.
    let result = call(unsafe { &mut *engine.driven.get() });
    engine.busy.set(false);
    Ok(result)
}

/// As [`enter`], for one input.
///
/// # Safety
/// As [`enter`].
unsafe fn input(
    engine: *const twinflash_sansio,
    input: Input<'_>,
    now: twinflash_sansio_now,
) -> Status {
    // SAFETY: as the caller vouches.
    match unsafe { enter(engine, |driven| driven.input(input, now.into())) } {
        Ok(()) => Status::Ok,
        Err(status) => status,
    }
}

/// # Safety
/// `pointer` is null, or a zero ends what can be read there.
pub(crate) unsafe fn text<'a>(pointer: *const c_char) -> Result<Option<&'a str>, Status> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and the caller vouches for the rest.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map(Some).map_err(|_| Status::InvalidUtf8)
}

/// Makes an engine: reads the record through the board, asks which image runs, and goes on with what
/// was begun. `*engine` is to be given to twinflash_sansio_free, and is NULL where this fails: with
/// TWINFLASH_SANSIO_STATUS_INVALID_CONFIG where the contract or `trust` is wrong,
/// TWINFLASH_SANSIO_STATUS_INVALID_ARGUMENT where a `size` or another value is, or _NULL_ARGUMENT where a
/// function of the board is missing. Both tables are copied.
///
/// # Safety
/// `config` and `board` are null or as their types say; `engine` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_new(
    config: *const twinflash_sansio_config,
    board: *const twinflash_sansio_board,
    now: twinflash_sansio_now,
    engine: *mut *mut twinflash_sansio,
) -> twinflash_sansio_status {
    if engine.is_null() {
        return Status::NullArgument;
    }
    // SAFETY: not null, and the caller vouches for the rest.
    let made = unsafe {
        engine.write(ptr::null_mut());
        make(config, board, now)
    };
    match made {
        Ok(driven) => {
            let made = Box::new(twinflash_sansio {
                busy: Cell::new(false),
                driven: UnsafeCell::new(driven),
            });
            // SAFETY: as above.
            unsafe { engine.write(Box::into_raw(made)) };
            Status::Ok
        }
        Err(status) => status,
    }
}

/// Frees an engine. NULL is fine. What was saved stays: the next start goes on.
///
/// # Safety
/// `engine` is null or an engine that is not freed and in no function, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_free(engine: *mut twinflash_sansio) {
    if !engine.is_null() {
        // SAFETY: made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(engine) });
    }
}

/// The next thing to be done; false where there is nothing (`output->kind` says so, too). To be called
/// until then after each other function, and at twinflash_sansio_wake_at. The board's flash is written
/// and activated in here.
///
/// # Safety
/// `engine` is null or an engine that is not freed; `output` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_poll(
    engine: *mut twinflash_sansio,
    now: twinflash_sansio_now,
    output: *mut twinflash_sansio_output,
) -> bool {
    if output.is_null() {
        return false;
    }
    // SAFETY: as the caller vouches.
    let found = unsafe {
        enter(engine, |driven| {
            driven.poll(now.into()).map(crate::output::Output::as_c)
        })
    };
    let found = found.ok().flatten();
    let is_there = found.is_some();
    let nothing = || twinflash_sansio_output {
        kind: 0,
        status: 0,
        id: 0,
        text: c"".as_ptr(),
        length: 0,
        validator: ptr::null(),
        offset: 0,
        size: 0,
        phase: 0,
        outcome: 0,
        https_only: false,
    };
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { output.write(found.unwrap_or_else(nothing)) };
    is_there
}

/// When twinflash_sansio_poll is to be called at the latest, on the monotonic clock in milliseconds;
/// TWINFLASH_SANSIO_UNKNOWN where nothing is waited for but what comes in.
///
/// # Safety
/// `engine` is null or an engine that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_wake_at(engine: *const twinflash_sansio) -> u64 {
    // SAFETY: as the caller vouches.
    let at = unsafe { enter(engine, |driven| driven.wake_at()) };
    // Not before it: rounded up.
    at.ok().flatten().map_or(TWINFLASH_SANSIO_UNKNOWN, |at| {
        u64::try_from(at.as_nanos().div_ceil(1_000_000)).unwrap_or(TWINFLASH_SANSIO_UNKNOWN)
    })
}

/// The hub is connected, or no longer.
///
/// # Safety
/// `engine` is null or an engine that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_connected(
    engine: *mut twinflash_sansio,
    connected: bool,
    now: twinflash_sansio_now,
) -> twinflash_sansio_status {
    let event = match connected {
        true => Input::Connected,
        false => Input::Disconnected,
    };
    // SAFETY: as the caller vouches.
    unsafe { input(engine, event, now) }
}

/// A twin was read (`complete`, {"desired": …, "reported": …}), or its desired properties were patched.
/// What is no JSON is ignored, with a warning.
///
/// # Safety
/// `engine` is null or an engine that is not freed; `length` bytes can be read at `json`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_twin(
    engine: *mut twinflash_sansio,
    complete: bool,
    json: *const c_void,
    length: usize,
    now: twinflash_sansio_now,
) -> twinflash_sansio_status {
    if json.is_null() {
        return Status::NullArgument;
    }
    // SAFETY: as the caller vouches.
    unsafe {
        let json = crate::bytes(json.cast(), length);
        input(engine, Input::Twin { complete, json }, now)
    }
}

/// The hub refused to have the twin read. It is asked for again after a pause.
///
/// # Safety
/// `engine` is null or an engine that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_twin_failed(
    engine: *mut twinflash_sansio,
    now: twinflash_sansio_now,
) -> twinflash_sansio_status {
    // SAFETY: as the caller vouches.
    unsafe { input(engine, Input::TwinFailed, now) }
}

/// A direct method was called: TWINFLASH_SANSIO_KIND_ANSWER with this `id` follows.
/// TWINFLASH_SANSIO_STATUS_NOT_MINE where it is the application's to answer. `payload` may be NULL.
///
/// # Safety
/// `engine` is null or an engine that is not freed; a zero ends `name`; `length` bytes can be read at
/// `payload`, or it is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_method(
    engine: *mut twinflash_sansio,
    id: u64,
    name: *const c_char,
    payload: *const c_void,
    length: usize,
    now: twinflash_sansio_now,
) -> twinflash_sansio_status {
    // SAFETY: as the caller vouches.
    unsafe {
        let name = match text(name) {
            Ok(Some(name)) => name,
            Ok(None) => return Status::NullArgument,
            Err(status) => return status,
        };
        let payload = crate::bytes(payload.cast(), length);
        let called = enter(engine, |driven| {
            let ours = driven.engine().takes_method(name);
            if ours {
                driven.input(Input::Method { id, name, payload }, now.into());
            }
            ours
        });
        match called {
            Ok(true) => Status::Ok,
            Ok(false) => Status::NotMine,
            Err(status) => status,
        }
    }
}

/// A report's result: the hub's status, such as 204, or 0 if the report was lost.
///
/// # Safety
/// `engine` is null or an engine that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_report_done(
    engine: *mut twinflash_sansio,
    id: u64,
    status: i32,
    now: twinflash_sansio_now,
) -> twinflash_sansio_status {
    let Ok(status) = u16::try_from(status) else {
        return Status::InvalidArgument;
    };
    // SAFETY: as the caller vouches.
    unsafe { input(engine, Input::ReportDone { id, status }, now) }
}

/// The application says that the new version is good.
///
/// # Safety
/// `engine` is null or an engine that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_confirm_now(
    engine: *mut twinflash_sansio,
    now: twinflash_sansio_now,
) -> twinflash_sansio_status {
    // SAFETY: as the caller vouches.
    unsafe { input(engine, Input::Confirm, now) }
}

/// Cancels the update that runs. One that is being applied goes on.
///
/// # Safety
/// `engine` is null or an engine that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_cancel(
    engine: *mut twinflash_sansio,
    now: twinflash_sansio_now,
) -> twinflash_sansio_status {
    // SAFETY: as the caller vouches.
    unsafe { input(engine, Input::Cancel, now) }
}

/// Pauses the download of the update that runs, also over a restart; or goes on with it, at once also
/// where it waits for its next attempt.
///
/// # Safety
/// `engine` is null or an engine that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_pause(
    engine: *mut twinflash_sansio,
    paused: bool,
    now: twinflash_sansio_now,
) -> twinflash_sansio_status {
    let event = match paused {
        true => Input::Pause,
        false => Input::Resume,
    };
    // SAFETY: as the caller vouches.
    unsafe { input(engine, event, now) }
}

/// The restart that was asked for is not possible now; it is asked for again in a minute.
///
/// # Safety
/// `engine` is null or an engine that is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_restart_failed(
    engine: *mut twinflash_sansio,
    now: twinflash_sansio_now,
) -> twinflash_sansio_status {
    let why = Failure::new(Code::InstallFailed, "the board cannot restart now");
    // SAFETY: as the caller vouches.
    unsafe { input(engine, Input::Restarted(Err(why)), now) }
}

/// Where everything stands.
///
/// # Safety
/// `engine` is null or an engine that is not freed; `state` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_sansio_state_of(
    engine: *const twinflash_sansio,
    state: *mut twinflash_sansio_state,
) -> twinflash_sansio_status {
    if state.is_null() {
        return Status::NullArgument;
    }
    // SAFETY: as the caller vouches.
    let status = match unsafe { enter(engine, |driven| driven.engine().status()) } {
        Ok(status) => status,
        Err(status) => return status,
    };
    let failure = status
        .outcome
        .as_ref()
        .and_then(|outcome| outcome.failure());
    let found = twinflash_sansio_state {
        phase: phase_number(status.phase),
        outcome: outcome_number(status.outcome.as_ref()),
        status: failure.map_or(0, |failure| failure.code.number().into()),
        paused: status.paused,
        bytes: status.bytes,
        size: status.size.unwrap_or_default(),
    };
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { state.write(found) };
    Status::Ok
}

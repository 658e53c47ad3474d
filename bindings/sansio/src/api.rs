//! The functions of the engine.

use crate::board::{Board, twinflash_sansio_board, twinflash_sansio_config};
use crate::engine::Driven;
use crate::fetch::Head;
use crate::output::{outcome_number, phase_number, twinflash_sansio_output};
use crate::status::twinflash_sansio_status;
use alloc::boxed::Box;
use alloc::string::String;
use core::cell::{Cell, UnsafeCell};
use core::ffi::{CStr, c_char, c_void};
use core::ptr;
use core::time::Duration;
use twinflash::contract::Contract;
use twinflash::engine::{Config, Input, Now};
use twinflash::update::trust::Trust;
use twinflash::update::{Code, Confirm, Failure, Policy, Restart};

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
unsafe fn enter<T>(
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

/// # Safety
/// `pointer` is null, or a zero ends what can be read there.
unsafe fn text<'a>(pointer: *const c_char) -> Result<Option<&'a str>, Status> {
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

/// # Safety
/// As [`twinflash_sansio_new`].
unsafe fn make(
    config: *const twinflash_sansio_config,
    board: *const twinflash_sansio_board,
    now: twinflash_sansio_now,
) -> Result<Driven, Status> {
    if config.is_null() || board.is_null() {
        return Err(Status::NullArgument);
    }
    // SAFETY: not null; the sizes are looked at before the rest is read.
    unsafe {
        if (*config).size != size_of::<twinflash_sansio_config>()
            || (*board).size != size_of::<twinflash_sansio_board>()
        {
            return Err(Status::InvalidArgument);
        }
    }
    // SAFETY: of the right size, as the caller vouches. The texts live until this returns.
    let (config, board, contract, version, trust) = unsafe {
        let config = config.read();
        let (contract, version) = (text(config.contract)?, text(config.current_version)?);
        let trust = trust(&config)?;
        (config, board.read(), contract, version, trust)
    };
    let contract = match contract.ok_or(Status::NullArgument)? {
        json if json.trim_start().starts_with('{') => Contract::from_json(json.as_bytes()),
        name => Contract::built_in(name),
    };
    let mut policy = Policy::default();
    policy.allow_http = config.allow_http;
    policy.require_check = config.require_check;
    policy.checkpoint_bytes = or(config.checkpoint_bytes, 64 << 10);
    policy.max_size = or(config.max_size, policy.max_size);
    policy.confirm = match config.confirm {
        0 => Confirm::Connected,
        1 => Confirm::Call,
        2 => Confirm::None,
        _ => return Err(Status::InvalidArgument),
    };
    if config.confirm_seconds > 0 {
        policy.confirm_time = Duration::from_secs(config.confirm_seconds.into());
    }
    if config.confirm_starts > 0 {
        policy.confirm_attempts = config.confirm_starts;
    }
    if config.answer_at_once {
        policy.answer_wait = Duration::ZERO;
    }
    let config = Config {
        contract: contract.map_err(|_| Status::InvalidConfig)?,
        policy,
        current_version: version.map(String::from),
        restart: match config.no_restart {
            true => Restart::None,
            false => Restart::System,
        },
        boot_id: alloc::format!("{:x}", config.seed),
        installer: None,
        seed: config.seed,
    };
    let board = Board::new(board).map_err(|_| Status::NullArgument)?;
    Ok(Driven::start(config, trust, board, now.into()))
}

/// Whom a configuration trusts.
///
/// # Safety
/// The configuration is as its type says.
#[cfg(feature = "signed")]
unsafe fn trust(config: &twinflash_sansio_config) -> Result<Option<Trust>, Status> {
    use twinflash::update::trust::{Identity, KeySet, RustCrypto};
    let mut identity = Identity::default();
    // SAFETY: as the caller vouches.
    let keys = unsafe {
        identity.manufacturer = text(config.manufacturer)?.map(String::from);
        identity.model = text(config.model)?.map(String::from);
        identity.hardware_revision = text(config.hardware_revision)?.map(String::from);
        text(config.trust)?
    };
    let keys = keys.map(|json| KeySet::from_json(json.as_bytes()));
    let keys = keys.transpose().map_err(|_| Status::InvalidConfig)?;
    Ok(keys.map(|keys| Trust::with_verifier(keys, identity, &RustCrypto)))
}

/// As above. There is nobody to verify a signature: keys that would not count are refused.
#[cfg(not(feature = "signed"))]
unsafe fn trust(config: &twinflash_sansio_config) -> Result<Option<Trust>, Status> {
    match config.trust.is_null() {
        true => Ok(None),
        false => Err(Status::InvalidConfig),
    }
}

fn or(value: u64, default: u64) -> u64 {
    match value {
        0 => default,
        value => value,
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
        let head = Head {
            status: answer.status,
            length: (answer.length != TWINFLASH_SANSIO_UNKNOWN).then_some(answer.length),
            range: text(answer.range).unwrap_or_default(),
            etag: text(answer.etag).unwrap_or_default(),
            retry_after: Duration::from_secs(answer.retry_after.into()),
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

//! Setting an updater up.

use crate::status::twinflash_status as Status;
use crate::{
    boundary::{
        Identity, UserData, callback, enter, handle, message_of, no_error, null, place, text,
    },
    event::{twinflash_event, twinflash_level},
    installer::{TableInstaller, twinflash_installer},
    outbound::twinflash_outbound,
    queue::Queue,
    status::{Error, to_code, twinflash_error, twinflash_status},
    updater::{Polled, twinflash_updater},
};
use engine::{
    config::Config,
    install::Restart,
    update::{Code, Failure},
};
use serde_json::{Map, Value};
use std::{
    ffi::{c_char, c_void},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

/// An updater being set up. May be used from any thread, one at a time.
pub struct twinflash_builder {
    inner: Mutex<Inner>,
}

struct Inner {
    options: Map<String, Value>,
    used: bool,
    installer: Option<TableInstaller>,
    on_event: Option<(EventCallback, UserData)>,
    on_outbound: Option<(OutboundCallback, UserData)>,
    on_restart: Option<(RestartCallback, UserData)>,
    on_log: Option<(LogCallback, UserData, twinflash_level)>,
}

type EventCallback = unsafe extern "C" fn(*const twinflash_event, *mut c_void);
type OutboundCallback = unsafe extern "C" fn(*const twinflash_outbound, *mut c_void);
type RestartCallback =
    unsafe extern "C" fn(twinflash_restart, *mut twinflash_error, *mut c_void) -> i32;
type LogCallback = unsafe extern "C" fn(twinflash_level, *const c_char, *mut c_void);

/// Gets each event, on the updater's own thread, one at a time. `event` lives until it returns.
/// Within it every function may be called but twinflash_updater_handle_method,
/// twinflash_updater_wait, twinflash_updater_flush, twinflash_updater_close and the updater's and the
/// device's free: these return TWINFLASH_STATUS_IN_CALLBACK. That is so in every callback, and in what
/// one calls. None comes before twinflash_builder_start has set `*updater`.
pub type twinflash_event_callback =
    Option<unsafe extern "C" fn(event: *const twinflash_event, user_data: *mut c_void)>;

/// Gets everything that is to be sent to the hub; as twinflash_event_callback. It must not wait for the
/// network; it may call twinflash_updater_handle_twin and twinflash_updater_report_done.
pub type twinflash_outbound_callback =
    Option<unsafe extern "C" fn(outbound: *const twinflash_outbound, user_data: *mut c_void)>;

/// Called in place of the restart the installer asks for; as twinflash_event_callback. Returns 0, or a
/// failure's number and in `error` (never NULL) its message.
pub type twinflash_restart_callback = Option<
    unsafe extern "C" fn(
        restart: twinflash_restart,
        error: *mut twinflash_error,
        user_data: *mut c_void,
    ) -> i32,
>;

/// Gets each line of the log, UTF-8, without a line break; as twinflash_event_callback.
pub type twinflash_log_callback = Option<
    unsafe extern "C" fn(level: twinflash_level, line: *const c_char, user_data: *mut c_void),
>;

/// Called once, when a callback is not called any more, to free its `user_data`. May be NULL. On any
/// thread; what may not be called in a callback may not be called here, of no updater.
pub type twinflash_destroy_callback = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// What makes an activated image run.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum twinflash_restart {
    /// Nothing: it is used from the next time on that somebody opens it.
    None = 0,
    /// This process ends and its supervisor starts it again.
    Exit = 1,
    /// A command restarts the program that uses the image.
    Command = 2,
    /// The device reboots.
    System = 3,
}

/// Parts a key may have; no key has so many.
const DEEPEST: usize = 8;

impl Inner {
    fn set(&mut self, key: &str, value: Value) -> Result<(), Error> {
        self.fresh()?;
        if key.split('.').count() > DEEPEST {
            return Err(Error::new(
                Status::InvalidArgument,
                format_args!("a key of {} bytes has more than {DEEPEST} parts", key.len()),
            ));
        }
        let mut at = &mut self.options;
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            if part.is_empty() {
                return Err(Error::new(
                    Status::InvalidArgument,
                    format_args!(
                        "\"{key}\" is no key; one is \"state_dir\" or \"policy.retry_time\""
                    ),
                ));
            }
            if parts.peek().is_none() {
                return match at.contains_key(part) {
                    true => Err(already(key)),
                    false => {
                        at.insert(part.to_owned(), value);
                        Ok(())
                    }
                };
            }
            let table = at
                .entry(part)
                .or_insert_with(|| Value::Object(Map::default()));
            at = table.as_object_mut().ok_or_else(|| already(key))?;
        }
        Ok(())
    }

    fn merge(&mut self, before: &str, object: Map<String, Value>) -> Result<(), Error> {
        for (key, value) in object {
            let key = format!("{before}{key}");
            match value {
                // The tables are merged; anything deeper is one value.
                Value::Object(table)
                    if ["policy", "http", "install", "trust"].contains(&key.as_str()) =>
                {
                    self.merge(&format!("{key}."), table)?;
                }
                value => self.set(&key, value)?,
            }
        }
        Ok(())
    }

    fn fresh(&self) -> Result<(), Error> {
        match self.used {
            false => Ok(()),
            true => Err(Error::new(
                Status::Used,
                "the builder has been used by twinflash_builder_start: make another one",
            )),
        }
    }
}

fn already(what: &str) -> Error {
    Error::new(Status::AlreadySet, format_args!("{what} is set already"))
}

impl twinflash_builder {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A builder with nothing set. Never NULL; given back by twinflash_builder_free, also after a start.
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn twinflash_builder_new() -> *mut twinflash_builder {
    Box::into_raw(Box::new(twinflash_builder {
        inner: Mutex::new(Inner {
            options: Map::new(),
            used: false,
            installer: None,
            on_event: None,
            on_outbound: None,
            on_restart: None,
            on_log: None,
        }),
    }))
}

/// Frees a builder and what was given to it. NULL is fine. The updater it started stays.
///
/// # Safety
/// `builder` is null or from twinflash_builder_new, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_builder_free(builder: *mut twinflash_builder) {
    if !builder.is_null() {
        // SAFETY: made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(builder) });
    }
}

/// Sets a key that is a text: "state_dir" (required), "contract", "current_version", "install.file",
/// "policy.confirm"… Every key and its meaning is in examples/agent/twinflash.toml; a dot goes into a
/// table. Keys and values are judged when the updater starts.
///
/// # Safety
/// `builder` is null or a builder that is not freed; a zero ends `key` and `value`; `error` is null or
/// can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_builder_set_string(
    builder: *mut twinflash_builder,
    key: *const c_char,
    value: *const c_char,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let value = text(value, "value")?.to_owned();
            handle(builder, "builder")?
                .lock()
                .set(text(key, "key")?, Value::String(value))?;
            Ok(Status::Ok)
        })
    }
}

/// Sets a key that is a number: "policy.retry_time" (seconds), "policy.max_size" (bytes)… See
/// twinflash_builder_set_string.
///
/// # Safety
/// As twinflash_builder_set_string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_builder_set_integer(
    builder: *mut twinflash_builder,
    key: *const c_char,
    value: i64,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            handle(builder, "builder")?
                .lock()
                .set(text(key, "key")?, Value::from(value))?;
            Ok(Status::Ok)
        })
    }
}

/// Sets a key that is true or false: "policy.allow_http", "policy.require_check"… See
/// twinflash_builder_set_string.
///
/// # Safety
/// As twinflash_builder_set_string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_builder_set_bool(
    builder: *mut twinflash_builder,
    key: *const c_char,
    value: bool,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            handle(builder, "builder")?
                .lock()
                .set(text(key, "key")?, Value::Bool(value))?;
            Ok(Status::Ok)
        })
    }
}

/// Sets many keys at once, from a JSON object:
/// {"state_dir": "…", "install": {"command": ["rauc", "install", "{image}"]}, "policy": {"retry_time": 3600}}.
/// See twinflash_builder_set_string. What was set before stays; a key given twice is an error, and the
/// keys before it are set.
///
/// # Safety
/// As twinflash_builder_set_string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_builder_set_json(
    builder: *mut twinflash_builder,
    json: *const c_char,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let builder = handle(builder, "builder")?;
            let object = serde_json::from_str(text(json, "json")?).map_err(|error| {
                Error::new(Status::InvalidArgument, format_args!("json: {error}"))
            })?;
            builder.lock().merge("", object)?;
            Ok(Status::Ok)
        })
    }
}

/// Installs by the application's own functions, in place of the key "install". The table is copied.
/// Its `destroy` is called in every case where its `size` is right.
///
/// # Safety
/// `builder` is null or a builder that is not freed; `installer` is null, or can be read as far as its
/// `size` says, and its functions are as their types say; `error` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_builder_set_installer(
    builder: *mut twinflash_builder,
    installer: *const twinflash_installer,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let installer = TableInstaller::new(installer)?;
            let mut inner = handle(builder, "builder")?.lock();
            inner.fresh()?;
            if inner.installer.is_some() {
                return Err(already("an installer"));
            }
            inner.installer = Some(installer);
            Ok(Status::Ok)
        })
    }
}

/// What the setters of callbacks share.
///
/// # Safety
/// As [`twinflash_builder_on_event`].
unsafe fn set_callback<T>(
    builder: *mut twinflash_builder,
    callback: Option<T>,
    data: UserData,
    error: *mut twinflash_error,
    what: &str,
    field: fn(&mut Inner) -> &mut Option<(T, UserData)>,
) -> Status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let mut inner = handle(builder, "builder")?.lock();
            inner.fresh()?;
            let place = field(&mut inner);
            if place.is_some() {
                return Err(already(what));
            }
            *place = Some((callback.ok_or_else(|| null("callback"))?, data));
            Ok(Status::Ok)
        })
    }
}

/// `callback` gets each event; without one they are polled by twinflash_updater_next_event.
/// `destroy` is called in every case.
///
/// # Safety
/// `builder` is null or a builder that is not freed; the callbacks are as their types say, and may be
/// given `user_data` on any thread; `error` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_builder_on_event(
    builder: *mut twinflash_builder,
    callback: twinflash_event_callback,
    user_data: *mut c_void,
    destroy: twinflash_destroy_callback,
    error: *mut twinflash_error,
) -> twinflash_status {
    let data = UserData::new(user_data, destroy);
    // SAFETY: as the caller vouches.
    unsafe {
        set_callback(
            builder,
            callback,
            data,
            error,
            "the event callback",
            |inner| &mut inner.on_event,
        )
    }
}

/// `callback` gets what is to be sent to the hub; without one it is polled by
/// twinflash_updater_next_outbound. Not needed with twinflash_device. `destroy` as with
/// twinflash_builder_on_event.
///
/// # Safety
/// `builder` is null or a builder that is not freed; the callbacks are as their types say, and may be
/// given `user_data` on any thread; `error` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_builder_on_outbound(
    builder: *mut twinflash_builder,
    callback: twinflash_outbound_callback,
    user_data: *mut c_void,
    destroy: twinflash_destroy_callback,
    error: *mut twinflash_error,
) -> twinflash_status {
    let data = UserData::new(user_data, destroy);
    // SAFETY: as the caller vouches.
    unsafe {
        set_callback(
            builder,
            callback,
            data,
            error,
            "the outbound callback",
            |inner| &mut inner.on_outbound,
        )
    }
}

/// `callback` is called in place of the restart the installer asks for. By default
/// TWINFLASH_RESTART_EXIT ends the process with status 0, and the others run their command.
/// `destroy` as with twinflash_builder_on_event.
///
/// # Safety
/// `builder` is null or a builder that is not freed; the callbacks are as their types say, and may be
/// given `user_data` on any thread; `error` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_builder_on_restart(
    builder: *mut twinflash_builder,
    callback: twinflash_restart_callback,
    user_data: *mut c_void,
    destroy: twinflash_destroy_callback,
    error: *mut twinflash_error,
) -> twinflash_status {
    let data = UserData::new(user_data, destroy);
    // SAFETY: as the caller vouches.
    unsafe {
        set_callback(
            builder,
            callback,
            data,
            error,
            "the restart callback",
            |inner| &mut inner.on_restart,
        )
    }
}

/// `callback` gets each line of the log that matters as much as `level`, or more. Independent of how
/// events are got. `destroy` as with twinflash_builder_on_event.
///
/// # Safety
/// As twinflash_builder_on_event.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_builder_on_log(
    builder: *mut twinflash_builder,
    level: i32,
    callback: twinflash_log_callback,
    user_data: *mut c_void,
    destroy: twinflash_destroy_callback,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let data = UserData::new(user_data, destroy);
            let mut inner = handle(builder, "builder")?.lock();
            inner.fresh()?;
            if inner.on_log.is_some() {
                return Err(already("the log callback"));
            }
            let level = match level {
                1 => twinflash_level::Error,
                2 => twinflash_level::Warning,
                3 => twinflash_level::Info,
                4 => twinflash_level::Debug,
                other => {
                    return Err(Error::new(
                        Status::InvalidArgument,
                        format_args!("{other} is no level; 1 (error) to 4 (debug) are"),
                    ));
                }
            };
            let callback = callback.ok_or_else(|| null("callback"))?;
            inner.on_log = Some((callback, data, level));
            Ok(Status::Ok)
        })
    }
}

/// Starts an updater: takes the state directory, reads the journal and goes on with what it says. The
/// builder is used up, whether it succeeds or not. `*updater` is NULL where it does not; otherwise it
/// is given back by twinflash_updater_free.
///
/// Fails with TWINFLASH_STATUS_INVALID_CONFIG (the message names the key), TWINFLASH_STATUS_LOCKED
/// (another process holds the state directory), TWINFLASH_STATUS_STATE, TWINFLASH_STATUS_TLS.
///
/// # Safety
/// `builder` is null or a builder that is not freed; `updater` and `error` are null or can be written
/// to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_builder_start(
    builder: *mut twinflash_builder,
    updater: *mut *mut twinflash_updater,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let updater = place(updater, "updater")?;
            updater.set(std::ptr::null_mut());
            let builder = handle(builder, "builder")?;
            let made = {
                let mut inner = builder.lock();
                inner.fresh()?;
                inner.used = true;
                Inner {
                    options: std::mem::take(&mut inner.options),
                    used: true,
                    installer: inner.installer.take(),
                    on_event: inner.on_event.take(),
                    on_outbound: inner.on_outbound.take(),
                    on_restart: inner.on_restart.take(),
                    on_log: inner.on_log.take(),
                }
            };
            let identity = Identity::new();
            let result =
                start(made, &identity).map(|started| updater.set(Box::into_raw(Box::new(started))));
            identity.started();
            result.map(|()| Status::Ok)
        })
    }
}

fn start(inner: Inner, identity: &Arc<Identity>) -> Result<twinflash_updater, Error> {
    let json = Value::Object(inner.options).to_string();
    let config = Config::from_json(json.as_bytes())?;
    let mut builder = match inner.installer {
        Some(_) if config.has_installer() => return Err(already("an installer")),
        Some(mut installer) => {
            installer.of(Arc::clone(identity));
            config.builder_with(installer)?
        }
        None => config.builder()?,
    };
    let no_queue = |error| {
        Error::new(
            Status::System,
            format_args!("cannot make a descriptor for what is polled: {error}"),
        )
    };
    let polled = Arc::new(Polled {
        events: Queue::new().map_err(no_queue)?,
        outbound: Queue::new().map_err(no_queue)?,
    });
    let listener = Arc::new(Mutex::new(Listener {
        identity: Arc::clone(identity),
        polled: Arc::clone(&polled),
        on_event: inner.on_event,
        on_log: inner.on_log,
    }));
    let tell = Arc::clone(&listener);
    builder = builder.on_event(move |event| hear(&tell, twinflash_event::of_update(event)));
    if let Some((call, data)) = inner.on_restart {
        let of = Arc::clone(identity);
        builder = builder.on_restart(move |restart| restarted(&of, call, &data, restart));
    }
    let on_outbound = inner.on_outbound;
    let (to, of) = (Arc::clone(&polled), Arc::clone(identity));
    builder = builder.on_outbound(move |outbound| {
        let outbound = twinflash_outbound::from(&outbound);
        match &on_outbound {
            // SAFETY: the application gave the function for this.
            Some((call, data)) => callback(&of, || unsafe { call(&outbound, data.pointer) }),
            None => to.outbound.push(Box::new(outbound)),
        }
    });
    let (connection, roots) = (config.connection_string()?, config.roots()?);
    Ok(twinflash_updater {
        identity: Arc::clone(identity),
        updater: Arc::new(builder.start()?),
        polled,
        listener,
        connected: AtomicBool::new(false),
        connection,
        roots,
    })
}

/// Who gets the events.
pub(crate) struct Listener {
    identity: Arc<Identity>,
    polled: Arc<Polled>,
    on_event: Option<(EventCallback, UserData)>,
    on_log: Option<(LogCallback, UserData, twinflash_level)>,
}

/// Hands an event over.
pub(crate) fn hear(listener: &Mutex<Listener>, event: twinflash_event) {
    let listener = listener.lock().unwrap_or_else(PoisonError::into_inner);
    callback(&listener.identity, || {
        if let Some((call, data, level)) = &listener.on_log
            && event.level <= *level
        {
            // SAFETY: the application gave the function for this.
            unsafe { call(event.level, event.text, data.pointer) };
        }
        match &listener.on_event {
            // SAFETY: as above.
            Some((call, data)) => unsafe { call(&event, data.pointer) },
            None => listener.polled.events.push(Box::new(event)),
        }
    });
}

fn restarted(
    of: &Identity,
    call: RestartCallback,
    data: &UserData,
    restart: &Restart,
) -> Result<(), Failure> {
    let restart = match restart {
        Restart::None => twinflash_restart::None,
        Restart::Exit => twinflash_restart::Exit,
        Restart::Command(_) => twinflash_restart::Command,
        _ => twinflash_restart::System,
    };
    let mut error = no_error();
    // SAFETY: the application gave the function for this.
    match callback(of, || unsafe { call(restart, &mut error, data.pointer) }) {
        0 => Ok(()),
        number => Err(Failure::new(
            to_code(number, Code::InstallFailed),
            message_of(&error),
        )),
    }
}

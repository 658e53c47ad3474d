//! What the application is called back with.

use crate::status::twinflash_status as Status;
use crate::{
    boundary::{Identity, UserData, callback, enter, handle, message_of, no_error, null},
    builder::{Inner, already, twinflash_builder},
    event::{twinflash_event, twinflash_level},
    outbound::twinflash_outbound,
    status::{Error, to_code, twinflash_error, twinflash_status},
    updater::Polled,
};
use engine::{
    device::Builder,
    install::Restart,
    update::{Code, Failure},
};
use std::{
    ffi::{c_char, c_void},
    sync::{Arc, Mutex, PoisonError},
};

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

/// The callbacks a builder was given.
#[derive(Default)]
pub(crate) struct Callbacks {
    on_event: Option<(EventCallback, UserData)>,
    on_outbound: Option<(OutboundCallback, UserData)>,
    on_restart: Option<(RestartCallback, UserData)>,
    on_log: Option<(LogCallback, UserData, twinflash_level)>,
}

impl Callbacks {
    /// Gives them to an updater that is about to start; what none takes is to be polled.
    pub(crate) fn given(
        self,
        mut builder: Builder,
        identity: &Arc<Identity>,
        polled: &Arc<Polled>,
    ) -> (Builder, Arc<Mutex<Listener>>) {
        let listener = Arc::new(Mutex::new(Listener {
            identity: Arc::clone(identity),
            polled: Arc::clone(polled),
            on_event: self.on_event,
            on_log: self.on_log,
        }));
        let tell = Arc::clone(&listener);
        builder = builder.on_event(move |event| hear(&tell, twinflash_event::of_update(event)));
        if let Some((call, data)) = self.on_restart {
            let of = Arc::clone(identity);
            builder = builder.on_restart(move |restart| restarted(&of, call, &data, restart));
        }
        let on_outbound = self.on_outbound;
        let (to, of) = (Arc::clone(polled), Arc::clone(identity));
        builder = builder.on_outbound(move |outbound| {
            let outbound = twinflash_outbound::from(&outbound);
            match &on_outbound {
                // SAFETY: the application gave the function for this.
                Some((call, data)) => callback(&of, || unsafe { call(&outbound, data.pointer) }),
                None => to.outbound.push(Box::new(outbound)),
            }
        });
        (builder, listener)
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
            |inner| &mut inner.callbacks.on_event,
        )
    }
}

/// `callback` gets what is to be sent to the hub; without one it is polled by
/// twinflash_updater_next_outbound. Not needed with twinflash_device.
///
/// It is called on the updater's own thread, and not before the application has said that it is connected,
/// or has handed over a method or a twin: it sees what was written before that. `destroy` is called in
/// every case; of an updater that runs, when it closes, after the last call has returned. A connection
/// that `callback` uses must stay until then, and an updater that the connection calls until it is gone:
/// close the updater, wait for `destroy`, end the connection, free the updater.
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
            |inner| &mut inner.callbacks.on_outbound,
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
            |inner| &mut inner.callbacks.on_restart,
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
            if inner.callbacks.on_log.is_some() {
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
            inner.callbacks.on_log = Some((callback, data, level));
            Ok(Status::Ok)
        })
    }
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

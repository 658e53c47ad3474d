//! The updater.

use crate::status::twinflash_status as Status;
use crate::{
    boundary::{Identity, Place, enter, give, handle, not_in_callback, place},
    event::twinflash_event,
    outbound::twinflash_outbound,
    queue::{Nothing, Queue},
    state::{outcome_of, twinflash_outcome, twinflash_state},
    status::{Error, twinflash_error, twinflash_status},
};
use engine::{device::Updater, update::Failure};
use std::{
    io, ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
#[cfg(feature = "mqtt")]
use {
    crate::callbacks::Listener,
    engine::tls::{ClientIdentity, Roots},
    std::sync::Mutex,
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
    closing: AtomicBool,
}

impl Polled {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            events: Queue::new()?,
            outbound: Queue::new()?,
            closing: AtomicBool::new(false),
        })
    }

    /// What fails or ends from here on does so because of it.
    pub(crate) fn begin_close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
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
    /// Why a call failed.
    pub(crate) fn failed(&self, failure: Failure) -> Error {
        match self.polled.is_closing() {
            true => Error::new(Status::Closed, Status::Closed.words()),
            false => failure.into(),
        }
    }

    pub(crate) fn close(&self) {
        self.polled.begin_close();
        self.updater.close();
        self.polled.close();
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
/// `timeout_ms` milliseconds (negative: waits for ever), TWINFLASH_STATUS_CLOSED once the updater is closed.
/// Not on the thread that serves the network, and not in a callback: TWINFLASH_STATUS_IN_CALLBACK.
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
                None if updater.polled.is_closing() => Status::Closed,
                None => Status::Timeout,
            })
        })
    }
}

/// Stops with a checkpoint and gives the state directory back, within a second, whatever network and
/// disk do. Everything after it does nothing; what would have to says TWINFLASH_STATUS_CLOSED. In a
/// callback: TWINFLASH_STATUS_IN_CALLBACK.
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

//! Setting an updater up.

use crate::status::twinflash_status as Status;
use crate::{
    boundary::{Identity, enter, handle, place, text},
    callbacks::Callbacks,
    installer::{TableInstaller, twinflash_installer},
    status::{Error, twinflash_error, twinflash_status},
    updater::{Polled, twinflash_updater},
};
use engine::config::Config;
use serde_json::{Map, Value};
#[cfg(feature = "mqtt")]
use std::sync::atomic::AtomicBool;
use std::{
    ffi::c_char,
    sync::{Arc, Mutex, PoisonError},
};

/// An updater being set up. May be used from any thread, one at a time.
pub struct twinflash_builder {
    inner: Mutex<Inner>,
}

pub(crate) struct Inner {
    options: Map<String, Value>,
    used: bool,
    installer: Option<TableInstaller>,
    pub(crate) callbacks: Callbacks,
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

    pub(crate) fn fresh(&self) -> Result<(), Error> {
        match self.used {
            false => Ok(()),
            true => Err(Error::new(
                Status::Used,
                "the builder has been used by twinflash_builder_start: make another one",
            )),
        }
    }
}

pub(crate) fn already(what: &str) -> Error {
    Error::new(Status::AlreadySet, format_args!("{what} is set already"))
}

impl twinflash_builder {
    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
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
            callbacks: Callbacks::default(),
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

/// Sets a key that is a text: "state_dir" (required), "contract" (by default "iothub-dm"),
/// "current_version", "install.file", "policy.confirm"… Every key, its meaning and its default are in share/doc/twinflash/twinflash.toml,
/// which is installed with the library (examples/agent/twinflash.toml in the sources); a dot goes into a
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
            let object =
                serde_json::from_slice(text(json, "json")?.as_bytes()).map_err(|error| {
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
                    callbacks: std::mem::take(&mut inner.callbacks),
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
    let builder = match inner.installer {
        Some(_) if config.has_installer() => return Err(already("an installer")),
        Some(mut installer) => {
            installer.of(Arc::clone(identity));
            config.builder_with(installer)?
        }
        None => config.builder()?,
    };
    let polled = Polled::new().map_err(|error| {
        Error::new(
            Status::System,
            format_args!("cannot make a descriptor for what is polled: {error}"),
        )
    })?;
    let polled = Arc::new(polled);
    #[cfg_attr(not(feature = "mqtt"), expect(unused_variables))]
    let (builder, listener) = inner.callbacks.given(builder, identity, &polled);
    #[cfg(feature = "mqtt")]
    let (connection, roots, certificate) = (
        config.connection_string()?,
        config.roots()?,
        config.identity()?,
    );
    Ok(twinflash_updater {
        identity: Arc::clone(identity),
        updater: Arc::new(builder.start()?),
        polled,
        #[cfg(feature = "mqtt")]
        listener,
        #[cfg(feature = "mqtt")]
        connected: AtomicBool::new(false),
        #[cfg(feature = "mqtt")]
        connection,
        #[cfg(feature = "mqtt")]
        roots,
        #[cfg(feature = "mqtt")]
        certificate,
    })
}

//! A connection to the hub of the library's own.

use crate::status::twinflash_status as Status;
use crate::{
    boundary::{Identity, UserData, bytes, callback, enter, handle, not_in_callback, place, text},
    callbacks::{hear, twinflash_destroy_callback},
    event::twinflash_event,
    inbound::twinflash_answer,
    status::{Error, twinflash_error, twinflash_status},
    updater::{Polled, twinflash_updater},
};
use engine::device::{Answer, Device, DeviceOptions};
use std::{
    ffi::{CString, c_char, c_void},
    ptr,
    sync::{Arc, atomic::Ordering},
};

/// An updater's own connection to its hub. Any thread.
pub struct twinflash_device {
    identity: Arc<Identity>,
    polled: Arc<Polled>,
    device: Device,
}

/// Gets the direct methods that are not the updater's, on the connection's thread: it must not wait.
/// True where `answer->status` and, made by malloc, `answer->payload` are filled in (it is NULL before;
/// the library calls free()); false answers 404. `payload` is not ended by a zero.
pub type twinflash_method_callback = Option<
    unsafe extern "C" fn(
        name: *const c_char,
        payload: *const c_void,
        length: usize,
        answer: *mut twinflash_answer,
        user_data: *mut c_void,
    ) -> bool,
>;

unsafe extern "C" {
    fn free(block: *mut c_void);
}

struct Methods {
    call: unsafe extern "C" fn(
        *const c_char,
        *const c_void,
        usize,
        *mut twinflash_answer,
        *mut c_void,
    ) -> bool,
    data: UserData,
    of: Arc<Identity>,
}

impl Methods {
    fn answer(&self, name: &str, payload: &[u8]) -> Option<Answer> {
        let name = CString::new(name).ok()?;
        let mut answer = twinflash_answer {
            status: 0,
            payload: ptr::null_mut(),
            payload_length: 0,
        };
        let taken = callback(&self.of, || {
            // SAFETY: the application gave the function for this.
            unsafe {
                (self.call)(
                    name.as_ptr(),
                    payload.as_ptr().cast(),
                    payload.len(),
                    &mut answer,
                    self.data.pointer,
                )
            }
        });
        let text = match answer.payload.is_null() {
            true => "null".into(),
            false => {
                let start = answer.payload.cast::<u8>();
                // SAFETY: the application vouches for the length of what it made.
                let bytes = unsafe { bytes(start.cast(), answer.payload_length, "payload") };
                let text = bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
                // SAFETY: made by malloc, and not used again.
                unsafe { free(answer.payload.cast()) };
                text.unwrap_or_else(|_| "null".into())
            }
        };
        taken.then(|| Answer {
            status: u16::try_from(answer.status).unwrap_or(500),
            payload: text,
        })
    }
}

/// Starts to connect an updater to its hub; returns at once. It stays connected, with a renewed token
/// and after every failure, until twinflash_device_free. Events of the connection come with the
/// updater's; what was set to get what is to be sent gets nothing any more.
///
/// `connection_string` may be NULL where the configuration has "connection_string"; "@FILE" stands for
/// what that file holds. The hub's certificate authorities are the configuration's ("ca"), and so is the
/// certificate ("client_certificate", "client_key") of a device whose connection string says `x509=true`.
/// `on_method` may be NULL. `destroy` frees `user_data`, in every case, once `on_method` is not called any more.
/// An updater has one device in its life: TWINFLASH_STATUS_ALREADY_SET. Neither this nor
/// twinflash_device_free is in a library built without MQTT.
///
/// # Safety
/// `updater` is null or an updater that is not freed; `connection_string` is null or ended by a zero;
/// `on_method` is as its type says and may be given `user_data` on any thread, until the device is
/// freed; `device` and `error` are null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_device_connect(
    updater: *const twinflash_updater,
    connection_string: *const c_char,
    on_method: twinflash_method_callback,
    user_data: *mut c_void,
    destroy: twinflash_destroy_callback,
    device: *mut *mut twinflash_device,
    error: *mut twinflash_error,
) -> twinflash_status {
    // SAFETY: as the caller vouches.
    unsafe {
        enter(error, || {
            let data = UserData::new(user_data, destroy);
            let device = place(device, "device")?;
            device.set(ptr::null_mut());
            let updater = handle(updater, "updater")?;
            let connection = match connection_string.is_null() {
                true => updater.connection.clone().ok_or_else(|| {
                    Error::new(
                        Status::InvalidConfig,
                        "no connection string: give one, or set connection_string in the configuration",
                    )
                })?,
                false => {
                    let given = text(connection_string, "connection_string")?;
                    engine::config::connection_string(given, "".as_ref())?
                }
            };
            let listener = Arc::clone(&updater.listener);
            let mut options = DeviceOptions::new(&connection)?
                .roots(updater.roots.clone())
                .identity(updater.certificate.clone())
                .on_event(move |event| hear(&listener, twinflash_event::of_device(&event)));
            if let Some(call) = on_method {
                let methods = Methods {
                    call,
                    data,
                    of: Arc::clone(&updater.identity),
                };
                options = options.on_method(move |name, payload| methods.answer(name, payload));
            }
            if updater.connected.swap(true, Ordering::AcqRel) {
                return Err(Error::new(
                    Status::AlreadySet,
                    "the updater has a device already, and can have but one",
                ));
            }
            let connected = Device::connect(Arc::clone(&updater.updater), options)
                .inspect_err(|_| updater.connected.store(false, Ordering::Release))
                .map_err(|it| updater.failed(it))?;
            device.set(Box::into_raw(Box::new(twinflash_device {
                identity: Arc::clone(&updater.identity),
                polled: Arc::clone(&updater.polled),
                device: connected,
            })));
            Ok(Status::Ok)
        })
    }
}

/// Ends the connection, closes the updater and frees the device; the updater is still to be freed. NULL
/// is fine. Returns within a second. In a callback: TWINFLASH_STATUS_IN_CALLBACK, and nothing happens.
///
/// # Safety
/// `device` is null or a device that is not freed, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_device_free(device: *mut twinflash_device) -> twinflash_status {
    if device.is_null() {
        return Status::Ok;
    }
    // SAFETY: as the caller vouches; no error to write to.
    unsafe {
        enter(ptr::null_mut(), || {
            not_in_callback(&(*device).identity, "twinflash_device_free")?;
            let device = Box::from_raw(device);
            device.polled.begin_close();
            device.device.close();
            device.polled.close();
            Ok(Status::Ok)
        })
    }
}

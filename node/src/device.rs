//! An own connection to the hub.

use crate::{
    event,
    failure::{Thrown, fault, thrown},
    updater::NativeUpdater,
};
use engine::{
    config::{self, Config},
    device::{Device, DeviceOptions},
    tls::Roots,
    update::{Code, Failure},
};
use napi_derive::napi;
use std::sync::{Arc, PoisonError};

#[napi]
impl NativeUpdater {
    /// Starts to connect; `deliver("device", [name, value])` tells what comes of it. Without a
    /// connection string, and without what `more` (a configuration in JSON) may have, those of the updater's
    /// configuration.
    #[napi(catch_unwind)]
    pub fn connect(&self, connection_string: Option<String>, more: String) -> Result<(), Thrown> {
        let held = &self.held;
        let given = connection_string.or_else(|| held.connection.clone());
        let given = given.ok_or_else(|| {
            thrown(Failure::new(
                Code::InvalidConfig,
                "connectionString is missing: give one to Device, or in the updater's options",
            ))
        })?;
        let connection = config::connection_string(&given, "".as_ref()).map_err(thrown)?;
        let more = Config::from_json(more.as_bytes()).map_err(thrown)?;
        let roots = match more.roots().map_err(thrown)? {
            Roots::BuiltIn => held.roots.clone(),
            roots => roots,
        };
        let certificate = more.identity().map_err(thrown)?;
        let certificate = certificate.or_else(|| held.certificate.clone());
        let bridge = Arc::clone(&held.bridge);
        let options = DeviceOptions::new(&connection)
            .map_err(thrown)?
            .roots(roots)
            .identity(certificate)
            .on_event(move |event| {
                if let Some(event) = event::device(&event) {
                    bridge.send("device", &event);
                }
            });
        let mut place = held.device.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_some() {
            return Err(fault("the updater has a Device already"));
        }
        let updater = Arc::clone(&held.updater);
        *place = Some(Device::connect(updater, options).map_err(thrown)?);
        Ok(())
    }
}

//! An own connection to the hub.

use crate::{
    event,
    failure::{Thrown, fault, thrown},
    updater::NativeUpdater,
};
use engine::{
    config::{self, Config},
    device::{Device, DeviceOptions},
    update::{Code, Failure},
};
use napi_derive::napi;
use std::sync::{Arc, PoisonError};

#[napi]
impl NativeUpdater {
    /// Starts to connect; `deliver("device", [name, value])` tells what comes of it. Without a
    /// connection string and authorities, those of the updater's configuration.
    #[napi(catch_unwind)]
    pub fn connect(
        &self,
        connection_string: Option<String>,
        ca: Option<String>,
    ) -> Result<(), Thrown> {
        let held = &self.held;
        let given = connection_string.or_else(|| held.connection.clone());
        let given = given.ok_or_else(|| {
            thrown(Failure::new(
                Code::InvalidConfig,
                "connectionString is missing: give one to Device, or in the updater's options",
            ))
        })?;
        let connection = config::connection_string(&given, "".as_ref()).map_err(thrown)?;
        let roots = match ca {
            None => held.roots.clone(),
            Some(ca) => {
                let json = serde_json::json!({"state_dir": "", "ca": ca}).to_string();
                let config = Config::from_json(json.as_bytes()).map_err(thrown)?;
                config.roots().map_err(thrown)?
            }
        };
        let bridge = Arc::clone(&held.bridge);
        let options = DeviceOptions::new(&connection)
            .map_err(thrown)?
            .roots(roots)
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

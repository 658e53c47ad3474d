//! Configurations, and the devices they are applied to.

use super::{IfMatch, Shared, State, internal};
use crate::{
    configurations::{Configuration, MAX_CONFIGURATIONS, apply},
    error::{Code, Refusal},
    store::{self, Device},
};
use serde_json::Value;
use std::{ops::Bound, sync::Arc};

/// How many devices are looked at before others get at the state.
const CHUNK: usize = 500;

impl Shared {
    /// Makes a configuration, or with `if_match` changes it; whether it is new. [`Shared::apply_configuration`] follows.
    pub(crate) fn put_configuration(
        &self,
        id: &str,
        body: &Value,
        if_match: &IfMatch,
    ) -> Result<bool, Refusal> {
        let mut state = self.lock();
        let known = state.configurations.get(id);
        let is_new = known.is_none();
        let configuration = match (known, if_match) {
            (Some(_), IfMatch::None) => {
                return Err(Refusal::new(
                    Code::CONFIGURATION_EXISTS,
                    format!("Configuration {id} exists already: an update needs If-Match."),
                ));
            }
            (Some(known), _) => {
                if_match.check(&known.etag())?;
                known.update(body)?
            }
            (None, IfMatch::None) if state.configurations.len() >= MAX_CONFIGURATIONS => {
                return Err(Refusal::argument(format!(
                    "This hub takes at most {MAX_CONFIGURATIONS} configurations."
                )));
            }
            (None, IfMatch::None) => Configuration::create(id, body)?,
            (None, _) => return Err(none(id)),
        };
        state
            .store
            .put(store::CONFIGURATIONS, id, &configuration.definition)
            .map_err(internal)?;
        state
            .configurations
            .insert(id.to_owned(), Arc::new(configuration));
        Ok(is_new)
    }

    /// Forgets a configuration. [`Shared::apply_configuration`] follows.
    pub(crate) fn delete_configuration(&self, id: &str, if_match: &IfMatch) -> Result<(), Refusal> {
        let mut state = self.lock();
        let known = state.configurations.get(id).ok_or_else(|| none(id))?;
        if_match.check(&known.etag())?;
        state
            .store
            .remove(store::CONFIGURATIONS, id)
            .map_err(internal)?;
        state.configurations.remove(id);
        Ok(())
    }

    pub(crate) fn configuration(&self, id: &str) -> Result<Arc<Configuration>, Refusal> {
        let state = self.lock();
        state
            .configurations
            .get(id)
            .cloned()
            .ok_or_else(|| none(id))
    }

    /// The first `top` configurations, by id.
    pub(crate) fn list_configurations(&self, top: usize) -> Vec<Arc<Configuration>> {
        let state = self.lock();
        state.configurations.values().take(top).cloned().collect()
    }

    /// After a configuration was made, changed or deleted: brings the devices it concerns to what is wanted now. A device
    /// that changes in between is brought there by its own change.
    pub(crate) async fn apply_configuration(&self, id: &str) -> Result<(), Refusal> {
        let mut after = None;
        while let Some(next) = self.apply_to_some(id, after.as_deref())? {
            after = Some(next);
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn apply_to_some(&self, id: &str, after: Option<&str>) -> Result<Option<String>, Refusal> {
        let mut state = self.lock();
        let configuration = state.configurations.get(id);
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut changed = Vec::new();
        let mut next = None;
        let entries = state.entries.range::<str, _>((start, Bound::Unbounded));
        for (index, (device_id, entry)) in entries.enumerate() {
            let device = &entry.device;
            if device.assignment.applied.contains_key(id)
                || configuration.is_some_and(|configuration| configuration.targets(device))
            {
                let mut device = device.clone();
                let told = state.configure(&mut device);
                if told.is_some() || device.assignment != entry.device.assignment {
                    changed.push((device, told));
                }
            }
            if index + 1 == CHUNK {
                next = Some(device_id.clone());
                break;
            }
        }
        state
            .store
            .put_devices(changed.iter().map(|(device, _)| device))
            .map_err(internal)?;
        let mut told = Vec::new();
        for (device, patch) in changed {
            let id = device.identity.device_id.clone();
            let entry = state.entry_mut(&id)?;
            entry.device = device;
            if let Some(patch) = patch {
                entry.send_desired(&patch);
                told.push((id, patch));
            }
        }
        drop(state);
        for (id, patch) in told {
            self.tell_desired(&id, patch);
        }
        Ok(next)
    }
}

impl State {
    /// Brings a device, before it is saved, to what the configurations want. Returns the patch it is to be told.
    pub(super) fn configure(&self, device: &mut Device) -> Option<Value> {
        apply(self.configurations.values().map(AsRef::as_ref), device)
    }

    /// What a kill left undone.
    pub(super) fn configure_all(&mut self) -> Result<(), String> {
        let mut changed = Vec::new();
        for entry in self.entries.values() {
            let mut device = entry.device.clone();
            let told = self.configure(&mut device);
            if told.is_some() || device.assignment != entry.device.assignment {
                changed.push(device);
            }
        }
        self.store.put_devices(changed.iter())?;
        for device in changed {
            if let Some(entry) = self.entries.get_mut(&device.identity.device_id) {
                entry.device = device;
            }
        }
        Ok(())
    }
}

fn none(id: &str) -> Refusal {
    Refusal::new(
        Code::CONFIGURATION_NOT_FOUND,
        format!(
            "There is no configuration {:?}.",
            id.chars().take(140).collect::<String>()
        ),
    )
}

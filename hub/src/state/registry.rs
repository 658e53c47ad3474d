//! The identity registry: devices made, changed, listed and deleted, one at a time or many in one request.

use super::{Entry, IfMatch, Shared};
use crate::{
    clock,
    configurations::Assignment,
    error::{Code, Refusal, internal},
    event::DisconnectReason,
    identity::{self, Identity},
    store::Device,
    twin::Twin,
};
use serde_json::Value;

/// How many devices a hub takes.
const MAX_DEVICES: usize = 100_000;

impl Shared {
    /// Makes a device, or with `if_match` changes it. Returns what the registry shows.
    pub(crate) fn put_device(
        &self,
        id: &str,
        body: &Value,
        if_match: &IfMatch,
    ) -> Result<Value, Refusal> {
        self.put_device_with_twin(id, body, if_match, None)
    }

    /// Like [`Shared::put_device`]; with `twin` the body's tags and desired properties are merged into its twin, if that
    /// condition holds.
    fn put_device_with_twin(
        &self,
        id: &str,
        body: &Value,
        if_match: &IfMatch,
        twin: Option<&IfMatch>,
    ) -> Result<Value, Refusal> {
        identity::check_device_id(id)?;
        let mut state = self.lock();
        let mut device = match (state.entries.get(id), if_match) {
            (Some(_), IfMatch::None) => {
                return Err(Refusal::new(
                    Code::DEVICE_EXISTS,
                    format!("Device {id} is already registered."),
                ));
            }
            (Some(entry), _) => {
                if_match.check(&entry.device.identity.etag())?;
                entry.device.clone()
            }
            (None, IfMatch::None) => {
                if state.entries.len() >= MAX_DEVICES {
                    return Err(Refusal::new(
                        Code::TOO_MANY_DEVICES,
                        format!("This hub takes at most {MAX_DEVICES} devices."),
                    ));
                }
                Device {
                    identity: Identity::new(id, clock::unix_nanos()).map_err(internal)?,
                    twin: Twin::new(),
                    subscriptions: None,
                    assignment: Assignment::default(),
                }
            }
            (None, _) => return Err(Refusal::no_device(id)),
        };
        device.identity.update(body)?;
        let mut told = Vec::new();
        if let Some(if_match) = twin {
            if_match.check(&device.twin.etag())?;
            told.extend(device.twin.update(body, false)?);
        }
        told.extend(state.configure(&mut device));
        let enabled = device.identity.enabled;
        let entry = state.save(device)?;
        told.iter().for_each(|patch| entry.send_desired(patch));
        if !enabled && let Some(live) = &mut entry.live {
            live.close(DisconnectReason::Removed);
        }
        let shown = entry.device.identity.shown(&entry.activity);
        drop(state);
        for patch in told {
            self.tell_desired(id, patch);
        }
        Ok(shown)
    }

    /// Does what one entry of a bulk request asks for. As Azure, in any case: the Node SDK says `Update` and `etag`.
    pub(crate) fn import_device(&self, id: &str, entry: &Value) -> Result<(), Refusal> {
        let text = |name: &str| {
            let mut members = entry.as_object()?.iter();
            members
                .find(|(found, _)| found.eq_ignore_ascii_case(name))?
                .1
                .as_str()
        };
        if text("moduleId").is_some_and(|module| !module.is_empty()) {
            return Err(Refusal::argument("This hub has no modules."));
        }
        let etag = |name: &str| match text(name) {
            Some(etag) => Ok(IfMatch::Etag(etag.trim_matches('"').into())),
            None => Err(Refusal::argument(format!("This importMode needs {name}."))),
        };
        let has_twin = ["/tags", "/properties/desired"].iter().any(|section| {
            entry
                .pointer(section)
                .is_some_and(|section| !section.is_null())
        });
        let put = |if_match: &IfMatch, twin: IfMatch| {
            self.put_device_with_twin(id, entry, if_match, has_twin.then_some(&twin))
                .map(drop)
        };
        let patch = |if_match: &IfMatch| self.update_twin(id, entry, false, if_match).map(drop);
        let mode = text("importMode").unwrap_or("create");
        match mode.to_ascii_lowercase().as_str() {
            "create" => put(&IfMatch::None, IfMatch::Any),
            "update" => put(&IfMatch::Any, IfMatch::Any),
            "updateifmatchetag" => put(&etag("eTag")?, etag("twinETag").unwrap_or(IfMatch::Any)),
            "updatetwin" => patch(&IfMatch::Any),
            "updatetwinifmatchetag" => patch(&etag("twinETag")?),
            "delete" => self.delete_device(id, &IfMatch::Any),
            "deleteifmatchetag" => self.delete_device(id, &etag("eTag")?),
            _ => Err(Refusal::argument(
                "importMode should be create, update, updateIfMatchETag, updateTwin, updateTwinIfMatchETag, delete or \
                 deleteIfMatchETag.",
            )),
        }
    }

    pub(crate) fn get_device(&self, id: &str) -> Result<Value, Refusal> {
        let state = self.lock();
        let entry = state.entry(id)?;
        Ok(entry.device.identity.shown(&entry.activity))
    }

    /// The first `top` devices, by id.
    pub(crate) fn list_devices(&self, top: usize) -> Vec<Value> {
        let state = self.lock();
        let shown = |entry: &Entry| entry.device.identity.shown(&entry.activity);
        state.entries.values().take(top).map(shown).collect()
    }

    pub(crate) fn delete_device(&self, id: &str, if_match: &IfMatch) -> Result<(), Refusal> {
        let mut state = self.lock();
        if_match.check(&state.entry(id)?.device.identity.etag())?;
        state.store.remove_device(id).map_err(internal)?;
        if let Some(mut live) = state.entries.remove(id).and_then(|entry| entry.live) {
            live.close(DisconnectReason::Removed);
        }
        Ok(())
    }

    /// How many devices there are, how many of them are enabled, and how many connected.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let state = self.lock();
        let count =
            |of: fn(&Entry) -> bool| state.entries.values().filter(|entry| of(entry)).count();
        (
            state.entries.len(),
            count(|entry| entry.device.identity.enabled),
            count(|entry| entry.live.is_some()),
        )
    }
}

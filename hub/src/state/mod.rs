//! All that a running hub knows, behind one lock. What must last is handed to the [`Store`] before it is in here; nobody is
//! answered before it is durable there: [`Shared::durable`] stands before every answer.

mod access;
mod configurations;
mod connections;
mod jobs;
mod query;
mod registry;

use crate::{
    clock,
    configurations::{Configuration, Definition},
    error::{Code, Error, Refusal, internal},
    event::{Event, Observer},
    identity::{Activity, Authentication},
    jobs::MAX_BUSY,
    methods::Calls,
    sas::{Keys, POLICIES},
    store::{self, Device, Durable, Policies, Store},
    telemetry::Telemetry,
    throttle::Throttle,
    x509::Authorities,
};
pub(crate) use access::without_port;
pub(crate) use connections::Attached;
use connections::Live;
use jobs::Jobs;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};
use tokio::sync::{Notify, Semaphore, watch};

struct Entry {
    device: Device,
    activity: Activity,
    live: Option<Live>,
}

struct State {
    entries: BTreeMap<String, Entry>,
    configurations: BTreeMap<String, Arc<Configuration>>,
    jobs: Jobs,
    store: Store,
    next_connection: u64,
}

/// What all of a hub's tasks share.
pub(crate) struct Shared {
    pub(crate) host_name: String,
    observer: Option<Observer>,
    policies: Policies,
    authorities: Authorities,
    pub(crate) throttle: Throttle,
    state: Mutex<State>,
    /// Not there as long as each change is durable at once.
    durable: OnceLock<Durable>,
    pub(crate) calls: Calls,
    pub(crate) telemetry: Telemetry,
    /// As many permits as devices that jobs may be busy with.
    pub(crate) busy_with_jobs: Arc<Semaphore>,
    /// Rings when a device became able to take direct methods.
    pub(crate) reachable: Notify,
    /// Becomes true when the hub stops.
    stopping: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(
        host_name: String,
        observer: Option<Observer>,
        store: Store,
        authorities: Authorities,
        throttle: Throttle,
    ) -> Result<Self, Error> {
        let (policies, devices) = store.load()?;
        let policies = match policies {
            Some(policies) => policies,
            None => {
                let policies = POLICIES
                    .iter()
                    .map(|(name, _)| Ok(((*name).to_owned(), Keys::random()?)))
                    .collect::<Result<Policies, Error>>()?;
                store.put_policies(&policies).map_err(Error::System)?;
                policies
            }
        };
        let entries = devices
            .into_iter()
            .map(|device| {
                let id = device.identity.device_id.clone();
                (
                    id,
                    Entry {
                        device,
                        activity: Activity::none(),
                        live: None,
                    },
                )
            })
            .collect();
        let definitions: Vec<Definition> = store.rows(store::CONFIGURATIONS)?;
        let configurations = definitions
            .into_iter()
            .map(|definition| {
                let id = definition.id.clone();
                let configuration = Configuration::new(definition).map_err(|refusal| {
                    Error::System(format!("configuration {id}: {}", refusal.message))
                })?;
                Ok((id, Arc::new(configuration)))
            })
            .collect::<Result<_, Error>>()?;
        let jobs = Jobs::load(&store)?;
        let mut state = State {
            entries,
            configurations,
            jobs,
            store,
            next_connection: 1,
        };
        state.configure_all().map_err(Error::System)?;
        Ok(Self {
            host_name,
            observer,
            policies,
            authorities,
            throttle,
            state: Mutex::new(state),
            durable: OnceLock::new(),
            calls: Calls::default(),
            telemetry: Telemetry::default(),
            busy_with_jobs: Arc::new(Semaphore::new(MAX_BUSY)),
            reachable: Notify::new(),
            stopping: watch::Sender::new(false),
        })
    }

    /// Tells all tasks to end.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Waits until the hub stops.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.subscribe();
        async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }

    /// Waits until all that is known is durable, if it is kept: to be called before anybody is answered.
    pub(crate) async fn durable(&self) -> Result<(), Refusal> {
        match self.durable.get() {
            Some(durable) => durable.now().await.map_err(internal),
            None => Ok(()),
        }
    }

    /// From now on changes are durable when [`Shared::durable`] says so, no longer at once.
    pub(crate) fn write_behind(&self) -> Result<(), Error> {
        let durable = self.lock().store.write_behind()?;
        let _ = self.durable.set(durable);
        Ok(())
    }

    /// Lets others go on between two parts of what takes long, and ends it when the hub stops.
    pub(crate) async fn give_way(&self) -> Result<(), Refusal> {
        tokio::task::yield_now().await;
        match *self.stopping.borrow() {
            true => Err(Refusal::stopping()),
            false => Ok(()),
        }
    }

    /// Tells the observer.
    pub(crate) fn tell(&self, event: &Event) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }

    /// A panic elsewhere must not stop the hub: state is only ever replaced whole, so it is sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every device with its primary key, if it has one.
    pub(crate) fn device_keys(&self) -> Vec<(String, Option<String>)> {
        let key = |authentication: &Authentication| match authentication {
            Authentication::Sas(keys) => Some(keys.primary_key.0.clone()),
            _ => None,
        };
        self.lock()
            .entries
            .iter()
            .map(|(id, entry)| (id.clone(), key(&entry.device.identity.authentication)))
            .collect()
    }

    // Twins

    pub(crate) fn service_twin(&self, id: &str) -> Result<Value, Refusal> {
        self.lock().entry(id).map(Entry::shown_twin)
    }

    /// A back end's PATCH or, with `replace`, PUT. The device is told of changed desired properties.
    pub(crate) fn update_twin(
        &self,
        id: &str,
        body: &Value,
        replace: bool,
        if_match: &IfMatch,
    ) -> Result<Value, Refusal> {
        let mut state = self.lock();
        if_match.check(&state.entry(id)?.device.twin.etag())?;
        let (device, told) = state.updated(id, body, replace)?;
        let entry = state.save(device)?;
        told.iter().for_each(|patch| entry.send_desired(patch));
        let shown = entry.shown_twin();
        drop(state);
        for patch in told {
            self.tell_desired(id, patch);
        }
        Ok(shown)
    }

    /// Tells the observer that a device's desired properties changed.
    fn tell_desired(&self, id: &str, patch: Value) {
        self.tell(&Event::DesiredPatched {
            device: id.into(),
            version: version(&patch),
            patch,
        });
    }

    pub(crate) fn device_twin(&self, id: &str) -> Result<Value, Refusal> {
        Ok(self.lock().entry(id)?.device.twin.for_device())
    }

    /// A device's PATCH of its reported properties; returns their new version. With `expected`, only if that is the
    /// version they have now.
    pub(crate) fn patch_reported(
        &self,
        id: &str,
        patch: &Value,
        expected: Option<&str>,
    ) -> Result<u64, Refusal> {
        let mut state = self.lock();
        let mut device = state.entry(id)?.device.clone();
        let current = device.twin.reported.version;
        if let Some(expected) = expected
            && expected.parse() != Ok(current)
        {
            return Err(Refusal::new(
                Code::PRECONDITION_FAILED,
                format!("Precondition failed: the reported properties have version {current}."),
            ));
        }
        device.twin.patch_reported(patch)?;
        let version = device.twin.reported.version;
        let configured = state.configure(&mut device);
        let entry = state.save(device)?;
        if let Some(patch) = configured {
            entry.send_desired(&patch);
            drop(state);
            self.tell_desired(id, patch);
        }
        Ok(version)
    }
}

impl State {
    fn entry(&self, id: &str) -> Result<&Entry, Refusal> {
        self.entries.get(id).ok_or_else(|| Refusal::no_device(id))
    }

    fn entry_mut(&mut self, id: &str) -> Result<&mut Entry, Refusal> {
        self.entries
            .get_mut(id)
            .ok_or_else(|| Refusal::no_device(id))
    }

    /// A device as a back end's PATCH or PUT makes it, to be saved, and the patches it is to be told.
    fn updated(
        &self,
        id: &str,
        body: &Value,
        replace: bool,
    ) -> Result<(Device, Vec<Value>), Refusal> {
        let mut device = self.entry(id)?.device.clone();
        let told = device.twin.update(body, replace)?;
        let configured = self.configure(&mut device);
        Ok((device, told.into_iter().chain(configured).collect()))
    }

    /// Keeps a changed or new device, in the store first.
    fn save(&mut self, device: Device) -> Result<&mut Entry, Refusal> {
        self.store.put_device(&device).map_err(internal)?;
        let entry = self
            .entries
            .entry(device.identity.device_id.clone())
            .or_insert_with(|| Entry {
                device: device.clone(),
                activity: Activity::none(),
                live: None,
            });
        entry.device = device;
        Ok(entry)
    }
}

impl Entry {
    /// Sends a patch of the desired properties if the device is there to hear it.
    fn send_desired(&mut self, patch: &Value) {
        let version = version(patch);
        let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
        if let Some(live) = &mut self.live
            && live.subscribed_to(&topic)
        {
            self.activity.last = clock::now();
            live.send(topic, patch.to_string().into_bytes());
        }
    }

    fn shown_twin(&self) -> Value {
        let mut shown = self.device.twin.for_service();
        if let (Some(configurations), Value::Object(shown)) =
            (self.device.assignment.shown(), &mut shown)
        {
            shown.insert("configurations".into(), configurations);
        }
        if let (Value::Object(shown), Value::Object(rest)) = (&mut shown, self.shown_identity()) {
            shown.extend(rest);
        }
        shown
    }

    /// The members of the shown twin that say whose it is.
    fn shown_identity(&self) -> Value {
        let identity = &self.device.identity;
        json!({
            "deviceId": identity.device_id,
            "deviceEtag": identity.etag(),
            "status": identity.status(),
            "statusUpdateTime": identity.status_updated_time(),
            "connectionState": self.activity.state(),
            "lastActivityTime": self.activity.last,
            "cloudToDeviceMessageCount": 0,
            "authenticationType": identity.authentication.name(),
            "x509Thumbprint": identity.authentication.thumbprints(),
            "modelId": "",
            "capabilities": {"iotEdge": false},
        })
    }
}

/// The `$version` of a patch.
fn version(patch: &Value) -> u64 {
    patch.get("$version").and_then(Value::as_u64).unwrap_or(0)
}

/// The condition of a request's `If-Match` header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// There is none. An unquoted etag is none either: the real hub ignores it.
    None,
    /// `*`: whatever is there.
    Any,
    /// This etag.
    Etag(String),
}

impl IfMatch {
    pub(crate) fn parse(header: Option<&str>) -> Self {
        match header.map(str::trim) {
            Some("*" | "\"*\"") => Self::Any,
            Some(text) => text
                .strip_prefix('"')
                .and_then(|text| text.strip_suffix('"'))
                .map_or(Self::None, |etag| Self::Etag(etag.into())),
            None => Self::None,
        }
    }

    fn check(&self, etag: &str) -> Result<(), Refusal> {
        match self {
            Self::Etag(wanted) if wanted != etag => Err(Refusal::new(
                Code::PRECONDITION_FAILED,
                "Precondition failed: the etag of If-Match is not the current one.",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match() {
        assert_eq!(IfMatch::parse(None), IfMatch::None);
        assert_eq!(IfMatch::parse(Some("AAAA")), IfMatch::None);
        assert_eq!(IfMatch::parse(Some("\"*\"")), IfMatch::Any);
        assert_eq!(IfMatch::parse(Some("*")), IfMatch::Any);
        assert_eq!(
            IfMatch::parse(Some("\"AAAA\"")),
            IfMatch::Etag("AAAA".into())
        );
        assert!(IfMatch::Etag("x".into()).check("y").is_err());
    }
}

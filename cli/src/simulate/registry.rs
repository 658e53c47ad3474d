//! The simulated devices in the hub's registry.

use crate::{
    devices::{connection_string, registry},
    error::Error,
    service::{About, Refused, Request, Service},
};
use serde_json::{Value, json};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};
use twinflash::iothub::ConnectionString;

/// So many requests at once.
const THREADS: usize = 8;
/// The hub's answer to a device that it has already.
const CONFLICT: u16 = 409;
const NOT_FOUND: u16 = 404;

/// What a device is registered with.
pub(super) struct Registration<'a> {
    pub(super) service: &'a Service,
    pub(super) tags: Option<Value>,
    pub(super) mqtt_port: u16,
}

/// A device that is registered.
pub(super) struct Registered {
    pub(super) connection: ConnectionString,
    /// By this command.
    pub(super) new: bool,
}

/// The devices' ids.
pub(super) fn ids(prefix: &str, devices: usize) -> Vec<String> {
    let width = devices.to_string().len().max(5);
    let id = |number| format!("{prefix}{number:0width$}");
    (1..=devices).map(id).collect()
}

impl Registration<'_> {
    /// Registers those that are not there yet; `progress` is told how many are done. What was done is
    /// there also where not all could be.
    pub(super) fn create(
        &self,
        ids: &[String],
        stopped: &AtomicBool,
        progress: &(dyn Fn(usize) + Sync),
    ) -> (Vec<Registered>, Result<(), Error>) {
        each(ids, stopped, progress, |id| self.register(id))
    }

    fn register(&self, id: &str) -> Result<Registered, Error> {
        let path = ["devices", id];
        let body = json!({"deviceId": id, "status": "enabled", "authentication": {"type": "sas"}});
        let made = self.service.ask(registry("PUT", &path).body(body));
        let (device, new) = match made {
            Ok(device) => (device, true),
            Err(Refused {
                status: CONFLICT, ..
            }) => (self.service.ask(registry("GET", &path))?, false),
            Err(refused) => return Err(refused.into()),
        };
        if let Some(tags) = &self.tags {
            self.service.patch_twin(id, json!({ "tags": tags }), None)?;
        }
        Ok(Registered {
            connection: connection_string(self.service, &device, self.mqtt_port).parse()?,
            new,
        })
    }

    /// Removes devices; those that are gone already are no error.
    pub(super) fn remove(
        &self,
        ids: &[String],
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<(), Error> {
        let remove = |id: &str| {
            let path = ["devices", id];
            let about = About::Registry(id);
            match self
                .service
                .ask(Request::new("DELETE", &path, about).if_match("*"))
            {
                Ok(_)
                | Err(Refused {
                    status: NOT_FOUND, ..
                }) => Ok(()),
                Err(refused) => Err(refused.into()),
            }
        };
        each(ids, &AtomicBool::new(false), progress, remove).1
    }
}

/// Does something for each device, a few at a time, in the order of the devices. The first error ends it.
fn each<T: Send>(
    ids: &[String],
    stopped: &AtomicBool,
    progress: &(dyn Fn(usize) + Sync),
    act: impl Fn(&str) -> Result<T, Error> + Sync,
) -> (Vec<T>, Result<(), Error>) {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done = Mutex::new((Vec::with_capacity(ids.len()), Ok(())));
    let work = || {
        while !stopped.load(Ordering::Acquire) && !failed.load(Ordering::Acquire) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(id) = ids.get(at) else { return };
            let result = act(id);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(one) => {
                    done.0.push((at, one));
                    progress(done.0.len());
                }
                Err(error) => {
                    failed.store(true, Ordering::Release);
                    done.1 = Err(error);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS.min(ids.len()) {
            scope.spawn(work);
        }
    });
    let (mut all, result) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_by_key(|(at, _)| *at);
    (all.into_iter().map(|(_, one)| one).collect(), result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_as_they_count() {
        assert_eq!(ids("sim-", 2), ["sim-00001", "sim-00002"]);
        assert_eq!(ids("d", 100_000).last().unwrap(), "d100000");
        assert_eq!(ids("d", 100_000)[0], "d000001");
    }

    #[test]
    fn each_is_done_once_in_order_until_one_fails() {
        let ids = ids("", 100);
        let never = AtomicBool::new(false);
        let length = |id: &str| Ok::<_, Error>(id.to_owned());
        let (all, result) = each(&ids, &never, &|_| (), length);
        result.unwrap();
        assert_eq!(all, ids);
        let (some, result) = each(&ids, &never, &|_| (), |id| match id {
            "00050" => Err(Error::new("no")),
            id => Ok(id.to_owned()),
        });
        assert_eq!(result.unwrap_err().to_string(), "no");
        assert!(some.len() < 100 && !some.contains(&"00050".to_owned()));
        let (none, result) = each(&ids, &AtomicBool::new(true), &|_| (), length);
        assert!(none.is_empty() && result.is_ok());
    }
}

//! What the configurations make of one device.

use super::Configuration;
use crate::{query::Document, store::Device};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};
use twinflash::twin::limits::{self, Section};

/// What configurations made of a device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Assignment {
    /// The configurations whose target the device is, and whether each is applied.
    pub(crate) applied: BTreeMap<String, bool>,
    /// What they wrote into its desired properties.
    written: Map<String, Value>,
}

impl Assignment {
    /// How a twin shows a configuration's part in it.
    pub(crate) fn status(applied: bool) -> &'static str {
        if applied { "Applied" } else { "Targeted" }
    }

    /// The twin's `configurations`; none if no configuration targets it.
    pub(crate) fn shown(&self) -> Option<Value> {
        let shown: Map<String, Value> = self
            .applied
            .iter()
            .map(|(id, applied)| (id.clone(), json!({"status": Self::status(*applied)})))
            .collect();
        (!shown.is_empty()).then_some(Value::Object(shown))
    }
}

/// The device as target conditions see it.
struct Target<'a>(&'a Device);

impl Document for Target<'_> {
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        let twin = &self.0.twin;
        let (first, rest) = path.split_first()?;
        match (first.as_str(), rest) {
            ("deviceId", []) => Some(Cow::Owned(self.0.identity.device_id.as_str().into())),
            ("tags", rest) => crate::query::walk(&twin.tags, rest).map(Cow::Borrowed),
            ("properties", [name, rest @ ..]) if name == "reported" => twin.reported.value(rest),
            _ => None,
        }
    }

    fn whole(&self) -> Value {
        self.0.twin.for_service()
    }
}

impl Configuration {
    /// Whether a device is a target.
    pub(crate) fn targets(&self, device: &Device) -> bool {
        self.condition
            .as_ref()
            .is_some_and(|condition| condition.matches(&Target(device)))
    }
}

/// Brings a device's desired properties to what the configurations want, and takes back what none of them wants any more.
/// Returns the patch the device is to be told, if they changed.
pub(crate) fn apply<'c>(
    configurations: impl Iterator<Item = &'c Configuration>,
    device: &mut Device,
) -> Option<Value> {
    let mut targeting: Vec<_> = configurations
        .filter(|configuration| configuration.targets(device))
        .collect();
    if targeting.is_empty() && device.assignment.applied.is_empty() {
        return None;
    }
    targeting.sort_by_key(|configuration| Reverse(configuration.rank()));

    let mut own = device.twin.desired.values().clone();
    if let Value::Object(own) = &mut own {
        take_back(own, &device.assignment.written);
    }
    let with = |chosen: &[&Configuration]| {
        let (written, winners) = merged(chosen);
        let mut desired = own.clone();
        twinflash::twin::merge(&mut desired, &Value::Object(written.clone()));
        let fits = limits::check_size(Section::Desired, &desired).is_ok();
        fits.then_some((written, winners, desired))
    };
    let (written, winners, desired) = with(&targeting).or_else(|| {
        // Together they are too large: then those of the highest priority that fit.
        let mut chosen = Vec::new();
        for configuration in &targeting {
            chosen.push(*configuration);
            if with(&chosen).is_none() {
                chosen.pop();
            }
        }
        with(&chosen)
    })?;

    device.assignment = Assignment {
        applied: targeting
            .iter()
            .map(|configuration| {
                let id = &configuration.definition.id;
                (id.clone(), winners.contains(id))
            })
            .collect(),
        written,
    };
    device.twin.set_desired(&desired)
}

/// What configurations, the one that wins first, write together; and which of them won a path.
fn merged(configurations: &[&Configuration]) -> (Map<String, Value>, BTreeSet<String>) {
    let (mut paths, mut winners, mut writes) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for configuration in configurations {
        for (path, value) in &configuration.settings {
            if paths.insert(path) {
                winners.insert(configuration.definition.id.clone());
                writes.push((path, value));
            }
        }
    }
    let mut all = json!({});
    for (path, value) in writes.into_iter().rev() {
        twinflash::twin::merge(&mut all, &nested(path, value.clone()));
    }
    match all {
        Value::Object(all) => (all, winners),
        _ => (Map::new(), winners),
    }
}

/// A value within objects of these names.
pub(super) fn nested(path: &[String], value: Value) -> Value {
    path.iter()
        .rfold(value, |value, name| json!({ name.as_str(): value }))
}

/// Removes what was written, and objects that have nothing else.
fn take_back(desired: &mut Map<String, Value>, written: &Map<String, Value>) {
    for (name, value) in written {
        if let (Some(Value::Object(inner)), Value::Object(written)) = (desired.get_mut(name), value)
        {
            take_back(inner, written);
            if !inner.is_empty() {
                continue;
            }
        }
        desired.remove(name);
    }
}

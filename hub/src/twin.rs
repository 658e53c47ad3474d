//! Twins: what they hold, how they change, and how they are shown.

use crate::{
    clock,
    error::{Code, Refusal},
    query::walk,
};
use base64ct::{Base64, Encoding as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use twinflash::twin::limits::{self, Limit, Section, Violation};

/// Desired or reported properties, with when each was written.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Properties {
    values: Value,
    metadata: Map<String, Value>,
    pub(crate) version: u64,
}

impl Properties {
    fn new() -> Self {
        let mut metadata = Map::new();
        // There on an empty section too: the .NET service SDK reads it.
        metadata.insert("$lastUpdated".into(), clock::now().into());
        Self {
            values: json!({}),
            metadata,
            version: 1,
        }
    }

    /// The values alone.
    pub(crate) fn values(&self) -> &Value {
        &self.values
    }

    /// What a device gets: the values and the version.
    fn for_device(&self) -> Value {
        with(self.values.clone(), "$version", self.version.into())
    }

    /// What a back end gets: the values, when they were written, and the version.
    fn for_service(&self) -> Value {
        with(
            self.for_device(),
            "$metadata",
            Value::Object(self.metadata.clone()),
        )
    }

    /// The value at a path, as [`Self::for_service`] would show it.
    pub(crate) fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        let Some((first, rest)) = path.split_first() else {
            return Some(Cow::Owned(self.for_service()));
        };
        match (first.as_str(), rest) {
            ("$version", []) => Some(Cow::Owned(self.version.into())),
            ("$metadata", []) => Some(Cow::Owned(Value::Object(self.metadata.clone()))),
            ("$metadata", [name, rest @ ..]) => {
                walk(self.metadata.get(name)?, rest).map(Cow::Borrowed)
            }
            _ => walk(&self.values, path).map(Cow::Borrowed),
        }
    }

    /// Merges a patch that was checked. An empty one changes nothing.
    fn merge(&mut self, patch: &Value, stamp: &Map<String, Value>) {
        if let Value::Object(members) = patch {
            stamp_members(&mut self.metadata, members, stamp);
        }
        twinflash::twin::merge(&mut self.values, patch);
    }
}

/// Writes `stamp` to whatever a patch touches, so that the metadata mirror the values' tree.
fn stamp_members(
    metadata: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    stamp: &Map<String, Value>,
) {
    metadata.extend(stamp.clone());
    for (key, value) in patch {
        match value {
            Value::Null => {
                metadata.remove(key);
            }
            Value::Object(members) => {
                let node = metadata.entry(key.clone()).or_insert_with(|| json!({}));
                if let Value::Object(node) = node {
                    stamp_members(node, members, stamp);
                }
            }
            _ => {
                metadata.insert(key.clone(), Value::Object(stamp.clone()));
            }
        }
    }
}

/// A device's twin.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Twin {
    pub(crate) tags: Value,
    pub(crate) desired: Properties,
    pub(crate) reported: Properties,
    /// Grows with each change.
    pub(crate) version: u64,
    /// Grows with each change a back end makes.
    etag: u64,
}

impl Twin {
    pub(crate) fn new() -> Self {
        Self {
            tags: json!({}),
            desired: Properties::new(),
            reported: Properties::new(),
            version: 2,
            etag: 1,
        }
    }

    /// The etag, without quotes.
    pub(crate) fn etag(&self) -> String {
        Base64::encode_string(&self.etag.to_be_bytes())
    }

    /// The body of the answer to a device's GET.
    pub(crate) fn for_device(&self) -> Value {
        json!({"desired": self.desired.for_device(), "reported": self.reported.for_device()})
    }

    /// The members a back end's GET has of the twin itself.
    pub(crate) fn for_service(&self) -> Value {
        json!({
            "etag": self.etag(),
            "version": self.version,
            "tags": self.tags,
            "properties": {"desired": self.desired.for_service(), "reported": self.reported.for_service()},
        })
    }

    /// Merges a device's patch into its reported properties.
    pub(crate) fn patch_reported(&mut self, patch: &Value) -> Result<(), Refusal> {
        limits::check_patch(Section::Reported, patch).map_err(refused)?;
        if is_empty(patch) {
            return Ok(());
        }
        let mut stamp = Map::new();
        stamp.insert("$lastUpdated".into(), clock::now().into());
        self.reported.merge(patch, &stamp);
        limits::check_size(Section::Reported, &self.reported.values).map_err(refused)?;
        self.reported.version += 1;
        self.version += 1;
        Ok(())
    }

    /// Applies a back end's PATCH: `tags` and `properties.desired` are merged, or with `replace` (PUT) taken over.
    /// Returns the patch that the device is to be told, if the desired properties changed.
    pub(crate) fn update(&mut self, body: &Value, replace: bool) -> Result<Option<Value>, Refusal> {
        let empty = json!({});
        let given =
            |value: Option<&Value>| value.cloned().or_else(|| replace.then(|| empty.clone()));
        let tags = given(body.get("tags"));
        let desired = given(body.pointer("/properties/desired"));
        let (tags, desired) = (
            tags.map(without_own_members),
            desired.map(without_own_members),
        );

        if let Some(mut tags) = tags {
            if replace || tags.is_null() {
                tags = twinflash::twin::diff(
                    &self.tags,
                    &if tags.is_null() { empty.clone() } else { tags },
                )
                .unwrap_or(empty.clone());
            }
            limits::check_patch(Section::Tags, &tags).map_err(refused)?;
            twinflash::twin::merge(&mut self.tags, &tags);
            limits::check_size(Section::Tags, &self.tags).map_err(refused)?;
        }
        let mut told = None;
        if let Some(mut desired) = desired {
            if replace || desired.is_null() {
                // A device merges what it is told: it must hear what is gone.
                let wanted = if desired.is_null() {
                    empty.clone()
                } else {
                    desired
                };
                limits::check_patch(Section::Desired, &wanted).map_err(refused)?;
                desired = twinflash::twin::diff(&self.desired.values, &wanted).unwrap_or(empty);
            }
            limits::check_patch(Section::Desired, &desired).map_err(refused)?;
            if !is_empty(&desired) {
                told = Some(self.patch_desired(desired));
                limits::check_size(Section::Desired, &self.desired.values).map_err(refused)?;
            }
        }
        self.version += 1;
        self.etag += 1;
        Ok(told)
    }

    /// Makes the desired properties what a configuration wants. Returns the patch that the device is to be told, if that
    /// changes them.
    pub(crate) fn set_desired(&mut self, wanted: &Value) -> Option<Value> {
        let patch = twinflash::twin::diff(&self.desired.values, wanted)?;
        self.version += 1;
        self.etag += 1;
        Some(self.patch_desired(patch))
    }

    /// Merges a patch that was checked; returns what the device is to be told.
    fn patch_desired(&mut self, patch: Value) -> Value {
        let version = self.desired.version + 1;
        let mut stamp = Map::new();
        stamp.insert("$lastUpdated".into(), clock::now().into());
        stamp.insert("$lastUpdatedVersion".into(), version.into());
        self.desired.merge(&patch, &stamp);
        self.desired.version = version;
        with(patch, "$version", version.into())
    }
}

fn with(mut object: Value, name: &str, member: Value) -> Value {
    if let Value::Object(members) = &mut object {
        members.insert(name.into(), member);
    }
    object
}

/// Back ends send back what they read: the hub's own members of a section are not theirs to set.
fn without_own_members(mut section: Value) -> Value {
    if let Value::Object(members) = &mut section {
        members.remove("$metadata");
        members.remove("$version");
    }
    section
}

fn is_empty(patch: &Value) -> bool {
    patch.as_object().is_some_and(Map::is_empty)
}

fn refused(violation: Violation) -> Refusal {
    let code = match violation.limit {
        Limit::Size(_) => Code::TWIN_TOO_LARGE,
        _ => Code::ARGUMENT_INVALID,
    };
    Refusal::new(code, violation.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_merges_and_its_metadata_mirror_the_tree() {
        let mut twin = Twin::new();
        twin.patch_reported(&json!({"a": {"b": 1, "c": [1]}, "d": "x"}))
            .unwrap();
        twin.patch_reported(&json!({"a": {"b": null, "e": {}}, "d": null}))
            .unwrap();
        let shown = twin.for_service();
        let reported = &shown["properties"]["reported"];
        assert_eq!(reported["a"], json!({"c": [1], "e": {}}));
        assert_eq!(reported["$version"], 3);
        let metadata = &reported["$metadata"];
        let keys = |value: &Value| {
            value
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(metadata), ["$lastUpdated", "a"]);
        assert_eq!(keys(&metadata["a"]), ["$lastUpdated", "c", "e"]);
        assert_eq!(keys(&metadata["a"]["c"]), ["$lastUpdated"]);
        assert_eq!(
            twin.for_device(),
            json!({"desired": {"$version": 1}, "reported": {"a": {"c": [1], "e": {}}, "$version": 3}})
        );
    }

    #[test]
    fn an_object_that_becomes_a_value_and_back_leaves_no_trace_in_the_metadata() {
        let mut twin = Twin::new();
        twin.patch_reported(&json!({"a": {"b": {"c": 1}}})).unwrap();
        twin.patch_reported(&json!({"a": 1})).unwrap();
        twin.patch_reported(&json!({"a": {"d": 1}})).unwrap();
        let shown = twin.for_service();
        let node = shown["properties"]["reported"]["$metadata"]["a"]
            .as_object()
            .unwrap();
        assert_eq!(node.keys().collect::<Vec<_>>(), ["$lastUpdated", "d"]);
    }

    #[test]
    fn desired_changes_are_told_with_nulls_and_version() {
        let mut twin = Twin::new();
        let told = twin
            .update(&json!({"properties": {"desired": {"a": 1, "b": 2, "$version": 9, "$metadata": {}}}}), false)
            .unwrap();
        assert_eq!(told, Some(json!({"a": 1, "b": 2, "$version": 2})));
        let etag = twin.etag();
        let told = twin
            .update(
                &json!({"tags": {"t": 1}, "properties": {"desired": {"a": 3}}}),
                true,
            )
            .unwrap();
        assert_eq!(told, Some(json!({"a": 3, "b": null, "$version": 3})));
        assert_ne!(twin.etag(), etag);
        assert_eq!(twin.tags, json!({"t": 1}));
        assert_eq!(
            twin.update(&json!({"tags": {"t": null}}), false).unwrap(),
            None
        );
        assert_eq!(twin.tags, json!({}));
        assert_eq!(twin.for_device()["desired"], json!({"a": 3, "$version": 3}));
    }

    #[test]
    fn refusals_have_azure_s_codes() {
        let mut twin = Twin::new();
        let code = |result: Result<(), Refusal>| result.unwrap_err().code;
        assert_eq!(
            code(twin.patch_reported(&json!({"a.b": 1}))),
            Code::ARGUMENT_INVALID
        );
        assert_eq!(
            code(twin.patch_reported(&json!({"$version": 1}))),
            Code::ARGUMENT_INVALID
        );
        let large: Map<String, Value> = (0..9)
            .map(|n| (n.to_string(), "x".repeat(4096).into()))
            .collect();
        let large = Value::Object(large);
        assert_eq!(
            code(twin.clone().patch_reported(&large)),
            Code::TWIN_TOO_LARGE
        );
        let body = json!({"properties": {"desired": large}});
        assert_eq!(
            twin.update(&body, false).unwrap_err().code,
            Code::TWIN_TOO_LARGE
        );
        assert_eq!(
            twin.update(&json!({"tags": 1}), false).unwrap_err().code,
            Code::ARGUMENT_INVALID
        );
    }
}

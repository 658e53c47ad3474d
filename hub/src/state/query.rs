//! Twins as the documents of queries.

use super::{Entry, Shared};
use crate::{
    configurations::Assignment,
    query::{Document, take, walk},
};
use serde_json::{Value, json};
use std::{
    borrow::Cow,
    ops::{Bound, ControlFlow},
    time::{Duration, Instant},
};

/// For how long is looked at twins, or whatever else, before others get at the state.
const TURN: Duration = Duration::from_millis(20);

/// The time of one who looks at many things.
pub(super) struct Turn(Instant);

impl Turn {
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    /// Whether it is over, after the thing with this index.
    pub(super) fn is_over(&self, index: usize) -> bool {
        index % 16 == 15 && self.0.elapsed() >= TURN
    }
}

impl Shared {
    /// Shows `visit` the twins of devices whose id is above `after`, in the order of ids, until it has enough. After some
    /// it returns the id to go on from, so that a query over many does not hold up the devices. None: that was all.
    pub(crate) fn visit_twins(
        &self,
        after: Option<&str>,
        visit: &mut dyn FnMut(&str, &dyn Document) -> ControlFlow<()>,
    ) -> Option<String> {
        let state = self.lock();
        let turn = Turn::begin();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = state.entries.range::<str, _>((start, Bound::Unbounded));
        for (index, (id, entry)) in entries.enumerate() {
            if visit(id, entry).is_break() {
                return None;
            }
            if turn.is_over(index) {
                return Some(id.clone());
            }
        }
        None
    }
}

/// What [`Entry::shown_twin`] gives, without making it.
impl Document for Entry {
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        let twin = &self.device.twin;
        let identity = &self.device.identity;
        let (first, rest) = path.split_first()?;
        match (first.as_str(), rest) {
            ("deviceId", []) => Some(Cow::Owned(identity.device_id.as_str().into())),
            ("status", []) => Some(Cow::Owned(identity.status().into())),
            ("connectionState", []) => Some(Cow::Owned(self.activity.state().into())),
            ("etag", []) => Some(Cow::Owned(twin.etag().into())),
            ("version", []) => Some(Cow::Owned(twin.version.into())),
            ("configurations", []) => self.device.assignment.shown().map(Cow::Owned),
            ("configurations", [id, rest @ ..]) => {
                let applied = *self.device.assignment.applied.get(id)?;
                match rest {
                    [] => Some(Cow::Owned(json!({"status": Assignment::status(applied)}))),
                    [name] if name == "status" => {
                        Some(Cow::Owned(Assignment::status(applied).into()))
                    }
                    _ => None,
                }
            }
            ("tags", rest) => walk(&twin.tags, rest).map(Cow::Borrowed),
            ("properties", [name, rest @ ..]) => match name.as_str() {
                "desired" => twin.desired.value(rest),
                "reported" => twin.reported.value(rest),
                _ => None,
            },
            ("properties", []) => take(self.shown_twin(), path).map(Cow::Owned),
            _ => take(self.shown_identity(), path).map(Cow::Owned),
        }
    }

    fn whole(&self) -> Value {
        self.shown_twin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::Identity, state::Activity, store::Device, twin::Twin};

    #[test]
    fn a_twin_answers_single_questions_as_its_whole_does() {
        let mut twin = Twin::new();
        twin.update(
            &json!({"tags": {"a": {"b": 1}}, "properties": {"desired": {"x": {"y": [1]}}}}),
            false,
        )
        .unwrap();
        twin.patch_reported(&json!({"z": "w"})).unwrap();
        let entry = Entry {
            device: Device {
                identity: Identity::new("d", 1).unwrap(),
                twin,
                subscriptions: Default::default(),
                assignment: serde_json::from_value(
                    json!({"applied": {"c": true, "d": false}, "written": {}}),
                )
                .unwrap(),
            },
            activity: Activity::none(),
            live: None,
        };
        let whole = entry.whole();
        let mut paths = 0;
        compare(&entry, &whole, &whole, &mut Vec::new(), &mut paths);
        assert!(paths >= 40, "{paths}");
    }

    /// Compares every value of the document, and that below it nothing is made up.
    fn compare(
        entry: &Entry,
        whole: &Value,
        value: &Value,
        path: &mut Vec<String>,
        paths: &mut u32,
    ) {
        if !path.is_empty() {
            assert_eq!(entry.value(path).as_deref(), Some(value), "{path:?}");
            assert_eq!(whole.value(path).as_deref(), Some(value), "{path:?}");
            *paths += 1;
        }
        let members = value.as_object().into_iter().flatten();
        for (name, member) in members {
            path.push(name.clone());
            compare(entry, whole, member, path, paths);
            path.pop();
        }
        path.push("nothing".into());
        assert_eq!(entry.value(path), None, "{path:?}");
        path.pop();
    }
}

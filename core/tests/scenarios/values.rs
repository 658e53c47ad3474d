//! Values of the scenarios: policies, outcomes, statuses, and the files that lie about.

use serde_json::{Value, json};
use std::{collections::HashMap, fs, path::Path};
use twinflash::{device::Status, update::Outcome};

/// The policy in a configuration's words: `retryFirst` is `retry_first` there.
pub(super) fn policy(members: &Value) -> Value {
    let mut policy = json!({"allow_http": true, "retry_first": 0.05});
    for (name, value) in members.as_object().into_iter().flatten() {
        let words = name.chars().flat_map(|c| match c.is_ascii_uppercase() {
            true => vec!['_', c.to_ascii_lowercase()],
            false => vec![c],
        });
        let value = value.get("health").unwrap_or(value);
        policy[words.collect::<String>()] = value.clone();
    }
    policy
}

pub(super) fn outcome_of(outcome: &Outcome) -> Value {
    let phase = match outcome {
        Outcome::Failed { phase, .. } | Outcome::Cancelled(phase) => Some(phase.as_str()),
        _ => None,
    };
    let failure = outcome.failure();
    json!({
        "outcome": outcome.as_str(),
        "phase": phase,
        "code": failure.map(|failure| failure.code),
        "message": failure.map(|failure| &failure.message),
    })
}

pub(super) fn status_of(status: &Status) -> Value {
    json!({
        "phase": status.phase.map(|phase| phase.as_str()),
        "version": status.version,
        "bytes": status.bytes,
        "size": status.size,
        "outcome": status.outcome.as_ref().map(outcome_of),
        "runningVersion": status.running_version,
        "paused": status.paused,
    })
}

/// A text as it is, anything else as JSON.
pub(super) fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// `"completed"` for `{"outcome": "completed"}`.
pub(super) fn named(value: &Value, name: &str) -> Value {
    match value {
        Value::String(_) => json!({ name: value }),
        other => other.clone(),
    }
}

/// The same document with every leaf the same, without empty objects: a hub may keep one where members
/// were taken away.
pub(super) fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), shape(value)))
            .filter(|(_, value)| *value != json!({}))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        _ => json!(0),
    }
}

pub(super) fn listing(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "state" && name != "lock")
        .collect();
    names.sort();
    names
}

/// Copies a directory's state first and hard links as such: what a kill leaves.
pub(super) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::create_dir(to.join("state")).unwrap();
    for name in listing(&from.join("state")) {
        fs::copy(from.join("state").join(&name), to.join("state").join(&name)).unwrap();
    }
    let mut seen = HashMap::new();
    for name in listing(from) {
        use std::os::unix::fs::MetadataExt;
        let source = from.join(&name);
        let inode = fs::metadata(&source).unwrap().ino();
        let copy = to.join(&name);
        match seen.get(&inode) {
            Some(first) => fs::hard_link(first, &copy).unwrap(),
            None => drop(fs::copy(&source, &copy).unwrap()),
        }
        seen.insert(inode, copy);
    }
}

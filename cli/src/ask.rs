//! Asks a device for an update, as a back end does by its contract.

use crate::{
    error::Error,
    follow::{End, Follower, Seen},
    screen::{Screen, Tone},
    service::Service,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use twinflash::{contract::Contract, update::redact};

/// The member that makes a desired request another one, so that it is run again.
const RETRY: &str = "fwRetry";

/// An update to ask for.
pub(crate) struct Ask<'a> {
    pub(crate) device: &'a str,
    pub(crate) contract: &'a Contract,
    pub(crate) url: &'a str,
    pub(crate) version: Option<&'a str>,
    pub(crate) check: Option<&'a str>,
    pub(crate) size: Option<u64>,
    pub(crate) manifest: Option<&'a str>,
}

/// What came of asking.
pub(crate) enum Asked {
    /// It is under way, or already done.
    Follow(Box<Follower>),
    /// The device refused it, in these words.
    Refused(String),
}

/// What a back end does and sees.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub(crate) enum Event {
    /// A direct method is called.
    Method {
        device: String,
        contract: String,
        method: String,
        payload: Value,
    },
    /// Desired properties are patched.
    Desired {
        device: String,
        contract: String,
        path: String,
        desired: Value,
    },
    /// The device's answer to the method.
    Answer { status: i64, payload: Value },
    /// The device reported a status.
    Status {
        status: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        percent: Option<u8>,
        #[serde(skip)]
        at: OffsetDateTime,
        #[serde(skip)]
        end: Option<End>,
    },
}

impl From<Seen> for Event {
    fn from(seen: Seen) -> Self {
        Self::Status {
            percent: seen.percent(),
            status: seen.status,
            detail: seen.detail,
            at: seen.at,
            end: seen.end,
        }
    }
}

impl Event {
    pub(crate) fn show(&self, screen: &Screen) {
        self.show_line(screen);
        match self {
            Self::Status {
                percent: Some(percent),
                ..
            } => screen.percent(*percent),
            _ => screen.progress_ended(),
        }
    }

    /// Without a bar for the per cent: where the bytes themselves are known.
    pub(crate) fn show_line(&self, screen: &Screen) {
        match self {
            Self::Method {
                method, payload, ..
            } => {
                screen.event(self, "method", Tone::Normal, || method.clone());
                show_members(screen, payload);
            }
            Self::Desired { path, desired, .. } => {
                screen.event(self, "desired", Tone::Normal, || path.clone());
                show_members(screen, desired);
            }
            Self::Answer { status, payload } => {
                let tone = match status {
                    200..300 => Tone::Normal,
                    _ => Tone::Bad,
                };
                screen.event(self, "answer", tone, || format!("{status} {payload}"));
            }
            Self::Status {
                status,
                detail,
                at,
                end,
                ..
            } => {
                let tone = match end {
                    None => Tone::Running,
                    Some(End::Done) => Tone::Good,
                    Some(End::Failed { .. }) => Tone::Bad,
                };
                // Why it failed is said at the end.
                let failed = tone == Tone::Bad;
                screen.event_at(*at, self, "reported", tone, || {
                    match detail.as_ref().filter(|_| !failed) {
                        Some(detail) => format!("{status}: {detail}"),
                        None => status.clone(),
                    }
                });
            }
        }
    }
}

/// A member a line, below the texts of events.
fn show_members(screen: &Screen, object: &Value) {
    for (name, value) in object.as_object().into_iter().flatten() {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // Digests are compared by programs.
        let (kind, digest) = value.split_at(value.find(':').map_or(0, |at| at + 1));
        let hex = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        // And so are manifests.
        let long = digest.len() >= 64 && hex || digest.len() > 300;
        match digest.get(..24).filter(|_| long) {
            Some(start) => screen.below(name, &format!("{kind}{start}…")),
            None => screen.below(name, &value),
        }
    }
}

/// Asks for an update; `tell` is told what is sent and answered.
pub(crate) fn ask(
    service: &Service,
    ask: &Ask<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<Asked, Error> {
    let Ask {
        device,
        contract,
        version,
        ..
    } = *ask;
    let wanted = contract.ask(ask.url, version, ask.check, ask.size, ask.manifest);
    let twin = service.twin(device)?;
    let reported = twin.pointer("/properties/reported").unwrap_or(&Value::Null);
    let mut follower = Follower::new(contract, version);
    if let Some(method) = contract.methods().next() {
        follower.ignore(reported);
        tell(Event::Method {
            device: device.into(),
            contract: contract.name().into(),
            method: method.into(),
            payload: redacted(&wanted),
        });
        let (status, payload) = service.call_method(device, method, &wanted)?;
        tell(Event::Answer {
            status,
            payload: payload.clone(),
        });
        if !(200..300).contains(&status) {
            let reason = match payload {
                Value::String(reason) => reason,
                other => other.to_string(),
            };
            return Ok(Asked::Refused(reason));
        }
        return Ok(Asked::Follow(Box::new(follower)));
    }

    let Some(path) = contract.desired_path() else {
        return Err(Error::new(format_args!(
            "contract {} says no way to ask for an update",
            contract.name()
        )));
    };
    if version.is_none() && contract.follow().running_version.is_some() {
        return Err(Error::new(format_args!(
            "contract {} needs --version: the update is done when the device runs that version",
            contract.name()
        )));
    }
    let desired = twin.pointer("/properties/desired").unwrap_or(&Value::Null);
    let patch = patch(contract.desired(desired), &wanted, follower.end(reported));
    tell(Event::Desired {
        device: device.into(),
        contract: contract.name().into(),
        path: path.into(),
        desired: redacted(&wanted),
    });
    if let Some(patch) = patch {
        follower.ignore(reported);
        let patch = json!({"properties": {"desired": at(path, patch)}});
        service.patch_twin(device, patch, None)?;
    }
    Ok(Asked::Follow(Box::new(follower)))
}

/// What turns the desired object that is there into the wanted one. `None` where the same was asked
/// for before and is under way or done; where it has failed, it is made another request.
fn patch(there: Option<&Value>, wanted: &Value, end: Option<End>) -> Option<Value> {
    let empty = Map::new();
    let there = there.and_then(Value::as_object).unwrap_or(&empty);
    let mut patch = wanted.as_object().cloned().unwrap_or_default();
    let same = there
        .iter()
        .filter(|(name, _)| *name != RETRY)
        .eq(patch.iter());
    if same {
        if !matches!(end, Some(End::Failed { .. })) {
            return None;
        }
        let retries = there.get(RETRY).and_then(Value::as_u64).unwrap_or_default();
        patch.insert(RETRY.into(), json!(retries.saturating_add(1)));
    }
    // A patch is merged: what it does not name would stay.
    for name in there.keys() {
        patch.entry(name.clone()).or_insert(Value::Null);
    }
    Some(Value::Object(patch))
}

/// The value at a path of names joined by dots.
fn at(path: &str, value: Value) -> Value {
    path.rsplit('.')
        .fold(value, |value, name| json!({ (name): value }))
}

/// The value with every URL as it may be shown.
pub(crate) fn redacted(value: &Value) -> Value {
    match value {
        Value::String(text) if text.contains("://") => redact(text).into(),
        Value::Array(items) => items.iter().map(redacted).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), redacted(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Option<End> {
        Some(End::Failed {
            code: None,
            message: String::new(),
        })
    }

    #[test]
    fn a_new_request_leaves_nothing_of_the_old_one() {
        let there = json!({"fwVersion": "1", "fwSize": 5, "fwRetry": 2});
        let wanted = json!({"fwVersion": "2", "fwPackageURI": "https://h/x"});
        assert_eq!(
            patch(Some(&there), &wanted, failed()),
            Some(
                json!({"fwVersion": "2", "fwPackageURI": "https://h/x", "fwSize": null, "fwRetry": null})
            )
        );
        assert_eq!(patch(None, &wanted, None), Some(wanted));
    }

    #[test]
    fn the_same_request_is_made_another_one_only_after_a_failure() {
        let wanted = json!({"fwVersion": "2"});
        assert_eq!(patch(Some(&wanted), &wanted, None), None);
        assert_eq!(patch(Some(&wanted), &wanted, Some(End::Done)), None);
        let again = patch(Some(&wanted), &wanted, failed());
        assert_eq!(again, Some(json!({"fwVersion": "2", "fwRetry": 1})));
        let again = patch(again.as_ref(), &wanted, failed());
        assert_eq!(again, Some(json!({"fwVersion": "2", "fwRetry": 2})));
    }

    #[test]
    fn no_query_is_shown() {
        let value = json!({"a": ["https://u:p@h/x?sig=secret", 1], "b": "plain?"});
        let shown = json!({"a": ["https://h/x", 1], "b": "plain?"});
        assert_eq!(redacted(&value), shown);
        assert_eq!(at("a.b", json!(1)), json!({"a": {"b": 1}}));
    }
}

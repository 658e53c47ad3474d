//! Events, outcomes and the status as JavaScript gets them.

use crate::failure::to_json;
use engine::{
    device::{DeviceEvent, Event, Status, Waiting},
    update::{Failure, Outcome, Phase},
};
use serde_json::{Value, json};

/// `[name, value]`; `None` for what this version has no name for.
pub(crate) fn event(event: &Event) -> Option<Value> {
    Some(match event {
        Event::Accepted { uri, version } => {
            json!(["accepted", {"uri": uri, "version": version}])
        }
        Event::Phase(phase) => json!(["phase", phase.as_str()]),
        Event::Progress { bytes, total } => json!(["progress", {"bytes": bytes, "total": total}]),
        Event::Retry { failure, after } => {
            json!(["retry", {"error": to_json(failure), "after": after.as_secs_f64()}])
        }
        Event::Waiting(it) => json!(["waiting", waiting(it)]),
        Event::Verified { by, bytes, sha256 } => {
            json!(["verified", {"by": by.as_str(), "bytes": bytes, "sha256": sha256}])
        }
        Event::Ended(ended) => json!(["ended", outcome(ended)]),
        Event::Refused(failure) => json!(["refused", to_json(failure)]),
        Event::KeysRotated { version } => json!(["keysRotated", version]),
        Event::Warning(text) => json!(["warning", text]),
        _ => return None,
    })
}

fn waiting(waiting: &Waiting) -> Value {
    json!({
        "for": waiting.on.as_str(),
        "before": waiting.before.as_str(),
        "after": waiting.after.map(|after| after.as_secs_f64()),
    })
}

pub(crate) fn outcome(outcome: &Outcome) -> Value {
    let phase = match outcome {
        Outcome::Failed { phase, .. } | Outcome::Cancelled(phase) => Some(phase.as_str()),
        _ => None,
    };
    json!({
        "outcome": outcome.as_str(),
        "success": outcome.is_success(),
        "phase": phase,
        "error": outcome.failure().map(to_json),
    })
}

pub(crate) fn status(status: &Status) -> Value {
    let retry = status.retry.as_ref().map(|retry| {
        json!({
            "error": to_json(&retry.failure),
            "attempts": retry.attempts,
            "after": retry.after.map(|after| after.as_secs_f64()),
        })
    });
    json!({
        "phase": status.phase.map(Phase::as_str),
        "version": status.version,
        "bytes": status.bytes,
        "size": status.size,
        "outcome": status.outcome.as_ref().map(outcome),
        "runningVersion": status.running_version,
        "paused": status.paused,
        "waiting": status.waiting.as_ref().map(waiting),
        "retry": retry,
    })
}

/// As [`event`], of an own connection.
pub(crate) fn device(event: &DeviceEvent) -> Option<Value> {
    let failure = |code, text: String| to_json(&Failure::new(code, text));
    use engine::update::Code;
    Some(match event {
        DeviceEvent::Connected(_) => json!(["connect", null]),
        DeviceEvent::Disconnected(why) => {
            json!(["disconnect", failure(Code::Network, why.reason.clone())])
        }
        DeviceEvent::WaitingForClock => json!(["waitingForClock", null]),
        DeviceEvent::Refused(error) => {
            json!(["refused", failure(Code::Network, error.to_string())])
        }
        _ => return None,
    })
}

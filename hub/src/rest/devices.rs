//! The identity registry: `/devices`.

use super::{ArrayBody, Body, Hub, Id, Top, with_etag};
use crate::{
    error::{Code, Refusal},
    state::IfMatch,
};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The most devices one answer holds, and how many without `top`.
const MAX_LISTED: usize = 1000;
/// The most devices of one bulk request.
const MAX_BULK: usize = 100;

pub(super) async fn list(State(hub): Hub, top: Top) -> Json<Vec<Value>> {
    Json(hub.list_devices(top.up_to(MAX_LISTED)))
}

pub(super) async fn get(State(hub): Hub, Id(id): Id) -> Result<impl IntoResponse, Refusal> {
    hub.get_device(&id).map(with_etag)
}

pub(super) async fn put(
    State(hub): Hub,
    Id(id): Id,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<impl IntoResponse, Refusal> {
    hub.put_device(&id, &body, &if_match).map(with_etag)
}

/// Makes, changes and deletes many devices. Each by itself: what goes wrong with one is in the answer, the others are done.
pub(super) async fn bulk(
    State(hub): Hub,
    ArrayBody(entries): ArrayBody,
) -> Result<Response, Refusal> {
    if !(1..=MAX_BULK).contains(&entries.len()) {
        return Err(Refusal::argument(format!(
            "The body should be an array of 1 to {MAX_BULK} devices."
        )));
    }
    let ids = entries
        .iter()
        .map(|entry| entry.get("id")?.as_str())
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| Refusal::argument("Each device should have an id."))?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = ids.iter().find(|id| !seen.insert(**id)) {
        let twice: String = twice.chars().take(140).collect();
        return Err(Refusal::new(
            Code::DEFINED_MULTIPLE_TIMES,
            format!("Device {twice:?} is there more than once."),
        ));
    }
    let mut failed = Vec::new();
    for (id, entry) in ids.into_iter().zip(&entries) {
        if let Err(refusal) = hub.import_device(id, entry) {
            failed.push(json!({
                "deviceId": id,
                "errorCode": refusal.code.1,
                "errorStatus": refusal.message,
                "operation": entry.get("importMode"),
            }));
        }
    }
    let result =
        json!({"isSuccessful": failed.is_empty(), "errors": failed, "warnings": Value::Null});
    if failed.is_empty() {
        return Ok(Json(result).into_response());
    }
    let message = format!("{} of {} devices failed.", failed.len(), entries.len());
    Ok(Refusal::new(Code::BULK_FAILED, message).respond(result))
}

pub(super) async fn delete(
    State(hub): Hub,
    Id(id): Id,
    if_match: IfMatch,
) -> Result<StatusCode, Refusal> {
    hub.delete_device(&id, &if_match)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn statistics(State(hub): Hub) -> Json<Value> {
    let (total, enabled, _) = hub.counts();
    Json(json!({
        "totalDeviceCount": total,
        "enabledDeviceCount": enabled,
        "disabledDeviceCount": total.saturating_sub(enabled),
    }))
}

pub(super) async fn service_statistics(State(hub): Hub) -> Json<Value> {
    Json(json!({"connectedDeviceCount": hub.counts().2}))
}

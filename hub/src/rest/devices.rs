//! The identity registry: `/devices`.

use super::{Body, Hub, Id, Top, with_etag};
use crate::{error::Refusal, state::IfMatch};
use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use serde_json::{Value, json};

/// The most devices one answer holds, and how many without `top`.
const MAX_LISTED: usize = 1000;

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

//! The identity registry: `/devices`.

use super::{Body, Caller, Hub, Id};
use crate::{error::Refusal, sas::Rights, state::IfMatch};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::IntoResponse,
};
use serde_json::{Value, json};

/// The most devices one answer holds, and how many without `top`.
const MAX_LISTED: usize = 1000;

pub(super) async fn list(
    State(hub): Hub,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Vec<Value>>, Refusal> {
    caller.needs(Rights::REGISTRY_READ)?;
    let top = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .find_map(|field| field.strip_prefix("top="));
    let top = top.map_or(Ok(MAX_LISTED), |top| {
        top.parse()
            .ok()
            .filter(|top| (1..=MAX_LISTED).contains(top))
            .ok_or_else(|| {
                Refusal::argument(format!(
                    "top should be a whole number from 1 to {MAX_LISTED}."
                ))
            })
    })?;
    Ok(Json(hub.list_devices(top)))
}

pub(super) async fn get(
    State(hub): Hub,
    caller: Caller,
    Id(id): Id,
) -> Result<impl IntoResponse, Refusal> {
    caller.needs(Rights::REGISTRY_READ)?;
    hub.get_device(&id).map(with_etag)
}

pub(super) async fn put(
    State(hub): Hub,
    caller: Caller,
    Id(id): Id,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<impl IntoResponse, Refusal> {
    caller.needs(Rights::REGISTRY_WRITE)?;
    hub.put_device(&id, &body, &if_match).map(with_etag)
}

pub(super) async fn delete(
    State(hub): Hub,
    caller: Caller,
    Id(id): Id,
    if_match: IfMatch,
) -> Result<StatusCode, Refusal> {
    caller.needs(Rights::REGISTRY_WRITE)?;
    hub.delete_device(&id, &if_match)
        .map(|()| StatusCode::NO_CONTENT)
}

pub(super) async fn statistics(State(hub): Hub, caller: Caller) -> Result<Json<Value>, Refusal> {
    caller.needs(Rights::REGISTRY_READ)?;
    let (total, enabled, _) = hub.counts();
    Ok(Json(json!({
        "totalDeviceCount": total,
        "enabledDeviceCount": enabled,
        "disabledDeviceCount": total.saturating_sub(enabled),
    })))
}

pub(super) async fn service_statistics(
    State(hub): Hub,
    caller: Caller,
) -> Result<Json<Value>, Refusal> {
    caller.needs(Rights::SERVICE_CONNECT)?;
    Ok(Json(json!({"connectedDeviceCount": hub.counts().2})))
}

/// The body with its `etag` as a header too.
pub(super) fn with_etag(body: Value) -> (HeaderMap, Json<Value>) {
    let mut headers = HeaderMap::new();
    let etag = body
        .get("etag")
        .and_then(Value::as_str)
        .map(|etag| format!("\"{etag}\""));
    if let Some(Ok(etag)) = etag.map(|etag| HeaderValue::from_str(&etag)) {
        headers.insert(header::ETAG, etag);
    }
    (headers, Json(body))
}

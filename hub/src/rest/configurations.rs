//! Automatic device configurations: `/configurations`.

use super::{Body, Hub, Id, Top, with_etag};
use crate::{
    configurations::{self, Configuration, Counter, MAX_CONFIGURATIONS},
    error::Refusal,
    state::{IfMatch, Shared},
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
};
use serde_json::Value;
use std::{ops::ControlFlow, sync::Arc};

pub(super) async fn list(State(hub): Hub, top: Top) -> Result<Json<Vec<Value>>, Refusal> {
    let configurations = hub.list_configurations(top.up_to(MAX_CONFIGURATIONS));
    shown(&hub, &configurations).await.map(Json)
}

pub(super) async fn get(State(hub): Hub, Id(id): Id) -> Result<impl IntoResponse, Refusal> {
    one(&hub, &id).await
}

pub(super) async fn put(
    State(hub): Hub,
    Id(id): Id,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<impl IntoResponse, Refusal> {
    let status = match hub.put_configuration(&id, &body, &if_match(&headers))? {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    apply(&hub, &id).await?;
    Ok((status, one(&hub, &id).await?))
}

pub(super) async fn delete(
    State(hub): Hub,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    hub.delete_configuration(&id, &if_match(&headers))?;
    apply(&hub, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn test(Body(body): Body) -> Result<Json<Value>, Refusal> {
    configurations::test(&body).map(Json)
}

/// The Python SDK does not quote the etags of configurations.
fn if_match(headers: &HeaderMap) -> IfMatch {
    let header = headers
        .get(header::IF_MATCH)
        .and_then(|value| value.to_str().ok());
    match (IfMatch::parse(header), header.map(str::trim)) {
        (IfMatch::None, Some(text)) if !text.is_empty() => IfMatch::Etag(text.into()),
        (parsed, _) => parsed,
    }
}

/// Goes on to the end when the back end hangs up.
async fn apply(hub: &Arc<Shared>, id: &str) -> Result<(), Refusal> {
    let (hub, id) = (hub.clone(), id.to_owned());
    tokio::spawn(async move { hub.apply_configuration(&id).await })
        .await
        .map_err(|_| Refusal::stopping())?
}

async fn one(hub: &Shared, id: &str) -> Result<(HeaderMap, Json<Value>), Refusal> {
    let configuration = hub.configuration(id)?;
    let shown = shown(hub, &[configuration]).await?;
    Ok(with_etag(shown.into_iter().next().unwrap_or_default()))
}

/// Configurations with their metrics, which are computed by one walk over the twins.
async fn shown(hub: &Shared, configurations: &[Arc<Configuration>]) -> Result<Vec<Value>, Refusal> {
    let mut counters: Vec<_> = configurations
        .iter()
        .map(|configuration| Counter::new(configuration))
        .collect();
    let mut after = None;
    while !counters.is_empty()
        && let Some(next) = hub.visit_twins(after.as_deref(), &mut |_, twin| {
            counters.iter_mut().for_each(|counter| counter.add(twin));
            ControlFlow::Continue(())
        })
    {
        after = Some(next);
        hub.give_way().await?;
    }
    Ok(counters.into_iter().map(Counter::shown).collect())
}

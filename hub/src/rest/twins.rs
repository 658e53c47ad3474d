//! Twins and direct methods: `/twins`.

use super::{Body, Caller, Hub, Id, LenientBody, devices::with_etag};
use crate::{
    error::Refusal,
    methods::{self, Call},
    sas::Rights,
    state::IfMatch,
};
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};

pub(super) async fn get(
    State(hub): Hub,
    caller: Caller,
    Id(id): Id,
) -> Result<impl IntoResponse, Refusal> {
    caller.needs(Rights::SERVICE_CONNECT)?;
    hub.service_twin(&id).map(with_etag)
}

pub(super) async fn patch(
    State(hub): Hub,
    caller: Caller,
    Id(id): Id,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<impl IntoResponse, Refusal> {
    caller.needs(Rights::SERVICE_CONNECT)?;
    hub.update_twin(&id, &body, false, &if_match).map(with_etag)
}

pub(super) async fn put(
    State(hub): Hub,
    caller: Caller,
    Id(id): Id,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<impl IntoResponse, Refusal> {
    caller.needs(Rights::SERVICE_CONNECT)?;
    hub.update_twin(&id, &body, true, &if_match).map(with_etag)
}

pub(super) async fn invoke(
    State(hub): Hub,
    caller: Caller,
    Id(id): Id,
    body: Result<LenientBody, Refusal>,
) -> Response {
    let result = async {
        caller.needs(Rights::SERVICE_CONNECT)?;
        methods::invoke(&hub, &id, Call::parse(body?.0)?).await
    };
    match result.await {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => refusal.into_method_response(),
    }
}

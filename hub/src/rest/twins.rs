//! Twins and direct methods: `/twins`.

use super::{Body, Hub, Id, LenientBody, with_etag};
use crate::{
    error::Refusal,
    methods::{self, Call},
    state::IfMatch,
    throttle::Operation,
};
use axum::{
    Json,
    extract::State,
    http::Method,
    response::{IntoResponse, Response},
};

pub(super) async fn get(State(hub): Hub, Id(id): Id) -> Result<impl IntoResponse, Refusal> {
    hub.service_twin(&id).map(with_etag)
}

/// PATCH and PUT.
pub(super) async fn update(
    State(hub): Hub,
    method: Method,
    Id(id): Id,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<impl IntoResponse, Refusal> {
    let replace = method == Method::PUT;
    hub.update_twin(&id, &body, replace, &if_match)
        .map(with_etag)
}

pub(super) async fn invoke(
    State(hub): Hub,
    Id(id): Id,
    body: Result<LenientBody, Refusal>,
) -> Response {
    let result = async {
        let call = Call::parse(body?.0)?;
        hub.throttle.take_units(Operation::Method, call.units())?;
        methods::invoke(&hub, &id, call).await
    };
    match result.await {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => refusal.into_method_response(),
    }
}

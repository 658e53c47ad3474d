//! The back end's side: REST at Azure's paths, and MQTT over WebSockets on the same port.

mod body;
mod configurations;
mod connection;
mod devices;
mod jobs;
mod query;
mod telemetry;
mod twins;
mod websocket;

use crate::{
    error::{Code, Refusal},
    event::Event,
    sas::Rights,
    state::{IfMatch, Shared},
    throttle::Operation,
};
use axum::{
    Json, Router,
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, Method, Uri, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use body::{ArrayBody, Body, LenientBody};
pub(crate) use connection::serve;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use std::{any::Any, sync::Arc};

/// Whose request it is.
#[derive(Clone)]
pub(crate) struct Peer {
    /// The address it comes from.
    pub(crate) address: String,
    /// Its certificates of the TLS handshake, its own first: a device over WebSockets may have some.
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
    /// Its place among the connections that are served at once, to be given back at its end.
    pub(crate) slot: Arc<dyn Any + Send + Sync>,
}

type Hub = State<Arc<Shared>>;

/// All that is served.
fn router(hub: Arc<Shared>) -> Router {
    let service = Router::new()
        .route("/devices", get(devices::list).post(devices::bulk))
        // The Node SDK asks with a slash.
        .route("/devices/", get(devices::list))
        .route("/devices/query", post(query::query))
        .route(
            "/devices/{id}",
            get(devices::get).put(devices::put).delete(devices::delete),
        )
        .route(
            "/twins/{id}",
            get(twins::get).patch(twins::update).put(twins::update),
        )
        .route("/twins/{id}/methods", post(twins::invoke))
        .route("/configurations", get(configurations::list))
        .route("/configurations/testQueries", post(configurations::test))
        .route(
            "/configurations/{id}",
            get(configurations::get)
                .put(configurations::put)
                .delete(configurations::delete),
        )
        .route("/jobs/v2/query", get(jobs::query))
        .route("/jobs/v2/{id}", get(jobs::get).put(jobs::put))
        .route("/jobs/v2/{id}/cancel", post(jobs::cancel))
        .route("/statistics/devices", get(devices::statistics))
        .route("/statistics/service", get(devices::service_statistics))
        .route("/twinflash/telemetry", get(telemetry::read))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(hub.clone(), authenticate))
        .layer(middleware::from_fn_with_state(hub.clone(), observe));
    Router::new()
        .route("/$iothub/websocket", get(websocket::upgrade))
        .merge(service)
        .with_state(hub)
}

async fn not_found() -> Refusal {
    Refusal::new(Code::NOT_FOUND, "This hub has nothing at this path.")
}

async fn wrong_method() -> Refusal {
    Refusal::new(
        Code::METHOD_NOT_ALLOWED,
        "This path does not take this HTTP method.",
    )
}

/// Lets through only requests with a good token that allows what is asked for, and not too many, before their body is read.
async fn authenticate(State(hub): Hub, request: Request, next: Next) -> Response {
    let checked = check(&hub, request.headers(), request.uri()).and_then(|rights| {
        let (needed, operation) = demands(request.method(), request.uri().path());
        if !needed.is_none_or(|needed| rights.include(needed)) {
            return Err(Refusal::new(
                Code::UNAUTHORIZED,
                "Unauthorized: the policy of the token does not allow this.",
            ));
        }
        operation.map_or(Ok(()), |operation| hub.throttle.take(operation))
    });
    match checked {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// The right that a request needs, and what it counts as. Direct methods count by their payload, which is not read yet.
fn demands(method: &Method, path: &str) -> (Option<Rights>, Option<Operation>) {
    let reads = *method == Method::GET;
    let mut segments = path.split('/').skip(1);
    let (first, second, third) = (segments.next(), segments.next(), segments.next());
    let registry = match reads {
        true => Rights::REGISTRY_READ,
        false => Rights::REGISTRY_WRITE,
    };
    let (rights, operation) = match (first.unwrap_or_default(), second, third) {
        ("devices", Some("query"), None) => (Rights::SERVICE_CONNECT, Some(Operation::Query)),
        ("statistics", Some("service"), _) => (Rights::SERVICE_CONNECT, Some(Operation::Registry)),
        ("devices" | "statistics", ..) => (registry, Some(Operation::Registry)),
        ("configurations", Some("testQueries"), _) => {
            (Rights::REGISTRY_READ, Some(Operation::Configuration))
        }
        ("configurations", ..) => (registry, Some(Operation::Configuration)),
        ("twins", _, None) if reads => (Rights::SERVICE_CONNECT, Some(Operation::TwinRead)),
        ("twins", _, None) => (Rights::SERVICE_CONNECT, Some(Operation::TwinUpdate)),
        ("jobs", ..) => (Rights::SERVICE_CONNECT, Some(Operation::Job)),
        ("twins" | "twinflash", ..) => (Rights::SERVICE_CONNECT, None),
        // There is nothing.
        _ => return (None, None),
    };
    (Some(rights), operation)
}

fn check(hub: &Shared, headers: &HeaderMap, uri: &Uri) -> Result<Rights, Refusal> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let token = text(header::AUTHORIZATION).ok_or_else(|| {
        Refusal::new(
            Code::UNAUTHORIZED_ACCESS,
            "Unauthorized: the request has no Authorization header.",
        )
    })?;
    let host = text(header::HOST).unwrap_or_default();
    let rights = hub.service_rights(token, host, uri.path())?;
    if parameter(uri, "api-version").is_none() {
        return Err(Refusal::new(
            Code::INVALID_PROTOCOL_VERSION,
            "The query has no api-version; the SDKs send api-version=2021-04-12.",
        ));
    }
    Ok(rights)
}

/// Tells the observer of refused requests.
async fn observe(State(hub): Hub, request: Request, next: Next) -> Response {
    let (method, path) = (
        request.method().to_string(),
        request.uri().path().chars().take(200).collect(),
    );
    let response = next.run(request).await;
    if let Some(refusal) = response.extensions().get::<Refusal>() {
        hub.tell(&Event::RequestRefused {
            method,
            path,
            status: response.status().as_u16(),
            code: refusal.code.0,
            reason: refusal.message.clone(),
        });
    }
    response
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Ok(Self::parse(
            parts
                .headers
                .get(header::IF_MATCH)
                .and_then(|value| value.to_str().ok()),
        ))
    }
}

/// The id in a path.
struct Id(String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        axum::extract::Path::<String>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(id)| Self(id))
            .map_err(|_| Refusal::argument("The path holds no id."))
    }
}

/// How many items a list is to have at most, by `top` of the request's query.
struct Top(Option<usize>);

impl Top {
    /// As Azure has it, what is outside of 1 to `most` is `most`.
    fn up_to(self, most: usize) -> usize {
        self.0
            .filter(|top| (1..=most).contains(top))
            .unwrap_or(most)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Top {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let top = parameter(&parts.uri, "top").map(str::parse).transpose();
        top.map(Self)
            .map_err(|_| Refusal::argument("top should be a whole number."))
    }
}

/// A parameter of the request's query, as it stands there; an empty one is none.
fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let mut fields = uri.query().unwrap_or_default().split('&');
    fields
        .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        .filter(|value| !value.is_empty())
}

/// A body with its `etag` as a header too.
fn with_etag(body: Value) -> (HeaderMap, Json<Value>) {
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

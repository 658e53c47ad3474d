//! The back end's side: REST at Azure's paths, and MQTT over WebSockets on the same port.

mod configurations;
mod devices;
mod jobs;
mod query;
mod twins;
mod websocket;

use crate::{
    error::{Code, Refusal},
    event::Event,
    sas::Rights,
    server::Slot,
    state::{IfMatch, Shared},
    throttle::Operation,
};
use axum::{
    Extension, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// The largest body: a direct method's 128 KB with room for its JSON escapes.
const MAX_BODY: usize = 512 * 1024;
/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Whose request it is.
#[derive(Clone)]
pub(crate) struct Peer {
    /// The address it comes from.
    pub(crate) address: String,
    /// Its place among the connections that are served at once.
    pub(crate) slot: Arc<Slot>,
}

type Hub = State<Arc<Shared>>;

/// All that is served.
pub(crate) fn router(hub: Arc<Shared>) -> Router {
    let service = Router::new()
        .route("/devices", get(devices::list))
        // The Node SDK asks with a slash.
        .route("/devices/", get(devices::list))
        .route("/devices/query", post(query::query))
        .route(
            "/devices/{id}",
            get(devices::get).put(devices::put).delete(devices::delete),
        )
        .route(
            "/twins/{id}",
            get(twins::get).patch(twins::patch).put(twins::put),
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
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
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

/// Lets through only requests with a good token and an `api-version`, and not too many, before their body is read.
async fn authenticate(State(hub): Hub, mut request: Request, next: Next) -> Response {
    let checked = check(&hub, request.headers(), request.uri()).and_then(|rights| {
        operation(request.method(), request.uri().path())
            .map_or(Ok(()), |operation| hub.throttle.take(operation))?;
        Ok(rights)
    });
    match checked {
        Ok(rights) => {
            request.extensions_mut().insert(rights);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// What a request counts as. Direct methods are not here: they count by their payload.
fn operation(method: &Method, path: &str) -> Option<Operation> {
    let mut segments = path.split('/').skip(1);
    let (first, second, third) = (segments.next()?, segments.next(), segments.next());
    match (first, second, third) {
        ("devices", Some("query"), None) => Some(Operation::Query),
        ("devices", ..) | ("statistics", ..) => Some(Operation::Registry),
        ("configurations", ..) => Some(Operation::Configuration),
        ("twins", _, None) if *method == Method::GET => Some(Operation::TwinRead),
        ("twins", _, None) => Some(Operation::TwinUpdate),
        _ => None,
    }
}

fn check(hub: &Shared, headers: &HeaderMap, uri: &Uri) -> Result<Rights, Refusal> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let token = text(header::AUTHORIZATION).ok_or_else(|| {
        Refusal::new(
            Code::UNAUTHORIZED_ACCESS,
            "Unauthorized: the request has no Authorization header.",
        )
    })?;
    let rights = hub.service_rights(token, text(header::HOST).unwrap_or_default())?;
    let version = |field: &str| {
        field
            .strip_prefix("api-version=")
            .is_some_and(|version| !version.is_empty())
    };
    if !uri.query().unwrap_or_default().split('&').any(version) {
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

/// What the caller may do; `authenticate` put it there.
struct Caller(Rights);

impl Caller {
    fn needs(&self, rights: Rights) -> Result<(), Refusal> {
        if self.0.include(rights) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::UNAUTHORIZED,
            "Unauthorized: the policy of the token does not allow this.",
        ))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        Extension::<Rights>::from_request_parts(parts, state)
            .await
            .map(|Extension(rights)| Self(rights))
            .map_err(|_| Refusal::new(Code::UNAUTHORIZED_ACCESS, "Unauthorized."))
    }
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

/// A JSON body, whatever its content type says. An empty one is `null`.
struct Body(Value);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = read(request, state).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(Value::Null));
        }
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| not_json(&error))
    }
}

/// A body that is read as leniently as Azure reads those of direct methods (with Newtonsoft's Json.NET): names without
/// quotes, texts in single quotes, comments, a comma after the last member. The .NET tutorial's back end sends such.
struct LenientBody(Value);

impl<S: Send + Sync> FromRequest<S> for LenientBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        const OPTIONS: jsonc_parser::ParseOptions = jsonc_parser::ParseOptions {
            allow_comments: true,
            allow_loose_object_property_names: true,
            allow_trailing_commas: true,
            allow_missing_commas: false,
            allow_single_quoted_strings: true,
            allow_hexadecimal_numbers: true,
            allow_unary_plus_numbers: false,
            allow_bare_decimal_point_numbers: true,
            // Json.NET takes them, but JSON, which the device gets, has no such numbers.
            allow_non_finite_numbers: false,
            allow_extended_string_escapes: false,
        };
        let bytes = read(request, state).await?;
        let text = std::str::from_utf8(&bytes).map_err(|error| not_json(&error))?;
        // Bounds the depth too.
        jsonc_parser::parse_to_serde_value(text, &OPTIONS)
            .map(Self)
            .map_err(|error| not_json(&error))
    }
}

fn not_json(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(Code::FORMAT, format!("The body is not JSON: {error}."))
}

/// Reads a body whole, within its limits of size and time.
async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Refusal> {
    timeout(BODY_TIMEOUT, Bytes::from_request(request, state))
        .await
        .map_err(|_| Refusal::new(Code::FORMAT, "The body did not come in time."))?
        .map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Refusal::new(
                Code::TOO_LARGE,
                format!("The body is larger than {MAX_BODY} bytes."),
            ),
            _ => Refusal::new(Code::FORMAT, "The body did not come whole."),
        })
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

//! Bodies of requests: JSON, within limits of size and time.

use crate::error::{Code, Refusal};
use axum::{
    body::HttpBody,
    extract::{FromRequest, Request},
};
use serde_json::Value;
use std::{future::poll_fn, pin::Pin, time::Duration};
use tokio::time::timeout;

/// The largest body: a direct method's 128 KB with room for its JSON escapes.
const MAX_BODY: usize = 512 * 1024;
/// So much is read of a larger one, to no use: who is still sending does not hear that it is too large.
const MAX_READ: usize = 8 * 1024 * 1024;
/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON object, whatever the content type says.
pub(super) struct Body(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        match strict(request).await? {
            object @ Value::Object(_) => Ok(Self(object)),
            _ => Err(Refusal::argument("The body should be a JSON object.")),
        }
    }
}

/// A JSON array, whatever the content type says.
pub(super) struct ArrayBody(pub(super) Vec<Value>);

impl<S: Send + Sync> FromRequest<S> for ArrayBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        match strict(request).await? {
            Value::Array(items) => Ok(Self(items)),
            _ => Err(Refusal::argument("The body should be a JSON array.")),
        }
    }
}

async fn strict(request: Request) -> Result<Value, Refusal> {
    let bytes = read(request).await?;
    serde_json::from_slice(&bytes).map_err(|error| not_json(&error))
}

/// A body that is read as leniently as Azure reads those of direct methods (with Newtonsoft's Json.NET): names without
/// quotes, texts in single quotes, comments, a comma after the last member. The .NET tutorial's back end sends such.
pub(super) struct LenientBody(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for LenientBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
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
        let bytes = read(request).await?;
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
async fn read(request: Request) -> Result<Vec<u8>, Refusal> {
    let mut body = request.into_body();
    let (mut bytes, mut size) = (Vec::new(), 0);
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let read = async {
        while size.max(declared) <= MAX_READ
            && let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
        {
            let data = frame?.into_data().unwrap_or_default();
            size += data.len();
            if size <= MAX_BODY {
                bytes.extend_from_slice(&data);
            }
        }
        Ok::<(), axum::Error>(())
    };
    timeout(BODY_TIMEOUT, read)
        .await
        .map_err(|_| Refusal::new(Code::FORMAT, "The body did not come in time."))?
        .map_err(|_| Refusal::new(Code::FORMAT, "The body did not come whole."))?;
    if size.max(declared) > MAX_BODY {
        return Err(Refusal::new(
            Code::TOO_LARGE,
            format!("The body is larger than {MAX_BODY} bytes."),
        ));
    }
    Ok(bytes)
}

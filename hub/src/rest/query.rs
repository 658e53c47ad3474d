//! `POST /devices/query`: so far all devices, or one by its id.

use super::{Body, Caller, Hub};
use crate::{error::Refusal, sas::Rights};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::IntoResponse,
};
use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;

/// The longest query, in characters.
const MAX_QUERY: usize = 8192;
/// How many twins one answer holds, unless `x-ms-max-item-count` says less.
const PAGE: usize = 100;

pub(super) async fn query(
    State(hub): Hub,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<impl IntoResponse, Refusal> {
    caller.needs(Rights::SERVICE_CONNECT)?;
    let text = body
        .get("query")
        .and_then(Value::as_str)
        .ok_or_else(|| Refusal::argument("The body should be {\"query\": \"…\"}."))?;
    let wanted = parse(text)?;
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .filter(|value| !value.is_empty())
    };
    let count = header("x-ms-max-item-count")
        .and_then(|count| count.parse().ok())
        .unwrap_or(PAGE);
    let after = header("x-ms-continuation")
        .map(|token| {
            BASE64URL_NOPAD
                .decode(token.as_bytes())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or_else(|| {
                    Refusal::argument("x-ms-continuation is not one that this hub gave.")
                })
        })
        .transpose()?;
    let (twins, more) =
        hub.service_twins(wanted.as_deref(), after.as_deref(), count.clamp(1, PAGE));
    let mut headers = HeaderMap::new();
    headers.insert(
        HeaderName::from_static("x-ms-item-type"),
        HeaderValue::from_static("Twin"),
    );
    if let Some(last) = more
        && let Ok(token) = HeaderValue::from_str(&BASE64URL_NOPAD.encode(last.as_bytes()))
    {
        headers.insert(HeaderName::from_static("x-ms-continuation"), token);
    }
    Ok((headers, Json(twins)))
}

/// `SELECT * FROM devices [WHERE deviceId = '…']`: the id, if there is one.
fn parse(text: &str) -> Result<Option<String>, Refusal> {
    let refused =
        || Refusal::argument("This hub knows only: SELECT * FROM devices [WHERE deviceId = '…'].");
    if text.chars().count() > MAX_QUERY {
        return Err(Refusal::argument(format!(
            "The query is longer than {MAX_QUERY} characters."
        )));
    }
    let mut rest = text.trim();
    for word in ["select", "*", "from", "devices"] {
        rest = strip_word(rest, word).ok_or_else(refused)?;
    }
    if rest.is_empty() {
        return Ok(None);
    }
    for word in ["where", "deviceid", "="] {
        rest = strip_word(rest, word).ok_or_else(refused)?;
    }
    let quoted = ['\'', '"']
        .into_iter()
        .find_map(|quote| rest.strip_prefix(quote)?.strip_suffix(quote))
        .filter(|id| !id.contains(['\'', '"']))
        .ok_or_else(refused)?;
    Ok(Some(quoted.to_owned()))
}

fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (found, rest) = text.split_at_checked(word.len())?;
    let ends = |c: char| {
        c.is_whitespace() || !word.ends_with(char::is_alphanumeric) || !c.is_alphanumeric()
    };
    (found.eq_ignore_ascii_case(word) && rest.chars().next().is_none_or(ends))
        .then(|| rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queries_it_knows() {
        assert_eq!(parse("SELECT * FROM devices"), Ok(None));
        assert_eq!(parse(" select *\nfrom Devices "), Ok(None));
        for text in [
            "SELECT * FROM devices WHERE deviceId = 'a-b'",
            "select * from devices where deviceId=\"a-b\"",
        ] {
            assert_eq!(parse(text), Ok(Some("a-b".into())));
        }
        for text in [
            "",
            "SELECT deviceId FROM devices",
            "SELECT * FROM devicesx",
            "SELECT * FROM devices WHERE tags.a = 1",
            "SELECT * FROM devices WHERE deviceId = 'a' OR 'b'",
            "SELECT * FROM devices WHERE deviceId = '",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

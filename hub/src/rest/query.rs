//! `POST /devices/query`.

use super::{Body, Hub};
use crate::{
    error::Refusal,
    query::{Document, Query, Source},
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::IntoResponse,
};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::Value;
use std::ops::ControlFlow;

/// How many rows one answer holds, unless `x-ms-max-item-count` says otherwise.
const PAGE: usize = 100;
/// The most it may say. Who asks for more gets that many, and a continuation.
const MAX_PAGE: usize = 1000;
/// An answer takes no further row from this size on, in bytes.
const FULL: usize = 4 * 1024 * 1024;

pub(super) async fn query(
    State(hub): Hub,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<impl IntoResponse, Refusal> {
    let text = body
        .get("query")
        .and_then(Value::as_str)
        .ok_or_else(|| Refusal::argument("The body should be {\"query\": \"…\"}."))?;
    let query = Query::parse(text)
        .map_err(|error| Refusal::argument(format!("The query is wrong: {error}.")))?;
    let mut page = Page::read(&headers, text, query.top())?;
    let mut groups = query.is_grouped().then(|| query.groups());
    let mut after = page.after();
    loop {
        let mut visit = |key: &str, document: &dyn Document| {
            if !query.matches(document) {
                return ControlFlow::Continue(());
            }
            match &mut groups {
                Some(groups) => {
                    groups.add(document);
                    ControlFlow::Continue(())
                }
                None => page.add(|| query.row(document), Some(key)),
            }
        };
        after = match query.source() {
            Source::Devices => hub.visit_twins(after.as_deref(), &mut visit),
            Source::Jobs => {
                hub.visit_device_jobs(after.as_deref(), &mut |key, job| visit(key, job))
            }
        };
        if after.is_none() {
            break;
        }
        hub.give_way().await?;
    }
    // Groups are counted anew for each page, and come in a stable order.
    let skipped = usize::try_from(page.last.rows).unwrap_or(usize::MAX);
    for row in groups
        .into_iter()
        .flat_map(|groups| groups.rows().skip(skipped))
    {
        if page.add(|| row, None).is_break() {
            break;
        }
    }
    let item_type = match (query.source(), query.is_whole()) {
        (Source::Jobs, _) => "DeviceJob",
        (Source::Devices, true) => "Twin",
        (Source::Devices, false) => "Raw",
    };
    Ok(page.answer(item_type, text))
}

/// A header's text, if it has one: the SDKs send empty ones.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .filter(|value| !value.is_empty())
}

fn page_size(headers: &HeaderMap) -> Result<usize, Refusal> {
    match header(headers, "x-ms-max-item-count").map(str::parse::<u64>) {
        None => Ok(PAGE),
        Some(Ok(count)) if count > 0 => {
            Ok(usize::try_from(count).unwrap_or(MAX_PAGE).min(MAX_PAGE))
        }
        Some(_) => Err(Refusal::argument(
            "x-ms-max-item-count should be a number from 1.",
        )),
    }
}

/// The rows of one answer.
pub(super) struct Page {
    /// The JSON array, but for its end.
    body: Vec<u8>,
    /// How many more rows fit.
    room: usize,
    /// How many rows the query has at most, over all pages.
    top: u64,
    /// Whether the query has a row that did not fit.
    more: bool,
    /// Where this page ends.
    last: Continuation,
}

impl Page {
    /// The page that a request's headers ask for.
    pub(super) fn read(
        headers: &HeaderMap,
        query: &str,
        top: Option<u64>,
    ) -> Result<Self, Refusal> {
        let last = match header(headers, "x-ms-continuation") {
            Some(token) => Continuation::decode(token, query).ok_or_else(|| {
                Refusal::argument("x-ms-continuation is not one that this hub gave for this query.")
            })?,
            None => Continuation::default(),
        };
        Ok(Self {
            body: vec![b'['],
            room: page_size(headers)?,
            top: top.unwrap_or(u64::MAX),
            more: false,
            last,
        })
    }

    /// The key of the last row so far.
    pub(super) fn after(&self) -> Option<String> {
        self.last.after.clone()
    }

    /// The response.
    pub(super) fn answer(mut self, item_type: &'static str, query: &str) -> (HeaderMap, Vec<u8>) {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=utf-8"),
        );
        headers.insert(
            HeaderName::from_static("x-ms-item-type"),
            HeaderValue::from_static(item_type),
        );
        if self.more
            && let Ok(token) = HeaderValue::from_str(&self.last.encode(query))
        {
            headers.insert(HeaderName::from_static("x-ms-continuation"), token);
        }
        self.body.push(b']');
        (headers, self.body)
    }

    /// Takes a row, unless the page is full or the query has had all of its rows.
    pub(super) fn add(
        &mut self,
        row: impl FnOnce() -> Value,
        key: Option<&str>,
    ) -> ControlFlow<()> {
        if self.last.rows >= self.top {
            return ControlFlow::Break(());
        }
        if self.room == 0 {
            self.more = true;
            return ControlFlow::Break(());
        }
        if self.body.len() > 1 {
            self.body.push(b',');
        }
        self.body.extend(row().to_string().into_bytes());
        self.room = if self.body.len() < FULL {
            self.room - 1
        } else {
            0
        };
        self.last.rows += 1;
        self.last.after = key.map(str::to_owned);
        ControlFlow::Continue(())
    }
}

/// Where an answer ended. Rows that come and go do not shift it: it is a key, not a number.
#[derive(Debug, Default, PartialEq)]
struct Continuation {
    /// How many rows there were up to here.
    rows: u64,
    /// The key of the last one, such as its device, if it has one.
    after: Option<String>,
}

impl Continuation {
    /// As a header: a digest of the query, the rows, the key.
    fn encode(&self, query: &str) -> String {
        let mut bytes = digest(query).to_vec();
        bytes.extend(self.rows.to_be_bytes());
        bytes.extend(self.after.as_deref().unwrap_or_default().bytes());
        Base64UrlUnpadded::encode_string(&bytes)
    }

    fn decode(token: &str, query: &str) -> Option<Self> {
        let bytes = Base64UrlUnpadded::decode_vec(token).ok()?;
        let rest = bytes.strip_prefix(&digest(query))?;
        let (rows, after) = rest.split_first_chunk()?;
        let after = String::from_utf8(after.to_vec()).ok()?;
        Some(Self {
            rows: u64::from_be_bytes(*rows),
            after: Some(after).filter(|id| !id.is_empty()),
        })
    }
}

/// Enough of the query's SHA-256 to tell it from another.
fn digest(query: &str) -> [u8; 16] {
    let digest = ring::digest::digest(&ring::digest::SHA256, query.as_bytes());
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continuation_is_of_its_query() {
        for continuation in [
            Continuation::default(),
            Continuation {
                rows: 7,
                after: Some("d-1".into()),
            },
        ] {
            let token = continuation.encode("SELECT 1");
            assert_eq!(Continuation::decode(&token, "SELECT 1"), Some(continuation));
            assert_eq!(Continuation::decode(&token, "SELECT 2"), None);
        }
        for bad in ["", "?", "AAAA", "ZDE"] {
            assert_eq!(Continuation::decode(bad, "SELECT 1"), None);
        }
    }
}

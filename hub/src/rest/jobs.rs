//! Jobs: `/jobs/v2`.

use super::{Body, Hub, Id, parameter, query::Page};
use crate::{
    error::Refusal,
    jobs::{self, Job},
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, Uri},
    response::IntoResponse,
};
use serde_json::Value;
use std::ops::ControlFlow;

/// Types and statuses that may be asked for; Azure knows jobs this hub has none of.
const TYPES: [&str; 14] = [
    "unknown",
    "export",
    "import",
    "backup",
    "readDeviceProperties",
    "writeDeviceProperties",
    "updateDeviceConfiguration",
    "rebootDevice",
    "factoryResetDevice",
    "firmwareUpdate",
    "scheduleDeviceMethod",
    "scheduleUpdateTwin",
    "restoreFromBackup",
    "failoverDataCopy",
];
const STATUSES: [&str; 8] = [
    "unknown",
    "enqueued",
    "running",
    "completed",
    "failed",
    "cancelled",
    "scheduled",
    "queued",
];

pub(super) async fn put(
    State(hub): Hub,
    Id(id): Id,
    Body(body): Body,
) -> Result<Json<Value>, Refusal> {
    let (shown, job, cancelled) = hub.put_job(Job::parse(&id, &body)?)?;
    jobs::start(&hub, job, cancelled);
    Ok(Json(shown))
}

pub(super) async fn get(State(hub): Hub, Id(id): Id) -> Result<Json<Value>, Refusal> {
    hub.get_job(&id).map(Json)
}

pub(super) async fn cancel(State(hub): Hub, Id(id): Id) -> Result<Json<Value>, Refusal> {
    hub.cancel_job(&id).map(Json)
}

pub(super) async fn query(
    State(hub): Hub,
    uri: Uri,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Refusal> {
    let wanted = |name: &str, known: &[&'static str]| {
        parameter(&uri, name).map_or(Ok(None), |given| {
            let found = known.iter().find(|known| known.eq_ignore_ascii_case(given));
            found
                .map(|found| Some(*found))
                .ok_or_else(|| Refusal::argument(format!("{name} should be one of {known:?}.")))
        })
    };
    let (kind, status) = (wanted("jobType", &TYPES)?, wanted("jobStatus", &STATUSES)?);
    // A continuation is of one question.
    let question = format!("jobs {kind:?} {status:?}");
    let mut page = Page::read(&headers, &question, None)?;
    let after = page.after();
    hub.visit_jobs(after.as_deref(), |job, shown| {
        let is = |wanted: Option<&str>, value: &dyn Fn() -> Value| {
            wanted.is_none_or(|wanted| value() == wanted)
        };
        if is(kind, &|| serde_json::json!(job.kind))
            && is(status, &|| serde_json::json!(job.status))
        {
            page.add(shown, Some(&job.id))
        } else {
            ControlFlow::Continue(())
        }
    });
    Ok(page.answer("JobResponse", &question))
}

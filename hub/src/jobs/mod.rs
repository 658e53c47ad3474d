//! Jobs: a direct method, or a patch of the twin, for all devices that fulfil a condition.
//!
//! After "Schedule jobs on multiple devices" (<https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-jobs>). What it
//! leaves open is decided here:
//!
//! - The devices are chosen when the job starts. One that comes later is not part of it.
//! - A job whose time is over is `completed`; the devices it did not come to are `failed`. It is `failed` only if the hub
//!   could not run it.
//! - Several jobs run at once; together they are busy with [`MAX_BUSY`] devices at a time.
//! - **After a restart** (or kill) a running job goes on with the devices it had not come to. No patch is made
//!   twice. Neither is a direct method that was under way called twice: whether the device ran it is not known, so that device
//!   is `failed`.
//! - Results are kept until there are more than [`MAX_JOBS`] jobs or [`MAX_RESULTS`] results of devices; then those of the
//!   oldest ended job are forgotten. Of the devices' answers a job keeps [`MAX_ANSWERS`] bytes; what comes then is `null`.

mod run;

use crate::{
    clock,
    error::{Code, Refusal},
    methods::Call,
    query::Condition,
    twin::Twin,
};
pub(crate) use run::{resume, start};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// How many jobs are kept.
pub(crate) const MAX_JOBS: usize = 200;
/// How many results of devices are kept, before the oldest job is forgotten.
pub(crate) const MAX_RESULTS: usize = 200_000;
/// How many bytes of the devices' answers a job keeps.
pub(crate) const MAX_ANSWERS: usize = 16 * 1024 * 1024;
/// How many devices jobs are busy with at once.
pub(crate) const MAX_BUSY: usize = 64;
/// The longest time a job may take, in seconds: a year.
const MAX_TIME: u64 = 365 * 24 * 3600;

/// What a job does with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    ScheduleDeviceMethod,
    ScheduleUpdateTwin,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Status {
    Scheduled,
    Running,
    Completed,
    Failed,
    Cancelled,
}

/// How far a job is with one device. Azure's spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum DeviceStatus {
    Pending,
    Running,
    Completed,
    Failed,
    Canceled,
}

impl DeviceStatus {
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }
}

/// A job.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) kind: Kind,
    /// The method, or the patch, as it was given.
    pub(crate) request: Value,
    pub(crate) query_condition: String,
    created: String,
    start: String,
    /// The start in seconds since 1970.
    pub(crate) start_unix: u64,
    /// The longest time, in seconds.
    pub(crate) max_time: u64,
    /// Tells which of two is older.
    pub(crate) order: u64,
    pub(crate) status: Status,
    /// Whether all of its devices are known.
    pub(crate) gathered: bool,
    pub(crate) ended: Option<String>,
    pub(crate) failure: Option<String>,
}

/// What a job did with a device.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct DeviceJob {
    pub(crate) job: String,
    pub(crate) device: String,
    pub(crate) kind: Kind,
    pub(crate) status: DeviceStatus,
    pub(crate) created: String,
    pub(crate) started: Option<String>,
    pub(crate) ended: Option<String>,
    pub(crate) updated: String,
    /// The device's answer to a method.
    pub(crate) answer: Option<Value>,
    /// Name and description.
    pub(crate) error: Option<(String, String)>,
}

/// How many of a job's devices are how far.
#[derive(Default)]
pub(crate) struct Statistics {
    devices: usize,
    failed: usize,
    succeeded: usize,
    running: usize,
    pending: usize,
}

impl Job {
    /// Reads the body of a `PUT /jobs/v2/{id}`.
    pub(crate) fn parse(id: &str, body: &Value) -> Result<Self, Refusal> {
        let allowed = |c: char| c.is_ascii_graphic() && c != '/';
        if id.is_empty() || id.len() > 128 || !id.chars().all(allowed) {
            return Err(Refusal::argument(
                "A job's id should be 1 to 128 printable ASCII characters, none of them / or a space.",
            ));
        }
        let given = |name: &str| body.get(name).filter(|value| !value.is_null());
        if given("jobId").is_some_and(|given| given.as_str() != Some(id)) {
            return Err(Refusal::argument(
                "jobId of the body is not the one of the path.",
            ));
        }
        let (kind, request) = match given("type").and_then(Value::as_str) {
            Some("scheduleDeviceMethod") => {
                let method = given("cloudToDeviceMethod").ok_or_else(|| {
                    Refusal::argument("A scheduleDeviceMethod job needs cloudToDeviceMethod.")
                })?;
                Call::parse(method.clone())?;
                (Kind::ScheduleDeviceMethod, method)
            }
            Some("scheduleUpdateTwin") => {
                let patch = given("updateTwin")
                    .filter(|patch| patch.is_object())
                    .ok_or_else(|| {
                        Refusal::argument("A scheduleUpdateTwin job needs updateTwin, an object.")
                    })?;
                Twin::new().update(patch, false)?;
                (Kind::ScheduleUpdateTwin, patch)
            }
            _ => {
                return Err(Refusal::argument(
                    "type should be scheduleDeviceMethod or scheduleUpdateTwin.",
                ));
            }
        };
        let query_condition = given("queryCondition")
            .and_then(Value::as_str)
            .filter(|text| !text.trim().is_empty())
            .ok_or_else(|| {
                Refusal::argument("queryCondition should be a condition on twins, or * for all.")
            })?;
        condition(query_condition)?;
        let (start, start_unix) = match given("startTime") {
            None => (clock::now(), clock::unix()),
            Some(time) => time
                .as_str()
                .and_then(|text| Some((text.to_owned(), unix(text)?)))
                .ok_or_else(|| {
                    Refusal::argument(
                        "startTime should be a time such as 2026-01-31T12:00:00Z (ISO 8601).",
                    )
                })?,
        };
        let max_time = given("maxExecutionTimeInSeconds").map_or(Ok(3600), |time| {
            time.as_u64()
                .filter(|time| (1..=MAX_TIME).contains(time))
                .ok_or_else(|| {
                    Refusal::argument(format!(
                        "maxExecutionTimeInSeconds should be a whole number from 1 to {MAX_TIME}."
                    ))
                })
        })?;
        Ok(Self {
            id: id.into(),
            kind,
            request: request.clone(),
            query_condition: query_condition.into(),
            created: clock::now(),
            start,
            start_unix: start_unix.max(clock::unix()),
            max_time,
            order: clock::unix_nanos(),
            status: Status::Scheduled,
            gathered: false,
            ended: None,
            failure: None,
        })
    }

    /// Which devices it is for.
    pub(crate) fn condition(&self) -> Result<Condition, Refusal> {
        condition(&self.query_condition)
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.status, Status::Scheduled | Status::Running)
    }

    /// As it is shown.
    pub(crate) fn shown(&self, statistics: &Statistics) -> Value {
        let request = match self.kind {
            Kind::ScheduleDeviceMethod => "cloudToDeviceMethod",
            Kind::ScheduleUpdateTwin => "updateTwin",
        };
        json!({
            "jobId": self.id,
            "queryCondition": self.query_condition,
            "createdTime": self.created,
            "startTime": self.start,
            "endTime": self.ended,
            "maxExecutionTimeInSeconds": self.max_time,
            "type": self.kind,
            request: self.request,
            "status": self.status,
            "failureReason": self.failure,
            "deviceJobStatistics": {
                "deviceCount": statistics.devices,
                "failedCount": statistics.failed,
                "succeededCount": statistics.succeeded,
                "runningCount": statistics.running,
                "pendingCount": statistics.pending,
            },
        })
    }

    /// What it is to do with a device, before it is done.
    pub(crate) fn device(&self, device: &str) -> DeviceJob {
        let now = clock::now();
        DeviceJob {
            job: self.id.clone(),
            device: device.into(),
            kind: self.kind,
            status: DeviceStatus::Pending,
            created: now.clone(),
            started: None,
            ended: None,
            updated: now,
            answer: None,
            error: None,
        }
    }
}

impl DeviceJob {
    /// Tells it from all others; those of one job follow each other.
    pub(crate) fn key(job: &str, device: &str) -> String {
        format!("{job}/{device}")
    }

    /// Goes to another status.
    pub(crate) fn set(&mut self, status: DeviceStatus) {
        let now = clock::now();
        match status {
            DeviceStatus::Pending => {}
            DeviceStatus::Running => self.started = Some(now.clone()),
            _ => self.ended = Some(now.clone()),
        }
        self.status = status;
        self.updated = now;
    }

    /// Ends it without success.
    pub(crate) fn fail(&mut self, code: &str, description: &str) {
        self.set(DeviceStatus::Failed);
        self.error = Some((code.into(), description.into()));
    }

    /// As a document of `devices.jobs`.
    pub(crate) fn shown(&self) -> Value {
        let mut shown = json!({
            "deviceId": self.device,
            "jobId": self.job,
            "jobType": self.kind,
            "status": self.status,
            "createdDateTimeUtc": self.created,
            "lastUpdatedDateTimeUtc": self.updated,
            "outcome": {"deviceMethodResponse": self.answer},
        });
        if let Value::Object(members) = &mut shown {
            for (name, time) in [("startTimeUtc", &self.started), ("endTimeUtc", &self.ended)] {
                if let Some(time) = time {
                    members.insert(name.into(), time.as_str().into());
                }
            }
            if let Some((code, description)) = &self.error {
                let error = json!({"code": code, "description": description});
                members.insert("error".into(), error);
            }
        }
        shown
    }
}

impl Statistics {
    pub(crate) fn add(&mut self, device: &DeviceJob) {
        self.devices += 1;
        match device.status {
            DeviceStatus::Pending => self.pending += 1,
            DeviceStatus::Running => self.running += 1,
            DeviceStatus::Completed => self.succeeded += 1,
            DeviceStatus::Failed => self.failed += 1,
            DeviceStatus::Canceled => {}
        }
    }
}

fn condition(text: &str) -> Result<Condition, Refusal> {
    Condition::parse(text)
        .map_err(|error| Refusal::argument(format!("queryCondition is wrong: {error}.")))
}

/// Seconds since 1970 of a time; without an offset it is UTC.
fn unix(text: &str) -> Option<u64> {
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let time = parse(text).or_else(|| parse(&format!("{text}Z")))?;
    Some(u64::try_from(time.unix_timestamp()).unwrap_or(0))
}

/// There is no such job.
pub(crate) fn none(id: &str) -> Refusal {
    Refusal::new(
        Code::JOB_NOT_FOUND,
        format!(
            "There is no job {:?}.",
            id.chars().take(140).collect::<String>()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31T12:00:00.1234567Z",
            "2026-01-31T13:00:00+01:00",
            "2026-01-31T12:00:00",
        ] {
            assert_eq!(unix(text), Some(1_769_860_800), "{text}");
        }
        assert_eq!(unix("1900-01-01T00:00:00Z"), Some(0));
        for text in ["", "now", "2026-01-31", "2026-13-31T12:00:00Z"] {
            assert_eq!(unix(text), None, "{text}");
        }
    }

    #[test]
    fn wrong_jobs_are_refused() {
        let method = json!({
            "type": "scheduleDeviceMethod", "cloudToDeviceMethod": {"methodName": "m"}, "queryCondition": "*",
        });
        let twin = json!({
            "type": "scheduleUpdateTwin", "updateTwin": {"etag": "*", "tags": {"a": 1}}, "queryCondition": "tags.a = 1",
        });
        assert!(Job::parse("j", &method).is_ok());
        assert!(Job::parse("j", &twin).is_ok());
        for id in ["", "a/b", "a b", &"x".repeat(129)] {
            assert!(Job::parse(id, &method).is_err(), "{id}");
        }
        for (base, name, value) in [
            (&method, "type", json!("export")),
            (&method, "jobId", json!("other")),
            (&method, "cloudToDeviceMethod", json!(null)),
            (&method, "cloudToDeviceMethod", json!({"methodName": ""})),
            (&method, "queryCondition", json!("")),
            (&method, "queryCondition", json!("tags.")),
            (&method, "startTime", json!("tomorrow")),
            (&method, "startTime", json!(1)),
            (&method, "maxExecutionTimeInSeconds", json!(0)),
            (&method, "maxExecutionTimeInSeconds", json!("1")),
            (&twin, "updateTwin", json!(1)),
            (&twin, "updateTwin", json!({"tags": {"a.b": 1}})),
        ] {
            let mut body = base.clone();
            body[name] = value;
            let code = Job::parse("j", &body).err().map(|refusal| refusal.code);
            assert_eq!(code, Some(Code::ARGUMENT_INVALID), "{body}");
        }
    }
}

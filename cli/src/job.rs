//! `twinflash job`: a direct method or a change of the twin, for many devices.

use crate::{
    Common,
    cloud::{Cloud, json_argument, quoted, text, time},
    error::Error,
    query,
    screen::{Screen, Tone},
    service::{About, Refused, Request, Service, method_call},
    table,
    twin::Change,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    process, thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How often a job is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// The width of the longest name of [`show`].
const NAMES: usize = 9;

/// Direct methods and changes of twins for all devices that fulfil a condition.
#[derive(clap::Subcommand)]
pub(crate) enum Jobs {
    Start(Start),
    /// Follow a job's devices to its end; exits with 0 if each did what it was asked for
    Follow {
        #[command(flatten)]
        which: Which,
    },
    /// Show a job and what it did with each device
    Show {
        #[command(flatten)]
        which: Which,
    },
    /// List the jobs the hub still knows
    List {
        #[command(flatten)]
        cloud: Cloud,
        /// Only those with this status: scheduled, running, completed, failed, cancelled
        #[arg(long)]
        status: Option<String>,
    },
    /// Cancel a job; devices it has not come to are left out
    Cancel {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(clap::Args)]
pub(crate) struct Which {
    #[command(flatten)]
    cloud: Cloud,
    /// The job's id
    job: String,
}

/// Start a job: --method NAME, or --desired and --tags
#[derive(clap::Args)]
pub(crate) struct Start {
    #[command(flatten)]
    cloud: Cloud,
    /// Which devices: a condition such as "tags.building = '43'", or * for all
    #[arg(long = "where", value_name = "CONDITION")]
    condition: String,
    /// Call this direct method
    #[arg(long, value_name = "NAME", conflicts_with_all = ["desired", "tags"])]
    method: Option<String>,
    /// The method's payload
    #[arg(long, requires = "method", value_name = "JSON|@FILE")]
    payload: Option<String>,
    #[command(flatten)]
    change: Change,
    /// When to start, such as 2026-01-31T12:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// After so many seconds it ends, whatever is left to do
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    max_time: u64,
    /// Follow it to its end
    #[arg(long)]
    follow: bool,
    /// The new job's id [default: one that is not in use]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

/// A device's part of a job.
#[derive(Serialize)]
#[serde(tag = "event", rename = "device")]
struct Device<'a> {
    device: &'a str,
    status: &'a str,
    /// The device's answer to a method.
    #[serde(skip_serializing_if = "Value::is_null")]
    answer: &'a Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    error: &'a Value,
}

/// How it ended.
#[derive(Serialize)]
#[serde(tag = "event", rename = "result")]
struct Ended<'a> {
    outcome: &'static str,
    job: &'a str,
    status: &'a str,
    done: u64,
    failed: u64,
}

impl Jobs {
    pub(crate) fn run(self, common: &Common, screen: &Screen) -> Result<bool, Error> {
        match self {
            Self::Start(start) => return start.run(common, screen),
            Self::Follow {
                which: Which { cloud, job },
            } => {
                return follow(&cloud.open(common)?, screen, &job);
            }
            Self::Show {
                which: Which { cloud, job },
            } => {
                let service = cloud.open(common)?;
                show(screen, &look(&service, &job)?);
                let devices = service.rows(&devices_of(&job))?;
                if screen.is_json() {
                    devices.iter().for_each(|device| screen.json(device));
                } else if !devices.is_empty() {
                    let rows: Vec<_> = devices.iter().map(row).collect();
                    table::show(screen, &["deviceId", "status", "ended", "outcome"], &rows);
                }
            }
            Self::List { cloud, status } => {
                let mut all = Vec::new();
                let status = status.unwrap_or_default();
                let request = || {
                    let request = Request::new("GET", &["jobs", "v2", "query"], About::Hub);
                    match status.as_str() {
                        "" => request,
                        status => request.parameter("jobStatus", status),
                    }
                };
                cloud
                    .open(common)?
                    .pages(&request, &mut |jobs| all.extend(jobs))?;
                list(screen, &all);
            }
            Self::Cancel {
                which: Which { cloud, job },
            } => {
                let path = ["jobs", "v2", &job, "cancel"];
                let request = Request::new("POST", &path, About::Job(&job));
                show(screen, &cloud.open(common)?.ask(request)?);
            }
        }
        Ok(true)
    }
}

impl Start {
    fn run(self, common: &Common, screen: &Screen) -> Result<bool, Error> {
        let id = self.id.unwrap_or_else(new_id);
        let mut body = json!({
            "jobId": id,
            "queryCondition": self.condition,
            "startTime": self.at.unwrap_or_else(now),
            "maxExecutionTimeInSeconds": self.max_time,
        });
        let (kind, name, request) = match (&self.method, self.change.patch()?) {
            (Some(method), _) => {
                let payload = self.payload.as_deref();
                let payload = payload.map(|given| json_argument(given, "--payload"));
                let call = method_call(method, &payload.transpose()?.unwrap_or_default());
                ("scheduleDeviceMethod", "cloudToDeviceMethod", call)
            }
            (None, Some(mut patch)) => {
                if let Value::Object(patch) = &mut patch {
                    patch.insert("etag".into(), "*".into());
                }
                ("scheduleUpdateTwin", "updateTwin", patch)
            }
            (None, None) => {
                return Err(Error::new(
                    "nothing to do: give --method, or --desired, --tags or both",
                ));
            }
        };
        if let Value::Object(body) = &mut body {
            body.insert("type".into(), kind.into());
            body.insert(name.into(), request);
        }
        let service = self.cloud.open(common)?;
        let path = ["jobs", "v2", &id];
        let made = service
            .ask(Request::new("PUT", &path, About::Job(&id)).body(body))
            .map_err(|refused| query::wrong(screen, &self.condition, refused))?;
        show(screen, &made);
        if self.follow {
            return follow(&service, screen, &id);
        }
        screen.text(
            &format!("To follow it: twinflash job follow {id}"),
            Tone::Dim,
        );
        Ok(true)
    }
}

/// Follows a job to its end; whether each device did what it was asked for.
fn follow(service: &Service, screen: &Screen, job: &str) -> Result<bool, Error> {
    let mut shown = BTreeMap::new();
    let mut failing = false;
    let status = loop {
        // The job first: what its devices did is complete when it has ended.
        let looked = look(service, job).and_then(|found| {
            let devices = service.rows(&devices_of(job))?;
            Ok((text(&found, "/status"), devices))
        });
        match looked {
            Ok((status, devices)) => {
                failing = false;
                for device in &devices {
                    show_device(screen, device, &mut shown);
                }
                if !matches!(
                    status.as_str(),
                    "unknown" | "enqueued" | "queued" | "scheduled" | "running"
                ) {
                    break status;
                }
            }
            Err(refused) if refused.passing => {
                if !failing {
                    screen.note(&format!("{refused}; trying again"));
                }
                failing = true;
            }
            Err(refused) => return Err(refused.into()),
        }
        thread::sleep(INTERVAL);
    };
    let count = |wanted: bool| shown.values().filter(|good| **good == wanted).count();
    let (done, failed) = (count(true), count(false));
    let succeeded = status == "completed" && failed == 0 && done > 0;
    let (outcome, tone) = match succeeded {
        true => ("completed", Tone::Good),
        false => ("failed", Tone::Bad),
    };
    let line = match (done, failed) {
        (0, 0) => format!("{status}: no device fulfilled its condition"),
        _ => format!("{status}: {done} done, {failed} not"),
    };
    screen.text(&line, tone);
    if screen.is_json() {
        screen.json(&Ended {
            outcome,
            job,
            status: &status,
            done: done.try_into().unwrap_or(u64::MAX),
            failed: failed.try_into().unwrap_or(u64::MAX),
        });
    }
    Ok(succeeded)
}

/// Shows a device's end, once; `shown` holds whether each succeeded.
fn show_device(screen: &Screen, row: &Value, shown: &mut BTreeMap<String, bool>) {
    let (device, status) = (text(row, "/deviceId"), text(row, "/status"));
    if matches!(status.as_str(), "pending" | "scheduled" | "running") || shown.contains_key(&device)
    {
        return;
    }
    let good = succeeded(row);
    let label = if good { "done" } else { "failed" };
    let tone = if good { Tone::Good } else { Tone::Bad };
    let answer = row.pointer("/outcome/deviceMethodResponse");
    let event = Device {
        device: &device,
        status: &status,
        answer: answer.unwrap_or(&Value::Null),
        error: row.get("error").unwrap_or(&Value::Null),
    };
    screen.event(&event, label, tone, || match outcome(row) {
        outcome if outcome.is_empty() => device.clone(),
        outcome => format!("{device}: {outcome}"),
    });
    shown.insert(device, good);
}

/// Whether the device did what it was asked for. To the hub a method is done with any answer.
fn succeeded(row: &Value) -> bool {
    let status = row.pointer("/outcome/deviceMethodResponse/status");
    let answer = status.and_then(Value::as_i64).unwrap_or(200);
    text(row, "/status") == "completed" && (200..300).contains(&answer)
}

/// The device's answer, or why there is none.
fn outcome(row: &Value) -> String {
    let description = text(row, "/error/description");
    if !description.is_empty() {
        return description;
    }
    let status = text(row, "/outcome/deviceMethodResponse/status");
    match row.pointer("/outcome/deviceMethodResponse/payload") {
        Some(payload) if !status.is_empty() => format!("{status} {payload}"),
        _ => status,
    }
}

fn row(device: &Value) -> Vec<String> {
    vec![
        text(device, "/deviceId"),
        text(device, "/status"),
        time(device, "/endTimeUtc"),
        outcome(device),
    ]
}

fn look(service: &Service, job: &str) -> Result<Value, Refused> {
    let path = ["jobs", "v2", job];
    service.ask(Request::new("GET", &path, About::Job(job)))
}

/// What a job did with each device.
fn devices_of(job: &str) -> String {
    format!(
        "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = {}",
        quoted(job)
    )
}

fn show(screen: &Screen, job: &Value) {
    if screen.is_json() {
        return screen.json(job);
    }
    for (name, value) in [
        ("id", text(job, "/jobId")),
        ("type", text(job, "/type")),
        ("method", text(job, "/cloudToDeviceMethod/methodName")),
        ("condition", text(job, "/queryCondition")),
        ("status", text(job, "/status")),
        ("starts", time(job, "/startTime")),
        ("ended", time(job, "/endTime")),
        ("failure", text(job, "/failureReason")),
    ] {
        if !value.is_empty() {
            screen.pair(NAMES, name, &value, "", Tone::Normal);
        }
    }
}

fn list(screen: &Screen, all: &[Value]) {
    if screen.is_json() {
        return all.iter().for_each(|job| screen.json(job));
    }
    if all.is_empty() {
        return screen.text("no jobs", Tone::Dim);
    }
    let row = |job: &Value| {
        let number = |name: &str| text(job, &format!("/deviceJobStatistics/{name}"));
        vec![
            text(job, "/jobId"),
            text(job, "/type"),
            text(job, "/status"),
            time(job, "/startTime"),
            number("deviceCount"),
            number("succeededCount"),
            number("failedCount"),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let columns = [
        "id",
        "type",
        "status",
        "starts",
        "devices",
        "succeeded",
        "failed",
    ];
    table::show(screen, &columns, &rows);
}

fn new_id() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    format!(
        "twinflash-{}-{}",
        now.unwrap_or_default().as_millis(),
        process::id()
    )
}

fn now() -> String {
    crate::screen::iso(::time::OffsetDateTime::now_utc())
}

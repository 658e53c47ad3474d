//! Jobs over REST, and what they do with devices over MQTT.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Fixture, Response, Rest, start, start_with, unix};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use twinflash_hub::Options;

fn method(condition: &str) -> Value {
    json!({
        "type": "scheduleDeviceMethod",
        "cloudToDeviceMethod": {"methodName": "m", "payload": {"a": 1}, "responseTimeoutInSeconds": 30},
        "queryCondition": condition,
    })
}

fn update(condition: &str) -> Value {
    json!({
        "type": "scheduleUpdateTwin",
        "updateTwin": {"etag": "*", "tags": {"job": 1}, "properties": {"desired": {"v": 2}}},
        "queryCondition": condition,
    })
}

/// A time some seconds from now, as a back end writes it.
fn soon(seconds: u64) -> String {
    let time = OffsetDateTime::now_utc() + Duration::from_secs(seconds);
    let (hour, minute, second) = time.time().as_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", time.date())
}

fn put(owner: &Rest, id: &str, body: &Value) -> Response {
    owner.call("PUT", &format!("/jobs/v2/{id}"), Some(body))
}

fn scheduled(owner: &Rest, id: &str, body: &Value) -> Value {
    let response = put(owner, id, body);
    assert_eq!(response.status, 200, "{}", response.body);
    assert_eq!(response.body["status"], "scheduled");
    response.body
}

/// Waits until a job has a status; returns what is shown of it.
fn until(owner: &Rest, id: &str, status: &str) -> Value {
    let end = Instant::now() + Duration::from_secs(15);
    loop {
        let job = owner.get(&format!("/jobs/v2/{id}")).body;
        if job["status"] == status {
            return job;
        }
        assert!(Instant::now() < end, "not {status}: {job}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn rows(owner: &Rest, text: &str) -> Vec<Value> {
    let found = owner.query(text, &[]);
    assert_eq!(found.status, 200, "{}", found.body);
    assert_eq!(found.header("x-ms-item-type"), Some("DeviceJob"));
    found.body.as_array().unwrap().clone()
}

fn results(owner: &Rest, id: &str) -> Vec<Value> {
    rows(
        owner,
        &format!("SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '{id}'"),
    )
}

fn devices(owner: &Rest, count: usize) {
    for n in 0..count {
        let path = format!("/devices/n{n}");
        assert_eq!(owner.call("PUT", &path, Some(&json!({}))).status, 200);
    }
}

#[test]
fn a_method_job_has_a_result_for_each_device() {
    let fixture = start();
    let owner = fixture.owner();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    let job = scheduled(&owner, "j", &method("*"));
    assert_eq!(job["jobId"], "j");
    assert_eq!(job["type"], "scheduleDeviceMethod");
    assert_eq!(job["queryCondition"], "*");
    assert_eq!(job["maxExecutionTimeInSeconds"], 3600);
    assert_eq!(job["cloudToDeviceMethod"]["methodName"], "m");
    let call = device.answer(201, r#"{"said":true}"#);
    assert_eq!(call.json(), json!({"a": 1}));
    let job = until(&owner, "j", "completed");
    assert_eq!(
        job["deviceJobStatistics"],
        json!({"deviceCount": 2, "failedCount": 1, "succeededCount": 1, "runningCount": 0, "pendingCount": 0})
    );
    assert!(job["endTime"].is_string() && job["createdTime"].is_string());
    let results = results(&owner, "j");
    assert_eq!(results.len(), 2);
    for (result, device, status) in [
        (&results[0], "d1", "completed"),
        (&results[1], "d2", "failed"),
    ] {
        assert_eq!(result["deviceId"], device);
        assert_eq!(result["status"], status);
        assert_eq!(result["jobId"], "j");
        assert_eq!(result["jobType"], "scheduleDeviceMethod");
        for time in [
            "createdDateTimeUtc",
            "startTimeUtc",
            "endTimeUtc",
            "lastUpdatedDateTimeUtc",
        ] {
            assert!(result[time].is_string(), "{time}");
        }
    }
    assert_eq!(
        results[0]["outcome"],
        json!({"deviceMethodResponse": {"status": 201, "payload": {"said": true}}})
    );
    assert_eq!(results[1]["error"]["code"], "DeviceNotOnline");
    let failed = "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'j' AND devices.jobs.status = 'failed'";
    assert_eq!(rows(&owner, failed), results[1..]);
    put(&owner, "j", &method("*")).refused(409, "JobAlreadyExists");
    put(&owner, "k", &method("tags.")).refused(400, "ArgumentInvalid");
    owner.get("/jobs/v2/none").refused(404, "JobNotFound");
    owner
        .call("POST", "/jobs/v2/none/cancel", None)
        .refused(404, "JobNotFound");
    // Cancelling what has ended changes nothing.
    assert_eq!(owner.call("POST", "/jobs/v2/j/cancel", None).body, job);
}

#[test]
fn a_twin_job_patches_the_devices_that_fulfil_its_condition() {
    let fixture = start();
    let owner = fixture.owner();
    devices(&owner, 150);
    let mut device = fixture.device("d2");
    device.subscribe_all();
    scheduled(&owner, "j", &update("deviceId != 'd1'"));
    let job = until(&owner, "j", "completed");
    assert_eq!(job["deviceJobStatistics"]["succeededCount"], 151);
    assert_eq!(device.message().json(), json!({"v": 2, "$version": 2}));
    let shown = owner.get("/twins/n149").body;
    assert_eq!(shown["tags"], json!({"job": 1}));
    assert_eq!(shown["properties"]["desired"]["v"], 2);
    assert_eq!(owner.get("/twins/d1").body["tags"], json!({}));
    let result = &rows(
        &owner,
        "SELECT * FROM devices.jobs WHERE devices.jobs.deviceId = 'd2'",
    )[0];
    assert_eq!(result["status"], "completed");
    assert_eq!(result["outcome"], json!({"deviceMethodResponse": null}));
    // None at all is no failure.
    scheduled(&owner, "none", &update("tags.none = 1"));
    let job = until(&owner, "none", "completed");
    assert_eq!(job["deviceJobStatistics"]["deviceCount"], 0);
}

#[test]
fn a_job_waits_for_its_start_and_can_be_cancelled() {
    let fixture = start();
    let owner = fixture.owner();
    let mut later = update("*");
    later["startTime"] = soon(2).into();
    scheduled(&owner, "soon", &later);
    later["startTime"] = soon(3600).into();
    scheduled(&owner, "late", &later);
    let cancelled = owner.call("POST", "/jobs/v2/late/cancel", None);
    assert_eq!(
        (cancelled.status, &cancelled.body["status"]),
        (200, &json!("cancelled"))
    );
    assert_eq!(owner.get("/twins/d1").body["tags"], json!({}));
    until(&owner, "soon", "completed");
    assert!(
        owner.get("/jobs/v2/soon").body["startTime"]
            .as_str()
            .unwrap()
            <= soon(0).as_str()
    );
    assert_eq!(owner.get("/twins/d1").body["tags"], json!({"job": 1}));
    assert_eq!(owner.get("/jobs/v2/late").body["status"], "cancelled");

    // While a device thinks about its answer.
    let mut device = fixture.device("d1");
    device.subscribe_all();
    scheduled(&owner, "running", &method("deviceId = 'd1'"));
    device.message();
    until(&owner, "running", "running");
    let cancelled = owner.call("POST", "/jobs/v2/running/cancel", None).body;
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(results(&owner, "running")[0]["status"], "canceled");
}

#[test]
fn a_job_ends_with_its_time() {
    let fixture = start();
    let owner = fixture.owner();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    let mut body = method("deviceId = 'd1'");
    body["maxExecutionTimeInSeconds"] = json!(1);
    scheduled(&owner, "j", &body);
    device.message();
    let job = until(&owner, "j", "completed");
    assert_eq!(job["deviceJobStatistics"]["failedCount"], 1);
    assert_eq!(
        results(&owner, "j")[0]["error"]["code"],
        "JobRunPreconditionFailed"
    );
}

#[test]
fn jobs_are_found_by_type_and_status_in_pages() {
    let fixture = start();
    let owner = fixture.owner();
    for n in 0..3 {
        scheduled(&owner, &format!("t{n}"), &update("*"));
        until(&owner, &format!("t{n}"), "completed");
    }
    let mut late = method("*");
    late["startTime"] = soon(3600).into();
    scheduled(&owner, "m", &late);
    let ask = |query: &str, headers: &[(&str, &str)]| {
        owner.raw(
            "GET",
            &format!("/jobs/v2/query?api-version=2021-04-12{query}"),
            None,
            headers,
        )
    };
    let ids = |response: &Response| -> Vec<String> {
        assert_eq!(response.status, 200, "{}", response.body);
        let jobs = response.body.as_array().unwrap();
        jobs.iter()
            .map(|job| job["jobId"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = ask("", &[]);
    assert_eq!(ids(&all), ["m", "t0", "t1", "t2"]);
    assert_eq!(all.header("x-ms-item-type"), Some("JobResponse"));
    assert_eq!(all.header("x-ms-continuation"), None);
    assert_eq!(all.body[1], owner.get("/jobs/v2/t0").body);
    assert_eq!(ids(&ask("&jobType=scheduleDeviceMethod", &[])), ["m"]);
    assert_eq!(
        ids(&ask("&jobStatus=completed&jobType=scheduleUpdateTwin", &[])),
        ["t0", "t1", "t2"]
    );
    assert_eq!(ids(&ask("&jobType=export", &[])), [""; 0]);
    ask("&jobStatus=done", &[]).refused(400, "ArgumentInvalid");
    let size = ("x-ms-max-item-count", "2");
    let first = ask("&jobStatus=completed", &[size]);
    assert_eq!(ids(&first), ["t0", "t1"]);
    let token = first.header("x-ms-continuation").unwrap();
    let second = ask(
        "&jobStatus=completed",
        &[size, ("x-ms-continuation", token)],
    );
    assert_eq!(ids(&second), ["t2"]);
    assert_eq!(second.header("x-ms-continuation"), None);
    ask("", &[("x-ms-continuation", token)]).refused(400, "ArgumentInvalid");
}

#[test]
fn jobs_need_the_right_to_reach_devices() {
    let fixture = start();
    let token = |policy: &str| {
        let key = common::field(&fixture.info().policies[policy], "SharedAccessKey");
        common::token("localhost", &key, unix() + 600, Some(policy))
    };
    let reader = fixture.with_token(Some(token("registryReadWrite")));
    put(&reader, "j", &update("*")).refused(401, "IotHubUnauthorized");
    reader.get("/jobs/v2/j").refused(401, "IotHubUnauthorized");
    let service = fixture.with_token(Some(token("service")));
    scheduled(&service, "j", &update("*"));
}

#[test]
fn the_oldest_ended_jobs_make_room() {
    let fixture = start();
    let owner = fixture.owner();
    let mut late = update("*");
    late["startTime"] = soon(3600).into();
    for n in 0..199 {
        scheduled(&owner, &format!("late{n}"), &late);
    }
    scheduled(&owner, "old", &update("*"));
    until(&owner, "old", "completed");
    scheduled(&owner, "last", &late);
    owner.get("/jobs/v2/old").refused(404, "JobNotFound");
    assert_eq!(results(&owner, "old").len(), 0);
    put(&owner, "more", &late).refused(403, "JobQuotaExceeded");
}

/// A hub on what another, still running one has written so far: as after a kill.
fn killed(directory: &std::path::Path) -> Fixture {
    let copy = directory.join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(directory.join("state")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    start_with(Options {
        state: Some(copy),
        ..Options::default()
    })
}

#[test]
fn jobs_outlive_the_hub() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = start_with(Options {
        state: Some(directory.path().join("state")),
        ..Options::default()
    });
    let owner = fixture.owner();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    scheduled(&owner, "done", &update("*"));
    let done = until(&owner, "done", "completed");
    assert_eq!(device.message().json()["$version"], 2);
    scheduled(&owner, "under-way", &method("deviceId = 'd1'"));
    device.message();
    let mut later = update("*");
    later["updateTwin"]["tags"]["later"] = json!(true);
    later["startTime"] = soon(2).into();
    scheduled(&owner, "later", &later);
    let again = killed(directory.path());
    drop(fixture);

    let owner = again.owner();
    assert_eq!(owner.get("/jobs/v2/done").body, done);
    assert_eq!(results(&owner, "done").len(), 2);
    // Whether the device ran the method cannot be known: it is not called again.
    let mut device = again.device("d1");
    device.subscribe_all();
    let job = until(&owner, "under-way", "completed");
    assert_eq!(job["deviceJobStatistics"]["failedCount"], 1);
    let error = &results(&owner, "under-way")[0]["error"];
    assert_eq!(error["code"], "ServiceUnavailable");
    assert!(error["description"].as_str().unwrap().contains("not known"));
    until(&owner, "later", "completed");
    assert_eq!(owner.get("/twins/d2").body["tags"]["later"], true);
}

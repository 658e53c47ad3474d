//! A hub that takes only so much in a time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Fixture, start_with};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use twinflash_hub::{Limits, Options, Rate};

/// Two of everything in a minute, but for what `change` changes.
fn limited(change: impl FnOnce(&mut Limits)) -> Fixture {
    let two = Rate::per_minute(2);
    let mut limits = Limits {
        connections: two,
        telemetry: two,
        twin_reads: two,
        twin_updates: two,
        methods: two,
        registry: two,
        queries: two,
        configurations: two,
        jobs: two,
        job_devices: two,
    };
    change(&mut limits);
    start_with(Options {
        throttle: Some(limits),
        ..Options::default()
    })
}

const NAME: &str = "ThrottlingException";

#[test]
fn a_device_s_twin_and_connections() {
    let hub = limited(|_| {});
    let mut device = hub.device("d1");
    device.subscribe_all();
    for n in 0..2 {
        device.get_twin();
        let answer = device.report(&format!("{{\"n\": {n}}}"));
        assert!(answer.topic.contains("/204/"), "{}", answer.topic);
    }
    device.publish(0, "$iothub/twin/GET/?$rid=late", b" ");
    let refused = device.message();
    assert_eq!(refused.topic, "$iothub/twin/res/429/?$rid=late");
    assert_eq!(refused.json()["errorCode"], 429_001);
    let refused = device.report("{\"n\": 3}");
    assert_eq!(refused.topic, "$iothub/twin/res/429/?$rid=r");
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("more than 2 twin updates in 60 s"),
        "{message}"
    );
    // Devices and back ends share the limits.
    hub.owner().get("/twins/d1").refused(429, NAME);
    // What was refused changed nothing, and a refused connection is told so that the SDKs try again.
    assert_eq!(hub.connect(&hub.hello("d2")).err(), None);
    assert_eq!(hub.connect(&hub.hello("d1")).err(), Some(3));
    hub.refused_because("more than 2 new connections");
}

#[test]
fn a_back_end_s_requests() {
    let hub = limited(|_| {});
    let owner = hub.owner();
    let patch = json!({"tags": {"a": 1}});
    let query = json!({"query": "SELECT * FROM devices"});
    let call = json!({"methodName": "m"});
    let ask = |method: &str, path: &str, body: Option<&Value>| owner.call(method, path, body);
    for _ in 0..2 {
        assert_eq!(ask("GET", "/twins/d1", None).status, 200);
        assert_eq!(ask("PATCH", "/twins/d1", Some(&patch)).status, 200);
        assert_eq!(ask("GET", "/devices/d1", None).status, 200);
        assert_eq!(ask("POST", "/devices/query", Some(&query)).status, 200);
        assert_eq!(ask("GET", "/configurations?top=20", None).status, 200);
        assert_eq!(ask("GET", "/jobs/v2/query", None).status, 200);
        owner.invoke("d1", &call).method_refused(404_103);
    }
    ask("GET", "/jobs/v2/j", None).refused(429, NAME);
    ask("POST", "/jobs/v2/j/cancel", None).refused(429, NAME);
    ask("GET", "/configurations/c", None).refused(429, NAME);
    ask("GET", "/twins/d1", None).refused(429, NAME);
    ask("PATCH", "/twins/d1", Some(&patch)).refused(429, NAME);
    ask("PUT", "/twins/d1", Some(&patch)).refused(429, NAME);
    ask("GET", "/devices/d1", None).refused(429, NAME);
    ask("GET", "/devices", None).refused(429, NAME);
    ask("PUT", "/devices/new", Some(&json!({}))).refused(429, NAME);
    ask("POST", "/devices/query", Some(&query)).refused(429, NAME);
    owner.invoke("d1", &call).method_refused(429_001);
    // Who may not ask at all hears that, and uses up nothing.
    hub.with_token(None)
        .get("/twins/d1")
        .refused(401, "IotHubUnauthorizedAccess");
}

#[test]
fn a_method_counts_by_its_payload() {
    let hub = limited(|limits| limits.methods = Rate::per_minute(4));
    let call = |bytes: usize| {
        let payload = "x".repeat(bytes - 2);
        hub.owner()
            .invoke("d1", &json!({"methodName": "m", "payload": payload}))
    };
    call(3 * 4096).method_refused(404_103);
    call(4097).method_refused(429_001);
    call(4096).method_refused(404_103);
    call(2).method_refused(429_001);
}

#[test]
fn messages_come_later_but_they_come() {
    let hub = limited(|limits| limits.telemetry = Rate::per_second(4));
    let mut device = hub.device("d1");
    let begun = Instant::now();
    for _ in 0..8 {
        device.publish(1, "devices/d1/messages/events/", b"hello");
    }
    for _ in 0..8 {
        device.until(0x40);
    }
    // Four at once; after the fifth and each one more, a quarter of a second.
    let taken = begun.elapsed();
    assert!(taken >= Duration::from_millis(700), "{taken:?}");
    assert!(taken < Duration::from_secs(4), "{taken:?}");
}

#[test]
fn a_job_comes_to_its_devices_one_after_the_other() {
    let hub = limited(|limits| {
        limits.job_devices = Rate::per_second(4);
        limits.jobs = Rate::per_second(100);
        limits.registry = Rate::per_second(100);
    });
    let owner = hub.owner();
    for n in 0..6 {
        let made = owner.call("PUT", &format!("/devices/n{n}"), Some(&json!({})));
        assert_eq!(made.status, 200);
    }
    let twin = json!({"type": "scheduleUpdateTwin", "updateTwin": {"tags": {"a": 1}}, "queryCondition": "*"});
    let method = json!({"type": "scheduleDeviceMethod", "cloudToDeviceMethod": {"methodName": "m"}, "queryCondition": "*"});
    for (id, job) in [("twin", twin), ("method", method)] {
        let path = format!("/jobs/v2/{id}");
        let begun = Instant::now();
        assert_eq!(owner.call("PUT", &path, Some(&job)).status, 200);
        let ended = loop {
            let job = owner.get(&path).body;
            if job["status"] == "completed" {
                break job;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{job}");
            std::thread::sleep(Duration::from_millis(50));
        };
        // Eight devices, four of them at once. The limits of direct methods and of twins are for others.
        let taken = begun.elapsed();
        assert!(taken >= Duration::from_millis(700), "{id}: {taken:?}");
        let done = &ended["deviceJobStatistics"];
        let (name, other) = match id {
            "twin" => ("succeededCount", "failedCount"),
            _ => ("failedCount", "succeededCount"),
        };
        assert_eq!((&done[name], &done[other]), (&json!(8), &json!(0)));
    }
    let text = "SELECT * FROM devices.jobs WHERE devices.jobs.error.code = 'DeviceNotOnline'";
    let found = owner.query(text, &[]);
    assert_eq!(found.body.as_array().unwrap().len(), 8);
}

//! Twins, from both sides.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::start;
use serde_json::{Value, json};

#[test]
fn a_device_reads_and_reports() {
    let fixture = start();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    assert_eq!(
        device.get_twin(),
        json!({"desired": {"$version": 1}, "reported": {"$version": 1}})
    );
    let answer = device.report(r#"{"firmware": {"status": "downloading", "n": 1}}"#);
    assert_eq!(answer.topic, "$iothub/twin/res/204/?$rid=r&$version=2");
    assert!(answer.payload.is_empty());
    let answer = device.report(r#"{"firmware": {"n": null}, "gone": null}"#);
    assert_eq!(answer.topic, "$iothub/twin/res/204/?$rid=r&$version=3");
    assert_eq!(
        device.report("{}").topic,
        "$iothub/twin/res/204/?$rid=r&$version=3"
    );
    assert_eq!(
        device.get_twin()["reported"],
        json!({"firmware": {"status": "downloading"}, "$version": 3})
    );

    let twin = fixture.owner().get("/twins/d1");
    let reported = &twin.body["properties"]["reported"];
    assert_eq!(reported["firmware"], json!({"status": "downloading"}));
    assert!(
        reported["$metadata"]["firmware"]["status"]["$lastUpdated"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    for (name, value) in [
        ("deviceId", json!("d1")),
        ("status", json!("enabled")),
        ("connectionState", json!("Connected")),
        ("authenticationType", json!("sas")),
        ("tags", json!({})),
    ] {
        assert_eq!(twin.body[name], value);
    }
    assert_eq!(
        twin.header("etag"),
        Some(format!("\"{}\"", twin.body["etag"].as_str().unwrap()).as_str())
    );
    assert_eq!(twin.header("content-type"), Some("application/json"));
    assert!(twin.body["properties"]["desired"]["$metadata"]["$lastUpdated"].is_string());
}

#[test]
fn a_refused_report_has_azure_s_body_and_changes_nothing() {
    let fixture = start();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    let mut large: Value = (0..8)
        .map(|n| (n.to_string(), json!("x".repeat(4096))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    for (patch, status, code, part) in [
        ("not json".to_owned(), 400, 400_004, "not JSON"),
        (String::new(), 400, 400_004, "not JSON"),
        ("[1]".into(), 400, 400_004, "'Properties.Reported'"),
        (
            json!({"a": {"bad key": 1}}).to_string(),
            400,
            400_004,
            "'Properties.Reported.a'",
        ),
        (json!({"$version": 1}).to_string(), 400, 400_004, "'$'"),
        (
            json!({"a": "x".repeat(4097)}).to_string(),
            400,
            400_004,
            "4096",
        ),
        (
            large.to_string(),
            403,
            403_100,
            "'Properties.Reported' size should be less than 32768 bytes.",
        ),
        (
            format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000)),
            400,
            400_004,
            "not JSON",
        ),
    ] {
        let answer = device.report(&patch);
        assert_eq!(answer.topic, format!("$iothub/twin/res/{status}/?$rid=r"));
        let body = answer.json();
        assert_eq!(body["errorCode"], code);
        assert!(body["message"].as_str().unwrap().contains(part), "{body}");
        assert!(body["trackingId"].is_string() && body["timestampUtc"].is_string());
    }
    assert_eq!(device.get_twin()["reported"], json!({"$version": 1}));
    // Growing beyond the limit step by step is refused too.
    large.as_object_mut().unwrap().retain(|key, _| key != "7");
    assert!(device.report(&large.to_string()).topic.contains("/204/"));
    assert!(
        device
            .report(&json!({"7": "x".repeat(4096)}).to_string())
            .topic
            .contains("/403/")
    );
    assert!(
        device
            .report(&json!({"0": null, "7": "x".repeat(4000)}).to_string())
            .topic
            .contains("/204/")
    );
}

#[test]
fn a_back_end_writes_and_the_device_hears() {
    let fixture = start();
    let owner = fixture.owner();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    let patch = |desired: Value| json!({"properties": {"desired": desired}});
    let path = "/twins/d1";

    let twin = owner.call(
        "PATCH",
        path,
        Some(&patch(json!({"a": {"b": 1, "c": 2}, "d": [1, {"e": 2}]}))),
    );
    assert_eq!(
        (twin.status, &twin.body["properties"]["desired"]["$version"]),
        (200, &json!(2))
    );
    let heard = device.message();
    assert_eq!(
        heard.topic,
        "$iothub/twin/PATCH/properties/desired/?$version=2"
    );
    assert_eq!(
        heard.json(),
        json!({"a": {"b": 1, "c": 2}, "d": [1, {"e": 2}], "$version": 2})
    );

    owner.call(
        "PATCH",
        path,
        Some(&patch(json!({"a": {"b": null}, "d": null}))),
    );
    assert_eq!(
        device.message().json(),
        json!({"a": {"b": null}, "d": null, "$version": 3})
    );
    assert_eq!(
        device.get_twin()["desired"],
        json!({"a": {"c": 2}, "$version": 3})
    );

    // Tags alone are not the device's business.
    let twin = owner.call(
        "PATCH",
        path,
        Some(&json!({"tags": {"place": {"floor": 2}}})),
    );
    assert_eq!(twin.body["tags"], json!({"place": {"floor": 2}}));
    let twin = owner.call(
        "PUT",
        path,
        Some(&json!({"properties": {"desired": {"z": 1}}})),
    );
    assert_eq!(
        device.message().json(),
        json!({"a": null, "z": 1, "$version": 4})
    );
    assert_eq!(twin.body["tags"], json!({}));

    // What a back end read it may send back.
    let read = owner.get(path).body;
    let twin = owner.call("PUT", path, Some(&read));
    assert_eq!(twin.body["properties"]["desired"]["z"], 1);

    // Not connected, not told; not queued either.
    drop(device);
    owner.call("PATCH", path, Some(&patch(json!({"z": 2}))));
    let mut device = fixture.device("d1");
    assert_eq!(device.get_twin()["desired"]["z"], 2);
}

#[test]
fn etags_guard_a_twin() {
    let fixture = start();
    let owner = fixture.owner();
    let body = json!({"tags": {"n": 1}});
    let etag = owner.get("/twins/d1").header("etag").unwrap().to_owned();
    let changed = owner.call_if("PATCH", "/twins/d1", Some(&body), &etag);
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), Some(etag.as_str()));
    owner
        .call_if("PATCH", "/twins/d1", Some(&body), &etag)
        .refused(412, "PreconditionFailed");
    owner
        .call_if("PUT", "/twins/d1", Some(&body), &etag)
        .refused(412, "PreconditionFailed");
    for any in ["*", "\"*\"", etag.trim_matches('"')] {
        assert_eq!(
            owner.call_if("PATCH", "/twins/d1", Some(&body), any).status,
            200,
            "{any}"
        );
    }
    // A device's report does not change it.
    let etag = owner.get("/twins/d1").header("etag").unwrap().to_owned();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    device.report(r#"{"a":1}"#);
    assert_eq!(owner.get("/twins/d1").header("etag"), Some(etag.as_str()));
}

#[test]
fn a_back_end_s_mistakes_are_azure_s_codes() {
    let fixture = start();
    let owner = fixture.owner();
    let desired = |desired: Value| json!({"properties": {"desired": desired}});
    for (body, status, name) in [
        (desired(json!({"a.b": 1})), 400, "ArgumentInvalid"),
        (desired(json!(1)), 400, "ArgumentInvalid"),
        (json!({"tags": []}), 400, "ArgumentInvalid"),
        (
            json!({"tags": {"a": "x".repeat(4000), "b": "x".repeat(4000), "c": "x".repeat(400)}}),
            403,
            "TwinSizeExceeded",
        ),
    ] {
        owner
            .call("PATCH", "/twins/d1", Some(&body))
            .refused(status, name);
        owner
            .call("PUT", "/twins/d1", Some(&body))
            .refused(status, name);
    }
    assert_eq!(
        owner.get("/twins/d1").body["properties"]["desired"]["$version"],
        1
    );
    owner.get("/twins/nobody").refused(404, "DeviceNotFound");
    owner
        .call("PATCH", "/twins/nobody", Some(&json!({})))
        .refused(404, "DeviceNotFound");
}

#[test]
fn an_answer_nobody_subscribed_to_is_not_sent() {
    let fixture = start();
    let mut device = fixture.connect(&fixture.hello("d1")).unwrap();
    device.publish(0, "$iothub/twin/GET/?$rid=1", b"");
    fixture.owner().call(
        "PATCH",
        "/twins/d1",
        Some(&json!({"properties": {"desired": {"a": 1}}})),
    );
    device.write(&common::packet(0xc0, &[]));
    assert_eq!(device.packet(), Some((0xd0, vec![])));
}

#[test]
fn a_report_for_another_version_is_412() {
    let fixture = start();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    for (version, status) in [("1", 204), ("1", 412), ("2", 204), ("x", 412)] {
        let topic = format!("$iothub/twin/PATCH/properties/reported/?$rid=r&$version={version}");
        device.publish(0, &topic, b"{\"a\":1}");
        let answer = device.message();
        assert!(
            answer
                .topic
                .starts_with(&format!("$iothub/twin/res/{status}/?$rid=r"))
        );
        if status == 412 {
            assert_eq!(answer.json()["errorCode"], 412_001);
        }
    }
}

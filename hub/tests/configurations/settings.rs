//! What it sets in twins: merged, taken back, kept, and heard of by devices.

use super::{configuration, deleted, made};
use crate::common::{Rest, start, start_with};
use serde_json::{Value, json};
use std::time::Instant;
use twinflash_hub::Options;

fn patch(owner: &Rest, device: &str, body: Value) {
    let response = owner.call("PATCH", &format!("/twins/{device}"), Some(&body));
    assert_eq!(response.status, 200, "{}", response.body);
}

/// A device's desired properties, without the hub's own members.
fn desired(owner: &Rest, device: &str) -> Value {
    let mut desired = owner.get(&format!("/twins/{device}")).body["properties"]["desired"].take();
    let members = desired.as_object_mut().unwrap();
    members.remove("$metadata");
    members.remove("$version");
    desired
}

fn status(owner: &Rest, device: &str, id: &str) -> Value {
    owner.get(&format!("/twins/{device}")).body["configurations"][id]["status"].take()
}

fn counts(owner: &Rest, id: &str) -> Value {
    owner.get(&format!("/configurations/{id}")).body["systemMetrics"]["results"].take()
}

#[test]
fn a_device_hears_of_settings_and_of_their_end_as_of_any_other_desired_patch() {
    let fixture = start();
    let owner = fixture.owner();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    patch(
        &owner,
        "d1",
        json!({"properties": {"desired": {"own": 1, "firmware": {"beside": 1}}}}),
    );
    assert_eq!(device.message().json()["$version"], 2);

    made(
        &owner,
        "c",
        "tags.kind = 'x'",
        1,
        json!({"properties.desired.firmware": {"v": "2", "deep": {"n": 1}}}),
    );
    assert_eq!(
        counts(&owner, "c"),
        json!({"targetedCount": 0, "appliedCount": 0})
    );
    // Entering the target by a tag.
    patch(&owner, "d1", json!({"tags": {"kind": "x"}}));
    let message = device.message();
    assert_eq!(
        message.topic,
        "$iothub/twin/PATCH/properties/desired/?$version=3"
    );
    assert_eq!(
        message.json(),
        json!({"firmware": {"v": "2", "deep": {"n": 1}}, "$version": 3})
    );
    assert_eq!(status(&owner, "d1", "c"), "Applied");
    assert_eq!(status(&owner, "d2", "c"), Value::Null);
    assert_eq!(
        counts(&owner, "c"),
        json!({"targetedCount": 1, "appliedCount": 1})
    );

    // What an application writes elsewhere stays; what it writes over a setting does not.
    patch(
        &owner,
        "d1",
        json!({"properties": {"desired": {"firmware": {"v": "9", "more": 1}}}}),
    );
    assert_eq!(
        device.message().json(),
        json!({"firmware": {"v": "9", "more": 1}, "$version": 4})
    );
    assert_eq!(
        device.message().json(),
        json!({"firmware": {"v": "2"}, "$version": 5})
    );
    assert_eq!(
        device.get_twin()["desired"],
        json!({"own": 1, "firmware": {"v": "2", "deep": {"n": 1}, "beside": 1, "more": 1}, "$version": 5})
    );

    // Leaving the target takes back what the configuration wrote, and only that.
    patch(&owner, "d1", json!({"tags": {"kind": "y"}}));
    assert_eq!(
        device.message().json(),
        json!({"firmware": {"v": null, "deep": null}, "$version": 6})
    );
    assert_eq!(status(&owner, "d1", "c"), Value::Null);
    assert_eq!(
        desired(&owner, "d1"),
        json!({"own": 1, "firmware": {"beside": 1, "more": 1}})
    );

    // By a reported property, and by a changed target; then the deletion.
    deleted(&owner, "c");
    made(
        &owner,
        "r",
        "properties.reported.model = 'm'",
        1,
        json!({"properties.desired.r": 1}),
    );
    device.publish(
        1,
        "$iothub/twin/PATCH/properties/reported/?$rid=r",
        br#"{"model":"m"}"#,
    );
    device.until(0x40);
    let mut both = [device.message(), device.message()];
    both.sort_by_key(|message| message.topic.contains("/res/"));
    assert_eq!(both[0].json(), json!({"r": 1, "$version": 7}));
    let mut body = configuration("deviceId = 'd2'", 1, json!({"properties.desired.r": 1}));
    body["content"].take();
    assert_eq!(
        owner
            .call_if("PUT", "/configurations/r", Some(&body), "*")
            .status,
        200
    );
    assert_eq!(device.message().json(), json!({"r": null, "$version": 8}));
    assert_eq!(desired(&owner, "d2"), json!({"r": 1}));
    deleted(&owner, "r");
    assert_eq!(desired(&owner, "d2"), json!({}));
}

#[test]
fn the_highest_priority_wins_each_path_and_the_newest_a_tie() {
    let fixture = start();
    let owner = fixture.owner();
    let content = |value: &str| json!({"properties.desired.f": {"v": value, value: 1}});
    made(
        &owner,
        "low",
        "*",
        1,
        json!({"properties.desired.f": {"v": "low"}, "properties.desired.only": "low"}),
    );
    made(&owner, "high", "deviceId = 'd1'", 10, content("high"));
    assert_eq!(
        desired(&owner, "d1"),
        json!({"f": {"v": "high", "high": 1}, "only": "low"})
    );
    assert_eq!(
        desired(&owner, "d2"),
        json!({"f": {"v": "low"}, "only": "low"})
    );
    made(&owner, "tie", "*", 10, content("tie"));
    assert_eq!(desired(&owner, "d1")["f"], json!({"v": "tie", "tie": 1}));
    assert_eq!(
        ["low", "high", "tie"].map(|id| status(&owner, "d1", id)),
        ["Applied", "Targeted", "Applied"].map(Value::from)
    );
    assert_eq!(
        counts(&owner, "high"),
        json!({"targetedCount": 1, "appliedCount": 0})
    );

    // A path within another's.
    made(
        &owner,
        "within",
        "*",
        20,
        json!({"properties.desired.f.v": "within"}),
    );
    assert_eq!(desired(&owner, "d1")["f"], json!({"v": "within", "tie": 1}));
    deleted(&owner, "within");
    deleted(&owner, "tie");
    assert_eq!(desired(&owner, "d1")["f"], json!({"v": "high", "high": 1}));
    deleted(&owner, "high");
    assert_eq!(
        desired(&owner, "d1"),
        json!({"f": {"v": "low"}, "only": "low"})
    );
    assert_eq!(status(&owner, "d1", "low"), "Applied");
    // A new device is looked at too.
    owner.call("PUT", "/devices/d3", Some(&json!({})));
    assert_eq!(
        desired(&owner, "d3"),
        json!({"f": {"v": "low"}, "only": "low"})
    );
    assert_eq!(
        counts(&owner, "low"),
        json!({"targetedCount": 3, "appliedCount": 3})
    );
    // PUT of a twin replaces what is the application's.
    let body = json!({"properties": {"desired": {"mine": 1}}});
    assert_eq!(owner.call("PUT", "/twins/d3", Some(&body)).status, 200);
    assert_eq!(
        desired(&owner, "d3"),
        json!({"f": {"v": "low"}, "only": "low", "mine": 1})
    );
}

#[test]
fn settings_that_do_not_fit_leave_the_twin_as_it_is() {
    let fixture = start();
    let owner = fixture.owner();
    let large = |n: usize| -> Value {
        (0..n)
            .map(|n| (n.to_string(), Value::from("x".repeat(4000))))
            .collect()
    };
    patch(
        &owner,
        "d1",
        json!({"properties": {"desired": {"own": large(5)}}}),
    );
    made(
        &owner,
        "large",
        "*",
        1,
        json!({"properties.desired.large": large(5)}),
    );
    made(
        &owner,
        "small",
        "*",
        1,
        json!({"properties.desired.small": 1}),
    );
    assert_eq!(status(&owner, "d1", "large"), "Targeted");
    assert_eq!(status(&owner, "d1", "small"), "Applied");
    assert_eq!(desired(&owner, "d1"), json!({"own": large(5), "small": 1}));
    assert_eq!(
        counts(&owner, "large"),
        json!({"targetedCount": 2, "appliedCount": 1})
    );
    // Once there is room it is applied.
    patch(
        &owner,
        "d1",
        json!({"properties": {"desired": {"own": null}}}),
    );
    assert_eq!(
        desired(&owner, "d1"),
        json!({"large": large(5), "small": 1})
    );
}

#[test]
fn configurations_outlive_the_hub() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options {
        state: Some(directory.path().join("state")),
        ..Options::default()
    };
    let fixture = start_with(options());
    let owner = fixture.owner();
    made(
        &owner,
        "low",
        "*",
        1,
        json!({"properties.desired.f": "low"}),
    );
    made(
        &owner,
        "high",
        "tags.t = 1",
        2,
        json!({"properties.desired.f": "high"}),
    );
    patch(&owner, "d1", json!({"tags": {"t": 1}}));
    let before = [
        owner.get("/configurations").body,
        owner.get("/twins/d1").body,
    ];
    // As after a kill: the database is copied while it is open, and never closed.
    let copy = directory.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(directory.path().join("state")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    drop(fixture);

    let fixture = start_with(Options {
        state: Some(copy),
        ..Options::default()
    });
    let owner = fixture.owner();
    assert_eq!(
        before,
        [
            owner.get("/configurations").body,
            owner.get("/twins/d1").body
        ]
    );
    deleted(&owner, "high");
    assert_eq!(desired(&owner, "d1"), json!({"f": "low"}));
}

#[test]
fn a_change_of_one_twin_costs_the_same_however_many_devices_there_are() {
    let fixture = start();
    let owner = fixture.owner();
    made(
        &owner,
        "c",
        "tags.t = 1",
        1,
        json!({"properties.desired.f": 1}),
    );
    // The quickest of many: the machine may be busy with other things.
    let cost = || {
        (0..100)
            .map(|n| {
                let begun = Instant::now();
                patch(&owner, "d1", json!({"tags": {"t": n % 2}}));
                begun.elapsed()
            })
            .min()
            .unwrap()
    };
    cost();
    let few = cost();
    for n in 0..2000 {
        let path = format!("/devices/n{n}");
        assert_eq!(owner.call("PUT", &path, Some(&json!({}))).status, 200);
    }
    let many = cost();
    assert!(many < few * 3, "{few:?} with 3 devices, {many:?} with 2003");
}

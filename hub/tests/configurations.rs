//! Automatic device configurations over REST, and what devices hear of them over MQTT.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Response, Rest, start, start_with};
use serde_json::{Value, json};
use std::time::Instant;
use twinflash_hub::Options;

fn configuration(target: &str, priority: u64, content: Value) -> Value {
    json!({
        "schemaVersion": "1.0",
        "labels": {"l": "x"},
        "content": {"deviceContent": content},
        "targetCondition": target,
        "priority": priority,
    })
}

fn put(owner: &Rest, id: &str, body: &Value) -> Response {
    owner.call("PUT", &format!("/configurations/{id}"), Some(body))
}

fn made(owner: &Rest, id: &str, target: &str, priority: u64, content: Value) -> Value {
    let response = put(owner, id, &configuration(target, priority, content));
    assert_eq!(response.status, 201, "{}", response.body);
    response.body
}

fn deleted(owner: &Rest, id: &str) {
    let response = owner.call_if("DELETE", &format!("/configurations/{id}"), None, "\"*\"");
    assert_eq!(response.status, 204);
}

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
fn a_configuration_is_made_shown_changed_and_deleted() {
    let fixture = start();
    let owner = fixture.owner();
    let body = configuration(
        "tags.kind = 'x'",
        7,
        json!({"properties.desired.firmware": {"v": 1}}),
    );
    let response = put(&owner, "c-1", &body);
    assert_eq!(response.status, 201, "{}", response.body);
    let shown = response.body;
    for (name, value) in body.as_object().unwrap() {
        assert_eq!(shown[name], *value, "{name}");
    }
    assert_eq!(shown["id"], "c-1");
    assert_eq!(shown["metrics"], json!({"results": {}, "queries": {}}));
    assert_eq!(
        shown["systemMetrics"],
        json!({
            "results": {"targetedCount": 0, "appliedCount": 0},
            "queries": {
                "targetedCount": "select deviceId from devices where tags.kind = 'x'",
                "appliedCount": "select deviceId from devices where configurations.[[c-1]].status = 'Applied'",
            },
        })
    );
    assert_eq!(shown["createdTimeUtc"], shown["lastUpdatedTimeUtc"]);
    let etag = shown["etag"].as_str().unwrap().to_owned();
    assert_eq!(owner.get("/configurations/c-1").body, shown);
    made(&owner, "c-2", "*", 1, json!({"properties.desired.a": 1}));
    let ids = |response: Response| -> Vec<String> {
        let rows = response.body.as_array().unwrap().clone();
        rows.iter()
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(owner.get("/configurations")), ["c-1", "c-2"]);
    assert_eq!(ids(owner.get("/configurations?top=1")), ["c-1"]);
    owner
        .get("/configurations?top=x")
        .refused(400, "ArgumentInvalid");

    // An update needs the etag, takes all but the content, and moves the etag.
    put(&owner, "c-1", &body).refused(409, "ConfigurationAlreadyExists");
    let change =
        |body: &Value, etag: &str| owner.call_if("PUT", "/configurations/c-1", Some(body), etag);
    let mut new = body.clone();
    new["priority"] = json!(9);
    new["targetCondition"] = json!("*");
    let updated = change(&new, &format!("\"{etag}\""));
    assert_eq!(updated.status, 200, "{}", updated.body);
    assert_eq!(updated.body["priority"], 9);
    assert_eq!(updated.body["createdTimeUtc"], shown["createdTimeUtc"]);
    assert_ne!(
        updated.body["lastUpdatedTimeUtc"],
        shown["lastUpdatedTimeUtc"]
    );
    assert_eq!(updated.body["systemMetrics"]["results"]["appliedCount"], 2);
    assert_ne!(updated.body["etag"], etag.as_str());
    // The Python SDK does not quote it.
    change(&new, &etag).refused(412, "PreconditionFailed");
    let mut other = new.clone();
    other["content"]["deviceContent"]["properties.desired.firmware"]["v"] = json!(2);
    change(&other, "*").refused(400, "CannotModifyImmutableConfigurationContent");
    new.as_object_mut().unwrap().remove("content");
    assert_eq!(change(&new, "*").status, 200);
    owner
        .call_if("PUT", "/configurations/none", Some(&body), "*")
        .refused(404, "ConfigurationNotFound");

    owner
        .call_if("DELETE", "/configurations/c-1", None, "\"AAAA\"")
        .refused(412, "PreconditionFailed");
    deleted(&owner, "c-1");
    owner
        .get("/configurations/c-1")
        .refused(404, "ConfigurationNotFound");
    owner
        .call("DELETE", "/configurations/c-1", None)
        .refused(404, "ConfigurationNotFound");
}

#[test]
fn wrong_ones_are_refused_with_azure_s_codes() {
    let fixture = start();
    let owner = fixture.owner();
    let content = json!({"properties.desired.a": 1});
    let good = configuration("*", 1, content.clone());
    let refused = |change: &dyn Fn(&mut Value), name: &str| {
        let mut body = good.clone();
        change(&mut body);
        put(&owner, "c", &body).refused(400, name);
    };
    for target in [
        "tags.a =",
        "tags.a = 1 OR *",
        "properties.desired.a = 1",
        "connectionState = 'Connected'",
        "configurations.[[c]].status = 'Applied'",
    ] {
        refused(
            &|body| body["targetCondition"] = target.into(),
            "InvalidConfigurationTargetCondition",
        );
    }
    for content in [
        json!({}),
        json!({"a": 1}),
        json!({"properties.reported.a": 1}),
        json!({"properties.desired": 1}),
        json!({"properties.desired.": 1}),
        json!({"properties.desired.a..b": 1}),
        json!({"properties.desired.a": null}),
        json!({"properties.desired.a": {"b": {"c": null}}}),
        json!({"properties.desired.a": {"$b": 1}}),
        json!({"properties.desired.a": "x".repeat(5000)}),
    ] {
        refused(
            &|body| body["content"]["deviceContent"] = content.clone(),
            "InvalidConfigurationContent",
        );
    }
    refused(
        &|body| body["content"] = Value::Null,
        "InvalidConfigurationContent",
    );
    refused(
        &|body| body["content"]["modulesContent"] = json!({"$edgeAgent": {"x": 1}}),
        "InvalidConfigurationContent",
    );
    let many: Value = (0..6)
        .map(|n| (n.to_string(), json!("SELECT deviceId FROM devices")))
        .collect();
    for queries in [
        json!({"m": "SELECT"}),
        json!({"m": "SELECT * FROM devices.jobs"}),
        many,
    ] {
        refused(
            &|body| body["metrics"] = json!({"queries": queries}),
            "InvalidConfigurationCustomMetricsQuery",
        );
    }
    for (name, value) in [
        ("id", json!("other")),
        ("priority", json!(-1)),
        ("priority", json!("1")),
        ("labels", json!({"a": 1})),
        ("targetCondition", json!(1)),
    ] {
        refused(&|body| body[name] = value.clone(), "ArgumentInvalid");
    }
    put(&owner, "Upper", &good).refused(400, "ArgumentInvalid");
    assert_eq!(owner.get("/configurations").body, json!([]));

    let tested = |body: Value| {
        let response = owner.call("POST", "/configurations/testQueries", Some(&body));
        assert_eq!(response.status, 200);
        response.body
    };
    assert_eq!(
        tested(
            json!({"targetCondition": "*", "customMetricQueries": {"m": "SELECT deviceId FROM devices"}})
        ),
        json!({"targetConditionError": null, "customMetricQueryErrors": {}})
    );
    let wrong = tested(
        json!({"targetCondition": "tags.", "customMetricQueries": {"m": "SELECT", "n": "SELECT * FROM devices"}}),
    );
    assert!(wrong["targetConditionError"].is_string());
    let errors = wrong["customMetricQueryErrors"].as_object().unwrap();
    assert_eq!(errors.keys().collect::<Vec<_>>(), ["m"]);

    for n in 0..100 {
        made(&owner, &format!("n{n}"), "", 1, content.clone());
    }
    put(&owner, "one-more", &good).refused(400, "ArgumentInvalid");
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
fn metrics_count_when_they_are_read() {
    let fixture = start();
    let owner = fixture.owner();
    let mut body = configuration("*", 1, json!({"properties.desired.firmware": {"v": 2}}));
    let is = |status: &str| {
        format!(
            "SELECT deviceId FROM devices WHERE configurations.[[c]].status='Applied' AND properties.reported.firmware.status='{status}'"
        )
    };
    body["metrics"]["queries"] = json!({
        "current": is("current"),
        "error": is("error"),
        "any": "SELECT properties.reported.firmware.status AS s, COUNT() AS n FROM devices GROUP BY properties.reported.firmware.status",
        "one": "SELECT TOP 1 deviceId FROM devices",
    });
    let response = put(&owner, "c", &body);
    assert_eq!(response.status, 201, "{}", response.body);
    let results = || owner.get("/configurations/c").body["metrics"]["results"].take();
    assert_eq!(
        results(),
        json!({"current": 0, "error": 0, "any": 1, "one": 1})
    );
    let mut device = fixture.device("d1");
    device.subscribe_all();
    device.report(r#"{"firmware":{"status":"error"}}"#);
    assert_eq!(
        results(),
        json!({"current": 0, "error": 1, "any": 2, "one": 1})
    );
    device.report(r#"{"firmware":{"status":"current"}}"#);
    assert_eq!(
        results(),
        json!({"current": 1, "error": 0, "any": 2, "one": 1})
    );
    let listed = owner.get("/configurations").body;
    assert_eq!(listed[0]["metrics"]["results"]["current"], 1);
    let found = owner.call(
        "POST",
        "/devices/query",
        Some(&json!({"query": "SELECT configurations FROM devices WHERE configurations.[[c]].status = 'Applied' AND deviceId = 'd1'"})),
    );
    assert_eq!(
        found.body,
        json!([{"configurations": {"c": {"status": "Applied"}}}])
    );
}

#[test]
fn the_rights_of_the_registry_are_needed() {
    let fixture = start();
    let token = |policy: &str| {
        let key = common::field(&fixture.info().policies[policy], "SharedAccessKey");
        common::token("localhost", &key, common::unix() + 600, Some(policy))
    };
    let reader = fixture.with_token(Some(token("registryRead")));
    assert_eq!(reader.get("/configurations").status, 200);
    let body = configuration("*", 1, json!({"properties.desired.a": 1}));
    put(&reader, "c", &body).refused(401, "IotHubUnauthorized");
    reader
        .call("DELETE", "/configurations/c", None)
        .refused(401, "IotHubUnauthorized");
    let service = fixture.with_token(Some(token("service")));
    service
        .get("/configurations")
        .refused(401, "IotHubUnauthorized");
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

//! The resource: made, shown, refused, changed and deleted; its metrics and rights.

use super::{configuration, deleted, made, put};
use crate::common::{self, Response, start};
use serde_json::{Value, json};

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

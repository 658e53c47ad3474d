//! The registry, and who may use the REST interface.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{start, token, unix};
use serde_json::{Value, json};
use twinflash_hub::Event;

const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

#[test]
fn tokens_are_checked() {
    let fixture = start();
    let owner = fixture.owner_key();
    let (soon, past) = (unix() + 60, unix() - 1);
    for good in [
        "localhost",
        "LOCALHOST",
        &format!("localhost:{}", fixture.info().https_port),
        "localhost:1",
        "localhost/",
        "localhost/devices",
    ] {
        let token = token(good, &owner, soon, Some("iothubowner"));
        assert_eq!(
            fixture.with_token(Some(token)).get("/devices").status,
            200,
            "{good}"
        );
    }
    for (bad, why) in [
        (None, "no Authorization"),
        (Some("Basic x".into()), "no SharedAccessSignature"),
        (
            Some(token("localhost", KEY, soon, Some("iothubowner"))),
            "not signed",
        ),
        (
            Some(token("localhost", &owner, past, Some("iothubowner"))),
            "expired",
        ),
        (
            Some(token("localhost", &owner, soon, Some("service"))),
            "not signed",
        ),
        (
            Some(token("localhost", &owner, soon, Some("nobody"))),
            "no such policy",
        ),
        (
            Some(token("localhost", &owner, soon, None)),
            "names no policy",
        ),
        (
            Some(token("elsewhere", &owner, soon, Some("iothubowner"))),
            "not this hub",
        ),
        (
            Some(token(
                "localhost/devices/d1",
                &owner,
                soon,
                Some("iothubowner"),
            )),
            "another part",
        ),
        (
            Some(token("localhost/dev", &owner, soon, Some("iothubowner"))),
            "another part",
        ),
    ] {
        let response = fixture.with_token(bad).get("/devices");
        response.refused(401, "IotHubUnauthorizedAccess");
        assert!(
            response.body["Message"].as_str().unwrap().contains(why),
            "{}",
            response.body
        );
    }
    // What is for one device is not for another.
    let one = token("localhost/twins/d1", &owner, soon, Some("iothubowner"));
    let one = fixture.with_token(Some(one));
    assert_eq!(one.get("/twins/d1").status, 200);
    assert_eq!(one.get("/twins/%641").status, 200);
    one.get("/twins/d2")
        .refused(401, "IotHubUnauthorizedAccess");
    // Refused before the body is looked at, and before the path is.
    let nobody = fixture.with_token(None);
    nobody
        .raw("PUT", "/devices/x?api-version=1", Some(vec![b'x'; 10]), &[])
        .refused(401, "IotHubUnauthorizedAccess");
    nobody
        .get("/nothing")
        .refused(401, "IotHubUnauthorizedAccess");
}

#[test]
fn what_is_not_there_is_refused_in_azure_s_shape() {
    let fixture = start();
    let owner = fixture.owner();
    owner
        .raw("GET", "/devices", None, &[])
        .refused(400, "InvalidProtocolVersion");
    owner.get("/nothing").refused(404, "NotFound");
    owner
        .call("POST", "/devices/d1", Some(&json!({})))
        .refused(405, "MethodNotAllowed");
    owner.get("/devices/nobody").refused(404, "DeviceNotFound");
    owner.get("/devices/a%20b").refused(404, "DeviceNotFound");
    owner.get("/devices/%ff").refused(400, "ArgumentInvalid");
    let bad = |body: Vec<u8>| owner.raw("PUT", "/devices/x?api-version=1", Some(body), &[]);
    bad(b"{".to_vec()).refused(400, "IotHubFormatError");
    bad(b"[".repeat(100_000)).refused(400, "IotHubFormatError");
    bad(vec![b' '; 513 * 1024]).refused(413, "MessageTooLarge");
    fixture.event(|event| match event {
        Event::RequestRefused {
            path,
            status: 404,
            code: 404_001,
            ..
        } => Some(path.clone()),
        _ => None,
    });
}

#[test]
fn devices_are_made_changed_listed_and_deleted() {
    let fixture = start();
    let owner = fixture.owner();
    let path = "/devices/made:1";
    let body = json!({"deviceId": "made:1", "status": "enabled", "statusReason": "new",
        "authentication": {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": ""}}});
    let made = owner.call("PUT", path, Some(&body));
    assert_eq!(
        (made.status, &made.body["deviceId"]),
        (200, &json!("made:1"))
    );
    let keys = &made.body["authentication"]["symmetricKey"];
    assert_eq!(keys["primaryKey"], KEY);
    assert_eq!(keys["secondaryKey"].as_str().unwrap().len(), 44);
    for (name, value) in [
        ("status", json!("enabled")),
        ("statusReason", json!("new")),
        ("connectionState", json!("Disconnected")),
    ] {
        assert_eq!(made.body[name], value);
    }
    assert_eq!(owner.get(path).body, made.body);
    assert_eq!(owner.get("/devices/made%3A1").body, made.body);
    owner
        .call("PUT", path, Some(&body))
        .refused(409, "DeviceAlreadyExists");

    let etag = made.header("etag").unwrap();
    let changed = owner.call_if(
        "PUT",
        path,
        Some(&json!({"deviceId": "made:1", "status": "disabled"})),
        etag,
    );
    assert_eq!(
        (changed.status, &changed.body["status"]),
        (200, &json!("disabled"))
    );
    assert_eq!(changed.body["authentication"]["symmetricKey"], *keys);
    assert_ne!(changed.header("etag"), Some(etag));
    owner
        .call_if("PUT", path, Some(&json!({})), etag)
        .refused(412, "PreconditionFailed");
    owner
        .call_if("DELETE", path, None, etag)
        .refused(412, "PreconditionFailed");
    owner
        .call_if("PUT", "/devices/new", Some(&json!({})), "*")
        .refused(404, "DeviceNotFound");

    let ids = |path: &str| -> Vec<Value> {
        owner
            .get(path)
            .body
            .as_array()
            .unwrap()
            .iter()
            .map(|device| device["deviceId"].clone())
            .collect()
    };
    assert_eq!(ids("/devices"), ["d1", "d2", "made:1"]);
    assert_eq!(ids("/devices/"), ids("/devices"));
    assert_eq!(ids("/devices?top=2"), ["d1", "d2"]);
    // As Azure: what is out of range is its end.
    assert_eq!(ids("/devices?top=0"), ids("/devices?top=1001"));
    owner.get("/devices?top=x").refused(400, "ArgumentInvalid");
    assert_eq!(
        owner.get("/statistics/devices").body,
        json!({"totalDeviceCount": 3, "enabledDeviceCount": 2, "disabledDeviceCount": 1})
    );

    assert_eq!(owner.call_if("DELETE", path, None, "\"*\"").status, 204);
    owner.get(path).refused(404, "DeviceNotFound");
    owner.get("/twins/made:1").refused(404, "DeviceNotFound");
    owner
        .call("DELETE", path, None)
        .refused(404, "DeviceNotFound");
    // A new one of the same name is another.
    let again = owner.call("PUT", path, Some(&body));
    assert_ne!(again.body["generationId"], made.body["generationId"]);
}

#[test]
fn many_devices_in_one_request() {
    let fixture = start();
    let owner = fixture.owner();
    let bulk = |devices: Value| owner.call("POST", "/devices", Some(&devices));
    let done = |devices: Value| {
        let answer = bulk(devices);
        let expected = json!({"isSuccessful": true, "errors": [], "warnings": null});
        assert_eq!((answer.status, answer.body), (200, expected));
    };
    done(json!([
        {"id": "a", "importMode": "create", "status": "disabled",
            "authentication": {"symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}},
        {"id": "b", "tags": {"place": "here"}, "properties": {"desired": {"interval": 5}}},
    ]));
    let a = owner.get("/devices/a").body;
    assert_eq!(
        (&a["status"], &a["deviceId"]),
        (&json!("disabled"), &json!("a"))
    );
    assert_eq!(a["authentication"]["symmetricKey"]["primaryKey"], KEY);
    let b = owner.get("/twins/b").body;
    assert_eq!(b["tags"], json!({"place": "here"}));
    assert_eq!(b["properties"]["desired"]["interval"], 5);

    // What goes wrong with some is said of them, and the others are done. A connected device hears of it.
    let mut device = fixture.device("d1");
    device.subscribe_all();
    let answer = bulk(json!([
        {"id": "a", "importMode": "create"},
        {"id": "b", "importMode": "updateIfMatchETag", "eTag": "\"stale\"", "tags": {"place": "there"}},
        {"id": "c", "importMode": "create", "tags": {"a.b": 1}},
        {"id": "d1", "importMode": "updateTwin", "properties": {"desired": {"n": 1}}},
        {"id": "e", "importMode": "createOrElse"},
        {"id": "f", "moduleId": "m"},
        {"id": "g", "importMode": "deleteIfMatchETag"},
        {"id": "nobody", "importMode": "delete"},
    ]));
    let header = answer.header("iothub-errorcode");
    assert_eq!(
        (answer.status, header),
        (400, Some("BulkRegistryOperationFailure"))
    );
    assert_eq!(answer.body["isSuccessful"], false);
    let errors = answer.body["errors"].as_array().unwrap();
    let named: Vec<_> = errors
        .iter()
        .map(|error| {
            (
                error["deviceId"].as_str().unwrap(),
                error["errorCode"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        named,
        [
            ("a", "DeviceAlreadyExists"),
            ("b", "PreconditionFailed"),
            ("c", "ArgumentInvalid"),
            ("e", "ArgumentInvalid"),
            ("f", "ArgumentInvalid"),
            ("g", "ArgumentInvalid"),
            ("nobody", "DeviceNotFound"),
        ]
    );
    assert_eq!(errors[1]["operation"], "updateIfMatchETag");
    assert!(
        errors[5]["errorStatus"]
            .as_str()
            .unwrap()
            .contains("needs eTag")
    );
    assert_eq!(device.message().json()["n"], 1);
    assert_eq!(owner.get("/twins/b").body["tags"], json!({"place": "here"}));
    owner.get("/devices/c").refused(404, "DeviceNotFound");

    let etags = (
        &owner.get("/devices/a").body["etag"],
        &owner.get("/twins/b").body["etag"],
    );
    let (device_etag, twin_etag) = (etags.0.clone(), etags.1.clone());
    // Quoted or not; that of the twin counts by itself.
    let quoted = format!("\"{}\"", device_etag.as_str().unwrap());
    let stale = bulk(json!([
        {"id": "a", "importMode": "updateIfMatchETag", "eTag": quoted, "twinETag": "stale", "tags": {"t": 1}},
    ]));
    assert_eq!(stale.body["errors"][0]["errorCode"], "PreconditionFailed");
    assert_eq!(owner.get("/twins/a").body["tags"], json!({}));
    done(json!([
        {"id": "a", "importMode": "deleteIfMatchETag", "eTag": quoted},
        {"id": "b", "importMode": "updateTwinIfMatchETag", "twinETag": twin_etag, "tags": {"place": null}},
        {"id": "d1", "importMode": "update", "properties": {"desired": {"n": 2}}},
        {"id": "d2", "importMode": "Update", "status": "disabled"},
    ]));
    let message = device.message().json();
    assert_eq!(message["n"], 2);
    fixture.event(|event| match event {
        Event::DesiredPatched { device, patch, .. } if device == "d1" && *patch == message => {
            Some(())
        }
        _ => None,
    });
    owner.get("/devices/a").refused(404, "DeviceNotFound");
    assert_eq!(owner.get("/twins/b").body["tags"], json!({}));
    assert_eq!(owner.get("/devices/d2").body["status"], "disabled");

    let many = |count: usize| {
        (0..count)
            .map(|n| json!({"id": n.to_string()}))
            .collect::<Value>()
    };
    for wrong in [
        many(0),
        many(101),
        json!([{"importMode": "create"}]),
        json!([1]),
    ] {
        bulk(wrong).refused(400, "ArgumentInvalid");
    }
    let twice = json!([{"id": "x"}, {"id": "x"}]);
    bulk(twice).refused(400, "DeviceDefinedMultipleTimes");
    bulk(json!({"id": "x"})).refused(400, "ArgumentInvalid");
    owner.get("/devices/x").refused(404, "DeviceNotFound");
}

#[test]
fn bad_identities_are_refused() {
    let fixture = start();
    let owner = fixture.owner();
    for (path, body) in [
        ("/devices/a%20b", json!({})),
        ("/devices/x", json!({"deviceId": "y"})),
        ("/devices/x", json!({"status": 1})),
        (
            "/devices/x",
            json!({"authentication": {"symmetricKey": {"primaryKey": "?"}}}),
        ),
        (
            "/devices/x",
            json!({"authentication": {"type": "selfSigned"}}),
        ),
    ] {
        owner
            .call("PUT", path, Some(&body))
            .refused(400, "ArgumentInvalid");
    }
    owner.get("/devices/x").refused(404, "DeviceNotFound");
}

#[test]
fn queries_find_devices_page_by_page() {
    let fixture = start();
    let owner = fixture.owner();
    let query = |text: &str, headers: &[(&str, &str)]| owner.query(text, headers);
    let all = "SELECT * FROM devices";
    let found = query(all, &[]);
    assert_eq!(found.body.as_array().unwrap().len(), 2);
    assert_eq!(
        (
            found.header("x-ms-item-type"),
            found.header("x-ms-continuation")
        ),
        (Some("Twin"), None)
    );
    let first = query(all, &[("x-ms-max-item-count", "1")]);
    assert_eq!(first.body[0]["deviceId"], "d1");
    let token = first.header("x-ms-continuation").unwrap();
    let last = query(
        all,
        &[("x-ms-max-item-count", "1"), ("x-ms-continuation", token)],
    );
    assert_eq!(
        (&last.body[0]["deviceId"], last.header("x-ms-continuation")),
        (&json!("d2"), None)
    );
    assert_eq!(
        query("SELECT * FROM devices WHERE deviceId = 'd2'", &[]).body[0]["deviceId"],
        "d2"
    );
    query("SELECT nonsense", &[]).refused(400, "ArgumentInvalid");
    query(all, &[("x-ms-continuation", "?")]).refused(400, "ArgumentInvalid");
}

#[test]
fn a_policy_allows_what_it_is_for() {
    let fixture = start();
    let body = json!({});
    let requests = [
        ("registryRead", "GET", "/devices/d1"),
        ("registryRead", "GET", "/devices"),
        ("registryReadWrite", "PUT", "/devices/x"),
        ("registryReadWrite", "DELETE", "/devices/x"),
        ("service", "GET", "/twins/d1"),
        ("service", "PATCH", "/twins/d1"),
        ("service", "PUT", "/twins/d1"),
        ("service", "POST", "/twins/d1/methods"),
        ("service", "POST", "/devices/query"),
    ];
    for policy in [
        "iothubowner",
        "service",
        "device",
        "registryRead",
        "registryReadWrite",
    ] {
        let key = common::field(&fixture.info().policies[policy], "SharedAccessKey");
        let caller = fixture.with_token(Some(token("localhost", &key, unix() + 60, Some(policy))));
        for (needed, method, path) in requests {
            let response = caller.call(
                method,
                path,
                (!["GET", "DELETE"].contains(&method)).then_some(&body),
            );
            let allowed = policy == "iothubowner"
                || policy == needed
                || (needed == "registryRead" && policy == "registryReadWrite");
            assert_eq!(
                response.status != 401,
                allowed,
                "{policy} {method} {path}: {}",
                response.body
            );
        }
    }
}

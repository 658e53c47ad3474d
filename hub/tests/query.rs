//! Queries over REST: what they find, page by page, and what is said of wrong ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Fixture, Rest, start};
use serde_json::{Value, json};
use twinflash_hub::{Hub, Options};

fn rows(owner: &Rest, text: &str) -> Value {
    let found = owner.query(text, &[]);
    assert_eq!(found.status, 200, "{text}: {}", found.body);
    assert_eq!(found.header("x-ms-continuation"), None, "{text}");
    found.body
}

/// All pages of a query; `between` is done after each.
fn pages(owner: &Rest, text: &str, size: &str, mut between: impl FnMut(usize)) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut token = None;
    loop {
        let mut headers = vec![("x-ms-max-item-count", size)];
        headers.extend(
            token
                .as_deref()
                .map(|token: &str| ("x-ms-continuation", token)),
        );
        let found = owner.query(text, &headers);
        assert_eq!(found.status, 200, "{text}: {}", found.body);
        pages.push(found.body.as_array().unwrap().clone());
        between(pages.len());
        token = found.header("x-ms-continuation").map(str::to_owned);
        if token.is_none() {
            return pages;
        }
    }
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter()
        .map(|row| row["deviceId"].as_str().unwrap())
        .collect()
}

fn make(owner: &Rest, id: &str, tags: &Value) {
    let path = format!("/devices/{id}");
    assert_eq!(owner.call("PUT", &path, Some(&json!({}))).status, 200);
    let body = json!({"tags": tags});
    assert_eq!(
        owner
            .call("PATCH", &format!("/twins/{id}"), Some(&body))
            .status,
        200
    );
}

fn delete(owner: &Rest, id: &str) {
    let response = owner.call_if("DELETE", &format!("/devices/{id}"), None, "\"*\"");
    assert_eq!(response.status, 204);
}

#[test]
fn twins_are_found_by_what_is_in_them() {
    let fixture = start();
    let owner = fixture.owner();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    device.report(r#"{"firmware":{"fwUpdateStatus":"Current","fwVersion":"1.0.1"}}"#);
    let desired =
        json!({"tags": {"floor": 3}, "properties": {"desired": {"firmware": {"fwSize": 10}}}});
    owner.call("PATCH", "/twins/d2", Some(&desired));

    for (condition, found) in [
        ("deviceId = 'd1'", "d1"),
        ("connectionState = 'Connected'", "d1"),
        ("connectionState != 'Connected'", "d2"),
        (
            "properties.reported.firmware.fwUpdateStatus='Current' AND properties.reported.firmware.fwVersion <> '1.0.0'",
            "d1",
        ),
        (
            "NOT IS_DEFINED(properties.reported.firmware) AND status IN ['enabled']",
            "d2",
        ),
        (
            "tags.floor >= 3 AND properties.desired.firmware.fwSize < 11",
            "d2",
        ),
        ("properties.reported.$version > 1", "d1"),
    ] {
        let text = format!("SELECT * FROM devices WHERE {condition}");
        let answer = owner.query(&text, &[]);
        assert_eq!(answer.header("x-ms-item-type"), Some("Twin"));
        assert!(
            answer
                .header("content-type")
                .unwrap()
                .starts_with("application/json")
        );
        assert_eq!(
            answer.body,
            json!([owner.get(&format!("/twins/{found}")).body]),
            "{text}"
        );
    }
    assert_eq!(
        rows(&owner, "SELECT * FROM devices WHERE tags.floor = '3'"),
        json!([])
    );
    assert_eq!(
        rows(
            &owner,
            "SELECT * FROM devices WHERE configurations.[[firmware285]].status='Applied'"
        ),
        json!([])
    );
}

#[test]
fn rows_of_columns_and_groups_are_raw() {
    let fixture = start();
    let owner = fixture.owner();
    for (id, status) in [("a", "ok"), ("b", "bad"), ("c", "ok")] {
        make(&owner, id, &json!({"status": status}));
    }
    let text =
        "SELECT DeviceId, tags.status AS s, status FROM devices WHERE deviceId < 'd' OR tags.x";
    let answer = owner.query(text, &[]);
    assert_eq!(answer.header("x-ms-item-type"), Some("Raw"));
    assert_eq!(
        answer.body,
        json!([
            {"deviceId": "a", "s": "ok", "status": "enabled"},
            {"deviceId": "b", "s": "bad", "status": "enabled"},
            {"deviceId": "c", "s": "ok", "status": "enabled"},
        ])
    );
    assert_eq!(
        rows(&owner, "SELECT COUNT() AS n FROM devices"),
        json!([{"n": 5}])
    );
    assert_eq!(
        rows(&owner, "SELECT COUNT() AS n FROM devices WHERE false"),
        json!([{"n": 0}])
    );
    let grouped = "SELECT tags.status, COUNT() AS n FROM devices GROUP BY tags.status";
    let groups = [
        json!({"n": 2}),
        json!({"n": 1, "status": "bad"}),
        json!({"n": 2, "status": "ok"}),
    ];
    assert_eq!(rows(&owner, grouped), json!(groups));
    assert_eq!(pages(&owner, grouped, "2", |_| ()).concat(), groups);
    assert_eq!(
        pages(
            &owner,
            &grouped.replace("SELECT", "SELECT TOP 2"),
            "1",
            |_| ()
        ),
        [[groups[0].clone()], [groups[1].clone()]]
    );
    let jobs = owner.query("SELECT * FROM devices.jobs", &[]);
    assert_eq!(
        (jobs.header("x-ms-item-type"), jobs.body.clone()),
        (Some("DeviceJob"), json!([]))
    );
}

#[test]
fn pages_follow_each_other_while_devices_come_and_go() {
    let fixture = start();
    let owner = fixture.owner();
    for id in ["a", "b", "c", "e", "f", "g"] {
        make(&owner, id, &json!({"in": true}));
    }
    // d1 and d2 lie between c and e, and do not match.
    let text = "SELECT deviceId FROM devices WHERE tags.in";
    for (size, expected) in [
        ("1", "a|b|c|e|f|g"),
        ("2", "a b|c e|f g"),
        ("4", "a b c e|f g"),
        ("5", "a b c e f|g"),
        ("6", "a b c e f g"),
        ("99999", "a b c e f g"),
    ] {
        let pages = pages(&owner, text, size, |_| ());
        let shown: Vec<_> = pages.iter().map(|page| ids(page).join(" ")).collect();
        assert_eq!(shown.join("|"), expected);
    }
    let top = pages(&owner, &text.replace("SELECT", "SELECT TOP 3"), "2", |_| ());
    assert_eq!((ids(&top[0]), ids(&top[1])), (vec!["a", "b"], vec!["c"]));
    assert_eq!(top.len(), 2);

    let changed = pages(&owner, text, "2", |page| match page {
        1 => {
            delete(&owner, "a");
            // The next page begins after it.
            delete(&owner, "b");
            make(&owner, "aa", &json!({"in": true}));
            make(&owner, "d0", &json!({"in": true}));
        }
        2 => delete(&owner, "e"),
        _ => {}
    });
    assert_eq!(ids(&changed.concat()), ["a", "b", "c", "d0", "f", "g"]);
}

#[test]
fn a_continuation_is_good_for_its_query_only() {
    let fixture = start();
    let owner = fixture.owner();
    let text = "SELECT * FROM devices";
    let first = owner.query(text, &[("x-ms-max-item-count", "1")]);
    let token = first.header("x-ms-continuation").unwrap();
    let go_on = |text: &str, token: &str| owner.query(text, &[("x-ms-continuation", token)]);
    assert_eq!(ids(go_on(text, token).body.as_array().unwrap()), ["d2"]);
    // An empty header is none.
    assert_eq!(go_on(text, "").body.as_array().unwrap().len(), 2);
    for (text, token) in [
        ("SELECT * FROM devices WHERE true", token),
        (text, "?"),
        (text, "AAAA"),
        (text, &token[1..]),
    ] {
        go_on(text, token).refused(400, "ArgumentInvalid");
    }
    for count in ["0", "-1", "x", "1.5", "99999999999999999999"] {
        owner
            .query(text, &[("x-ms-max-item-count", count)])
            .refused(400, "ArgumentInvalid");
    }
}

#[test]
fn wrong_queries_are_refused_with_the_place() {
    let fixture = start();
    let owner = fixture.owner();
    for (text, told) in [
        (
            "SELECT nonsense",
            "expected AS, \",\" or FROM, found the end (line 1, column 16)",
        ),
        (
            "SELECT * FROM devices\nWHERE tags.a = ",
            "found the end (line 2, column 16)",
        ),
        ("SELECT SUM(tags.a) AS s FROM devices", "SUM()"),
        (&"x".repeat(9000), "8192"),
        (
            &format!("SELECT * FROM devices WHERE {}", "(".repeat(8000)),
            "nested",
        ),
    ] {
        let answer = owner.query(text, &[]);
        answer.refused(400, "ArgumentInvalid");
        let message = answer.body["Message"].as_str().unwrap();
        assert!(message.contains(told), "{message}");
    }
    for body in [
        json!({}),
        json!([]),
        json!("SELECT * FROM devices"),
        json!({"query": 1}),
        Value::Null,
    ] {
        owner
            .call("POST", "/devices/query", Some(&body))
            .refused(400, "ArgumentInvalid");
    }
}

#[test]
fn a_large_fleet_is_found_whole() {
    let names: Vec<String> = (0..2500).map(|n| format!("device-{n:04}")).collect();
    let hub = Hub::start(Options {
        mqtt_port: 0,
        https_port: 0,
        devices: names.clone(),
        ..Options::default()
    })
    .unwrap();
    let fixture = Fixture {
        hub,
        events: Default::default(),
    };
    let owner = fixture.owner();
    let pages = pages(&owner, "SELECT * FROM devices", "5000", |_| ());
    assert_eq!(
        pages.iter().map(Vec::len).collect::<Vec<_>>(),
        [1000, 1000, 500]
    );
    assert_eq!(ids(&pages.concat()), names);
    assert_eq!(
        rows(&owner, "SELECT COUNT() AS n FROM devices"),
        json!([{"n": 2500}])
    );
    assert_eq!(
        rows(
            &owner,
            "SELECT deviceId FROM devices WHERE ENDSWITH(deviceId, '-2345')"
        ),
        json!([{"deviceId": "device-2345"}])
    );
    // Without a size, a page has a hundred.
    let first = owner.query("SELECT deviceId FROM devices", &[]);
    assert_eq!(first.body.as_array().unwrap().len(), 100);
}

//! What a query finds.

mod any;
mod texts;

use super::*;
use serde_json::json;

fn twin() -> Value {
    json!({
        "deviceId": "d-1", "etag": "AAA=", "status": "enabled", "connectionState": "Connected", "version": 4,
        "lastActivityTime": "2026-11-20T10:00:00.0000000Z",
        "tags": {"location": {"region": "US", "floor": 43}, "group": "a", "A": 1, "a": 2, "yes": true, "no": null,
            "with space": 1, "quote's": "it's \"so\" \\ \u{1f600}"},
        "properties": {
            "desired": {"n": 60, "$version": 2, "$metadata": {"$lastUpdated": "2026-11-20T09:00:00Z"}},
            "reported": {"n": 60.0, "list": [1, 2], "firmware": {"fwUpdateStatus": "Current", "version": "1.0.1"}, "$version": 7},
        },
        "configurations": {"firmware-285": {"status": "Applied"}, "firmware285": {"status": "Targeted"}},
    })
}

/// The outcome of a condition, undefined included.
fn truth(condition: &str) -> Option<bool> {
    let parsed = Condition::parse(condition).unwrap_or_else(|error| panic!("{condition}: {error}"));
    let truth = parsed.0.as_ref().unwrap().truth(&twin());
    assert_eq!(parsed.matches(&twin()), truth == Some(true));
    truth
}

#[test]
fn conditions_that_hold() {
    for condition in [
        "deviceId = 'd-1'",
        "DEVICEID = \"d-1\" and DevIces.deviceID='d-1'",
        "'d-1' = deviceId",
        "tags.location.region = 'US' AND properties.reported.n >= 60",
        "Tags.a = 2 AND tags.A = 1",
        "PROPERTIES.Reported.firmware.fwUpdateStatus='Current'",
        "properties.desired.n = properties.reported.n",
        "properties.desired.$version < properties.reported.$version",
        "properties.desired.$metadata.$lastUpdated > '2026-11-19'",
        "configurations.[[firmware285]].status = 'Targeted'",
        "configurations.[[firmware-285]].status='Applied' AND properties.reported.firmware.version='1.0.1'",
        "tags.[[with space]] = 1 AND tags.group = 'a' AND [[tags]].[[group]] <> 'b'",
        r#"tags.[[quote's]] = 'it\'s "so" \\ \uD83D\uDE00' "#,
        r#"tags.[[quote's]] = "it's \"so\" \u005c 😀""#,
        "tags.location.floor = 4.3e1 and tags.location.floor = 0x2B and tags.location.floor=+43",
        "tags.location.floor > -1 AND tags.location.floor <= 43 AND tags.location.floor != 42.5",
        "tags.group IN ['b', 'a']",
        "tags.group NIN ['b', 1, null] and tags.group not  in ['b']",
        "tags.no = null AND IS_NULL(tags.no) AND is_defined(tags.no) AND tags.a != null",
        "tags.yes AND tags.yes = true AND (tags.yes) = (true)",
        "NOT NOT NOT tags.a = 3",
        "NOT is_defined(tags.zzz) AND IS_DEFINED ( tags.zzz ) = false",
        "true OR undefined AND false",
        "(true or false) AND NOT (false AND true)",
        "startswith(deviceId, 'd-') AND ENDS_WITH(deviceId,'1') and Contains('abc', 'b')",
        "IS_NUMBER(tags.a) AND IS_STRING(deviceId) AND IS_BOOL(tags.yes) AND IS_OBJECT(tags) AND IS_ARRAY(properties.reported.list) AND IS_PRIMITIVE(tags.no)",
        "NOT IS_PRIMITIVE(tags) AND NOT IS_NULL(tags.zzz)",
        "9007199254740993 != 9007199254740992 AND 18446744073709551615 > 1",
        "x509Thumbprint.x = 1 OR status = 'enabled'",
    ] {
        assert_eq!(truth(condition), Some(true), "{condition}");
    }
}

#[test]
fn conditions_that_do_not_hold() {
    for condition in [
        "deviceId = 'D-1'",
        "tags.location.floor = '43'",
        "tags.group IN [1, null]",
        "tags.no = 0",
        "true AND false OR false",
        "NOT tags.a NIN [3]",
        "'a' > 'b'",
        "false > true",
    ] {
        assert_eq!(truth(condition), Some(false), "{condition}");
    }
    for condition in [
        "undefined",
        "tags.zzz = 1",
        "tags.zzz != 1",
        "tags.zzz = undefined",
        "NOT tags.zzz = 1",
        "tags.zzz IN [1]",
        "tags.zzz NIN [1]",
        "tags.zzz.deeper.still",
        "tags.group.deeper = 1",
        "properties.desired = properties.desired",
        "properties.reported.list != 1",
        "properties.reported.list IN [1]",
        "tags.location.floor > '4'",
        "tags.location.floor < null",
        "tags.group",
        "NOT tags.group",
        "'text' OR 1",
        "true AND tags.zzz",
        "false OR tags.zzz",
        "STARTSWITH(tags.a, '2')",
        "CONTAINS(tags.zzz, '')",
    ] {
        assert_eq!(truth(condition), None, "{condition}");
    }
}

#[test]
fn all_documents_are_the_target_of_a_star_or_of_nothing() {
    for text in ["*", " * ", "", "  "] {
        assert!(Condition::parse(text).unwrap().matches(&Value::Null));
    }
    for text in [
        "**",
        "* AND true",
        "WHERE true",
        "devices.jobs.status = 'x'",
    ] {
        assert!(Condition::parse(text).is_err(), "{text}");
    }
}

fn fleet() -> Vec<Value> {
    [
        ("a", "Success"),
        ("b", "Pending"),
        ("c", "Success"),
        ("d", ""),
        ("e", "Error"),
    ]
    .into_iter()
    .map(|(id, status)| {
        let reported = match status {
            "" => json!({}),
            status => json!({"update": {"status": status}}),
        };
        json!({"deviceId": id, "properties": {"reported": reported}})
    })
    .collect()
}

fn select(text: &str) -> Value {
    let fleet = fleet();
    let documents = fleet.iter().map(|twin| twin as &dyn Document);
    Query::parse(text).unwrap().select(documents).into()
}

#[test]
fn rows_are_documents_columns_or_groups() {
    assert_eq!(select("SELECT * FROM devices"), Value::from(fleet()));
    assert_eq!(
        select("SELECT TOP 2 deviceid FROM devices"),
        json!([{"deviceId": "a"}, {"deviceId": "b"}])
    );
    assert_eq!(
        select(
            "SELECT DeviceId AS id, properties.reported.update.status FROM devices WHERE deviceId > 'b'"
        ),
        json!([{"id": "c", "status": "Success"}, {"id": "d"}, {"id": "e", "status": "Error"}])
    );
    assert_eq!(
        select("SELECT properties.reported.update FROM devices WHERE deviceId IN ['a']"),
        json!([{"update": {"status": "Success"}}])
    );
    assert_eq!(
        select("SELECT COUNT() AS n FROM devices WHERE deviceId != 'a'"),
        json!([{"n": 4}])
    );
    assert_eq!(
        select("SELECT COUNT() FROM devices WHERE false"),
        json!([{"Count": 0}])
    );
    let status = "properties.reported.update.status";
    assert_eq!(
        select(&format!(
            "SELECT {status} AS status, COUNT() AS numberOfDevices FROM devices GROUP BY {status}"
        )),
        json!([
            {"numberOfDevices": 1},
            {"numberOfDevices": 1, "status": "Error"},
            {"numberOfDevices": 1, "status": "Pending"},
            {"numberOfDevices": 2, "status": "Success"},
        ])
    );
    assert_eq!(
        select(&format!(
            "SELECT TOP 1 {status} FROM devices WHERE IS_DEFINED({status}) GROUP BY {status}"
        )),
        json!([{"status": "Error"}])
    );
    assert_eq!(
        select(&format!(
            "SELECT COUNT() FROM devices WHERE false GROUP BY {status}"
        )),
        json!([])
    );
}

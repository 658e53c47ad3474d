//! What is a query, what it finds, and what is said of a text that is none.

use super::*;
use proptest::prelude::*;
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

#[test]
fn good_queries() {
    for (text, source, whole, grouped) in [
        ("SELECT * FROM devices", Source::Devices, true, false),
        (" select*from\n\tDEVICES ", Source::Devices, true, false),
        (
            "SELECT TOP 5 * FROM devices WHERE(true)",
            Source::Devices,
            true,
            false,
        ),
        (
            "SELECT * FROM devices.jobs WHERE devices.jobs.status = 'completed' AND jobId='j'",
            Source::Jobs,
            true,
            false,
        ),
        (
            "SELECT DeviceId, tags.[[a b]] AS ab FROM devices",
            Source::Devices,
            false,
            false,
        ),
        (
            "SELECT COUNT() as n FROM devices WHERE tags.a=1",
            Source::Devices,
            false,
            true,
        ),
        (
            "SELECT tags.a, COUNT ( ) FROM devices GROUP BY devices.tags.a",
            Source::Devices,
            false,
            true,
        ),
        (
            "SELECT tags.a FROM devices GROUP BY tags.a",
            Source::Devices,
            false,
            true,
        ),
    ] {
        let query = Query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            (query.source(), query.is_whole(), query.is_grouped()),
            (source, whole, grouped),
            "{text}"
        );
    }
    assert_eq!(
        Query::parse("SELECT TOP 5 * FROM devices").unwrap().top(),
        Some(5)
    );
}

#[test]
fn bad_queries_are_told_where_and_what() {
    for (text, told) in [
        ("", "expected SELECT, found the end (line 1, column 1)"),
        (
            "SELEKT *",
            "expected SELECT, found \"SELEKT\" (line 1, column 1)",
        ),
        (
            "SELECT",
            "expected TOP, \"*\" or a property or COUNT(), found the end (line 1, column 7)",
        ),
        (
            "SELECT FROM devices",
            "expected TOP, \"*\" or a property or COUNT(), found \"FROM\" (line 1, column 8)",
        ),
        (
            "SELECT * devices",
            "expected FROM, found \"devices\" (line 1, column 10)",
        ),
        (
            "SELECT a b FROM devices",
            "expected AS, \",\" or FROM, found \"b\" (line 1, column 10)",
        ),
        (
            "SELECT a AS FROM devices",
            "expected a name, found \"FROM\" (line 1, column 13)",
        ),
        (
            "SELECT a, FROM devices",
            "expected a property or COUNT(), found \"FROM\" (line 1, column 11)",
        ),
        (
            "SELECT TOP 0 * FROM devices",
            "expected a number of rows, from 1, found \"0\"",
        ),
        (
            "SELECT * FROM device",
            "expected devices or devices.jobs, found \"device\" (line 1, column 15)",
        ),
        (
            "SELECT * FROM devices.modules",
            "this hub has no modules (line 1, column 15)",
        ),
        (
            "SELECT * FROM devices.things",
            "only devices and devices.jobs can be queried",
        ),
        (
            "SELECT * FROM devices\nWHERE tags.a == 1",
            "expected a property or a value, found \"=\" (line 2, column 15)",
        ),
        (
            "SELECT * FROM devices\r\n WHERE ä.b ~ 1",
            "expected a comparison (= != <> < <= > >= IN NIN), AND, OR, GROUP or the end, found \"~\" (line 2, column 12)",
        ),
        (
            "SELECT * FROM devices WHERE",
            "expected NOT or a property or a value, found the end",
        ),
        ("SELECT * FROM devices WHERE AND", "found \"AND\""),
        (
            "SELECT * FROM devices WHERE a =",
            "expected a property or a value, found the end",
        ),
        (
            "SELECT * FROM devices WHERE (a = 1",
            "expected AND, OR or \")\", found the end",
        ),
        (
            "SELECT * FROM devices WHERE a = 1)",
            "expected AND, OR, GROUP or the end, found \")\"",
        ),
        ("SELECT * FROM devices WHERE a = 1 = 2", "found \"=\""),
        (
            "SELECT * FROM devices WHERE a. = 1",
            "expected a property's name or [[name]], found \" \"",
        ),
        (
            "SELECT * FROM devices WHERE a.b-c = 1",
            "found \"-\"; a name with such characters is written [[name]] (line 1, column 32)",
        ),
        (
            "SELECT * FROM devices WHERE a.[[b] = 1",
            "[[ is not followed by a name and ]] (line 1, column 31)",
        ),
        (
            "SELECT * FROM devices WHERE a IN ('b')",
            "expected \"[\", found \"(\"",
        ),
        (
            "SELECT * FROM devices WHERE a IN []",
            "expected a value, found \"]\"",
        ),
        (
            "SELECT * FROM devices WHERE a IN ['b' 'c']",
            "expected \",\" or \"]\", found \"'\"",
        ),
        ("SELECT * FROM devices WHERE a NOT 1", "found \"NOT\""),
        (
            "SELECT * FROM devices WHERE a = 'b",
            "this string does not end (line 1, column 33)",
        ),
        (
            r"SELECT * FROM devices WHERE a = '\n'",
            "can follow a \\ in a string (line 1, column 34)",
        ),
        (
            r"SELECT * FROM devices WHERE a = '\uD83D'",
            "can follow a \\ in a string",
        ),
        (
            "SELECT * FROM devices WHERE a = 1e999",
            "this number is too large (line 1, column 33)",
        ),
        (
            "SELECT * FROM devices WHERE a = 0xFFFFFFFFFFFFFFFFF",
            "this number is too large",
        ),
        ("SELECT * FROM devices WHERE a = 1b", "found \"b\""),
        (
            "SELECT * FROM devices WHERE LENGTH(a) = 1",
            "this hub has no function LENGTH(): it has IS_DEFINED",
        ),
        (
            "SELECT * FROM devices WHERE IS_DEFINED('a')",
            "expected a property, found \"'\"",
        ),
        (
            "SELECT * FROM devices WHERE COUNT() = 1",
            "COUNT() can only be selected",
        ),
        (
            "SELECT * FROM devices WHERE devices.jobs.status = 'x'",
            "devices.jobs can be named only in a query FROM devices.jobs (line 1, column 29)",
        ),
        (
            "SELECT Avg(tags.a) FROM devices",
            "this hub does not have AVG(): of the aggregates only COUNT() (line 1, column 8)",
        ),
        (
            "SELECT tags.a, max(tags.b) FROM devices",
            "this hub does not have MAX(): of the aggregates only COUNT() (line 1, column 16)",
        ),
        (
            "SELECT LOWER(a) FROM devices",
            "only properties and COUNT() can be selected",
        ),
        (
            "SELECT COUNT(*) FROM devices",
            "expected \")\", found \"*\"",
        ),
        (
            "SELECT tags.a, tags.b.a FROM devices",
            "a column \"a\" is there already: name this one with AS (line 1, column 16)",
        ),
        (
            "SELECT tags.a, COUNT() FROM devices",
            "a is neither COUNT() nor the property of GROUP BY (line 1, column 8)",
        ),
        ("SELECT tags.b FROM devices GROUP BY tags.a", "b is neither"),
        (
            "SELECT * FROM devices GROUP BY tags.a",
            "SELECT * does not go with GROUP BY",
        ),
        (
            "SELECT tags.a FROM devices GROUP tags.a",
            "expected BY, found \"tags\"",
        ),
        (
            "SELECT tags.a FROM devices GROUP BY tags.a, tags.b",
            "found \",\"",
        ),
        (
            "SELECT a FROM devices.jobs",
            "FROM devices.jobs goes with SELECT * only",
        ),
        (
            "SELECT * FROM devices; DROP",
            "expected WHERE, GROUP or the end, found \";\"",
        ),
    ] {
        let error = Query::parse(text).expect_err(text);
        assert!(error.to_string().contains(told), "{text}\n{error}");
        assert!(text.is_char_boundary(error.position), "{text}");
    }
}

#[test]
fn length_and_depth_are_bounded() {
    let query =
        |condition: String| Query::parse(&format!("SELECT * FROM devices WHERE {condition}"));
    let deep = |depth: usize| query(format!("{}true{}", "(".repeat(depth), ")".repeat(depth)));
    assert!(deep(MAX_DEPTH).is_ok());
    let error = deep(MAX_DEPTH + 1).unwrap_err();
    assert_eq!(
        (error.position, error.message.as_str()),
        (28 + MAX_DEPTH, "this is nested more than 64 deep")
    );
    for part in [
        "(",
        "NOT ",
        "NOT(",
        "IS_NULL(",
        "a=(",
        "true AND(",
        "[[",
        "a IN [",
        "CONTAINS(a,",
    ] {
        let text = part.repeat((MAX_LENGTH - 28) / part.len());
        assert!(query(text).is_err());
    }
    assert!(
        query(format!("{}false", "NOT ".repeat(2001)))
            .unwrap()
            .matches(&twin())
    );
    let long = |length: usize| format!("SELECT * FROM devices{}", "ä ".repeat(length));
    assert_eq!(
        Query::parse(&long(8000)).unwrap_err().message,
        "the text is longer than 8192 characters"
    );
    let full = format!("SELECT * FROM devices{}", " ".repeat(MAX_LENGTH - 21));
    assert!(Query::parse(&full).is_ok());
    assert_eq!(
        Query::parse(&format!("{full} ")).unwrap_err().position,
        MAX_LENGTH
    );
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

/// Pieces that make something close to a query.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "SELECT",
            "TOP",
            "*",
            "FROM",
            "devices",
            "devices.jobs",
            "WHERE",
            "GROUP",
            "BY",
            "AS",
            "AND",
            "OR",
            "NOT",
            "IN",
            "NIN",
            "COUNT()",
            "IS_DEFINED(",
            "CONTAINS(",
            "(",
            ")",
            "[",
            "]",
            "[[",
            "]]",
            ",",
            ".",
            "=",
            "!=",
            "<",
            "<>",
            ">=",
            "'",
            "\"",
            "'x'",
            "\\",
            "\\u",
            "1",
            "-1.5e3",
            "0x",
            "true",
            "null",
            "undefined",
            "tags.a",
            "deviceId",
            "ä",
            "\u{1f600}",
            "\n",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec((piece, prop::sample::select(vec!["", " "])), 0..40).prop_map(|pieces| {
        pieces
            .into_iter()
            .flat_map(|(piece, gap)| [piece, gap.to_owned()])
            .collect()
    })
}

/// A condition, and what it should come to for a document with `p` of true, `n` of 1 and `s` of "x".
fn conditions() -> impl Strategy<Value = (String, Option<bool>)> {
    let leaf = prop::sample::select(vec![
        ("p", Some(true)),
        ("NOT p", Some(false)),
        ("n = 1", Some(true)),
        ("n >= 2", Some(false)),
        ("s NIN ['y']", Some(true)),
        ("u = 1", None),
        ("n", None),
    ])
    .prop_map(|(text, truth)| (text.to_owned(), truth));
    leaf.prop_recursive(6, 64, 2, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_map(|(text, truth)| (format!("not ({text})"), truth.map(|truth| !truth))),
            (inner.clone(), inner.clone()).prop_map(|((left, a), (right, b))| {
                let truth = match (a, b) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                };
                (format!("({left})AND({right})"), truth)
            }),
            (inner.clone(), inner).prop_map(|((left, a), (right, b))| {
                let truth = match (a, b) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (Some(false), Some(false)) => Some(false),
                    _ => None,
                };
                (format!("({left}) or ({right})"), truth)
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn no_text_brings_it_down(text in prop_oneof![any::<String>(), soup(), soup().prop_map(|soup| format!("SELECT * FROM devices WHERE {soup}"))]) {
        match Query::parse(&text) {
            Ok(query) => {
                let twin = twin();
                query.select([&twin as &dyn Document]);
            }
            Err(error) => {
                prop_assert!(text.is_char_boundary(error.position));
                prop_assert!(error.to_string().len() < 1000);
            }
        }
        if let Ok(condition) = Condition::parse(&text) {
            condition.matches(&twin());
        }
    }

    #[test]
    fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        let _ = Query::parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn logic_has_three_values((text, truth) in conditions()) {
        let document = json!({"p": true, "n": 1, "s": "x"});
        let condition = Condition::parse(&text).unwrap();
        prop_assert_eq!(condition.0.unwrap().truth(&document), truth, "{}", text);
    }

    #[test]
    fn any_string_can_be_compared(text in any::<String>()) {
        let quoted: String = text.chars().flat_map(|c| match c {
            '\'' | '\\' => vec!['\\', c],
            c => vec![c],
        }).collect();
        prop_assume!(quoted.chars().count() < 8000);
        let document = json!({"a": text});
        let condition = Condition::parse(&format!("a = '{quoted}'")).unwrap();
        prop_assert!(condition.matches(&document));
    }
}

//! It reads as serde_json does, and says where it does not.

use super::*;
use alloc::collections::BTreeMap;

/// In every place of a document other values, and members less and more: it is taken, refused and understood
/// as by serde_json's own deserializer, but that arrays are no objects.
pub(crate) fn as_serde_json_reads<T: DeserializeOwned + fmt::Debug>(document: &Value) {
    read::<T>(document.to_string().as_bytes()).unwrap();
    for changed in changes(document) {
        let text = changed.to_string();
        match (read::<T>(text.as_bytes()), serde_json::from_str::<T>(&text)) {
            (Ok(read), Ok(wanted)) => {
                assert_eq!(format!("{read:?}"), format!("{wanted:?}"), "{text}");
            }
            (Err(_), Err(_)) => {}
            (Err(wrong), Ok(_)) if wrong.reason().starts_with("invalid type: array") => {}
            (read, wanted) => panic!("{text}: {read:?}, and serde_json: {wanted:?}"),
        }
    }
}

fn changes(value: &Value) -> Vec<Value> {
    let others = r#"null true 0 -1 -0 1.0 1e3 1.5 255 256 4294967296 18446744073709551615 18446744073709551616
        "" "x" "1" [] [[]] ["x"] ["x","y"] ["x","y","z"] [1] {} {"x":1} {"x":{},"y":{}}"#;
    let others = others.split_whitespace();
    let mut all: Vec<Value> = others.map(|json| json.parse().unwrap()).collect();
    match value {
        Value::Array(items) => {
            let with = |place: core::ops::Range<usize>, item: Option<Value>| {
                let mut items = items.clone();
                items.splice(place, item);
                Value::from(items)
            };
            for (at, item) in items.iter().enumerate() {
                all.push(with(at..at + 1, None));
                all.push(with(at..at, Some(item.clone())));
                let others = changes(item).into_iter();
                all.extend(others.map(|other| with(at..at + 1, Some(other))));
            }
        }
        Value::Object(members) => {
            let with = |name: &str, member: Option<Value>| {
                let mut members = members.clone();
                members.remove(name);
                members.extend(member.map(|member| (name.to_string(), member)));
                Value::from(members)
            };
            for (name, member) in members {
                all.push(with(name, None));
                let others = changes(member).into_iter();
                all.extend(others.map(|other| with(name, Some(other))));
            }
            all.push(with("later", Some(Value::Null)));
        }
        // A variant's name before something.
        Value::String(name) => {
            all.extend(
                all.clone()
                    .into_iter()
                    .map(|it| serde_json::json!({ name: it })),
            );
        }
        _ => {}
    }
    all
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    number: u8,
    part: Option<f64>,
    pair: Option<(String, String)>,
    #[serde(default)]
    list: Vec<Choice>,
    #[serde(default)]
    names: BTreeMap<String, Inner>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Choice {
    Nothing,
    One(u8),
    Both { left: bool, right: i32 },
}

#[derive(Debug, PartialEq, Deserialize)]
struct Inner {
    text: String,
}

#[test]
fn a_document_is_read() {
    let json = br#"{"number": 3, "part": 1, "list": ["nothing", {"one": 255},
        {"both": {"left": true, "right": -5}}], "names": {"x.y": {"text": "a\nb", "unknown": [{}]}}}"#;
    let table: Table = read(json).unwrap();
    let wanted = Table {
        number: 3,
        part: Some(1.0),
        pair: None,
        list: [
            Choice::Nothing,
            Choice::One(255),
            Choice::Both {
                left: true,
                right: -5,
            },
        ]
        .into(),
        names: [(
            "x.y".to_string(),
            Inner {
                text: "a\nb".into(),
            },
        )]
        .into(),
    };
    assert_eq!(table, wanted);
    assert_eq!(
        read::<Table>(br#"{"number": 0, "part": null}"#)
            .unwrap()
            .part,
        None
    );
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (json, wanted) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{} {}", "trailing characters at line 1 column 4"),
        (
            r#"{"number": 1, "number": 1}"#,
            "duplicate field `number` at line 1 column 22",
        ),
        (
            r#"{"number": 1, "names": {"a": {"text": "", "b": {"c": 1, "c": 2}}}}"#,
            "duplicate field `c` at line 1 column 59",
        ),
        (
            "[3, 1.5, [], {}]",
            "invalid type: array, expected an object",
        ),
        ("{}", "missing field `number`"),
        (
            r#"{"number": 256}"#,
            "at number: invalid value: integer `256`, expected u8",
        ),
        (
            r#"{"number": -1}"#,
            "at number: invalid value: integer `-1`, expected u8",
        ),
        (
            r#"{"number": 1.5}"#,
            "at number: invalid type: number `1.5`, expected u8",
        ),
        (
            r#"{"number": "1"}"#,
            "at number: invalid type: string \"1\", expected u8",
        ),
        (
            r#"{"numbre": 1}"#,
            "at numbre: unknown field `numbre`, expected one of `number`, `part`, `pair`, `list`, `names`",
        ),
        (
            r#"{"number": 1, "list": ["nothing", {"one": true}]}"#,
            "at list[1].one: invalid type: boolean `true`, expected u8",
        ),
        (
            r#"{"number": 1, "list": ["one"]}"#,
            "at list[0].one: invalid type: null, expected u8",
        ),
        (
            r#"{"number": 1, "list": [{"nothing": 1}]}"#,
            "at list[0].nothing: invalid type: integer `1`, expected unit",
        ),
        (
            r#"{"number": 1, "list": [{"one": 1, "both": 2}]}"#,
            "at list[0]: invalid type: object, expected a word, or an object with one member",
        ),
        (
            r#"{"number": 1, "list": [{"two": 1}]}"#,
            "at list[0]: unknown variant `two`, expected one of `nothing`, `one`, `both`",
        ),
        (
            r#"{"number": 1, "list": [{"both": {"left": true}}]}"#,
            "at list[0].both: missing field `right`",
        ),
        (
            r#"{"number": 1, "list": [7]}"#,
            "at list[0]: invalid type: integer `7`, expected a word, or an object with one member",
        ),
        (
            r#"{"number": 1, "pair": ["a", "b", "c"]}"#,
            "at pair: invalid length 3, expected fewer items",
        ),
        (
            r#"{"number": 1, "names": {"a": {}, "b": {"text": ""}}}"#,
            "at names.a: missing field `text`",
        ),
    ] {
        let wrong = read::<Table>(json.as_bytes()).unwrap_err();
        assert_eq!(wrong.to_string(), wanted, "{json}");
    }
}

//! Whatever text comes: nothing brings it down, and logic and strings keep to their rules.

use super::*;
use proptest::prelude::*;

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

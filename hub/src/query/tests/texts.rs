//! What is a query, and what is said of a text that is none.

use super::*;

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

//! Every test that `docs/reliability.md` and `SECURITY.md` name is there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{fs, path::Path};

/// What stands between backquotes and looks like `file.rs::name`.
fn named(page: &str) -> Vec<(&str, &str)> {
    page.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|quoted| quoted.split_once("::"))
        .filter(|(file, _)| file.contains('/'))
        .collect()
}

/// Whether the text has a test function, or a scenario, of this name.
fn has(file: &str, text: &str, name: &str) -> bool {
    if file.ends_with(".json") {
        let table: serde_json::Value = serde_json::from_str(text).unwrap();
        let scenarios = table["scenarios"].as_array().unwrap();
        return scenarios.iter().any(|scenario| scenario["name"] == name);
    }
    let function = format!("fn {name}(");
    let Some(at) = text.find(&function) else {
        return false;
    };
    // Its attributes begin after the item before it.
    let before = &text[..at];
    let item = before.rfind("}\n").map_or(before, |end| &before[end..]);
    item.contains("#[test]") || text.contains("proptest!")
}

#[test]
fn every_test_that_the_page_names_is_there() {
    check("docs/reliability.md", 50);
}

#[test]
fn every_attack_has_its_test() {
    check("SECURITY.md", 25);
}

/// Each row of a page's tables names tests, at least so many in all, and they are there.
fn check(page: &str, least: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join(page)).unwrap();
    let named = named(&page);
    assert!(named.len() > least, "{} are named", named.len());
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, name)| {
            let text = fs::read_to_string(root.join(file));
            !text.is_ok_and(|text| has(file, &text, name))
        })
        .collect();
    assert!(missing.is_empty(), "not there: {missing:#?}");
    // No row promises what no test keeps.
    let mut promises = false;
    for line in page.lines() {
        let heading = line.starts_with("| promise") || line.starts_with("| attack");
        promises = heading || promises && line.starts_with('|');
        let kept = heading || line.starts_with("|---") || line.contains("::");
        assert!(!promises || kept, "{line}");
    }
}

#[test]
fn a_name_that_is_no_test_is_not_taken_for_one() {
    let text = "fn helper() {\n}\n\n#[test]\nfn real() {\n}\n\nfn other() {\n}\n";
    assert!(has("a.rs", text, "real"));
    for name in ["helper", "other", "rea", "unreal"] {
        assert!(!has("a.rs", text, name), "{name}");
    }
}

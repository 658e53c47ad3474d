//! What every language must do: the tables in `tests/scenarios`, played at the updater's boundary.
//!
//! `TWINFLASH_SCENARIO=text` plays only those whose file or name holds the text.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod expectations;
mod hub;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod values;

use serde_json::Value;
use std::{
    fs,
    path::Path,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// Scenarios mostly wait.
const AT_ONCE: usize = 8;

struct Scenario {
    name: String,
    table: Value,
}

#[test]
fn tables() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    let only = std::env::var("TWINFLASH_SCENARIO").unwrap_or_default();
    let mut scenarios = Vec::new();
    for path in &files {
        let file: Value = serde_json::from_slice(&fs::read(path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let stem = path.file_stem().unwrap().to_string_lossy();
        for scenario in file["scenarios"].as_array().unwrap() {
            // What the file says holds for each of its scenarios that does not say otherwise.
            let mut table = file.clone();
            table["scenarios"] = Value::Null;
            for (name, value) in scenario.as_object().unwrap() {
                table[name] = value.clone();
            }
            let name = format!("{stem}: {}", scenario["name"].as_str().unwrap());
            if name.contains(&only) {
                scenarios.push(Scenario { name, table });
            }
        }
    }
    let count = scenarios.len();
    assert!(count > 0, "no scenario");
    let queue = Mutex::new(scenarios.into_iter());
    let failed = Mutex::new(Vec::new());
    let slow = Mutex::new((Duration::ZERO, String::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(scenario) = queue.lock().unwrap().next() else {
                        return;
                    };
                    let since = Instant::now();
                    if let Err(why) = stage::play(&scenario.table) {
                        failed
                            .lock()
                            .unwrap()
                            .push(format!("{}\n  {why}", scenario.name));
                    }
                    let mut slow = slow.lock().unwrap();
                    *slow = slow.clone().max((since.elapsed(), scenario.name));
                }
            });
        }
    });
    let (time, name) = slow.into_inner().unwrap();
    println!(
        "{count} scenarios in {} tables; the slowest took {time:.1?}: {name}",
        files.len()
    );
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} of {count} failed\n{}",
        failed.len(),
        failed.join("\n")
    );
}

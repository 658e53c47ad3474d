//! What every language must do: the tables in `tests/scenarios`, played at the updater's boundary; those
//! of every contract once for each.
//!
//! `TWINFLASH_SUBJECT="PROGRAM ARGUMENT…"` judges that program in place of the updater in this process: see "A subject" in
//! `tests/scenarios/README.md`.
//! `TWINFLASH_SUBJECT_WITHOUT="compression"` says what that program was built without; the scenarios that need it are left out.
//! `TWINFLASH_SCENARIO=text` plays only those whose file, contract or name holds the text.
//! `TWINFLASH_SCENARIOS_INTO=file` plays none, but writes them all, each in its contract's words.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod dialect;
mod expectations;
mod hub;
mod process;
mod secrets;
mod signed;
mod stage;
mod subject;
#[path = "../support/mod.rs"]
mod support;
mod values;

use dialect::Dialects;
use process::Program;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};
use subject::{InProcess, Subject};
use twinflash::contract::Contract;

/// Scenarios mostly wait.
const AT_ONCE: usize = 24;

/// What scenarios may need and a program may have been built without.
const PARTS: [&str; 2] = ["compression", "encryption"];

struct Scenario {
    name: String,
    table: Value,
}

#[test]
fn tables() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    let dialects: Dialects = dialect::tables(&directory.join("dialects"));
    let mut known: Vec<&str> = Contract::names().collect();
    known.sort_unstable();
    assert!(dialects.keys().eq(&known), "one dialect for each contract");
    let mut scenarios = Vec::new();
    let mut faults = Vec::new();
    for (file, table) in dialect::tables(&directory) {
        for mut scenario in scenarios_of(&file, &table) {
            let contract = scenario.table["contract"].as_str().unwrap();
            scenario.table["follow"] = dialects[contract]["follow"].clone();
            scenarios.push(scenario);
        }
    }
    let of_one = scenarios.len();
    let mut left_out: BTreeMap<String, usize> = BTreeMap::new();
    let mut useless: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (contract, dialect) in &dialects {
        let cannot = dialect["cannot"].as_object().unwrap();
        useless.extend(cannot.keys().map(|need| (contract.as_str(), need.as_str())));
    }
    let mut common = 0;
    for (file, table) in dialect::tables(&directory.join("common")) {
        for scenario in scenarios_of(&format!("common/{file}"), &table) {
            common += 1;
            for need in scenario.table["needs"].as_array().into_iter().flatten() {
                let need = need.as_str().unwrap();
                if PARTS.contains(&need) {
                    continue;
                }
                let before = useless.len();
                useless.retain(|(_, known)| *known != need);
                let known = before > useless.len()
                    || dialects.values().any(|d| d["cannot"].get(need).is_some());
                assert!(known, "{}: every contract has {need:?}", scenario.name);
            }
            for (contract, dialect) in &dialects {
                let name = format!("{contract} × {}", scenario.name);
                if let Some(why) = dialect::lacks(&scenario.table, dialect) {
                    *left_out.entry(format!("{contract}: {why}")).or_default() += 1;
                    continue;
                }
                match dialect::translate(&scenario.table, dialect) {
                    Ok(mut table) => {
                        table["follow"] = dialect["follow"].clone();
                        scenarios.push(Scenario { name, table });
                    }
                    Err(why) => faults.push(format!("{name}\n  {why}")),
                }
            }
        }
    }
    assert!(useless.is_empty(), "no scenario needs this: {useless:?}");
    println!(
        "{of_one} scenarios of one contract; {common} of every contract, {} times {}, are {}",
        common,
        dialects.len(),
        scenarios.len() - of_one,
    );
    for (why, count) in left_out {
        println!("  {count:2} left out for {why}");
    }
    if let Some(path) = std::env::var_os("TWINFLASH_SCENARIOS_INTO") {
        let tables = scenarios.into_iter().map(|mut scenario| {
            scenario.table["name"] = scenario.name.into();
            scenario.table
        });
        let tables = Value::from_iter(tables).to_string();
        return std::fs::write(path, tables).unwrap();
    }
    leave_out_without_parts(&mut scenarios);
    let only = std::env::var("TWINFLASH_SCENARIO").unwrap_or_default();
    scenarios.retain(|scenario| scenario.name.contains(&only));
    secrets::listen_to_the_log();
    play(scenarios, faults);
    let lines = secrets::none_in_the_log().unwrap();
    println!("{lines} lines of log, and no secret");
}

/// Leaves out what the program that is judged has no part for, and says so; and what is about its having none, where
/// it has.
fn leave_out_without_parts(scenarios: &mut Vec<Scenario>) {
    let without = std::env::var("TWINFLASH_SUBJECT_WITHOUT").unwrap_or_default();
    let without: Vec<_> = without.split_whitespace().collect();
    for part in &without {
        assert!(PARTS.contains(part), "{part} is none of {PARTS:?}");
        let before = scenarios.len();
        scenarios.retain(|scenario| {
            let needs = scenario.table["needs"].as_array().into_iter().flatten();
            !needs.into_iter().any(|need| need == part)
        });
        let count = before - scenarios.len();
        println!("  {count:2} left out for a program without {part}");
        assert!(count > 0, "no scenario needs {part}");
    }
    scenarios.retain(|scenario| match &scenario.table["without"] {
        Value::Null => true,
        part => without.iter().any(|lacking| part == lacking),
    });
}

/// The scenarios of a file, each with what the file says for all of them.
fn scenarios_of(file: &str, table: &Value) -> Vec<Scenario> {
    let scenarios = table["scenarios"].as_array().unwrap().iter();
    let merged = scenarios.map(|scenario| {
        let mut merged = table.clone();
        merged["scenarios"] = Value::Null;
        for (name, value) in scenario.as_object().unwrap() {
            merged[name] = value.clone();
        }
        let name = format!("{file}: {}", scenario["name"].as_str().unwrap());
        Scenario {
            name,
            table: merged,
        }
    });
    merged.collect()
}

fn play(scenarios: Vec<Scenario>, faults: Vec<String>) {
    let count = scenarios.len();
    assert!(count > 0, "no scenario");
    let queue = Mutex::new(scenarios.into_iter());
    let failed = Mutex::new(faults);
    let slow = Mutex::new((Duration::ZERO, String::new()));
    let next = |subject: &Arc<dyn Subject>| {
        let Some(scenario) = queue.lock().unwrap().next() else {
            return false;
        };
        let since = Instant::now();
        if let Err(why) = stage::play(&scenario.table, subject) {
            let fault = format!("{}\n  {why}", scenario.name);
            failed.lock().unwrap().push(fault);
        }
        let mut slow = slow.lock().unwrap();
        *slow = slow.clone().max((since.elapsed(), scenario.name));
        true
    };
    let program = std::env::var("TWINFLASH_SUBJECT").ok();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(count) {
            scope.spawn(|| {
                let Some(program) = &program else {
                    let subject: Arc<dyn Subject> = Arc::new(InProcess::default());
                    while next(&subject) {}
                    return;
                };
                let program = Arc::new(Program::new(program));
                let subject: Arc<dyn Subject> = Arc::<Program>::clone(&program);
                while next(&subject) {}
                if let Err(why) = program.end() {
                    failed.lock().unwrap().push(why);
                }
            });
        }
    });
    let (time, name) = slow.into_inner().unwrap();
    println!("{count} scenarios played; the slowest took {time:.1?}: {name}");
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} of {count} failed\n{}",
        failed.len(),
        failed.join("\n")
    );
}

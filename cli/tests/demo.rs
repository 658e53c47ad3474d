//! `twinflash demo` keeps what it promises.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use serde_json::{Value, json};
use std::{fs, process::Command};
use support::{run, text};

const ZEROS_SHA256: &str = "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58";

/// The statuses that were reported, without details.
fn statuses(lines: &[Value]) -> Vec<&str> {
    let mut statuses: Vec<_> = lines
        .iter()
        .filter(|line| line["event"] == "status")
        .map(|line| line["status"].as_str().unwrap())
        .collect();
    statuses.dedup();
    statuses
}

fn demo(contract: &str) -> (Vec<Value>, Value) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::write(&image, vec![0; 1 << 20]).unwrap();
    let done = run(&[
        "demo",
        "--json",
        "--contract",
        contract,
        "--image",
        text(&image),
    ]);
    assert_eq!(done.status, Some(0), "{done:?}");
    assert_eq!(done.err, "");
    let mut lines = done.json();
    let result = lines.pop().unwrap();
    let seconds = result["seconds"].as_f64().unwrap();
    assert!(seconds > 0.0 && seconds < 30.0, "{result}");
    assert_eq!(
        result,
        json!({"event": "result", "outcome": "completed", "contract": contract, "bytes": 1 << 20,
               "sha256": ZEROS_SHA256, "seconds": seconds})
    );
    let line = done.out.lines().last().unwrap();
    assert!(line.starts_with("{\"event\":\"result\",\"outcome\":\"completed\",\"contract\":"));
    (lines, result)
}

#[test]
fn by_a_method() {
    let (lines, _) = demo("iothub-dm");
    let events: Vec<_> = lines
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    assert_eq!(&events[..3], ["ready", "method", "answer"]);
    assert_eq!(
        lines[1]["payload"]["fwPackageCheckValue"],
        format!("sha256:{ZEROS_SHA256}")
    );
    assert_eq!(lines[2]["status"], 200);
    assert_eq!(lines[2]["payload"], "FirmwareUpdate started.");
    assert_eq!(
        statuses(&lines),
        [
            "waiting",
            "downloading",
            "downloadComplete",
            "applying",
            "applyComplete"
        ]
    );
    for line in lines.iter().skip(1) {
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }
}

#[test]
fn by_desired_properties() {
    let (lines, _) = demo("configuration");
    assert_eq!(lines[1]["event"], "desired");
    assert_eq!(lines[1]["desired"]["fwVersion"], "1.0.1");
    assert_eq!(
        statuses(&lines),
        [
            "current",
            "downloading",
            "verifying",
            "applying",
            "rebooting",
            "current"
        ]
    );
}

#[test]
fn by_every_contract() {
    for contract in twinflash::contract::Contract::names() {
        let (lines, _) = demo(contract);
        assert!(statuses(&lines).len() >= 3, "{lines:?}");
    }
}

#[test]
fn in_a_pipe_it_is_plain_text_and_installs_this_program() {
    let done = run(&["demo"]);
    assert_eq!((done.status, done.err.as_str()), (Some(0), ""), "{done:?}");
    assert!(!done.out.contains('\u{1b}'), "{}", done.out);
    let size = fs::metadata(env!("CARGO_BIN_EXE_twinflash")).unwrap().len();
    for part in [
        "method        firmwareUpdate\n",
        "answer        200 \"FirmwareUpdate started.\"\n",
        "reported      applyComplete\n",
        "Updated from 1.0.0 to 1.0.1",
        "byte for byte the image",
        &format!("fwSize               {size}\n"),
    ] {
        assert!(done.out.contains(part), "{part}: {}", done.out);
    }
}

#[test]
fn what_cannot_be_shown_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    fs::write(&empty, "").unwrap();
    let wrong = dir.path().join("wrong.json");
    fs::write(&wrong, "{\"contract\": 5}").unwrap();
    for (arguments, expected) in [
        (
            vec!["--image", "/nowhere/image"],
            "error: cannot read /nowhere/image: No such file",
        ),
        (vec!["--image", "/"], "error: cannot read /: Is a directory"),
        (
            vec!["--contract", "none"],
            "there is none named \"none\"; built in are ",
        ),
        (
            vec!["--contract", "/nowhere/c.json"],
            "cannot read the contract /nowhere/c.json",
        ),
        (
            vec!["--contract", text(&wrong)],
            "wrong.json: contract, at contract: invalid type",
        ),
    ] {
        let done = run(&[&["demo"], &arguments[..]].concat());
        assert_eq!(done.status, Some(1), "{done:?}");
        assert!(done.err.contains(expected), "{done:?}");
        assert_eq!(done.err.lines().count(), 1, "{done:?}");
    }
    let done = run(&["demo", "--json", "--image", text(&empty)]);
    assert_eq!(done.status, Some(1), "{done:?}");
    assert_eq!(done.json().last().unwrap()["outcome"], "failed", "{done:?}");
}

#[test]
fn nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut command: Command = support::twinflash(&["demo"]);
    command.env("TMPDIR", dir.path());
    let done = support::Running::start(command).wait();
    assert_eq!(done.status, Some(0), "{done:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

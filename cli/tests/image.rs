//! `twinflash image info`, and what clap says.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use serde_json::json;
use std::fs;
use support::{run, text};

#[test]
fn known_values() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image");
    // The catalogue's check values, a CRC-16 with leading zeros, and the empty file.
    for (content, crc16, crc32, sha256) in [
        (
            "123456789",
            "31c3",
            "cbf43926",
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
        ),
        (
            "10",
            "f7",
            "a15d25e1",
            "4a44dc15364204a80fe80e9039455cc1608281820fe2b24f1e5233ade6af1dd5",
        ),
        (
            "",
            "0",
            "00000000",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
    ] {
        fs::write(&file, content).unwrap();
        let done = run(&["image", "info", text(&file), "--json"]);
        assert_eq!((done.status, done.err.as_str()), (Some(0), ""));
        assert_eq!(
            done.json(),
            [json!({
                "fwPath": text(&file),
                "fwSize": content.len(),
                "fwPackageCheckValue": crc16,
                "crc32": crc32,
                "sha256": sha256,
            })]
        );
        let done = run(&["image", "info", text(&file)]);
        assert!(
            done.out
                .contains(&format!("fwPackageCheckValue  {crc16}  ")),
            "{done:?}"
        );
        assert!(
            done.out
                .contains(&format!("sha256               {sha256}\n")),
            "{done:?}"
        );
    }
}

#[test]
fn wrong_arguments_are_named() {
    for (arguments, expected) in [
        (&["image", "info"][..], "<FILE>"),
        (
            &["update", "d", "https://h/x"],
            "--service <CONNECTION_STRING>",
        ),
        (&["nothing"], "'nothing'"),
        (&["hub", "--mqtt-port", "70000"], "70000"),
        (&["device"], "--config <FILE>"),
        (&["guard"], "--state <DIR>"),
        (&["update", "--size", "many", "d", "u"], "many"),
    ] {
        let done = run(arguments);
        assert_eq!(done.status, Some(2), "{done:?}");
        assert!(done.err.contains(expected), "{done:?}");
    }
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["demo", "--help"],
        &["update", "--help"],
    ] {
        assert_eq!(run(arguments).status, Some(0));
    }
    let version = format!("twinflash {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&["--version"]).out, version);
}

#[test]
fn a_secret_in_the_environment_is_not_in_the_help() {
    let mut command = support::twinflash(&["update", "--help"]);
    command.env("TWINFLASH_SERVICE", "HostName=h;SharedAccessKey=SECRET");
    let done = support::Running::start(command).wait();
    assert!(done.out.contains("TWINFLASH_SERVICE") && !done.out.contains("SECRET"));
}

#[test]
fn a_missing_file_is_named() {
    let done = run(&["image", "info", "/nowhere", "--json"]);
    assert_eq!(done.status, Some(1));
    assert!(
        done.err.starts_with("error: cannot read /nowhere: "),
        "{done:?}"
    );
    assert_eq!(done.json()[0]["event"], "error");
}

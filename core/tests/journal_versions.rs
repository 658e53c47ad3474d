//! A journal of every released version is read; see `core/tests/fixtures/journal/README.md`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod support;

use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use support::{
    pattern::image,
    server::{Reply, Server},
};
use twinflash::{
    contract::Contract,
    device::Updater,
    engine::{Config, Engine, Input, Now, Output, Stored},
    install::{FileInstall, Restart, from_description},
    journal::{Journal, Loaded},
    update::{Checks, Confirm, ImageState, Key, Outcome, Phase, Policy, Record},
};

const SIZE: usize = 300_000;
const HALF: usize = 150_000;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal")
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|e| e.unwrap().path());
    let mut directories: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    directories.sort();
    directories
}

/// The payload of a journal.
fn payload(directory: &Path) -> Vec<u8> {
    let copy = tempfile::tempdir().unwrap();
    for file in ["journal.a", "journal.b"] {
        fs::copy(directory.join(file), copy.path().join(file)).unwrap();
    }
    match Journal::open(copy.path()).unwrap().1 {
        Loaded::Record(json) => json,
        other => panic!("{}: {other:?}", directory.display()),
    }
}

/// Every member of `old` is in `new`, as it was.
fn is_kept(old: &Value, new: &Value, path: &str) {
    match old {
        Value::Object(members) => {
            for (name, value) in members {
                is_kept(value, &new[name], &format!("{path}.{name}"));
            }
        }
        _ => assert_eq!(old, new, "{path}"),
    }
}

fn engine(restart: Restart, stored: Vec<u8>, image: ImageState) -> (Engine, Vec<Output>) {
    let mut engine = Engine::new(Config {
        contract: Contract::built_in("iothub-dm").unwrap(),
        policy: Policy::default(),
        current_version: None,
        restart,
        boot_id: "another".into(),
        installer: None,
        seed: 7,
    });
    let stored = Stored::Record(stored);
    engine.handle(Input::Boot { stored, image }, Now::default());
    let outputs = std::iter::from_fn(|| engine.poll()).collect();
    (engine, outputs)
}

#[test]
fn every_released_version_is_read() {
    let mut read = 0;
    for release in entries(&fixtures()) {
        for state in entries(&release) {
            let shown = state.display().to_string();
            let json = payload(&state);
            let record = Record::from_json(&json).expect(&shown);
            let again = serde_json::from_slice(&record.to_json()).unwrap();
            is_kept(&serde_json::from_slice(&json).unwrap(), &again, &shown);
            assert!(record.unknown.is_empty(), "{shown}: {:?}", record.unknown);
            let update = record.update.expect(&shown);
            let name = state.file_name().unwrap().to_str().unwrap();
            match name {
                "downloading" => {
                    let checkpoint = update.checkpoint.as_ref().expect(&shown);
                    assert_eq!(checkpoint.offset, HALF as u64, "{shown}");
                    // What was computed of the checks is gone on with.
                    let mut checks = Checks::restore(&checkpoint.checks).expect(&shown);
                    checks.update(&image(SIZE, 7)[HALF..]);
                    let digests = checks.finish();
                    let check = &update.request.checks[0];
                    assert!(check.matches(&digests), "{shown}");
                    let (engine, _) = engine(Restart::None, json, ImageState::Partial);
                    assert_eq!(engine.status().phase, Some(Phase::Downloading), "{shown}");
                    assert_eq!(engine.status().bytes, HALF as u64, "{shown}");
                }
                "confirming" => {
                    let (engine, _) = engine(Restart::Exit, json, ImageState::New);
                    assert_eq!(engine.status().phase, Some(Phase::Confirming), "{shown}");
                    assert_eq!(record.core.attempts, 1, "{shown}");
                    // The guard needs no configuration.
                    let installer = from_description(&record.installer.unwrap());
                    assert!(installer.is_some(), "{shown}");
                }
                "failed" => {
                    let (engine, _) = engine(Restart::None, json, ImageState::Old);
                    let outcome = engine.status().outcome;
                    assert!(matches!(outcome, Some(Outcome::Failed { .. })), "{shown}");
                    assert_eq!(record.core.last_outcome.as_deref(), Some("failed"));
                }
                other => panic!("what does {other} say?"),
            }
            read += 1;
        }
    }
    assert!(read >= 3);
}

/// A version to come has another layout; only its core is known. Its update had not ended when this
/// version was started: it was rolled back, and is not run again.
#[test]
fn a_newer_layout_is_read_by_its_core() {
    let desired =
        json!({"fwVersion": "2", "fwPackageURI": "https://host/2", "fwPackageCheckValue": "1234"});
    let key = Key::of("configuration", &desired);
    let directory = tempfile::tempdir().unwrap();
    let newer = json!({
        "format": 2, "core": {"last_key": key, "last_outcome": null, "attempts": 2, "slot": "B", "floor": "1.5", "more": 1},
        "update": ["another", "layout"], "saved": "yesterday",
    });
    let (mut journal, _) = Journal::open(directory.path()).unwrap();
    journal.save(newer.to_string().as_bytes()).unwrap();
    drop(journal);
    let contract = Contract::built_in("configuration").unwrap();
    let installer = FileInstall::new(directory.path().join("app.bin"));
    let updater = Updater::builder(directory.path(), contract, installer)
        .start()
        .unwrap();
    let twin = json!({"desired": {"$version": 9, "firmware": desired}, "reported": {}});
    updater.handle_twin(true, twin.to_string().as_bytes());
    updater.flush(Duration::from_secs(10)).unwrap();
    assert_eq!(updater.status().phase, None);
    drop(updater);
    let Loaded::Record(json) = Journal::open(directory.path()).unwrap().1 else {
        panic!("no record");
    };
    let record = Record::from_json(&json).unwrap();
    assert_eq!(record.core.last_key, Some(key));
    assert_eq!(record.core.last_outcome.as_deref(), Some("rolled-back"));
    assert_eq!(record.core.floor.as_deref(), Some("1.5"));
    assert_eq!(record.core.slot.as_deref(), Some("B"));
}

/// Writes the fixtures of this version: see the README beside them.
#[test]
#[ignore = "run once for each release"]
fn write() {
    let release = fixtures().join(env!("CARGO_PKG_VERSION"));
    assert!(!release.exists(), "{} is there", release.display());
    let place = Path::new("/tmp/twinflash-fixture");
    for state in ["downloading", "confirming", "failed"] {
        let _ = fs::remove_dir_all(place);
        fs::create_dir(place).unwrap();
        fs::write(place.join("app.bin"), "the old version").unwrap();
        reach(place, state);
        fs::create_dir_all(release.join(state)).unwrap();
        for file in ["journal.a", "journal.b"] {
            fs::copy(
                place.join("state").join(file),
                release.join(state).join(file),
            )
            .unwrap();
        }
        fs::remove_dir_all(place).unwrap();
    }
}

fn reach(place: &Path, state: &'static str) {
    let server = Server::http(move |reply: &mut Reply| match state {
        "downloading" => {
            reply.serve(&image(SIZE, 7), Some("\"1\""), HALF);
            reply.hang();
        }
        "failed" => reply.empty("404 Not Found", &[]),
        _ => reply.serve(&image(SIZE, 7), Some("\"1\""), usize::MAX),
    });
    let start = || {
        let mut policy = Policy::default();
        policy.allow_http = true;
        policy.answer_wait = Duration::ZERO;
        policy.confirm = Confirm::Call;
        let contract = Contract::built_in("iothub-dm").unwrap();
        let installer = FileInstall::new(place.join("app.bin")).restart(Restart::Exit);
        Updater::builder(place.join("state"), contract, installer)
            .current_version("1.0.0")
            .policy(policy)
            .on_restart(|_| Ok(()))
            .start()
            .unwrap()
    };
    let mut updater = start();
    let mut checks = Checks::new();
    checks.update(&image(SIZE, 7));
    let check = twinflash::update::Check::Sha256(checks.finish().sha256).to_string();
    let payload = json!({
        "fwPackageUri": server.url("/image?sig=secret"), "fwVersion": "1.0.1", "fwPackageCheckValue": check,
    });
    updater.handle_method("firmwareUpdate", payload.to_string().as_bytes());
    updater.connected(false);
    loop {
        let status = updater.status();
        match state {
            "downloading" if status.bytes == HALF as u64 => break,
            "failed" if status.outcome.is_some() => break,
            "confirming" if status.phase == Some(Phase::Rebooting) => {
                updater.flush(Duration::from_secs(10)).unwrap();
                drop(updater);
                updater = start();
            }
            "confirming" if status.phase == Some(Phase::Confirming) => break,
            _ => thread::sleep(Duration::from_millis(10)),
        }
    }
    updater.flush(Duration::from_secs(10)).unwrap();
    drop(updater);
}

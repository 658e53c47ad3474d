//! An update cancelled, asked about, paused and closed, with a real journal and over the network.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use serde_json::{Value, json};
use std::{
    fs,
    net::TcpListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use support::{
    disturbed::{At, Disturbed},
    pattern::image,
    server::{Reply, Server},
};
use twinflash::{
    contract::Contract,
    device::{Builder, Device, DeviceOptions, Updater},
    engine::{CANCEL_METHOD, Event, STATUS_METHOD},
    install::{FileInstall, Installer, Restart},
    journal::{Journal, Loaded},
    update::{Code, Confirm, Outcome, Phase, Policy, Record},
};

const SIZE: usize = 300_000;
/// So much comes before the server falls silent.
const HALF: usize = 150_000;

fn builder(dir: &Path, installer: impl Installer + 'static) -> Builder {
    let mut policy = Policy::default();
    policy.allow_http = true;
    policy.answer_wait = Duration::ZERO;
    policy.checkpoint_bytes = 10_000;
    policy.confirm = Confirm::None;
    let contract = Contract::built_in("iothub-dm").unwrap();
    Updater::builder(dir.join("state"), contract, installer).policy(policy)
}

fn start(dir: &Path) -> Updater {
    let installer = FileInstall::new(dir.join("app.bin"));
    builder(dir, installer).start().unwrap()
}

/// Sends a half of the image, and then nothing more.
fn silent() -> Server {
    Server::http(|reply: &mut Reply| {
        reply.serve(&image(SIZE, 7), Some("\"1\""), HALF);
        reply.hang();
    })
}

fn ask(updater: &Updater, uri: &str) {
    let check = {
        let crc = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);
        format!("{:x}", crc.checksum(&image(SIZE, 7)))
    };
    let payload = json!({"fwPackageUri": uri, "fwPackageCheckValue": check}).to_string();
    let answer = updater.handle_method("firmwareUpdate", payload.as_bytes());
    assert_eq!(answer.unwrap().status, 200);
    // Nobody is there to take a report: it is not waited for.
    updater.connected(false);
}

fn until(what: impl Fn() -> bool) {
    for _ in 0..2000 {
        if what() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("it never came");
}

fn call(updater: &Updater, name: &str) -> (u16, Value) {
    let answer = updater.handle_method(name, b"null").unwrap();
    updater.connected(false);
    (
        answer.status,
        serde_json::from_str(&answer.payload).unwrap(),
    )
}

/// The record as a start after a power cut at this moment would find it.
fn record(dir: &Path) -> Record {
    let copy = tempfile::tempdir().unwrap();
    for file in ["journal.a", "journal.b"] {
        let _ = fs::copy(dir.join("state").join(file), copy.path().join(file));
    }
    match Journal::open(copy.path()).unwrap().1 {
        Loaded::Record(json) => Record::from_json(&json).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cancel_is_durable_when_it_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let server = silent();
    let updater = start(dir.path());
    assert_eq!(
        call(&updater, CANCEL_METHOD),
        (200, json!({"cancelled": false}))
    );
    ask(&updater, &server.url("/image"));
    until(|| updater.status().bytes == HALF as u64);
    assert_eq!(
        call(&updater, CANCEL_METHOD),
        (200, json!({"cancelled": true}))
    );
    let outcome = record(dir.path()).update.unwrap().outcome;
    assert_eq!(outcome, Some(Outcome::Cancelled(Phase::Downloading)));
    // It is gone, and the next one can start.
    updater.wait(Duration::from_secs(10)).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    ask(&updater, &server.url("/image"));
    until(|| updater.status().bytes == HALF as u64);
    assert_eq!(updater.cancel(), Ok(true));
    updater.flush(Duration::from_secs(10)).unwrap();
    let outcome = record(dir.path()).update.unwrap().outcome;
    assert_eq!(outcome, Some(Outcome::Cancelled(Phase::Downloading)));
    assert_eq!(updater.cancel(), Ok(false));
}

/// The twin says `downloading` all the time; the status says what it waits for.
#[test]
fn the_status_tells_what_a_download_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}/image", nobody.local_addr().unwrap());
    drop(nobody);
    let updater = start(dir.path());
    ask(&updater, &uri);
    until(|| updater.status().retry.is_some());
    let (status, told) = call(&updater, STATUS_METHOD);
    assert_eq!((status, &told["phase"]), (200, &json!("downloading")));
    let retry = &told["retry"];
    assert_eq!(retry["code"], "network", "{told}");
    let message = retry["message"].as_str().unwrap();
    assert!(message.contains("/image"), "{message}");
    assert!(retry["attempts"].as_u64().unwrap() >= 1, "{told}");
    updater.pause();
    until(|| updater.status().paused);
    let (_, told) = call(&updater, STATUS_METHOD);
    assert_eq!(told["retry"]["afterSeconds"], Value::Null, "{told}");
}

/// A paused download stays where it is, over a restart too, and goes on from there.
#[test]
fn paused_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::http(|reply: &mut Reply| {
        let limit = if reply.number() == 0 {
            HALF
        } else {
            usize::MAX
        };
        reply.serve(&image(SIZE, 7), Some("\"1\""), limit);
        if limit == HALF {
            reply.hang();
        }
    });
    let updater = start(dir.path());
    ask(&updater, &server.url("/image"));
    until(|| updater.status().bytes == HALF as u64);
    updater.pause();
    updater.flush(Duration::from_secs(10)).unwrap();
    let paused = record(dir.path()).update.unwrap();
    assert!(paused.paused);
    assert_eq!(paused.checkpoint.unwrap().offset, HALF as u64);
    drop(updater);

    let updater = start(dir.path());
    let status = updater.status();
    assert_eq!((status.paused, status.bytes), (true, HALF as u64));
    assert_eq!(status.size, Some(SIZE as u64));
    assert_eq!(server.asked().len(), 1);
    updater.resume();
    let outcome = updater.wait(Duration::from_secs(20));
    assert_eq!(outcome, Some(Outcome::Completed));
    assert_eq!(server.asked()[1].range_start(), Some(HALF));
    assert_eq!(
        fs::read(dir.path().join("app.bin")).unwrap(),
        image(SIZE, 7)
    );
}

/// That the command which restarts was started is saved while it runs: it may be the end of this
/// process.
#[test]
fn a_restart_command_is_known_to_run_while_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::http(|reply: &mut Reply| {
        reply.serve(&image(SIZE, 7), Some("\"1\""), usize::MAX);
    });
    let journal = dir.path().join("state/journal.*").display().to_string();
    let script = format!("until grep -qa '\"restart_asked\":true' {journal}; do sleep 0.01; done");
    let restart = Restart::Command(vec!["sh".into(), "-c".into(), script]);
    let installer = FileInstall::new(dir.path().join("app.bin")).restart(restart);
    let updater = builder(dir.path(), installer).start().unwrap();
    ask(&updater, &server.url("/image"));
    let outcome = updater.wait(Duration::from_secs(20));
    assert_eq!(outcome, Some(Outcome::Completed));
}

/// The thread that tells of it sleeps by then, and nothing else wakes it.
#[test]
fn a_refusal_is_told_though_nothing_else_happens() {
    let dir = tempfile::tempdir().unwrap();
    let updater = start(dir.path());
    updater.connected(true);
    updater.handle_twin(true, br#"{"desired":{"$version":1},"reported":{}}"#);
    updater.flush(Duration::from_secs(20)).unwrap();
    thread::sleep(Duration::from_millis(100));
    let events = updater.events();
    let payload = br#"{"fwPackageUri":"ftp://host/image"}"#;
    let answer = updater.handle_method("firmwareUpdate", payload).unwrap();
    assert_eq!(answer.status, 400);
    let event = events.next_within(Duration::from_secs(20));
    assert!(matches!(event, Some(Event::Refused(_))), "{event:?}");
}

/// What it printed comes as warnings, one a line.
#[test]
fn a_restart_command_that_fails_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::http(|reply: &mut Reply| {
        reply.serve(&image(SIZE, 7), Some("\"1\""), usize::MAX);
    });
    let script = "echo 'no such unit'; echo 'try again' >&2; exit 5";
    let restart = Restart::Command(["sh", "-c", script].map(String::from).into());
    let installer = FileInstall::new(dir.path().join("app.bin")).restart(restart);
    let updater = builder(dir.path(), installer).start().unwrap();
    let events = updater.events();
    ask(&updater, &server.url("/image"));
    let mut expected = ["sh output: no such unit", "sh errors: try again"].iter();
    let mut next = expected.next();
    while let Some(line) = next {
        let event = events.next_within(Duration::from_secs(20));
        match event.unwrap_or_else(|| panic!("nothing says {line:?}")) {
            Event::Warning(text) if text == *line => next = expected.next(),
            _ => {}
        }
    }
}

/// A hub that says nothing to whoever connects.
fn mute_hub() -> (TcpListener, DeviceOptions) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connection = format!("HostName=localhost:{port};DeviceId=d;SharedAccessKey=c2VjcmV0");
    (listener, DeviceOptions::new(&connection).unwrap())
}

/// The hub and the firmware's server are silent: a device closes at once, and with a checkpoint.
#[test]
fn a_device_closes_whatever_the_network_does() {
    let dir = tempfile::tempdir().unwrap();
    let server = silent();
    let (hub, options) = mute_hub();
    let device = Device::connect(start(dir.path()), options).unwrap();
    let _held = hub.accept().unwrap();
    ask(device.updater(), &server.url("/image"));
    until(|| device.updater().status().bytes == HALF as u64);
    let before = Instant::now();
    device.close();
    assert!(before.elapsed() < Duration::from_secs(1));
    let checkpoint = record(dir.path()).update.unwrap().checkpoint.unwrap();
    assert_eq!(checkpoint.offset, HALF as u64);
    // The directory was given back.
    Journal::open(&dir.path().join("state")).unwrap();
}

/// Not even the disk holds it up.
#[test]
fn a_device_closes_whatever_the_disk_does() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::http(|reply: &mut Reply| {
        reply.serve(&image(SIZE, 7), Some("\"1\""), usize::MAX);
    });
    let (hub, options) = mute_hub();
    let stuck = Arc::new(AtomicBool::new(false));
    let (target, writes) = (dir.path().join("app.bin"), Arc::clone(&stuck));
    let installer = Disturbed::new(FileInstall::new(target), move |at| {
        if matches!(at, At::Write(offset) if offset > 0) {
            writes.store(true, Ordering::Relaxed);
            thread::sleep(Duration::from_secs(5));
        }
    });
    let updater = builder(dir.path(), installer).start().unwrap();
    let device = Device::connect(updater, options).unwrap();
    let _held = hub.accept().unwrap();
    ask(device.updater(), &server.url("/image"));
    until(|| stuck.load(Ordering::Relaxed));
    let before = Instant::now();
    device.close();
    drop(device);
    // Twice 0.9 s were 1.8 s.
    assert!(before.elapsed() < Duration::from_millis(1500));
    assert_eq!(
        Journal::open(&dir.path().join("state")).unwrap_err().code,
        Code::Locked
    );
}

//! The updater at its boundary: method in, twin out, a real file installed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/disturbed.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod disturbed;

use disturbed::{At, Disturbed};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    thread,
    time::Duration,
};
use twinflash::{
    contract::Contract,
    device::{Outbound, Updater, Wait},
    install::{
        CommandInstall, CommandOptions, FileInstall, Installer, Restart, Running, Slot,
        SlotsInstall, SlotsOptions, Switch,
    },
    twin,
    update::{Code, Outcome, Policy},
    windows::{Window, Windows},
};

/// Serves one image over plain HTTP, for ever.
fn serve(image: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: \"1\"\r\nConnection: close\r\n\r\n",
                image.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&image);
        }
    });
    format!("http://{address}/image.bin")
}

/// Serves an image with no validator: at first half of another one, then what is asked for.
fn serve_changing(image: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
            let from = request
                .split_once("range: bytes=")
                .map(|(_, rest)| rest.split_once('-').unwrap().0.parse::<usize>().unwrap());
            let total = image.len();
            let head = match from {
                None => format!("200 OK\r\nContent-Length: {total}"),
                Some(from) => format!(
                    "206 Partial Content\r\nContent-Range: bytes {from}-{}/{total}\r\nContent-Length: {}",
                    total - 1,
                    total - from
                ),
            };
            let _ = write!(stream, "HTTP/1.1 {head}\r\nConnection: close\r\n\r\n");
            let _ = match number {
                0 => stream.write_all(&vec![b'?'; total / 2]),
                _ => stream.write_all(&image[from.unwrap_or_default()..]),
            };
        }
    });
    format!("http://{address}/image.bin")
}

/// A back end's view: the reported properties, with every status in the order it came.
fn pump(updater: &Updater, reported: &mut Value, path: &str, seen: &mut Vec<String>) {
    while let Some(outbound) = updater.next_outbound(Duration::from_millis(300)) {
        match outbound {
            Outbound::ReadTwin => {
                let twin = json!({"desired": {"$version": 1}, "reported": reported});
                updater.handle_twin(true, twin.to_string().as_bytes());
            }
            Outbound::Report(report) => {
                let patch: Value = serde_json::from_str(&report.patch).unwrap();
                twin::merge(reported, &patch);
                updater.report_done(report.id, 204);
                let status = twinflash::contract::at_path(reported, path).unwrap();
                let status = status.as_str().unwrap().to_owned();
                if seen.last() != Some(&status) {
                    seen.push(status);
                }
            }
        }
    }
}

fn start(dir: &Path) -> Updater {
    start_with(dir, FileInstall::new(dir.join("app.bin")))
}

fn start_with(dir: &Path, installer: impl Installer + 'static) -> Updater {
    let mut policy = Policy::default();
    policy.allow_http = true;
    let contract = Contract::built_in("iothub-dm").unwrap();
    Updater::builder(dir.join("state"), contract, installer)
        .current_version("1.0.0")
        .policy(policy)
        .start()
        .unwrap()
}

/// Runs an update to its end; with every status the twin has shown.
fn update(updater: &Updater, uri: &str, check: &str) -> (Outcome, Vec<String>) {
    let payload = json!({"fwPackageUri": uri, "fwPackageCheckValue": check}).to_string();
    let answered = |answer: twinflash::device::Answer| assert_eq!(answer.status, 200);
    assert!(updater.handle_method_then("firmwareUpdate", payload.as_bytes(), answered));
    let (mut reported, mut seen) = (json!({}), Vec::new());
    updater.connected(true);
    for _ in 0..100 {
        pump(
            updater,
            &mut reported,
            "iothubDM.firmwareUpdate.status",
            &mut seen,
        );
        if let Some(outcome) = updater.status().outcome {
            return (outcome, seen);
        }
    }
    panic!("no end of {seen:?}");
}

#[test]
fn from_a_method_to_an_installed_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("app.bin"), b"old").unwrap();
    let image: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let uri = serve(image.clone());
    let updater = std::sync::Arc::new(start(dir.path()));
    let mut reported = json!({});
    let mut seen = Vec::new();
    let path = "iothubDM.firmwareUpdate.status";
    updater.connected(true);
    pump(&updater, &mut reported, path, &mut seen);
    assert_eq!(reported["iothubDM"]["firmwareVersion"], "1.0.0");

    let crc = {
        let crc = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);
        format!("{:x}", crc.checksum(&image))
    };
    let payload = json!({"fwPackageUri": uri, "fwPackageCheckValue": crc}).to_string();
    let caller = {
        let updater = std::sync::Arc::clone(&updater);
        let payload = payload.clone();
        thread::spawn(move || {
            updater
                .handle_method("firmwareUpdate", payload.as_bytes())
                .unwrap()
        })
    };
    pump(&updater, &mut reported, path, &mut seen);
    let answer = caller.join().unwrap();
    assert_eq!(answer.payload, "\"FirmwareUpdate started.\"");
    assert_eq!(answer.status, 200);
    pump(&updater, &mut reported, path, &mut seen);
    assert_eq!(
        updater.wait(Duration::from_secs(10)),
        Some(Outcome::Completed)
    );
    assert_eq!(
        seen,
        [
            "waiting",
            "downloading",
            "downloadComplete",
            "applying",
            "applyComplete"
        ]
    );
    assert_eq!(std::fs::read(dir.path().join("app.bin")).unwrap(), image);
    let update = &reported["iothubDM"]["firmwareUpdate"];
    for time in [
        "startedWaitingTime",
        "downloadCompleteTime",
        "lastFirmwareUpdate",
    ] {
        assert!(update[time].as_str().unwrap().ends_with('Z'), "{update}");
    }

    // A wrong check: failed, and the file stays.
    let bad = json!({"fwPackageUri": uri, "fwPackageCheckValue": "0001"}).to_string();
    assert!(
        updater.handle_method_then("firmwareUpdate", bad.as_bytes(), |answer| {
            assert_eq!(answer.status, 200);
        })
    );
    pump(&updater, &mut reported, path, &mut seen);
    let outcome = updater.wait(Duration::from_secs(10)).unwrap();
    pump(&updater, &mut reported, path, &mut seen);
    assert_eq!(seen.last().unwrap(), "downloadFailed", "{outcome}");
    assert_eq!(
        reported["iothubDM"]["firmwareUpdate"]["error"]["code"],
        "crc-mismatch"
    );
    assert_eq!(std::fs::read(dir.path().join("app.bin")).unwrap(), image);
}

fn sha256_of(image: &[u8]) -> String {
    let mut checks = twinflash::update::Checks::new();
    checks.update(image);
    twinflash::update::Check::Sha256(checks.finish().sha256).to_string()
}

#[test]
fn a_resume_with_no_validator_that_mixed_two_images_starts_from_zero() {
    let dir = tempfile::tempdir().unwrap();
    let image: Vec<u8> = (0..300_000_u32).map(|n| (n % 249) as u8).collect();
    let uri = serve_changing(image.clone());
    let updater = start(dir.path());
    let (outcome, _) = update(&updater, &uri, &sha256_of(&image));
    assert_eq!(outcome, Outcome::Completed);
    assert_eq!(std::fs::read(dir.path().join("app.bin")).unwrap(), image);
}

/// Two slots, of which a link's is used; read back before they are.
fn slots(dir: &Path) -> SlotsInstall {
    let link = dir.join("current");
    if !link.exists() {
        std::fs::write(dir.join("a.img"), b"old").unwrap();
        std::os::unix::fs::symlink("a.img", &link).unwrap();
    }
    let slots = ["a", "b"].map(|name| Slot::new(name, dir.join(format!("{name}.img"))));
    let mut options = SlotsOptions::new(slots, Switch::Link(link.clone()));
    options.running = Running::Link(link);
    options.restart = Restart::None;
    options.read_back = true;
    SlotsInstall::new(dir.join("state"), options).unwrap()
}

#[test]
fn into_one_slot_and_then_into_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let updater = start_with(dir.path(), slots(dir.path()));
    let current = dir.path().join("current");
    for (number, name) in [(1, "b.img"), (2, "a.img")] {
        let image = vec![number; 3_000_000];
        let crc = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM).checksum(&image);
        let (outcome, seen) = update(&updater, &serve(image.clone()), &format!("{crc:x}"));
        assert_eq!(outcome, Outcome::Completed, "{seen:?}");
        assert_eq!(std::fs::read_link(&current).unwrap(), Path::new(name));
        assert_eq!(std::fs::read(&current).unwrap(), image);
    }
}

#[test]
fn a_slot_that_does_not_hold_what_was_written_is_not_activated() {
    let dir = tempfile::tempdir().unwrap();
    let slot = dir.path().join("b.img");
    // A medium that keeps something else than was written to it.
    let worn = Disturbed::new(slots(dir.path()), move |at| {
        if at == At::Finish {
            let slot = std::fs::OpenOptions::new().write(true).open(&slot);
            slot.unwrap().write_all(b"?").unwrap();
        }
    });
    let updater = start_with(dir.path(), worn);
    let image = vec![7; 100_000];
    let crc = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM).checksum(&image);
    let (outcome, seen) = update(&updater, &serve(image), &format!("{crc:x}"));
    let failure = outcome.failure().unwrap();
    assert_eq!(failure.code, Code::Storage, "{failure}");
    assert!(failure.message.contains("slot b"), "{failure}");
    assert_eq!(seen.last().unwrap(), "applyFailed");
    assert_eq!(std::fs::read(dir.path().join("current")).unwrap(), b"old");
}

#[test]
fn handed_to_a_command() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("installed").display().to_string();
    let options = CommandOptions::new(["cp", "{image}", &target]);
    let updater = start_with(
        dir.path(),
        CommandInstall::new(dir.path().join("state"), options),
    );
    let image = vec![9; 200_000];
    let crc = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM).checksum(&image);
    let uri = serve(image.clone());
    let (outcome, _) = update(&updater, &uri, &format!("{crc:x}"));
    assert_eq!(outcome, Outcome::Completed);
    assert_eq!(std::fs::read(&target).unwrap(), image);
    drop(updater);

    let options = CommandOptions::new(["sh", "-c", "echo a secret; exit 5"]);
    let updater = start_with(
        dir.path(),
        CommandInstall::new(dir.path().join("state"), options),
    );
    let (outcome, _) = update(&updater, &uri, &format!("{crc:x}"));
    let failure = outcome.failure().unwrap();
    assert_eq!(failure.code, Code::InstallFailed);
    assert_eq!(failure.message, "sh ended with exit status: 5");
}

/// A callback that panics ends the updater; nobody waits for ever for an answer.
#[test]
fn after_a_panic_in_a_callback_methods_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let contract = Contract::built_in("iothub-dm").unwrap();
    let installer = FileInstall::new(dir.path().join("app.bin"));
    let updater = Updater::builder(dir.path().join("state"), contract, installer)
        .on_event(|_| panic!("a callback's"))
        .start()
        .unwrap();
    let events = updater.events();
    assert!(updater.handle_method("firmwareUpdate", b"{}").is_some());
    // They end when the updater has ended.
    assert_eq!(events.count(), 0);
    for payload in [&b"{}"[..], br#"{"fwPackageUri":"https://host/new"}"#] {
        let (send, answer) = std::sync::mpsc::channel();
        let then = move |answer: twinflash::device::Answer| send.send(answer.status).unwrap();
        assert!(updater.handle_method_then("firmwareUpdate", payload, then));
        assert_eq!(answer.recv_timeout(Duration::from_secs(5)), Ok(503));
    }
}

/// What was installed last is not fetched again, if it still is there.
#[test]
fn what_is_installed_already_is_looked_at_before_it_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("app.bin");
    let image: Vec<u8> = (0..200_000_u32).map(|n| (n % 247) as u8).collect();
    let (uri, sha256) = (serve(image.clone()), sha256_of(&image));
    let updater = start(dir.path());
    let update = |uri: &str| update(&updater, uri, &sha256).0;
    assert_eq!(update(&uri), Outcome::Completed);
    // Nobody listens there: it was not fetched.
    assert_eq!(update("http://127.0.0.1:9/image.bin"), Outcome::Completed);
    std::fs::write(&target, b"something else").unwrap();
    assert_eq!(update(&uri), Outcome::Completed);
    assert_eq!(std::fs::read(&target).unwrap(), image);
}

/// The thread that would tell the updater that the clock was set.
#[cfg(target_os = "linux")]
fn watches() -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    threads.flatten().any(|thread| {
        let name = std::fs::read_to_string(thread.path().join("comm"));
        name.is_ok_and(|name| name.trim() == "twinflash-clock")
    })
}

#[cfg(target_os = "linux")]
#[test]
fn who_waits_for_a_window_hears_of_a_clock_that_is_set() {
    use std::time::{SystemTime, UNIX_EPOCH};
    let until = |what: &dyn Fn() -> bool| {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !what() {
            assert!(std::time::Instant::now() < deadline);
            thread::sleep(Duration::from_millis(5));
        }
    };
    // Opens in twelve hours, for a minute.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let minute = (now / 60 + 12 * 60) % (24 * 60);
    let time = |minute: u64| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    let window = Window::new::<&str>(&[], &time(minute), &time(minute + 1), "UTC").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let installer = FileInstall::new(directory.path().join("app.bin"));
    let contract = Contract::built_in("iothub-dm").unwrap();
    let updater = Updater::builder(directory.path().join("state"), contract, installer)
        .windows(Windows {
            download: vec![window],
            apply: Vec::new(),
        })
        .start()
        .unwrap();
    assert!(!watches());
    let payload = br#"{"fwPackageUri":"https://example.com/app.bin","fwVersion":"2"}"#;
    assert!(updater.handle_method_then("firmwareUpdate", payload, |_| {}));
    until(&watches);
    assert_eq!(
        updater.status().waiting.map(|waiting| waiting.on),
        Some(Wait::Window)
    );
    updater.close();
    until(&|| !watches());
}

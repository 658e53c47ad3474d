//! Images that the application brings. One thread does everything, as in a program with one loop, and the
//! updater is never waited for but where a test says so.
#![cfg(feature = "std")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[cfg(feature = "encryption")]
#[path = "support/signer.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod signer;

use serde_json::json;
use std::{
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
#[cfg(unix)]
use twinflash::config::Config;
#[cfg(any(feature = "ring", feature = "rustcrypto"))]
use twinflash::update::trust::{Identity, KeySet, Trust};
use twinflash::{
    contract::Contract,
    device::{Builder, Event, NotTaken, Response, Updater, Wanted},
    install::{FileInstall, ImageInfo, ImageState, Installer},
    update::{
        Code, Confirm, Failure, Outcome, Policy, Retry,
        trust::{Algorithm, PublicKey},
    },
};

const URI: &str = "https://example.com/app.bin?sig=topsecret";
const LONG: Duration = Duration::from_secs(10);

fn image() -> Vec<u8> {
    (0..1_000_003_u32).map(|n| (n % 251) as u8).collect()
}

fn sha256() -> String {
    let mut checks = twinflash::update::Checks::new();
    checks.update(&image());
    twinflash::update::Check::Sha256(checks.finish().sha256).to_string()
}

fn policy() -> Policy {
    let mut policy = Policy::default();
    policy.retry.first = Duration::from_millis(10);
    policy.confirm = Confirm::None;
    policy.answer_wait = Duration::ZERO;
    policy
}

fn builder(directory: &Path, installer: impl Installer + 'static) -> Builder {
    let contract = Contract::built_in("iothub-dm").unwrap();
    Updater::builder(directory.join("state"), contract, installer)
        .current_version("1.0.0")
        .policy(policy())
        .offered()
}

struct Desk {
    directory: tempfile::TempDir,
    updater: Updater,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let installer = FileInstall::new(directory.path().join("app.bin"));
        let updater = builder(directory.path(), installer).start().unwrap();
        Self { directory, updater }
    }

    fn ask(&self) -> Wanted {
        self.ask_with(json!({"fwPackageUri": URI, "fwPackageCheckValue": sha256()}))
    }

    fn ask_with(&self, payload: serde_json::Value) -> Wanted {
        let payload = payload.to_string();
        let taken = |answer: twinflash::device::Answer| assert_eq!(answer.status, 200);
        let updater = &self.updater;
        assert!(updater.handle_method_then("firmwareUpdate", payload.as_bytes(), taken));
        // There is no hub that could be told: nothing waits for that.
        updater.connected(false);
        updater.next_wanted(LONG).expect("a download begins")
    }

    /// Offers these bytes as a loop does that has other things to do.
    fn feed(&self, id: u64, mut at: u64, mut bytes: &[u8]) -> Result<(), NotTaken> {
        while !bytes.is_empty() {
            let chunk = &bytes[..bytes.len().min(10_007)];
            let taken = self.updater.offer(id, at, chunk, Duration::ZERO)?;
            if taken == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            at += taken as u64;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    fn installed(&self) -> Vec<u8> {
        std::fs::read(self.directory.path().join("app.bin")).unwrap_or_default()
    }

    fn end(&self) -> Outcome {
        let deadline = Instant::now() + LONG;
        while Instant::now() < deadline {
            if let Some(outcome) = self.updater.wait(Duration::from_millis(20)) {
                return outcome;
            }
        }
        panic!("no end");
    }

    fn failure(&self) -> Failure {
        let end = self.end();
        end.failure().cloned().unwrap_or_else(|| panic!("{end}"))
    }
}

fn whole() -> Response {
    Response::new(200)
        .total(image().len() as u64)
        .validator("\"1\"")
}

#[test]
fn an_image_from_one_loop() {
    let desk = Desk::new();
    let events = desk.updater.events();
    assert_eq!(desk.updater.wanted(), None);
    let wanted = desk.ask();
    assert_eq!(
        (wanted.uri.as_str(), wanted.offset, wanted.manifest),
        (URI, 0, false)
    );
    assert!(wanted.https_only && wanted.max_redirects > 0 && wanted.validator.is_none());
    assert!(!format!("{wanted:?}").contains("topsecret"));
    assert_eq!(desk.updater.wanted(), Some(wanted.clone()));
    desk.updater.offer_response(wanted.id, whole()).unwrap();
    desk.feed(wanted.id, 0, &image()).unwrap();
    assert_eq!(desk.end(), Outcome::Completed);
    assert_eq!(desk.installed(), image());
    assert_eq!(desk.updater.wanted(), None);
    let mut told = Vec::new();
    while let Some(event) = events.next_within(Duration::from_millis(100)) {
        told.push(event);
    }
    assert_eq!(
        told.iter().filter(|event| **event == Event::Wanted).count(),
        2
    );
}

#[test]
fn what_breaks_goes_on_where_it_broke() {
    let desk = Desk::new();
    let (image, wanted) = (image(), desk.ask());
    desk.updater.offer_response(wanted.id, whole()).unwrap();
    desk.feed(wanted.id, 0, &image[..400_000]).unwrap();
    let why = format!("no route to {URI}, that is to sig=topsecret");
    desk.updater
        .offer_failed(wanted.id, Code::Network, &why, Retry::Resume(None));
    let rest = desk.updater.next_wanted(LONG).unwrap();
    assert_eq!(
        (rest.offset, rest.validator.as_deref()),
        (400_000, Some("\"1\""))
    );
    let retrying = desk.updater.status().retry.unwrap().failure.message;
    assert!(
        retrying.contains("no route to https://example.com/app.bin"),
        "{retrying}"
    );
    assert!(!retrying.contains("topsecret"), "{retrying}");
    // The old wish is no more.
    let stale = desk.updater.offer(wanted.id, 400_000, b"x", Duration::ZERO);
    assert_eq!(stale, Err(NotTaken::NotWanted));
    let answer = Response::new(206)
        .offset(400_000)
        .total(image.len() as u64)
        .validator("\"1\"");
    desk.updater.offer_response(rest.id, answer).unwrap();
    desk.feed(rest.id, 400_000, &image[400_000..]).unwrap();
    assert_eq!(desk.end(), Outcome::Completed);
    assert_eq!(desk.installed(), image);
}

#[test]
fn another_image_at_the_server_starts_from_zero() {
    let desk = Desk::new();
    let (image, wanted) = (image(), desk.ask());
    desk.updater.offer_response(wanted.id, whole()).unwrap();
    desk.feed(wanted.id, 0, &image[..400_000]).unwrap();
    desk.updater
        .offer_failed(wanted.id, Code::Network, "gone", Retry::Resume(None));
    let rest = desk.updater.next_wanted(LONG).unwrap();
    let other = Response::new(206)
        .offset(400_000)
        .total(image.len() as u64)
        .validator("\"2\"");
    desk.updater.offer_response(rest.id, other).unwrap();
    let again = desk.updater.next_wanted(LONG).unwrap();
    assert_eq!((again.offset, again.validator), (0, None));
    desk.updater.offer_response(again.id, whole()).unwrap();
    desk.feed(again.id, 0, &image).unwrap();
    assert_eq!(desk.end(), Outcome::Completed);
    assert_eq!(desk.installed(), image);
}

#[test]
fn a_server_that_answers_too_little_of_a_body_or_none() {
    // No size, an end too early: the request's check judges.
    let desk = Desk::new();
    let wanted = desk.ask();
    desk.updater
        .offer_response(wanted.id, Response::new(200))
        .unwrap();
    desk.feed(wanted.id, 0, b"short").unwrap();
    desk.updater.offer_end(wanted.id);
    assert_eq!(desk.failure().code, Code::HashMismatch);

    let desk = Desk::new();
    let wanted = desk.ask();
    desk.updater
        .offer_response(wanted.id, Response::new(404))
        .unwrap();
    let failure = desk.failure();
    assert_eq!(failure.code, Code::HttpStatus);
    assert!(
        failure
            .message
            .ends_with("app.bin: the server answered 404"),
        "{failure}"
    );

    // Busy, with a wait; then nothing at all; then everything.
    let desk = Desk::new();
    let wanted = desk.ask();
    let busy = Response::new(503).retry_after(Duration::from_millis(300));
    let before = Instant::now();
    desk.updater.offer_response(wanted.id, busy).unwrap();
    let wanted = desk.updater.next_wanted(LONG).unwrap();
    assert!(before.elapsed() >= Duration::from_millis(300));
    desk.updater.offer_end(wanted.id);
    let wanted = desk.updater.next_wanted(LONG).unwrap();
    let retrying = desk.updater.status().retry.unwrap().failure;
    assert!(retrying.message.contains("before an answer"), "{retrying}");
    desk.updater.offer_response(wanted.id, whole()).unwrap();
    desk.feed(wanted.id, 0, &image()).unwrap();
    assert_eq!(desk.end(), Outcome::Completed);
}

#[test]
fn more_or_other_than_was_announced() {
    let desk = Desk::new();
    let wanted = desk.ask();
    desk.updater
        .offer_response(wanted.id, Response::new(200).total(10))
        .unwrap();
    // What comes with one offer is the attempt's to judge.
    let _ = desk
        .updater
        .offer(wanted.id, 0, b"more than ten bytes", Duration::ZERO);
    assert_eq!(desk.failure().code, Code::TooLarge);

    let desk = Desk::new();
    let wanted = desk.ask_with(json!({"fwPackageUri": URI, "fwSize": 5}));
    desk.updater
        .offer_response(wanted.id, Response::new(200).total(10))
        .unwrap();
    assert_eq!(desk.failure().code, Code::SizeMismatch);
    let late = desk.updater.offer(wanted.id, 0, b"late", Duration::ZERO);
    assert_eq!(late, Err(NotTaken::NotWanted));
}

#[test]
fn mistakes_are_named_and_change_nothing() {
    let desk = Desk::new();
    let (image, wanted) = (image(), desk.ask());
    let offer = |id, at, bytes: &[u8]| desk.updater.offer(id, at, bytes, Duration::ZERO);
    assert_eq!(offer(wanted.id, 0, b"x"), Err(NotTaken::NoResponse));
    assert_eq!(offer(wanted.id + 1, 0, b"x"), Err(NotTaken::NotWanted));
    let other = desk.updater.offer_response(wanted.id + 1, whole());
    assert_eq!(other, Err(NotTaken::NotWanted));
    desk.updater.offer_response(wanted.id, whole()).unwrap();
    let twice = desk.updater.offer_response(wanted.id, whole());
    assert_eq!(twice, Err(NotTaken::NotWanted));
    assert_eq!(offer(wanted.id, 0, b""), Ok(0));
    desk.feed(wanted.id, 0, &image[..100]).unwrap();
    for at in [0, 99, 101, u64::MAX] {
        let misplaced = offer(wanted.id, at, b"x");
        assert_eq!(misplaced, Err(NotTaken::OutOfPlace { next: 100 }));
    }
    desk.updater.offer_end(wanted.id + 1);
    desk.updater
        .offer_failed(wanted.id + 1, Code::Network, "", Retry::Never);
    desk.feed(wanted.id, 100, &image[100..]).unwrap();
    assert_eq!(desk.end(), Outcome::Completed);
    assert_eq!(desk.installed(), image);
}

#[test]
fn cancelled_and_closed_nothing_is_wanted() {
    let desk = Desk::new();
    let wanted = desk.ask();
    desk.updater.offer_response(wanted.id, whole()).unwrap();
    desk.feed(wanted.id, 0, &image()[..1000]).unwrap();
    assert!(desk.updater.cancel().unwrap());
    desk.updater.flush(LONG).unwrap();
    assert!(matches!(desk.end(), Outcome::Cancelled(_)));
    assert_eq!(desk.updater.wanted(), None);
    let wanted = desk.ask();
    desk.updater.offer_response(wanted.id, whole()).unwrap();
    desk.updater.close();
    let late = desk.updater.offer(wanted.id, 0, b"x", LONG);
    assert_eq!(late, Err(NotTaken::NotWanted));
    assert_eq!(desk.updater.next_wanted(LONG), None);
}

#[test]
fn silence_is_a_stall() {
    let directory = tempfile::tempdir().unwrap();
    let mut policy = policy();
    policy.stall_time = Duration::from_millis(200);
    let installer = FileInstall::new(directory.path().join("app.bin"));
    let updater = builder(directory.path(), installer)
        .policy(policy)
        .start()
        .unwrap();
    let desk = Desk { directory, updater };
    let first = desk.ask();
    let second = desk.updater.next_wanted(LONG).unwrap();
    assert!(second.id > first.id);
    assert_eq!(
        desk.updater.status().retry.unwrap().failure.code,
        Code::Stalled
    );
}

/// Writes when it is told that it may.
#[derive(Debug)]
struct Slow(mpsc::Receiver<()>);

impl Installer for Slow {
    fn inspect(&mut self) -> Result<ImageState, Failure> {
        Ok(ImageState::Old)
    }
    fn begin(&mut self, _: &ImageInfo, _: u64) -> Result<u64, Failure> {
        Ok(0)
    }
    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Failure> {
        let _ = self.0.recv();
        Ok(())
    }
    fn sync(&mut self) -> Result<u64, Failure> {
        Ok(0)
    }
    fn finish(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn activate(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn confirm(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn rollback(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn abort(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

#[test]
fn a_slow_disk_holds_the_application_up_but_never_long() {
    let directory = tempfile::tempdir().unwrap();
    let (go_on, wait) = mpsc::channel();
    let updater = builder(directory.path(), Slow(wait)).start().unwrap();
    let desk = Desk { directory, updater };
    let (image, wanted) = (image(), desk.ask());
    desk.updater.offer_response(wanted.id, whole()).unwrap();
    let mut at = 0;
    let mut quiet = 0;
    while quiet < 20 {
        let bytes = &image[at..];
        let before = Instant::now();
        let taken = desk
            .updater
            .offer(wanted.id, at as u64, bytes, Duration::ZERO)
            .unwrap();
        assert!(before.elapsed() < Duration::from_secs(1));
        at += taken;
        quiet = if taken == 0 { quiet + 1 } else { 0 };
        thread::sleep(Duration::from_millis(2));
    }
    // Four buffers of 64 KiB: one of them is being written.
    assert_eq!(at, 4 * 64 * 1024);
    let before = Instant::now();
    let waited = Duration::from_millis(100);
    let bytes = &image[at..];
    assert_eq!(
        desk.updater.offer(wanted.id, at as u64, bytes, waited),
        Ok(0)
    );
    assert!(before.elapsed() >= waited);
    go_on.send(()).unwrap();
    let taken = desk
        .updater
        .offer(wanted.id, at as u64, bytes, LONG)
        .unwrap();
    assert_eq!(taken, 64 * 1024);
    drop(go_on);
}

#[cfg(any(feature = "ring", feature = "rustcrypto"))]
#[test]
fn a_manifest_is_wanted_like_an_image() {
    let directory = tempfile::tempdir().unwrap();
    let key = PublicKey::from_bytes(Algorithm::EdDsa, &[1; 32]).unwrap();
    let keys = KeySet::new(1, 1, vec![key], Vec::new()).unwrap();
    let installer = FileInstall::new(directory.path().join("app.bin"));
    let updater = builder(directory.path(), installer)
        .trust(Trust::new(keys, Identity::default()))
        .start()
        .unwrap();
    let desk = Desk { directory, updater };
    let wanted = desk.ask();
    assert!(wanted.manifest);
    assert_eq!(wanted.uri, "https://example.com/app.bin.jws?sig=topsecret");
    desk.updater
        .offer_response(wanted.id, Response::new(200))
        .unwrap();
    desk.feed(wanted.id, 0, b"not signed").unwrap();
    desk.updater.offer_end(wanted.id);
    assert_eq!(desk.failure().code, Code::ManifestInvalid);
}

/// What is left out of a build is not passed over in silence.
#[cfg(unix)]
#[test]
fn what_is_not_built_in_is_refused() {
    let key = PublicKey::from_bytes(Algorithm::EdDsa, &[1; 32]).unwrap();
    let rsa = [
        &b"\x30\x82\x01\x0a\x02\x82\x01\x01\x00"[..],
        &[0xb5; 256],
        b"\x02\x03\x01\x00\x01",
    ]
    .concat();
    let rsa = PublicKey::from_bytes(Algorithm::Rs256, &rsa).unwrap();
    let window = json!({"from": "02:00", "to": "04:00"});
    let signatures = cfg!(any(feature = "ring", feature = "rustcrypto"));
    for (built_in, table, named) in [
        (
            signatures,
            json!({"trust": {"keys": [key.to_pem()]}}),
            "trust.keys: this program was built without support for signatures",
        ),
        (
            cfg!(feature = "ring"),
            json!({"trust": {"keys": [rsa.to_pem()]}}),
            match signatures {
                true => {
                    "trust.keys: 1 keys must sign, but there are only 0 that are not revoked and not of RSA"
                }
                false => "trust.keys: this program was built without support for signatures",
            },
        ),
        (
            // One of them is enough.
            signatures,
            json!({"trust": {"keys": [rsa.to_pem(), key.to_pem()]}}),
            "trust.keys: this program was built without support for signatures",
        ),
        (
            cfg!(feature = "windows"),
            json!({"policy": {"apply_windows": [window]}}),
            "policy.apply_windows[0]: this program was built without maintenance windows",
        ),
    ] {
        let mut config = table.clone();
        config["state_dir"] = "state".into();
        config["install"] = json!({"file": "app.bin", "restart": "none"});
        let config = Config::from_json(config.to_string().as_bytes()).unwrap();
        match (config.builder(), built_in) {
            (Ok(_), true) => {}
            (Err(failure), false) => assert!(failure.message.contains(named), "{failure}"),
            (got, _) => panic!("{table}: {:?}", got.map(drop)),
        }
    }
}

/// The application brings the file as it is served; after a break from the chunk that was not whole.
#[cfg(feature = "encryption")]
#[test]
fn an_image_that_is_encrypted() {
    use std::io::Write;
    use twinflash::age::{self, Encryptor, Identities};
    let owner = signer::Signer::ed25519(1);
    let keys = signer::key_set(1, 1, &[&owner]);
    let sha256 = sha256().replace("sha256:", "");
    let claims = json!({"version": "2.0.0", "size": image().len(), "sha256": sha256, "encryption": "age", "iat": 0, "exp": u32::MAX});
    let payload = json!({"fwPackageUri": URI, "fwManifest": owner.manifest(&claims)});
    let encrypted = |to: &age::Identity| {
        let mut encryptor = Encryptor::new(&[to.recipient()], Vec::new()).unwrap();
        encryptor.write_all(&image()).unwrap();
        encryptor.finish().unwrap()
    };
    let ours = age::Identity::generate().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let installer = FileInstall::new(directory.path().join("app.bin"));
    let updater = builder(directory.path(), installer)
        .trust(Trust::new(keys, Identity::default()))
        .decryption(Identities::from(ours.clone()))
        .start()
        .unwrap();
    let desk = Desk { directory, updater };
    let answer = |file: &[u8]| {
        let answer = Response::new(200).total(file.len() as u64);
        answer.validator("\"1\"")
    };

    let file = encrypted(&age::Identity::generate().unwrap());
    let wanted = desk.ask_with(payload.clone());
    desk.updater
        .offer_response(wanted.id, answer(&file))
        .unwrap();
    // It may be refused before all of it was taken.
    let _ = desk.feed(wanted.id, 0, &file);
    assert_eq!(desk.failure().code, Code::DecryptionFailed);
    assert!(!desk.directory.path().join("app.bin").exists());

    let file = encrypted(&ours);
    let wanted = desk.ask_with(payload);
    assert_eq!((wanted.offset, wanted.manifest), (0, false));
    desk.updater
        .offer_response(wanted.id, answer(&file))
        .unwrap();
    desk.feed(wanted.id, 0, &file[..400_000]).unwrap();
    desk.updater
        .offer_failed(wanted.id, Code::Network, "gone", Retry::Resume(None));
    let rest = desk.updater.next_wanted(LONG).unwrap();
    let (chunk, header) = (64 * 1024 + 16, file.len() - image().len() - 16 * 16);
    assert_eq!(rest.offset as usize, header + 400_000 / chunk * chunk);
    let answer = Response::new(206).offset(rest.offset);
    let answer = answer.total(file.len() as u64).validator("\"1\"");
    desk.updater.offer_response(rest.id, answer).unwrap();
    desk.feed(rest.id, rest.offset, &file[rest.offset as usize..])
        .unwrap();
    assert_eq!(desk.end(), Outcome::Completed);
    assert_eq!(desk.installed(), image());
}

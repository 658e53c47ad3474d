//! Only what the owner signed: attacks on signed updates, seen from outside. Method or twin in, twin and
//! file out, with a real server, journal and file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, SystemTime},
};
use support::{
    pattern::image,
    server::{Reply, Server},
    signer::{Signer, key_set, signed},
};
use tempfile::TempDir;
use twinflash::{
    contract::{Contract, at_path},
    device::{Outbound, Updater},
    engine::{Config, Engine, Event, Input, Now, Output, Step, Stored, Verified},
    install::FileInstall,
    twin,
    update::{
        Checks, Confirm, Ended, ImageState, Outcome, Policy, Record, Restart,
        trust::{Identity, KeySet, Kind, Trust},
    },
};

const SIZE: usize = 200_000;
const MODEL: &str = "Toaster";

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// What a manifest says of an image.
fn claims(version: &str, image: &[u8]) -> Value {
    json!({
        "version": version,
        "size": image.len(),
        "sha256": data_encoding::HEXLOWER.encode(&Sha256::digest(image)),
        "compatibility": {"model": MODEL},
        "iat": now() - 60,
        "exp": now() + 3600,
    })
}

/// What a server does with the request for one path.
type Served = Arc<dyn Fn(&mut Reply) + Send + Sync>;

/// A device, the server its images come from, and the keys of its owner.
struct Desk {
    dir: TempDir,
    server: Server,
    files: Arc<Mutex<HashMap<String, Served>>>,
    owner: Signer,
    trust: Option<Trust>,
    contract: &'static str,
    policy: Policy,
    updater: Option<Updater>,
    events: Option<twinflash::device::Events>,
    reported: Value,
}

/// How an update ended.
#[derive(Debug)]
struct End {
    outcome: Outcome,
    /// The failure's code in the twin.
    code: Option<String>,
    message: String,
}

impl Desk {
    fn new() -> Self {
        let owner = Signer::ed25519(1);
        let keys = key_set(1, 1, &[&owner]);
        Self::trusting(owner, keys)
    }

    fn trusting(owner: Signer, keys: KeySet) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("app.bin"), b"old").unwrap();
        let files: Arc<Mutex<HashMap<String, Served>>> = Arc::default();
        let served = Arc::clone(&files);
        let server = Server::http(move |reply| {
            let path = reply.asked.path.split('?').next().unwrap().to_owned();
            let file = served.lock().unwrap().get(&path).cloned();
            match file {
                Some(file) => file(reply),
                None => reply.empty("404 Not Found", &[]),
            }
        });
        let mut policy = Policy::default();
        policy.allow_http = true;
        policy.answer_wait = Duration::ZERO;
        policy.confirm = Confirm::None;
        policy.checkpoint_bytes = 10_000;
        let mut desk = Self {
            dir,
            server,
            files,
            owner,
            trust: Some(trust(keys)),
            contract: "iothub-dm",
            policy,
            updater: None,
            events: None,
            reported: json!({}),
        };
        desk.serve("/image.bin", image(SIZE, 7));
        desk
    }

    fn serve(&mut self, path: &str, content: Vec<u8>) {
        self.serve_by(path, move |reply| {
            reply.serve(&content, Some("\"1\""), usize::MAX)
        });
    }

    fn serve_by(&mut self, path: &str, by: impl Fn(&mut Reply) + Send + Sync + 'static) {
        self.files.lock().unwrap().insert(path.into(), Arc::new(by));
    }

    /// A manifest of the owner's for the image that is served.
    fn manifest(&self, version: &str) -> String {
        self.owner.manifest(&claims(version, &image(SIZE, 7)))
    }

    fn start(&mut self) -> &Updater {
        let contract = Contract::built_in(self.contract).unwrap();
        let installer = FileInstall::new(self.dir.path().join("app.bin"));
        let mut builder = Updater::builder(self.dir.path().join("state"), contract, installer)
            .policy(self.policy.clone());
        if let Some(trust) = &self.trust {
            builder = builder.trust(trust.clone());
        }
        let updater = builder.start().unwrap();
        self.events = Some(updater.events());
        self.updater.insert(updater)
    }

    fn stop(&mut self) {
        if let Some(updater) = self.updater.take() {
            updater.close();
        }
    }

    fn updater(&mut self) -> &Updater {
        match self.updater {
            Some(ref updater) => updater,
            None => self.start(),
        }
    }

    /// Calls the method that starts an update: the answer.
    fn call(&mut self, payload: Value) -> (u16, String) {
        let mut payload = payload;
        if payload.get("fwPackageUri").is_none() {
            payload["fwPackageUri"] = self.server.url("/image.bin?sig=secret").into();
        }
        let payload = payload.to_string();
        let (sender, receiver) = mpsc::channel();
        let updater = self.updater();
        assert!(
            updater.handle_method_then("firmwareUpdate", payload.as_bytes(), move |answer| {
                sender.send((answer.status, answer.payload)).unwrap();
            })
        );
        let deadline = 500;
        for _ in 0..deadline {
            self.pump();
            if let Ok(answer) = receiver.try_recv() {
                return answer;
            }
        }
        panic!("no answer");
    }

    /// Takes what the device sends, as a hub does.
    fn pump(&mut self) {
        let updater = self.updater.as_ref().unwrap();
        while let Some(outbound) = updater.next_outbound(Duration::from_millis(20)) {
            match outbound {
                Outbound::ReadTwin => {}
                Outbound::Report(report) => {
                    let patch: Value = serde_json::from_str(&report.patch).unwrap();
                    assert!(!report.patch.contains("secret"), "{}", report.patch);
                    twin::merge(&mut self.reported, &patch);
                    updater.report_done(report.id, 204);
                }
            }
        }
    }

    fn end(&mut self) -> End {
        for _ in 0..1000 {
            self.pump();
            let updater = self.updater.as_ref().unwrap();
            let Some(outcome) = updater.status().outcome else {
                continue;
            };
            self.pump();
            let error = at_path(&self.reported, "iothubDM.firmwareUpdate.error");
            let text = |name: &str| Some(error?.get(name)?.as_str()?.to_owned());
            let failure = outcome.failure().map(|failure| failure.message.clone());
            return End {
                code: text("code"),
                message: failure.unwrap_or_default(),
                outcome,
            };
        }
        panic!("no end; {:?}", self.updater.as_ref().unwrap().status());
    }

    /// Accepted, and installed.
    fn installed(&mut self, payload: Value) {
        let answer = self.call(payload);
        assert_eq!(answer.0, 200, "{answer:?}");
        let end = self.end();
        assert_eq!(end.outcome, Outcome::Completed, "{end:?}");
        assert_eq!(fs::read(self.target()).unwrap(), image(SIZE, 7));
    }

    /// Accepted, and failed with this code; nothing is installed.
    fn fails(&mut self, payload: Value, code: &str, why: &str) {
        let before = fs::read(self.target()).unwrap();
        let answer = self.call(payload);
        assert_eq!(answer.0, 200, "{answer:?}");
        let end = self.end();
        assert_eq!(end.code.as_deref(), Some(code), "{end:?}");
        assert!(end.message.contains(why), "{end:?}");
        assert_eq!(fs::read(self.target()).unwrap(), before);
    }

    /// Refused by the method's answer; nothing is asked of any server, nothing is installed.
    fn refused(&mut self, payload: Value, why: &str) {
        let (before, asked) = (fs::read(self.target()).unwrap(), self.server.asked().len());
        let (status, answer) = self.call(payload);
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains(why), "{answer}");
        assert_eq!(fs::read(self.target()).unwrap(), before);
        assert_eq!(self.server.asked().len(), asked);
    }

    /// What the application was told.
    fn events(&self) -> Vec<Event> {
        let events = self.events.as_ref().unwrap();
        std::iter::from_fn(|| events.next_within(Duration::from_millis(100))).collect()
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("app.bin")
    }

    /// How often a path was asked for.
    fn asked(&self, path: &str) -> usize {
        let asked = self.server.asked();
        let of_path = |asked: &&support::server::Asked| asked.path.split('?').next() == Some(path);
        asked.iter().filter(of_path).count()
    }
}

fn trust(keys: KeySet) -> Trust {
    let mut identity = Identity::default();
    identity.model = Some(MODEL.into());
    Trust::new(keys, identity)
}

#[test]
fn what_the_owner_signed_is_installed() {
    let mut desk = Desk::new();
    let manifest = desk.manifest("2.0.0");
    desk.installed(json!({ "fwManifest": manifest }));
    let events = desk.events();
    let signed = |event: &Event| {
        matches!(
            event,
            Event::Verified {
                by: Verified::Signature,
                ..
            }
        )
    };
    assert!(events.iter().any(signed), "{events:?}");
    // Its version is the manifest's: nobody else has said one.
    assert_eq!(
        desk.updater().status().running_version.as_deref(),
        Some("2.0.0")
    );
    let reported = at_path(&desk.reported, "iothubDM.firmwareVersion").unwrap();
    assert_eq!(reported, "2.0.0");
}

#[test]
fn a_manifest_as_a_json_object_with_two_signatures() {
    let (one, two) = (Signer::ed25519(1), Signer::p256());
    let keys = key_set(1, 2, &[&one, &two]);
    let claims = claims("2.0.0", &image(SIZE, 7)).to_string();
    let both = signed(Kind::Manifest, &[&one, &two], claims.as_bytes());
    let alone = signed(Kind::Manifest, &[&one], claims.as_bytes());
    let twice = signed(Kind::Manifest, &[&one, &one], claims.as_bytes());
    let mut desk = Desk::trusting(one, keys);
    desk.refused(json!({ "fwManifest": alone }), "2 are needed");
    desk.refused(json!({ "fwManifest": twice }), "2 are needed");
    let object: Value = serde_json::from_str(&both).unwrap();
    desk.installed(json!({ "fwManifest": object }));
}

#[test]
fn a_manifest_beside_the_image() {
    let mut desk = Desk::new();
    let manifest = desk.manifest("2.0.0") + "\n";
    desk.serve("/image.bin.jws", manifest.into_bytes());
    desk.installed(json!({}));
    let paths: Vec<_> = desk
        .server
        .asked()
        .into_iter()
        .map(|asked| asked.path)
        .collect();
    assert_eq!(
        paths,
        ["/image.bin.jws?sig=secret", "/image.bin?sig=secret"]
    );
}

#[test]
fn nothing_unsigned_is_installed_whatever_the_contract() {
    for contract in Contract::names() {
        let mut desk = Desk::new();
        desk.contract = contract;
        let uri = desk.server.url("/image.bin");
        let contract = Contract::built_in(contract).unwrap();
        let sha256 = claims("2.0.0", &image(SIZE, 7))["sha256"].clone();
        let crc = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);
        let check = match contract.name() {
            "devkit" => format!("{:x}", crc.checksum(&image(SIZE, 7))),
            _ => sha256.as_str().unwrap().to_owned(),
        };
        let asked = contract.ask(&uri, Some("2.0.0"), Some(&check), Some(SIZE as u64));
        let updater = desk.updater();
        match contract.methods().next() {
            Some(method) => {
                assert!(updater.handle_method_then(method, asked.to_string().as_bytes(), |_| ()));
            }
            None => {
                let path = contract.desired_path().unwrap();
                let twin = json!({"desired": {path: asked, "$version": 1}, "reported": {}});
                updater.connected(true);
                updater.handle_twin(true, twin.to_string().as_bytes());
            }
        }
        let Outcome::Failed { failure, .. } = desk.end().outcome else {
            panic!("{}: no failure", contract.name());
        };
        assert_eq!(failure.code.as_str(), "manifest-required", "{failure}");
        assert!(failure.message.contains("/image.bin.jws"), "{failure}");
        assert!(failure.message.contains("404"), "{failure}");
        assert_eq!(fs::read(desk.target()).unwrap(), b"old");
        assert_eq!(desk.asked("/image.bin"), 0);
    }
}

#[test]
fn a_signed_update_by_desired_properties() {
    let mut desk = Desk::new();
    desk.contract = "configuration";
    let firmware = |manifest: &str, retry: u32| json!({"fwVersion": "2.0.0", "fwPackageURI": desk.server.url("/image.bin"), "fwManifest": manifest, "fwRetry": retry});
    let wrong = firmware(
        &Signer::ed25519(9).manifest(&claims("2.0.0", &image(SIZE, 7))),
        1,
    );
    let right = firmware(&desk.manifest("2.0.0"), 2);
    let updater = desk.updater();
    updater.connected(true);
    let twin = json!({"desired": {"firmware": wrong, "$version": 1}, "reported": {}});
    updater.handle_twin(true, twin.to_string().as_bytes());
    let end = desk.end();
    assert!(end.message.contains("not trusted"), "{end:?}");
    assert_eq!(desk.reported["firmware"]["fwUpdateStatus"], "error");
    let patch = json!({"firmware": right, "$version": 2});
    desk.updater()
        .handle_twin(false, patch.to_string().as_bytes());
    for _ in 0..500 {
        desk.pump();
        if desk.updater().status().outcome == Some(Outcome::Completed) {
            break;
        }
    }
    assert_eq!(fs::read(desk.target()).unwrap(), image(SIZE, 7));
}

#[test]
fn an_altered_manifest() {
    let mut desk = Desk::new();
    let good = desk.manifest("2.0.0");
    let (head, rest) = good.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    // Each claim, with the signature of the others.
    for (member, value) in [
        ("version", json!("9.0.0")),
        ("size", json!(1)),
        ("sha256", json!("00".repeat(32))),
        ("compatibility", json!({})),
        ("iat", json!(0)),
        ("exp", json!(now() * 2)),
        ("floor", json!("2.0.0")),
    ] {
        let mut claims = claims("2.0.0", &image(SIZE, 7));
        claims[member] = value;
        let payload = data_encoding::BASE64URL_NOPAD.encode(claims.to_string().as_bytes());
        let altered = format!("{head}.{payload}.{signature}");
        desk.refused(json!({ "fwManifest": altered }), "it was altered");
    }
    // Some of the bits; all of them are the matter of another test.
    for place in (0..good.len()).step_by(29) {
        let mut altered = good.clone().into_bytes();
        altered[place] ^= 1;
        let altered = String::from_utf8(altered).unwrap();
        desk.refused(json!({ "fwManifest": altered }), "the signed document");
    }
    for nothing in ["", "x", "..", "e30.e30."] {
        desk.refused(json!({ "fwManifest": nothing }), "the signed document");
    }
    desk.refused(json!({ "fwManifest": 1 }), "text is needed");
    desk.installed(json!({ "fwManifest": good }));
}

#[test]
fn an_algorithm_that_is_none_and_keys_that_come_along() {
    let mut desk = Desk::new();
    let stranger = Signer::ed25519(9);
    let payload = claims("2.0.0", &image(SIZE, 7)).to_string();
    let typ = Kind::Manifest.as_str();
    let x = data_encoding::BASE64URL_NOPAD.encode(stranger.public.bytes());
    for header in [
        json!({"alg": "none", "typ": typ}),
        json!({"alg": "HS256", "typ": typ}),
        json!({"alg": "EdDSA", "typ": typ, "jwk": {"kty": "OKP", "crv": "Ed25519", "x": x}}),
        json!({"alg": "EdDSA", "typ": typ, "jku": desk.server.url("/keys")}),
        json!({"alg": "EdDSA", "typ": typ, "kid": desk.owner.public.id()}),
    ] {
        let text = stranger.with_header(&header.to_string(), &payload);
        desk.refused(json!({ "fwManifest": text }), "is not trusted");
    }
    for header in [
        json!({"alg": "none", "typ": typ}),
        json!({"alg": "EdDSA", "typ": typ, "crit": ["x"], "x": 1}),
        json!({"alg": "EdDSA", "typ": typ, "b64": false}),
    ] {
        let text = desk.owner.with_header(&header.to_string(), &payload);
        desk.refused(json!({ "fwManifest": text }), "is refused: its header");
    }
}

#[test]
fn an_expired_manifest_and_one_of_tomorrow() {
    let mut desk = Desk::new();
    let mut claims = claims("2.0.0", &image(SIZE, 7));
    claims["exp"] = (now() - 1).into();
    let expired = desk.owner.manifest(&claims);
    desk.refused(json!({ "fwManifest": expired }), "expired at");
    claims["iat"] = (now() + 86_400).into();
    claims["exp"] = (now() + 90_000).into();
    let tomorrow = desk.owner.manifest(&claims);
    desk.refused(
        json!({ "fwManifest": tomorrow }),
        "one of the two clocks is wrong",
    );
    // Beside the image it is no better.
    desk.serve("/image.bin.jws", expired.into_bytes());
    desk.fails(json!({}), "expired", "expired at");
    assert_eq!(desk.asked("/image.bin"), 0);
}

#[test]
fn an_older_version_below_the_floor_and_a_replay() {
    let mut desk = Desk::new();
    let with_floor = |desk: &Desk, version: &str, floor: &str| {
        let mut claims = claims(version, &image(SIZE, 7));
        claims["floor"] = floor.into();
        desk.owner.manifest(&claims)
    };
    let old = desk.manifest("1.5.0");
    desk.installed(json!({ "fwManifest": old }));
    // A floor counts once its image has proved itself, not before.
    let mut broken = claims("3.0.0", &image(SIZE, 9));
    broken["floor"] = "3.0.0".into();
    let broken = desk.owner.manifest(&broken);
    let good = desk.server.url("/image.bin");
    desk.serve("/broken.bin", image(SIZE, 8));
    let uri = desk.server.url("/broken.bin");
    desk.fails(
        json!({"fwPackageUri": uri, "fwManifest": broken}),
        "hash-mismatch",
        "was announced",
    );
    desk.installed(json!({"fwPackageUri": good, "fwManifest": old, "fwRetry": 1}));
    let raises = with_floor(&desk, "2.5.0", "2.0.0");
    desk.installed(json!({ "fwManifest": raises }));
    desk.refused(
        json!({"fwManifest": old, "fwRetry": 2}),
        "version 1.5.0 is lower than 2.0.0",
    );
    // A lower one, above the floor, is a deliberate downgrade; the floor never falls.
    let lower = with_floor(&desk, "2.1.0", "1.0.0");
    desk.installed(json!({ "fwManifest": lower }));
    desk.refused(
        json!({"fwManifest": old, "fwRetry": 3}),
        "is lower than 2.0.0",
    );
    desk.stop();
    desk.refused(
        json!({"fwManifest": old, "fwRetry": 4}),
        "is lower than 2.0.0",
    );
    // The owner's own floor.
    desk.stop();
    desk.policy.floor = Some("2.2".into());
    desk.refused(
        json!({"fwManifest": lower, "fwRetry": 5}),
        "is lower than 2.2",
    );
}

#[test]
fn an_absurdly_high_version_locks_nobody_out() {
    let mut desk = Desk::new();
    let high = desk.manifest("99999999999999999999999999.0");
    desk.installed(json!({ "fwManifest": high }));
    let next = desk.manifest("2.0.0");
    desk.installed(json!({ "fwManifest": next }));
    let mut claims = claims("2.0.0", &image(SIZE, 7));
    claims["floor"] = "99999999999999999999999999".into();
    let lock = desk.owner.manifest(&claims);
    desk.refused(json!({ "fwManifest": lock }), "higher than its own version");
}

#[test]
fn another_model() {
    let mut desk = Desk::new();
    let mut claims = claims("2.0.0", &image(SIZE, 7));
    claims["compatibility"] = json!({"model": ["Kettle", "Fridge"]});
    let other = desk.owner.manifest(&claims);
    desk.refused(
        json!({ "fwManifest": other }),
        "for model Kettle, Fridge; this device's is Toaster",
    );
    claims["compatibility"] = json!({"model": ["Kettle", MODEL], "hardwareRevision": "B"});
    let revision = desk.owner.manifest(&claims);
    desk.refused(
        json!({ "fwManifest": revision }),
        "has not been told its own",
    );
}

#[test]
fn a_manifest_of_another_file() {
    let mut desk = Desk::new();
    // Of the same size, and of another.
    desk.serve("/same.bin", image(SIZE, 8));
    desk.serve("/longer.bin", image(SIZE + 1, 7));
    let manifest = desk.manifest("2.0.0");
    for (file, code, why) in [
        ("/same.bin", "hash-mismatch", "was announced"),
        ("/longer.bin", "size-mismatch", "were announced"),
    ] {
        let uri = desk.server.url(file);
        desk.fails(
            json!({"fwPackageUri": uri, "fwManifest": manifest}),
            code,
            why,
        );
    }
    // What the request itself says must be what is signed.
    for (member, value) in [
        ("fwVersion", json!("2.0.1")),
        ("fwSize", json!(SIZE + 1)),
        ("fwPackageCheckValue", json!("11".repeat(32))),
    ] {
        desk.refused(
            json!({"fwManifest": manifest, member: value}),
            "the request is for",
        );
    }
    // A wrong check of another kind is found when the image is there.
    desk.fails(
        json!({"fwManifest": manifest, "fwPackageCheckValue": "0001"}),
        "crc-mismatch",
        "crc16:0001 was announced",
    );
}

#[test]
fn content_that_changes_in_mid_download() {
    let mut desk = Desk::new();
    let number = AtomicUsize::new(0);
    desk.serve_by("/image.bin", move |reply| {
        match number.fetch_add(1, Ordering::Relaxed) {
            0 => reply.serve(&image(SIZE, 8), None, SIZE / 2),
            1 => reply.serve(&image(SIZE, 7), None, usize::MAX),
            _ => reply.serve(&image(SIZE, 8), None, usize::MAX),
        }
    });
    let manifest = desk.manifest("2.0.0");
    // Half of one and half of the other; then from zero, which is another one.
    desk.fails(
        json!({ "fwManifest": manifest }),
        "hash-mismatch",
        "was announced",
    );
}

#[test]
fn versions_that_are_paths() {
    let mut desk = Desk::new();
    for version in [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        "2/..",
        "2 0",
        "-o",
        "$(x)",
    ] {
        let manifest = desk.manifest(version);
        desk.refused(json!({ "fwManifest": manifest }), "\\\"version\\\" must be");
    }
}

#[test]
fn a_manifest_that_never_ends_or_is_none() {
    let mut desk = Desk::new();
    desk.serve_by("/image.bin.jws", |reply| {
        reply.head("200 OK", &[]);
        while reply.body(&[b'x'; 1000]) {}
    });
    desk.fails(json!({}), "too-large", "more than 32768 bytes");
    desk.serve_by("/image.bin.jws", |reply| {
        reply.head("200 OK", &[("Content-Length", "99999999")]);
    });
    desk.fails(
        json!({"fwRetry": 1}),
        "too-large",
        "the manifest beside the image",
    );
    desk.serve("/image.bin.jws", vec![0xff; 100]);
    desk.fails(json!({"fwRetry": 2}), "manifest-invalid", "it is no text");
    desk.serve("/image.bin.jws", b"<html>not here</html>".to_vec());
    desk.fails(json!({"fwRetry": 3}), "manifest-invalid", "it is no JWS");
    let stranger = Signer::ed25519(9).manifest(&claims("2.0.0", &image(SIZE, 7)));
    desk.serve("/image.bin.jws", stranger.into_bytes());
    desk.fails(json!({"fwRetry": 4}), "untrusted", "is not trusted");
    // A silent server, and one that comes to its senses.
    desk.stop();
    desk.policy.stall_time = Duration::from_millis(200);
    desk.policy.retry.first = Duration::from_millis(10);
    let manifest = desk.manifest("2.0.0");
    let number = AtomicUsize::new(0);
    desk.serve_by("/image.bin.jws", move |reply| {
        match number.fetch_add(1, Ordering::Relaxed) {
            0 => reply.hang(),
            1 => reply.empty("503 Service Unavailable", &[]),
            _ => reply.serve(manifest.as_bytes(), None, usize::MAX),
        }
    });
    desk.installed(json!({"fwRetry": 5}));
    assert_eq!(desk.asked("/image.bin"), 1);
}

#[test]
fn a_cancel_while_the_manifest_is_fetched() {
    let mut desk = Desk::new();
    desk.serve_by("/image.bin.jws", Reply::hang);
    assert_eq!(desk.call(json!({})).0, 200);
    while desk.asked("/image.bin.jws") == 0 {
        desk.pump();
    }
    assert_eq!(desk.updater().cancel(), Ok(true));
    assert!(matches!(desk.end().outcome, Outcome::Cancelled(_)));
    let manifest = desk.manifest("2.0.0");
    desk.installed(json!({ "fwManifest": manifest }));
}

#[test]
fn a_restart_needs_no_manifest_from_the_network_again() {
    let mut desk = Desk::new();
    let manifest = desk.manifest("2.0.0");
    desk.serve("/image.bin.jws", manifest.into_bytes());
    desk.serve_by("/image.bin", |reply| {
        reply.serve(&image(SIZE, 7), Some("\"1\""), SIZE / 2);
        reply.hang();
    });
    assert_eq!(desk.call(json!({})).0, 200);
    while desk.updater().status().bytes < SIZE as u64 / 2 {
        desk.pump();
    }
    desk.stop();
    // What vouches for it is in the record; what it vouches for is still asked.
    desk.serve_by("/image.bin.jws", |reply| reply.empty("410 Gone", &[]));
    desk.serve("/image.bin", image(SIZE, 7));
    desk.start();
    let end = desk.end();
    assert_eq!(end.outcome, Outcome::Completed, "{end:?}");
    assert_eq!(fs::read(desk.target()).unwrap(), image(SIZE, 7));
    assert_eq!(desk.asked("/image.bin.jws"), 1);
}

/// An update that is under way when its key is revoked, or when keys are first configured.
#[test]
fn a_restart_looks_at_what_is_under_way_with_the_keys_of_now() {
    let half = |reply: &mut Reply| {
        reply.serve(&image(SIZE, 7), Some("\"1\""), SIZE / 2);
        reply.hang();
    };
    for (first, then, code) in [
        ("owner", "revoked", "untrusted"),
        ("owner", "other", "untrusted"),
        ("nobody", "owner", "manifest-required"),
    ] {
        let mut desk = Desk::new();
        let other = Signer::ed25519(2);
        let both = vec![desk.owner.public.clone(), other.public.clone()];
        let revoked = vec![desk.owner.public.id()];
        let trusting = |whom: &str, desk: &Desk| match whom {
            "owner" => Some(trust(key_set(1, 1, &[&desk.owner]))),
            "other" => Some(trust(key_set(1, 1, &[&other]))),
            "revoked" => Some(trust(
                KeySet::new(1, 1, both.clone(), revoked.clone()).unwrap(),
            )),
            _ => None,
        };
        desk.trust = trusting(first, &desk);
        desk.serve_by("/image.bin", half);
        let crc = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);
        let payload = match first {
            "nobody" => {
                json!({"fwPackageCheckValue": format!("{:x}", crc.checksum(&image(SIZE, 7)))})
            }
            _ => json!({"fwManifest": desk.manifest("2.0.0")}),
        };
        assert_eq!(desk.call(payload).0, 200);
        while desk.updater().status().bytes < SIZE as u64 / 2 {
            desk.pump();
        }
        desk.stop();
        desk.trust = trusting(then, &desk);
        desk.serve("/image.bin", image(SIZE, 7));
        desk.start();
        let end = desk.end();
        let Outcome::Failed { failure, .. } = end.outcome else {
            panic!("{first} {then}: {end:?}");
        };
        assert_eq!(failure.code.as_str(), code, "{failure}");
        assert_eq!(fs::read(desk.target()).unwrap(), b"old");
        assert_eq!(desk.asked("/image.bin"), 1, "{first} {then}");
    }
}

#[test]
fn a_manifest_is_not_taken_for_checked_where_no_keys_are() {
    let mut desk = Desk::new();
    let manifest = desk.manifest("2.0.0");
    desk.trust = None;
    desk.refused(
        json!({ "fwManifest": manifest }),
        "no keys are configured to check it with",
    );
    // Nor is anything installed where one must be, and no keys are.
    desk.stop();
    desk.policy.require_manifest = true;
    desk.refused(
        json!({ "fwManifest": manifest }),
        "has no keys that it could trust",
    );
    desk.fails(
        json!({"fwPackageCheckValue": "1"}),
        "untrusted",
        "has no keys",
    );
}

#[test]
fn keys_are_rotated_for_good() {
    let mut desk = Desk::new();
    let (old, new, third) = (Signer::ed25519(1), Signer::ed25519(2), Signer::ed25519(3));
    let set = |version, signers: &[&Signer], by: &Signer| {
        signed(Kind::Keys, &[by], &key_set(version, 1, signers).to_json())
    };
    let claims = |retry: u64| {
        let mut claims = claims("2.0.0", &image(SIZE, 7));
        claims["iat"] = (now() - 100 - retry).into();
        claims
    };
    // A stranger's is not taken, and changes nothing.
    let stranger = set(2, &[&third], &third);
    desk.refused(
        json!({"fwKeys": stranger, "fwManifest": third.manifest(&claims(0))}),
        "is not trusted",
    );
    // The new keys come with the first image they have signed.
    let rotation = set(2, &[&new], &old);
    desk.installed(json!({"fwKeys": rotation, "fwManifest": new.manifest(&claims(1))}));
    desk.refused(
        json!({"fwManifest": old.manifest(&claims(2))}),
        "is not trusted",
    );
    // After a restart with the configuration of old, too; and it is not turned back.
    desk.stop();
    desk.refused(
        json!({"fwManifest": old.manifest(&claims(3))}),
        "is not trusted",
    );
    let back = set(2, &[&old], &new);
    desk.refused(
        json!({"fwKeys": back, "fwManifest": old.manifest(&claims(4))}),
        "is not trusted",
    );
    let older = set(3, &[&old], &old);
    desk.refused(
        json!({"fwKeys": older, "fwManifest": old.manifest(&claims(5))}),
        "is not trusted",
    );
    // The same document again is no matter: it stays in a twin.
    desk.installed(json!({"fwKeys": rotation, "fwManifest": new.manifest(&claims(6))}));
    let events = desk.events();
    let noticed =
        |event: &&Event| matches!(event, Event::Warning(text) if text.contains("new keys"));
    assert_eq!(events.iter().filter(noticed).count(), 2, "{events:?}");
    // A configuration with a higher version counts again.
    desk.stop();
    desk.trust = Some(trust(key_set(3, 1, &[&third])));
    desk.refused(
        json!({"fwManifest": new.manifest(&claims(7))}),
        "is not trusted",
    );
    desk.installed(json!({"fwManifest": third.manifest(&claims(8))}));
}

/// An engine whose clock is the test's.
struct Bare {
    engine: Engine,
    outputs: Vec<Output>,
}

impl Bare {
    fn new(signer: &Signer) -> Self {
        Self::started(
            Some(trust(key_set(1, 1, &[signer]))),
            Stored::Empty,
            Some(0),
        )
    }

    fn started(trust: Option<Trust>, stored: Stored, wall: Option<u64>) -> Self {
        let mut policy = Policy::default();
        policy.answer_wait = Duration::ZERO;
        let mut engine = Engine::new(Config {
            contract: Contract::built_in("iothub-dm").unwrap(),
            policy,
            current_version: None,
            restart: Restart::None,
            boot_id: "1".into(),
            installer: None,
            seed: 1,
        });
        if let Some(trust) = trust {
            engine.set_trust(trust);
        }
        let mut bare = Self {
            engine,
            outputs: Vec::new(),
        };
        let boot = Input::Boot {
            stored,
            image: ImageState::Old,
        };
        bare.input(boot, 0, wall);
        bare
    }

    fn input(&mut self, input: Input<'_>, seconds: u64, wall: Option<u64>) {
        let now = Now {
            monotonic: Duration::from_secs(seconds),
            wall: wall.map(|wall| wall * 1000),
        };
        self.engine.handle(input, now);
        while let Some(output) = self.engine.poll() {
            self.outputs.push(output);
        }
    }

    fn ask(&mut self, manifest: &str, wall: Option<u64>) {
        let payload = json!({"fwPackageUri": "https://h/i", "fwManifest": manifest}).to_string();
        let method = Input::Method {
            id: 1,
            name: "firmwareUpdate",
            payload: payload.as_bytes(),
        };
        self.input(method, 1, wall);
        // Answered once the first report is handed over; nothing begins before.
        self.input(Input::Tick, 5, wall);
    }

    /// Downloaded and about to be applied: the record as a power cut leaves it.
    fn cut_while_applying(mut self, image: &[u8]) -> Record {
        let mut checks = Checks::new();
        checks.update(image);
        let complete = Ended::Complete {
            bytes: checks.bytes(),
            digests: checks.finish(),
        };
        self.input(Input::TransferEnded(complete), 10, Some(now()));
        let record = self
            .outputs
            .into_iter()
            .rev()
            .find_map(|output| match output {
                Output::Save { record, .. } => Some(*record),
                _ => None,
            });
        record.unwrap()
    }

    fn applies(&self) -> bool {
        let finish = |output: &Output| *output == Output::Install(Step::Finish);
        self.outputs.iter().any(finish)
    }

    fn code(&self) -> Option<&'static str> {
        let outcome = self.engine.status().outcome?;
        outcome.failure().map(|failure| failure.code.as_str())
    }

    fn downloads(&self) -> bool {
        let download = |output: &Output| matches!(output, Output::Download(..));
        self.outputs.iter().any(download)
    }

    fn warnings(&self) -> usize {
        let warning = |output: &&Output| matches!(output, Output::Event(Event::Warning(text)) if text.contains("clock"));
        self.outputs.iter().filter(warning).count()
    }
}

#[test]
fn a_clock_at_1970_lets_no_manifest_in_until_it_is_right() {
    let signer = Signer::ed25519(1);
    let manifest = signer.manifest(&claims("2.0.0", &image(SIZE, 7)));
    for wall in [None, Some(0)] {
        let mut bare = Bare::new(&signer);
        bare.ask(&manifest, wall);
        for seconds in (10..100).step_by(10) {
            bare.input(Input::Tick, seconds, wall);
            let wake = bare.engine.wake_at().unwrap();
            assert!(wake > Duration::from_secs(seconds), "{wake:?}");
        }
        assert!(!bare.downloads());
        assert_eq!(bare.warnings(), 1);
        bare.input(Input::Tick, 110, Some(now()));
        assert!(bare.downloads());
    }
    // By the time the clock is right it has expired: a frozen manifest is not let in by a broken clock.
    let mut bare = Bare::new(&signer);
    bare.ask(&manifest, Some(0));
    bare.input(Input::Tick, 20, Some(now() + 7200));
    assert!(!bare.downloads());
    assert_eq!(bare.code(), Some("expired"));
}

#[test]
fn what_is_applied_after_a_restart_is_what_is_vouched_for_now() {
    let (signer, image) = (Signer::ed25519(1), image(SIZE, 7));
    let keys = || Some(trust(key_set(1, 1, &[&signer])));
    let manifest = signer.manifest(&claims("2.0.0", &image));
    let mut bare = Bare::started(keys(), Stored::Empty, Some(now()));
    bare.ask(&manifest, Some(now()));
    assert!(bare.downloads());
    let record = bare.cut_while_applying(&image);
    let start = |trust: Option<Trust>, record: &Record| {
        Bare::started(trust, Stored::Record(record.to_json()), Some(now()))
    };
    assert!(start(keys(), &record).applies());
    // Later than its time, and without a clock: it was let in when it was time.
    let late = Stored::Record(record.to_json());
    assert!(Bare::started(keys(), late, Some(now() + 7200)).applies());

    // Its key is replaced while it is downloaded.
    let mut bare = Bare::started(keys(), Stored::Empty, Some(now()));
    bare.ask(&manifest, Some(now()));
    let next = key_set(2, 1, &[&Signer::ed25519(2)]).to_json();
    let payload =
        json!({"fwPackageUri": "https://h/j", "fwKeys": signed(Kind::Keys, &[&signer], &next)});
    let payload = payload.to_string();
    let method = Input::Method {
        id: 2,
        name: "firmwareUpdate",
        payload: payload.as_bytes(),
    };
    bare.input(method, 6, Some(now()));
    let replaced = bare.cut_while_applying(&image);
    let outcome = replaced.update.unwrap().outcome.unwrap();
    assert_eq!(outcome.failure().unwrap().code.as_str(), "untrusted");

    let refused = |trust: Option<Trust>, record: &Record, code: &str| {
        let bare = start(trust, record);
        assert!(!bare.applies());
        assert_eq!(bare.code(), Some(code));
    };
    let other = trust(key_set(1, 1, &[&Signer::ed25519(2)]));
    refused(Some(other), &record, "untrusted");
    let mut swapped = record.clone();
    swapped.update.as_mut().unwrap().sha256 = Some("00".repeat(32));
    refused(keys(), &swapped, "hash-mismatch");
    let mut higher = record.clone();
    higher.core.floor = Some("2.0.1".into());
    refused(keys(), &higher, "version-refused");
    let mut unsigned = record.clone();
    unsigned.update.as_mut().unwrap().request.manifest = None;
    refused(keys(), &unsigned, "manifest-required");
    // The keys of a rotation that cannot be read let nothing in, and cost nothing else.
    let mut unreadable = record;
    unreadable.key_set = Some(json!({"version": 9, "later": true}));
    refused(keys(), &unreadable, "untrusted");
    assert!(start(None, &unreadable).applies());
}

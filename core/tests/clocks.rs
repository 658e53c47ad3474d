//! A wall clock that starts in 1970, or jumps in the middle of an update, in a real process: libfaketime stands
//! between it and the system's clock; the monotonic one is left alone. No jump moves a timer; and a time that
//! cannot be right is not told, and makes no token.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod support;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{ServerConfig, crypto::ring};
use serde_json::{Value, json};
use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use support::{
    process::{self, Child, How, Setup, images, request},
    server::{Reply, Server},
};
use twinflash::{
    contract::Contract,
    device::{Device, DeviceEvent, DeviceOptions, Updater},
    install::FileInstall,
};

const IN_1970: &str = "@1970-01-01 00:00:10";
const RIGHT: &str = "+0";
const DEVICE: &str = "TWINFLASH_TEST_DEVICE";

#[test]
fn child() {
    process::child();
}

/// The library that fakes the time.
fn library() -> Option<PathBuf> {
    let mut directories = vec![PathBuf::from("/usr/lib")];
    directories.extend(
        fs::read_dir("/usr/lib")
            .ok()?
            .map(|entry| entry.unwrap().path()),
    );
    let mut libraries = directories
        .iter()
        .map(|directory| directory.join("faketime/libfaketimeMT.so.1"));
    let found = libraries.find(|library| library.exists());
    if found.is_none() {
        println!("left out: libfaketime is missing (package faketime)");
    }
    found
}

/// A wall clock for one process.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    fn new(work: &Path, time: &str) -> Option<Self> {
        let clock = Self {
            library: library()?,
            file: work.join("time"),
        };
        clock.set(time);
        Some(clock)
    }

    /// A time after `@`, or years before (`-10y`) or after the right one.
    fn set(&self, time: &str) {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{time}\n")).unwrap();
        fs::rename(new, &self.file).unwrap();
    }

    fn wind(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }
}

struct Stand {
    _root: tempfile::TempDir,
    setup: Setup,
    clock: Clock,
}

impl Stand {
    /// `None` where there is no libfaketime.
    fn new(time: &str, policy: Value) -> Option<Self> {
        let root = tempfile::tempdir().unwrap();
        let mut setup = Setup::new(How::File, root.path());
        setup.policy = policy;
        setup.first(&images()[0]);
        let clock = Clock::new(&setup.work, time)?;
        Some(Self {
            _root: root,
            setup,
            clock,
        })
    }

    fn start(&self, ask: Option<&Value>) -> Child {
        let wind = |command: &mut Command| self.clock.wind(command);
        self.setup.start_with(ask.cloned(), false, wind)
    }

    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(15);
        while !holds() {
            let log = fs::read_to_string(self.setup.work.join("log")).unwrap_or_default();
            let late = Instant::now() > deadline;
            assert!(!late, "{what} does not come; {}\n{log}", self.setup.twin());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A time in the twin.
    fn time(&self, name: &str) -> Option<String> {
        let time = &self.setup.twin()["iothubDM"]["firmwareUpdate"][name];
        time.as_str().map(str::to_owned)
    }

    fn completed(&self, child: Child) {
        assert!(child.end().success());
        assert_eq!(self.setup.outcome().as_deref(), Some("completed"));
        assert_eq!(self.setup.status(), "applyComplete");
        assert!(self.setup.target() == *images()[1]);
    }
}

/// 2.7 MB/s.
fn send(reply: &mut Reply, image: &[u8]) {
    reply.piece = 8 << 10;
    reply.pause = Duration::from_millis(3);
    reply.serve(image, Some("\"1\""), usize::MAX);
}

const TIMES: [&str; 4] = [
    "startedWaitingTime",
    "downloadCompleteTime",
    "startedApplyingImage",
    "lastFirmwareUpdate",
];

#[test]
fn an_update_in_1970() {
    let Some(stand) = Stand::new(IN_1970, json!({})) else {
        return;
    };
    let [_, new, _] = images();
    let body = Arc::clone(&new);
    let server = Server::http(move |reply| send(reply, &body));
    stand.completed(stand.start(Some(&request(&server.url("/new"), &new))));
    // It was done, and no time was made up.
    assert_eq!(TIMES.map(|name| stand.time(name)), [None, None, None, None]);
}

/// A server's certificate cannot be judged: it is waited until the clock is right.
#[test]
fn a_clock_that_starts_in_1970_and_is_set_in_the_middle() {
    let Some(mut stand) = Stand::new(IN_1970, json!({})) else {
        return;
    };
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    let file = stand.setup.work.join("authority.pem");
    fs::write(&file, authority.pem()).unwrap();
    stand.setup.policy = json!({"authority": file});

    let [_, new, _] = images();
    let body = Arc::clone(&new);
    let server = Server::https(config, move |reply| send(reply, &body));
    let ask = request(&server.url("/new"), &new);
    let mut child = stand.start(Some(&ask));
    let log = || fs::read_to_string(stand.setup.work.join("log")).unwrap_or_default();
    stand.until("the reason", || {
        log().contains("not valid yet, or this device's clock is wrong")
    });
    assert_eq!(stand.setup.status(), "downloading");
    assert!(child.ended().is_none() && server.asked().is_empty());
    stand.clock.set(RIGHT);
    stand.completed(child);
    assert_eq!(stand.time("startedWaitingTime"), None);
    let ended = stand.time("lastFirmwareUpdate").unwrap();
    assert!(ended.as_str() > "2026-11", "{ended}");
}

#[test]
fn a_clock_that_jumps_while_it_is_downloaded() {
    let Some(stand) = Stand::new(RIGHT, json!({})) else {
        return;
    };
    let [_, new, _] = images();
    let body = Arc::clone(&new);
    let server = Server::http(move |reply| send(reply, &body));
    let child = stand.start(Some(&request(&server.url("/new"), &new)));
    let sent = |bytes: u64| {
        stand.until("the download", || {
            server
                .asked()
                .first()
                .is_some_and(|asked| asked.sent >= bytes)
        });
    };
    sent(200_000);
    stand.clock.set("+10y");
    sent(500_000);
    stand.clock.set("-10y");
    stand.completed(child);
    // No stall was seen, no attempt given up.
    assert_eq!(server.asked().len(), 1);
    let began = stand.time("startedWaitingTime").unwrap();
    assert!(began.as_str() > "2026-11", "{began}");
    // Ten years ago it was not made.
    assert_eq!(stand.time("lastFirmwareUpdate"), None);
}

/// A server that falls silent is left after its time on the monotonic clock, whatever the other says.
#[test]
fn a_clock_that_jumps_while_a_server_is_silent() {
    let Some(stand) = Stand::new(RIGHT, json!({"stallTime": 1})) else {
        return;
    };
    let [_, new, _] = images();
    let body = Arc::clone(&new);
    let server = Server::http(move |reply| match reply.number() {
        0 => {
            reply.serve(&body, Some("\"1\""), 300_000);
            reply.hang();
        }
        _ => send(reply, &body),
    });
    let child = stand.start(Some(&request(&server.url("/new"), &new)));
    stand.until("the silence", || {
        server
            .asked()
            .first()
            .is_some_and(|asked| asked.sent == 300_000)
    });
    stand.clock.set("-20y");
    stand.completed(child);
    assert_eq!(server.ranges()[1].as_deref(), Some("bytes=300000-"));
}

#[test]
fn a_clock_that_jumps_while_a_version_proves_itself() {
    for jump in ["+10y", "-10y"] {
        let Some(stand) = Stand::new(RIGHT, json!({"confirmTime": 600})) else {
            return;
        };
        let [_, new, _] = images();
        let body = Arc::clone(&new);
        let server = Server::http(move |reply| reply.serve(&body, None, usize::MAX));
        let ask = request(&server.url("/new"), &new);
        let mut child = stand.start(Some(&ask));
        let confirming = || stand.setup.status() == "applying" && stand.setup.target() == *new;
        stand.until("the new version", confirming);
        stand.clock.set(jump);
        thread::sleep(Duration::from_millis(400));
        assert!(child.ended().is_none() && confirming(), "{jump}");
        // And over a restart.
        child.kill();
        let child = stand.start(None);
        thread::sleep(Duration::from_millis(400));
        assert!(confirming(), "{jump}");
        fs::write(stand.setup.work.join("confirm"), "").unwrap();
        stand.completed(child);
    }
}

/// Rolled back in time, too.
#[test]
fn a_clock_that_jumps_back_does_not_give_a_version_more_time() {
    let Some(stand) = Stand::new(RIGHT, json!({"confirmTime": 1})) else {
        return;
    };
    let [old, new, _] = images();
    let body = Arc::clone(&new);
    let server = Server::http(move |reply| reply.serve(&body, None, usize::MAX));
    let child = stand.start(Some(&request(&server.url("/new"), &new)));
    stand.until("the new version", || stand.setup.target() == *new);
    stand.clock.set("-10y");
    let since = Instant::now();
    assert!(child.end().success());
    assert!(since.elapsed() < Duration::from_secs(20));
    assert_eq!(
        stand.setup.outcome().as_deref(),
        Some("rolled-back: not-confirmed")
    );
    assert_eq!(stand.setup.status(), "applyFailed");
    assert!(stand.setup.target() == *old);
}

/// After a restart under a clock that has gone back, times are left out, and the update is done.
#[test]
fn a_clock_that_has_gone_back_at_the_next_start() {
    let Some(stand) = Stand::new("+10y", json!({})) else {
        return;
    };
    let [_, new, _] = images();
    let body = Arc::clone(&new);
    let server = Server::http(move |reply| send(reply, &body));
    let ask = request(&server.url("/new"), &new);
    let mut child = stand.start(Some(&ask));
    stand.until("the download", || {
        server
            .asked()
            .first()
            .is_some_and(|asked| asked.sent >= 300_000)
    });
    child.kill();
    stand.clock.set(RIGHT);
    stand.completed(stand.start(None));
    assert!(stand.time("startedWaitingTime").unwrap().as_str() > "2036");
    assert_eq!(stand.time("lastFirmwareUpdate"), None);
}

/// The process of the next test.
#[test]
fn device() {
    let Some(work) = env::var_os(DEVICE).map(PathBuf::from) else {
        return;
    };
    let connection = fs::read_to_string(work.join("connection")).unwrap();
    let contract = Contract::built_in("iothub-dm").unwrap();
    let installer = FileInstall::new(work.join("app.bin"));
    let updater = Updater::builder(work.join("state"), contract, installer);
    let events = work.join("events");
    let options = DeviceOptions::new(&connection)
        .unwrap()
        .on_event(move |event| {
            if event == DeviceEvent::WaitingForClock {
                fs::write(&events, "waits").unwrap();
            }
        });
    let _device = Device::connect(updater.start().unwrap(), options).unwrap();
    thread::sleep(Duration::from_secs(30));
}

#[test]
fn in_1970_no_token_is_made_and_the_hub_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let Some(clock) = Clock::new(root.path(), IN_1970) else {
        return;
    };
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    hub.set_nonblocking(true).unwrap();
    let port = hub.local_addr().unwrap().port();
    let connection = format!("HostName=localhost:{port};DeviceId=d;SharedAccessKey=c2VjcmV0");
    fs::write(root.path().join("connection"), connection).unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["device", "--exact", "--nocapture"]);
    command.env(DEVICE, root.path());
    clock.wind(&mut command);
    let mut device = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(15);
    while !root.path().join("events").exists() {
        assert!(Instant::now() < deadline, "it does not say that it waits");
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(600));
    assert!(hub.accept().is_err(), "it connects in 1970");
    clock.set(RIGHT);
    while hub.accept().is_err() {
        assert!(Instant::now() < deadline, "it does not connect");
        thread::sleep(Duration::from_millis(5));
    }
    device.kill().unwrap();
    device.wait().unwrap();
}

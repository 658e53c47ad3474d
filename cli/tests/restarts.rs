//! New versions that do not work, as processes under a supervisor that does what systemd does with
//! `ExecStartPre=twinflash guard …` and `Restart=always`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use serde_json::json;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use support::{
    DEVICE, Done, Running, World, run,
    server::{Reply, Server},
    text,
};

/// The old version: the agent is a part of it.
const OLD: &str = "#!/bin/sh\nexec \"$AGENT\" device --json --config twinflash.toml > old.out\n";

/// A watchdog that does not come to bite.
const LONG: Duration = Duration::from_secs(600);

/// Starts the program that is updated, again and again.
struct Supervisor {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Supervisor {
    /// A new version that runs longer than the watchdog allows is killed.
    fn start(dir: &Path, watchdog: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (dir, stopped) = (dir.to_owned(), Arc::clone(&stop));
        let work = move || {
            while !stopped.load(Ordering::Relaxed) {
                once(&dir, watchdog, &stopped);
            }
        };
        Self {
            stop,
            thread: Some(thread::spawn(work)),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

fn once(dir: &Path, watchdog: Duration, stopped: &AtomicBool) {
    let guard = run(&["guard", "--state", text(&dir.join("state"))]);
    assert_eq!(guard.status, Some(0), "{guard:?}");
    let app = dir.join("app.bin");
    let limit = match fs::read(&app).unwrap() == OLD.as_bytes() {
        true => Duration::from_secs(600),
        false => watchdog,
    };
    let mut child = Command::new(app)
        .current_dir(dir)
        .env("AGENT", env!("CARGO_BIN_EXE_twinflash"))
        .env_remove("TWINFLASH_DEVICE")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let since = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if stopped.load(Ordering::Relaxed) || since.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn serve(image: &str) -> Server {
    let image = image.as_bytes().to_vec();
    Server::http(move |reply: &mut Reply| reply.serve(&image, Some("\"1\""), usize::MAX))
}

/// What the back end is told of an update to an image that is this script.
fn update(world: &World, script: &str) -> Done {
    let server = serve(script);
    let sha256 = {
        fs::write(world.path("new"), script).unwrap();
        let info = run(&["image", "info", "--json", text(&world.path("new"))]);
        info.json()[0]["sha256"].as_str().unwrap().to_owned()
    };
    world.ask(&["update", DEVICE, &server.url("/new"), "--check", &sha256])
}

/// A world in which the old version is installed, with these lines in its policy.
fn world(install: &str, policy: &str) -> (World, PathBuf) {
    let world = World::new();
    drop(world.device_command("", install));
    let file = world.path("twinflash.toml");
    let configuration = fs::read_to_string(&file).unwrap();
    let policy = format!("[policy]\nallow_http = true\n{policy}\n");
    fs::write(&file, format!("{configuration}{policy}")).unwrap();
    fs::write(world.path("app.bin"), OLD).unwrap();
    fs::set_permissions(world.path("app.bin"), Permissions::from_mode(0o755)).unwrap();
    let dir = world.dir.path().to_owned();
    (world, dir)
}

fn until(what: impl Fn() -> bool) {
    for _ in 0..1000 {
        if what() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("it never came");
}

/// The phase the agent tells; nothing where none runs.
fn phase(world: &World) -> Option<serde_json::Value> {
    let config = world.path("twinflash.toml");
    let done = run(&["device", "--json", "--config", text(&config), "status"]);
    (done.status == Some(0)).then(|| done.json()[0]["phase"].clone())
}

fn lines(path: PathBuf) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// A version that does not work is started as often as it may be; then the old one is back, the
/// device is connected again, and the back end has been told.
fn is_rolled_back(script: &str, policy: &str, watchdog: Duration) {
    let (world, dir) = world("restart = \"exit\"", policy);
    let supervisor = Supervisor::start(&dir, watchdog);
    until(|| is_connected(&dir));
    let script = format!("#!/bin/sh\necho started >> starts\n{script}\n");
    let done = update(&world, &script);
    let end = done.json().pop().unwrap();
    assert_eq!(done.status, Some(1), "{done:?}");
    assert_eq!(end["code"], "not-confirmed", "{done:?}");
    assert_eq!(lines(world.path("starts")), 3);
    assert_eq!(world.installed(), OLD.as_bytes());
    until(|| phase(&world) == Some(json!(null)));
    drop(supervisor);
}

/// The old version has told that it is connected.
fn is_connected(dir: &Path) -> bool {
    let told = fs::read_to_string(dir.join("old.out")).unwrap_or_default();
    told.contains("\"connected\"")
}

#[test]
fn a_version_that_exits_at_once() {
    is_rolled_back("exit 1", "", LONG);
}

#[test]
fn a_version_that_hangs() {
    is_rolled_back("exec sleep 600", "", Duration::from_millis(300));
}

/// It comes so far as to connect, and crashes before anybody has said that it is good.
#[test]
fn a_version_that_crashes_after_a_while() {
    let crashes = "rm -f new.out\n\"$AGENT\" device --json --config twinflash.toml > new.out &\n\
                   until grep -q connected new.out; do sleep 0.02; done\nkill -9 $!\nexit 1";
    is_rolled_back(crashes, "confirm = \"call\"", LONG);
}

/// The reboot is asked for, and the device does not reboot: the agent that is started again asks
/// again, and takes nothing for restarted.
#[test]
fn a_reboot_that_never_happened() {
    let (world, dir) = world("restart = \"system\"", "");
    let programs = world.path("programs");
    fs::create_dir(&programs).unwrap();
    let reboots = world.path("reboots");
    let reboot = format!("#!/bin/sh\necho asked >> {}\n", text(&reboots));
    fs::write(programs.join("reboot"), reboot).unwrap();
    fs::set_permissions(programs.join("reboot"), Permissions::from_mode(0o755)).unwrap();
    let agent = || {
        let config = dir.join("twinflash.toml");
        let mut command = support::twinflash(&["device", "--json", "--config", text(&config)]);
        // No other reboot is to be found.
        command.env("PATH", &programs);
        let mut agent = Running::start(command);
        agent.line_with("\"connected\"");
        agent
    };
    let first = agent();
    let server = serve("the new version");
    let _update = Running::start(world.back_end(&[
        "update",
        DEVICE,
        &server.url("/new"),
        "--check",
        "95322d7f",
    ]));
    until(|| lines(reboots.clone()) == 1);
    assert_eq!(phase(&world), Some(json!("rebooting")));
    first.signal("KILL");
    first.wait();
    let second = agent();
    until(|| lines(reboots.clone()) == 2);
    assert_eq!(phase(&world), Some(json!("rebooting")));
    assert_eq!(world.installed(), b"the new version");
    second.stop("TERM");
}

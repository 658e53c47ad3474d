//! An updater in a process of its own: one that can be killed, whose disk can be full, whose clock can jump.
//!
//! A test that uses it has a test `child` that calls [`child`], and is run again with only that.

use super::pattern::image;
use serde_json::{Value, json};
use std::{
    env, fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{self, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};
use twinflash::{
    contract::Contract,
    device::{Outbound, Updater},
    download::HttpOptions,
    install::{
        FileInstall, Installer, Restart, Running, Slot, SlotsInstall, SlotsOptions, Switch, UBoot,
    },
    tls::Roots,
    twin,
    update::{Confirm, Policy},
};

const CHILD: &str = "TWINFLASH_TEST_CHILD";
pub const CHECKPOINT: u64 = 64 << 10;

/// How an image is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    File,
    /// Two image files and a link.
    Link,
    /// Two image files and a U-Boot environment, changed by the real `fw_setenv`.
    UBoot,
}

/// A device: where its files lie, and how it is updated by the contract `iothub-dm`.
#[derive(Debug, Clone)]
pub struct Setup {
    pub how: How,
    /// The process ends for the new version to be started.
    pub exits: bool,
    /// What is not the device's: its twin, how it ended. Never in trouble.
    pub work: PathBuf,
    pub state: PathBuf,
    /// The directory of the target, or of the slots.
    pub place: PathBuf,
    /// `maxSize` in bytes. In seconds: `retryTime`, `stallTime`, `confirmTime`; the last also makes the file `confirm` in
    /// `work` the confirmation. `authority`: the PEM file of the server's certificate authority.
    pub policy: Value,
}

impl Setup {
    pub fn new(how: How, root: &Path) -> Self {
        let setup = Self {
            how,
            exits: false,
            work: root.join("work"),
            state: root.join("state"),
            place: root.join("place"),
            policy: json!({}),
        };
        fs::create_dir_all(&setup.work).unwrap();
        setup
    }

    /// Installs the first image.
    pub fn first(&self, old: &[u8]) {
        fs::create_dir_all(&self.place).unwrap();
        match self.how {
            How::File => fs::write(self.place.join("app.bin"), old).unwrap(),
            How::Link => {
                fs::write(self.place.join("a"), old).unwrap();
                symlink("a", self.place.join("app.bin")).unwrap();
            }
            How::UBoot => {
                fs::write(self.place.join("a"), old).unwrap();
                let at = |name: &str| self.place.join(name);
                let mut config = String::new();
                for copy in ["env0", "env1"] {
                    fs::write(at(copy), [0; 0x4000]).unwrap();
                    config += &format!("{} 0x0 0x4000\n", at(copy).display());
                }
                fs::write(self.environment(), config).unwrap();
                fs::write(at("initial"), "boot_slot=a\nbootlimit=3\n").unwrap();
                fs::write(at("more"), "bootcount=0\n").unwrap();
                let mut made = Command::new("fw_setenv");
                made.arg("-c").arg(self.environment());
                made.arg("-f").arg(at("initial")).arg("-s").arg(at("more"));
                assert!(made.status().unwrap().success());
            }
        }
    }

    fn environment(&self) -> PathBuf {
        self.place.join("fw_env.config")
    }

    /// What would run after a restart.
    pub fn target(&self) -> Vec<u8> {
        let slot = match self.how {
            How::File | How::Link => "app.bin".to_owned(),
            How::UBoot => {
                let mut print = Command::new("fw_printenv");
                print.arg("-c").arg(self.environment());
                let printed = print.args(["-n", "boot_slot"]).output().unwrap();
                assert!(printed.status.success(), "{printed:?}");
                String::from_utf8(printed.stdout).unwrap().trim().to_owned()
            }
        };
        fs::read(self.place.join(slot)).expect("there is always a target")
    }

    fn installer(&self) -> Box<dyn Installer> {
        let restart = match self.exits {
            true => Restart::Exit,
            false => Restart::None,
        };
        let switch = match self.how {
            How::File => {
                let file = FileInstall::new(self.place.join("app.bin"));
                return Box::new(file.restart(restart));
            }
            How::Link => Switch::Link(self.place.join("app.bin")),
            How::UBoot => Switch::UBoot(UBoot {
                config: Some(self.environment()),
                ..UBoot::default()
            }),
        };
        let slots = ["a", "b"].map(|name| Slot::new(name, self.place.join(name)));
        let mut options = SlotsOptions::new(slots, switch);
        if self.how == How::UBoot {
            options.running = Running::UBootVariable("boot_slot".into());
        }
        options.restart = restart;
        options.read_back = true;
        Box::new(SlotsInstall::new(&self.state, options).unwrap())
    }

    /// The reported properties, as the hub has them.
    pub fn twin(&self) -> Value {
        let text = fs::read(self.work.join("twin"));
        text.map_or(json!({}), |text| serde_json::from_slice(&text).unwrap())
    }

    /// What the twin says of the update.
    pub fn status(&self) -> String {
        let status = &self.twin()["iothubDM"]["firmwareUpdate"]["status"];
        status.as_str().unwrap_or_default().to_owned()
    }

    /// The code of the failure the twin tells.
    pub fn error(&self) -> String {
        let error = &self.twin()["iothubDM"]["firmwareUpdate"]["error"];
        error["code"].as_str().unwrap_or_default().to_owned()
    }

    /// How the last process saw its update end; `None` while it runs.
    pub fn outcome(&self) -> Option<String> {
        fs::read_to_string(self.work.join("outcome")).ok()
    }

    /// Starts a process. It makes the request, if there is one: if nothing was ever asked for, or, if
    /// `again`, where nothing runs. It ends with the update.
    pub fn start(&self, ask: Option<Value>, again: bool) -> Child {
        self.start_with(ask, again, |_| {})
    }

    pub fn start_with(
        &self,
        ask: Option<Value>,
        again: bool,
        more: impl FnOnce(&mut Command),
    ) -> Child {
        let how = format!("{:?}", self.how);
        let argument = json!({
            "how": how, "exits": self.exits, "work": self.work, "state": self.state,
            "place": self.place, "policy": self.policy, "ask": ask, "again": again,
        });
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["child", "--exact", "--nocapture"])
            .env(CHILD, argument.to_string())
            .stdout(Stdio::null())
            .process_group(0);
        more(&mut command);
        let _ = fs::remove_file(self.work.join("outcome"));
        Child(command.spawn().unwrap())
    }

    /// Starts processes until one says how the update ended.
    pub fn finish(&self, ask: Option<Value>, again: bool) -> String {
        let mut ask = ask;
        for _ in 0..4 {
            let status = self.start(ask.take(), again).end();
            assert!(status.success(), "{status}");
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
        }
        panic!("no outcome; {}", self.twin());
    }
}

/// A process; killed where the test ends before it.
pub struct Child(process::Child);

impl Child {
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    /// Waits until it ends by itself.
    pub fn end(mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process does not end");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// SIGKILL to it and to every program it has started.
    pub fn kill_all(&mut self) {
        // Once it has ended its id may be another's.
        if self.ended().is_none() {
            let group = format!("-{}", self.0.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        }
        self.kill();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A request for an image.
pub fn request(uri: &str, image: &[u8]) -> Value {
    let crc = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM).checksum(image);
    json!({"fwPackageUri": uri, "fwPackageCheckValue": format!("{crc:x}")})
}

/// The process itself; returns at once where it is none.
pub fn child() {
    let Some(argument) = env::var_os(CHILD) else {
        return;
    };
    let argument: Value = serde_json::from_str(argument.to_str().unwrap()).unwrap();
    let path = |name: &str| PathBuf::from(argument[name].as_str().unwrap());
    let seconds = |name: &str| {
        let seconds = argument["policy"][name].as_f64();
        seconds.map(Duration::from_secs_f64)
    };
    let setup = Setup {
        how: match argument["how"].as_str().unwrap() {
            "File" => How::File,
            "Link" => How::Link,
            _ => How::UBoot,
        },
        exits: argument["exits"].as_bool().unwrap(),
        work: path("work"),
        state: path("state"),
        place: path("place"),
        policy: argument["policy"].clone(),
    };
    let mut policy = Policy::default();
    policy.allow_http = true;
    policy.checkpoint_bytes = CHECKPOINT;
    policy.retry.first = Duration::from_millis(10);
    policy.retry.time = seconds("retryTime").unwrap_or(policy.retry.time);
    policy.max_size = argument["policy"]["maxSize"]
        .as_u64()
        .unwrap_or(policy.max_size);
    policy.stall_time = seconds("stallTime").unwrap_or(policy.stall_time);
    // Every start counts, and every begun installation; and many are killed.
    policy.confirm_attempts = 1000;
    policy.apply_attempts = 1000;
    if let Some(time) = seconds("confirmTime") {
        policy.confirm = Confirm::Call;
        policy.confirm_time = time;
    }
    let calls = policy.confirm == Confirm::Call;
    let contract = Contract::built_in("iothub-dm").unwrap();
    let builder = Updater::builder(&setup.state, contract, setup.installer()).policy(policy);
    let mut http = HttpOptions::default();
    if let Some(file) = argument["policy"]["authority"].as_str() {
        http.roots = Roots::from_pem_file(file).unwrap();
    }
    let log = setup.work.join("log");
    let builder = builder.http(http).on_event(move |event| {
        use std::io::Write;
        let file = fs::OpenOptions::new().create(true).append(true).open(&log);
        writeln!(file.unwrap(), "{event:?}").unwrap();
    });
    let updater = match builder.start() {
        Ok(updater) => Arc::new(updater),
        Err(failure) => {
            let refused = format!("{}: {failure}", failure.code);
            fs::write(setup.work.join("refused"), refused).unwrap();
            process::exit(3);
        }
    };
    let hub = Arc::downgrade(&updater);
    let (work, reported) = (setup.work.clone(), Mutex::new(setup.twin()));
    updater.on_outbound(move |outbound| {
        let Some(updater) = hub.upgrade() else { return };
        let mut reported = reported.lock().unwrap();
        match outbound {
            Outbound::Report(report) => {
                twin::merge(&mut reported, &serde_json::from_str(&report.patch).unwrap());
                fs::write(work.join("twin.new"), reported.to_string()).unwrap();
                fs::rename(work.join("twin.new"), work.join("twin")).unwrap();
                updater.report_done(report.id, 204);
            }
            Outbound::ReadTwin => {
                let document = json!({"desired": {"$version": 1}, "reported": *reported});
                updater.handle_twin(true, document.to_string().as_bytes());
            }
        }
    });
    updater.connected(true);
    let status = updater.status();
    let (runs, ended) = (status.phase.is_some(), status.outcome.is_some());
    let again = argument["again"] == true;
    match &argument["ask"] {
        ask if !ask.is_null() && !runs && (again || !ended) => {
            let payload = ask.to_string();
            let answered = setup.work.join("answer");
            updater.handle_method_then("firmwareUpdate", payload.as_bytes(), move |answer| {
                fs::write(answered, format!("{} {}", answer.status, answer.payload)).unwrap();
            });
        }
        _ if !runs && !ended => {
            thread::sleep(Duration::from_millis(200));
            return fs::write(setup.work.join("outcome"), "none").unwrap();
        }
        _ => {}
    }
    let confirmation = setup.work.join("confirm");
    let deadline = Instant::now() + Duration::from_secs(50);
    let outcome = loop {
        let moment = match calls {
            true => Duration::from_millis(20),
            false => Duration::from_secs(50),
        };
        if confirmation.exists() {
            updater.confirm();
        }
        if let Some(outcome) = updater.wait(moment) {
            break outcome.failure().map_or(outcome.to_string(), |failure| {
                format!("{}: {}", outcome.as_str(), failure.code)
            });
        }
        assert!(Instant::now() < deadline, "no end: {:?}", updater.status());
    };
    updater.close();
    fs::write(setup.work.join("outcome"), outcome).unwrap();
}

/// Three images: what is installed at first, and two that are asked for.
pub fn images() -> [Arc<Vec<u8>>; 3] {
    [(300_000, 1), (1 << 20, 2), (700_000, 3)].map(|(size, seed)| Arc::new(image(size, seed)))
}

//! `cargo xtask bench scale`: a fleet of simulated devices and a hub, two processes on this machine.
//!
//! For each number of devices a hub is started, the fleet connects (TLS, real engines), and a configuration is rolled out to
//! all of it; a tenth of the devices gets a damaged image. Then the hub's metrics and its twins must say exactly that. Memory
//! is the largest the processes had resident (`VmHWM`).
#![expect(
    clippy::indexing_slicing,
    reason = "a member that a JSON value does not have is null"
)]

use super::{Error, Server, make_image};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

/// Per cent of the devices that fail.
const FAIL: u64 = 10;
/// How much memory both processes may have with as many devices, in MiB and devices.
const BUDGET: (u64, u64) = (1536, 10_000);

/// Measures, and prints what came out; whether all was as it should be.
pub(crate) fn scale(arguments: &[&str]) -> bool {
    let mut sizes = vec![1_000, 3_000, 10_000];
    let mut state = false;
    let mut program = None;
    for pair in arguments.chunks(2) {
        let numbers = |list: &str| list.split(',').map(|n| n.parse().ok()).collect();
        match *pair {
            ["--devices", list] => match numbers(list) {
                Some(given) => sizes = given,
                None => return wrong(pair),
            },
            ["--state", "disk"] => state = true,
            ["--state", "memory"] => state = false,
            ["--program", path] => program = Some(path),
            _ => return wrong(pair),
        }
    }
    match measure(&sizes, state, program) {
        Ok(good) => good,
        Err(error) => {
            eprintln!("bench scale: {error}");
            false
        }
    }
}

fn wrong(pair: &[&str]) -> bool {
    eprintln!(
        "bench scale: {pair:?} is none of --devices N,N,…, --state memory|disk and --program FILE"
    );
    false
}

fn measure(sizes: &[u64], state: bool, program: Option<&str>) -> Result<bool, Error> {
    let program = match program {
        Some(program) => fs::canonicalize(program)?,
        None => build()?,
    };
    // On the disk the build is on: a directory in memory would have nothing to sync.
    let directory = tempfile::Builder::new()
        .prefix("scale-")
        .tempdir_in(fs::canonicalize("target")?)?;
    make_image(&directory.path().join("image.bin"), 1)?;
    let server = Server::own(directory.path())?;
    println!(
        "state {}, {FAIL} % of the devices fail",
        if state { "on disk" } else { "in memory" }
    );
    println!(
        "devices  registered/s  connected/s  updated/s  metrics s  all twins s  hub KiB each  simulate KiB each  both MiB  CPU ms each"
    );
    let mut good = true;
    for devices in sizes {
        let world = World {
            program: &program,
            directory: directory.path(),
            url: format!("{}/image.bin", server.http),
            devices: *devices,
            state: state.then(|| directory.path().join(format!("state-{devices}"))),
        };
        good &= world.run()?;
    }
    Ok(good)
}

fn build() -> Result<PathBuf, Error> {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "-p", "twinflash-cli"])
        .status()?;
    if !built.success() {
        return Err("the command does not build".into());
    }
    Ok(fs::canonicalize("target/release/twinflash")?)
}

struct World<'a> {
    program: &'a Path,
    directory: &'a Path,
    url: String,
    devices: u64,
    state: Option<PathBuf>,
}

impl World<'_> {
    fn run(&self) -> Result<bool, Error> {
        let devices = self.devices;
        let mut hub = Command::new(self.program);
        hub.args([
            "hub",
            "--json",
            "--quiet",
            "--mqtt-port",
            "0",
            "--https-port",
            "0",
        ]);
        if let Some(state) = &self.state {
            hub.arg("--state").arg(state);
        }
        let mut hub = Process::start(&mut hub)?;
        let ready = hub.line("ready", |_| true)?;
        let text = |name: &str| ready[name].as_str().unwrap_or_default().to_owned();
        let (ca, service) = (text("ca"), text("serviceConnectionString"));
        let command = |arguments: &[&str]| {
            let mut command = Command::new(self.program);
            command
                .args(arguments)
                .args(["--json", "--ca", &ca])
                .env("TWINFLASH_SERVICE", &service);
            command
        };
        let (port, fail) = (ready["mqttPort"].to_string(), FAIL.to_string());
        let mut fleet = command(&[
            "simulate",
            "--allow-http",
            "--mqtt-port",
            &port,
            "--fail",
            &fail,
        ]);
        fleet.args([
            "--devices",
            &devices.to_string(),
            "--tags",
            r#"{"fleet": true}"#,
        ]);
        let mut fleet = Process::start(&mut fleet)?;
        let registered = fleet.line("ready", |_| true)?;
        fleet.line("fleet", |line| line["connected"] == devices)?;

        let image = self.directory.join("image.bin");
        let image = image.to_string_lossy();
        let mut create = command(&[
            "config", "create", "scale", "--image", &self.url, "--from", &image,
        ]);
        create.args([
            "--version",
            "2.0.0",
            "--contract",
            "configuration",
            "--target",
            "tags.fleet = true",
        ]);
        ask(&mut create)?;
        let failing = devices * FAIL / 100;
        fleet.line("fleet", |line| {
            line["completed"].as_u64().zip(line["failed"].as_u64())
                == Some((devices - failing, failing))
        })?;
        // The hub has been told of the last ones, too.
        let begun = Instant::now();
        let (metrics, took) = loop {
            let asked = Instant::now();
            let shown = ask(&mut command(&["config", "show", "scale"]))?.remove(0);
            let took = asked.elapsed();
            let right = shown["metrics"]["results"]["Current"] == devices - failing
                && shown["metrics"]["results"]["Error"] == failing
                && shown["systemMetrics"]["results"]["targetedCount"] == devices
                && shown["systemMetrics"]["results"]["appliedCount"] == devices;
            if right || begun.elapsed() > Duration::from_secs(10) {
                if !right {
                    println!(
                        "metrics: {} {}",
                        shown["systemMetrics"]["results"], shown["metrics"]["results"]
                    );
                }
                break (right, took);
            }
        };
        let asked = Instant::now();
        let twins = ask(&mut command(&[
            "query",
            "SELECT * FROM devices WHERE tags.fleet = true",
        ]))?;
        let query = asked.elapsed();
        let memory = (hub.memory()?, fleet.memory()?);
        let cpu = hub.cpu()? + fleet.cpu()?;
        fleet.signal("INT")?;
        let ended = fleet.line("ended", |_| true)?;
        let stopped = fleet.child.wait()?;
        hub.signal("TERM")?;
        let closed = hub.child.wait()?;

        let rate = |seconds: &Value| devices as f64 / seconds.as_f64().unwrap_or(f64::NAN);
        println!(
            "{devices:7}  {:12.0}  {:11.0}  {:9.0}  {:9.2}  {:11.2}  {:12}  {:17}  {:8}  {:11.1}",
            rate(&registered["seconds"]),
            rate(&ended["connectSeconds"]),
            rate(&ended["updateSeconds"]),
            took.as_secs_f64(),
            query.as_secs_f64(),
            memory.0 / devices,
            memory.1 / devices,
            (memory.0 + memory.1) / 1024,
            cpu * 1000.0 / devices as f64,
        );
        let (most, of) = BUDGET;
        let mut good = true;
        for (right, what) in [
            (metrics, "the configuration's metrics are wrong"),
            (twins.len() as u64 == devices, "twins are missing"),
            (
                ended["unplanned"] == 0,
                "devices ended otherwise than they were to",
            ),
            (stopped.success() && closed.success(), "a process failed"),
            (
                devices > of || (memory.0 + memory.1) / 1024 <= most,
                "that is more memory than 1.5 GiB",
            ),
        ] {
            if !right {
                println!("{devices} devices: {what}");
                good = false;
            }
        }
        Ok(good)
    }
}

/// Runs a command to its end: its lines.
fn ask(command: &mut Command) -> Result<Vec<Value>, Error> {
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {said}").into());
    }
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    Ok(lines
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()?)
}

/// A running command that prints JSON; killed when dropped.
struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(command: &mut Command) -> Result<Self, Error> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().ok_or("no standard output")?;
        Ok(Self {
            child,
            lines: BufReader::new(out).lines(),
        })
    }

    /// The next line of an event that is as wanted.
    fn line(&mut self, event: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, Error> {
        for line in &mut self.lines {
            let line: Value = serde_json::from_str(&line?)?;
            if line["event"] == event && wanted(&line) {
                return Ok(line);
            }
        }
        Err(format!("it ended before {event:?}").into())
    }

    fn proc(&self, file: &str) -> Result<String, Error> {
        Ok(fs::read_to_string(format!(
            "/proc/{}/{file}",
            self.child.id()
        ))?)
    }

    /// The most memory it has had, in KiB.
    fn memory(&self) -> Result<u64, Error> {
        let status = self.proc("status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse().ok());
        Ok(peak.ok_or("/proc has no VmHWM: this needs Linux")?)
    }

    /// The processor time it has had, in seconds.
    fn cpu(&self) -> Result<f64, Error> {
        let stat = self.proc("stat")?;
        // After the name in brackets the state comes first; utime and stime are twelfth and thirteenth, in hundredths.
        let fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let ticks: f64 = fields
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<f64>().ok())
            .sum();
        Ok(ticks / 100.0)
    }

    fn signal(&self, name: &str) -> Result<(), Error> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status()?;
        if sent.success() {
            Ok(())
        } else {
            Err("cannot stop it".into())
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

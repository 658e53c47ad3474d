//! A hub and two agents, each a process, through update after update: servers cut downloads short,
//! lines to the hub break, and one of the agents is killed. The hub and the other agent live through
//! all of it, and must not grow.

use super::{Ending, Error, Outcome, Random, Slot, Soak};
use serde_json::Value;
use server::{Reply, Server};
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing
)]
#[path = "../../../core/tests/support/server.rs"]
mod server;

/// The images that are installed in turn.
const IMAGES: u64 = 4;
const SIZE: usize = 600_000;
/// What an update may take, whatever happens to it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Before so many updates nothing is said of growth: buffers and caches fill up first.
const WARM: u64 = 5;
/// So much more than at the first is growth.
const MORE_KIB: u64 = 16 * 1024;
const MORE_DESCRIPTORS: u64 = 16;

/// What all threads share.
struct World {
    program: PathBuf,
    directory: PathBuf,
    service: String,
    ca: String,
    images: Vec<Vec<u8>>,
    /// The SHA-256 of each.
    checks: Vec<String>,
    firmware: String,
    /// The rest of the time.
    slot: Slot,
    failed: AtomicBool,
    updates: AtomicU64,
    kills: AtomicU64,
    broken: Arc<AtomicU64>,
    cut: Arc<AtomicU64>,
}

/// How large a process was at first and is now.
#[derive(Default)]
struct Size {
    first: Option<(u64, u64)>,
    last: (u64, u64),
}

impl Size {
    fn look(&mut self, process: u32) -> io::Result<()> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = kib.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok());
        let descriptors = fs::read_dir(format!("/proc/{process}/fd"))?.count() as u64;
        self.last = (kib.unwrap_or_default(), descriptors);
        self.first.get_or_insert(self.last);
        Ok(())
    }

    fn has_grown(&self) -> bool {
        let (kib, descriptors) = self.first.unwrap_or_default();
        self.last.0 > kib + kib / 2 + MORE_KIB || self.last.1 > descriptors + MORE_DESCRIPTORS
    }

    fn shown(&self) -> String {
        let (kib, descriptors) = self.first.unwrap_or_default();
        format!(
            "{:.1} to {:.1} MiB and {descriptors} to {} descriptors",
            kib as f64 / 1024.0,
            self.last.0 as f64 / 1024.0,
            self.last.1
        )
    }
}

pub(super) fn run(soak: &Soak, time: Duration) -> Result<Outcome, Error> {
    let built = soak
        .cargo(&["build", "--quiet", "-p", "twinflash-cli"])
        .status()?;
    if !built.success() {
        return Err("the command does not build".into());
    }
    let program = soak.target.join("debug/twinflash");
    let mut kept = tempfile::Builder::new()
        .prefix("whole-")
        .tempdir_in(&soak.directory)?;
    let directory = kept.path().to_path_buf();

    let mut hub = command(&program);
    hub.args([
        "hub", "--json", "--device", "steady", "--device", "killed", "--state",
    ])
    .arg(directory.join("hub"))
    .args(["--mqtt-port", "0", "--https-port", "0"]);
    let mut hub = Ending(
        hub.stdout(Stdio::piped())
            .stderr(log(&directory, "hub")?)
            .spawn()?,
    );
    let mut lines = BufReader::new(hub.0.stdout.take().ok_or("no output")?).lines();
    let ready: Value = serde_json::from_str(&lines.next().ok_or("the hub does not start")??)?;
    // Nobody stops reading what it prints.
    thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    let text = |pointer: &str| {
        let found = ready.pointer(pointer).and_then(Value::as_str);
        found
            .map(str::to_owned)
            .ok_or_else(|| format!("the hub does not say {pointer}"))
    };

    let images: Vec<Vec<u8>> = (0..IMAGES).map(image).collect();
    let mut checks = Vec::new();
    for image in &images {
        let file = directory.join("image");
        fs::write(&file, image)?;
        let said = Command::new("sha256sum").arg(&file).output()?;
        let said = String::from_utf8(said.stdout)?;
        let digits = said.split(' ').next().unwrap_or_default();
        checks.push(format!("sha256:{digits}"));
    }
    let cut = Arc::new(AtomicU64::new(0));
    let server = firmware(images.clone(), soak.seed, cut.clone());
    let world = World {
        program,
        service: text("/serviceConnectionString")?,
        ca: text("/ca")?,
        checks,
        images,
        firmware: server.url(""),
        slot: Slot::begin(time),
        failed: AtomicBool::new(false),
        updates: AtomicU64::new(0),
        kills: AtomicU64::new(0),
        broken: Arc::default(),
        cut,
        directory,
    };
    let mqtt = ready
        .pointer("/mqttPort")
        .and_then(Value::as_u64)
        .unwrap_or_default();
    let (hub_size, agent_size) = (Mutex::new(Size::default()), Mutex::new(Size::default()));
    let hub_process = hub.0.id();
    let look = |size: &Mutex<Size>, process| match size.lock() {
        Ok(mut size) => size.look(process),
        Err(_) => Ok(()),
    };
    let device = |name: &str, steady: bool| -> Result<(), Error> {
        let connection = text(&format!("/devices/{name}"))?;
        let seed = soak.seed ^ u64::from(steady);
        let port = break_lines(u16::try_from(mqtt)?, seed, world.broken.clone())?;
        let connection = format!("{connection};GatewayHostName=localhost:{port}");
        live(soak, &world, name, &connection, |process, updates| {
            if steady && updates >= WARM {
                look(&agent_size, process)?;
                look(&hub_size, hub_process)?;
            }
            Ok(())
        })
    };
    let results = thread::scope(|scope| {
        let run = |name: &'static str, steady: bool| {
            let result = device(name, steady).map_err(|error| format!("{name}: {error}"));
            if result.is_err() {
                world.failed.store(true, Ordering::Relaxed);
            }
            result
        };
        let killed = scope.spawn(move || run("killed", false));
        let steady = run("steady", true);
        let killed = killed
            .join()
            .unwrap_or_else(|_| Err("killed: a panic".into()));
        steady.and(killed)
    });
    let size = |size: Mutex<Size>| size.into_inner().unwrap_or_default();
    let (hub_size, agent_size) = (size(hub_size), size(agent_size));
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let figures = format!(
        "{} updates, {} kills, {} lines broken, {} downloads cut; hub {}; agent {}",
        count(&world.updates),
        count(&world.kills),
        count(&world.broken),
        count(&world.cut),
        hub_size.shown(),
        agent_size.shown()
    );
    let wrong = match results {
        Err(error) => Some(error),
        Ok(_) if hub_size.has_grown() => Some("the hub grows".into()),
        Ok(_) if agent_size.has_grown() => Some("the agent grows".into()),
        Ok(_) => None,
    };
    let Some(wrong) = wrong else {
        return Ok(Outcome::Good(figures));
    };
    // With what each process said.
    kept.disable_cleanup(true);
    let (kept, seed) = (kept.path().display(), soak.seed);
    Ok(Outcome::Failed(format!(
        "{wrong}; {figures}; logs in {kept}; again: cargo xtask soak --only hub --seed {seed}"
    )))
}

/// The program, out of reach of the terminal's Ctrl-C: it ends when its handle goes.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.process_group(0).stdin(Stdio::null());
    command
}

/// An image that does not compress, another one for each number.
fn image(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    (0..SIZE / 8)
        .flat_map(|_| random.below(u64::MAX).to_le_bytes())
        .collect()
}

fn log(directory: &Path, name: &str) -> io::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(directory.join(format!("{name}.log")))
}

/// Serves the images by their number; every third time not to the end.
fn firmware(images: Vec<Vec<u8>>, seed: u64, cut: Arc<AtomicU64>) -> Server {
    let random = Mutex::new(Random(seed));
    Server::http(move |reply: &mut Reply| {
        let path = reply.asked.path.trim_start_matches('/');
        let image = path
            .parse()
            .ok()
            .and_then(|number: usize| images.get(number));
        let Some(image) = image else {
            return reply.empty("404 Not Found", &[]);
        };
        let choose = |limit: u64| random.lock().map_or(1, |mut random| random.below(limit));
        let most = match choose(3) {
            0 => {
                cut.fetch_add(1, Ordering::Relaxed);
                usize::try_from(choose(SIZE as u64)).unwrap_or(SIZE)
            }
            _ => usize::MAX,
        };
        reply.pause = Duration::from_millis(2);
        let etag = format!("\"{path}\"");
        reply.serve(image, Some(&etag), most);
    })
}

/// A way to the hub whose connections break after a while; its port.
fn break_lines(hub: u16, seed: u64, broken: Arc<AtomicU64>) -> Result<u16, Error> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        let mut random = Random(seed);
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(("127.0.0.1", hub)) else {
                continue;
            };
            let life = Duration::from_millis(2000 + random.below(20_000));
            let broken = broken.clone();
            thread::spawn(move || {
                if carry(&near, &far, life).is_ok_and(|whole| !whole) {
                    broken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    Ok(port)
}

/// Carries bytes both ways, for so long; whether the connection ended by itself.
fn carry(near: &TcpStream, far: &TcpStream, life: Duration) -> io::Result<bool> {
    let ended = Arc::new(AtomicBool::new(false));
    for (from, to) in [(near, far), (far, near)] {
        let (mut from, mut to, ended) = (from.try_clone()?, to.try_clone()?, ended.clone());
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
            ended.store(true, Ordering::Relaxed);
        });
    }
    let end = Instant::now() + life;
    while Instant::now() < end && !ended.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
    }
    let whole = ended.load(Ordering::Relaxed);
    let _ = near.shutdown(Shutdown::Both);
    let _ = far.shutdown(Shutdown::Both);
    Ok(whole)
}

/// An agent, and the back end that asks it for update after update. `after` each, it is told the
/// agent's process and the number of updates.
fn live(
    soak: &Soak,
    world: &World,
    name: &str,
    connection: &str,
    mut after: impl FnMut(u32, u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let is_killed = name == "killed";
    let target = world.directory.join(format!("{name}.bin"));
    let config = world.directory.join(format!("{name}.toml"));
    let ca = &world.ca;
    fs::write(&target, world.images.last().ok_or("no image")?)?;
    fs::write(
        &config,
        format!(
            "connection_string = \"{connection}\"\nca = \"{ca}\"\nstate_dir = \"{name}\"\n\
             [install]\nfile = \"{name}.bin\"\n[policy]\nallow_http = true\nretry_first = 0.05\n\
             retry_longest = 0.5\nretry_sizes = 1000\ncheckpoint_bytes = 65536\nprogress_interval = 1\n\
             apply_attempts = 1000\nconfirm_attempts = 1000\n"
        ),
    )?;
    let start = || -> Result<Ending, Error> {
        let mut command = command(&world.program);
        command.args(["device", "--json", "--config"]).arg(&config);
        command.env_remove("TWINFLASH_DEVICE");
        let log = log(&world.directory, name)?;
        Ok(Ending(
            command.stdout(log.try_clone()?).stderr(log).spawn()?,
        ))
    };
    let mut random = Random(soak.seed ^ u64::from(is_killed));
    let mut agent = start()?;
    let mut before = world.images.last().ok_or("no image")?;
    let mut updates = 0;
    let goes_on = || !soak.stopped() && !world.failed.load(Ordering::Relaxed);
    while !world.slot.left().is_zero() {
        let number = usize::try_from(updates % IMAGES)?;
        let (Some(image), Some(check)) = (world.images.get(number), world.checks.get(number))
        else {
            return Err("no image".into());
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut ask = command(&world.program);
            ask.args(["update", name, &format!("{}/{number}", world.firmware)])
                .args(["--check", check, "--json", "--ca", ca])
                .env("TWINFLASH_SERVICE", &world.service);
            let log = log(&world.directory, "back-end")?;
            let mut ask = Ending(ask.stdout(log.try_clone()?).stderr(log).spawn()?);
            let mut kill = (is_killed && random.below(2) == 0)
                .then(|| Instant::now() + Duration::from_millis(random.below(2500)));
            while ask.0.try_wait()?.is_none() {
                if !goes_on() {
                    return Ok(());
                }
                if Instant::now() > deadline {
                    return Err(format!("update {updates} has no end").into());
                }
                if kill.is_some_and(|at| Instant::now() >= at) {
                    kill = None;
                    drop(agent);
                    world.kills.fetch_add(1, Ordering::Relaxed);
                    agent = start()?;
                }
                let found = fs::read(&target)?;
                if found != *before && found != *image {
                    return Err(format!("{} bytes that are no image", found.len()).into());
                }
                thread::sleep(Duration::from_millis(10));
            }
            if let Some(status) = agent.0.try_wait()? {
                return Err(format!("the agent ended: {status}").into());
            }
            if fs::read(&target)? == *image {
                break;
            }
            // It was refused: the device is away, or still busy with the end of the last one.
            thread::sleep(Duration::from_millis(200));
        }
        before = image;
        updates += 1;
        world.updates.fetch_add(1, Ordering::Relaxed);
        after(agent.0.id(), updates)?;
    }
    Ok(())
}

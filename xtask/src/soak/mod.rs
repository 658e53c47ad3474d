//! `cargo xtask soak`: what only chance and time find, with figures at the end.
//!
//! Each part gets a share of the time, in turn; building is not counted. Ctrl-C ends the part that
//! runs, and what there is until then is shown.

mod parts;
mod whole;

use signal_hook::consts::{SIGINT, SIGTERM};
use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

type Error = Box<dyn std::error::Error>;

/// What a part came to.
enum Outcome {
    /// Figures.
    Good(String),
    /// Why there is nothing to run.
    Absent(String),
    /// What is wrong, and how it is played again.
    Failed(String),
}

struct Part {
    name: &'static str,
    /// Its share of the time that is left, beside the shares of those still to come.
    share: u32,
    run: fn(&Soak, Duration) -> Result<Outcome, Error>,
}

const fn part(
    name: &'static str,
    share: u32,
    run: fn(&Soak, Duration) -> Result<Outcome, Error>,
) -> Part {
    Part { name, share, run }
}

const PARTS: &[Part] = &[
    part("engine, each blow and pair of blows", 2, parts::engine),
    part("simulated world, faults at random", 4, parts::world),
    part("a process killed during updates", 4, parts::kills),
    part("hub and agents, a long life", 6, whole::run),
    part("fuzz targets", 5, parts::fuzz),
];

/// What every part needs to know.
struct Soak {
    root: PathBuf,
    target: PathBuf,
    /// Logs, and what the parts leave.
    directory: PathBuf,
    seed: u64,
    stop: Arc<AtomicBool>,
}

/// Runs all parts; whether all went well.
pub(crate) fn run(arguments: &[&str]) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut seed = now.map_or(1, |now| now.as_secs());
    let mut minutes = 10;
    let mut only = "";
    for pair in arguments.chunks(2) {
        let value = pair.get(1).and_then(|value| value.parse::<u64>().ok());
        match (pair, value) {
            (["--only", word], _) => only = word,
            (["--minutes", _], Some(value @ 1..)) => minutes = value,
            (["--seed", _], Some(value)) => seed = value,
            _ => {
                eprintln!("soak: {pair:?} is no option with its value");
                return false;
            }
        }
    }
    let parts: Vec<&Part> = PARTS
        .iter()
        .filter(|part| part.name.contains(only))
        .collect();
    let time = Duration::from_secs(minutes.saturating_mul(60));
    soak(&parts, time, seed).unwrap_or_else(|error| {
        eprintln!("soak: {error}");
        false
    })
}

fn soak(parts: &[&Part], time: Duration, seed: u64) -> Result<bool, Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("no workspace")?;
    let target = root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into()));
    let directory = target.join("soak");
    fs::create_dir_all(&directory)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let soak = Soak {
        root: root.into(),
        target,
        directory,
        seed,
        stop,
    };
    println!("soak: {} minutes, seed {seed}", time.as_secs() / 60);
    let mut rows = Vec::new();
    let mut left = time;
    let mut shares: u32 = parts.iter().map(|part| part.share).sum();
    for part in parts {
        if soak.stopped() {
            break;
        }
        let slot = left * part.share / shares;
        shares -= part.share;
        println!("\n==== {} ({} s)", part.name, slot.as_secs());
        let outcome = (part.run)(&soak, slot)
            .unwrap_or_else(|error| Outcome::Failed(format!("it could not be run: {error}")));
        // One that is absent, or has no more to do, leaves its time to the others.
        left = left.saturating_sub(match &outcome {
            Outcome::Absent(_) => Duration::ZERO,
            _ => slot,
        });
        println!("==== {}", row(part.name, &outcome));
        rows.push((part.name, outcome));
    }
    let processors = thread::available_parallelism().map_or(0, usize::from);
    println!(
        "\nsoak: seed {seed}, {processors} processors, {:.0} GiB{}",
        parts::memory_gib(),
        if soak.stopped() {
            ", stopped early"
        } else {
            ""
        }
    );
    for (name, outcome) in &rows {
        println!("{}", row(name, outcome));
    }
    Ok(!rows
        .iter()
        .any(|(_, outcome)| matches!(outcome, Outcome::Failed(_))))
}

fn row(name: &str, outcome: &Outcome) -> String {
    let (word, text) = match outcome {
        Outcome::Good(figures) => ("ok", figures),
        Outcome::Absent(why) => ("absent", why),
        Outcome::Failed(why) => ("FAILED", why),
    };
    format!("{word:6}  {name:36}  {text}")
}

/// A command that has ended.
struct Done {
    good: bool,
    /// By itself.
    ended: bool,
    output: String,
    log: PathBuf,
}

impl Done {
    /// The end of what it said, and where all of it is.
    fn tail(&self) -> String {
        let lines: Vec<&str> = self.output.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(40)..).unwrap_or(&[]);
        format!("{}\nall of it: {}", tail.join("\n"), self.log.display())
    }
}

impl Soak {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
        command.args(arguments).current_dir(&self.root);
        command
    }

    /// Runs a command to its end. What it says goes to a log.
    fn execute(&self, name: &str, command: &mut Command) -> Result<Done, Error> {
        self.execute_within(Duration::MAX, name, command)
    }

    /// Runs a command to its end, or until its time is over or the soak is stopped.
    fn execute_within(
        &self,
        time: Duration,
        name: &str,
        command: &mut Command,
    ) -> Result<Done, Error> {
        let log = self.directory.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        let mut child = Ending(child);
        let slot = Slot::begin(time);
        let status = loop {
            match child.0.try_wait()? {
                Some(status) => break Some(status),
                None if self.stopped() || slot.left().is_zero() => break None,
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        Ok(Done {
            // What was stopped did not fail.
            good: status.is_none_or(|status| status.success()) || self.stopped(),
            ended: status.is_some(),
            output: String::from_utf8_lossy(&fs::read(&log)?).into_owned(),
            log,
        })
    }
}

/// A process that ends with its handle.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }
}

/// What is left of a part's time.
struct Slot(Instant, Duration);

impl Slot {
    fn begin(time: Duration) -> Self {
        Self(Instant::now(), time)
    }

    fn left(&self) -> Duration {
        self.1.saturating_sub(self.0.elapsed())
    }
}

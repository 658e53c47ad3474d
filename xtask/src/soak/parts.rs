//! The parts that are tests and fuzz targets, run again and again.

use super::{Done, Error, Outcome, Slot, Soak};
use serde_json::Value;
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Builds a test of the core; its program.
fn test(soak: &Soak, name: &str) -> Result<PathBuf, Error> {
    build(soak, &["--test", name], name)
}

fn build(soak: &Soak, which: &[&str], name: &str) -> Result<PathBuf, Error> {
    let mut command = soak.cargo(&["test", "-p", "twinflash", "--all-features"]);
    command.args(which);
    command.args(["--no-run", "--quiet", "--message-format=json"]);
    let built = command.stderr(Stdio::inherit()).output()?;
    if !built.status.success() {
        return Err(format!("the test {name} does not build").into());
    }
    let output = String::from_utf8(built.stdout)?;
    output
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message.pointer("/target/name").and_then(Value::as_str) == Some(name))
        .find_map(|message| Some(message.get("executable")?.as_str()?.into()))
        .ok_or_else(|| format!("the test {name} has no program").into())
}

/// A test's program with `TWINFLASH_FULL`, and how it is run again by hand.
fn full(
    soak: &Soak,
    program: &PathBuf,
    name: &str,
    variables: &[(&str, String)],
) -> (Command, String) {
    let mut command = Command::new(program);
    command
        .arg("--nocapture")
        .current_dir(soak.root.join("core"))
        .env("TWINFLASH_FULL", "1");
    let mut again = String::from("TWINFLASH_FULL=1");
    for (name, value) in variables {
        command.env(name, value);
        again += &format!(" {name}={value}");
    }
    again += &format!(" cargo test -p twinflash --all-features --test {name} -- --nocapture");
    (command, again)
}

fn failed(done: &Done, again: &str) -> Outcome {
    println!("{}", done.tail());
    Outcome::Failed(format!("again: {again}"))
}

/// The engine's exhaustive tests: they are what they are, and run once, as far as time allows.
pub(super) fn engine(soak: &Soak, time: Duration) -> Result<Outcome, Error> {
    let program = test(soak, "engine")?;
    let (mut command, again) = full(soak, &program, "engine", &[]);
    let done = soak.execute_within(time, "engine", &mut command)?;
    if !done.good {
        return Ok(failed(&done, &again));
    }
    let said = |line: &&str| {
        line.starts_with(|c: char| c.is_ascii_digit())
            && ["crashes", "saves", "pairs"]
                .iter()
                .any(|word| line.contains(word))
    };
    let mut figures: Vec<&str> = done.output.lines().filter(said).collect();
    if !done.ended {
        figures.push("cut short");
    }
    Ok(Outcome::Good(figures.join("; ")))
}

/// The simulated world, with seed after seed.
pub(super) fn world(soak: &Soak, time: Duration) -> Result<Outcome, Error> {
    // Among the tests beside the code, for it reaches what is private. Optimised: it is all computing.
    let program = build(soak, &["--release", "--lib"], "twinflash")?;
    let slot = Slot::begin(time);
    let (mut runs, mut all, mut seed) = (10_000, 0, soak.seed);
    while !slot.left().is_zero() && !soak.stopped() {
        let variables = [
            ("TWINFLASH_WORLD_RUNS", u64::to_string(&runs)),
            ("TWINFLASH_WORLD_SEED", u64::to_string(&seed)),
        ];
        let mut command = Command::new(&program);
        command
            .args(["world::seeded_runs", "--nocapture"])
            .current_dir(soak.root.join("core"))
            .envs(variables.iter().map(|(name, value)| (*name, value)));
        let again = "TWINFLASH_WORLD_SEED=(the one above) TWINFLASH_WORLD_RUNS=1 \
                     cargo test -p twinflash --all-features --lib world::seeded_runs";
        let begun = Instant::now();
        let done = soak.execute("world", &mut command)?;
        if !done.good {
            return Ok(failed(&done, again));
        }
        if soak.stopped() {
            break;
        }
        all += runs;
        seed = seed.wrapping_add(runs);
        // Longer ones, as long as they end in time.
        let room = slot.left().as_secs_f64() / begun.elapsed().as_secs_f64().max(0.001);
        if room < 1.0 {
            break;
        }
        runs = (runs as f64 * (room / 2.0).clamp(1.0, 8.0)) as u64;
    }
    Ok(Outcome::Good(format!(
        "{all} random runs from seed {}",
        soak.seed
    )))
}

/// A real process, killed: `core/tests/killed.rs`.
pub(super) fn kills(soak: &Soak, time: Duration) -> Result<Outcome, Error> {
    let program = test(soak, "killed")?;
    let slot = Slot::begin(time);
    let mut seed = soak.seed;
    // Updates, kills, resumed, bytes fetched twice.
    let mut sums = [0; 4];
    let mut rounds = 0;
    let mut longest = Duration::ZERO;
    while (rounds == 0 || slot.left() > longest) && !soak.stopped() {
        let variables = [("TWINFLASH_SEED", seed.to_string())];
        let (mut command, again) = full(soak, &program, "killed", &variables);
        let begun = Instant::now();
        let done = soak.execute("killed", &mut command)?;
        if !done.good {
            return Ok(failed(&done, &again));
        }
        longest = longest.max(begun.elapsed());
        for line in done.output.lines() {
            for (sum, after) in
                sums.iter_mut()
                    .zip(["updates", "kills", "gone on", "bytes fetched"])
            {
                *sum += number_before(line, after).unwrap_or(0);
            }
        }
        rounds += 1;
        seed = seed.wrapping_add(1);
    }
    let [updates, kills, resumed, twice] = sums;
    Ok(Outcome::Good(format!(
        "{updates} updates, {kills} kills, {resumed} resumed from a checkpoint with {} KiB each fetched twice, from seed {}",
        twice / resumed.max(1) / 1024,
        soak.seed
    )))
}

/// The number that stands before a word.
fn number_before(line: &str, word: &str) -> Option<u64> {
    let before = line.split_once(word)?.0.trim_end();
    before
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// Every fuzz target in turn, with libFuzzer.
pub(super) fn fuzz(soak: &Soak, time: Duration) -> Result<Outcome, Error> {
    let fuzz = soak.root.join("fuzz");
    let cargo_fuzz = |arguments: &[&str]| {
        let mut command = soak.cargo(&["fuzz"]);
        // libFuzzer's instrumentation has no stable name; this makes the pinned compiler take it.
        command.args(arguments).env("RUSTC_BOOTSTRAP", "1");
        command
    };
    let listed = cargo_fuzz(&["list", "--fuzz-dir", "fuzz/libfuzzer"]).output()?;
    if !listed.status.success() {
        let how = "cargo-fuzz is missing: cargo install cargo-fuzz --locked";
        return Ok(Outcome::Absent(how.into()));
    }
    let names = String::from_utf8(listed.stdout)?;
    let names: Vec<&str> = names.lines().collect();
    let mut build = cargo_fuzz(&[
        "build",
        "--fuzz-dir",
        "fuzz/libfuzzer",
        "--sanitizer",
        "none",
    ]);
    let built = soak.execute("fuzz-build", &mut build)?;
    if !built.good {
        println!("{}", built.tail());
        return Err("the fuzz targets do not build".into());
    }
    let seconds = (time.as_secs() / names.len().max(1) as u64).max(2);
    let (mut targets, mut cases, mut rss) = (0, 0, 0);
    for name in names {
        if soak.stopped() {
            break;
        }
        let corpus = fuzz.join("libfuzzer/corpus").join(name);
        fs::create_dir_all(&corpus)?;
        let mut run = cargo_fuzz(&[
            "run",
            "--fuzz-dir",
            "fuzz/libfuzzer",
            "--sanitizer",
            "none",
            name,
        ]);
        run.arg(&corpus).arg(fuzz.join("seeds").join(name)).args([
            "--".into(),
            format!("-max_total_time={seconds}"),
            format!("-seed={}", soak.seed % u64::from(u32::MAX)),
            format!(
                "-dict={}",
                fuzz.join(format!("dictionaries/{name}.dict")).display()
            ),
            "-max_len=4096".into(),
            "-timeout=20".into(),
            "-print_final_stats=1".into(),
        ]);
        let done = soak.execute(&format!("fuzz-{name}"), &mut run)?;
        if !done.good {
            let artifact = done
                .output
                .lines()
                .filter_map(|line| line.split_once("Test unit written to "));
            let artifact = artifact
                .map(|(_, file)| file)
                .next_back()
                .unwrap_or("the case in the log");
            let again = format!(
                "RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir fuzz/libfuzzer --sanitizer none {name} {artifact}"
            );
            return Ok(failed(&done, &again));
        }
        let stat = |name: &str| {
            let lines = done.output.lines();
            lines
                .filter_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
                .next_back()
        };
        targets += 1;
        cases += stat("stat::number_of_executed_units:").unwrap_or(0);
        rss = rss.max(stat("stat::peak_rss_mb:").unwrap_or(0));
    }
    Ok(Outcome::Good(format!(
        "{targets} targets, {seconds} s each, {cases} cases, at most {rss} MiB"
    )))
}

/// This machine's memory.
pub(super) fn memory_gib() -> f64 {
    let read = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = read.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = kib.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or_default() / f64::from(1 << 20)
}

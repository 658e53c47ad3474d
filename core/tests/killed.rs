//! A real process, doing a real update over HTTP, killed with SIGKILL at random moments. At every
//! moment the target, a file or one of two slots, is the complete old or new file; in the end the update reaches its end; and
//! what was fetched before the last checkpoint is not fetched again.
//!
//! 20 kills, or 200 and more with `TWINFLASH_FULL`. `TWINFLASH_SEED` plays a run again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod support;

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use support::{pattern::image, server::Server};
use twinflash::{
    contract::Contract,
    device::{Outbound, Updater},
    install::{FileInstall, Installer, Restart, Slot, SlotsInstall, SlotsOptions, Switch},
    journal::{Journal, Loaded},
    update::{Phase, Policy, Record},
};

const CHILD: &str = "TWINFLASH_TEST_KILLED";
const SIZE: usize = 1 << 20;
const CHECKPOINT: u64 = 64 << 10;
/// 2.7 MB/s: an update holds some sixteen checkpoints.
const PIECE: usize = 8 << 10;
const PAUSE: Duration = Duration::from_millis(3);

/// The process that is killed.
#[test]
fn child() {
    let Some(argument) = env::var_os(CHILD) else {
        return;
    };
    let argument = argument.into_string().unwrap();
    let mut parts = argument.splitn(4, '|');
    let mut next = || parts.next().unwrap();
    let (dir, restart, check, uri) = (Path::new(next()), next(), next(), next());
    let mut policy = Policy::default();
    policy.allow_http = true;
    policy.checkpoint_bytes = CHECKPOINT;
    policy.retry.first = Duration::from_millis(10);
    // Every start counts, and every begun installation; and many are killed.
    policy.confirm_attempts = 1000;
    policy.apply_attempts = 1000;
    let (how, restart) = restart.split_once(' ').unwrap();
    let restart = match restart {
        "exit" => Restart::Exit,
        _ => Restart::None,
    };
    let install: Box<dyn Installer> = match how {
        "slots" => {
            let slots = ["a", "b"].map(|name| Slot::new(name, dir.join(name)));
            let mut options = SlotsOptions::new(slots, Switch::Link(dir.join("app.bin")));
            options.restart = restart;
            options.read_back = true;
            Box::new(SlotsInstall::new(dir.join("state"), options).unwrap())
        }
        _ => Box::new(FileInstall::new(dir.join("app.bin")).restart(restart)),
    };
    let contract = Contract::built_in("iothub-dm").unwrap();
    let updater = Updater::builder(dir.join("state"), contract, install)
        .policy(policy)
        .start()
        .unwrap();
    let updater = Arc::new(updater);
    let hub = Arc::downgrade(&updater);
    updater.on_outbound(move |outbound| {
        let Some(updater) = hub.upgrade() else { return };
        match outbound {
            Outbound::Report(report) => updater.report_done(report.id, 204),
            Outbound::ReadTwin => {
                updater.handle_twin(true, br#"{"desired":{"$version":1},"reported":{}}"#);
            }
        }
    });
    updater.connected(true);
    let status = updater.status();
    if status.phase.is_none() && status.outcome.is_none() {
        let payload = format!(r#"{{"fwPackageUri":"{uri}","fwPackageCheckValue":"{check}"}}"#);
        updater.handle_method_then("firmwareUpdate", payload.as_bytes(), |answer| {
            assert_eq!(answer.status, 200, "{}", answer.payload);
        });
    }
    let outcome = updater.wait(Duration::from_secs(60)).unwrap();
    fs::write(dir.join("outcome"), outcome.to_string()).unwrap();
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

struct Killed(Child);

impl Killed {
    fn start(dir: &Path, restart: &str, check: &str, uri: &str) -> Self {
        let argument = format!("{}|{restart}|{check}|{uri}", dir.display());
        let child = Command::new(env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(CHILD, argument)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Watches the target until the process ends or `until` says so.
    fn watch(&mut self, update: &Round<'_>, mut until: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.0.try_wait().unwrap().is_none() && !until() {
            update.check_target();
            thread::sleep(Duration::from_millis(1));
            assert!(Instant::now() < deadline, "no end; {}", update.told);
        }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One update.
struct Round<'a> {
    dir: &'a Path,
    old: &'a [u8],
    new: &'a [u8],
    told: String,
}

impl Round<'_> {
    fn check_target(&self) {
        let found = fs::read(self.dir.join("app.bin")).expect("there is always a target");
        assert!(
            found == self.old || found == self.new,
            "{} bytes that are neither old nor new; {}",
            found.len(),
            self.told
        );
        let a = self.dir.join("a");
        let kept = !a.exists() || fs::read(a).unwrap() == self.old;
        assert!(kept, "the running slot was written; {}", self.told);
    }

    /// What the journal says after a kill; nothing must be damaged.
    fn record(&self) -> Option<Record> {
        match Journal::open(&self.dir.join("state")).unwrap().1 {
            Loaded::Empty => None,
            Loaded::Record(json) => Some(Record::from_json(&json).unwrap()),
            lost => panic!("{lost:?}; {}", self.told),
        }
    }
}

#[derive(Default)]
struct Counts {
    kills: AtomicU64,
    phases: [AtomicU64; 8],
    resumed: AtomicU64,
    refetched: AtomicU64,
    updates: AtomicU64,
}

fn one_update(random: &mut Random, told: String, counts: &Counts) {
    let dir = tempfile::tempdir().unwrap();
    let new: Arc<Vec<u8>> = Arc::new(image(SIZE, random.below(1 << 40)));
    let old = image(300_000, 1);
    let ways = ["file none", "file exit", "slots none", "slots exit"];
    let restart = ways[random.below(4) as usize];
    if restart.starts_with("slots") {
        fs::write(dir.path().join("a"), &old).unwrap();
        symlink("a", dir.path().join("app.bin")).unwrap();
    } else {
        fs::write(dir.path().join("app.bin"), &old).unwrap();
    }
    let crc = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM).checksum(&new);
    let check = format!("{crc:x}");
    let body = Arc::clone(&new);
    let server = Server::http(move |reply| {
        reply.piece = PIECE;
        reply.pause = PAUSE;
        reply.serve(&body, Some("\"1\""), usize::MAX);
    });
    let uri = server.url("/image");
    let round = Round {
        dir: dir.path(),
        old: &old,
        new: &new,
        told,
    };
    for _ in 0..=random.below(8) {
        let mut child = Killed::start(dir.path(), restart, &check, &uri);
        let before = server.asked().len();
        let millis = if random.below(3) == 0 {
            // Soon after the last byte: the image is verified, installed, activated, confirmed.
            child.watch(&round, || {
                let asked = server.asked();
                asked.iter().any(|asked| {
                    let start = asked.range_start().unwrap_or(0) as u64;
                    start + asked.sent >= SIZE as u64
                })
            });
            random.below(40)
        } else {
            random.below(500)
        };
        let since = Instant::now();
        child.watch(&round, || since.elapsed() >= Duration::from_millis(millis));
        let ended = child.0.try_wait().unwrap();
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        round.check_target();
        if let Some(status) = ended {
            // It was done, or restarts.
            assert!(status.success(), "{status}; {}", round.told);
            continue;
        }
        counts.kills.fetch_add(1, Ordering::Relaxed);
        let asked = server.asked();
        let record = round.record();
        let update = record.as_ref().and_then(|record| record.update.as_ref());
        let phase = match update {
            None => 0,
            Some(update) if update.outcome.is_some() => 7,
            Some(update) => 1 + update.phase as usize,
        };
        counts.phases[phase].fetch_add(1, Ordering::Relaxed);
        let Some(update) = update.filter(|u| u.outcome.is_none() && u.phase <= Phase::Downloading)
        else {
            continue;
        };
        // The next request starts where the last checkpoint says.
        let checkpoint = update.checkpoint.as_ref().map(|c| c.offset);
        let mut child = Killed::start(dir.path(), restart, &check, &uri);
        child.watch(&round, || server.asked().len() > asked.len());
        let again = server.asked();
        match (checkpoint, again.get(asked.len())) {
            // All was there.
            (Some(at), None) => assert_eq!(at, SIZE as u64, "{}", round.told),
            (None, None) => panic!("it did not go on; {}", round.told),
            (at, Some(next)) => {
                let start = next.range_start().map(|start| start as u64);
                assert_eq!(start, at, "where it goes on; {}", round.told);
            }
        }
        if let (Some(at), Some(last)) = (checkpoint, asked[before..].last()) {
            let reached = last.range_start().unwrap_or(0) as u64 + last.sent;
            counts.resumed.fetch_add(1, Ordering::Relaxed);
            let twice = reached.saturating_sub(at);
            counts.refetched.fetch_add(twice, Ordering::Relaxed);
        }
    }
    let outcome = dir.path().join("outcome");
    for _ in 0..3 {
        let mut child = Killed::start(dir.path(), restart, &check, &uri);
        child.watch(&round, || false);
        if outcome.exists() {
            break;
        }
    }
    assert_eq!(
        fs::read_to_string(outcome).unwrap(),
        "completed",
        "{}",
        round.told
    );
    assert!(
        fs::read(dir.path().join("app.bin")).unwrap() == *new,
        "{}",
        round.told
    );
    counts.updates.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn killed_at_random_moments() {
    if env::var_os(CHILD).is_some() {
        return;
    }
    let kills = match env::var_os("TWINFLASH_FULL") {
        Some(_) => 220,
        None => 20,
    };
    let seed = env::var("TWINFLASH_SEED").map_or_else(
        |_| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            now.as_nanos() as u64
        },
        |seed| seed.parse().unwrap(),
    );
    println!("TWINFLASH_SEED={seed}");
    let counts = Counts::default();
    let rounds = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while counts.kills.load(Ordering::Relaxed) < kills {
                    let round = rounds.fetch_add(1, Ordering::Relaxed);
                    let told = format!("TWINFLASH_SEED={seed}, update {round}");
                    let mut random = Random(seed.wrapping_add(round << 32));
                    one_update(&mut random, told, &counts);
                }
            });
        }
    });
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let phases: Vec<u64> = counts.phases.iter().map(get).collect();
    let (resumed, refetched) = (get(&counts.resumed), get(&counts.refetched));
    println!(
        "{} updates, {} kills (before the request was saved, Waiting, Downloading, Verifying, Applying, \
         Rebooting, Confirming, after the end: {phases:?}); {resumed} gone on with from a checkpoint, \
         {refetched} bytes fetched twice",
        get(&counts.updates),
        get(&counts.kills),
    );
    // What comes after a checkpoint is at most what the next one takes, and what is on its way.
    assert!(
        refetched <= resumed * (CHECKPOINT + (256 << 10)),
        "{refetched} bytes in {resumed}"
    );
}

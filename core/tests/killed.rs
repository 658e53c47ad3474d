//! A real process, doing a real update over HTTP, killed with SIGKILL at random moments, alone or with the
//! programs it has started. At every moment the target is the complete old or new image: a file, or one of
//! two slots behind a link or a U-Boot environment. In the end the update reaches its end; and what was
//! fetched before the last checkpoint is not fetched again.
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
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use support::{
    pattern::image,
    process::{self, CHECKPOINT, Child, How, Setup},
    server::Server,
};
use twinflash::{
    journal::{Journal, Loaded},
    update::{Phase, Record},
};

const SIZE: usize = 1 << 20;
/// 2.7 MB/s: an update holds some sixteen checkpoints.
const PIECE: usize = 8 << 10;
const PAUSE: Duration = Duration::from_millis(3);

/// The process that is killed.
#[test]
fn child() {
    process::child();
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

/// One update.
struct Round<'a> {
    setup: &'a Setup,
    old: &'a [u8],
    new: &'a [u8],
    told: String,
}

impl Round<'_> {
    /// Watches the target until the process ends or `until` says so.
    fn watch(&self, child: &mut Child, mut until: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while child.ended().is_none() && !until() {
            self.check_target();
            thread::sleep(Duration::from_millis(1));
            assert!(Instant::now() < deadline, "no end; {}", self.told);
        }
    }

    fn check_target(&self) {
        let found = self.setup.target();
        assert!(
            found == self.old || found == self.new,
            "{} bytes that are neither old nor new; {}",
            found.len(),
            self.told
        );
        let a = self.setup.place.join("a");
        let kept = !a.exists() || fs::read(a).unwrap() == self.old;
        assert!(kept, "the running slot was written; {}", self.told);
    }

    /// What the journal says after a kill; nothing must be damaged.
    fn record(&self) -> Option<Record> {
        match Journal::open(&self.setup.state).unwrap().1 {
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

fn one_update(random: &mut Random, told: String, ways: &[How], counts: &Counts) {
    let dir = tempfile::tempdir().unwrap();
    let new: Arc<Vec<u8>> = Arc::new(image(SIZE, random.below(1 << 40)));
    let old = image(300_000, 1);
    let how = ways[random.below(ways.len() as u64) as usize];
    let mut setup = Setup::new(how, dir.path());
    setup.exits = random.below(2) == 0;
    setup.first(&old);
    let body = Arc::clone(&new);
    let server = Server::http(move |reply| {
        reply.piece = PIECE;
        reply.pause = PAUSE;
        reply.serve(&body, Some("\"1\""), usize::MAX);
    });
    let ask = process::request(&server.url("/image"), &new);
    let start = || setup.start(Some(ask.clone()), false);
    let round = Round {
        setup: &setup,
        old: &old,
        new: &new,
        told,
    };
    for _ in 0..=random.below(8) {
        let mut child = start();
        let before = server.asked().len();
        let millis = if random.below(3) == 0 {
            // Soon after the last byte: the image is verified, installed, activated, confirmed.
            round.watch(&mut child, || {
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
        round.watch(&mut child, || {
            since.elapsed() >= Duration::from_millis(millis)
        });
        let ended = child.ended();
        // A program it has started lives on, or not.
        match random.below(2) {
            0 => child.kill(),
            _ => child.kill_all(),
        }
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
        let mut child = start();
        round.watch(&mut child, || server.asked().len() > asked.len());
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
    for _ in 0..3 {
        let mut child = start();
        round.watch(&mut child, || false);
        if setup.outcome().is_some() {
            break;
        }
    }
    let outcome = setup.outcome();
    assert_eq!(outcome.as_deref(), Some("completed"), "{}", round.told);
    assert_eq!(setup.status(), "applyComplete", "{}", round.told);
    assert!(setup.target() == *new, "{}", round.told);
    counts.updates.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn killed_at_random_moments() {
    let mut ways = vec![How::File, How::Link];
    match Command::new("fw_printenv").arg("--version").output() {
        Ok(_) => ways.push(How::UBoot),
        Err(_) => println!("left out: slots with fw_setenv (package libubootenv-tool)"),
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
                    one_update(&mut random, told, &ways, &counts);
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

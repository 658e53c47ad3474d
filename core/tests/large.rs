//! An image beyond 4 GiB through everything: requests, ranges, checkpoints, the installer, its checks, status.
//! It is zeros but for its end, and the server makes them. Most of it is never sent: between two processes
//! the file is made longer, and the journal's checkpoint says that all of it is there. So the downloads
//! that really happen are those across 2 GiB and across 4 GiB.
//!
//! The state of the checks after so many zeros stands here as the checkpoint has it. The slot is read back and
//! hashed as a whole, which judges it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod support;

use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};
use support::{
    pattern::image,
    process::{self, How, Setup},
    server::{Reply, Server},
};
use twinflash::{
    journal::{Journal, Loaded},
    update::{Checks, Phase, Record},
};

const GIB: u64 = 1 << 30;
/// Where the zeros end.
const ZEROS: u64 = 4 * GIB;
const END: usize = 700_000;
const SIZE: u64 = ZEROS + END as u64;
/// Downloads are gone on with from here: a bit before 2 GiB, and before 4 GiB.
const FROM: [(u64, &str); 2] = [
    (
        2 * GIB - 100_000,
        "AQAAAAB__nlgAADzMHzLGnP6LE8MukQyRIoZewC_GobXlteVs999IqGbHUVBlVTl-f8BAAAAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAC5JDEJ",
    ),
    (
        4 * GIB - 100_000,
        "AQAAAAD__nlgAACJ70ZcV-KAizPpBgqK_Mn86kHQ4j93ZF7KymiysFqLql6brpDl-f8DAAAAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABQiLaY",
    ),
];

#[test]
fn child() {
    process::child();
}

fn zeros(checks: &mut Checks, count: u64) {
    let piece = vec![0; 1 << 20];
    let mut left = count;
    while left > 0 {
        let now = left.min(piece.len() as u64);
        checks.update(&piece[..now as usize]);
        left -= now;
    }
}

#[test]
#[ignore = "computes the constants anew, for half a minute; reading the slot back has judged them"]
fn the_states_of_the_checks() {
    let mut checks = Checks::new();
    for (from, state) in FROM {
        let more = from - checks.bytes();
        zeros(&mut checks, more);
        assert_eq!(checks.save(), state, "{from}");
    }
}

/// What a good server does, with bytes that it makes. Nothing comes after `most` bytes.
fn serve(reply: &mut Reply, end: &[u8], most: u64) {
    let range = reply.asked.header("range").map(str::to_owned);
    let start = range.as_ref().map_or(0, |range| {
        let start = range.strip_prefix("bytes=").unwrap();
        start.strip_suffix('-').unwrap().parse::<u64>().unwrap()
    });
    let length = (SIZE - start).to_string();
    let place = format!("bytes {start}-{}/{SIZE}", SIZE - 1);
    let mut headers = vec![("Content-Length", length.as_str()), ("ETag", "\"1\"")];
    if range.is_some() {
        headers.push(("Content-Range", &place));
        reply.head("206 Partial Content", &headers);
    } else {
        reply.head("200 OK", &headers);
    }
    let mut at = start;
    let stop = SIZE.min(start.saturating_add(most));
    while at < stop {
        let now = (stop - at).min(16 << 10);
        let mut piece = vec![0; now as usize];
        for (byte, at) in piece.iter_mut().zip(at..) {
            *byte = at.checked_sub(ZEROS).map_or(0, |at| end[at as usize]);
        }
        if !reply.body(&piece) {
            return;
        }
        at += now;
    }
    if stop < SIZE {
        reply.hang();
    }
}

/// What lies in the journal.
fn record(setup: &Setup) -> (Journal, Record) {
    match Journal::open(&setup.state).unwrap() {
        (journal, Loaded::Record(json)) => (journal, Record::from_json(&json).unwrap()),
        (_, other) => panic!("{other:?}"),
    }
}

/// The device has all that comes before `from`.
fn skip(setup: &Setup, part: &Path, from: u64, state: &str) {
    let (mut journal, mut record) = record(setup);
    let update = record.update.as_mut().unwrap();
    let checkpoint = update.checkpoint.as_mut().unwrap();
    assert!(checkpoint.offset < from && update.phase == Phase::Downloading);
    assert_eq!(checkpoint.total, Some(SIZE));
    checkpoint.offset = from;
    checkpoint.checks = state.into();
    journal.save(&record.to_json()).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(part)
        .unwrap()
        .set_len(from)
        .unwrap();
    let slots = setup.state.join("slots.json");
    if setup.how != How::File {
        let mut memory: Value = serde_json::from_slice(&fs::read(&slots).unwrap()).unwrap();
        memory["durable"] = from.into();
        fs::write(slots, memory.to_string()).unwrap();
    }
}

fn beyond_4_gib(how: How, part: &str) {
    // Room is made for all of it, but not in memory, as it would be on a tmpfs.
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let free = Command::new("df")
        .args(["--output=avail", "-B1"])
        .arg(root.path())
        .output();
    let free = String::from_utf8(free.unwrap().stdout).unwrap();
    let free: u64 = free.lines().nth(1).unwrap().trim().parse().unwrap();
    if free < 2 * SIZE {
        return println!("left out: {free} bytes are free, {} are needed", 2 * SIZE);
    }
    let mut setup = Setup::new(how, root.path());
    setup.policy = json!({"maxSize": 2 * SIZE});
    setup.first(b"the old image");
    let end = image(END, 9);
    let part = setup.place.join(part);
    let (last, state) = FROM[1];
    let mut checks = Checks::restore(state).unwrap();
    zeros(&mut checks, ZEROS - last);
    checks.update(&end);
    assert_eq!(checks.bytes(), SIZE);
    let sha256 = base16ct::lower::encode_string(&checks.finish().sha256);

    let most = [100_000, 200_000, 200_000, u64::MAX];
    let body = end.clone();
    let server = Server::http(move |reply| serve(reply, &body, most[reply.number().min(3)]));
    let ask =
        json!({"fwPackageUri": server.url("/new"), "fwPackageCheckValue": sha256, "fwSize": SIZE});

    let mut reached = 0;
    for (attempt, most) in most.iter().enumerate().take(3) {
        if let Some((from, state)) = attempt.checked_sub(1).map(|skipped| FROM[skipped]) {
            skip(&setup, &part, from, state);
        }
        let mut child = setup.start(Some(ask.clone()), false);
        let deadline = Instant::now() + Duration::from_secs(20);
        while server
            .asked()
            .get(attempt)
            .is_none_or(|asked| asked.sent < *most)
        {
            assert!(
                Instant::now() < deadline && child.ended().is_none(),
                "{attempt}"
            );
            thread::sleep(Duration::from_millis(5));
        }
        // Time for a checkpoint, which comes every second.
        thread::sleep(Duration::from_millis(1300));
        child.kill();
        let (_, record) = record(&setup);
        let update = record.update.unwrap();
        reached = update.checkpoint.unwrap().offset;
        let range = server.ranges()[attempt].clone();
        if let Some((from, _)) = attempt.checked_sub(1).map(|skipped| FROM[skipped]) {
            assert_eq!(range, Some(format!("bytes={from}-")));
            assert!(reached > from + 100_000, "{reached}, from {from}");
        }
    }
    assert!(reached > 4 * GIB);
    assert_eq!(setup.finish(Some(ask), false), "completed");
    assert_eq!(server.ranges()[3], Some(format!("bytes={reached}-")));
    assert_eq!(setup.status(), "applyComplete");
    let (_, record) = record(&setup);
    let update = record.update.unwrap();
    assert_eq!((update.bytes, update.sha256), (Some(SIZE), Some(sha256)));

    // It is in its place: the end, and zeros on both sides of each place where it was gone on with.
    let file = fs::File::open(setup.place.join("app.bin")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), SIZE);
    let at = |offset: u64, length: usize| {
        let mut bytes = vec![1; length];
        file.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    };
    assert_eq!(at(ZEROS, END), end);
    for (from, _) in FROM {
        assert!(at(from - 1000, 2000).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_file_beyond_4_gib() {
    beyond_4_gib(How::File, ".app.bin.twinflash-part");
}

/// Read back, too: all of it.
#[test]
fn a_slot_beyond_4_gib() {
    beyond_4_gib(How::Link, "b");
}

//! The power is cut before every single step, and again before every step of going on; and the
//! order of steps is one that no file system may turn into harm.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    Begin,
    Write,
    Sync,
    Finish,
    Activate,
    Confirm,
    Rollback,
    Abort,
}
use Op::{Abort, Activate, Begin, Confirm, Finish, Rollback, Sync, Write};

/// A device: it does `ops` in order, with what an engine remembers over a crash.
struct Device<'a> {
    directory: &'a Path,
    ops: &'a [Op],
    next: usize,
    durable: u64,
    written: u64,
}

impl Device<'_> {
    /// Does what is left to do until it is done or the power is cut; says which.
    fn run(&mut self) -> bool {
        let mut it = install(self.directory);
        if self.ops[..self.next].contains(&Begin)
            && matches!(self.ops.get(self.next), Some(Write | Sync))
        {
            self.next = self.ops[..self.next]
                .iter()
                .rposition(|op| *op == Begin)
                .unwrap();
        }
        while let Some(op) = self.ops.get(self.next) {
            if self.step(&mut it, *op).is_err() {
                assert!(cut::happened(), "{op:?} failed by itself");
                return false;
            }
            assert_synced(*op);
            self.next += 1;
        }
        true
    }

    fn step(&mut self, it: &mut FileInstall, op: Op) -> Result<(), Failure> {
        match op {
            Begin => {
                self.written = it.begin(&info(), self.durable)?;
                assert!(self.written == self.durable || self.written == 0);
                self.durable = self.written;
            }
            Write => {
                let end = NEW.len().min(self.written as usize + 12);
                it.write(self.written, &NEW[self.written as usize..end])?;
                self.written = end as u64;
            }
            Sync => self.durable = it.sync()?,
            Finish => it.finish()?,
            Activate => it.activate()?,
            Confirm => it.confirm()?,
            Rollback => it.rollback()?,
            Abort => it.abort()?,
        }
        Ok(())
    }
}

/// After every operation, the last change of a directory was followed by a sync of it.
fn assert_synced(op: Op) {
    let steps = cut::done();
    let change = steps.iter().rposition(|step| {
        ["rename", "link", "remove", "create"]
            .iter()
            .any(|name| step.starts_with(name))
    });
    let sync = steps.iter().rposition(|step| step.starts_with("sync"));
    assert!(change <= sync, "{op:?}: {steps:?}");
}

/// Runs `ops` with every one and every two power cuts; `prepare` makes the directory.
fn cut_everywhere(name: &str, ops: &[Op], prepare: impl Fn(&Path)) {
    let run = |cuts: &[usize]| {
        // In memory where that can be: thousands of runs, and a sync on a disk takes its time.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let directory = directory.unwrap();
        prepare(directory.path());
        let before = files(directory.path());
        let mut device = Device {
            directory: directory.path(),
            ops,
            next: 0,
            durable: 0,
            written: 0,
        };
        for cut in cuts {
            cut::done();
            cut::after(Some(*cut));
            let ended = device.run();
            cut::after(None);
            if ended {
                return None;
            }
            let op = ops[device.next];
            check(directory.path(), &before, op, &format!("{name} {cuts:?}"));
        }
        cut::done();
        assert!(device.run());
        Some((
            files(directory.path()),
            install(directory.path()).inspect().unwrap(),
        ))
    };
    let whole = run(&[]).unwrap();
    let mut first = 0;
    while let Some(end) = run(&[first]) {
        assert_eq!(end, whole, "{name} {first}");
        let mut second = 0;
        while let Some(end) = run(&[first, second]) {
            assert_eq!(end, whole, "{name} {first} {second}");
            second += 1;
        }
        first += 1;
    }
    assert!(first >= 3, "{name}: only {first} steps");
}

/// After a power cut in `op`: the target is whole, and `inspect` tells the truth.
fn check(directory: &Path, before: &BTreeMap<String, (Vec<u8>, u32)>, op: Op, context: &str) {
    let state = install(directory).inspect().unwrap();
    let now = files(directory);
    let context = format!("{context} in {op:?}: {state:?} {:?}", now.keys());
    let target = now.get(TARGET);
    match state {
        ImageState::Unknown => panic!("{context}"),
        ImageState::New if matches!(op, Begin | Write | Sync | Finish | Abort) => {
            // The update before this one.
            assert_eq!(target, before.get(TARGET), "{context}");
        }
        ImageState::New => {
            let mode = before.get(TARGET).map_or(0o644, |(_, mode)| *mode);
            assert_eq!(target, Some(&(NEW.to_vec(), mode)), "{context}");
            let kept = now
                .get(KEPT)
                .or(now.get(NONE).filter(|none| none.0.is_empty()));
            assert_eq!(
                kept.map(|file| &*file.0),
                Some(before.get(TARGET).map_or(&b""[..], |f| &f.0)),
                "{context}"
            );
        }
        ImageState::Old | ImageState::Partial => {
            assert_eq!(target, before.get(TARGET), "{context}");
        }
    }
    assert!(
        !matches!(op, Activate) || state != ImageState::Partial,
        "{context}"
    );
}

const STAGE: [Op; 7] = [Begin, Write, Sync, Write, Sync, Write, Sync];

fn every_course(prepare: impl Fn(&Path) + Copy) {
    let courses: [(&str, &[Op]); 6] = [
        ("completed", &[Finish, Activate, Confirm]),
        ("rolled back", &[Finish, Activate, Rollback]),
        (
            "rolled back and again",
            &[Finish, Activate, Rollback, Begin, Write, Sync, Abort],
        ),
        ("aborted early", &[Abort]),
        ("aborted late", &[Finish, Abort]),
        ("rolled back unactivated", &[Finish, Rollback]),
    ];
    for (name, rest) in courses {
        cut_everywhere(name, &[&STAGE, rest].concat(), prepare);
    }
}

#[test]
fn with_an_old_file() {
    every_course(|path| put(&path.join(TARGET), OLD, 0o750));
}

#[test]
fn with_no_old_file() {
    every_course(|_| {});
}

#[test]
fn after_an_earlier_update() {
    every_course(|path| {
        put(&path.join(TARGET), OLD, 0o555);
        put(&path.join(KEPT), b"even older", 0o555);
    });
    every_course(|path| {
        put(&path.join(TARGET), OLD, 0o555);
        put(&path.join(NONE), b"", 0o600);
    });
}

#[test]
fn without_hard_links() {
    cut::no_links(true);
    every_course(|path| put(&path.join(TARGET), OLD, 0o750));
    cut::no_links(false);
}

#[test]
fn each_step_is_durable_before_the_one_that_needs_it() {
    let directory = directory();
    let place = directory
        .path()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let mut it = install(directory.path());
    let steps = |cut: Vec<String>| cut.join(", ").replace(&place, "DIR");
    cut::done();
    it.begin(&info(), 0).unwrap();
    it.write(0, NEW).unwrap();
    it.sync().unwrap();
    cut::done();
    it.finish().unwrap();
    assert_eq!(
        steps(cut::done()),
        format!("take over {PART}, set mode {PART}, sync {PART}, rename {STAGED}, sync DIR")
    );
    it.activate().unwrap();
    assert_eq!(
        steps(cut::done()),
        format!("remove {NONE}, remove {KEPT}, link {KEPT}, sync DIR, rename {TARGET}, sync DIR")
    );
    it.rollback().unwrap();
    let done = steps(cut::done());
    assert!(
        done.starts_with(&format!("rename {TARGET}, sync DIR")),
        "{done}"
    );
    stage(&mut it);
    cut::no_links(true);
    cut::done();
    it.activate().unwrap();
    cut::no_links(false);
    let done = steps(cut::done());
    let order = format!("sync {KEPT}-part, rename {KEPT}, sync DIR, rename {TARGET}, sync DIR");
    assert!(done.ends_with(&order), "{done}");
    // The old file's second name goes, durably, before the new file does.
    put(&directory.path().join(STAGED), NEW, 0o750);
    it.abort().unwrap();
    let done = steps(cut::done());
    let (kept, synced, new) = (
        done.find(&format!("remove {KEPT}")),
        done.find("sync DIR"),
        done.find(&format!("remove {STAGED}")),
    );
    assert!(kept < synced && synced < new, "{done}");
}

/// A process that was killed may have renamed, and not synced: what is said to be so must stay so.
#[test]
fn what_inspect_says_survives_a_power_cut() {
    let directory = directory();
    let mut it = install(directory.path());
    update(&mut it);
    cut::done();
    assert_eq!(it.inspect().unwrap(), ImageState::New);
    let place = directory.path().file_name().unwrap().to_string_lossy();
    assert_eq!(cut::done(), [format!("sync {place}")]);
}

#[test]
fn whoever_opens_the_target_finds_it_whole() {
    let directory = directory();
    let target = directory.path().join(TARGET);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = [0, 0];
            while !stop.load(Ordering::Relaxed) {
                let content = fs::read(&target).unwrap();
                assert!(content == OLD || content == NEW);
                seen[usize::from(content == NEW)] += 1;
            }
            seen
        });
        let mut it = install(directory.path());
        for _ in 0..100 {
            update(&mut it);
            it.rollback().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        let seen = reader.join().unwrap();
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    });
}

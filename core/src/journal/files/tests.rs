use super::*;
use crate::testing;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

fn open(directory: &Path) -> (Journal, Loaded) {
    Journal::open(directory).unwrap()
}

fn loaded(directory: &Path) -> Loaded {
    open(directory).1
}

/// What to read after `count` saves.
fn record(count: usize) -> Vec<u8> {
    format!("{{\"count\":{count},\"rest\":\"{}\"}}", "x".repeat(count)).into_bytes()
}

/// A directory after `count` saves.
fn saved(count: usize) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, found) = open(directory.path());
    assert_eq!(found, Loaded::Empty);
    for n in 1..=count {
        journal.save(&record(n)).unwrap();
    }
    directory
}

#[test]
fn each_save_is_read_by_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("new/state");
    assert_eq!(loaded(&state), Loaded::Empty);
    assert_eq!(loaded(&state), Loaded::Empty);
    for n in 1..=7 {
        let (mut journal, _) = open(&state);
        journal.save(&record(n)).unwrap();
        drop(journal);
        assert_eq!(loaded(&state), Loaded::Record(record(n)));
    }
    let (mut journal, _) = open(&state);
    // Longer than the room of a file, and shorter again.
    for payload in [record(100_000), record(3), record(40_000), record(1)] {
        journal.save(&payload).unwrap();
    }
    drop(journal);
    assert_eq!(loaded(&state), Loaded::Record(record(1)));
}

#[test]
fn a_record_that_is_too_long_is_refused_and_harms_nothing() {
    let directory = saved(2);
    let (mut journal, _) = open(directory.path());
    let failure = journal.save(&vec![0; copy::MAX_PAYLOAD + 1]).unwrap_err();
    assert_eq!(failure.code, Code::State);
    assert!(failure.message.contains("1048577 bytes"), "{failure}");
    drop(journal);
    assert_eq!(loaded(directory.path()), Loaded::Record(record(2)));
}

#[test]
fn nobody_else_may_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let (mut journal, _) = open(&state);
    journal.save(b"1").unwrap();
    journal.save(b"2").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&state), 0o700);
    let files: Vec<_> = fs::read_dir(&state)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn the_mode_of_a_directory_of_others_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    open(directory.path());
    let mode = fs::metadata(directory.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

/// A save that is torn anywhere leaves the record before it; one that is whole counts.
#[test]
fn a_torn_save_leaves_the_record_before() {
    for count in [2, 3] {
        let directory = saved(count);
        let name = directory.path().join(NAMES[count % 2]);
        let before = fs::read(&name).unwrap();
        let (mut journal, _) = open(directory.path());
        journal.save(&record(count + 1)).unwrap();
        drop(journal);
        let after = fs::read(&name).unwrap();
        assert_ne!(before, after, "the older copy is the one written");
        let changed = 64 + record(count + 1).len();
        assert_eq!(before[changed..], after[changed..]);
        for cut in 0..=changed {
            // From the front, and sectors in the other order.
            for (first, second) in [(&after, &before), (&before, &after)] {
                let torn = [&first[..cut], &second[cut..]].concat();
                fs::write(&name, &torn).unwrap();
                let expected = if torn == after { count + 1 } else { count };
                assert_eq!(
                    loaded(directory.path()),
                    Loaded::Record(record(expected)),
                    "cut at {cut}"
                );
            }
        }
        // It goes on from there.
        fs::write(&name, &after[..20]).unwrap();
        let (mut journal, _) = open(directory.path());
        journal.save(b"on").unwrap();
        drop(journal);
        assert_eq!(loaded(directory.path()), Loaded::Record(b"on".to_vec()));
    }
}

#[test]
fn the_first_save_is_there_or_not() {
    let mut steps = 0;
    loop {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(directory.path());
        disk::cut::after(Some(steps));
        let result = journal.save(b"first");
        disk::cut::after(None);
        drop(journal);
        match result {
            Ok(()) => break,
            // Created, synced, and not renamed yet.
            Err(_) if steps < 3 => assert_eq!(loaded(directory.path()), Loaded::Empty),
            Err(_) => assert_eq!(loaded(directory.path()), Loaded::Record(b"first".to_vec())),
        }
        // The leftover of a save cut short is in nobody's way.
        let (mut journal, _) = open(directory.path());
        journal.save(b"second").unwrap();
        drop(journal);
        assert_eq!(loaded(directory.path()), Loaded::Record(b"second".to_vec()));
        steps += 1;
    }
    assert_eq!(steps, 4);
}

#[test]
fn a_save_that_failed_is_tried_again_in_the_same_copy() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(directory.path());
    journal.save(b"first").unwrap();
    for _ in 0..3 {
        disk::cut::after(Some(0));
        journal.save(b"second").unwrap_err();
        disk::cut::after(None);
    }
    journal.save(b"second").unwrap();
    assert_eq!(disk::cut::done().last().map(|s| &s[..4]), Some("sync"));
    drop(journal);
    assert_eq!(loaded(directory.path()), Loaded::Record(b"second".to_vec()));
}

/// After a sync that failed, the kernel may show what is not on the disk, and sync it no more.
#[test]
fn what_is_found_is_written_again_and_synced() {
    let directory = saved(3);
    let before = NAMES.map(|name| fs::read(directory.path().join(name)).unwrap());
    let steps = disk::observe::steps_of(|| drop(open(directory.path())));
    for name in NAMES {
        let at = |what: &str| {
            let what = format!("{what} {{ path: ");
            let fits = |step: &String| step.starts_with(&what) && step.contains(name);
            steps.iter().position(fits).unwrap()
        };
        assert!(
            at("Read") < at("Write") && at("Write") < at("Sync"),
            "{steps:?}"
        );
    }
    assert!(
        steps.last().unwrap().starts_with("SyncDirectory"),
        "{steps:?}"
    );
    let after = NAMES.map(|name| fs::read(directory.path().join(name)).unwrap());
    assert_eq!(before, after, "not a byte of it is changed");
}

#[test]
fn a_lost_copy_means_the_other() {
    for (gone, left) in [(0, 4), (1, 3)] {
        let directory = saved(4);
        fs::remove_file(directory.path().join(NAMES[gone])).unwrap();
        assert_eq!(loaded(directory.path()), Loaded::Record(record(left)));
        let (mut journal, _) = open(directory.path());
        journal.save(b"more").unwrap();
        drop(journal);
        assert_eq!(loaded(directory.path()), Loaded::Record(b"more".to_vec()));
    }
}

#[test]
fn both_damaged_are_set_aside_and_said_until_something_is_saved() {
    let directory = saved(2);
    let damage = |text: &str| {
        for name in NAMES {
            fs::write(directory.path().join(name), text).unwrap();
        }
    };
    let lost = |names: [&str; 2]| Loaded::Lost {
        files: names.map(|name| directory.path().join(name)).into(),
    };
    damage("one");
    assert_eq!(loaded(directory.path()), lost(NAMES));
    assert_eq!(loaded(directory.path()), lost(NAMES), "a second start");
    let (mut journal, _) = open(directory.path());
    journal.save(b"{}").unwrap();
    journal.save(b"{}").unwrap();
    drop(journal);
    assert_eq!(loaded(directory.path()), Loaded::Record(b"{}".to_vec()));
    damage("two");
    let (mut journal, found) = open(directory.path());
    assert!(matches!(found, Loaded::Lost { .. }), "{found:?}");
    journal.save(b"{}").unwrap();
    for (path, text) in [
        ("a.lost-1", "one"),
        ("b.lost-1", "one"),
        ("a.lost-2", "two"),
        ("b.lost-2", "two"),
    ] {
        let path = directory.path().join(format!("journal.{path}"));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    drop(journal);
    for name in NAMES {
        let _ = fs::remove_file(directory.path().join(name));
    }
    let aside = ["a.lost-1", "a.lost-2", "b.lost-1", "b.lost-2"];
    let files = aside.map(|name| directory.path().join(format!("journal.{name}")));
    let files = files.into();
    assert_eq!(loaded(directory.path()), Loaded::Lost { files }, "in order");
}

#[test]
fn setting_aside_survives_a_power_cut() {
    let mut steps = 0;
    loop {
        let directory = saved(2);
        for name in NAMES {
            fs::write(directory.path().join(name), "damaged").unwrap();
        }
        let (mut journal, _) = open(directory.path());
        disk::cut::after(Some(steps));
        let result = journal.save(b"new");
        disk::cut::after(None);
        drop(journal);
        let found = loaded(directory.path());
        match &found {
            Loaded::Lost { files } => assert_eq!(files.len(), 2, "{files:?}"),
            found => assert_eq!(found, &Loaded::Record(b"new".to_vec()), "after {steps}"),
        }
        // Created, synced, two set aside, the directory; then it counts.
        assert_eq!(steps >= 6, found == Loaded::Record(b"new".to_vec()));
        if result.is_ok() {
            break;
        }
        let (mut journal, _) = open(directory.path());
        journal.save(b"on").unwrap();
        drop(journal);
        assert_eq!(loaded(directory.path()), Loaded::Record(b"on".to_vec()));
        steps += 1;
    }
    assert_eq!(steps, 7);
}

/// What is read from files so named fails, so many times.
fn reads_fail(names: &'static [&str], mut times: usize) {
    struct Fails<F>(F);
    impl<F: FnMut(&Path) -> io::Result<()>> disk::observe::Observer for Fails<F> {
        fn before(&mut self, step: Step<'_>) -> io::Result<()> {
            match step {
                Step::Read { path } => (self.0)(path),
                _ => Ok(()),
            }
        }
        fn after(&mut self, _: Step<'_>) {}
    }
    let fails = move |path: &Path| {
        let fails = times > 0 && names.iter().any(|name| path.ends_with(name));
        times -= usize::from(fails);
        match fails {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    };
    disk::observe::by(Some(Box::new(Fails(fails))));
}

#[test]
fn a_read_that_fails_once_is_made_again() {
    let directory = saved(3);
    for name in [&["journal.a"], &["journal.b"]] {
        reads_fail(name, 1);
        let found = loaded(directory.path());
        disk::observe::by(None);
        assert_eq!(found, Loaded::Record(record(3)));
    }
}

#[test]
fn what_cannot_be_read_stays_for_a_later_start_until_something_is_saved() {
    let directory = saved(3);
    let cannot_read = || {
        reads_fail(&NAMES, 4);
        let opened = open(directory.path());
        disk::observe::by(None);
        assert!(matches!(opened.1, Loaded::Lost { .. }), "{:?}", opened.1);
        opened.0
    };
    drop(cannot_read());
    assert_eq!(loaded(directory.path()), Loaded::Record(record(3)));
    // A save that comes to nothing has put nothing aside.
    let mut journal = cannot_read();
    disk::cut::after(Some(1));
    journal.save(b"new").unwrap_err();
    disk::cut::after(None);
    drop(journal);
    assert_eq!(loaded(directory.path()), Loaded::Record(record(3)));
    // From the next one on, they are out of the way: by its number it would be the older one.
    cannot_read().save(b"new").unwrap();
    assert_eq!(loaded(directory.path()), Loaded::Record(b"new".to_vec()));
    for name in NAMES {
        let aside = directory.path().join(format!("{name}.lost-1"));
        assert!(Copy::read(&fs::read(aside).unwrap()).is_some());
    }
}

#[test]
fn a_first_copy_that_is_damaged_is_no_empty_journal() {
    let directory = saved(1);
    fs::write(directory.path().join("journal.a"), "").unwrap();
    assert!(matches!(loaded(directory.path()), Loaded::Lost { .. }));
}

#[test]
fn huge_garbage_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    for name in NAMES {
        let file = File::create(directory.path().join(name)).unwrap();
        file.set_len(1 << 40).unwrap();
    }
    let start = std::time::Instant::now();
    assert!(matches!(loaded(directory.path()), Loaded::Lost { .. }));
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn a_copy_that_is_no_file_is_said() {
    for make in [
        (|path| fs::create_dir(path)) as fn(PathBuf) -> io::Result<()>,
        |path| symlink("/dev/null", path),
        |path| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let kind = rustix::fs::FileType::Fifo;
            Ok(rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0)?)
        },
    ] {
        let directory = tempfile::tempdir().unwrap();
        make(directory.path().join("journal.b")).unwrap();
        let failure = Journal::open(directory.path()).unwrap_err();
        assert_eq!(failure.code, Code::State);
        assert!(failure.message.contains("journal.b"), "{failure}");
    }
}

#[test]
fn a_state_directory_that_cannot_be_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("state")] {
        let failure = Journal::open(&path).unwrap_err();
        assert_eq!(failure.code, Code::State);
        assert!(
            failure.message.contains(&*path.to_string_lossy()),
            "{failure}"
        );
    }
}

#[test]
fn this_process_is_told_that_it_has_it_open() {
    let directory = saved(1);
    let (journal, _) = open(directory.path());
    let failure = Journal::open(directory.path()).unwrap_err();
    assert_eq!(failure.code, Code::Locked);
    assert!(failure.message.starts_with("this process"), "{failure}");
    drop(journal);
    open(directory.path());
}

/// Holds the directory until its standard input ends. Run in a process of its own.
#[test]
fn child_holds_the_lock() {
    let Some(directory) = testing::child_argument() else {
        return;
    };
    let _journal = open(Path::new(&directory));
    writeln!(io::stdout(), "holding").unwrap();
    io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn a_second_process_is_told_who_holds_it() {
    let directory = saved(1);
    let mut child = testing::child(
        "journal::files::tests::child_holds_the_lock",
        directory.path().as_os_str(),
    );
    child.wait_for("holding");
    let failure = Journal::open(directory.path()).unwrap_err();
    assert_eq!(failure.code, Code::Locked);
    let process = format!("process {} (twinflash-", child.id());
    assert!(failure.message.contains(&process), "{failure}");
    let path = directory.path().to_string_lossy();
    assert!(failure.message.contains(&*path), "{failure}");
    // SIGKILL: the lock goes with the process.
    child.kill();
    assert_eq!(loaded(directory.path()), Loaded::Record(record(1)));
}

#[test]
fn child_may_not_write() {
    let Some(directory) = testing::child_argument() else {
        return;
    };
    let directory = Path::new(&directory);
    for (path, named) in [("state", "state/lock"), ("state/sub", "state/sub")] {
        let failure = Journal::open(&directory.join(path)).unwrap_err();
        assert_eq!(failure.code, Code::NoPermission);
        assert!(failure.message.contains(named), "{failure}");
    }
}

#[test]
fn a_directory_that_may_not_be_written_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    testing::unprivileged(
        "journal::files::tests::child_may_not_write",
        directory.path().as_os_str(),
    );
}

/// Runs on a file system of 64 KiB; `argument` is where it is mounted.
#[test]
fn child_has_no_space() {
    let Some(directory) = testing::child_argument() else {
        return;
    };
    let directory = Path::new(&directory);
    let (mut journal, _) = open(directory);
    journal.save(b"first").unwrap();
    let failure = journal.save(&[b'x'; 100_000]).unwrap_err();
    assert_eq!(failure.code, Code::NoSpace);
    assert!(failure.message.contains("journal.b"), "{failure}");
    assert!(failure.message.contains("free some space"), "{failure}");
    journal.save(b"second").unwrap();
    // A full disk does not keep a record of usual length from being saved.
    let mut filler = File::create(directory.join("filler")).unwrap();
    while filler.write_all(&[0; 1024]).is_ok() {}
    for n in 3..9 {
        journal.save(&record(n)).unwrap();
    }
    drop(journal);
    assert_eq!(loaded(directory), Loaded::Record(record(8)));
}

#[test]
fn a_full_disk_is_said_and_harms_nothing() {
    testing::on_small_disk("journal::files::tests::child_has_no_space", "64k");
}

#[test]
fn child_is_read_only() {
    let Some(directory) = testing::child_argument() else {
        return;
    };
    let directory = Path::new(&directory);
    open(directory).0.save(b"first").unwrap();
    testing::remount_read_only(directory);
    let failure = Journal::open(directory).unwrap_err();
    assert_eq!(failure.code, Code::NoPermission);
    assert!(failure.message.contains("Read-only"), "{failure}");
}

#[test]
fn a_read_only_file_system_is_said() {
    testing::on_small_disk("journal::files::tests::child_is_read_only", "64k");
}

/// A program being started has every open file for a moment, the lock's among them.
#[test]
fn given_back_while_another_thread_starts_programs() {
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let starts = scope.spawn(|| {
            for _ in 0..200 {
                std::process::Command::new("true").status().unwrap();
            }
        });
        while !starts.is_finished() {
            let (journal, _) = Journal::open(directory.path()).unwrap();
            drop(journal);
        }
    });
}

#[test]
fn a_length_that_is_too_long_is_not_read() {
    struct Endless(usize);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(0xff);
            self.0 += buffer.len();
            assert!(self.0 <= copy::HEADER + 2 * copy::MAX_PAYLOAD);
            Ok(buffer.len())
        }
    }
    assert_eq!(read_copy(Endless(0)).unwrap(), None);
    let mut head = copy::encode(1, b"");
    head[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(read_copy(head.as_slice().chain(Endless(0))).unwrap(), None);
    head[12..16].copy_from_slice(&(copy::MAX_PAYLOAD as u32).to_le_bytes());
    assert_eq!(read_copy(head.as_slice().chain(Endless(0))).unwrap(), None);
}

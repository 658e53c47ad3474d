use super::*;
use crate::disk::cut;
use crate::testing;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

mod crash;

const OLD: &[u8] = b"the old file";
const NEW: &[u8] = b"the new file, which is longer";
const TARGET: &str = "app.bin";
const PART: &str = ".app.bin.twinflash-part";
const STAGED: &str = ".app.bin.twinflash-new";
const KEPT: &str = ".app.bin.twinflash-old";
const NONE: &str = ".app.bin.twinflash-none";

/// A directory with an old file of mode 0750.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    put(&directory.path().join(TARGET), OLD, 0o750);
    directory
}

fn put(path: &Path, content: &[u8], mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn install(directory: &Path) -> FileInstall {
    FileInstall::new(directory.join(TARGET))
}

fn info() -> ImageInfo {
    ImageInfo {
        size: Some(NEW.len() as u64),
        version: None,
    }
}

/// An update up to and with `finish`.
fn stage(install: &mut FileInstall) {
    assert_eq!(install.begin(&info(), 0).unwrap(), 0);
    install.write(0, &NEW[..10]).unwrap();
    install.write(10, &NEW[10..]).unwrap();
    assert_eq!(install.sync().unwrap(), NEW.len() as u64);
    install.finish().unwrap();
}

fn update(install: &mut FileInstall) {
    stage(install);
    install.activate().unwrap();
}

/// Every file's content and mode.
fn files(directory: &Path) -> BTreeMap<String, (Vec<u8>, u32)> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().mode() & 0o7777;
            let content = fs::read(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), (content, mode))
        })
        .collect()
}

fn names(directory: &Path) -> Vec<String> {
    files(directory).into_keys().collect()
}

#[test]
fn an_update_from_begin_to_confirm() {
    let directory = directory();
    let path = directory.path();
    let mut it = install(path);
    assert_eq!(it.inspect().unwrap(), ImageState::Old);
    it.begin(&info(), 0).unwrap();
    assert_eq!(it.inspect().unwrap(), ImageState::Partial);
    assert_eq!(names(path), [PART, TARGET]);
    it.write(0, NEW).unwrap();
    assert_eq!(files(path)[PART].1, 0o600);
    it.sync().unwrap();
    it.finish().unwrap();
    assert_eq!(it.inspect().unwrap(), ImageState::Old);
    assert_eq!(fs::read(path.join(TARGET)).unwrap(), OLD);
    it.activate().unwrap();
    assert_eq!(it.inspect().unwrap(), ImageState::New);
    it.confirm().unwrap();
    assert_eq!(it.inspect().unwrap(), ImageState::New);
    let found = files(path);
    assert_eq!(found[TARGET], (NEW.to_vec(), 0o750));
    assert_eq!(found[KEPT], (OLD.to_vec(), 0o750));
    assert_eq!(found.len(), 2);
    // The next one begins: the one before last goes.
    it.begin(&info(), 0).unwrap();
    assert_eq!(names(path), [PART, TARGET]);
}

#[test]
fn rolled_back_and_updated_again() {
    let directory = directory();
    let before = files(directory.path());
    let inode = |name| fs::metadata(directory.path().join(name)).unwrap().ino();
    let old = inode(TARGET);
    let mut it = install(directory.path());
    for _ in 0..2 {
        update(&mut it);
        it.rollback().unwrap();
        assert_eq!(it.inspect().unwrap(), ImageState::Old);
        assert_eq!(files(directory.path()), before);
        assert_eq!(inode(TARGET), old, "the very file");
        it.rollback().unwrap();
    }
}

#[test]
fn where_there_was_no_file_rollback_leaves_none() {
    let directory = tempfile::tempdir().unwrap();
    let mut it = install(directory.path());
    assert_eq!(it.inspect().unwrap(), ImageState::Old);
    update(&mut it);
    assert_eq!(it.inspect().unwrap(), ImageState::New);
    assert_eq!(files(directory.path())[TARGET], (NEW.to_vec(), 0o644));
    assert_eq!(names(directory.path()), [NONE, TARGET]);
    it.rollback().unwrap();
    assert_eq!(it.inspect().unwrap(), ImageState::Old);
    assert!(names(directory.path()).is_empty());
}

#[test]
fn aborted_at_any_time() {
    let directory = directory();
    let before = files(directory.path());
    let mut it = install(directory.path());
    it.abort().unwrap();
    it.begin(&info(), 0).unwrap();
    it.write(0, &NEW[..3]).unwrap();
    it.abort().unwrap();
    assert_eq!(files(directory.path()), before);
    stage(&mut it);
    it.rollback().unwrap();
    assert_eq!(files(directory.path()), before);
    assert_eq!(it.inspect().unwrap(), ImageState::Old);
    assert_eq!(it.write(0, b"x").unwrap_err().code, Code::Storage);
    assert_eq!(it.sync().unwrap_err().code, Code::Storage);
    assert_eq!(it.finish().unwrap_err().code, Code::InstallFailed);
    assert_eq!(it.activate().unwrap_err().code, Code::InstallFailed);
}

#[test]
fn resumed_where_the_bytes_are() {
    let directory = directory();
    let mut it = install(directory.path());
    it.begin(&info(), 0).unwrap();
    it.write(0, b"0123456789").unwrap();
    let part = directory.path().join(PART);
    for (resume, start) in [(10, 10), (4, 4), (5, 0), (0, 0)] {
        let mut it = install(directory.path());
        assert_eq!(it.begin(&info(), resume).unwrap(), start);
        assert_eq!(fs::metadata(&part).unwrap().len(), start);
        assert_eq!(it.sync().unwrap(), start);
    }
    // One that was finished already is taken up again.
    stage(&mut it);
    fs::set_permissions(
        directory.path().join(STAGED),
        PermissionsExt::from_mode(0o444),
    )
    .unwrap();
    let end = NEW.len() as u64;
    assert_eq!(it.begin(&info(), end).unwrap(), end);
    assert_eq!(names(directory.path()), [PART, TARGET]);
    assert_eq!(fs::read(&part).unwrap(), NEW);
    // Which of two it would be cannot be known.
    fs::copy(&part, directory.path().join(STAGED)).unwrap();
    assert_eq!(it.inspect().unwrap(), ImageState::Unknown);
    assert_eq!(it.begin(&info(), 5).unwrap(), 0);
    assert_eq!(names(directory.path()), [PART, TARGET]);
}

#[test]
fn contradictions_are_unknown() {
    for (present, state) in [
        (&[KEPT][..], ImageState::Unknown),
        (&[KEPT, NONE, TARGET], ImageState::Unknown),
        (&[KEPT, TARGET], ImageState::New),
        (&[NONE, TARGET], ImageState::New),
        (&[NONE], ImageState::Old),
        (&[STAGED, KEPT, TARGET], ImageState::Old),
        (&[PART, KEPT, TARGET], ImageState::Partial),
    ] {
        let directory = tempfile::tempdir().unwrap();
        for name in present {
            put(&directory.path().join(name), name.as_bytes(), 0o600);
        }
        let found = install(directory.path()).inspect().unwrap();
        assert_eq!(found, state, "{present:?}");
    }
    // The kept file is the target itself: nothing was activated.
    let directory = directory();
    let [target, kept] = [TARGET, KEPT].map(|name| directory.path().join(name));
    fs::hard_link(target, kept).unwrap();
    let mut it = install(directory.path());
    assert_eq!(it.inspect().unwrap(), ImageState::Old);
    it.rollback().unwrap();
    assert_eq!(names(directory.path()), [TARGET]);
}

#[test]
fn a_lost_target_is_brought_back() {
    let directory = directory();
    let mut it = install(directory.path());
    update(&mut it);
    fs::remove_file(directory.path().join(TARGET)).unwrap();
    assert_eq!(it.inspect().unwrap(), ImageState::Unknown);
    it.rollback().unwrap();
    assert_eq!(fs::read(directory.path().join(TARGET)).unwrap(), OLD);
}

#[test]
fn mode_owner_and_attributes_are_taken_over() {
    let directory = directory();
    let target = directory.path().join(TARGET);
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if root {
        chown(&target, Some(1234), Some(5678)).unwrap();
    }
    fs::set_permissions(&target, PermissionsExt::from_mode(0o4511)).unwrap();
    let set = |name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(&target, name, value, rustix::fs::XattrFlags::empty()).is_ok()
    };
    let extended = set("user.note", b"kept") && set("user.empty", b"");
    // CAP_NET_BIND_SERVICE, permitted and effective.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let capability = set("security.capability", &capability);
    assert_eq!(capability, root && extended);
    for no_links in [false, true] {
        let before = fs::metadata(&target).unwrap();
        let mut it = install(directory.path());
        cut::no_links(no_links);
        update(&mut it);
        cut::no_links(false);
        for file in [&target, &directory.path().join(KEPT)] {
            let now = fs::metadata(file).unwrap();
            assert_eq!(
                (now.mode(), now.uid(), now.gid()),
                (before.mode(), before.uid(), before.gid())
            );
            let mut value = [0; 64];
            if extended {
                let length = rustix::fs::lgetxattr(file, "user.note", &mut value[..]).unwrap();
                assert_eq!(&value[..length], b"kept");
                assert_eq!(
                    rustix::fs::lgetxattr(file, "user.empty", &mut value[..]),
                    Ok(0)
                );
            }
            if capability {
                let name = "security.capability";
                assert_eq!(rustix::fs::lgetxattr(file, name, &mut value[..]), Ok(20));
            }
        }
        it.confirm().unwrap();
    }
}

#[test]
fn what_a_link_points_to_is_replaced() {
    let directory = directory();
    let links = tempfile::tempdir().unwrap();
    let absolute = links.path().join("absolute");
    symlink(directory.path().join(TARGET), &absolute).unwrap();
    symlink("absolute", links.path().join("relative")).unwrap();
    symlink(
        directory.path().join("not-yet"),
        links.path().join("dangling"),
    )
    .unwrap();
    symlink("circle", links.path().join("circle")).unwrap();

    let mut it = FileInstall::new(links.path().join("relative"));
    update(&mut it);
    assert_eq!(
        fs::read_link(&absolute).unwrap(),
        directory.path().join(TARGET)
    );
    assert_eq!(fs::read(directory.path().join(TARGET)).unwrap(), NEW);
    it.rollback().unwrap();
    assert_eq!(fs::read(&absolute).unwrap(), OLD);

    let mut it = FileInstall::new(links.path().join("dangling"));
    update(&mut it);
    assert_eq!(fs::read(directory.path().join("not-yet")).unwrap(), NEW);
    it.rollback().unwrap();
    assert_eq!(names(directory.path()), [TARGET]);

    let failure = FileInstall::new(links.path().join("circle"))
        .inspect()
        .unwrap_err();
    assert!(failure.message.contains("circle"), "{failure}");
}

#[test]
fn a_target_that_cannot_be_is_said_with_its_path() {
    let directory = directory();
    let path = directory.path();
    for (target, why) in [
        (path.to_path_buf(), "is a directory"),
        (path.join("no/app.bin"), "does not exist"),
        (path.join("app.bin/app.bin"), "is no directory"),
        (PathBuf::from("/dev/null"), "is not a regular file"),
        (PathBuf::from("/"), "no file's path"),
    ] {
        let at_start = FileInstall::new(&target).inspect().unwrap_err();
        let failure = FileInstall::new(&target).begin(&info(), 0).unwrap_err();
        assert_eq!(failure, at_start);
        assert_eq!(failure.code, Code::Storage, "{failure}");
        assert!(failure.message.contains(why), "{failure}");
        assert!(
            failure.message.contains(&*target.to_string_lossy()),
            "{failure}"
        );
    }
    assert_eq!(names(path), [TARGET]);
}

#[test]
fn nothing_is_written_through_a_planted_link() {
    let directory = directory();
    let victim = tempfile::NamedTempFile::new().unwrap();
    symlink(victim.path(), directory.path().join(PART)).unwrap();
    // Resumed: from zero, the link is simply removed.
    let failure = install(directory.path()).begin(&info(), 1).unwrap_err();
    assert!(failure.message.contains(PART), "{failure}");
    update(&mut install(directory.path()));
    assert_eq!(fs::read(victim.path()).unwrap(), b"");
    assert_eq!(fs::read(directory.path().join(TARGET)).unwrap(), NEW);
}

#[test]
fn more_than_fits_is_refused_before_a_byte_is_written() {
    let directory = directory();
    for size in [1 << 50, i64::MAX as u64, u64::MAX] {
        let image = ImageInfo {
            size: Some(size),
            version: None,
        };
        let failure = install(directory.path()).begin(&image, 0).unwrap_err();
        assert_eq!(failure.code, Code::NoSpace, "{failure}");
        let path = directory.path().to_string_lossy();
        assert!(failure.message.contains(&*path), "{failure}");
        assert!(failure.message.contains(&size.to_string()), "{failure}");
        assert_eq!(names(directory.path()), [TARGET]);
    }
}

#[test]
fn child_has_no_space() {
    let Some(directory) = testing::child_argument() else {
        return;
    };
    let path = Path::new(&directory);
    put(&path.join(TARGET), OLD, 0o755);
    let mut it = install(path);
    let image = |size| ImageInfo {
        size,
        version: None,
    };
    let failure = it.begin(&image(Some(2_000_000)), 0).unwrap_err();
    assert_eq!(failure.code, Code::NoSpace);
    assert!(
        failure.message.contains("needs 2000000 bytes more"),
        "{failure}"
    );
    // Room that was reserved cannot be taken by others.
    it.begin(&image(Some(900_000)), 0).unwrap();
    fs::write(path.join("filler"), vec![0; 500_000]).unwrap_err();
    it.write(0, &vec![1; 900_000]).unwrap();
    it.sync().unwrap();
    // Only what is still to come is needed when it is resumed.
    let mut it = install(path);
    assert_eq!(it.begin(&image(Some(900_000)), 800_000).unwrap(), 800_000);
    it.abort().unwrap();
    fs::remove_file(path.join("filler")).unwrap();
    // A size that is not known: told when it comes to it.
    it.begin(&image(None), 0).unwrap();
    let failure = it.write(0, &vec![1; 2_000_000]).unwrap_err();
    assert_eq!(failure.code, Code::NoSpace);
    assert!(failure.message.contains(PART), "{failure}");
    it.abort().unwrap();
    assert_eq!(names(path), [TARGET]);
    assert_eq!(fs::read(path.join(TARGET)).unwrap(), OLD);
}

#[test]
fn a_full_disk_is_said_and_harms_nothing() {
    testing::on_small_disk("install::file::tests::child_has_no_space", "1m");
}

#[test]
fn child_is_read_only() {
    let Some(directory) = testing::child_argument() else {
        return;
    };
    let path = Path::new(&directory);
    let mut it = install(path);
    put(&path.join(TARGET), OLD, 0o755);
    update(&mut it);
    testing::remount_read_only(path);
    assert_eq!(it.inspect().unwrap(), ImageState::New);
    for failure in [
        it.begin(&info(), 0).unwrap_err(),
        it.rollback().unwrap_err(),
    ] {
        assert_eq!(failure.code, Code::NoPermission);
        assert!(failure.message.contains("Read-only"), "{failure}");
        assert!(failure.message.contains(TARGET), "{failure}");
    }
}

#[test]
fn a_read_only_file_system_is_said() {
    testing::on_small_disk("install::file::tests::child_is_read_only", "1m");
}

#[test]
fn child_may_not_write() {
    let Some(directory) = testing::child_argument() else {
        return;
    };
    let path = Path::new(&directory);
    let failure = install(path).begin(&info(), 0).unwrap_err();
    assert_eq!(failure.code, Code::NoPermission);
    assert!(failure.message.contains(PART), "{failure}");
    if fs::metadata(path.join(TARGET)).unwrap().uid() == 0 {
        // Its own directory, another's file: the owner could not be kept.
        let failure = install(&path.join("own")).begin(&info(), 0).unwrap_err();
        assert_eq!(failure.code, Code::NoPermission);
        assert!(failure.message.contains("owner"), "{failure}");
        assert_eq!(names(&path.join("own")), [TARGET]);
    }
}

#[test]
fn what_may_not_be_written_is_said() {
    let directory = directory();
    let own = directory.path().join("own");
    fs::create_dir(&own).unwrap();
    put(&own.join(TARGET), OLD, 0o644);
    let _ = chown(&own, Some(65534), Some(65534));
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o555)).unwrap();
    testing::unprivileged(
        "install::file::tests::child_may_not_write",
        directory.path().as_os_str(),
    );
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
}

//! Real processes on a disk that is full, or that the kernel makes read-only, in the middle of an update: the
//! disk of the target or of the slots, or that of the state directory. At every moment the target is the
//! complete old or new image; in the end the twin says which; and once the disk is well again, the next
//! update works.
//!
//! The disk is an ext4 in a loop device, which `mount -o remount,abort` makes read-only as an I/O error
//! does, whoever has files open; where there may be none (no root, no loop device) a tmpfs, which can be
//! full only. It is mounted in a mount namespace of the test's own, so nothing of it is left behind.
//!
//! `TWINFLASH_FULL` has each kind of trouble come at more moments.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod support;

use serde_json::json;
use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};
use support::{
    process::{self, How, Setup, images, request},
    server::{Reply, Server},
};

const INSIDE: &str = "TWINFLASH_TEST_NAMESPACE";
/// Room for three images of the largest size.
const DISK: &str = "8M";

#[test]
fn child() {
    process::child();
}

#[test]
fn trouble_with_disks() {
    if env::var_os(INSIDE).is_some() {
        return;
    }
    let program = env::current_exe().unwrap();
    let enter = |unshare: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(unshare);
        command
    };
    let ways: [&[&str]; 2] = [&["--mount"], &["--map-root-user", "--mount"]];
    let way = ways.iter().find(|way| {
        let mut mount = enter(way);
        mount.args(["mount", "-t", "tmpfs", "none", "/mnt"]);
        mount.output().is_ok_and(|output| output.status.success())
    });
    let Some(way) = way else {
        println!("left out: a mount namespace cannot be had here");
        return;
    };
    let status = enter(way)
        .arg(program)
        .args(["in_a_namespace", "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .status();
    assert!(status.unwrap().success());
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Trouble {
    Full,
    ReadOnly,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Where {
    Target,
    State,
}

/// When the trouble comes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    /// Before the request.
    Before,
    /// When so much of the image was sent, in per cent, and so many milliseconds later.
    At(u64, u64),
}

/// A small file system of its own.
struct Disk {
    at: PathBuf,
    image: PathBuf,
    ext4: bool,
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

impl Disk {
    fn new(root: &Path) -> Self {
        let mut disk = Self {
            at: root.join("disk"),
            image: root.join("disk.ext4"),
            ext4: true,
        };
        fs::create_dir(&disk.at).unwrap();
        let image = disk.image.to_str().unwrap();
        let made = run("truncate", &["-s", DISK, image])
            && run("mkfs.ext4", &["-q", "-F", "-m", "0", image])
            && disk.mount();
        if !made {
            disk.ext4 = false;
            assert!(disk.mount(), "no tmpfs can be mounted");
        }
        disk
    }

    fn mount(&self) -> bool {
        let at = self.at.to_str().unwrap();
        match self.ext4 {
            true => run("mount", &["-o", "loop", self.image.to_str().unwrap(), at]),
            false => run(
                "mount",
                &["-t", "tmpfs", "-o", &format!("size={DISK}"), "none", at],
            ),
        }
    }

    /// Not a byte is left.
    fn fill(&self) {
        let mut filler = fs::File::create(self.at.join("filler")).unwrap();
        for size in [1 << 16, 1 << 10, 1] {
            let bytes = vec![7; size];
            while filler.write_all(&bytes).is_ok() {}
        }
    }

    /// What the kernel does after an I/O error.
    fn abort(&self) {
        let at = self.at.to_str().unwrap();
        assert!(run("mount", &["-o", "remount,abort", at]));
        let written = fs::write(self.at.join("written"), "x");
        assert_eq!(
            written.unwrap_err().kind(),
            std::io::ErrorKind::ReadOnlyFilesystem
        );
    }

    fn mend(&self, trouble: Trouble) {
        if trouble == Trouble::Full {
            return fs::remove_file(self.at.join("filler")).unwrap();
        }
        assert!(run("umount", &[self.at.to_str().unwrap()]));
        let checked = Command::new("e2fsck").arg("-fy").arg(&self.image).output();
        // 1: errors were corrected.
        assert!(matches!(checked.unwrap().status.code(), Some(0 | 1)));
        assert!(self.mount());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["--lazy", self.at.to_str().unwrap()]);
    }
}

#[test]
fn in_a_namespace() {
    if env::var_os(INSIDE).is_none() {
        return;
    }
    let full = env::var_os("TWINFLASH_FULL").is_some();
    // Its environment lies on the disk of the slots.
    let uboot = run("fw_printenv", &["--version"]);
    if !uboot {
        println!("left out: slots with fw_setenv (package libubootenv-tool)");
    }
    let mut cases = Vec::new();
    for trouble in [Trouble::Full, Trouble::ReadOnly] {
        for place in [Where::Target, Where::State] {
            for how in [How::File, How::Link, How::UBoot] {
                if how == How::UBoot && (!uboot || place == Where::State) {
                    continue;
                }
                let mut moments = vec![When::Before, When::At(40, 0), When::At(100, 0)];
                if full {
                    moments.extend([5, 15, 30].map(|later| When::At(100, later)));
                    moments.extend([1, 70].map(|percent| When::At(percent, 0)));
                }
                cases.extend(moments.into_iter().map(|when| (trouble, place, how, when)));
            }
        }
    }
    let count = cases.len();
    let queue = Mutex::new(cases.into_iter());
    let told = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().next() else {
                        return;
                    };
                    let ended = one(case.0, case.1, case.2, case.3);
                    told.lock().unwrap().push(format!("{case:?}: {ended}"));
                }
            });
        }
    });
    let mut told = told.into_inner().unwrap();
    told.sort();
    println!("{count} cases\n{}", told.join("\n"));
}

/// 1.4 MB/s, and nothing is said of how much comes: no room can be made beforehand.
fn send(reply: &mut Reply, image: &[u8]) {
    let headers = [("ETag", "\"1\""), ("Transfer-Encoding", "chunked")];
    reply.head("200 OK", &headers);
    for piece in image.chunks(4 << 10) {
        let size = format!("{:x}\r\n", piece.len());
        if !reply.body(&[size.as_bytes(), piece, b"\r\n"].concat()) {
            return;
        }
        thread::sleep(Duration::from_millis(3));
    }
    reply.body(b"0\r\n\r\n");
}

/// One update that trouble comes to, and the one after it.
fn one(trouble: Trouble, place: Where, how: How, when: When) -> String {
    let case = format!("{trouble:?} {place:?} {how:?} {when:?}");
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::new(root.path());
    if trouble == Trouble::ReadOnly && !disk.ext4 {
        return "left out: a disk that becomes read-only needs root, ext4 and a loop device".into();
    }
    let mut setup = Setup::new(how, root.path());
    match place {
        Where::Target => setup.place = disk.at.join("place"),
        Where::State => setup.state = disk.at.join("state"),
    }
    setup.policy = json!({"retryTime": 1});
    let [old, new, next] = images();
    setup.first(&old);
    // It has been running before.
    assert_eq!(setup.finish(None, false), "none");
    assert!(run("sync", &["-f", disk.at.to_str().unwrap()]));
    let bodies = [Arc::clone(&new), Arc::clone(&next)];
    let known = when == When::Before;
    let server = Server::http(move |reply| match reply.asked.path.as_str() {
        "/new" if known => reply.serve(&bodies[0], Some("\"1\""), usize::MAX),
        "/new" => send(reply, &bodies[0]),
        _ => reply.serve(&bodies[1], Some("\"2\""), usize::MAX),
    });
    let ask = request(&server.url("/new"), &new);
    let whole = |what: &str| {
        let found = setup.target();
        let name = [("old", &old), ("new", &new), ("next", &next)];
        let name = name.iter().find(|(_, image)| ***image == found);
        let name = name.map(|(name, _)| *name);
        name.unwrap_or_else(|| panic!("{case}: {what}: {} bytes that are no image", found.len()))
    };
    let make = || match trouble {
        Trouble::Full => disk.fill(),
        Trouble::ReadOnly => disk.abort(),
    };

    // The trouble comes.
    if when == When::Before {
        make();
    }
    let mut child = setup.start(Some(ask.clone()), false);
    // One that runs under the new version goes on trying to confirm it, for minutes.
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut made = when == When::Before;
    while child.ended().is_none() && Instant::now() < deadline {
        let sent = server.asked().first().map_or(0, |asked| asked.sent);
        if let When::At(percent, later) = when
            && !made
            && sent * 100 >= new.len() as u64 * percent
        {
            thread::sleep(Duration::from_millis(later));
            make();
            made = true;
        }
        whole("in trouble");
        thread::sleep(Duration::from_millis(2));
    }
    let first = match child.ended() {
        None => "goes on".to_owned(),
        Some(status) if status.success() => setup.outcome().unwrap_or("restarts".into()),
        Some(_) => fs::read_to_string(setup.work.join("refused")).expect("it says why it ends"),
    };
    child.kill();
    if !made {
        make();
    }
    whole("after the kill");
    if when == When::Before {
        let code = match (trouble, place) {
            (Trouble::Full, Where::Target) => "failed: no-space",
            (Trouble::ReadOnly, Where::Target) => "failed: no-permission",
            (Trouble::Full, Where::State) => "",
            (Trouble::ReadOnly, Where::State) => "",
        };
        assert!(first.starts_with(code), "{case}: {first}");
    }

    // The process is started again in the midst of it.
    let mut child = setup.start(None, false);
    let since = Instant::now();
    while child.ended().is_none() && since.elapsed() < Duration::from_millis(700) {
        whole("started in trouble");
        thread::sleep(Duration::from_millis(2));
    }
    child.kill();

    // The trouble is over.
    disk.mend(trouble);
    whole("mended");
    let settled = setup.finish(None, false);
    let runs = whole("settled");
    let status = setup.status();
    let fits = match status.as_str() {
        "applyComplete" => runs == "new",
        "downloadFailed" => runs == "old",
        // Where it was tried in vain to bring the old one back, the twin says just that.
        "applyFailed" => runs == "old" || setup.error() == "rollback-failed",
        // The request never came to be saved.
        "waiting" | "" => runs == "old" && settled == "none",
        _ => false,
    };
    assert!(
        fits,
        "{case}: {first}, {settled}: the twin says {status}, {runs} runs"
    );
    let ask = request(&server.url("/next"), &next);
    let ended = setup.finish(Some(ask), true);
    let answer = fs::read_to_string(setup.work.join("answer")).unwrap_or_default();
    assert_eq!(ended, "completed", "{case}: {answer}");
    assert_eq!(
        (whole("next"), setup.status().as_str()),
        ("next", "applyComplete"),
        "{case}"
    );
    format!("{first}; {status}, {runs}")
}

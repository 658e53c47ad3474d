//! What several modules' tests need: tests that run in a process of their own.

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
};

const ARGUMENT: &str = "TWINFLASH_TEST_CHILD";

/// The argument given to this process, if it was started by [`child`] or the like. A test meant to
/// be started so returns at once where there is none.
pub(crate) fn child_argument() -> Option<OsString> {
    std::env::var_os(ARGUMENT)
}

/// A test running in a process of its own; killed when dropped.
pub(crate) struct TestChild(Child);

/// Starts one test, given by its whole name, in a process of its own.
pub(crate) fn child(test: &str, argument: &OsStr) -> TestChild {
    let mut command = this_test(
        Command::new(std::env::current_exe().unwrap()),
        test,
        argument,
    );
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    TestChild(command.spawn().unwrap())
}

impl TestChild {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits for a line that the test prints.
    pub(crate) fn wait_for(&mut self, line: &str) {
        let output = BufReader::new(self.0.stdout.as_mut().unwrap());
        let mut lines = output.lines().map(Result::unwrap);
        assert!(
            lines.any(|l| l.ends_with(line)),
            "the child ended without {line}"
        );
    }

    /// Kills it with SIGKILL and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for TestChild {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a test as a user that has no rights beyond a file's mode. Only root needs to become another.
pub(crate) fn unprivileged(test: &str, argument: &OsStr) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.gid(65534).uid(65534);
    }
    passes(this_test(command, test, argument));
}

/// Runs a test with a file system of its own of the given size (as `mount` takes it, such as `64k`),
/// in name spaces of its own; its argument is the path of the mount. Where the system lets nobody
/// have name spaces (some containers), nothing is tested, and it says so.
pub(crate) fn on_small_disk(test: &str, size: &str) {
    const NAME_SPACES: [&str; 2] = ["--map-root-user", "--mount"];
    let mut probe = Command::new("unshare");
    if !probe
        .args(NAME_SPACES)
        .arg("true")
        .status()
        .unwrap()
        .success()
    {
        eprintln!("skipped {test}: no name spaces here");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o size=\"$1\" none \"$2\" && shift 2 && exec \"$@\"";
    command
        .args(NAME_SPACES)
        .args(["sh", "-c", script, "sh", size])
        .arg(directory.path())
        .arg(std::env::current_exe().unwrap());
    passes(this_test(command, test, directory.path().as_os_str()));
}

/// Within [`on_small_disk`]: makes the file system read-only. Nothing may be open for writing.
pub(crate) fn remount_read_only(path: &Path) {
    let status = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(path)
        .status()
        .unwrap();
    assert!(status.success());
}

fn this_test(mut command: Command, test: &str, argument: &OsStr) -> Command {
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ARGUMENT, argument);
    command
}

fn passes(mut command: Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{command:?}:\n{text}\n{errors}"
    );
}

//! Runs the commands a device's owner has configured: in one place, in one way.
//!
//! - The program is started with its arguments as they are; there is no shell between.
//! - Its environment is this process's own without the variables that begin with `TWINFLASH_`: they
//!   may hold a connection string. Nothing is added; what a command needs to know comes as a
//!   placeholder in its arguments. Its standard input is empty.
//! - It has a process group of its own. When its time is up the whole group gets SIGTERM, and five
//!   seconds later SIGKILL.
//! - What it prints is kept to a bounded length. The end of it goes to the log (crate `log`, target
//!   `twinflash::command`), never into a failure's message: that goes to the cloud. Of one that fails while
//!   an updater works it becomes that updater's warnings instead, which are in every language's log.

use crate::disk;
use crate::seconds::Seconds;
use crate::update::{Code, Failure};
use std::{
    cell::RefCell,
    fmt,
    io::Read,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

/// So long has a process group between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// So much of what a command prints is kept, in bytes: its end.
const KEPT: usize = 256 << 10;
/// So much of that goes to the log.
const LOGGED: usize = 4 << 10;
/// Who holds a command's output open after its end is not waited for longer than this.
const DRAIN: Duration = Duration::from_millis(500);

type Listener = Box<dyn Fn(String)>;

thread_local! {
    static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
}

/// From now on `listener` gets each line that commands which fail on this thread have printed; the log does not.
pub(crate) fn listen(listener: impl Fn(String) + 'static) {
    LISTENER.set(Some(Box::new(listener)));
}

/// Runs a command and wants status 0. The answer is what it printed on its standard output, or the
/// last 256 KiB of it.
///
/// # Errors
/// [`Code::InstallFailed`], naming the program and how it ended: not started, another status, a
/// signal, or no end within `limit`.
pub fn run<S: AsRef<str>>(command: &[S], limit: Duration) -> Result<String, Failure> {
    run_with(command, limit, Stdio::null())
}

/// As [`run`], with this as its standard input.
pub(crate) fn run_with<S: AsRef<str>>(
    command: &[S],
    limit: Duration,
    input: Stdio,
) -> Result<String, Failure> {
    run_and_tell(command, limit, input, || {})
}

/// As [`run_with`]; `running` is called once the program has been started.
pub(crate) fn run_and_tell<S: AsRef<str>>(
    command: &[S],
    limit: Duration,
    input: Stdio,
    running: impl FnOnce(),
) -> Result<String, Failure> {
    let program = command.first().map_or("", AsRef::as_ref);
    let ended = end_of_run(command, limit, input, running)?;
    ended.tell(program, !ended.status.success());
    match ended.status.success() {
        true => Ok(ended.printed),
        false => Err(failed(&format_args!(
            "{program} ended with {}",
            ended.status
        ))),
    }
}

/// As [`run`], but any status is an answer: it comes with what was printed.
///
/// # Errors
/// As [`run`], and where a signal ended it.
pub(crate) fn ask<S: AsRef<str>>(command: &[S], limit: Duration) -> Result<(i32, String), Failure> {
    let program = command.first().map_or("", AsRef::as_ref);
    let ended = end_of_run(command, limit, Stdio::null(), || {})?;
    ended.tell(program, !ended.status.success());
    match ended.status.code() {
        Some(code) => Ok((code, ended.printed)),
        None => Err(failed(&format_args!(
            "{program} ended with {}",
            ended.status
        ))),
    }
}

fn failed(what: &dyn fmt::Display) -> Failure {
    Failure::new(Code::InstallFailed, what)
}

/// How a program ended, and what it printed.
#[derive(Default)]
struct Ended {
    status: ExitStatus,
    printed: String,
    errors: String,
}

impl Ended {
    fn tell(&self, program: &str, failed: bool) {
        for (text, of) in [(&self.printed, "output"), (&self.errors, "errors")] {
            for line in end_of(text).lines() {
                match failed {
                    true => LISTENER.with_borrow(|listener| match listener {
                        Some(listener) => listener(format!("{program} {of}: {line}")),
                        None => log::warn!("{program} {of}: {line}"),
                    }),
                    false => log::debug!("{program} {of}: {line}"),
                }
            }
        }
    }
}

fn end_of_run<S: AsRef<str>>(
    command: &[S],
    limit: Duration,
    input: Stdio,
    running: impl FnOnce(),
) -> Result<Ended, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(failed(&"no command is configured"));
    };
    let program = program.as_ref();
    let step = disk::Step::Run {
        program: Path::new(program),
    };
    #[cfg(test)]
    if simulated::there() {
        let begun = disk::step(step, || Ok(()));
        begun.map_err(|error| failed(&format_args!("{program} cannot be run: {error}")))?;
        running();
        let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        return simulated::run(program, &arguments)
            .map(|printed| Ended {
                printed,
                ..Ended::default()
            })
            .map_err(|how| failed(&format_args!("{program} ended with {how}")));
    }
    let mut command = Command::new(program);
    command
        .args(arguments.iter().map(AsRef::as_ref))
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TWINFLASH_") {
            command.env_remove(name);
        }
    }
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let started = disk::step(step, || command.spawn());
    let mut child = match started {
        Ok(child) => child,
        Err(error) => return Err(failed(&format_args!("{program} cannot be run: {error}"))),
    };
    let (printed, errors) = (Tail::of(child.stdout.take()), Tail::of(child.stderr.take()));
    running();
    let ended = wait(&mut child, limit);
    let (printed, errors) = (printed.take(), errors.take());
    let gone = |status| Ended {
        status,
        printed,
        errors,
    };
    let failure = match ended {
        Ok(Some(status)) => return Ok(gone(status)),
        Ok(None) => failed(&format_args!(
            "{program} did not end within {} s and was killed",
            Seconds(limit)
        )),
        Err(error) => failed(&format_args!("{program} cannot be waited for: {error}")),
    };
    gone(ExitStatus::default()).tell(program, true);
    Err(failure)
}

/// A command with its placeholders replaced, such as `{slot}`.
pub(crate) fn fill(command: &[String], values: &[(&str, &str)]) -> Vec<String> {
    let fill = |argument: &String| fill_one(argument, values);
    command.iter().map(fill).collect()
}

/// A text with its placeholders replaced. What a value holds is never replaced again.
pub(crate) fn fill_one(text: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let known = after
            .split_once('}')
            .and_then(|(name, rest)| Some((values.iter().find(|(n, _)| *n == name)?.1, rest)));
        rest = match known {
            Some((value, rest)) => {
                filled.push_str(value);
                rest
            }
            None => {
                filled.push('{');
                after
            }
        };
    }
    filled.push_str(rest);
    filled
}

/// Waits for a child's end; `None` is none within `limit`, and the whole process group is gone.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let ended = wait_until(child, limit)?;
    if ended.is_none() {
        signal(child, false);
        wait_until(child, GRACE)?;
        signal(child, true);
        child.wait()?;
    }
    Ok(ended)
}

fn wait_until(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let since = Instant::now();
    let mut pause = Duration::from_micros(100);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = limit.saturating_sub(since.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Ends a child's process group; a member of it may outlive the child itself.
fn signal(child: &mut Child, kill: bool) {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, Signal, kill_process_group};
        let signal = if kill { Signal::KILL } else { Signal::TERM };
        // It may have ended by now.
        let _ = kill_process_group(Pid::from_child(child), signal);
    }
    #[cfg(not(unix))]
    if kill {
        let _ = child.kill();
    }
}

/// The end of what somebody prints, read on a thread of its own so that nobody waits to print.
struct Tail {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: mpsc::Receiver<()>,
}

impl Tail {
    fn of(output: Option<impl Read + Send + 'static>) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = mpsc::sync_channel(1);
        let to = Arc::clone(&kept);
        let read = move || {
            let Some(mut output) = output else { return };
            let mut buffer = [0; 8192];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let mut kept = to.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(buffer.get(..length).unwrap_or_default());
                if kept.len() > 2 * KEPT {
                    let surplus = kept.len() - KEPT;
                    kept.drain(..surplus);
                }
            }
            let _ = end.send(());
        };
        // Without a thread the pipe is closed and nothing is kept; the command's status still counts.
        let _ = thread::Builder::new()
            .name("twinflash-output".into())
            .spawn(read);
        Self { kept, ended }
    }

    /// What was kept. A process left behind by the command may hold its output open: it is not
    /// waited for.
    fn take(self) -> String {
        let _ = self.ended.recv_timeout(DRAIN);
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        let from = kept.len().saturating_sub(KEPT);
        String::from_utf8_lossy(kept.get(from..).unwrap_or_default()).into_owned()
    }
}

fn end_of(text: &str) -> &str {
    let mut from = text.len().saturating_sub(LOGGED);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text.get(from..).unwrap_or_default()
}

/// Programs that a test plays itself, on the thread that runs them.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::RefCell;

    /// Given a program and its arguments: what it prints, or how it ended.
    type Programs = Box<dyn Fn(&str, &[&str]) -> Result<String, String>>;

    thread_local!(static PROGRAMS: RefCell<Option<Programs>> = const { RefCell::new(None) });

    /// From now on this one plays the programs that this thread runs.
    pub(crate) fn by(programs: Option<Programs>) {
        PROGRAMS.set(programs);
    }

    pub(super) fn there() -> bool {
        PROGRAMS.with_borrow(Option::is_some)
    }

    pub(super) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
        PROGRAMS.with_borrow(|programs| match programs {
            Some(programs) => programs(program, arguments),
            None => Err("nobody who plays it".into()),
        })
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sh(script: &str, limit: Duration) -> Result<String, Failure> {
        run(&["sh", "-c", script], limit)
    }

    #[test]
    fn its_output_is_the_answer() {
        assert_eq!(sh("echo A; echo no >&2", SECOND * 20).unwrap(), "A\n");
        assert_eq!(
            run(&["echo", "$HOME; {x}"], SECOND * 20).unwrap(),
            "$HOME; {x}\n"
        );
        assert_eq!(sh("cat", SECOND * 20).unwrap(), "", "no input");
    }

    #[test]
    fn a_failure_names_the_program_and_its_end_and_no_output() {
        for (script, end) in [
            ("echo secret; echo secret >&2; exit 3", "exit status: 3"),
            ("kill -9 $$", "signal: 9"),
        ] {
            let failure = sh(script, SECOND * 20).unwrap_err();
            assert_eq!(failure.code, Code::InstallFailed);
            assert!(failure.message.starts_with("sh ended with "), "{failure}");
            assert!(failure.message.contains(end), "{failure}");
            assert!(!failure.message.contains("secret"), "{failure}");
        }
        let failure = run(&["/no/such"], SECOND).unwrap_err();
        assert!(
            failure.message.starts_with("/no/such cannot be run: "),
            "{failure}"
        );
        assert!(run::<&str>(&[], SECOND).is_err());
    }

    #[test]
    fn when_its_time_is_up_its_whole_group_ends() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid").display().to_string();
        // Neither of the two takes the hint.
        let script = format!(
            "trap '' TERM; sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' & echo $! > {file}; wait; wait"
        );
        let since = Instant::now();
        let failure = sh(&script, SECOND / 4).unwrap_err();
        assert!(
            failure.message.contains("did not end within 0.25 s"),
            "{failure}"
        );
        assert!(since.elapsed() >= GRACE && since.elapsed() < GRACE + 5 * SECOND);
        let pid = std::fs::read_to_string(&file).unwrap();
        let alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            // A zombie is gone but for its parent's asking.
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        while alive() && since.elapsed() < GRACE + 10 * SECOND {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(!alive());
        // One that takes the hint has no need of more.
        let since = Instant::now();
        sh("sleep 60", SECOND / 10).unwrap_err();
        assert!(since.elapsed() < GRACE);
    }

    #[test]
    fn much_output_holds_up_nothing_and_is_bounded() {
        let text = sh(
            "head -c 3000000 /dev/zero | tr '\\0' x; echo end",
            SECOND * 60,
        )
        .unwrap();
        assert_eq!(text.len(), KEPT);
        assert!(text.ends_with("xend\n"));
    }

    #[test]
    fn who_is_left_behind_is_not_waited_for() {
        let since = Instant::now();
        assert_eq!(
            sh("sleep 20 & echo $!", SECOND * 60)
                .unwrap()
                .lines()
                .count(),
            1
        );
        assert!(since.elapsed() < 10 * SECOND);
    }

    #[test]
    fn no_secret_is_inherited() {
        // Nothing in this process sets one: asked of a process that was given one.
        if crate::testing::child_argument().is_some() {
            assert!(std::env::var_os("TWINFLASH_TEST_CHILD").is_some());
            let names = sh("env | cut -d= -f1", SECOND * 20).unwrap();
            assert!(names.contains("PATH"), "{names}");
            assert!(!names.contains("TWINFLASH"), "{names}");
            return;
        }
        let this = "command::tests::no_secret_is_inherited";
        crate::testing::unprivileged(this, "x".as_ref());
    }

    #[test]
    fn placeholders() {
        let values = [("slot", "{device}"), ("device", "/dev/x")];
        let command = ["a{slot}b".into(), "{device}{".into(), "{other} {}".into()];
        assert_eq!(
            fill(&command, &values),
            ["a{device}b", "/dev/x{", "{other} {}"]
        );
    }
}
